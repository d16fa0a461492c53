// The package's own files in real Chromium: the same vectors as natively, and what happens when things go wrong.
import assert from "node:assert/strict";
import { createReadStream, readFileSync, statSync } from "node:fs";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { SMALL, decodeRows, difference, launch, milvusError, nativeVectors, openPage, path, sendSmall, serveSite, sharedPage, stsSentences } from "./harness.mjs";

const WEIGHTS = "model.safetensors";
const weights = path(`${SMALL}/${WEIGHTS}`);
const weightsSize = statSync(weights).size;

let browser, server;
/** Answers requests below /models/<name>/ instead of the folder, by name. */
const faults = {};
const requests = [];

before(async () => {
  browser = await launch();
  server = await serveSite((request, response, name, file) => {
    requests.push(`${request.method} ${name}/${file}`);
    return faults[name] ? faults[name](request, response, file) : false;
  });
});

after(async () => {
  await browser?.close();
  await server?.close();
});

const open = (t, options) => openPage(t, browser, server, options);

/** A page with MiniLM in a worker, `minilm.true`, and on its own thread, `minilm.false`. */
const shared = sharedPage(async () => {
  const opened = await openPage(undefined, browser, server);
  await opened.page.evaluate(async () => {
    globalThis.minilm = {};
    for (const worker of [true, false]) minilm[worker] = await load("all-MiniLM-L6-v2", { worker });
  });
  return opened;
});

/** A tokenizer that traps in the tokenizers crate: a table ends before it begins. */
function trappingTokenizer() {
  const tokenizer = JSON.parse(readFileSync(path(`${SMALL}/tokenizer.json`), "utf8"));
  tokenizer.normalizer = { type: "Precompiled", precompiled_charsmap: "AAAAAA==" };
  return JSON.stringify(tokenizer);
}

/** Serves the tiny model with one file changed. */
const changed = (wanted, change) => (request, response, file) => {
  if (file !== wanted) return sendSmall(response, file);
  change(response, request);
  return true;
};

describe("vectors", () => {
  test("Milvus' printed values, in a worker and on the page", async (t) => {
    const { page, messages } = await shared(t);
    for (const worker of [true, false]) {
      const encode = async ([texts, worker]) => pack((await minilm[worker].encode(texts)).dense);
      const { error, count } = await milvusError(async (texts) => decodeRows(await page.evaluate(encode, [texts, worker]), texts.length));
      t.diagnostic(`worker ${worker}: largest error of ${count} printed values ${error.toExponential(2)}`);
      assert.ok(count >= 40 && error <= 2e-6, `${error}`);
    }
    assert.deepEqual(messages, []);
  });

  test("all STS-B sentences equal the native program's", async (t) => {
    const { page } = await shared(t);
    const texts = stsSentences();
    const native = nativeVectors(t, texts);
    const result = await page.evaluate(async (texts) => {
      const progress = [];
      const start = performance.now();
      const { dense, usage } = await minilm.true.encode(texts, { onProgress: ({ done, total }) => progress.push([done, total]) });
      const seconds = (performance.now() - start) / 1000;
      return { packed: pack(dense), usage, progress, seconds };
    }, texts);
    const page_ = decodeRows(result.packed, texts.length);
    const worst = Math.max(...page_.map((row, index) => difference(row, native[index])));
    t.diagnostic(`${texts.length} texts, ${result.usage.tokens} tokens, ${(result.usage.tokens / result.seconds).toFixed(0)} tokens/s`);
    t.diagnostic(`largest difference to native ${worst.toExponential(2)}`);
    assert.ok(worst <= 2e-6, `${worst}`);
    assert.deepEqual(result.progress.at(-1), [texts.length, texts.length]);
    assert.ok(result.progress.length > 2 && result.progress.every(([done], i, all) => i === 0 || done > all[i - 1][0]));
  });

  test("a text alone, with longer ones and in another order is bit-equal", async (t) => {
    const { page } = await shared(t);
    const long = "words and more words ".repeat(60);
    const texts = ["", "Wick", "The weather is lovely today.", long, "He drove to the stadium.", "x ".repeat(600)];
    const equal = await page.evaluate(async (texts) => {
      const embedder = minilm.true;
      const { dense: together, usage } = await embedder.encode(texts);
      const { dense: backwards } = await embedder.encode(texts.toReversed());
      const same = (a, b) => a.length === b.length && a.every((value, index) => Object.is(value, b[index]));
      const alone = [];
      for (const text of texts) alone.push((await embedder.encode([text])).dense[0]);
      return {
        usage,
        batch: alone.map((row, index) => same(row, together[index])),
        order: alone.map((row, index) => same(row, backwards[texts.length - 1 - index])),
      };
    }, texts);
    assert.deepEqual(equal.batch, texts.map(() => true));
    assert.deepEqual(equal.order, texts.map(() => true));
    assert.deepEqual(equal.usage.truncated, [5]);
  });
});

