// The package in Chromium where its files are not simply the page's own: built by webpack and by
// Rspack without configuration, and on another origin.
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { mkdirSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { promisify } from "node:util";
import { rspack } from "@rspack/core";
import webpack from "webpack";
import { MODEL, launch, milvusError, path, scratch, serve } from "./harness.mjs";

/** What a page's script does, with the package at `address`. */
const script = (address) => `
  import { Embedder } from ${JSON.stringify(address)};
  globalThis.encode = async (texts, options) => {
    const embedder = await Embedder.load("/model/", options);
    const { dense } = await embedder.encode(texts);
    const { threads } = embedder;
    embedder.dispose();
    return { threads, rows: dense.map((row) => Array.from(row)) };
  };`;

let project;
const cleanups = [];

/** A project with the packed package in its node_modules. */
before(() => {
  project = scratch({ after: (cleanup) => cleanups.push(cleanup) });
  const npm = (...command) => execFileSync("npm", command, { cwd: project, encoding: "utf8", stdio: ["ignore", "pipe", "inherit"] });
  const [{ filename }] = JSON.parse(npm("pack", "--json", "--loglevel=error", path("pkg")));
  writeFileSync(join(project, "package.json"), JSON.stringify({ name: "empty", private: true }));
  npm("install", "--loglevel=error", "--no-audit", "--no-fund", `./${filename}`);
  mkdirSync(join(project, "src"));
  writeFileSync(join(project, "src/index.js"), script("wick-embed"));
});

after(() => cleanups.forEach((cleanup) => cleanup()));

for (const [name, bundler] of Object.entries({ webpack, rspack })) {
  test(`in a page built by ${name}`, async (t) => {
    const folder = join(project, name);
    const stats = await promisify(bundler)({ context: project, mode: "production", output: { path: folder } });
    const { errors, warnings } = stats.toJson({ all: false, errors: true, warnings: true });
    assert.deepEqual(errors, []);
    // Any module of this size is too large for their taste.
    assert.deepEqual(warnings.filter(({ message }) => !message.includes("asset size limit")), []);
    // Neither a `file:` of the machine that built the page nor a script made for a worker.
    await gives(t, folder, '<script src="main.js"></script>', []);
  });
}

test("from another origin", async (t) => {
  const other = await serve(path("pkg/dist"), 0, async (_, response) => (response.setHeader("access-control-allow-origin", "*"), false));
  t.after(() => other.close());
  const folder = scratch(t);
  await gives(t, folder, `<script type="module">${script(`${other.url}index.js`)}</script>`, [other.url, "blob:"]);
});

/** Pages of `folder` give the published vectors, and fetch only from there and from `others`. */
async function gives(t, folder, element, others) {
  const html = `<!doctype html><link rel="icon" href="data:,">${element}`;
  writeFileSync(join(folder, "isolated.html"), html);
  symlinkSync(path(MODEL), join(folder, "model"));
  const server = await serve(folder, 0, async ({ url }, response) => {
    if (url !== "/open.html") return false;
    response.writeHead(200, { "content-type": "text/html" }).end(html);
    return true;
  });
  const browser = await launch();
  t.after(() => Promise.all([browser.close(), server.close()]));
  for (const [file, options, threads] of [
    ["open.html", {}, 1],
    ["open.html", { worker: false }, 1],
    ["isolated.html", { threads: 2 }, 2],
  ]) {
    const page = await browser.newPage();
    const unexpected = [];
    page.on("console", (message) => unexpected.push(message.text()));
    page.on("pageerror", (error) => unexpected.push(String(error)));
    // Those of its workers, too.
    page.on("request", (request) => [server.url, ...others].some((start) => request.url().startsWith(start)) || unexpected.push(request.url()));
    await page.goto(server.url + file);
    const { error } = await milvusError(async (texts) => {
      const result = await page.evaluate(([texts, options]) => encode(texts, options), [texts, options]);
      assert.equal(result.threads, threads);
      return result.rows;
    });
    t.diagnostic(`${file} ${JSON.stringify(options)}: largest error ${error.toExponential(2)}`);
    assert.ok(error <= 2e-6, `${error}`);
    assert.deepEqual(unexpected, []);
    await page.close();
  }
}
