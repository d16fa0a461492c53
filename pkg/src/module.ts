/** Starts the module of this thread: which file, and on which memory. */

import { compile, instantiate, unstarted, type Fetch } from "./compile.js";
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

/** All engines of a thread share one module. */
let started: Promise<Started> | undefined;

/** Starts it, once. `shared` asks for memory that threads share; a caller's own `wasm` says by its imports whether it is. */
export function start(fetch: Fetch, wasm: WasmSource | undefined, shared: boolean): Promise<Started> {
  return (started ??= begin(fetch, wasm, shared).catch((cause) => {
    started = undefined;
    throw unstarted(cause);
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
  await instantiate(glue, module, memory);
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
