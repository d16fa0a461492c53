/** The worker in Node: the engine's, or a helper's, as its first message says. */

import { availableParallelism } from "node:os";
import { parentPort } from "node:worker_threads";
import { EngineHost } from "./engine.js";
import { takePart, type Helpers } from "./helpers.js";
import type { HelpersReply, HelperStart, HelpersRequest, Request } from "./protocol.js";
import { workerRuntime } from "./runtime.node.js";

let joined: (count: number) => void;

const helpers: Helpers = {
  allowed: () => true,

  threads: () => availableParallelism(),

  start: (count, start) =>
    new Promise((resolve) => {
      joined = resolve;
      parentPort?.postMessage({ helpers: count, start } satisfies HelpersRequest);
    }),
};

const reference = () => import("./reference.js");
const engine = new EngineHost(workerRuntime, (reply, transfer) => parentPort?.postMessage(reply, transfer), { helpers, reference });
parentPort?.on("message", (data: Request | HelperStart | HelpersReply) => {
  if ("memory" in data) void takePart(data, (takesPart) => parentPort?.postMessage(takesPart));
  else if ("joined" in data) joined(data.joined);
  else engine.receive(data);
});
