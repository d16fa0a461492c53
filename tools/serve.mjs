// node tools/serve.mjs FOLDER [PORT]: a static server on localhost for the demo page and the tests.
import { createReadStream } from "node:fs";
import { readFile, stat } from "node:fs/promises";
import { createServer } from "node:http";
import { extname, join, normalize, resolve, sep } from "node:path";
import { fileURLToPath } from "node:url";

const TYPES = {
  ".html": "text/html; charset=utf-8",
  ".js": "text/javascript; charset=utf-8",
  ".mjs": "text/javascript; charset=utf-8",
  ".css": "text/css; charset=utf-8",
  ".json": "application/json",
  ".svg": "image/svg+xml",
  ".wasm": "application/wasm",
};

/** While a folder is still being filled this file in it has the beginnings of the paths that are to come, one a line. */
const COMING = ".coming";

/** What is known of a file; one that is still to come is waited for. */
async function found(root, path) {
  for (;;) {
    // In this order: what came last is there when the list is gone.
    const coming = await readFile(join(root, COMING), "utf8").catch(() => "");
    const info = await stat(path).catch(() => undefined);
    const relative = path.slice(root.length + 1).replaceAll(sep, "/");
    if (info || !coming.split("\n").some((start) => start && relative.startsWith(start))) return info;
    await new Promise((done) => setTimeout(done, 500));
  }
}

/** Serves the files of `folder`; with port 0 on any free port. `intercept` may answer a request first (for tests). */
export function serve(folder, port = 0, intercept = async () => false) {
  const root = resolve(folder);
  const server = createServer(async (request, response) => {
    try {
      if (await intercept(request, response)) return;
      const { pathname } = new URL(request.url, "http://localhost");
      let path = normalize(join(root, decodeURIComponent(pathname)));
      if (path !== root && !path.startsWith(root + sep)) return response.writeHead(403).end();
      let info = await found(root, path);
      if (info?.isDirectory()) info = await stat((path = join(path, "index.html"))).catch(() => undefined);
      if (!info) return response.writeHead(404, { "content-type": "text/plain" }).end("not found");
      response.writeHead(200, {
        "content-type": TYPES[extname(path)] ?? "application/octet-stream",
        "content-length": info.size,
        "last-modified": info.mtime.toUTCString(),
        "cache-control": "no-cache",
        // Cross-origin isolation, which shared memory between threads needs.
        "cross-origin-opener-policy": "same-origin",
        "cross-origin-embedder-policy": "require-corp",
        "cross-origin-resource-policy": "cross-origin",
      });
      if (request.method === "HEAD") return response.end();
      createReadStream(path).pipe(response);
    } catch (error) {
      response.headersSent ? response.destroy() : response.writeHead(400).end(String(error));
    }
  });
  return new Promise((done, fail) => {
    server.once("error", fail);
    server.listen(port, "localhost", () => {
      const url = `http://localhost:${server.address().port}/`;
      done({ url, server, close: () => new Promise((closed) => (server.closeAllConnections(), server.close(closed))) });
    });
  });
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const [folder = ".", port = "8080"] = process.argv.slice(2);
  const server = await serve(folder, Number(port)).catch((error) => {
    // The port is taken: any other will do.
    if (error.code === "EADDRINUSE") return serve(folder, 0);
    throw error;
  });
  console.log(`\n  ${server.url}\n\nCtrl+C stops the server.`);
}
