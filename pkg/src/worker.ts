/** The worker in a browser: the engine's, or a helper's, as its first message says. */

import { EngineHost } from "./engine.js";
import { takePart, type Helpers } from "./helpers.js";
import type { HelpersReply, HelperStart, HelpersRequest, Request } from "./protocol.js";
import { runtime } from "./runtime.web.js";

let joined: (count: number) => void;

const helpers: Helpers = {
  // WebKitGTK 2.50 isolates a page and still shares no memory between its threads.
  allowed: () => globalThis.crossOriginIsolated && typeof SharedArrayBuffer === "function",

  threads: () => navigator.hardwareConcurrency ?? 1,

  start: (count, start) =>
    new Promise((resolve) => {
      joined = resolve;
      postMessage({ helpers: count, start } satisfies HelpersRequest);
    }),
};

const engine = new EngineHost(runtime, (reply, transfer) => postMessage(reply, { transfer }), helpers);
onmessage = ({ data }: MessageEvent<Request | HelperStart | HelpersReply>) => {
  if ("memory" in data) void takePart(data, (takesPart) => postMessage(takesPart));
  else if ("joined" in data) joined(data.joined);
  else engine.receive(data);
};
