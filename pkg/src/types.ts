/** Everything a caller meets, apart from the classes. */

import type { AbortSignal, Blob, Headers, RequestInit, Response, URL, WasmModule, Worker } from "./globals.js";
import type { SparseVector } from "./sparse.js";

/** One file: an address, or its bytes. Relative addresses count from the page, or in Node from the working directory. */
export type FileSource = string | URL | Blob | ArrayBuffer | Uint8Array;

/**
 * Where a model is:
 * - a name on the hub, `"org/name"` or `"org/name@revision"`;
 * - the address of a folder: a `URL`, or a string that starts with a scheme, `/`, `./` or `../` (in Node also a path);
 * - a map from file names (`"config.json"`, `"1_Pooling/config.json"`, ...) to files.
 */
export type Source = string | URL | Record<string, FileSource>;

/** How many bytes of all files have arrived. */
export interface LoadProgress {
  loaded: number;
  /** Of all files together; absent while a server has not said how long a file is. */
  total?: number;
  /** The file that the latest bytes belong to. */
  file: string;
}

/**
 * Where a model computes: on the processor, on a GPU, or for checking those on the processor with Candle. `"reference"` runs every
 * model by Candle's stock operations, slowly; `"candle-transformers"` is that crate's own code for BERT, and for SPLADE on BERT.
 * Both fetch a module of their own.
 */
export type Device = "wasm" | "webgpu" | "reference" | "candle-transformers";

/** How large weights are held; `"int8"` is eight bits for each, and a scale per row. */
export type Dtype = "f32" | "f16" | "int8";

/** A kind of result: one vector per text, weights over the vocabulary, or one vector per token. */
export type OutputKind = "dense" | "sparse" | "tokens";

/** What is put before texts. */
export interface Prompts {
  query?: string;
  document?: string;
}

/** How the engine runs. */
export interface EngineOptions {
  /**
   * Work in a worker, so that the page stays alive. By default a worker of the package's own, where there are workers; in a service
   * worker or a shared worker, which have none, this thread. False: this thread. Where a bundler or another origin needs it: the
   * address of a script that imports `wick-embed/worker`, or a function that makes such a worker, anew in each call.
   */
  worker?: boolean | string | URL | (() => Worker);
  /**
   * The engine's module, where a bundler cannot find it by itself: an address, bytes, or a compiled module. It is taken as it
   * is: the build whose name has `relaxed` needs relaxed SIMD, and `wick_reference_bg.wasm` is for the devices of that kind.
   */
  wasm?: string | URL | ArrayBuffer | Uint8Array | WasmModule;
  /** Stops. */
  signal?: AbortSignal;
}

/** What can be said of every model that is loaded from files. */
export interface ModelOptions extends EngineOptions {
  /**
   * Where the model computes. `"auto"`, the default, loads it for the processor; in a call of several seconds it also tries the GPU, which from then on takes the
   * batches that it computes faster, if its values are right. The two agree within a cosine of 0.99999 (0.98 with `int8`), not bit for bit. `"webgpu"` computes on the GPU alone and needs no memory for
   * weights beside it; without a GPU that computes right values it is the error `no_device`, and when the GPU is lost or full the model is loaded again, or for the processor.
   */
  device?: "auto" | Device;
  /** How large weights are held; `"auto"`, the default, is as the file stores them (bf16 as f32). */
  dtype?: "auto" | Dtype;
  /**
   * How many threads compute, 1 to 64; by default as many as the machine runs at once, at most 8. More than one needs a worker, and
   * in a browser a page that is cross-origin isolated; elsewhere it is one, as `threads` of the loaded model then says.
   */
  threads?: number;
  /** The file with the weights, where it has none of the usual names. */
  weights?: string;
  /** A branch, tag or commit of a hub model; `"main"` by default. Pin a commit to skip asking the server for changes. */
  revision?: string;
  /** The hub's address; `https://huggingface.co` by default. */
  host?: string;
  /**
   * Sent with every request for a model file, for example `{ authorization: "Bearer hf_..." }`. With any other header than `authorization`
   * redirects are not followed, since they would carry it along to another server.
   */
  headers?: Record<string, string>;
  /**
   * Keep files in the browser's Cache API; true by default. `"reload"` fetches all of them again, also what the server says has not
   * changed, and keeps them in place of the old ones. Node has no such cache.
   */
  cache?: boolean | "reload";
  onProgress?: (progress: LoadProgress) => void;
}

export interface LoadOptions extends ModelOptions {
  /** Cut texts after this many tokens, special tokens included; by default as the model says. */
  maxTokens?: number;
  /** Keep this many leading components of each dense vector, for models trained that way. */
  dimensions?: number;
  /** Scale vectors to unit length; by default as the model says. */
  normalize?: boolean;
  /** What the model is to give; all it can by default. What is left out costs neither memory nor time. */
  outputs?: readonly OutputKind[];
  /** Put before queries and documents; by default what the model's files say, or what is known for its name. */
  prompts?: Prompts;
}

