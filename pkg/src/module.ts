/** Starts the modules of this thread: which file, and on which memory. */

import { compile, instantiate, placed, unstarted, type Fetch } from "./compile.js";
import type { Failure } from "./errors.js";
import type { WasmSource } from "./protocol.js";
import { variant } from "./variants.js";
import * as engine from "./wick_embed.js";

/** `engine` computes with our kernels; `reference` is Candle, to check them with. */
export type Kind = "engine" | "reference";

/** Brings `reference.ts`. */
export type LoadReference = () => Promise<typeof import("./reference.js")>;

/** What a module gives to JavaScript. The reference lacks only what threads need. */
export type Glue = typeof engine;

export interface Started {
  glue: Glue;
  module: WebAssembly.Module;
  /** The engine's, which threads may share. */
  memory: WebAssembly.Memory | undefined;
  /** Why it can no longer be used. */
  crash?: Failure;
}

/** All engines of a thread share one module of each kind. */
const started = new Map<Kind, Promise<Started>>();

/** Starts one, once. */
export function start(kind: Kind, fetch: Fetch, wasm: WasmSource | undefined, reference: LoadReference | undefined): Promise<Started> {
  const earlier = started.get(kind);
  if (earlier) return earlier;
  const starting = begin(kind, fetch, wasm, reference).catch((cause) => {
    started.delete(kind);
    throw unstarted(cause);
  });
  started.set(kind, starting);
  return starting;
}

async function begin(kind: Kind, fetch: Fetch, wasm: WasmSource | undefined, reference: LoadReference | undefined): Promise<Started> {
  if (kind === "engine") {
    const module = await compile(wasm ?? placed(variant), fetch);
    const memory = sharedMemory();
    await instantiate(engine, module, memory);
    return { glue: engine, module, memory };
  }
  if (!reference) {
    throw { code: "invalid_option", at: "device", message: "device: wick-embed/local has no reference; wick-embed does" } satisfies Failure;
  }
  const { glue, file } = await reference();
  const module = await compile(wasm ?? placed(file), fetch);
  await instantiate(glue, module);
  return { glue: glue as unknown as Glue, module, memory: undefined };
}

/** Pages at the start: those of `--initial-memory` in `build.sh`, and the one that wasm-bindgen adds for the threads. */
const INITIAL = 33;

/** Pages to which memory may grow. It is only reserved, but not every device reserves all that 32 bits can address. */
const MOST = [65536, 32768, 16384, 8192];

/**
 * Memory that threads may share. A page that is not cross-origin isolated may make and use it as well, and only not send it to
 * another thread.
 */
function sharedMemory(): WebAssembly.Memory {
  let refused: unknown;
  for (const maximum of MOST) {
    try {
      return new WebAssembly.Memory({ initial: INITIAL, maximum, shared: true });
    } catch (cause) {
      // A smaller one may do.
      refused = cause;
    }
  }
  throw refused;
}
