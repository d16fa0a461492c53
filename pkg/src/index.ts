/** The package in a browser. Importing it does nothing: no worker, no fetch, no look at the surroundings. */

import { BM25Base } from "./bm25.js";
import { EmbedderBase } from "./embedder.js";
import { host } from "./host.web.js";
import { RerankerBase } from "./reranker.js";
import type { RemoteEmbedder, RemoteReranker } from "./remote.js";
import type {
  Bm25FitOptions,
  Bm25LoadOptions,
  Bm25Statistics,
  LoadOptions,
  Provider,
  RemoteEmbedderOptions,
  RemoteRerankerOptions,
  RerankerLoadOptions,
  Source,
} from "./types.js";

export type { TextEmbedder } from "./embedder.js";
export { WickError, type Code, type ProviderFailure } from "./errors.js";
export type { RemoteEmbedder, RemoteReranker } from "./remote.js";
export type { TextReranker } from "./reranker.js";
export { colbertScore, hybridScore, lexicalScore } from "./score.js";
export { SparseVector } from "./sparse.js";
export type * from "./types.js";

export class Embedder extends EmbedderBase {
  /** Loads a model. Ask for nothing else in `options` and the model's own files decide everything. */
  static async load(source: Source, options: LoadOptions = {}): Promise<Embedder> {
    return new Embedder(await Embedder.connect(host, source, options), source, options);
  }

  protected override another(source: Source, options: LoadOptions): Promise<Embedder> {
    return Embedder.load(source, options);
  }

  /**
   * A provider's model, with the same calls and results. Options that the provider cannot honour are refused here; nothing is sent
   * before the first call. A key in a page is seen by whoever opens it: see `docs/providers.md`.
   */
  static async remote(provider: Provider, options: RemoteEmbedderOptions = {}): Promise<RemoteEmbedder> {
    return (await host.remote()).RemoteEmbedder.open(host, provider, options);
  }
}

export class Reranker extends RerankerBase {
  /** Loads a model. Ask for nothing else in `options` and the model's own files decide everything. */
  static async load(source: Source, options: RerankerLoadOptions = {}): Promise<Reranker> {
    return new Reranker(...(await Reranker.connect(host, source, options)));
  }

  /** As {@link Embedder.remote}: Cohere, Voyage, Jina or text-embeddings-inference. */
  static async remote(provider: Provider, options: RemoteRerankerOptions = {}): Promise<RemoteReranker> {
    return (await host.remote()).RemoteReranker.open(host, provider, options);
  }
}

export class BM25 extends BM25Base {
  /** Counts the words of a corpus. */
  static async fit(corpus: readonly string[], options: Bm25FitOptions = {}): Promise<BM25> {
    return new BM25(...(await BM25.fitted(host, corpus, options)));
  }

  /** Reads what was saved: JSON as a string or object, or where it is. The analyzer must be the one of the fit. */
  static async load(json: Bm25Statistics, options: Bm25LoadOptions = {}): Promise<BM25> {
    return new BM25(...(await BM25.loaded(host, json, options)));
  }
}
