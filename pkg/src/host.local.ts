/** The caller's own thread in a browser, of static imports only: a service worker allows no others. */

import { onThisThread } from "./host.js";
import type { Host } from "./model.js";
import { invalid } from "./options.js";
import * as remote from "./remote.js";
import { resolve, runtime } from "./runtime.web.js";

const local = onThisThread(runtime);

export const host: Host = {
  worker: (own) => {
    if (own === undefined) return local;
    throw invalid("worker", "wick-embed/local computes on this thread; wick-embed has workers");
  },
  local,
  remote: async () => remote,
  runtime,
  resolve,
};
