// Which build of the module runs where, and several threads: the same vectors, and what happens when one of them goes wrong.
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { pathToFileURL } from "node:url";
import { SMALL, launch, openPage, path, scratch, serveSite, stsSentences } from "./harness.mjs";

let browser, server;
/** What was asked for of the package, by file name. */
let requested = [];
/** Texts by path that are served instead of the files. */
let replaced = {};

before(async () => {
  browser = await launch();
  server = await serveSite(
    () => false,
    (request, response, pathname) => {
      if (pathname.startsWith("/wick-embed/")) requested.push(pathname.split("/").pop());
      const text = replaced[pathname];
      if (text === undefined) return false;
      const headers = { "content-type": "text/javascript", "cross-origin-embedder-policy": "require-corp" };
      response.writeHead(200, headers).end(text);
      return true;
    },
  );
});

after(async () => {
  await browser?.close();
  await server?.close();
});

const open = async (t, options) => {
  requested = [];
  t.after(() => (replaced = {}));
  const opened = await openPage(t, browser, server, options);
  await opened.page.evaluate(() => {
    // Numbers of each result as one text, to compare them to the last bit.
    globalThis.bits = async (model, texts) => pack((await model.encode(texts)).dense);
    globalThis.deadline = (promise) => Promise.race([promise, new Promise((resolve) => setTimeout(resolve, 20_000, { code: "it hangs" }))]);
  });
  return opened;
};

const modules = () => requested.filter((file) => file.endsWith(".wasm"));
const cores = (page) => page.evaluate(() => Math.min(8, navigator.hardwareConcurrency));

/** Threads of Chromium's workers. */
async function workers() {
  const session = await browser.newBrowserCDPSession();
  const { processInfo } = await session.send("SystemInfo.getProcessInfo");
  await session.detach();
  const list = (pid) => spawnSync("sh", ["-c", `cat /proc/${pid}/task/*/comm`], { encoding: "utf8" }).stdout.split("\n");
  return processInfo.flatMap(({ id }) => list(id)).filter((name) => name.startsWith("DedicatedWorker")).length;
}

/** Waits until there are so many; a thread's end takes a moment. */
async function workersBecome(count) {
  for (let left = 50; left > 0 && (await workers()) !== count; left--) await new Promise((resolve) => setTimeout(resolve, 100));
  assert.equal(await workers(), count);
}

/** The build that runs where there is relaxed SIMD, as in this Chromium. */
const RELAXED = "wick_embed_relaxed_bg.wasm";

