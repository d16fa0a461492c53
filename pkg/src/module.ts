/** Starts the module of this thread: which file, and on which memory. */

import type { Failure } from "./errors.js";
import type { WasmSource } from "./protocol.js";
import { variant } from "./variants.js";
import * as plain from "./wick_embed.js";
import * as threads from "./wick_embed_threads.js";

/** What the module gives to JavaScript: the same by the glue of either kind of build. */
export type Glue = typeof threads;

export interface Started {
  glue: Glue;
  module: WebAssembly.Module;
  /** That threads share, if the build is one for threads. */
  memory: WebAssembly.Memory | undefined;
}

type Fetch = (url: string, init: RequestInit) => Promise<Response>;

/** All engines of a thread share one module. */
let started: Promise<Started> | undefined;

/** Starts it, once. `shared` asks for memory that threads share; a caller's own `wasm` says by its imports whether it is. */
export function start(fetch: Fetch, wasm: WasmSource | undefined, shared: boolean): Promise<Started> {
  return (started ??= begin(fetch, wasm, shared).catch((cause) => {
    started = undefined;
    throw failure(cause);
  }));
}

async function begin(fetch: Fetch, wasm: WasmSource | undefined, shared: boolean): Promise<Started> {
  // Before the file is chosen: where there is no such memory the other build runs.
  let memory = wasm === undefined && shared ? sharedMemory() : undefined;
  const module = await compile(wasm ?? variant(memory !== undefined).href, fetch);
  if (wasm !== undefined && WebAssembly.Module.imports(module).some(({ kind }) => kind === "memory")) {
    memory = sharedMemory();
    if (!memory) throw new WebAssembly.LinkError("the module needs shared memory, which is not to be had here");
  }
  const glue = memory ? threads : (plain as unknown as Glue);
  await glue.default({ module_or_path: module, ...(memory && { memory }) });
  return { glue, module, memory };
}

/** Pages that the module wants at its start, and more: `--initial-memory` in `build.sh` is smaller. */
const INITIAL = 320;

/** Pages to which memory may grow. It is only reserved, but not every device reserves all that 32 bits can address. */
const MOST = [65536, 32768, 16384];

function sharedMemory(): WebAssembly.Memory | undefined {
  if (typeof SharedArrayBuffer === "undefined") return undefined;
  for (const maximum of MOST) {
    try {
      return new WebAssembly.Memory({ initial: INITIAL, maximum, shared: true });
    } catch {
      // A smaller one may do.
    }
  }
  return undefined;
}

async function compile(source: WasmSource, fetch: Fetch): Promise<WebAssembly.Module> {
  if (typeof source !== "string") return isModule(source) ? source : WebAssembly.compile(source as BufferSource);
  const response = await fetch(source, {});
  if (!response.ok) throw new Error(`${source}: the server answered ${response.status}`);
  // While it arrives, where the server says what it is.
  const named = /^application\/wasm\b/i.test(response.headers.get("content-type") ?? "");
  return named ? WebAssembly.compileStreaming(response) : WebAssembly.compile(await response.arrayBuffer());
}

/** Also of one that comes from another window. */
function isModule(source: object): source is WebAssembly.Module {
  return Object.prototype.toString.call(source) === "[object WebAssembly.Module]";
}

function failure(cause: unknown): Failure {
  const message = `the engine did not start: ${cause instanceof Error ? cause.message : String(cause)}`;
  const broken = cause instanceof WebAssembly.CompileError || cause instanceof WebAssembly.LinkError;
  const code = broken ? "executor" : cause instanceof RangeError ? "out_of_memory" : "network";
  return { code, at: "wasm", message };
}
