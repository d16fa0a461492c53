/** Workers and addresses in a browser. */

import type { Connect } from "./client.js";
import type { Host } from "./model.js";
import { importing } from "./origin.js";
import type { Reply } from "./protocol.js";

const worker: Connect = async (onReply, onCrash) => {
  const { worker, script } = startWorker();
  worker.onmessage = (event: MessageEvent<Reply>) => onReply(event.data);
  worker.onerror = (event) => onCrash(new Error(event.message || "its script could not be loaded"));
  worker.onmessageerror = () => onCrash(new Error("a reply could not be read"));
  return {
    post: (request) => worker.postMessage(request),
    close() {
      worker.terminate();
      if (script) URL.revokeObjectURL(script);
    },
  };
};

/** The worker, and the address of its script where that was made for it. */
function startWorker(): { worker: Worker; script?: string } {
  const script = importing("./worker.js");
  if (script) return { worker: new Worker(script, { type: "module" }), script };
  // Written so that bundlers see a worker to build.
  return { worker: new Worker(new URL("./worker.js", import.meta.url), { type: "module" }) };
}

const local: Connect = async (onReply, onCrash) => {
  // Loaded only when asked for: the page itself usually needs none of the engine.
  const [{ onThisThread }, { runtime }] = await Promise.all([import("./host.js"), import("./runtime.web.js")]);
  return onThisThread(runtime)(onReply, onCrash);
};

export const host: Host = {
  worker,
  local,
  runtime: async () => (await import("./runtime.web.js")).runtime,
  resolve(address) {
    const isAddress = /^([a-z][a-z0-9+.-]*:|\/|\.\.?\/)/i.test(address);
    return isAddress ? new URL(address, globalThis.document?.baseURI ?? globalThis.location?.href).href : undefined;
  },
};
