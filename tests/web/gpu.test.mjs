// The GPU's executor in Chromium, on SwiftShader: a processor that plays a GPU, and says whether kernels are right but not how fast.
import assert from "node:assert/strict";
import { readdirSync } from "node:fs";
import { after, before, describe, test } from "node:test";
import { pathToFileURL } from "node:url";
import { address, compare, expectations, serveFixtures } from "./expectations.mjs";
import { MODEL, SMALL, json, launch, nativeVectors, openPage, path, shared, sharedPage, stsSentences } from "./harness.mjs";

let browser, server;

before(async () => {
  const args = ["--no-sandbox", "--enable-unsafe-webgpu", "--use-webgpu-adapter=swiftshader"];
  browser = await launch({ args: [...args, "--disable-background-networking", "--disable-component-update", "--disable-sync", "--no-first-run"] });
  server = await serveFixtures();
});

after(async () => {
  await browser?.close();
  await server?.close();
});

/** A page that keeps its devices in `gpus`, to lose them; `noGpu` hides the adapter from here on. */
async function openGpuPage(t) {
  const opened = await openPage(t, browser, server);
  opened.page.setDefaultTimeout(0);
  await opened.page.evaluate(() => {
    globalThis.gpus = [];
    const { requestDevice } = GPUAdapter.prototype;
    GPUAdapter.prototype.requestDevice = async function (...all) {
      gpus.push(await requestDevice.apply(this, all));
      return gpus.at(-1);
    };
    globalThis.noGpu = () => (GPU.prototype.requestAdapter = async () => null);
  });
  return opened;
}

const cosine = (a, b) => {
  const dot = (a, b) => a.reduce((sum, value, index) => sum + value * b[index], 0);
  return dot(a, b) / Math.sqrt(dot(a, a) * dot(b, b));
};

