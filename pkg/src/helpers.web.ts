/** Helpers in a browser: workers that the engine's worker starts. */

import type { Helpers } from "./helpers.js";

export const helpers: Helpers = {
  // Without `waitAsync` (Firefox before 145) each wait of the engine would cost a worker.
  allowed: () => globalThis.crossOriginIsolated && typeof Worker === "function" && "waitAsync" in Atomics,

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
  const here = import.meta.url;
  if (new URL(here).origin !== origin) {
    // As in `host.web.ts`. The address is not given back: it is gone with the engine's worker.
    const text = `import ${JSON.stringify(new URL("./helper.js", here).href)};`;
    return new Worker(URL.createObjectURL(new Blob([text], { type: "text/javascript" })), { type: "module" });
  }
  // Written so that bundlers see a worker to build.
  return new Worker(new URL("./helper.js", import.meta.url), { type: "module" });
}
