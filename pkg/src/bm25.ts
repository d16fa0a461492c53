import type { Client } from "./client.js";
import { ENGINE, Model, open, type Host } from "./model.js";
import { invalid, list, only, pick } from "./options.js";
import type { Answers, Bm25Source } from "./protocol.js";
import { sparseRows } from "./sparse.js";
import type { Bm25FitOptions, Bm25LoadOptions, Bm25Output, Bm25Statistics } from "./types.js";

const PARAMETERS = ["analyzer", "k1", "b", "epsilon"] as const;

/**
 * The statistics of a corpus, for sparse vectors whose inner product is the BM25 score. No model, so nothing is downloaded.
 *
 * ```js
 * const bm25 = await BM25.fit(corpus);
 * const { sparse } = await bm25.encodeDocuments(corpus);
 * const query = (await bm25.encodeQueries(["Where was Turing born?"])).sparse[0];
 * lexicalScore(query, sparse[0]);
 * ```
 *
 * A document holds how often each word occurs, a query how rare each is, so there is no plain `encode`.
 */
export abstract class BM25Base extends Model {
  /** Words of the vocabulary; every index is below. */
  readonly dimensions: number;

  protected constructor(client: Client, loaded: Answers["fitBm25"]) {
    super(client);
    this.dimensions = loaded.dimensions;
  }

  protected static async fitted(host: Host, corpus: readonly string[], options: Bm25FitOptions): Promise<[Client, Answers["fitBm25"]]> {
    only(options, [...PARAMETERS, ...ENGINE]);
    const call = { kind: "fitBm25", texts: list(corpus), options: pick(options, ...PARAMETERS) } as const;
    return open(host, call, options);
  }

  protected static async loaded(host: Host, json: Bm25Statistics, options: Bm25LoadOptions): Promise<[Client, Answers["loadBm25"]]> {
    only(options, ["analyzer", ...ENGINE]);
    return open(host, { kind: "loadBm25", source: source(json), ...pick(options, "analyzer") }, options);
  }

  /** One vector per document, in their order. Words that the corpus did not hold are left out. */
  encodeDocuments(texts: readonly string[]): Promise<Bm25Output> {
    return this.#encode(texts, "document");
  }

  /** One vector per query, in their order. */
  encodeQueries(texts: readonly string[]): Promise<Bm25Output> {
    return this.#encode(texts, "query");
  }

  /** The statistics as JSON, that `BM25.load` reads, and pymilvus too. The analyzer is not part of it. */
  save(): Promise<string> {
    return this.client.call({ kind: "saveBm25" });
  }

  async #encode(texts: readonly string[], role: "query" | "document"): Promise<Bm25Output> {
    const rows = await this.client.call({ kind: "encodeBm25", texts: list(texts), role });
    return { sparse: sparseRows(rows, (indices) => this.client.call({ kind: "decode", indices })) };
  }
}

function source(json: Bm25Statistics): Bm25Source {
  if (json instanceof URL) return { url: json.href };
  if (typeof json === "string" || json instanceof Blob) return { json };
  if (typeof json !== "object" || json === null) throw invalid("json", "it must be JSON, an object, a URL or a Blob");
  try {
    return { json: JSON.stringify(json) };
  } catch (cause) {
    throw invalid("json", "it has no JSON form", cause);
  }
}
