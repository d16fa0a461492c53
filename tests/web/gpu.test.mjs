// The GPU's executor in Chromium, on SwiftShader: a processor that plays a GPU, and says whether kernels are right but not how fast.
import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { pathToFileURL } from "node:url";
import { MODEL, launch, openPage, path, serveSite, stsSentences } from "./harness.mjs";

let browser, server;

before(async () => {
  const args = ["--no-sandbox", "--enable-unsafe-webgpu", "--use-webgpu-adapter=swiftshader"];
  browser = await launch({ args: [...args, "--disable-background-networking", "--disable-component-update", "--disable-sync", "--no-first-run"] });
  server = await serveSite(() => false);
});

after(async () => {
  await browser?.close();
  await server?.close();
});

const cosine = (a, b) => {
  const dot = (a, b) => a.reduce((sum, value, index) => sum + value * b[index], 0);
  return dot(a, b) / Math.sqrt(dot(a, a) * dot(b, b));
};

describe("WebGPU", () => {
  // An odd number of texts of one token to more than a tile has rows.
  const texts = ["", ...stsSentences().slice(0, 8), "word ".repeat(70)];

  for (const worker of [true, false]) {
    test(`the processor's vectors, ${worker ? "in a worker" : "on the page"}`, async (t) => {
      const { page, messages } = await openPage(t, browser, server);
      page.setDefaultTimeout(0);
      const result = await page.evaluate(
        async ([texts, worker]) => {
          const rows = async (embedder, texts) => (await embedder.encode(texts)).dense.map((row) => [...row]);
          const gpu = await load("all-MiniLM-L6-v2", { device: "webgpu", worker });
          const wasm = await load("all-MiniLM-L6-v2", { device: "wasm", worker });
          const together = await rows(gpu, texts);
          const bad = await failure(gpu.encode(["fine", "\ud83d"]));
          const alone = await rows(gpu, [texts[3]]);
          const result = { devices: [gpu.device, wasm.device], threads: gpu.threads, together, alone, bad, wasm: await rows(wasm, texts) };
          gpu.dispose();
          return { ...result, disposed: await failure(gpu.encode(["a"])) };
        },
        [texts, worker],
      );
      assert.deepEqual(result.devices, ["webgpu", "wasm"]);
      assert.equal(result.threads, 1);
      const lowest = Math.min(...result.together.map((row, index) => cosine(row, result.wasm[index])));
      t.diagnostic(`lowest cosine ${lowest}`);
      assert.ok(lowest >= 0.99999, `${lowest}`);
      assert.deepEqual(result.alone[0], result.together[3], "a text's vector depends on the others");
      assert.equal(result.bad.code, "invalid_text");
      assert.equal(result.disposed.code, "disposed");
      assert.deepEqual(messages, []);
    });
  }

  test("eight bits, and a static model, which has nothing for a GPU", async (t) => {
    const { page } = await openPage(t, browser, server);
    page.setDefaultTimeout(0);
    const { rows, exact, device } = await page.evaluate(async (texts) => {
      const rows = async (options, name = "all-MiniLM-L6-v2") => {
        const embedder = await load(name, options);
        const { dense } = await embedder.encode(texts);
        return { rows: dense.map((row) => [...row]), device: embedder.device };
      };
      const { device } = await rows({ device: "webgpu" }, "minilm-static");
      return { device, rows: (await rows({ device: "webgpu", dtype: "int8" })).rows, exact: (await rows({})).rows };
    }, texts);
    assert.equal(device, "wasm");
    const lowest = Math.min(...rows.map((row, index) => cosine(row, exact[index])));
    t.diagnostic(`lowest cosine in int8 ${lowest}`);
    assert.ok(lowest >= 0.995 && lowest < 0.999999, `${lowest}`);
  });

  test("in Node there is none", async () => {
    const { Embedder } = await import(pathToFileURL(path("pkg/dist/node.js")));
    const model = pathToFileURL(path(`${MODEL}/`));
    await assert.rejects(Embedder.load(model, { device: "webgpu" }), { code: "no_device" });
    const embedder = await Embedder.load(model);
    assert.equal((await embedder.encode(["a"])).dense[0].length, 384);
    embedder.dispose();
  });

  test("without one the code says so, and the next load works", async (t) => {
    const { page } = await openPage(t, browser, server);
    const found = await page.evaluate(async () => {
      Object.defineProperty(navigator, "gpu", { value: undefined });
      const error = await failure(load("all-MiniLM-L6-v2", { device: "webgpu", worker: false }));
      const embedder = await load("all-MiniLM-L6-v2", { worker: false });
      return { error, length: (await embedder.encode(["a"])).dense[0].length };
    });
    assert.equal(found.error.code, "no_device", found.error.message);
    assert.equal(found.length, 384);
  });
});
