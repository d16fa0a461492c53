/** Helpers in Node: workers that the engine's worker starts. */

import { availableParallelism } from "node:os";
import { Worker } from "node:worker_threads";
import type { Helpers } from "./helpers.js";

export const helpers: Helpers = {
  allowed: () => true,

  threads: () => availableParallelism(),

  start: (start) =>
    new Promise((resolve) => {
      // It is ended with the engine's worker, and keeps nobody alive.
      const worker = new Worker(new URL("./helper.node.js", import.meta.url), { workerData: start });
      worker.once("message", resolve);
      worker.once("error", () => resolve(false));
      worker.unref();
    }),
};