describe("loading", () => {
  test("from a map of addresses, blobs and bytes, from a hub, with progress over all files", async (t) => {
    const { page } = await shared(t);
    faults["org"] = (request, response, file) => {
      const [, , revision, ...rest] = file.split("/");
      assert.equal(revision, "v1");
      return sendSmall(response, rest.join("/"));
    };
    const results = await page.evaluate(async () => {
      const base = "/models/small/";
      const get = async (file) => await fetch(base + file);
      const small = {
        "config.json": await (await get("config.json")).blob(),
        "tokenizer.json": new Uint8Array(await (await get("tokenizer.json")).arrayBuffer()),
        "modules.json": await (await get("modules.json")).arrayBuffer(),
        "1_Pooling/config.json": new URL(`${base}1_Pooling/config.json`, location.href),
      };
      const weights = {
        address: `${base}model.safetensors`,
        blob: await (await get("model.safetensors")).blob(),
      };
      const values = {};
      for (const [kind, file] of Object.entries(weights)) {
        const progress = [];
        const embedder = await wick.Embedder.load({ ...small, "model.safetensors": file }, { onProgress: (p) => progress.push(p) });
        values[kind] = [(await embedder.encode(["Wick"])).dense[0][0], embedder.dimensions, embedder.maxTokens, progress.at(-1)];
        embedder.dispose();
      }
      const embedder = await wick.Embedder.load("org/model@v1", { host: "/models/", cache: false });
      const hub = [(await embedder.encode(["Wick"])).dense[0][0], embedder.maxTokens];
      embedder.dispose();
      return { ...values, hub };
    });
    const [value, dimensions, maxTokens, last] = results.address;
    // Without sentence_bert_config.json the limit is the position embedding's.
    assert.deepEqual([dimensions, maxTokens], [32, 70]);
    assert.equal(last.loaded, last.total);
    assert.ok(last.total > weightsSize);
    assert.equal(results.blob[0], value);
    assert.deepEqual(results.hub, [value, 64]);
  });

  test("what was fetched is kept, asked after, and dropped when it changed or is broken", async (t) => {
    const { page } = await open(t);
    let version = "1";
    let broken = false;
    const good = (request, response, file) => {
      const found = statSync(path(join(SMALL, file)), { throwIfNoEntry: false });
      // A model that lacks an optional file, as most do.
      if (!found?.isFile() || file === "tokenizer_config.json") return response.writeHead(404).end(), true;
      const bytes = file === WEIGHTS && broken ? Buffer.alloc(1000, "<html>") : readFileSync(path(join(SMALL, file)));
      response.writeHead(200, { "content-length": bytes.length, etag: `"${version}"` });
      response.end(request.method === "HEAD" ? undefined : bytes);
      return true;
    };
    faults["kept"] = good;
    // Loads, and waits until what was fetched is written.
    const load = () =>
      page.evaluate(async (version) => {
        const embedder = await load("kept");
        const value = (await embedder.encode(["Wick"])).dense[0][0];
        const cache = await caches.open("wick-embed");
        const kept = async () => (await cache.match("/models/kept/model.safetensors"))?.headers.get("etag");
        while ((await kept()) !== `"${version}"`) await new Promise((resolve) => setTimeout(resolve, 50));
        embedder.dispose();
        return value;
      }, version);
    const failing = (options) => page.evaluate((options) => failure(globalThis.load("kept", options)), options);
    const counted = async (action) => {
      requests.length = 0;
      const result = await action();
      return [result, requests.filter((line) => line === `GET kept/${WEIGHTS}`).length];
    };
    const [first, fetched] = await counted(load);
    assert.equal(fetched, 1);
    assert.deepEqual(await counted(load), [first, 0], "kept");
    assert.equal((await failing({ maxTokens: 9999 })).code, "invalid_option");
    assert.deepEqual(await counted(load), [first, 0], "kept, for a wrong option says nothing about the files");
    version = "2";
    assert.deepEqual(await counted(load), [first, 1], "changed on the server");
    faults["kept"] = (request, response) => (response.destroy(), true);
    assert.equal(await load(), first, "without a network, what is kept counts");
    faults["kept"] = good;
    version = "3";
    broken = true;
    assert.equal((await failing()).code, "invalid_weights");
    broken = false;
    assert.deepEqual(await counted(load), [first, 1], "a broken file is not kept");
  });
});

