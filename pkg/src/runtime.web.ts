/** What the engine needs from a browser. */

import type { Runtime } from "./engine.js";

export const runtime: Runtime = {
  // Written so that bundlers see a file to copy.
  wasm: async () => new URL("./wick_embed_bg.wasm", import.meta.url),

  fetch: (url, init) => fetch(url, init),

  onTrap(listener) {
    const onError = (event: ErrorEvent) => {
      if (event.error instanceof WebAssembly.RuntimeError) listener(event.error);
    };
    const onRejection = (event: PromiseRejectionEvent) => {
      if (event.reason instanceof WebAssembly.RuntimeError) listener(event.reason);
    };
    addEventListener("error", onError);
    addEventListener("unhandledrejection", onRejection);
    return () => {
      removeEventListener("error", onError);
      removeEventListener("unhandledrejection", onRejection);
    };
  },
};