export interface RerankerLoadOptions extends ModelOptions {
  /** Cut pairs after this many tokens, special tokens included; by default as the model says. */
  maxTokens?: number;
  /**
   * Cut queries after this many tokens, and then only the document to what is left: FlagEmbedding's rule for BGE rerankers
   * (there 256). Without it the longer of the two is cut.
   */
  maxQueryTokens?: number;
  /** Scores between 0 and 1, by the logistic function; by default as the model says, else true. */
  normalize?: boolean;
}

/**
 * Whose protocol is spoken. Others speak it, too: `"openai"` with a `baseUrl` is Azure, vLLM, Ollama and `wick serve`; `"tei"` is
 * text-embeddings-inference.
 */
export type Provider = "openai" | "cohere" | "voyage" | "jina" | "mistral" | "gemini" | "nomic" | "tei";

/** How a provider is spoken to. `docs/providers.md` says what each can do; what one has no field for is refused. */
export interface RemoteOptions {
  /** Any name that the provider knows; a server of one model may do without. */
  model?: string;
  /** The key, or a function that is asked for it before each request. It is sent in a header and kept nowhere else. */
  apiKey?: string | (() => string | Promise<string>) | undefined;
  /** Where the provider is, in place of its own address: a proxy, or a server of one's own. */
  baseUrl?: string | URL | undefined;
  /** Sent with each request; one of ours is replaced. */
  headers?: Record<string, string> | Headers;
  /** How long a request may take, until its answer's last byte; 60,000 by default. */
  timeoutMs?: number;
  /** How often a request is sent again after a failure that may pass; 2 by default. */
  maxRetries?: number;
  /** Requests at a time; 4 by default. */
  concurrency?: number;
  /** Most texts of a request, where the provider's own limit does not fit. */
  batchSize?: number;
  /** Most tokens of a request, as they are estimated here. */
  batchTokens?: number;
  /** What happens to texts that are too long: they are errors, or their beginning or end is cut off. */
  truncate?: "none" | "start" | "end";
  /** Further fields for each request's body, as they stand. */
  extra?: Record<string, unknown>;
  /** Sends the requests; the page's own by default. */
  fetch?: (url: string, init: RequestInit) => Promise<Response>;
  /** The module, where a bundler cannot find it by itself: `wick_remote_bg.wasm`. All of a thread share it: the first that starts decides. */
  wasm?: NonNullable<EngineOptions["wasm"]>;
}

/** How numbers of a vector come that are no floats: eight bits each, or eight dimensions in each. */
export type QuantizedDtype = "int8" | "uint8" | "binary" | "ubinary";

export interface RemoteEmbedderOptions extends RemoteOptions {
  /** What is asked for where a call does not say; dense vectors by default. */
  outputs?: readonly OutputKind[];
  /** Ask for vectors of so many dimensions. */
  dimensions?: number;
  /** How many dimensions a model that is not known here has by itself. It is checked, and not sent. */
  nativeDimensions?: number;
  /** What the numbers are; `"float"` by default, and anything else comes as {@link Output.quantized}. */
  outputDtype?: "float" | QuantizedDtype;
  /** How they are sent. */
  encodingFormat?: "float" | "base64";
  /** What texts are for, in the provider's words, where the call is a plain `encode`. */
  task?: string;
  /** The title of the documents. */
  title?: string;
  /** Texts of a call are parts of one document and are encoded together; they then are one request. */
  lateChunking?: boolean;
  /** Whether vectors are scaled to unit length here; by default as the provider documents that they come. */
  normalize?: boolean;
  /** Put before texts here, for servers that have no roles of their own. */
  prompts?: Prompts;
}

export interface RemoteRerankerOptions extends RemoteOptions {}

export interface EncodeProgress {
  /** Texts done. */
  done: number;
  total: number;
}

export interface EncodeOptions {
  /** What to give of {@link Embedder.outputs}; all by default. */
  outputs?: readonly OutputKind[];
  /** Keep the so many largest weights of each sparse vector. */
  topK?: number;
  /** Another prompt than the role's, put before each text as it stands. */
  prompt?: string;
  /** True: give all vectors in one array; see {@link FlatOutput}. */
  flat?: false;
  onProgress?: (progress: EncodeProgress) => void;
  /** Stops between two batches, at a provider at once. */
  signal?: AbortSignal;
}

export interface FlatEncodeOptions extends Omit<EncodeOptions, "flat"> {
  flat: true;
}

export interface VerifyOptions {
  /** What the texts are for; `"plain"` by default. */
  role?: Role;
  /** The model's files, where it was loaded from bytes: those are not kept. */
  source?: Source;
  /** The module with Candle, where a bundler cannot find it by itself: `wick_reference_bg.wasm`. */
  wasm?: NonNullable<EngineOptions["wasm"]>;
  /** Of the model's files, which are loaded again for each comparison. */
  onProgress?: (progress: LoadProgress) => void;
  signal?: AbortSignal;
}

export interface RerankOptions {
  /** Give only the so many best documents. */
  topK?: number;
  onProgress?: (progress: EncodeProgress) => void;
  /** Stops between two batches, at a provider at once. */
  signal?: AbortSignal;
}