describe("failures have a code, and the next call works", () => {
  test("of texts", async (t) => {
    const { page, messages } = await shared(t);
    for (const worker of [true, false]) {
      const results = await page.evaluate(async (worker) => {
        const embedder = minilm[worker];
        const failures = {};
        const bad = { number: ["a", 3], null: [null], surrogate: ["fine", "\ud83d"], string: "not a list", nothing: undefined, function: [() => 1], nested: [["a"]] };
        for (const [name, texts] of Object.entries(bad)) failures[name] = await failure(embedder.encode(texts));
        const empty = await embedder.encode([]);
        const odd = await embedder.encode(["", "x".repeat(1 << 20), "word ".repeat(200_000)]);
        // The array is the caller's again as soon as the call returns.
        const own = ["next"];
        const call = embedder.encode(own);
        own.length = 0;
        const next = await call;
        return { failures, empty: empty.dense.length, odd: odd.usage, finite: odd.dense.every((row) => row.every(Number.isFinite)), next: next.dense.length };
      }, worker);
      for (const [name, error] of Object.entries(results.failures)) {
        assert.equal(error.code, "invalid_text", `${name}: ${JSON.stringify(error)}`);
        assert.ok(error.isWickError);
      }
      assert.equal(results.failures.number.at, "text 1");
      assert.equal(results.failures.surrogate.at, "text 1");
      assert.deepEqual([results.empty, results.next, results.finite], [0, 1, true]);
      // One word of a million letters is one unknown token.
      assert.deepEqual(results.odd, { tokens: 2 + 3 + 256, truncated: [2] });
    }
    assert.deepEqual(messages, []);
  });

  test("of files and servers", async (t) => {
    const { page, messages } = await shared(t);
    const status = (code) => (request, response) => (response.writeHead(code).end("no"), true);
    faults["nothing"] = status(404);
    faults["forbidden"] = status(401);
    faults["broken"] = status(500);
    faults["index"] = (request, response) => (response.writeHead(200, { "content-type": "text/html" }).end("<!doctype html><p>app"), true);
    faults["no-config"] = changed("config.json", (response) => response.writeHead(404).end());
    faults["half-config"] = changed("config.json", (response) => response.writeHead(200).end('{"model_type": "bert",'));
    faults["unknown"] = changed("config.json", (response) => response.writeHead(200).end('{"model_type": "llama"}'));
    faults["reset"] = (request, response) => (response.destroy(), true);
    faults["cut"] = changed(WEIGHTS, (response) => {
      response.writeHead(200, { "content-length": weightsSize });
      createReadStream(weights, { end: 20_000 })
        .on("end", () => response.destroy())
        .pipe(response, { end: false });
    });
    faults["short"] = changed(WEIGHTS, (response) => {
      response.writeHead(200);
      createReadStream(weights, { end: 20_000 }).pipe(response);
    });
    faults["long"] = changed(WEIGHTS, (response) => {
      response.writeHead(200);
      createReadStream(weights)
        .on("end", () => response.end("more"))
        .pipe(response, { end: false });
    });
    faults["html-weights"] = changed(WEIGHTS, (response) => response.writeHead(200).end("<!doctype html><p>not here"));
    // A table of 768 MB is as good as any, in 32 bits too; only its bytes are missing.
    faults["large"] = changed(WEIGHTS, (response) => {
      const bytes = readFileSync(weights);
      const length = Number(bytes.readBigUInt64LE(0));
      const tensors = JSON.parse(bytes.subarray(8, 8 + length));
      const end = bytes.length - 8 - length;
      tensors.more = { dtype: "F32", shape: [250048, 768], data_offsets: [end, end + 768147456] };
      const header = Buffer.from(JSON.stringify(tensors));
      const size = Buffer.alloc(8);
      size.writeBigUInt64LE(BigInt(header.length));
      response.writeHead(200).end(Buffer.concat([size, header, bytes.subarray(8 + length)]));
    });
    faults["nan"] = changed(WEIGHTS, (response) => {
      const bytes = readFileSync(weights);
      bytes.writeFloatLE(NaN, (bytes.length >> 3) * 4); // the last tensor is one that is not read
      response.writeHead(200).end(bytes);
    });
    const expected = {
      nothing: "missing_file",
      forbidden: "http",
      broken: "http",
      index: "missing_file",
      "no-config": "missing_file",
      "half-config": "invalid_json",
      unknown: "unsupported_model",
      reset: "network",
      cut: "network",
      short: "invalid_weights",
      long: "invalid_weights",
      "html-weights": "invalid_weights",
      large: "invalid_weights",
      nan: "not_finite",
    };
    for (const [name, code] of Object.entries(expected)) {
      const error = await page.evaluate((name) => failure(load(name)), name);
      assert.equal(error.code, code, `${name}: ${JSON.stringify(error)}`);
      assert.ok(error.isWickError && error.at && error.message, name);
      if (name === "large") assert.match(error.message, /truncated/);
    }
    // The browser itself reports failed requests; nothing else may be on the console.
    assert.deepEqual(messages.filter((message) => !/Failed to load resource|Fetch API cannot load/.test(message)), []);
    const works = await page.evaluate(async () => {
      const embedder = await load("small");
      embedder.dispose();
      return embedder.dimensions;
    });
    assert.equal(works, 32);
  });

  test("of options", async (t) => {
    const { page } = await shared(t);
    const codes = await page.evaluate(async () => {
      const options = [{ device: "abacus" }, { dtype: "f1" }, { threads: 0 }, { threads: 1.5 }, { threads: NaN }, { threads: 65 }, { threads: "2" }, { maxTokens: 0 }, { maxTokens: 71 }, { maxTokens: 1.5 }, { dimensions: 33 }, { normalize: "yes" }];
      const codes = [];
      for (const option of options) codes.push((await failure(load("small", option))).code);
      codes.push((await failure(wick.Embedder.load("not a name"))).code, (await failure(wick.Embedder.load(null))).code);
      codes.push((await failure(wick.Embedder.load({ "config.json": 3 }))).code);
      codes.push((await failure(wick.Embedder.load("https://"))).code, (await failure(load("small", { signal: {} }))).code);
      codes.push((await failure(load("small?token=1/"))).code);
      codes.push((await failure(wick.Embedder.load({}))).code);
      return codes;
    });
    assert.deepEqual(codes, [...Array(18).fill("invalid_option"), "missing_file"]);
  });

  test("of the engine's own files", async (t) => {
    const { page } = await open(t);
    const codes = await page.evaluate(async () => {
      const wasm = async (wasm, options) => (await failure(load("small", { wasm, ...options }))).code;
      return [await wasm(new Uint8Array([0, 97, 115, 109, 9, 9, 9, 9])), await wasm("/nowhere.wasm"), await wasm("/blank.html", { worker: false })];
    });
    assert.deepEqual(codes, ["executor", "network", "executor"]);
    await page.route("**/worker.js", (route) => route.fulfill({ status: 404, body: "" }));
    const { code, at } = await page.evaluate(() => failure(load("small")));
    assert.deepEqual([code, at], ["executor", "worker"]);
    await page.unroute("**/worker.js");
    assert.equal(await page.evaluate(async () => (await load("small")).dimensions), 32);
  });

  test("of aborted downloads", async (t) => {
    const { page } = await shared(t);
    let closed;
    const start = readFileSync(weights).subarray(0, 20_000);
    faults["slow"] = changed(WEIGHTS, (response) => {
      response.writeHead(200, { "content-length": weightsSize });
      response.write(start);
      // More now and then, because progress is told at most every 50 ms.
      const drip = setInterval(() => response.write(start.subarray(0, 1024)), 100);
      response.on("close", () => {
        clearInterval(drip);
        closed();
      });
    });
    for (const worker of [true, false]) {
      const ended = new Promise((resolve) => (closed = resolve));
      const errors = await page.evaluate(async ([worker, weights]) => {
        const before = AbortSignal.abort();
        const early = await failure(load("small", { signal: before, worker }));
        // Once the weights have begun to arrive.
        const arrived = new AbortController();
        const onProgress = ({ file }) => file.endsWith(weights) && arrived.abort();
        const during = await failure(load("slow", { signal: arrived.signal, onProgress, worker }));
        const embedder = await load("small", { worker });
        embedder.dispose();
        return [early, during];
      }, [worker, WEIGHTS]);
      for (const error of errors) assert.deepEqual([error.code, error.name], ["aborted", "AbortError"]);
      await ended; // the server saw the download end
    }
  });

  test("of disposed embedders", async (t) => {
    const { page } = await shared(t);
    for (const worker of [true, false]) {
      const results = await page.evaluate(async (worker) => {
        const embedder = await load("small", { worker });
        const other = await load("small", { worker });
        const under = failure(embedder.encode(Array(100).fill("under way")));
        embedder.dispose();
        embedder.dispose();
        const after = await failure(embedder.encode(["a"]));
        const tokens = await failure(embedder.tokenize(["a"]));
        const codes = [(await under).code, after.code, tokens.code];
        const living = (await other.encode(["b"])).dense.length;
        other.dispose();
        return { codes, living };
      }, worker);
      assert.deepEqual(results, { codes: ["disposed", "disposed", "disposed"], living: 1 });
    }
  });

  test("of a model that is refused while its weights still come", { timeout: 20_000 }, async (t) => {
    const { page, messages } = await shared(t);
    const stalled = new Promise((resolve) => {
      faults["refused"] = (request, response, file) => {
        if (file === "config.json") return response.writeHead(200).end('{"model_type": "llama"}'), true;
        if (file !== WEIGHTS) return sendSmall(response, file);
        response.writeHead(200, { "content-length": weightsSize });
        response.write(Buffer.alloc(1000));
        response.on("close", resolve);
        return true;
      };
    });
    const error = await page.evaluate(() => failure(load("refused")));
    assert.equal(error.code, "unsupported_model");
    await stalled; // the download ended too
    assert.deepEqual(messages, []);
  });

  test("of a trap inside a load, in a worker: it is rejected, and the next load works", { timeout: 60_000 }, async (t) => {
    const { page } = await shared(t);
    faults["trap"] = changed("tokenizer.json", (response) => response.writeHead(200).end(trappingTokenizer()));
    const [error, works] = await page.evaluate(async () => {
      const error = await failure(load("trap", { cache: false }));
      const embedder = await load("small");
      const works = (await embedder.encode(["a"])).dense.length;
      embedder.dispose();
      return [error, works];
    });
    assert.equal(error.code, "crashed");
    assert.match(error.message, /spm_precompiled/, "it says what panicked");
    assert.equal(works, 1);
  });

  test("of a trap: the call is rejected, those behind it too, and a new worker works", async (t) => {
    const { page } = await open(t);
    const codes = await page.evaluate(async () => {
      const memory = engineMemory();
      const embedder = await load("small", { worker: false });
      // Half the heap overwritten: the next call cannot but trap.
      new Uint8Array(memory().buffer).fill(0xff, 1 << 20);
      const first = failure(embedder.encode(["a"]));
      const behind = failure(embedder.encode(["b"]));
      const fresh = await load("small");
      const works = (await fresh.encode(["c"])).dense.length;
      fresh.dispose();
      return [(await first).code, (await behind).code, works];
    });
    assert.deepEqual(codes, ["crashed", "crashed", 1]);
  });
});

test("importing does nothing", async (t) => {
  const context = await browser.newContext();
  t.after(() => context.close());
  const page = await context.newPage();
  await page.goto(`${server.url}blank.html`);
  const requested = [];
  page.on("request", (request) => requested.push(new URL(request.url()).pathname));
  const touched = await page.evaluate(async () => {
    const touched = [];
    for (const name of ["Worker", "caches", "fetch", "navigator", "WebAssembly", "localStorage", "indexedDB"]) {
      const value = globalThis[name];
      Object.defineProperty(globalThis, name, { configurable: true, get: () => (touched.push(name), value) });
    }
    await import("/wick-embed/index.js");
    await new Promise((resolve) => setTimeout(resolve, 100));
    return touched;
  });
  assert.deepEqual(touched, []);
  // Its own few scripts, and neither the engine nor the module.
  const names = ["bm25", "client", "crew", "embedder", "errors", "host.web", "index", "model", "options", "origin", "reranker", "runtime.web", "score", "sparse", "verify"];
  const scripts = names.map((name) => `/wick-embed/${name}.js`);
  assert.deepEqual(requested.sort(), scripts);
});
