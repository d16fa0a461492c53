import type { Client } from "./client.js";
import { Model, load, type Host } from "./model.js";
import { list, pick } from "./options.js";
import type { LoadCall, Loaded, TokenRows } from "./protocol.js";
import { spans, sparseRows } from "./sparse.js";
import type { Device, EncodeOptions, LoadOptions, Output, OutputKind, Role, Source, TokenizeOptions, Tokens } from "./types.js";

/**
 * A loaded model.
 *
 * ```js
 * const embedder = await Embedder.load("sentence-transformers/all-MiniLM-L6-v2");
 * const { dense } = await embedder.encode(["The weather is lovely today.", "It's so sunny outside!"]);
 * dense[0]; // Float32Array(384)
 * embedder.dispose();
 * ```
 *
 * Errors are {@link WickError}s. A call that failed or was aborted leaves the embedder as it was; only after the code
 * `"crashed"` must it be loaded again.
 */
export abstract class EmbedderBase extends Model {
  #device: Device;
  /** How many threads compute: those that {@link LoadOptions.threads} asked for, or one where there can be no others. */
  readonly threads: number;
  /** Components of a dense vector; of a model that gives none, entries of the vocabulary. */
  readonly dimensions: number;
  /** Most tokens of a text, special tokens included; what is longer is cut. */
  readonly maxTokens: number;
  /** What the model gives. */
  readonly outputs: readonly OutputKind[];

  protected constructor(client: Client, loaded: Loaded) {
    super(client);
    this.#device = loaded.device;
    this.threads = loaded.threads;
    this.dimensions = loaded.dimensions;
    this.maxTokens = loaded.maxTokens;
    this.outputs = Object.freeze(loaded.outputs);
  }

  /** What computed last. With the device `"auto"` it changes with the size of calls, and with any where a GPU was lost. */
  get device(): Device {
    return this.#device;
  }

  protected static async connect(host: Host, source: Source, options: LoadOptions): Promise<[Client, Loaded]> {
    return load<LoadCall>(host, "load", source, pick(options, "maxTokens", "dimensions", "normalize", "outputs", "prompts"), options);
  }

  /** One result per text, in their order. With the model's default prompt, if it names one. */
  encode(texts: readonly string[], options: EncodeOptions = {}): Promise<Output> {
    return this.#encode(texts, "plain", options);
  }

  /** As {@link encode}, with the model's prompt for queries. */
  encodeQueries(texts: readonly string[], options: EncodeOptions = {}): Promise<Output> {
    return this.#encode(texts, "query", options);
  }

  /** As {@link encode}, with the model's prompt for documents. */
  encodeDocuments(texts: readonly string[], options: EncodeOptions = {}): Promise<Output> {
    return this.#encode(texts, "document", options);
  }

  /** The tokens of each text as the model sees it: prompt, special tokens and truncation included. */
  async tokenize(texts: readonly string[], { role = "plain" }: TokenizeOptions = {}): Promise<Tokens[]> {
    const tokenized = await this.client.call({ kind: "tokenize", texts: list(texts), role });
    return tokenized.map(([ids, strings]) => ({ ids, strings }));
  }

  async #encode(texts: readonly string[], role: Role, options: EncodeOptions): Promise<Output> {
    const { signal, onProgress } = options;
    const report = onProgress && ((done: number, total = 0) => onProgress({ done, total }));
    const call = { kind: "encode", texts: list(texts), options: { role, ...pick(options, "prompt", "outputs", "topK") } } as const;
    const { device, dense, sparse, tokenVectors, tokens, truncated } = await this.client.call(call, signal, report);
    this.#device = device;
    return {
      ...(dense && { dense: rows(dense.values, dense.width) }),
      ...(sparse && { sparse: sparseRows(sparse, (indices) => this.client.call({ kind: "decode", indices })) }),
      ...(tokenVectors && { tokens: tokenRows(tokenVectors) }),
      usage: { tokens, truncated: Array.from(truncated) },
    };
  }
}

/** Equally wide rows, as views. */
function rows(values: Float32Array, width: number): Float32Array[] {
  return Array.from({ length: values.length / width }, (_, index) => values.subarray(index * width, (index + 1) * width));
}

function tokenRows({ values, width, ends }: TokenRows): Float32Array[][] {
  const all = rows(values, width);
  return spans(ends, (start, end) => all.slice(start, end));
}
