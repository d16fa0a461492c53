/** Threads beside the engine's own: workers with the same module on the same memory. The engine's side, and what they do. */

import init, { help, lostAddress } from "./wick_embed.js";

/** What a helper is started with. */
export interface HelperStart {
  module: WebAssembly.Module;
  memory: WebAssembly.Memory;
}

/** What differs between a browser and Node. */
export interface Helpers {
  /** Whether threads may share memory here. */
  allowed(): boolean;
  /** How many threads this machine runs at once. */
  threads(): number;
  /** Starts a helper, whose life ends with the engine's worker. Gives whether it takes part. */
  start(start: HelperStart): Promise<boolean>;
}

/** Most threads of an engine that was asked for no number: more seldom have enough work. */
const MOST_UNASKED = 8;

/** How long a helper may take to start before it is no longer counted on, in milliseconds. */
const PATIENCE = 10_000;

/** How many threads to use, the engine's own included. */
export function threadsWanted(helpers: Helpers | undefined, asked: number | undefined): number {
  if (!helpers?.allowed()) return 1;
  return asked ?? Math.max(1, Math.min(helpers.threads(), MOST_UNASKED));
}

/** Starts so many helpers, and gives how many take part. A page's policy may forbid them: then the engine works alone. */
export async function startHelpers(helpers: Helpers, count: number, start: HelperStart): Promise<number> {
  const late = new Promise<boolean>((resolve) => setTimeout(resolve, PATIENCE, false));
  const one = async () => {
    try {
      return await Promise.race([helpers.start(start), late]);
    } catch {
      return false;
    }
  };
  const came = await Promise.all(Array.from({ length: count }, one));
  return came.filter(Boolean).length;
}

/** Bytes of a helper's stack; it calls nothing but kernels. */
const STACK = 1 << 20;

/** A helper's life: says whether it takes part in the engine's work, and does until its worker is ended. */
export async function takePart({ module, memory }: HelperStart, tell: (takesPart: boolean) => void): Promise<void> {
  try {
    await init({ module_or_path: module, memory, thread_stack_size: STACK });
  } catch {
    return tell(false);
  }
  const lost = lostAddress() / Int32Array.BYTES_PER_ELEMENT;
  tell(true);
  try {
    help();
  } catch (error) {
    // The engine, which waits for this thread's part, looks here, and traps as well.
    Atomics.store(new Int32Array(memory.buffer), lost, 1);
    console.error(error);
  }
}
