/** What the engine needs from Node. */

import { createReadStream } from "node:fs";
import { readFile, stat } from "node:fs/promises";
import { Readable } from "node:stream";
import { isMainThread } from "node:worker_threads";
import type { Runtime } from "./engine.js";

export const runtime: Runtime = {
  wasm: async () => new Uint8Array(await readFile(new URL("./wick_embed_bg.wasm", import.meta.url))),

  // Node's own fetch knows no `file:` addresses.
  fetch: (url, init) => (url.startsWith("file:") ? readLocal(new URL(url)) : fetch(url, init)),

  onTrap(listener) {
    // In the caller's own thread the process ends by itself, as after any uncaught error.
    if (isMainThread) return () => {};
    const onTrap = (error: unknown) => listener(error);
    process.on("uncaughtException", onTrap);
    process.on("unhandledRejection", onTrap);
    return () => {
      process.off("uncaughtException", onTrap);
      process.off("unhandledRejection", onTrap);
    };
  },
};

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
