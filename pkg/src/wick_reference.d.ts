/* tslint:disable */
/* eslint-disable */

export class Bm25Engine {
    private constructor();
    free(): void;
    [Symbol.dispose](): void;
    /**
     * The term of each index.
     */
    decode(indices: Uint32Array | number[]): Array<any>;
    /**
     * What it is.
     */
    describe(): any;
    /**
     * Encodes an array of strings; what is no query is a document.
     */
    encode(values: Array<any>, role: string): any;
    /**
     * Counts the terms of an array of strings.
     */
    static fit(corpus: Array<any>, fit_options: any): Bm25Engine;
    /**
     * Reads what was saved, by this or by pymilvus; without an analyzer it is the default one.
     */
    static load(json: Uint8Array | number[], analyzer: any): Bm25Engine;
    /**
     * The statistics as JSON.
     */
    save(): string;
}

export class EmbedderEngine {
    private constructor();
    free(): void;
    [Symbol.dispose](): void;
    /**
     * The vocabulary's string of each index.
     */
    decode(indices: Uint32Array | number[]): Array<any>;
    /**
     * What the model is.
     */
    describe(): any;
    /**
     * Encodes an array of strings.
     */
    encode(values: Array<any>, encode_options: any, progress?: Function | null, signal?: AbortSignal | null): Promise<any>;
    /**
     * Loads a model. `cache` says whether files are kept; `fetch` takes an address and a `RequestInit`; `abort` stops the
     * load, and is used to end its requests when it fails.
     */
    static load(from: any, load_options: any, cache: boolean, fetch: Function, progress: Function | null | undefined, abort: AbortController): Promise<EmbedderEngine>;
    /**
     * `[ids, strings]` of each text.
     */
    tokenize(values: Array<any>, role: string): Array<any>;
}

export class RerankerEngine {
    private constructor();
    free(): void;
    [Symbol.dispose](): void;
    /**
     * What the model is.
     */
    describe(): any;
    /**
     * As [`EmbedderEngine::load`](super::embedder::EmbedderEngine::load).
     */
    static load(from: any, load_options: any, cache: boolean, fetch: Function, progress: Function | null | undefined, abort: AbortController): Promise<RerankerEngine>;
    /**
     * Scores and orders an array of strings for a query.
     */
    rerank(query: any, documents: Array<any>, top_k?: number | null, progress?: Function | null, signal?: AbortSignal | null): Promise<any>;
}

/**
 * Takes part in the engine's work; does not return.
 */
export function help(): void;

/**
 * The address of a number of 32 bits. Who writes one there says that a helper trapped; the engine then traps too, instead of waiting.
 */
export function lostAddress(): number;

/**
 * What the first panic said.
 */
export function panicMessage(): string;

/**
 * Keeps a panic's message: all that JavaScript sees of one is a trap.
 */
export function start(): void;

export type InitInput = RequestInfo | URL | Response | BufferSource | WebAssembly.Module;

export interface InitOutput {
    readonly memory: WebAssembly.Memory;
    readonly __wbg_bm25engine_free: (a: number, b: number) => void;
    readonly __wbg_embedderengine_free: (a: number, b: number) => void;
    readonly __wbg_rerankerengine_free: (a: number, b: number) => void;
    readonly bm25engine_decode: (a: number, b: number, c: number) => any;
    readonly bm25engine_describe: (a: number) => [number, number, number];
    readonly bm25engine_encode: (a: number, b: any, c: number, d: number) => [number, number, number];
    readonly bm25engine_fit: (a: any, b: any) => [number, number, number];
    readonly bm25engine_load: (a: number, b: number, c: any) => [number, number, number];
    readonly bm25engine_save: (a: number) => [number, number];
    readonly embedderengine_decode: (a: number, b: number, c: number) => any;
    readonly embedderengine_describe: (a: number) => [number, number, number];
    readonly embedderengine_encode: (a: number, b: any, c: any, d: number, e: number) => any;
    readonly embedderengine_load: (a: any, b: any, c: number, d: any, e: number, f: any) => any;
    readonly embedderengine_tokenize: (a: number, b: any, c: number, d: number) => [number, number, number];
    readonly help: () => void;
    readonly lostAddress: () => number;
    readonly panicMessage: () => [number, number];
    readonly rerankerengine_describe: (a: number) => [number, number, number];
    readonly rerankerengine_load: (a: any, b: any, c: number, d: any, e: number, f: any) => any;
    readonly rerankerengine_rerank: (a: number, b: any, c: any, d: number, e: number, f: number) => any;
    readonly start: () => void;
    readonly wasm_bindgen__convert__closures_____invoke__h5dbab9cfce0c4932: (a: number, b: number, c: any) => [number, number];
    readonly wasm_bindgen__convert__closures_____invoke__h610f3bfe5dcb0ced: (a: number, b: number, c: any, d: any) => void;
    readonly wasm_bindgen__convert__closures_____invoke__h2f2014c7cf76e3d9: (a: number, b: number) => void;
    readonly __wbindgen_malloc: (a: number, b: number) => number;
    readonly __wbindgen_realloc: (a: number, b: number, c: number, d: number) => number;
    readonly __wbindgen_free: (a: number, b: number, c: number) => void;
    readonly __externref_table_alloc: () => number;
    readonly __wbindgen_externrefs: WebAssembly.Table;
    readonly __wbindgen_exn_store: (a: number) => void;
    readonly __wbindgen_destroy_closure: (a: number, b: number) => void;
    readonly __externref_table_dealloc: (a: number) => void;
    readonly __wbindgen_start: () => void;
}

export type SyncInitInput = BufferSource | WebAssembly.Module;

/**
 * Instantiates the given `module`, which can either be bytes or
 * a precompiled `WebAssembly.Module`.
 *
 * @param {{ module: SyncInitInput }} module - Passing `SyncInitInput` directly is deprecated.
 *
 * @returns {InitOutput}
 */
export function initSync(module: { module: SyncInitInput } | SyncInitInput): InitOutput;

/**
 * If `module_or_path` is {RequestInfo} or {URL}, makes a request and
 * for everything else, calls `WebAssembly.instantiate` directly.
 *
 * @param {{ module_or_path: InitInput | Promise<InitInput> }} module_or_path - Passing `InitInput` directly is deprecated.
 *
 * @returns {Promise<InitOutput>}
 */
export default function __wbg_init (module_or_path: { module_or_path: InitInput | Promise<InitInput> } | InitInput | Promise<InitInput>): Promise<InitOutput>;
