/** Workers and addresses in a browser. */

import type { Connect } from "./client.js";
import { asksForHelpers, Crew, type Helper } from "./crew.js";
import type { Host } from "./model.js";
import { importing } from "./origin.js";
import type { HelperStart, HelpersReply, HelpersRequest, Reply } from "./protocol.js";

const worker: Connect = async (onReply, onCrash) => {
  const { worker, end } = startWorker();
  const crew = new Crew(hire);
  worker.onmessage = async ({ data }: MessageEvent<Reply | HelpersRequest>) => {
    if (asksForHelpers(data)) worker.postMessage({ joined: await crew.start(data) } satisfies HelpersReply);
    else onReply(data);
  };
  worker.onerror = (event) => onCrash(new Error(event.message || "its script could not be loaded"));
  worker.onmessageerror = () => onCrash(new Error("a reply could not be read"));
  return {
    post: (request) => worker.postMessage(request),
    close() {
      end();
      crew.end();
    },
  };
};

/** Starts a helper, by the engine's own script. */
function hire(start: HelperStart): Helper {
  const { worker, end } = startWorker();
  const joined = new Promise<boolean>((resolve) => {
    worker.onmessage = (event: MessageEvent<boolean>) => resolve(event.data);
    worker.onerror = (event) => {
      event.preventDefault();
      resolve(false);
    };
  });
  worker.postMessage(start);
  return { joined, end };
}

/** A worker, and how it is ended. */
function startWorker(): { worker: Worker; end(): void } {
  const script = importing("./worker.js");
  // Written so that bundlers see a worker to build.
  const worker = script ? new Worker(script, { type: "module" }) : new Worker(new URL("./worker.js", import.meta.url), { type: "module" });
  return {
    worker,
    end() {
      worker.terminate();
      // The address of a script that was made for it.
      if (script) URL.revokeObjectURL(script);
    },
  };
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
