/** The worker in a browser: the engine's, or a helper's, as its first message says. */

import { EngineHost } from "./engine.js";
import { takePart, type HelperStart } from "./helpers.js";
import { helpers } from "./helpers.web.js";
import type { Request, Sign } from "./protocol.js";
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
  const reference = () => import("./reference.js");
  return new EngineHost(runtime, (reply, transfer) => postMessage(reply, { transfer }), { helpers, reference });
}
