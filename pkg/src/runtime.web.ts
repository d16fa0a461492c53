/** What the engine, and whoever calls it, needs from a browser. */

import type { Runtime } from "./runtime.js";

export const runtime: Runtime = {
  fetch: (url, init) => fetch(url, init),

  onTrap(listener) {
    const seen = (event: Event, error: unknown) => {
      if (!(error instanceof WebAssembly.RuntimeError)) return;
      // The call tells of it; the page must not take the worker for lost.
      if (listener(error)) event.preventDefault();
    };
    const onError = (event: ErrorEvent) => seen(event, event.error);
    const onRejection = (event: PromiseRejectionEvent) => seen(event, event.reason);
    addEventListener("error", onError);
    addEventListener("unhandledrejection", onRejection);
    return () => {
      removeEventListener("error", onError);
      removeEventListener("unhandledrejection", onRejection);
    };
  },
};

/** Makes an address absolute; undefined for what is none. */
export function resolve(address: string): string | undefined {
  const isAddress = /^([a-z][a-z0-9+.-]*:|\/|\.\.?\/)/i.test(address);
  return isAddress ? new URL(address, globalThis.document?.baseURI ?? globalThis.location?.href).href : undefined;
}
