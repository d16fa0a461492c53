// The packed npm package as a user installs it: in Node, in a Vite project, and what its types allow.
import assert from "node:assert/strict";
import { execFileSync, spawnSync } from "node:child_process";
import { cpSync, mkdirSync, readFileSync, readdirSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { pathToFileURL } from "node:url";
import { MODEL, launch, milvusError, path, scratch, serve } from "./harness.mjs";

let project;
const cleanups = [];

/** An empty project with the packed package in its node_modules. */
before(() => {
  project = scratch({ after: (cleanup) => cleanups.push(cleanup) });
  const run = (...command) => execFileSync(command[0], command.slice(1), { cwd: project, encoding: "utf8", stdio: ["ignore", "pipe", "inherit"] });
  const [{ filename }] = JSON.parse(run("npm", "pack", "--json", "--loglevel=error", path("pkg")));
  writeFileSync(join(project, "package.json"), JSON.stringify({ name: "empty", private: true, type: "module" }));
  run("npm", "install", "--loglevel=error", "--no-audit", "--no-fund", `./${filename}`);
});

after(() => cleanups.forEach((cleanup) => cleanup()));

/** Runs a program in the project; gives its output, or fails with what it printed. */
function node(source, ...options) {
  writeFileSync(join(project, "program.mjs"), source);
  const { status, stdout, stderr } = spawnSync(process.execPath, [...options, "program.mjs"], { cwd: project, encoding: "utf8", timeout: 120_000 });
  assert.equal(status, 0, stderr);
  assert.equal(stderr, "");
  return stdout;
}

test("the package holds what it should and nothing else", () => {
  const installed = join(project, "node_modules/wick-embed");
  assert.deepEqual(readdirSync(installed).sort(), ["CHANGELOG.md", "LICENSE-APACHE", "LICENSE-MIT", "README.md", "dist", "package.json"]);
  const files = readdirSync(join(installed, "dist"));
  assert.deepEqual(files.filter((file) => !/\.(js|d\.ts|wasm)$/.test(file)), []);
  assert.equal(files.filter((file) => file.endsWith(".wasm")).length, 1);
});

test("in Node: importing is silent, and a program that does not dispose still ends", async (t) => {
  assert.equal(node(`import "wick-embed";`), "");
  const model = JSON.stringify(pathToFileURL(path(`${MODEL}/`)));
  for (const worker of [true, false]) {
    const { error } = await milvusError(async (texts) =>
      JSON.parse(
        node(`
          import { Embedder } from "wick-embed";
          const embedder = await Embedder.load(new URL(${model}), { worker: ${worker} });
          const { dense } = await embedder.encode(${JSON.stringify(texts)});
          console.log(JSON.stringify(dense.map((row) => Array.from(row))));`),
      ),
    );
    t.diagnostic(`worker ${worker}: largest error ${error.toExponential(2)}`);
    assert.ok(error <= 2e-6, `${error}`);
  }
});

test("in Node: a path, bytes, errors and abort", () => {
  const output = node(`
    import { readFile } from "node:fs/promises";
    import { Embedder, WickError } from "wick-embed";
    const folder = ${JSON.stringify(path(MODEL))};
    const code = (promise) => promise.then(() => "none", (error) => (error instanceof WickError ? error.code : String(error)));
    const files = {};
    for (const name of ["config.json", "tokenizer.json", "modules.json", "1_Pooling/config.json", "sentence_bert_config.json", "model.safetensors"]) {
      files[name] = new Uint8Array(await readFile(folder + "/" + name));
    }
    const results = [];
    for (const source of [folder, files]) {
      const embedder = await Embedder.load(source);
      results.push((await embedder.encode(["Wick"])).dense[0][0], embedder.maxTokens);
      const abort = new AbortController();
      const call = code(embedder.encode(Array(500).fill("a b c d e f g h"), { signal: abort.signal, onProgress: () => abort.abort() }));
      results.push(await call, (await embedder.encode(["Wick"])).dense.length);
      embedder.dispose();
      results.push(await code(embedder.encode(["Wick"])));
    }
    results.push(await code(Embedder.load("./nowhere")), await code(Embedder.load({ ...files, "model.safetensors": new Uint8Array(99) })));
    results.push(await code(Embedder.load("http://localhost:9/")));
    console.log(JSON.stringify(results));`);
  const [value, maxTokens, ...rest] = JSON.parse(output);
  assert.equal(maxTokens, 256);
  const after = ["aborted", 1, "disposed"];
  assert.deepEqual(rest, [...after, value, 256, ...after, "missing_file", "invalid_weights", "network"]);
});

test("in Node: a trap and a listener that throws end neither the program nor what is behind", () => {
  const tokenizer = JSON.parse(readFileSync(path(`${MODEL}/tokenizer.json`), "utf8"));
  tokenizer.normalizer = { type: "Precompiled", precompiled_charsmap: "AAAAAA==" };
  writeFileSync(join(project, "trap.json"), JSON.stringify(tokenizer));
  const output = node(`
    import { pathToFileURL } from "node:url";
    import { Embedder } from "wick-embed";
    process.on("uncaughtException", () => {}); // as servers do
    console.error = (error) => results.push(error.message);
    const folder = pathToFileURL(${JSON.stringify(`${path(MODEL)}/`)});
    const files = Object.fromEntries(["config.json", "modules.json", "1_Pooling/config.json", "model.safetensors"].map((file) => [file, new URL(file, folder)]));
    const code = (promise) => promise.then(() => "none", (error) => error.code);
    const results = [];
    results.push(await code(Embedder.load({ ...files, "tokenizer.json": "./trap.json" })));
    const embedder = await Embedder.load(folder);
    let thrown = false;
    const onProgress = () => { if (!thrown) { thrown = true; throw new Error("mine"); } };
    results.push((await embedder.encode(["a"], { onProgress })).dense.length);
    embedder.dispose();
    // On this thread the trap ends the module for good.
    results.push(await code(Embedder.load({ ...files, "tokenizer.json": "./trap.json" }, { worker: false })));
    results.push(await code(Embedder.load(folder, { worker: false })));
    console.log(JSON.stringify(results));`);
  assert.deepEqual(JSON.parse(output), ["crashed", "mine", 1, "crashed", "crashed"]);
});

test("types: what is documented compiles, what is wrong does not", () => {
  writeFileSync(
    join(project, "types.ts"),
    `import { Embedder, WickError, type Code, type Output, type Source, type Tokens } from "wick-embed";
    const sources: Source[] = ["org/name@main", new URL("https://example.com/"), { "config.json": new Blob([]), "model.safetensors": new Uint8Array() }];
    export async function all(): Promise<Float32Array[]> {
      const embedder: Embedder = await Embedder.load(sources[0]!, { revision: "main", worker: false, dimensions: 3, signal: AbortSignal.timeout(9), onProgress: ({ loaded, total, file }) => console.log(loaded, total, file.length) });
      const output: Output = await embedder.encodeQueries(["a"], { onProgress: ({ done, total }) => console.log(done / total) });
      const tokens: Tokens[] = await embedder.tokenize(["a"], { role: "document" });
      const count: number = output.usage.tokens + output.usage.truncated.length + embedder.dimensions + embedder.maxTokens + tokens.length;
      console.log(count);
      try { await embedder.encode(Object.freeze(["a"])); } catch (error) {
        if (error instanceof WickError) { const code: Code = error.code; console.log(code === "aborted"); }
      }
      embedder.dispose();
      return output.dense;
    }
    export async function none(embedder: Embedder) {
      // @ts-expect-error one text is no list
      await embedder.encode("a");
      // @ts-expect-error numbers are no texts
      await embedder.encode([1]);
      // @ts-expect-error there is no such device
      await Embedder.load("a/b", { device: "abacus" });
      // @ts-expect-error there is no such code
      const code: Code = "oops";
      // @ts-expect-error embedders are loaded, not made
      new Embedder();
      // @ts-expect-error the width is the model's
      embedder.dimensions = 3;
      return code;
    }`,
  );
  const options = { strict: true, target: "ES2022", module: "NodeNext", moduleResolution: "NodeNext", lib: ["ES2022", "DOM"], types: [], noEmit: true };
  writeFileSync(join(project, "tsconfig.json"), JSON.stringify({ compilerOptions: options, files: ["types.ts"] }));
  const tsc = spawnSync(process.execPath, [path("pkg/node_modules/typescript/bin/tsc"), "-p", project], { encoding: "utf8" });
  assert.equal(tsc.status, 0, tsc.stdout);
});

test("in a Vite project, built and run in Chromium", async (t) => {
  // Vite itself is installed once, beside the tests.
  for (const name of readdirSync(path("tests/web/node_modules"))) {
    const target = join(project, "node_modules", name);
    if (!name.startsWith(".") && name !== "wick-embed") symlinkSync(path(`tests/web/node_modules/${name}`), target);
  }
  writeFileSync(join(project, "index.html"), `<!doctype html><link rel="icon" href="data:,"><script type="module" src="/main.js"></script>`);
  writeFileSync(
    join(project, "main.js"),
    `import { Embedder } from "wick-embed";
    globalThis.encode = async (texts, worker) => {
      const embedder = await Embedder.load("/model/", { worker });
      const { dense } = await embedder.encode(texts);
      embedder.dispose();
      return dense.map((row) => Array.from(row));
    };`,
  );
  const vite = path("tests/web/node_modules/vite/bin/vite.js");
  const built = spawnSync(process.execPath, [vite, "build", "--logLevel", "warn"], { cwd: project, encoding: "utf8" });
  assert.equal(built.status, 0, built.stderr);
  assert.equal(built.stderr + built.stdout, "", "no warnings");
  const assets = readdirSync(join(project, "dist/assets"));
  assert.equal(assets.filter((file) => file.endsWith(".wasm")).length, 1, `${assets}`);
  mkdirSync(join(project, "dist/model/1_Pooling"), { recursive: true });
  cpSync(path(MODEL), join(project, "dist/model"), { recursive: true });

  const server = await serve(join(project, "dist"));
  const browser = await launch();
  t.after(() => Promise.all([browser.close(), server.close()]));
  const page = await browser.newPage();
  const messages = [];
  page.on("console", (message) => messages.push(message.text()));
  page.on("pageerror", (error) => messages.push(String(error)));
  await page.goto(server.url);
  await page.waitForFunction(() => globalThis.encode);
  for (const worker of [true, false]) {
    const { error } = await milvusError((texts) => page.evaluate(([texts, worker]) => encode(texts, worker), [texts, worker]));
    t.diagnostic(`worker ${worker}: largest error ${error.toExponential(2)}`);
    assert.ok(error <= 2e-6, `${error}`);
  }
  assert.deepEqual(messages, []);
});