describe("the build that runs", () => {
  test("has threads on an isolated page, elsewhere one, and only its file is fetched", async (t) => {
    for (const [file, cases] of Object.entries({
      "blank.html": [[{}, undefined], [{ threads: 3 }, 3], [{ threads: 1 }, 1], [{ worker: false }, 1]],
      "open.html": [[{}, 1], [{ threads: 4 }, 1], [{ worker: false }, 1]],
    })) {
      const { page, messages } = await open(t, { file });
      for (const [options, threads] of cases) {
        requested = [];
        const got = await page.evaluate(async (options) => {
          const embedder = await load("small", options);
          return (await embedder.encode(["a"])).dense.length && embedder.threads;
        }, options);
        assert.equal(got, threads ?? (await cores(page)), `${file} ${JSON.stringify(options)}`);
        assert.deepEqual(modules(), [RELAXED]);
      }
      assert.deepEqual(messages.filter((message) => !/404/.test(message)), []);
    }
  });

  test("where there is no relaxed SIMD does without", async (t) => {
    const { page } = await open(t);
    const validate = "WebAssembly.validate = () => false;";
    replaced["/wick-embed/worker.js"] = `${validate}\n${readFileSync(path("build/site/wick-embed/worker.js"), "utf8")}`;
    const got = await page.evaluate(async () => [(await load("small", { threads: 2 })).threads, (await load("small", { threads: 1 })).threads]);
    assert.deepEqual(got, [2, 1]);
    assert.deepEqual(modules(), Array(2).fill("wick_embed_bg.wasm"));
  });

  test("can be the caller's, as address, bytes or module", async (t) => {
    const { page } = await open(t);
    const file = `/wick-embed/${RELAXED}`;
    const got = await page.evaluate(async (file) => {
      const threads = [];
      const [text] = ["a few words"];
      const wanted = await bits(await load("small"), [text]);
      const bytes = await (await fetch(file)).arrayBuffer();
      for (const wasm of [file, bytes, await WebAssembly.compile(bytes)]) {
        const embedder = await load("small", { wasm, threads: 2 });
        threads.push((await bits(embedder, [text])) === wanted && embedder.threads);
        embedder.dispose();
      }
      threads.push((await load("small", { wasm: file, worker: false })).threads);
      return threads;
    }, file);
    assert.deepEqual(got, [2, 2, 2, 1]);
    const { page: other } = await open(t, { file: "open.html" });
    assert.equal(await other.evaluate(async (wasm) => (await load("small", { wasm, threads: 2 })).threads, file), 1);
  });

  test("has one thread where threads cannot start", async (t) => {
    const { page } = await open(t);
    const engine = (script) => `${script}\n${readFileSync(path("build/site/wick-embed/worker.js"), "utf8")}`;
    const threads = () => page.evaluate(async () => {
      const embedder = await load("small", { threads: 2 });
      return (await embedder.encode(["a"])).dense.length && embedder.threads;
    });
    // Workers that are refused after the first, and a helper that fails before it takes part.
    await page.evaluate(() => {
      const { Worker } = globalThis;
      globalThis.Worker = class extends Worker {
        constructor(...all) {
          globalThis.Worker = class { constructor() { throw new DOMException("no", "SecurityError"); } };
          super(...all);
          globalThis.allowed = () => (globalThis.Worker = Worker);
        }
      };
    });
    assert.equal(await threads(), 1);
    await page.evaluate(() => allowed());
    replaced["/wick-embed/worker.js"] = engine(`addEventListener("message", (event) => {
      if (!("memory" in event.data)) return;
      event.stopImmediatePropagation();
      throw new Error("no");
    });`);
    assert.equal(await threads(), 1);
    replaced = {};
    assert.equal(await threads(), 2);
  });

  test("takes less memory where so much may not be reserved, and says so where none may", async (t) => {
    const { page } = await open(t);
    const most = (pages) => `
      const { Memory } = WebAssembly;
      WebAssembly.Memory = class extends Memory {
        constructor(type) {
          if (type.maximum > ${pages}) throw new RangeError("no");
          super(type);
        }
      };
      ${readFileSync(path("build/site/wick-embed/worker.js"), "utf8")}`;
    replaced["/wick-embed/worker.js"] = most(16384);
    assert.equal(await page.evaluate(async () => (await load("small", { threads: 2 })).threads), 2);
    replaced["/wick-embed/worker.js"] = most(0);
    const { code, at } = await page.evaluate(() => failure(load("small", { threads: 2 })));
    assert.deepEqual([code, at], ["out_of_memory", "wasm"]);
  });
});

