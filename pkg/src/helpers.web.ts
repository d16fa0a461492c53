/** Helpers in a browser: workers that the engine's worker starts. */

import type { Helpers } from "./helpers.js";
import { importing } from "./origin.js";

export const helpers: Helpers = {
  allowed: () => globalThis.crossOriginIsolated && typeof Worker === "function",

  threads: () => navigator.hardwareConcurrency ?? 1,

  start: (start) =>
    new Promise((resolve) => {
      const worker = startWorker();
      worker.onmessage = (event: MessageEvent<boolean>) => resolve(event.data);
      worker.onerror = (event) => {
        // No failure of the engine's: it works without.
        event.preventDefault();
        resolve(false);
      };
      worker.postMessage(start);
    }),
};

function startWorker(): Worker {
  // The address is not given back: it is gone with the engine's worker.
  const script = importing("./helper.js");
  if (script) return new Worker(script, { type: "module" });
  // Written so that bundlers see a worker to build.
  return new Worker(new URL("./helper.js", import.meta.url), { type: "module" });
}
