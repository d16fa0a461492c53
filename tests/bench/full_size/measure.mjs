// Loads checkpoints of full size in Chromium and says how long it took, in how much memory, and how fast they encode.
//
//   node tests/bench/full_size/measure.mjs FOLDER_OF_MODELS NAME[:DTYPE] ...
//
// FOLDER_OF_MODELS is what make.py wrote; build/site must be there (./build.sh www). Memory is that of the WebAssembly module, which
// never shrinks, so that it is the peak.
import { createReadStream, statSync } from "node:fs";
import { join } from "node:path";
import { launch, path, serve } from "../../web/harness.mjs";

const [folder, ...runs] = process.argv.slice(2);
const sentence = "Alan Turing was the first person to conduct substantial research in AI, and was born in Maida Vale, London. ";

const server = await serve(path("build/site"), 0, (request, response) => {
  const { pathname } = new URL(request.url, "http://localhost");
  if (pathname === "/blank.html") return response.writeHead(200, { "content-type": "text/html" }).end("<!doctype html>");
  if (!pathname.startsWith("/full/")) return false;
  const file = join(folder, pathname.slice("/full/".length));
  const size = statSync(file, { throwIfNoEntry: false })?.size;
  if (size === undefined) return response.writeHead(404).end();
  response.writeHead(200, { "content-length": size });
  if (request.method === "HEAD") return response.end();
  createReadStream(file, { highWaterMark: 1 << 20 }).pipe(response);
  return true;
});

for (const run of runs) {
  const [name, dtype] = run.split(":");
  const browser = await launch();
  try {
    const page = await browser.newPage();
    await page.goto(`${server.url}blank.html`);
    page.setDefaultTimeout(0);
    const figures = await page.evaluate(
      async ([name, dtype, sentence]) => {
        let memory;
        const { instantiateStreaming } = WebAssembly;
        WebAssembly.instantiateStreaming = async (...all) => {
          const result = await instantiateStreaming.apply(WebAssembly, all);
          memory = result.instance.exports.memory;
          return result;
        };
        const { Embedder } = await import("/wick-embed/index.js");
        const megabytes = () => Math.round(memory.buffer.byteLength / 1e6);
        let start = performance.now();
        const seconds = () => Number(((performance.now() - start) / 1000).toFixed(2));
        const embedder = await Embedder.load(`/full/${name}/`, { worker: false, cache: false, ...(dtype && { dtype }) });
        const loaded = { load_s: seconds(), after_load_MB: megabytes() };
        start = performance.now();
        await embedder.encode([sentence]);
        const one_text_s = seconds();
        start = performance.now();
        const { usage, ...output } = await embedder.encode(Array(16).fill(sentence.repeat(5)));
        const tokens_per_s = Math.round(usage.tokens / seconds());
        const kinds = Object.fromEntries(Object.entries(output).map(([kind, rows]) => [kind, rows?.length]));
        return { ...loaded, after_encoding_MB: megabytes(), one_text_s, tokens_per_s, tokens: usage.tokens, ...kinds };
      },
      [name, dtype, sentence],
    );
    console.log(run, JSON.stringify(figures));
  } catch (error) {
    console.log(run, String(error).split("\n")[0]);
  } finally {
    await browser.close();
  }
}
await server.close();
