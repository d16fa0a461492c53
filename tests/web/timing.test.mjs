// What measures memory and time, and so runs with nothing beside it.
import assert from "node:assert/strict";
import { statSync } from "node:fs";
import { after, before, test } from "node:test";
import { address, serveFixtures } from "./expectations.mjs";
import { MODEL, launch, openPage, path } from "./harness.mjs";

const weights = statSync(path(`${MODEL}/model.safetensors`)).size;

let browser, server;

before(async () => {
  browser = await launch();
  server = await serveFixtures();
});

after(async () => {
  await browser?.close();
  await server?.close();
});

const open = (t) => openPage(t, browser, server);

test("memory stays near the size of the weights", async (t) => {
  const runs = [];
  for (let run = 0; run < 3; run++) {
    const { page } = await open(t);
    runs.push(
      await page.evaluate(async (rounds) => {
        const memory = engineMemory();
        const embedder = await load("all-MiniLM-L6-v2", { worker: false });
        const loaded = memory().buffer.byteLength;
        // As wide batches as there are, and the longest text.
        await embedder.encode(Array(200).fill("some words to encode, again and again ").concat("word ".repeat(300)));
        const first = memory().buffer.byteLength;
        const texts = (round) => Array.from({ length: 200 }, (_, index) => `text ${round} ${index}`);
        for (let round = 0; round < rounds; round++) await embedder.encode(texts(round));
        return { loaded, first, encoded: memory().buffer.byteLength };
      }, run === 0 ? 50 : 5),
    );
  }
  // A WebAssembly memory never shrinks, so its size is its peak.
  const times = (key) => runs.map((run) => (run[key] / weights).toFixed(3)).join(", ");
  t.diagnostic(`x weights after load ${times("loaded")}, after a call ${times("first")}, after 10,000 texts ${times("encoded")}`);
  // Where a small piece comes to lie in the room of a tensor under way, the next one needs new
  // room: some loads take 2 MB more.
  const [, loaded] = runs.map((run) => run.loaded).sort((a, b) => a - b);
  assert.ok(loaded <= 1.15 * weights, times("loaded"));
  for (const { first, encoded } of runs) {
    assert.ok(first <= 1.4 * weights, "with the activations of a batch of 1,024 tokens");
    assert.equal(encoded, first, "it grows with the number of texts");
  }
});

test("embedders stop when asked", async (t) => {
  const { page } = await open(t);
  for (const worker of [true, false]) {
    const results = await page.evaluate(async (worker) => {
      const embedder = await load("all-MiniLM-L6-v2", { worker });
      const many = Array(400).fill("one two three four five six seven eight nine ten eleven twelve");
      const abort = new AbortController();
      const start = performance.now();
      const first = failure(embedder.encode(many, { signal: abort.signal, onProgress: () => abort.abort() }));
      const queued = failure(embedder.encode(many, { signal: abort.signal }));
      const behind = embedder.encode(["the one behind"]);
      const errors = [await first];
      const stopped = performance.now() - start;
      const next = (await behind).dense.length;
      const full = performance.now();
      await embedder.encode(many);
      const whole = performance.now() - full;
      embedder.dispose();
      return { errors: [...errors, await queued], next, stopped, whole };
    }, worker);
    for (const error of results.errors) assert.deepEqual([error.code, error.name], ["aborted", "AbortError"]);
    assert.equal(results.next, 1);
    assert.ok(results.stopped < results.whole / 2, `stopped after ${results.stopped} ms of ${results.whole}`);
  }
});

test("rerankers stop when asked, and when disposed", async (t) => {
  const { page } = await open(t);
  for (const worker of [true, false]) {
    const results = await page.evaluate(
      async ([source, worker]) => {
        const many = Array(1500).fill("one two three four five six seven eight nine ten eleven twelve");
        const early = await failure(wick.Reranker.load(source, { worker, signal: AbortSignal.abort() }));
        const reranker = await wick.Reranker.load(source, { worker });
        const abort = new AbortController();
        // From the first batch on: texts are tokenized before, which takes about as long here.
        let begun;
        const begin = () => (begun ??= performance.now());
        const first = failure(reranker.rerank("q", many, { signal: abort.signal, onProgress: () => begin() && abort.abort() }));
        const behind = reranker.rerank("q", ["the one behind"]);
        const errors = [early, await first];
        const next = (await behind).length;
        const stopped = performance.now() - begun;
        begun = undefined;
        await reranker.rerank("q", many, { onProgress: begin });
        const whole = performance.now() - begun;
        const under = failure(reranker.rerank("q", many));
        reranker.dispose();
        return { errors, next, stopped, whole, under: await under, after: await failure(reranker.rerank("q", ["a"])) };
      },
      [address("modernbert-rerank"), worker],
    );
    for (const error of results.errors) assert.deepEqual([error.code, error.name], ["aborted", "AbortError"]);
    assert.deepEqual([results.next, results.under.code, results.after.code], [1, "disposed", "disposed"]);
    assert.ok(results.stopped < results.whole / 2, `stopped after ${results.stopped} ms of ${results.whole}`);
  }
});
