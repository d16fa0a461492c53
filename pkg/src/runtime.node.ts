/** What the engine needs from Node. */

import { createReadStream } from "node:fs";
import { stat } from "node:fs/promises";
import { Readable } from "node:stream";
import type { Runtime } from "./runtime.js";

export const runtime: Runtime = {
  // Node's own fetch knows no `file:` addresses.
  fetch: (url, init) => (url.startsWith("file:") ? readLocal(new URL(url)) : fetch(url, init)),

  // What becomes of an uncaught error is the caller's affair; here it is only seen.
  onTrap: (listener) => listen(["uncaughtExceptionMonitor"], listener),
};

/** The same in a worker of the package's own, where a trap must not end the thread before it was told. */
export const workerRuntime: Runtime = {
  ...runtime,
  onTrap: (listener) => listen(["uncaughtException", "unhandledRejection"], listener),
};

function listen(events: string[], listener: Parameters<Runtime["onTrap"]>[0]): () => void {
  const onTrap = (error: unknown) => {
    if (error instanceof WebAssembly.RuntimeError) listener(error);
  };
  for (const event of events) process.on(event, onTrap);
  return () => {
    for (const event of events) process.off(event, onTrap);
  };
}

async function readLocal(url: URL): Promise<Response> {
  try {
    const { size } = await stat(url);
    const body = Readable.toWeb(createReadStream(url)) as ReadableStream<Uint8Array>;
    return new Response(body, { headers: { "content-length": String(size) } });
  } catch (error) {
    const missing = (error as NodeJS.ErrnoException).code === "ENOENT";
    return new Response(null, missing ? { status: 404 } : { status: 500, statusText: (error as Error).message });
  }
}
