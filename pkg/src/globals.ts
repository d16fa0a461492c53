/**
 * Types of the platform that a caller meets, as the caller's own libraries declare them. With a library that lacks one, such as
 * Node's types for `WebAssembly` and `Worker`, the package's declarations are valid all the same.
 */

/** Instances of a global class; `Otherwise` where no library declares it. */
type Instance<Name extends string, Otherwise> = typeof globalThis extends { [name in Name]: { prototype: infer T } } ? T : Otherwise;

type AbortSignalOf = Instance<"AbortSignal", { readonly aborted: boolean; readonly reason: any }>;
type BlobOf = Instance<"Blob", { readonly size: number; readonly type: string; arrayBuffer(): Promise<ArrayBuffer> }>;
type HeadersOf = Instance<"Headers", { get(name: string): string | null; has(name: string): boolean }>;
type ResponseOf = Instance<"Response", { readonly ok: boolean; readonly status: number; readonly headers: HeadersOf; arrayBuffer(): Promise<ArrayBuffer> }>;
type RequestInitOf = typeof globalThis extends { fetch(input: any, init?: infer Init): any } ? NonNullable<Init> : { method?: string; headers?: unknown; body?: unknown; signal?: AbortSignalOf };
type UrlOf = Instance<"URL", { readonly href: string; toString(): string }>;
type WasmModuleOf = typeof globalThis extends { WebAssembly: { Module: { prototype: infer T } } } ? T : object;
type WasmMemoryOf = typeof globalThis extends { WebAssembly: { Memory: { prototype: infer T } } } ? T : object;
type WorkerOf = Instance<"Worker", { postMessage(message: any, transfer?: any): void; terminate(): void }>;

export type {
  AbortSignalOf as AbortSignal,
  BlobOf as Blob,
  HeadersOf as Headers,
  RequestInitOf as RequestInit,
  ResponseOf as Response,
  UrlOf as URL,
  WasmMemoryOf as WasmMemory,
  WasmModuleOf as WasmModule,
  WorkerOf as Worker,
};
