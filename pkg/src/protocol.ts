/** What passes between an {@link Embedder} and its engine, in a worker or not. Every message is plain data. */

import type { Failure } from "./errors.js";
import type { Device, Role } from "./types.js";

/** A source whose addresses are absolute. */
export type ResolvedSource =
  | { kind: "hub"; name: string; revision?: string; host?: string }
  | { kind: "base"; url: string }
  | { kind: "files"; files: Record<string, string | Blob | ArrayBuffer | Uint8Array> };

/** The options that the engine itself reads. */
export interface EngineOptions {
  maxTokens?: number;
  dimensions?: number;
  normalize?: boolean;
}

export type WasmSource = string | ArrayBuffer | Uint8Array | WebAssembly.Module;

export interface LoadCall {
  kind: "load";
  source: ResolvedSource;
  options: EngineOptions;
  cache: boolean;
  headers?: Record<string, string>;
  wasm?: WasmSource;
}

export interface EncodeCall {
  kind: "encode";
  texts: readonly string[];
  role: Role;
}

export interface TokenizeCall {
  kind: "tokenize";
  texts: readonly string[];
  role: Role;
}

export type Call = LoadCall | EncodeCall | TokenizeCall;

export interface Loaded {
  device: Device;
  dimensions: number;
  maxTokens: number;
}

export interface Encoded {
  /** All vectors, one after the other. */
  dense: Float32Array;
  tokens: number;
  truncated: Uint32Array;
}

export type Tokenized = [ids: Uint32Array, strings: string[]][];

/** The answer to each kind of call. */
export interface Answers {
  load: Loaded;
  encode: Encoded;
  tokenize: Tokenized;
}

/** To the engine. */
export type Request = { id: number; call: Call } | { id: number; abort: true };

/** From the engine: any number of progress messages, then one of the others. */
export type Reply =
  | { id: number; progress: { done: number; total: number | undefined; file: string | undefined } }
  | { id: number; done: Answers[keyof Answers] }
  | { id: number; failed: Failure };
