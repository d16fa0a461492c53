/** A helper's worker in a browser. */

import { takePart, type HelperStart } from "./helpers.js";

onmessage = (event: MessageEvent<HelperStart>) => takePart(event.data, (takesPart) => postMessage(takesPart));