describe("several threads", () => {
  test("give what one gives, to the last bit, also twice at once", async (t) => {
    const { page } = await open(t);
    const texts = [...stsSentences().slice(0, 300), "long ".repeat(400), "", "a"];
    const { same, threads, seconds } = await page.evaluate(async (texts) => {
      const one = await load("all-MiniLM-L6-v2", { threads: 1 });
      const wanted = await bits(one, texts);
      const [same, threads, seconds] = [[], [], []];
      for (const count of [2, 3, 7]) {
        const many = await load("all-MiniLM-L6-v2", { threads: count });
        const start = performance.now();
        for (const got of await Promise.all([bits(many, texts), bits(many, texts)])) same.push(got === wanted);
        seconds.push(((performance.now() - start) / 2000).toFixed(2));
        threads.push(many.threads);
        many.dispose();
      }
      return { same, threads, seconds };
    }, texts);
    t.diagnostic(`seconds with 2, 3 and 7 threads: ${seconds}`);
    assert.deepEqual(same, Array(6).fill(true));
    assert.deepEqual(threads, [2, 3, 7]);
  });

  test("rerank as one does", async (t) => {
    const { page } = await open(t);
    const model = pathToFileURL(path("tests/fixtures/rerank-bert/"));
    const files = Object.fromEntries(["config.json", "tokenizer.json", "model.safetensors"].map((file) => [file, [...readFileSync(new URL(file, model))]]));
    const got = await page.evaluate(async (files) => {
      const source = Object.fromEntries(Object.entries(files).map(([name, bytes]) => [name, new Uint8Array(bytes)]));
      const results = [];
      for (const threads of [1, 3]) {
        const reranker = await wick.Reranker.load(source, { threads });
        results.push([reranker.threads, JSON.stringify(await reranker.rerank("What is a panda?", ["hi", "a bear", "a panda ".repeat(60)]))]);
      }
      return results;
    }, files);
    assert.deepEqual(got.map(([threads]) => threads), [1, 3]);
    assert.equal(got[0][1], got[1][1]);
  });

  test("end with the model, also while they compute", async (t) => {
    const { page } = await open(t);
    await workersBecome(0);
    await page.evaluate(async () => (globalThis.embedder = await load("small", { threads: 4 })));
    await workersBecome(4);
    await page.evaluate(() => embedder.dispose());
    await workersBecome(0);
    const code = await page.evaluate(async () => {
      const embedder = await load("small", { threads: 4 });
      let call;
      await new Promise((begun) => (call = failure(embedder.encode(Array(3000).fill("some words ".repeat(20)), { onProgress: begun }))));
      embedder.dispose();
      return (await call).code;
    });
    assert.equal(code, "disposed");
    await workersBecome(0);
    // A load that fails leaves none either.
    assert.equal(await page.evaluate(async () => (await failure(load("nowhere", { threads: 4 }))).code), "missing_file");
    await workersBecome(0);
  });

  test("are lost together: a helper that traps ends the call with a code", async (t) => {
    const { page } = await open(t);
    // The helper gets a module of its own, in which every multiplication of vectors is `unreachable, nop, nop`.
    const script = readFileSync(path("build/site/wick-embed/helpers.js"), "utf8");
    const start = "module_or_path: module";
    assert.ok(script.includes(start));
    replaced["/wick-embed/helpers.js"] = `
      ${script.replace(start, "module_or_path: await broken()")}
      async function broken() {
        const bytes = new Uint8Array(await (await fetch("/wick-embed/${RELAXED}")).arrayBuffer());
        for (let at = 0; at < bytes.length - 2; at++) {
          if (bytes[at] === 0xfd && bytes[at + 1] === 0xe6 && bytes[at + 2] === 0x01) bytes.set([0x00, 0x01, 0x01], at);
        }
        return WebAssembly.compile(bytes);
      }`;
    const results = await page.evaluate(async () => {
      const embedder = await load("small", { threads: 2 });
      // Enough that the helper gets its part of the work.
      const texts = Array(2000).fill("some words ".repeat(20));
      const [first, behind] = await Promise.all([deadline(failure(embedder.encode(texts))), deadline(failure(embedder.encode(["b"])))]);
      const after = await deadline(failure(embedder.encode(["c"])));
      embedder.dispose();
      return { threads: embedder.threads, first, codes: [first.code, behind.code, after.code] };
    });
    t.diagnostic(results.first.message ?? "");
    assert.equal(results.threads, 2);
    assert.deepEqual(results.codes, ["crashed", "crashed", "crashed"]);
    assert.match(results.first.message, /a thread was lost/);
    replaced = {};
    assert.equal(await page.evaluate(async () => (await (await load("small")).encode(["d"])).dense.length), 1);
  });
});

test("in Node: threads, the same vectors, and their end", (t) => {
  const folder = scratch(t);
  const program = `
    import { readdirSync } from "node:fs";
    import { availableParallelism } from "node:os";
    import { Embedder } from ${JSON.stringify(pathToFileURL(path("pkg/dist/node.js")))};
    const threads = () => readdirSync("/proc/self/task").length;
    const texts = [...Array(40).keys()].map((count) => "a few words ".repeat(count));
    const source = ${JSON.stringify(path(SMALL))};
    const rows = async (embedder) => (await embedder.encode(texts)).dense.map((row) => Buffer.from(row.buffer, row.byteOffset, row.byteLength).toString("base64")).join();
    const results = [];
    let wanted;
    for (const options of [{ threads: 1 }, { threads: 3 }, {}, { worker: false, threads: 3 }]) {
      const before = threads();
      const embedder = await Embedder.load(source, options);
      const got = await rows(embedder);
      wanted ??= got;
      const during = threads();
      embedder.dispose();
      for (let left = 50; left > 0 && threads() > before; left--) await new Promise((resolve) => setTimeout(resolve, 50));
      results.push([embedder.threads - (options.threads === undefined ? Math.min(8, availableParallelism()) : 0), got === wanted, during - before >= embedder.threads * (options.worker !== false), threads() - before]);
    }
    // In the middle of a call, and then the program ends without a word.
    const busy = await Embedder.load(source, { threads: 3 });
    let call;
    await new Promise((begun) => (call = busy.encode(Array(3000).fill("some words ".repeat(20)), { onProgress: begun }).catch((error) => error.code)));
    busy.dispose();
    results.push(await call);
    await Embedder.load(source, { threads: 3 });
    console.log(JSON.stringify(results));`;
  writeFileSync(join(folder, "program.mjs"), program);
  const { status, stdout, stderr } = spawnSync(process.execPath, ["program.mjs"], { cwd: folder, encoding: "utf8", timeout: 120_000 });
  assert.equal(status, 0, stderr);
  assert.equal(stderr, "");
  assert.deepEqual(JSON.parse(stdout), [[1, true, true, 0], [3, true, true, 0], [0, true, true, 0], [1, true, true, 0], "disposed"]);
});
