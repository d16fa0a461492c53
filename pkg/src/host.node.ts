/** Workers and addresses in Node. */

import { pathToFileURL } from "node:url";
import { Worker } from "node:worker_threads";
import type { Connect } from "./client.js";
import { asksForHelpers, Crew, type Helper } from "./crew.js";
import { part, type Host } from "./model.js";
import { invalid } from "./options.js";
import type { HelperStart, HelpersReply, HelpersRequest, Reply } from "./protocol.js";
import { runtime } from "./runtime.node.js";

const startWorker = () => new Worker(new URL("./worker.node.js", import.meta.url));

const worker: Connect = async (onReply, onCrash) => {
  const worker = startWorker();
  const crew = new Crew(hire);
  let waiting = 0;
  worker.on("message", async (message: Reply | HelpersRequest) => {
    if (asksForHelpers(message)) return worker.postMessage({ joined: await crew.start(message) } satisfies HelpersReply);
    // A program ends when nothing is under way, whether or not it disposed of the embedder.
    if (("done" in message || "failed" in message) && --waiting === 0) worker.unref();
    onReply(message);
  });
  worker.on("error", onCrash);
  worker.on("messageerror", onCrash);
  worker.on("exit", (code) => onCrash(new Error(`it ended, with the exit code ${code}`)));
  worker.unref();
  return {
    post(request) {
      worker.postMessage(request);
      if ("call" in request && ++waiting === 1) worker.ref();
    },
    close() {
      void worker.terminate();
      crew.end();
    },
  };
};

/** Starts a helper, which keeps no program alive. */
function hire(start: HelperStart): Helper {
  const worker = startWorker();
  const joined = new Promise<boolean>((resolve) => {
    worker.once("message", resolve);
    worker.once("error", () => resolve(false));
    worker.once("exit", () => resolve(false));
  });
  worker.postMessage(start);
  worker.unref();
  return { joined, end: () => void worker.terminate() };
}

const local: Connect = async (onReply, onCrash) => {
  const { onThisThread } = await part(import("./host.js"));
  return onThisThread(runtime, () => import("./reference.js"))(onReply, onCrash);
};

export const host: Host = {
  worker: (own) => {
    if (own === undefined) return worker;
    throw invalid("worker", "a worker of one's own is for browsers; in Node it is true or false");
  },
  local,
  remote: () => part(import("./remote.js")),
  runtime,
  resolve(address) {
    if (/^[a-z][a-z0-9+.-]+:/i.test(address)) return new URL(address).href;
    return /^(\/|\.\.?\/|[a-z]:[\\/])/i.test(address) ? pathToFileURL(address).href : undefined;
  },
};
