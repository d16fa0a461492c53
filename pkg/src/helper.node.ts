/** A helper's worker in Node. */

import { parentPort, workerData } from "node:worker_threads";
import { takePart } from "./helpers.js";

await takePart(workerData, (takesPart) => parentPort?.postMessage(takesPart));
