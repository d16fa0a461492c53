/** The worker in a browser: the engine's, or a helper's, as its first message says. */

import { EngineHost } from "./engine.js";
import { takePart, type HelperStart } from "./helpers.js";
import { helpers } from "./helpers.web.js";
import type { Request } from "./protocol.js";
import { runtime } from "./runtime.web.js";

const engine = new EngineHost(runtime, (reply, transfer) => postMessage(reply, { transfer }), helpers);
onmessage = ({ data }: MessageEvent<Request | HelperStart>) =>
  "memory" in data ? takePart(data, (takesPart) => postMessage(takesPart)) : engine.receive(data);
