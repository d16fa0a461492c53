/** What hosts share. */

import type { Connect } from "./client.js";
import { EngineHost } from "./engine.js";
import type { LoadReference } from "./module.js";
import type { Runtime } from "./runtime.js";

/** An engine on the caller's own thread. */
export function onThisThread(runtime: Runtime, reference?: LoadReference): Connect {
  return async (onReply) => {
    const engine = new EngineHost(runtime, onReply, { reference });
    return { post: (request) => engine.receive(request), close: () => engine.dispose() };
  };
}
