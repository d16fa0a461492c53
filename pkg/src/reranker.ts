import type { Client } from "./client.js";
import { Model, load, type Host } from "./model.js";
import { list, only, pick } from "./options.js";
import type { Answers, LoadRerankerCall, Reranked } from "./protocol.js";
import type { Device, RerankOptions, Ranked, RerankerLoadOptions, Source } from "./types.js";

/** What orders documents by how well they answer a query, here or at a provider's. */
export abstract class TextReranker extends Model {
  /** The documents, best first, each with its score and its place among `documents`. */
  async rerank(query: string, documents: readonly string[], options: RerankOptions = {}): Promise<Ranked[]> {
    only(options, ["topK", "signal", "onProgress"]);
    const { signal, onProgress } = options;
    const report = onProgress && ((done: number, total = 0) => onProgress({ done, total }));
    const texts = list(documents);
    const reranked = await this.client.call({ kind: "rerank", query, texts, ...pick(options, "topK") }, signal, report);
    this.received(reranked);
    const { indices, scores } = reranked;
    return Array.from(indices, (index, at) => ({ index, score: scores[at] as number, text: texts[index] as string }));
  }

  /** An answer came. */
  protected received(_: Reranked): void {}
}

/**
 * A loaded cross-encoder: reads a query and a document together, and says how well they fit.
 *
 * ```js
 * const reranker = await Reranker.load("BAAI/bge-reranker-base");
 * const [best] = await reranker.rerank("What is a panda?", ["hi", "The giant panda is a bear from China."], { topK: 1 });
 * best; // { index: 1, score: 0.98, text: "The giant panda is a bear from China." }
 * ```
 */
export abstract class RerankerBase extends TextReranker {
  #device: Device;
  /** How many threads compute: those that {@link RerankerLoadOptions.threads} asked for, or one where there can be no others. */
  readonly threads: number;
  /** Most tokens of a query and a document together, special tokens included; what is longer is cut. */
  readonly maxTokens: number;

  protected constructor(client: Client, loaded: Answers["loadReranker"]) {
    super(client);
    this.#device = loaded.device;
    this.threads = loaded.threads;
    this.maxTokens = loaded.maxTokens;
  }

  /** What computed last. With the device `"auto"` it changes with the size of calls, and with any where a GPU was lost. */
  get device(): Device {
    return this.#device;
  }

  protected static async connect(host: Host, source: Source, options: RerankerLoadOptions): Promise<[Client, Answers["loadReranker"]]> {
    return load<LoadRerankerCall, RerankerLoadOptions>(host, "loadReranker", source, ["maxTokens", "maxQueryTokens", "normalize"], options);
  }

  protected override received({ device }: Reranked): void {
    if (device) this.#device = device;
  }
}