describe("WebGPU", () => {
  // An odd number of texts of one token to more than a tile has rows.
  const texts = ["", ...stsSentences().slice(0, 8), "word ".repeat(70)];

  /** What MiniLM gives for them on the processor. */
  const onProcessor = shared(async () => {
    const { page, context } = await openPage(undefined, browser, server);
    const rows = await page.evaluate(async (texts) => {
      const { dense } = await (await load("all-MiniLM-L6-v2", { device: "wasm" })).encode(texts);
      return dense.map((row) => [...row]);
    }, texts);
    await context.close();
    return rows;
  });

  for (const [name, worker] of [["all-MiniLM-L6-v2", true], ["small", false]]) {
    test(`the processor's vectors, ${worker ? "in a worker" : "on the page"}`, async (t) => {
      const { page, messages } = await openPage(t, browser, server);
      page.setDefaultTimeout(0);
      const result = await page.evaluate(
        async ([name, texts, worker]) => {
          const rows = async (embedder, texts) => (await embedder.encode(texts)).dense.map((row) => [...row]);
          const gpu = await load(name, { device: "webgpu", worker });
          const wasm = await load("small", { device: "wasm", worker });
          const together = await rows(gpu, texts);
          const bad = await failure(gpu.encode(["fine", "\ud83d"]));
          const alone = await rows(gpu, [texts[3]]);
          const result = { devices: [gpu.device, wasm.device], threads: gpu.threads, together, alone, bad, wasm: await rows(wasm, texts) };
          gpu.dispose();
          return { ...result, disposed: await failure(gpu.encode(["a"])) };
        },
        [name, texts, worker],
      );
      assert.deepEqual(result.devices, ["webgpu", "wasm"]);
      assert.equal(result.threads, 1);
      const exact = name === "small" ? result.wasm : await onProcessor(t);
      const lowest = Math.min(...result.together.map((row, index) => cosine(row, exact[index])));
      t.diagnostic(`lowest cosine ${lowest}`);
      assert.ok(lowest >= 0.99999, `${lowest}`);
      assert.deepEqual(result.alone[0], result.together[3], "a text's vector depends on the others");
      assert.equal(result.bad.code, "invalid_text");
      assert.equal(result.disposed.code, "disposed");
      // The native program's GPU: there lavapipe, where `build.sh setup` has brought it.
      if (worker && readdirSync("/usr/share/vulkan/icd.d").some((file) => file.startsWith("lvp_icd"))) {
        const native = nativeVectors(t, texts, MODEL, "--device", "gpu");
        const lowest = Math.min(...result.together.map((row, index) => cosine(row, [...native[index]])));
        t.diagnostic(`lowest cosine to the native GPU ${lowest}`);
        assert.ok(lowest >= 0.999999, `${lowest}`);
      }
      assert.deepEqual(messages.filter((message) => !/404/.test(message)), []);
    });
  }

  test("eight bits, and a static model, which has nothing for a GPU", async (t) => {
    const { page } = await openPage(t, browser, server);
    page.setDefaultTimeout(0);
    const exact = await onProcessor(t);
    const { rows, device } = await page.evaluate(async (texts) => {
      const rows = async (options, name = "all-MiniLM-L6-v2") => {
        const embedder = await load(name, options);
        const { dense } = await embedder.encode(texts);
        return { rows: dense.map((row) => [...row]), device: embedder.device };
      };
      const { device } = await rows({ device: "webgpu" }, "minilm-static");
      return { device, rows: (await rows({ device: "webgpu", dtype: "int8" })).rows };
    }, texts);
    assert.equal(device, "wasm");
    const lowest = Math.min(...rows.map((row, index) => cosine(row, exact[index])));
    t.diagnostic(`lowest cosine in int8 ${lowest}`);
    assert.ok(lowest >= 0.995 && lowest < 0.999999, `${lowest}`);
  });

  /** One page and a model that stays, and so one device: opening it takes seconds here. */
  const onOneDevice = sharedPage(async () => {
    const opened = await openGpuPage();
    await opened.page.evaluate(async (source) => (globalThis.keeper = await wick.Embedder.load(source, { device: "webgpu", worker: false })), address("gte"));
    return opened;
  });

  test("every family and head gives what its original program gave", async (t) => {
    const { page, messages } = await onOneDevice(t);
    for (const [name, expect] of expectations) {
      if (name.startsWith("model2vec/")) continue; // Tables have nothing for a GPU.
      await t.test(name, async (t) => {
        const results = await page.evaluate(
          async ([source, expect]) => (await import("/models/test/fixture.mjs")).run(wick, source, expect, { cache: false, device: "webgpu", worker: false }),
          [address(name), expect],
        );
        compare(t, expect, results);
      });
    }
    assert.equal(await page.evaluate(() => gpus.length), 1);
    assert.deepEqual(messages.filter((message) => !/404/.test(message)), []);
  });

  test("the browser's compiler takes every variant of every shader that its GPU has features for", async (t) => {
    // Written by tests/it/gpu.rs.
    const shaders = json("target/tmp/shaders.json");
    const { page } = await openPage(t, browser, server);
    const problems = await page.evaluate(async (shaders) => {
      const adapter = await navigator.gpu.requestAdapter();
      // Which SwiftShader has not: there these are not compiled.
      const halves = ["shader-f16"].filter((name) => adapter.features.has(name));
      const device = await adapter.requestDevice({ requiredFeatures: halves });
      const problems = [];
      for (const [name, code] of Object.entries({ ...shaders, wrong: "fn main() -> f32 { return 1u; }" })) {
        if (code.startsWith("enable f16;") && halves.length === 0) continue;
        device.pushErrorScope("validation");
        const { messages } = await device.createShaderModule({ code }).getCompilationInfo();
        const error = await device.popErrorScope();
        if (error || messages.length > 0) problems.push([name, error?.message ?? messages[0].message]);
      }
      return problems;
    }, shaders);
    assert.ok(Object.keys(shaders).length > 20);
    assert.deepEqual(problems.map(([name]) => name), ["wrong"], JSON.stringify(problems));
  });

  test("a lost GPU: the call under way is made again, on a new one or else on the processor", async (t) => {
    const { page, messages } = await openGpuPage(t);
    const results = await page.evaluate(async ([embedding, reranking]) => {
      const options = { device: "webgpu", worker: false, cache: false };
      const embedder = await wick.Embedder.load(embedding, options);
      const reranker = await wick.Reranker.load(reranking, options);
      const both = async () => {
        const { dense } = await embedder.encode(["a text", "and another"]);
        const ranked = await reranker.rerank("a text", ["another", "a text"]);
        return { rows: dense.map((row) => [...row]), scores: ranked.map(({ score }) => score), devices: [embedder.device, reranker.device], opened: gpus.length };
      };
      const before = await both();
      gpus.at(-1).destroy();
      const again = await both();
      gpus.at(-1).destroy();
      noGpu();
      return { before, again, without: await both(), after: await both() };
    }, [address("bge-m3"), address("rerank-xlmr")]);
    const { before, again, without, after } = results;
    assert.deepEqual([before.devices, again.devices, without.devices], [["webgpu", "webgpu"], ["webgpu", "webgpu"], ["wasm", "wasm"]]);
    assert.deepEqual([again.rows, again.scores], [before.rows, before.scores]);
    assert.ok(again.opened > before.opened && without.opened === again.opened);
    const near = (a, b) => a.every((value, index) => Math.abs(value - b[index]) < 2e-5);
    assert.ok(without.rows.every((row, index) => near(row, before.rows[index])) && near(without.scores, before.scores));
    assert.deepEqual(after, without);
    const warnings = messages.filter((message) => message.startsWith("wick-embed:"));
    assert.deepEqual(warnings.map((message) => message.split("; ").at(-1)), [
      ...Array(2).fill("the model was loaded again"),
      ...Array(2).fill("the processor computes instead"),
    ]);
  });

  test("auto: both are measured in a long call, and the faster one takes it", async (t) => {
    const { page, messages } = await openGpuPage(t);
    const results = await page.evaluate(async (source) => {
      // Otherwise this GPU, which a processor plays, would not be tried.
      Object.defineProperty(GPUAdapterInfo.prototype, "isFallbackAdapter", { get: () => false });
      // What is remembered, instead of what is measured: on the processor a token takes a second.
      let costs = { gpu_name: "another", cpu: { batch: 0, token: 1 }, gpu: { batch: 0, token: 0 } };
      const { match, put } = Cache.prototype;
      Cache.prototype.match = function (url, ...rest) {
        return String(url).includes("/measured/") ? Promise.resolve(new Response(JSON.stringify(costs))) : match.call(this, url, ...rest);
      };
      let measured;
      Cache.prototype.put = async function (url, response) {
        if (!String(url).includes("/measured/")) return put.call(this, url, response);
        measured = await response.json();
      };
      const texts = Array.from({ length: 120 }, (_, index) => `text ${index} of some that are all a bit different, ${"and longer ".repeat(index % 9)}`);
      const rows = ({ dense }) => dense.map((row) => [...row]);
      const exact = await wick.Embedder.load(source, { device: "wasm", worker: false });
      const want = rows(await exact.encode(texts));

      const embedder = await wick.Embedder.load(source, { worker: false });
      const short = [rows(await embedder.encode(texts.slice(0, 3))), embedder.device, gpus.length];
      const first = [rows(await embedder.encode(texts)), embedder.device, gpus.length];
      // As if a GPU had been faster, whatever it is: the one whose name was kept.
      costs = { ...costs, gpu_name: measured.gpu_name };
      const other = await wick.Embedder.load(source, { worker: false });
      const second = [rows(await other.encode(texts)), other.device];
      gpus.at(-1).destroy();
      const lost = [rows(await other.encode(texts)), other.device, gpus.length];
      gpus.at(-1).destroy();
      noGpu();
      const without = [rows(await other.encode(texts)), other.device];
      return { want, short, first, measured, second, lost, without };
    }, address("gte"));
    const { want, short, first, measured, second, lost, without } = results;
    assert.deepEqual(short, [want.slice(0, 3), "wasm", 0], "a short call opens no GPU");
    // A processor that plays a GPU is slower than itself.
    t.diagnostic(JSON.stringify(measured));
    assert.ok(measured.gpu.token > measured.cpu.token && measured.gpu_name.length > 0);
    assert.deepEqual(first, [want, "wasm", 1]);
    const near = (rows) => Math.min(...rows.map((row, index) => cosine(row, want[index]))) > 0.99999;
    assert.ok(near(second[0]) && second[1] === "webgpu");
    assert.notDeepEqual(second[0], want);
    assert.deepEqual([lost[0], lost[1]], [second[0], "webgpu"]);
    assert.deepEqual(without, [want, "wasm"]);
    const warnings = messages.filter((message) => message.startsWith("wick-embed:"));
    assert.ok(warnings.length === 1 && warnings[0].includes("Destroyed") && warnings[0].endsWith("the processor goes on without the GPU"), JSON.stringify(warnings));
  });

  test("auto in a worker with threads: the module on shared memory reaches the GPU too", async (t) => {
    const { page } = await openGpuPage(t);
    const texts = Array.from({ length: 120 }, (_, index) => `text ${index} of some, ${"and longer ".repeat(index % 9)}`);
    const threads = await page.evaluate(async (source) => {
      globalThis.embedder = await wick.Embedder.load(source, { threads: 2, cache: false });
      return [embedder.threads, embedder.device];
    }, address("gte"));
    assert.deepEqual(threads, [2, "wasm"]);
    // What is remembered says that the GPU is faster; and that a processor plays it is not seen.
    // The engine's worker is the first; its helper waits in the module and evaluates nothing.
    const workers = page.workers();
    assert.equal(workers.length, 2);
    await workers[0].evaluate(() => {
      Object.defineProperty(GPUAdapterInfo.prototype, "isFallbackAdapter", { get: () => false });
      const costs = { gpu_name: "a GPU (webgpu)", cpu: { batch: 0, token: 1 }, gpu: { batch: 0, token: 0 } };
      Cache.prototype.match = async () => new Response(JSON.stringify(costs));
    });
    const { rows, device, exact } = await page.evaluate(async ([source, texts]) => {
      const rows = ({ dense }) => dense.map((row) => [...row]);
      const got = rows(await embedder.encode(texts));
      const other = await wick.Embedder.load(source, { device: "wasm", cache: false });
      return { rows: got, device: embedder.device, exact: rows(await other.encode(texts)) };
    }, [address("gte"), texts]);
    assert.equal(device, "webgpu");
    assert.ok(Math.min(...rows.map((row, index) => cosine(row, exact[index]))) > 0.99999);
    assert.notDeepEqual(rows, exact);
  });

  test("auto: a GPU that a processor plays is left alone", async (t) => {
    const { page, messages } = await openGpuPage(t);
    const device = await page.evaluate(async (source) => {
      Cache.prototype.match = async () => new Response(JSON.stringify({ gpu_name: "", cpu: { batch: 0, token: 1 }, gpu: { batch: 0, token: 0 } }));
      const embedder = await wick.Embedder.load(source, { worker: false, cache: false });
      await embedder.encode(Array(200).fill("a text that is long enough for several batches"));
      return embedder.device;
    }, address("gte"));
    assert.equal(device, "wasm");
    assert.deepEqual(messages.filter((message) => !/404/.test(message)), []);
  });

  test("two models beside each other, and what one held is freed with it", async (t) => {
    const { page } = await openGpuPage(t);
    const result = await page.evaluate(async (source) => {
      let bytes = 0;
      const { createBuffer } = GPUDevice.prototype;
      const { destroy } = GPUBuffer.prototype;
      const held = new Map();
      GPUDevice.prototype.createBuffer = function (descriptor) {
        const buffer = createBuffer.call(this, descriptor);
        held.set(buffer, descriptor.size);
        bytes += descriptor.size;
        return buffer;
      };
      GPUBuffer.prototype.destroy = function () {
        bytes -= held.get(this) ?? 0;
        held.delete(this);
        destroy.call(this);
      };
      const row = async (embedder, text) => [...(await embedder.encode([text])).dense[0]];
      const load = () => wick.Embedder.load(source, { device: "webgpu", worker: false, cache: false });
      const one = await load();
      const alone = await row(one, "a text");
      const ofOne = bytes;
      const two = await load();
      const [a, b] = await Promise.all([row(one, "a text"), row(two, "a text")]);
      const ofTwo = bytes;
      one.dispose();
      const after = await row(two, "a text");
      const ofOther = bytes;
      two.dispose();
      await failure(two.encode(["a"]));
      await new Promise((resolve) => setTimeout(resolve, 50));
      return { alone, rows: [a, b, after], ofOne, ofTwo, ofOther, ofNone: bytes };
    }, address("gte"));
    const { alone, rows, ofOne, ofTwo, ofOther, ofNone } = result;
    for (const row of rows) assert.deepEqual(row, alone);
    t.diagnostic(`bytes: ${[ofOne, ofTwo, ofOther, ofNone]}`);
    assert.ok(ofTwo > 1.2 * ofOne && ofOther < ofTwo && ofNone === 0, `${[ofOne, ofTwo, ofOther, ofNone]}`);
  });

  test("a full GPU costs no call: the processor goes on, after a load and in a call", async (t) => {
    const { page, messages } = await openGpuPage(t);
    const { devices, rows } = await page.evaluate(async (source) => {
      const { createBuffer } = GPUDevice.prototype;
      const full = function (descriptor) {
        const buffer = createBuffer.call(this, descriptor);
        if (descriptor.label !== "activations") return buffer;
        // As a browser does it: what is used later is refused, and why is told.
        buffer.destroy();
        this.dispatchEvent(new GPUUncapturedErrorEvent("uncapturederror", { error: new GPUOutOfMemoryError("full") }));
        return buffer;
      };
      const load = (device) => wick.Embedder.load(source, { device, worker: false, cache: false });
      const text = "a text of more words than any before ".repeat(9);
      // More than the buffers that trying the GPU has left.
      const row = async (embedder) => [...(await embedder.encode(Array(200).fill(text))).dense[0]];
      const devices = [];
      const rows = [await row(await load("wasm"))];
      GPUDevice.prototype.createBuffer = full;
      const first = await load("webgpu");
      devices.push(first.device);
      rows.push(await row(first));
      GPUDevice.prototype.createBuffer = createBuffer;
      const second = await load("webgpu");
      devices.push(second.device);
      GPUDevice.prototype.createBuffer = full;
      rows.push(await row(second));
      devices.push(second.device);
      return { devices, rows };
    }, address("gte"));
    assert.deepEqual(devices, ["wasm", "webgpu", "wasm"]);
    assert.deepEqual(rows[1], rows[0]);
    assert.deepEqual(rows[2], rows[0]);
    const told = messages.filter((message) => /the processor computes instead/.test(message));
    assert.equal(told.length, 2, `${messages}`);
  });

  test("texts as long as models take", async (t) => {
    const { page } = await onOneDevice(t);
    const { rows, truncated } = await page.evaluate(async (source) => {
      const texts = ["far beyond the limit ".repeat(400), "a text", "about as long as others ".repeat(16)];
      const rows = [];
      let truncated;
      for (const device of ["wasm", "webgpu"]) {
        const embedder = await wick.Embedder.load(source, { device, worker: false, cache: false, maxTokens: 512, outputs: ["dense"] });
        const { dense, usage } = await embedder.encode(texts);
        rows.push(dense.map((row) => [...row]));
        truncated = usage.truncated;
        if (usage.tokens < 512 + 20) throw new Error(`${usage.tokens}`);
      }
      return { rows, truncated };
    }, address("modernbert"));
    assert.deepEqual(truncated, [0]);
    for (const [index, row] of rows[1].entries()) assert.ok(cosine(row, rows[0][index]) > 0.99999, `text ${index}`);
  });

  test("in Node there is none", async () => {
    const { Embedder } = await import(pathToFileURL(path("pkg/dist/node.js")));
    const model = pathToFileURL(path(`${SMALL}/`));
    await assert.rejects(Embedder.load(model, { device: "webgpu" }), { code: "no_device" });
    const embedder = await Embedder.load(model);
    assert.equal((await embedder.encode(["a"])).dense[0].length, 32);
    embedder.dispose();
  });

  test("without one the code says so, and the next load works", async (t) => {
    const { page } = await openPage(t, browser, server);
    const found = await page.evaluate(async () => {
      Object.defineProperty(navigator, "gpu", { value: undefined });
      const error = await failure(load("small", { device: "webgpu", worker: false }));
      const embedder = await load("small", { worker: false });
      return { error, length: (await embedder.encode(["a"])).dense[0].length };
    });
    assert.equal(found.error.code, "no_device", found.error.message);
    assert.equal(found.length, 32);
  });
});