/** How BM25 makes words of a text: as a document's, so a query's. */
export interface Analyzer {
  /** `"nltk"` gives the words of pymilvus's analyzers; `"unicode"`, word boundaries of UAX 29, is better for other languages than English. */
  kind: "nltk" | "unicode";
  /** ISO 639-1; it brings a stemmer, and stop words if there is a list. English for `"nltk"`, and none for `"unicode"`. */
  language?: string;
  /** Other stop words, or none. */
  stopWords?: boolean | readonly string[];
  /** False: leave words as they are. */
  stem?: boolean;
}

export interface Bm25Parameters {
  /** `{ kind: "nltk", language: "en" }` by default. */
  analyzer?: Analyzer;
  /** Where the count of a word saturates; 1.5 by default. */
  k1?: number;
  /** How much a document's length counts, 0 to 1; 0.75 by default. */
  b?: number;
  /** What share of the mean a negative inverse document frequency is replaced with; 0.25 by default. */
  epsilon?: number;
}

export interface Bm25FitOptions extends Bm25Parameters, EngineOptions {}

/** Saved statistics: JSON as a string, an object or a file, or where it is. */
export type Bm25Statistics = string | object | URL | Blob;

export interface Bm25LoadOptions extends EngineOptions {
  /** The one of the fit; `{ kind: "nltk", language: "en" }` by default. */
  analyzer?: Analyzer;
}

export interface Bm25Output {
  /** One vector per text, in the order of the texts. */
  sparse: SparseVector[];
}

/** A document's place in the order. */
export interface Ranked {
  /** Which of the documents. */
  index: number;
  score: number;
  text: string;
}

export interface Usage {
  /** Tokens that went through the model, special tokens included. */
  tokens: number;
  /** Indices of the texts that were cut to {@link Embedder.maxTokens}. A provider does not tell, so that there are none. */
  truncated: number[];
}

/** For each text, in their order, what the model gives and the call asked for. Each array has a buffer of its own. */
export interface Output {
  /** A vector. */
  dense?: Float32Array[];
  /** Weights over the vocabulary. */
  sparse?: SparseVector[];
  /** In place of `dense`, where a provider was asked for another dtype. */
  quantized?: QuantizedVectors;
  /** A vector for each token but the first, for late interaction. */
  tokens?: Float32Array[][];
  usage: Usage;
}

/** Vectors of small integers, or of bits. */
export type QuantizedVectors = SignedVectors | UnsignedVectors;

/** One per text. Of `"binary"` each number holds eight dimensions, as the byte of `"ubinary"` less 128. */
export interface SignedVectors {
  dtype: "int8" | "binary";
  vectors: Int8Array[];
}

/** One per text. Of `"ubinary"` each number holds eight dimensions, the first in the most significant bit. */
export interface UnsignedVectors {
  dtype: "uint8" | "ubinary";
  vectors: Uint8Array[];
}

/** Vectors of equal length, one after the other: that of text `i` begins at `i * dimensions`. */
export interface FlatVectors<T = Float32Array> {
  data: T;
  /** Numbers of each vector. */
  dimensions: number;
}

/** As {@link Output}, with the vectors of all texts in one array of each kind. */
export interface FlatOutput {
  dense?: FlatVectors;
  /** Entries of all texts, one after the other; `ends[i]` is where those of text `i` end. */
  sparse?: { indices: Uint32Array; values: Float32Array; ends: Uint32Array };
  /** Of bits each number holds eight. */
  quantized?: FlatVectors<Int8Array | Uint8Array> & { dtype: QuantizedDtype };
  /** Token vectors of all texts, one after the other; `ends[i]` is how many there are up to the end of text `i`. */
  tokens?: FlatVectors & { ends: Uint32Array };
  usage: Usage;
}

/** How alike two results of the same texts are. */
export interface Alike {
  /** The cosine of each text's two vectors; of token vectors, of all of a text's together. */
  cosines: number[];
  /** The largest difference between two components, over all texts. */
  difference: number;
}

/** For each kind of result that both gave. */
export type Agreement = { [kind in OutputKind]?: Alike };

/** What {@link Embedder.verify} found. */
export interface Verification {
  /** Beside Candle's stock operations, with weights held as the embedder holds them. */
  reference: Agreement;
  /** Beside candle-transformers' own BERT, in f32; absent where that has no such model. */
  candleTransformers?: Agreement;
}

/** What a sparse vector consists of; indices ascend. */
export interface SparseEntries {
  indices: Uint32Array | readonly number[];
  values: Float32Array | readonly number[];
}

/** An entry of a sparse vector in words. */
export interface TokenWeight {
  /** The vocabulary's string. */
  token: string;
  weight: number;
}

/** Scores of a pair by kind, or their weights. */
export interface HybridScores {
  dense?: number;
  sparse?: number;
  colbert?: number;
}

/** What a text is for; models may put another prompt before each. */
export type Role = "plain" | "query" | "document";

export interface TokenizeOptions {
  /** `"plain"` by default. */
  role?: Role;
}

/** A text as the model sees it. */
export interface Tokens {
  ids: Uint32Array;
  /** The vocabulary's string of each id. */
  strings: string[];
}
