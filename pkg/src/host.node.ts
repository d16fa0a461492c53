/** Workers and addresses in Node. */

import { pathToFileURL } from "node:url";
import { Worker } from "node:worker_threads";
import type { Connect } from "./client.js";
import { part, type Host } from "./model.js";
import { invalid } from "./options.js";
import type { Reply } from "./protocol.js";
import { runtime } from "./runtime.node.js";

const worker: Connect = async (onReply, onCrash) => {
  const worker = new Worker(new URL("./worker.node.js", import.meta.url));
  let waiting = 0;
  worker.on("message", (reply: Reply) => {
    // A program ends when nothing is under way, whether or not it disposed of the embedder.
    if (!("progress" in reply) && --waiting === 0) worker.unref();
    onReply(reply);
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
    close: () => void worker.terminate(),
  };
};

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
