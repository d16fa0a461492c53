/** The worker in a browser: the engine's, or a helper's, as its first message says. */

import { EngineHost } from "./engine.js";
import { takePart, type HelperStart } from "./helpers.js";
import { helpers } from "./helpers.web.js";
import type { Request, Sign } from "./protocol.js";
// Not `import()`: Vite up to 7 builds a worker as one file, unless it is configured otherwise.
import * as reference from "./reference.js";
import { runtime } from "./runtime.web.js";

let engine: EngineHost | undefined;

onmessage = ({ data }: MessageEvent<Request | HelperStart>) => {
  if ("memory" in data) return takePart(data, (takesPart) => postMessage(takesPart));
  engine ??= begin();
  engine.receive(data);
};

function begin(): EngineHost {
  const tell = (sign: Sign) => postMessage(sign);
  tell({ started: true });
  // Held to the end of this worker. Without a secure context there are no locks, nor with an opaque origin.
  const lock = navigator.locks && `wick-embed ${crypto.randomUUID()}`;
  navigator.locks?.request(lock, () => (tell({ lock }), new Promise(() => {}))).catch(() => {});
  return new EngineHost(runtime, (reply, transfer) => postMessage(reply, { transfer }), { helpers, reference: async () => reference });
}
