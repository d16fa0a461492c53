/** Threads beside the engine's own: workers with the same module on the same memory. */

import init, { help, lostAddress } from "./wick_embed.js";
import type { HelperStart } from "./protocol.js";

/** The threads that an engine may have. What differs between a browser and Node. */
export interface Helpers {
  /** Whether threads may share memory here. */
  allowed(): boolean;
  /** How many threads this machine runs at once. */
  threads(): number;
  /** Lets the caller's side start so many, and gives how many take part. */
  start(count: number, start: HelperStart): Promise<number>;
}

/** Most threads of an engine that was asked for no number: more seldom have enough work. */
const MOST_UNASKED = 8;

/** How many threads to use, the engine's own included. */
export function threadsWanted(helpers: Helpers | undefined, asked: number | undefined): number {
  if (!helpers?.allowed()) return 1;
  return asked ?? Math.max(1, Math.min(helpers.threads(), MOST_UNASKED));
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
