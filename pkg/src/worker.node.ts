/** The worker in Node. */

import { parentPort } from "node:worker_threads";
import { EngineHost } from "./engine.js";
import { helpers } from "./helpers.node.js";
import type { Request } from "./protocol.js";
import { workerRuntime } from "./runtime.node.js";

const reference = () => import("./reference.js");
const engine = new EngineHost(workerRuntime, (reply, transfer) => parentPort?.postMessage(reply, transfer), { helpers, reference });
parentPort?.on("message", (request: Request) => engine.receive(request));
