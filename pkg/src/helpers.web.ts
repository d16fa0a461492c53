/** Helpers in a browser: workers that the engine's worker starts. */

import type { Helpers } from "./helpers.js";

export const helpers: Helpers = {
  // WebKitGTK 2.50 isolates a page and still shares no memory between its threads.
  allowed: () => globalThis.crossOriginIsolated && typeof SharedArrayBuffer === "function" && typeof Worker === "function",

  threads: () => navigator.hardwareConcurrency ?? 1,

  start: (start) =>
    new Promise((resolve) => {
      // The engine's own script once more, which could be started where it is. Parcel moves what
      // two scripts of workers have in common to a bundle that neither of them finds.
      const worker = new Worker(location.href, { type: isClassic() ? "classic" : "module" });
      worker.onmessage = (event: MessageEvent<boolean>) => resolve(event.data);
      worker.onerror = (event) => {
        // No failure of the engine's: it works without.
        event.preventDefault();
        resolve(false);
      };
      worker.postMessage(start);
    }),
};

/** Whether this script is a classic one. It is written as a module, and bundlers make either of it. */
function isClassic(): boolean {
  try {
    // No address, so that nothing is fetched and no policy is asked. A module may not call it at
    // all, which is another error.
    (globalThis as unknown as { importScripts(address: string): void }).importScripts("https://");
    return true;
  } catch (error) {
    return !(error instanceof TypeError);
  }
}
