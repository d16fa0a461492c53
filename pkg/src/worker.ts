/** The worker in a browser: the engine's, or a helper's, as its first message says. */

import { EngineHost } from "./engine.js";
import { takePart, type Helpers } from "./helpers.js";
import type { HelpersReply, HelperStart, HelpersRequest, Request, Sign } from "./protocol.js";
// Not `import()`: Vite up to 7 builds a worker as one file, unless it is configured otherwise.
import * as reference from "./reference.js";
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

let engine: EngineHost | undefined;

onmessage = ({ data }: MessageEvent<Request | HelperStart | HelpersReply>) => {
  if ("memory" in data) void takePart(data, (takesPart) => postMessage(takesPart));
  else if ("joined" in data) joined(data.joined);
  else (engine ??= begin()).receive(data);
};

function begin(): EngineHost {
  const tell = (sign: Sign) => postMessage(sign);
  tell({ started: true });
  // Held to the end of this worker. Without a secure context there are no locks, nor with an opaque origin.
  const lock = navigator.locks && `wick-embed ${crypto.randomUUID()}`;
  navigator.locks?.request(lock, () => (tell({ lock }), new Promise(() => {}))).catch(() => {});
  return new EngineHost(runtime, (reply, transfer) => postMessage(reply, { transfer }), { helpers, reference: async () => reference });
}
