/** Everything a caller meets, apart from {@link Embedder} and {@link WickError}. */

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

/** Where a model computes. */
export type Device = "wasm";

export interface LoadOptions {
  /** Where the model computes. `"auto"` is `"wasm"` in this version. */
  device?: "auto" | Device;
  /** How weights are held. `"auto"` is `"f32"` in this version. */
  dtype?: "auto" | "f32";
  /** A branch, tag or commit of a hub model; `"main"` by default. Pin a commit to skip asking the server for changes. */
  revision?: string;
  /** The hub's address; `https://huggingface.co` by default. */
  host?: string;
  /** Sent with every request for a model file, for example `{ authorization: "Bearer hf_..." }`. */
  headers?: Record<string, string>;
  /** Keep files in the browser's Cache API; true by default. Node has no such cache. */
  cache?: boolean;
  /** Cut texts after this many tokens, special tokens included; by default as the model says. */
  maxTokens?: number;
  /** Keep this many leading components of each vector, for models trained that way. */
  dimensions?: number;
  /** Scale vectors to unit length; by default as the model says. */
  normalize?: boolean;
  /** Work in a worker, so that the page stays alive; true by default. */
  worker?: boolean;
  /** The engine's module, where a bundler cannot find it by itself: an address, bytes, or a compiled module. */
  wasm?: string | URL | ArrayBuffer | Uint8Array | WebAssembly.Module;
  onProgress?: (progress: LoadProgress) => void;
  /** Stops the download. */
  signal?: AbortSignal;
}

export interface EncodeProgress {
  /** Texts done. */
  done: number;
  total: number;
}

export interface EncodeOptions {
  onProgress?: (progress: EncodeProgress) => void;
  /** Stops between two batches. */
  signal?: AbortSignal;
}

export interface Usage {
  /** Tokens that went through the model, special tokens included. */
  tokens: number;
  /** Indices of the texts that were cut to {@link Embedder.maxTokens}. */
  truncated: number[];
}

export interface Output {
  /** One vector per text, in the order of the texts. All are views of one buffer. */
  dense: Float32Array[];
  usage: Usage;
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
