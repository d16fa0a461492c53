/** The worker in a browser. */

import { EngineHost } from "./engine.js";
import { helpers } from "./helpers.web.js";
import type { Request } from "./protocol.js";
import { runtime } from "./runtime.web.js";

const engine = new EngineHost(runtime, (reply, transfer) => postMessage(reply, { transfer }), helpers);
onmessage = (event: MessageEvent<Request>) => engine.receive(event.data);
