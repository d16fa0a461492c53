/**
 * The threads of an engine, seen from the caller's side, which starts and ends them. A worker that
 * starts workers of its own may hang in Firefox (153): it waits there for a note that its child,
 * which waits for the same condition variable, can take away.
 */

import type { HelperStart, HelpersRequest } from "./protocol.js";

/** A worker that computes for an engine's. */
export interface Helper {
  /** Whether it takes part; it does not where the browser or the page's policy forbids it. */
  joined: Promise<boolean>;
  end(): void;
}

/** How long a helper may take to start before it is no longer counted on, in milliseconds. */
const PATIENCE = 10_000;

export class Crew {
  readonly #hire: (start: HelperStart) => Helper;
  readonly #helpers: Helper[] = [];
  #ended = false;

  constructor(hire: (start: HelperStart) => Helper) {
    this.#hire = hire;
  }

  /** Starts as many helpers as an engine asks for, and gives how many take part. */
  async start({ helpers, start }: HelpersRequest): Promise<number> {
    let timer: ReturnType<typeof setTimeout> | undefined;
    const late = new Promise<boolean>((resolve) => (timer = setTimeout(resolve, PATIENCE, false)));
    const one = async () => {
      if (this.#ended) return false;
      try {
        const helper = this.#hire(start);
        this.#helpers.push(helper);
        return await Promise.race([helper.joined, late]);
      } catch {
        // No failure of the engine's: it works without.
        return false;
      }
    };
    const came = await Promise.all(Array.from({ length: helpers }, one));
    clearTimeout(timer);
    return came.filter(Boolean).length;
  }

  end(): void {
    this.#ended = true;
    for (const helper of this.#helpers) helper.end();
  }
}

/** Whether a message of an engine asks for helpers. */
export function asksForHelpers(message: object): message is HelpersRequest {
  return "helpers" in message;
}
