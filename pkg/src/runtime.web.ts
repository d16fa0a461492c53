/** What the engine, and whoever calls it, needs from a browser. */

import type { Runtime } from "./runtime.js";

export const runtime: Runtime = {
  fetch: (url, init) => (/^[a-z]+-extension:/.test(url) ? fromExtension(url, init) : fetch(url, init)),

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

/** A file that an extension brings. One that is not there is no answer but a failed request, and there is no network that could fail. */
async function fromExtension(url: string, init: RequestInit): Promise<Response> {
  try {
    return await fetch(url, init);
  } catch (error) {
    if (init.signal?.aborted) throw error;
    return new Response(null, { status: 404 });
  }
}

/** Makes an address absolute; undefined for what is none. */
export function resolve(address: string): string | undefined {
  const isAddress = /^([a-z][a-z0-9+.-]*:|\/|\.\.?\/)/i.test(address);
  return isAddress ? new URL(address, globalThis.document?.baseURI ?? globalThis.location?.href).href : undefined;
}
