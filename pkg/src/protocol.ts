/** What passes between a model's face and its engine, in a worker or not. Every message is plain data. */

import type { Failure } from "./errors.js";
import type { Blob, WasmMemory, WasmModule } from "./globals.js";
import type { Analyzer, Bm25Parameters, Device, Dtype, OutputKind, Prompts, QuantizedDtype, Role } from "./types.js";

/** A source whose addresses are absolute. */
export type ResolvedSource =
  | { kind: "hub"; name: string; revision?: string; host?: string }
  | { kind: "base"; url: string }
  | { kind: "files"; files: Record<string, string | Blob | ArrayBuffer | Uint8Array> };

export type WasmSource = string | ArrayBuffer | Uint8Array | WasmModule;

/** What a first call tells: it gives the engine its model. */
interface First {
  wasm?: WasmSource;
}

/** Where the model computes, how weights are held, where they are, and how many threads compute; absent what is `"auto"`. */
interface Held {
  device?: Device;
  dtype?: Dtype;
  weights?: string;
  threads?: number;
}

interface ModelCall extends First {
  source: ResolvedSource;
  cache: boolean | "reload";
  headers?: Record<string, string>;
}

export interface LoadCall extends ModelCall {
  kind: "load";
  options: Held & { maxTokens?: number; dimensions?: number; normalize?: boolean; outputs?: readonly OutputKind[]; prompts?: Prompts };
}

export interface LoadRerankerCall extends ModelCall {
  kind: "loadReranker";
  options: Held & { maxTokens?: number; maxQueryTokens?: number; normalize?: boolean };
}

export interface EncodeCall {
  kind: "encode";
  texts: readonly string[];
  options: { role: Role; prompt?: string; outputs?: readonly OutputKind[]; topK?: number };
}

export interface TokenizeCall {
  kind: "tokenize";
  texts: readonly string[];
  role: Role;
}

export interface DecodeCall {
  kind: "decode";
  indices: Uint32Array;
}

export interface RerankCall {
  kind: "rerank";
  query: string;
  texts: readonly string[];
  topK?: number;
}

/** Saved statistics: themselves, or where they are. */
export type Bm25Source = { json: string | Blob } | { url: string };

export interface FitBm25Call extends First {
  kind: "fitBm25";
  texts: readonly string[];
  options: Bm25Parameters;
}

export interface LoadBm25Call extends First {
  kind: "loadBm25";
  source: Bm25Source;
  analyzer?: Analyzer;
}

export interface EncodeBm25Call {
  kind: "encodeBm25";
  texts: readonly string[];
  role: Role;
}

export interface SaveBm25Call {
  kind: "saveBm25";
}

export type Call =
  | LoadCall
  | LoadRerankerCall
  | FitBm25Call
  | LoadBm25Call
  | EncodeCall
  | TokenizeCall
  | DecodeCall
  | RerankCall
  | EncodeBm25Call
  | SaveBm25Call;

export interface Loaded {
  device: Device;
  threads: number;
  dimensions: number;
  maxTokens: number;
  outputs: OutputKind[];
  /** Whether files are still being written to the cache; a message of its own tells when that is done. */
  keeping: boolean;
}

/** Equally wide vectors, one after the other. */
export interface DenseRows {
  values: Float32Array;
  width: number;
}

/** Equally wide vectors of small integers or of bits, one after the other. */
export interface QuantizedRows {
  values: Int8Array | Uint8Array;
  width: number;
  dtype: QuantizedDtype;
}

/** Sparse vectors, one after the other; `ends` says where each ends. */
export interface SparseRows {
  indices: Uint32Array;
  values: Float32Array;
  ends: Uint32Array;
}

/** The token vectors of several texts, one after the other; `ends` says after how many tokens each text ends. */
export interface TokenRows {
  values: Float32Array;
  width: number;
  ends: Uint32Array;
}

export interface Encoded {
  /** What computed the last batch; none of a provider. */
  device?: Device;
  dense?: DenseRows;
  sparse?: SparseRows;
  quantized?: QuantizedRows;
  tokenVectors?: TokenRows;
  tokens: number;
  truncated: Uint32Array;
}

export type Tokenized = [ids: Uint32Array, strings: string[]][];

export interface Reranked {
  /** What computed the last batch; none of a provider. */
  device?: Device;
  indices: Uint32Array;
  scores: Float32Array;
}

/** The answer to each kind of call. */
export interface Answers {
  load: Loaded;
  loadReranker: Pick<Loaded, "device" | "threads" | "maxTokens" | "keeping">;
  fitBm25: Pick<Loaded, "dimensions">;
  loadBm25: Pick<Loaded, "dimensions">;
  encode: Encoded;
  tokenize: Tokenized;
  decode: string[];
  rerank: Reranked;
  encodeBm25: SparseRows;
  saveBm25: string;
}

/** What a helper is started with. */
export interface HelperStart {
  module: WasmModule;
  memory: WasmMemory;
}

/** From an engine's worker: start so many threads. */
export interface HelpersRequest {
  helpers: number;
  start: HelperStart;
}

/** To it: how many take part. */
export interface HelpersReply {
  joined: number;
}

/** To the engine. */
export type Request = { id: number; call: Call } | { id: number; abort: true };

/**
 * Of a browser's worker itself, on its first request: that its script runs, and a lock that it holds as long as it lives, where
 * there are locks.
 */
export type Sign = { started: true } | { lock: string };

/** From the engine: any number of progress messages, then what was done or what failed; and later, of a load that said so, that its files are kept. */
export type Reply =
  | { id: number; progress: { done: number; total: number | undefined; file: string | undefined } }
  | { id: number; done: Answers[keyof Answers] }
  | { id: number; failed: Failure }
  | { id: number; kept: true };
