/** Workers and addresses in Node. */

import { pathToFileURL } from "node:url";
import { Worker } from "node:worker_threads";
import type { Connect } from "./client.js";
import type { Host } from "./model.js";
import type { Reply } from "./protocol.js";

const worker: Connect = async (onReply, onCrash) => {
  const worker = new Worker(new URL("./worker.node.js", import.meta.url));
  let waiting = 0;
  worker.on("message", (reply: Reply) => {
    // A program ends when nothing is under way, whether or not it disposed of the embedder.
    if (("done" in reply || "failed" in reply) && --waiting === 0) worker.unref();
    onReply(reply);
  });
  worker.on("error", onCrash);
  worker.on("messageerror", onCrash);
  worker.unref();
  return {
    post(request) {
      worker.postMessage(request);
      if ("call" in request && ++waiting === 1) worker.ref();
    },
    close: () => void worker.terminate(),
  };
};

const local: Connect = async (onReply, onCrash) => {
  const [{ onThisThread }, { runtime }] = await Promise.all([import("./host.js"), import("./runtime.node.js")]);
  return onThisThread(runtime)(onReply, onCrash);
};

export const host: Host = {
  worker,
  local,
  runtime: async () => (await import("./runtime.node.js")).runtime,
  resolve(address) {
    if (/^[a-z][a-z0-9+.-]+:/i.test(address)) return new URL(address).href;
    return /^(\/|\.\.?\/|[a-z]:[\\/])/i.test(address) ? pathToFileURL(address).href : undefined;
  },
};
