// The packed npm package as a user installs it: in Node, in a Vite project, and what its types allow.
import assert from "node:assert/strict";
import { execFile, execFileSync, spawnSync } from "node:child_process";
import { existsSync, readFileSync, readdirSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { pathToFileURL } from "node:url";
import { promisify } from "node:util";
import { brotliCompress } from "node:zlib";
import { serve as serveProviders, seed, unit } from "../providers/server.mjs";
import { MODEL, SMALL, difference, launch, milvusError, path, scratch, serve } from "./harness.mjs";

const MODULES = ["wick_embed_bg.wasm", "wick_embed_relaxed_bg.wasm", "wick_reference_bg.wasm", "wick_remote_bg.wasm"];

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
  const others = ["CHANGELOG.md", "LICENSE-APACHE", "LICENSE-MIT", "README.md", "THIRD-PARTY-NOTICES.txt"];
  assert.deepEqual(readdirSync(installed).sort(), [...others, "dist", "docs", "package.json"]);
  const files = readdirSync(join(installed, "dist"));
  assert.deepEqual(files.filter((file) => !/\.(js|d\.ts|wasm)$/.test(file)), []);
  assert.deepEqual(files.filter((file) => file.endsWith(".wasm")).sort(), MODULES);
  // Each is for those to name whose bundlers do not find it.
  const { exports } = JSON.parse(readFileSync(join(installed, "package.json"), "utf8"));
  for (const file of MODULES) assert.equal(exports[`./${file}`], `./dist/${file}`);
  for (const file of Object.values(exports).flatMap((file) => (typeof file === "string" ? file : Object.values(file)))) {
    assert.ok(existsSync(join(installed, file)), file);
  }
  // npm's page shows this file, and has no other beside it. Each document that it points at is in the package.
  const links = [...readFileSync(join(installed, "README.md"), "utf8").matchAll(/\]\(([^)]*)\)/g)].map(([, link]) => link);
  assert.deepEqual(links.filter((link) => !/^(https:|#)/.test(link)), []);
  const own = links.filter((link) => link.startsWith("https://unpkg.com/")).map((link) => link.split("/").slice(4).join("/").split("#")[0]);
  assert.ok(own.length > 3);
  for (const file of own) assert.ok(existsSync(join(installed, file)), file);
  // What the modules are made of, each with its licence.
  const notices = readFileSync(join(installed, "THIRD-PARTY-NOTICES.txt"), "utf8");
  for (const part of ["\ntokenizers 0.", "\nwgpu ", "\nwasm-bindgen ", "\ncandle-core ", "PostgreSQL Database Management System", "Permission is hereby granted, free of charge"]) {
    assert.ok(notices.includes(part), part);
  }
});

test("the worker and wick-embed/local load no parts later: bundlers split no worker, and a service worker may not", () => {
  const folder = join(project, "node_modules/wick-embed/dist");
  /** All scripts that one imports, and those that it would load later. */
  const graph = (entry) => {
    const [seen, later] = [new Set([entry]), []];
    for (const file of seen) {
      const text = readFileSync(join(folder, file), "utf8").replace(/\/\*[^]*?\*\/|^ *\/\/.*$/gm, "");
      for (const [, name] of text.matchAll(/^(?:import|export)\b[^;]*?"\.\/([^"]+)";/gm)) seen.add(name);
      later.push(...[...text.matchAll(/\bimport\(.*/g)].map(([found]) => `${file}: ${found}`));
    }
    return { seen, later };
  };
  for (const entry of ["worker.js", "local.js"]) {
    const { seen, later } = graph(entry);
    assert.ok(seen.has("wick_embed.js"), `${[...seen]}`);
    assert.deepEqual(later, []);
  }
  assert.ok(graph("index.js").later.length > 0, "those of a page are seen");
});

test("the entries differ only in where they compute", () => {
  const [browser, node, local] = ["index", "node", "local"].map((entry) =>
    readFileSync(path(`pkg/src/${entry}.ts`), "utf8").replace(/^\/\*\*[^]*?\*\/\n/, "").replace(/"\.\/host\.\w+\.js"/, "HOST"),
  );
  assert.ok(browser.includes("HOST"));
  assert.equal(node, browser);
  assert.equal(local, browser);
});

test("a page fetches less than 0.93 MB of module, and less than 0.16 MB for a provider", async (t) => {
  const folder = join(project, "node_modules/wick-embed/dist");
  // Whoever compares with the reference waits for it.
  const sizes = MODULES.filter((file) => file !== "wick_reference_bg.wasm").map(async (file) => {
    const { length } = await promisify(brotliCompress)(readFileSync(join(folder, file)));
    t.diagnostic(`${file}: ${length} bytes`);
    assert.ok(length < (file === "wick_remote_bg.wasm" ? 160_000 : 930_000), `${file}: ${length}`);
  });
  await Promise.all(sizes);
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

test("in Node: rerankers and BM25, in a worker or not; a program that does not dispose still ends", () => {
  const output = node(`
    import { BM25, Reranker } from "wick-embed";
    const results = [];
    for (const worker of [true, false]) {
      const reranker = await Reranker.load(${JSON.stringify(path("tests/fixtures/rerank-bert"))}, { worker });
      const ranked = await reranker.rerank("What is a panda?", ["hi", "a bear"]);
      const bm25 = await BM25.fit(["hi", "a bear"], { worker });
      const { sparse } = await bm25.encodeQueries(["bear"]);
      results.push([ranked.length, reranker.device, (await sparse[0].decode()).map(({ token }) => token)]);
    }
    console.log(JSON.stringify(results));`);
  const wanted = [2, "wasm", ["bear"]];
  assert.deepEqual(JSON.parse(output), [wanted, wanted]);
});

test("in Node: a path, bytes, errors and abort", () => {
  const output = node(`
    import { readFile } from "node:fs/promises";
    import { Embedder, WickError } from "wick-embed";
    const folder = ${JSON.stringify(path(SMALL))};
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
      const call = code(embedder.encode(Array(5000).fill("a b c d e f g h"), { signal: abort.signal, onProgress: () => abort.abort() }));
      results.push(await call, (await embedder.encode(["Wick"])).dense.length);
      embedder.dispose();
      results.push(await code(embedder.encode(["Wick"])));
    }
    results.push(await code(Embedder.load("./nowhere")), await code(Embedder.load({ ...files, "model.safetensors": new Uint8Array(99) })));
    results.push(await code(Embedder.load("http://localhost:9/")));
    console.log(JSON.stringify(results));`);
  const [value, maxTokens, ...rest] = JSON.parse(output);
  assert.equal(maxTokens, 64);
  const after = ["aborted", 1, "disposed"];
  assert.deepEqual(rest, [...after, value, 64, ...after, "missing_file", "invalid_weights", "network"]);
});

test("each row has a buffer of its own, and the flat form has the same numbers", async (t) => {
  const providers = await serveProviders();
  t.after(() => providers.close());
  const program = `
    import assert from "node:assert/strict";
    import { BM25, Embedder } from "wick-embed";
    const alone = (...arrays) => {
      for (const array of arrays) assert.deepEqual([array.byteOffset, array.buffer.byteLength], [0, array.byteLength]);
      assert.equal(new Set(arrays.map(({ buffer }) => buffer)).size, arrays.length);
    };
    const texts = ["sun", "sun rain sun", "wind and rain"];
    const embedder = await Embedder.load(${JSON.stringify(path("tests/fixtures/bge-m3"))});
    const { dense, sparse, tokens, usage } = await embedder.encode(texts);
    alone(...dense, ...tokens.flat(), ...sparse.flatMap(({ indices, values }) => [indices, values]));
    const flat = await embedder.encodeQueries(texts, { flat: true });
    const joined = (arrays) => arrays.flatMap((array) => Array.from(array));
    const ends = (rows) => rows.map((_, index) => rows.slice(0, index + 1).reduce((sum, { length }) => sum + length, 0));
    assert.deepEqual([Array.from(flat.dense.data), flat.dense.dimensions], [joined(dense), dense[0].length]);
    assert.deepEqual([Array.from(flat.tokens.data), flat.tokens.dimensions], [joined(tokens.flat()), tokens[0][0].length]);
    assert.deepEqual(Array.from(flat.tokens.ends), ends(tokens));
    assert.deepEqual(Array.from(flat.sparse.indices), joined(sparse.map(({ indices }) => indices)));
    assert.deepEqual(Array.from(flat.sparse.values), joined(sparse.map(({ values }) => values)));
    assert.deepEqual(Array.from(flat.sparse.ends), ends(sparse.map(({ indices }) => indices)));
    assert.deepEqual(flat.usage, usage);
    // A row may be given away.
    structuredClone(dense[0], { transfer: [dense[0].buffer] });
    assert.deepEqual([dense[0].length, dense[1].length], [0, dense[2].length]);
    assert.equal((await embedder.encode(texts, { flat: 1 }).catch(({ code }) => code)), "invalid_option");
    const bm25 = await BM25.fit(texts);
    alone(...(await bm25.encodeDocuments(texts)).sparse.flatMap(({ indices, values }) => [indices, values]));
    const options = { model: "voyage-4", apiKey: "sk-test-0123456789", baseUrl: ${JSON.stringify(`${providers.url}/voyage`)}, outputDtype: "ubinary" };
    const remote = await Embedder.remote("voyage", options);
    const { quantized } = await remote.encodeQueries(texts);
    alone(...quantized.vectors);
    const { quantized: bits } = await remote.encodeQueries(texts, { flat: true });
    assert.deepEqual(bits, { dtype: "ubinary", data: new Uint8Array(joined(quantized.vectors)), dimensions: 128 });
    console.log("done");`;
  // The provider answers in this process.
  writeFileSync(join(project, "rows.mjs"), program);
  const { stdout } = await promisify(execFile)(process.execPath, ["rows.mjs"], { cwd: project });
  assert.equal(stdout, "done\n");
});

test("in Node: a worker that ends without a word rejects its calls, and those that come later", () => {
  const output = node(`
    import { syncBuiltinESMExports } from "node:module";
    import threads from "node:worker_threads";
    const workers = [];
    threads.Worker = class extends threads.Worker {
      constructor(...all) { super(...all); workers.push(this); }
    };
    syncBuiltinESMExports();
    const { Embedder } = await import("wick-embed");
    const code = (promise) => promise.then(() => "none", (error) => error.code);
    const embedder = await Embedder.load(${JSON.stringify(path(SMALL))}, { threads: 1 });
    const call = code(embedder.encode(Array(5000).fill("a b c d"), { onProgress: () => workers[0].terminate() }));
    console.log(JSON.stringify([await call, await code(embedder.encode(["a"])), await code(Embedder.load("a/b", { worker: () => {} }))]));`);
  assert.deepEqual(JSON.parse(output), ["crashed", "crashed", "invalid_option"]);
});

test("in Node: a trap and a listener that throws end neither the program nor what is behind", () => {
  const tokenizer = JSON.parse(readFileSync(path(`${SMALL}/tokenizer.json`), "utf8"));
  tokenizer.normalizer = { type: "Precompiled", precompiled_charsmap: "AAAAAA==" };
  writeFileSync(join(project, "trap.json"), JSON.stringify(tokenizer));
  const output = node(`
    import { pathToFileURL } from "node:url";
    import { Embedder } from "wick-embed";
    process.on("uncaughtException", () => {}); // as servers do
    console.error = (error) => results.push(error.message);
    const folder = pathToFileURL(${JSON.stringify(`${path(SMALL)}/`)});
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
    `import { BM25, Embedder, Reranker, SparseVector, WickError, colbertScore, hybridScore, lexicalScore, type Code, type Output, type OutputKind, type Provider, type ProviderFailure, type QuantizedVectors, type Ranked, type RemoteEmbedder, type RemoteReranker, type Source, type TextEmbedder, type TextReranker, type Tokens } from "wick-embed";
    const sources: Source[] = ["org/name@main", new URL("https://example.com/"), { "config.json": new Blob([]), "model.safetensors": new Uint8Array() }];
    export async function all(): Promise<Float32Array[]> {
      const workers: NonNullable<Parameters<typeof Embedder.load>[1]>["worker"][] = [true, "/w.js", new URL("https://example.com/w.js"), () => new Worker("/w.js")];
      await Embedder.load(sources[0]!, { worker: workers[0]! });
      const embedder: Embedder = await Embedder.load(sources[0]!, { revision: "main", worker: false, threads: 2, dimensions: 3, signal: AbortSignal.timeout(9), onProgress: ({ loaded, total, file }) => console.log(loaded, total, file.length) });
      const output: Output = await embedder.encodeQueries(["a"], { onProgress: ({ done, total }) => console.log(done / total) });
      const tokens: Tokens[] = await embedder.tokenize(["a"], { role: "document" });
      const count: number = output.usage.tokens + output.usage.truncated.length + embedder.dimensions + embedder.maxTokens + embedder.threads + tokens.length;
      console.log(count);
      try { await embedder.encode(Object.freeze(["a"])); } catch (error) {
        if (error instanceof WickError) { const code: Code = error.code; console.log(code === "aborted"); }
      }
      embedder.dispose();
      const vectors: Float32Array[] = output.dense ?? [];
      return vectors;
    }
    export async function hybrid(): Promise<number> {
      const embedder = await Embedder.load("a/b", { dtype: "int8", outputs: ["dense", "sparse"], prompts: { query: "q: " }, weights: "x.safetensors" });
      const kinds: readonly OutputKind[] = embedder.outputs;
      const { dense, sparse, tokens } = await embedder.encode(["a"], { outputs: kinds, topK: 9, prompt: "p: " });
      const row: SparseVector = sparse![0]!;
      const milvus: Record<string, number> = row.toMilvus();
      for (const { token, weight } of await row.decode()) console.log(token.length, weight, milvus, row.isEmpty, dense?.length);
      return hybridScore({ sparse: lexicalScore(row, { indices: [1], values: [0.5] }), colbert: colbertScore(tokens![0]!, tokens![0]!) }, { sparse: 1, colbert: 2 });
    }
    export async function rerank(): Promise<Ranked[]> {
      const reranker: Reranker = await Reranker.load("a/b", { maxQueryTokens: 256, normalize: false, dtype: "f16" });
      return reranker.rerank("q", ["a"], { topK: 1, onProgress: ({ done, total }) => console.log(done / total) });
    }
    export async function bm25(): Promise<SparseVector[]> {
      const fitted: BM25 = await BM25.fit(["a"], { analyzer: { kind: "unicode", language: "de", stopWords: ["b"] }, k1: 1.2, b: 0.5, epsilon: 0.1, worker: false });
      const read = await BM25.load(JSON.parse(await fitted.save()), { analyzer: { kind: "nltk" } });
      return (await read.encodeQueries(["a"])).sparse;
    }
    export async function remote(): Promise<QuantizedVectors> {
      const provider: Provider = "cohere";
      const embedder: RemoteEmbedder = await Embedder.remote(provider, { model: "embed-v4.0", apiKey: async () => "k", baseUrl: new URL("https://example.com/"), headers: { a: "b" }, timeoutMs: 9, maxRetries: 0, concurrency: 2, batchSize: 3, batchTokens: 4, outputs: ["dense"], dimensions: 8, outputDtype: "int8", truncate: "end", task: "classification", extra: { priority: 1 }, fetch: (url, init) => fetch(url, init) });
      const reranker: RemoteReranker = await Reranker.remote("tei", { baseUrl: "http://localhost:8080" });
      const either: [TextEmbedder, TextEmbedder, TextReranker, TextReranker] = [embedder, await Embedder.load("a/b"), reranker, await Reranker.load("a/b")];
      const dimensions: number | undefined = embedder.dimensions;
      try { await either[0].encode(["a"], { signal: AbortSignal.timeout(9) }); } catch (error) {
        const said: ProviderFailure | undefined = error instanceof WickError ? error.provider : undefined;
        console.log(said?.status, said?.retryable, said?.retryAfterMs, said?.requestId, dimensions, embedder.model, embedder.provider);
      }
      const quantized: QuantizedVectors = (await embedder.encodeDocuments(["a"])).quantized!;
      const signed: Int8Array[] = quantized.dtype === "int8" ? quantized.vectors : [];
      await Embedder.remote(provider, { apiKey: signed.length ? undefined : "k", baseUrl: undefined });
      return quantized;
    }
    export async function none(embedder: Embedder) {
      // @ts-expect-error one text is no list
      await embedder.encode("a");
      // @ts-expect-error numbers are no texts
      await embedder.encode([1]);
      // @ts-expect-error there is no such device
      await Embedder.load("a/b", { device: "abacus" });
      // @ts-expect-error there is no such kind
      await embedder.encode(["a"], { outputs: ["words"] });
      // @ts-expect-error a sparse vector may be missing
      (await embedder.encode(["a"])).sparse.length;
      // @ts-expect-error documents and queries are counted differently
      (await BM25.fit(["a"])).encode;
      // @ts-expect-error there is no such provider
      await Embedder.remote("acme", {});
      // @ts-expect-error a provider does not tell its tokens
      await (await Embedder.remote("openai", { model: "m" })).tokenize(["a"]);
      // @ts-expect-error a reranker has no dimensions
      await Reranker.remote("jina", { dimensions: 3 });
      // @ts-expect-error there is no such code
      const code: Code = "oops";
      // @ts-expect-error embedders are loaded, not made
      new Embedder();
      // @ts-expect-error the width is the model's
      embedder.dimensions = 3;
      return code;
    }`,
  );
  compiles("types.ts", { module: "NodeNext", lib: ["ES2022", "DOM"] });
  compiles("types.ts", { module: "ESNext", moduleResolution: "bundler", lib: ["ES2022", "DOM"] });
});

/** Type-checks a file of the project, and all declarations that it comes by. */
function compiles(file, options) {
  const compilerOptions = { strict: true, skipLibCheck: false, target: "ES2022", types: [], noEmit: true, ...options };
  writeFileSync(join(project, "tsconfig.json"), JSON.stringify({ compilerOptions, files: [file] }));
  const tsc = spawnSync(process.execPath, [path("pkg/node_modules/typescript/bin/tsc"), "-p", project], { encoding: "utf8" });
  assert.equal(tsc.status, 0, `${JSON.stringify(options)}: ${tsc.stdout}`);
}

test("types: without the DOM's library, and with Node's types or none", () => {
  writeFileSync(
    join(project, "bare.ts"),
    `import { BM25, Embedder, Reranker, type FlatOutput, type FlatVectors, type Source } from "wick-embed";
    import { Embedder as Local } from "wick-embed/local";
    import "wick-embed/worker";
    export async function all(source: Source, module: object): Promise<number> {
      const embedder = await Embedder.load(source, { worker: false, wasm: module as Uint8Array });
      const row: Float32Array = (await embedder.encode(["a"])).dense![0]!;
      const flat: FlatOutput = await embedder.encodeDocuments(["a"], { flat: true, topK: 3 });
      const { data, dimensions }: FlatVectors = flat.dense!;
      // @ts-expect-error the flat form has no rows
      flat.dense![0];
      const remote = await Embedder.remote("openai", { model: "m", fetch: async (url) => { throw new Error(url); } });
      const local = await Local.load(source);
      await Reranker.load(source, { worker: "./worker.js" });
      return row.length + data.length + dimensions + (remote.dimensions ?? 0) + local.dimensions + (await BM25.fit(["a"])).dimensions;
    }`,
  );
  const bare = { module: "NodeNext", lib: ["ES2022"] };
  compiles("bare.ts", bare);
  compiles("bare.ts", { ...bare, typeRoots: [path("pkg/node_modules/@types")], types: ["node"] });
  compiles("bare.ts", { ...bare, lib: ["ES2022", "WebWorker"] });
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
    };
    globalThis.remote = async (baseUrl, texts) => {
      const embedder = await Embedder.remote("openai", { model: "m", apiKey: "k", baseUrl });
      return (await embedder.encode(texts)).dense.map((row) => Array.from(row));
    };`,
  );
  const vite = path("tests/web/node_modules/vite/bin/vite.js");
  const built = spawnSync(process.execPath, [vite, "build", "--logLevel", "warn"], { cwd: project, encoding: "utf8" });
  assert.equal(built.status, 0, built.stderr);
  assert.equal(built.stderr + built.stdout, "", "no warnings");
  const assets = readdirSync(join(project, "dist/assets"));
  assert.equal(assets.filter((file) => file.endsWith(".wasm")).length, MODULES.length, `${assets}`);
  symlinkSync(path(MODEL), join(project, "dist/model"));

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
  const providers = await serveProviders();
  t.after(() => providers.close());
  const [row] = await page.evaluate(([url]) => remote(url, ["a"]), [`${providers.url}/openai`]);
  assert.ok(difference(row, unit(seed("", "a"), 16)) < 1e-6);
  assert.deepEqual(messages, []);
});
