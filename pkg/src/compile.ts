/** A module's bytes become a module, and its failures an error. */

import { isFailure, type Failure } from "./errors.js";
import type { WasmSource } from "./protocol.js";

export type Fetch = (url: string, init: RequestInit) => Promise<Response>;

export async function compile(source: WasmSource, fetch: Fetch): Promise<WebAssembly.Module> {
  if (typeof source !== "string") return isModule(source) ? source : WebAssembly.compile(source as BufferSource);
  const response = await fetch(source, {});
  if (!response.ok) throw new Error(`${source}: the server answered ${response.status}`);
  // While it arrives, where the server says what it is.
  const named = /^application\/wasm\b/i.test(response.headers.get("content-type") ?? "");
  return named ? WebAssembly.compileStreaming(response) : WebAssembly.compile(await response.arrayBuffer());
}

/** The address of one of the package's modules. Where a bundler moved the scripts away from it, there may be none. */
export function placed(file: () => URL): string {
  try {
    return new URL(file().href, globalThis.location?.href).href;
  } catch {
    const message =
      "the engine did not start: this script was moved away from its module, by a bundler that does not know it. " +
      "Leave the package out of the bundle (Next.js: `serverExternalPackages`), or hand in the module: option `wasm`, exports `wick-embed/*.wasm`";
    throw { code: "executor", at: "wasm", message } satisfies Failure;
  }
}

/** Also of one that comes from another window. */
function isModule(source: object): source is WebAssembly.Module {
  return Object.prototype.toString.call(source) === "[object WebAssembly.Module]";
}

interface Glue {
  default(input: { module_or_path: WebAssembly.Module; memory?: WebAssembly.Memory }): Promise<unknown>;
}

/** Starts a compiled module by its glue. That the module is another one, JavaScript tells by an error of no special kind. */
export async function instantiate(glue: Glue, module: WebAssembly.Module, memory?: WebAssembly.Memory): Promise<void> {
  try {
    await glue.default({ module_or_path: module, ...(memory && { memory }) });
  } catch (cause) {
    throw cause instanceof TypeError ? new WebAssembly.LinkError(cause.message) : cause;
  }
}

/** Why a module did not start. */
export function unstarted(cause: unknown): Failure {
  if (isFailure(cause)) return cause;
  const message = `the engine did not start: ${cause instanceof Error ? cause.message : String(cause)}`;
  const broken = cause instanceof WebAssembly.CompileError || cause instanceof WebAssembly.LinkError;
  const code = broken ? "executor" : cause instanceof RangeError ? "out_of_memory" : "network";
  return { code, at: "wasm", message };
}

/** Why a module can no longer be used: what came out of it was no failure of ours, so its memory is in no known state. */
export function crashed(error: unknown, panicMessage: (() => string) | undefined, advice: string): Failure {
  let detail = error instanceof Error ? error.message : String(error);
  try {
    detail = panicMessage?.() || detail;
  } catch {
    // The trap's own message has to do.
  }
  return { code: "crashed", at: "engine", message: `the engine trapped; ${advice}: ${detail}` };
}
