// What users check us with: Candle in a module of its own (device "reference"), and the BERT of
// candle-transformers beside it. Here both stand against the kernels, in real Chromium and in Node,
// and so does `verify`, which makes that comparison for a caller's own texts.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { syncBuiltinESMExports } from "node:module";
import { after, before, describe, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { pathToFileURL } from "node:url";
import workerThreads from "node:worker_threads";
import { FIXTURES, address, compare, expectations, replaced, serveFixtures } from "./expectations.mjs";
import { run } from "./fixture.mjs";
import { MODEL, difference, dot, launch, milvusError, openPage, path, serve, sharedPage, stsSentences } from "./harness.mjs";

const SPLADE = "build/models/splade-tiny";
const MODULE = "wick_reference_bg.wasm";
const GLUE = "wick_reference.js";
const DEVICES = ["wasm", "reference", "candle-transformers"];

/** Node does not tell which workers there are. */
const running = new Set();
workerThreads.Worker = class extends workerThreads.Worker {
  constructor(...all) {
    super(...all);
    running.add(this);
    this.once("exit", () => running.delete(this));
  }
};
syncBuiltinESMExports();
const wick = await import(pathToFileURL(path("pkg/dist/node.js")));

let browser, server, files;
/** What was asked for of the package, by file name. */
let requested = [];

before(async () => {
  browser = await launch();
  server = await serveFixtures();
  server.server.on("request", ({ url }) => url.startsWith("/wick-embed/") && requested.push(url.split("/").pop()));
  // For models that are no fixtures with expectations.
  files = await serve(path("."), 0, (_, response) => (response.setHeader("access-control-allow-origin", "*"), false));
});

after(async () => {
  await browser?.close();
  await server?.close();
  await files?.close();
});

// ---- jobs: functions that run in a page or here, and take and give plain data -------------------

/** What a model gives on each device, loaded without a worker. */
async function byDevice([source, texts, devices, options = {}]) {
  const results = {};
  for (const device of devices) {
    const model = await wick.Embedder.load(source, { worker: false, ...options, device });
    const { dense, sparse, usage } = await model.encode(texts);
    results[device] = {
      device: model.device,
      threads: model.threads,
      truncated: usage.truncated,
      dense: dense?.map((row) => Array.from(row)),
      sparse: sparse?.map(({ indices, values }) => ({ indices: Array.from(indices), values: Array.from(values) })),
    };
    model.dispose();
  }
  return results;
}

/** What the package gives for a fixture's expectations on each device. */
async function runOn([source, expect, devices]) {
  const results = [];
  for (const device of devices) results.push(await run(wick, source, expect, { device, worker: false, cache: false }));
  return results;
}

/** A model of which each file has an address of its own, pooled as is said. */
function pooledBy(folder, mode) {
  const json = (value) => new Blob([JSON.stringify(value)]);
  const module = (idx, path, type) => ({ idx, name: String(idx), path, type: `sentence_transformers.models.${type}` });
  const modes = { pooling_mode_cls_token: false, pooling_mode_mean_tokens: false, [`pooling_mode_${mode}`]: true };
  return {
    ...Object.fromEntries(["config.json", "tokenizer.json", "model.safetensors"].map((file) => [file, folder + file])),
    "modules.json": json([module(0, "", "Transformer"), module(1, "1_Pooling", "Pooling")]),
    "1_Pooling/config.json": json({ word_embedding_dimension: 32, ...modes }),
  };
}

/** The error of a call that must fail. */
const failure = (promise) =>
  promise.then(
    () => "no error",
    ({ code, at, message }) => ({ code, at, message }),
  );

const JOBS = { byDevice, runOn, pooledBy, failure };
// Candle's module is compiled once for all workers: that is most of the time that a call takes.
Object.assign(globalThis, { wick, run, candle: new WebAssembly.Module(readFileSync(path(`pkg/dist/${MODULE}`))), ...JOBS });

const shared = sharedPage(async () => {
  const opened = await openPage(undefined, browser, server);
  await opened.page.evaluate(async (module) => {
    globalThis.run = (await import("/models/test/fixture.mjs")).run;
    globalThis.candle = await WebAssembly.compileStreaming(fetch(`/wick-embed/${module}`));
  }, MODULE);
  for (const [name, job] of Object.entries(JOBS)) await opened.page.evaluate(`globalThis.${name} = ${job}`);
  return opened;
});

/** Runs jobs, and tells how many workers there are. */
const places = {
  Chromium: async (t) => {
    const { page } = await shared(t);
    return { job: (job, argument) => page.evaluate(job, argument), workers: () => page.workers().length };
  },
  Node: async () => ({ job: (job, argument) => job(argument), workers: () => running.size }),
};

function everywhere(name, body) {
  for (const [place, open] of Object.entries(places)) {
    test(`${name}, in ${place}`, async (t) => {
      const { job, workers } = await open(t);
      const before = workers();
      await body(t, job);
      // A worker's end takes a moment.
      for (let left = 100; left > 0 && workers() !== before; left--) await sleep(50);
      assert.equal(workers(), before, "workers");
      if (place === "Node") return;
      const { messages } = await shared(t);
      assert.deepEqual(messages.filter((message) => !/404/.test(message)), []);
    });
  }
}

const fixture = (name) => new URL(address(name), server.url).href;
const folder = (name) => new URL(`${name}/`, files.url).href;

// ---- comparisons --------------------------------------------------------------------------------

/** What one device gave, as what another is to give. */
function expected(expect, { cases, rerank, scores }) {
  const kinds = Object.keys(scores?.[0] ?? {});
  return {
    cases: cases.map((result, index) => ({ ...result, texts: expect.cases[index].texts })),
    rerank,
    ...(scores && { scores: Object.fromEntries(kinds.map((kind) => [kind, scores.map((pair) => pair[kind])])) }),
  };
}

/** Two rows of weights over the same indices: each is zero where it has none. */
function spread(...rows) {
  const indices = [...new Set(rows.flatMap((row) => row.indices))];
  const maps = rows.map((row) => new Map(row.indices.map((index, at) => [index, row.values[at]])));
  return maps.map((values) => indices.map((index) => values.get(index) ?? 0));
}

const pairs = (a, b) => a.dense?.map((row, index) => [row, b.dense[index]]) ?? a.sparse.map((row, index) => spread(row, b.sparse[index]));
const furthest = (a, b) => Math.max(...pairs(a, b).map(([a, b]) => difference(a, b)));
const lowestCosine = (a, b) => Math.min(...pairs(a, b).map(([a, b]) => dot(a, b) / Math.sqrt(dot(a, a) * dot(b, b))));

/** Holds that each computed where it was asked to, and that all gave nearly the same. */
function agree(t, results, most, where = "") {
  for (const [device, result] of Object.entries(results)) assert.deepEqual([result.device, result.threads], [device, 1]);
  const devices = Object.keys(results);
  for (const [index, a] of devices.entries()) {
    for (const b of devices.slice(index + 1)) {
      const far = furthest(results[a], results[b]);
      t.diagnostic(`${where}${a}, ${b}: ${far.toExponential(1)}`);
      assert.ok(far <= most, `${where}${a}, ${b}: ${far} > ${most}`);
      // Programs that sum in different orders are not the same to the last bit.
      assert.ok(far > 0, `${where}${a} and ${b} are one program`);
    }
  }
}

// ---- tests --------------------------------------------------------------------------------------

describe("by Candle every fixture gives what the kernels and its original program give", () => {
  for (const [name, expect] of expectations) {
    everywhere(name, async (t, job) => {
      const [kernels, reference] = await job(runOn, [fixture(name), expect, ["wasm", "reference"]]);
      compare(t, expected(expect, kernels), reference);
      compare(t, expect, reference);
    });
  }
});

const sts = stsSentences();
const joined = (count) => sts.slice(0, count).join(" ");
/** None, one word, and up to more than 256 tokens, which is where MiniLM cuts. */
const SENTENCES = ["", "a", "Zürich 東京 🐼", joined(2), joined(5), joined(12), joined(60), ...sts.filter((_, index) => index % 200 === 0).slice(0, 13)];
const LONG = 6;

describe("trained weights", () => {
  everywhere("MiniLM by the kernels, by Candle and by candle-transformers", async (t, job) => {
    const results = {};
    for (const device of DEVICES) {
      const { count, error } = await milvusError(async (golden) => {
        const texts = [...SENTENCES, ...golden];
        const { [device]: result } = await job(byDevice, [folder(MODEL), texts, [device]]);
        const rest = result.dense.splice(SENTENCES.length);
        results[device] = result;
        return rest;
      });
      t.diagnostic(`${device}: ${error.toExponential(1)} from Milvus' ${count} values`);
      assert.ok(count >= 40 && error <= 1e-6, `${device}: ${error}`);
      assert.deepEqual(results[device].truncated, [LONG]);
    }
    agree(t, results, 2e-5);
  });

  everywhere("SPLADE by the kernels, by Candle and by candle-transformers", async (t, job) => {
    const texts = [...SENTENCES, ...sts.filter((_, index) => index % 250 === 100).slice(0, 10)];
    const results = await job(byDevice, [folder(SPLADE), texts, DEVICES]);
    agree(t, results, 1e-4);
    const entries = ({ sparse }) => sparse.map(({ indices }) => indices);
    for (const device of DEVICES) assert.deepEqual(entries(results[device]), entries(results.wasm), `the entries of ${device}`);
    assert.ok(Math.max(...entries(results.wasm).map(({ length }) => length)) > 50);
  });

  everywhere("weights held smaller by the kernels and by Candle", async (t, job) => {
    for (const [name, most] of [[SPLADE, 1e-4], [MODEL, 2e-5]]) {
      const held = (dtype) => job(byDevice, [folder(name), SENTENCES.slice(LONG + 1), ["wasm", "reference"], { dtype }]);
      const [f16, int8] = [await held("f16"), await held("int8")];
      agree(t, f16, most, "f16: ");
      // The kernels round what an int8 matrix is multiplied with, and Candle does not.
      const least = lowestCosine(int8.wasm, int8.reference);
      t.diagnostic(`int8: ${least.toFixed(6)}`);
      assert.ok(least > 0.98 && least < 1 - 1e-6, `${least}`);
      assert.ok(furthest(f16.reference, int8.reference) > 1e-3, "the dtype makes no difference");
    }
  });
});

describe("candle-transformers", () => {
  everywhere("gives what our BERT gives, pooled either way", async (t, job) => {
    const { texts } = expectations.get("splade-bert").cases[0];
    for (const mode of ["mean_tokens", "cls_token"]) {
      const results = await job(
        ([folder, mode, texts, devices]) => byDevice([pooledBy(folder, mode), texts, devices]),
        [folder(`${FIXTURES}/bert-tiny`), mode, texts, DEVICES],
      );
      // They are not scaled to unit length.
      assert.ok(Math.max(...results.wasm.dense.flat()) > 1);
      agree(t, results, 2e-6, `${mode}: `);
    }
  });

  everywhere("gives what our SPLADE and the original program give", async (t, job) => {
    const expect = expectations.get("splade-bert");
    const [kernels, theirs] = await job(runOn, [fixture("splade-bert"), expect, ["wasm", "candle-transformers"]]);
    compare(t, expected(expect, kernels), theirs);
    compare(t, expect, theirs);
  });

  everywhere("refuses what it does not compute", async (t, job) => {
    const names = { family: "t5", pickle: "splade-bert-old", table: "model2vec/float32", dtype: "splade-bert", reranker: "rerank-bert" };
    const errors = await job(
      async (sources) => {
        const common = { device: "candle-transformers", worker: false, cache: false };
        const errors = {};
        for (const [name, source] of Object.entries(sources)) {
          const Kind = name === "reranker" ? wick.Reranker : wick.Embedder;
          const { code, at } = await failure(Kind.load(source, { ...common, ...(name === "dtype" && { dtype: "f16" }) }));
          errors[name] = [code, at];
        }
        return errors;
      },
      Object.fromEntries(Object.entries(names).map(([key, name]) => [key, fixture(name)])),
    );
    assert.deepEqual(errors, {
      family: ["unsupported_model", "config.json"],
      pickle: ["unsupported_model", "config.json"],
      table: ["unsupported_model", "modules.json"],
      dtype: ["invalid_option", "dtype"],
      reranker: ["invalid_option", "device"],
    });
  });
});

everywhere("a model says where it computes", async (t, job) => {
  const about = await job(
    async ([embedder, reranker]) => {
      const about = [];
      for (const [Kind, source] of [[wick.Embedder, embedder], [wick.Reranker, reranker]]) {
        const model = await Kind.load(source, { device: "reference", threads: 2 });
        const loaded = model.device;
        await (model.encode ?? model.rerank).call(model, ...(model.encode ? [["a"]] : ["a", ["b"]]));
        about.push([loaded, model.device, model.threads]);
        model.dispose();
      }
      return about;
    },
    [fixture("xlmr"), fixture("rerank-bert")],
  );
  assert.deepEqual(about, Array(2).fill(["reference", "reference", 1]));
});

const TEXTS = ["When was artificial intelligence founded", "", "Alan Turing was born in Maida Vale, London."];

describe("verify", () => {
  /** Holds the form of what was found, and that it is good. */
  function isGood(agreement, kinds, texts) {
    assert.deepEqual(Object.keys(agreement).sort(), kinds);
    for (const [kind, alike] of Object.entries(agreement)) {
      assert.deepEqual(Object.keys(alike).sort(), ["cosines", "difference"]);
      assert.equal(alike.cosines.length, texts.length);
      assert.ok(alike.cosines.every((cosine) => cosine > 0.99999 && cosine < 1 + 1e-9), `${kind}: ${alike.cosines}`);
      assert.ok(alike.difference > 0 && alike.difference < (kind === "sparse" ? 1e-4 : 2e-5), `${kind}: ${alike.difference}`);
    }
  }

  everywhere("tells of each kind of result how alike both are, and leaves the embedder as it was", async (t, job) => {
    // Options of the load, of the call, what is given, and whether candle-transformers has it.
    const cases = [
      [fixture("bge-m3"), {}, {}, ["dense", "sparse", "tokens"], false],
      [fixture("bge-m3"), { outputs: ["tokens"], worker: false }, {}, ["tokens"], false],
      [fixture("splade-bert"), { dtype: "f16" }, {}, ["sparse"], true],
      [folder(`${FIXTURES}/bert-tiny`), { dimensions: 16, maxTokens: 12, normalize: true }, { role: "document" }, ["dense"], true],
      [fixture("t5"), { device: "wasm", threads: 2, maxTokens: 9 }, { role: "query" }, ["dense"], false],
    ];
    for (const [source, options, call, kinds, second] of cases) {
      const [found, before, after] = await job(
        async ([source, options, call, texts]) => {
          const embedder = await wick.Embedder.load(source, options);
          const state = async () => {
            const { usage, ...output } = await embedder.encode(texts);
            const numbers = (_, value) => (ArrayBuffer.isView(value) ? Array.from(value) : value);
            return [embedder.device, embedder.threads, JSON.stringify(output, numbers)];
          };
          const before = await state();
          const found = await embedder.verify(texts, { wasm: candle, ...call });
          const results = [found, before, await state()];
          embedder.dispose();
          return results;
        },
        [source, options, call, TEXTS],
      );
      assert.deepEqual(after, before);
      assert.deepEqual(Object.keys(found), second ? ["reference", "candleTransformers"] : ["reference"]);
      for (const agreement of Object.values(found)) isGood(agreement, kinds, TEXTS);
    }
  });

  test("compares what has no direction, another length, or very many texts", async () => {
    const { agreement } = await import(pathToFileURL(path("pkg/dist/verify.js")));
    const row = (...values) => Float32Array.from(values);
    const dense = (...rows) => ({ dense: rows });
    const compared = (a, b) => Object.values(agreement(dense(a), dense(b)).dense).flat();
    assert.deepEqual(compared(row(3, 4), row(6, 8)), [1, 4]);
    assert.deepEqual(compared(row(1, 0), row(0, -2)), [0, 2]);
    assert.deepEqual(compared(row(0, 0), row(0, 0)), [1, 0]);
    assert.deepEqual(compared(row(0, 0), row(0, 1)), [0, 1]);
    assert.deepEqual(compared(row(), row()), [1, 0]);
    for (const [a, b] of [[row(1, 2), row(1, 2, 0)], [row(1, 2, 0), row(1, 2)]]) assert.deepEqual(compared(a, b), [0, Infinity]);
    assert.ok(compared(row(NaN, 1), row(0, 1)).every(Number.isNaN));
    const many = { dense: Array(200_000).fill(row(1, 2)) };
    assert.equal(agreement(many, many).dense.difference, 0);

    const sparse = (indices, values) => ({ sparse: [{ indices: Uint32Array.from(indices), values: row(...values) }] });
    const weights = (a, b) => Object.values(agreement(a, b).sparse).flat();
    assert.deepEqual(weights(sparse([2, 7], [3, 4]), sparse([7, 2], [4, 3])), [1, 0]);
    assert.deepEqual(weights(sparse([1], [2]), sparse([3], [5])), [0, 5]);
    const tokens = (...rows) => ({ tokens: [rows] });
    const ofTokens = (a, b) => Object.values(agreement(a, b).tokens).flat();
    assert.deepEqual(ofTokens(tokens(row(1, 0), row(0, 1)), tokens(row(1, 0), row(0, -1))), [0, 2]);
    assert.deepEqual(ofTokens(tokens(row(1, 0), row(0, 1)), tokens(row(1, 0))), [0, Infinity]);
    assert.deepEqual(agreement({ dense: [row(1)] }, { sparse: [] }), {});
  });

  everywhere("finds wrong weights, and what another role has before its texts", async (t, job) => {
    t.after(() => Object.keys(replaced).forEach((file) => delete replaced[file]));
    const lowest = (name, role) =>
      job(
        async ([source, role, texts]) => {
          globalThis.verified ??= await wick.Embedder.load(source, { cache: false });
          const found = await verified.verify(texts, { role, wasm: candle });
          return Object.values(found).flatMap((agreement) => Object.values(agreement).map(({ cosines }) => Math.min(...cosines)));
        },
        [fixture(name), role, TEXTS],
      );
    const done = () => job(() => (verified.dispose(), delete globalThis.verified));

    const good = await lowest("splade-bert", "plain");
    replaced["splade-bert/model.safetensors"] = withChanged("tests/fixtures/splade-bert/model.safetensors", "bert.encoder.layer.1.output.dense.weight");
    const bad = await lowest("splade-bert", "plain");
    await done();
    t.diagnostic(`cosines with a matrix of its sign changed: ${bad.map((cosine) => cosine.toFixed(4))}`);
    assert.ok(good.length === 2 && good.every((cosine) => cosine > 0.99999), `${good}`);
    assert.ok(bad.length === 2 && bad.every((cosine) => cosine < 0.999), `${bad}`);

    // Queries have a prompt there, and texts without a role have none.
    const byRole = await lowest("nomic-native", "query");
    replaced["nomic-native/config_sentence_transformers.json"] = "{}";
    for (const role of ["plain", "query"]) byRole.push(...(await lowest("nomic-native", role)));
    await done();
    assert.ok(byRole[0] > 0.99999 && byRole[1] > 0.99999 && byRole[2] < 0.999, `${byRole}`);
  });

  /** Weights of a file, with one tensor's sign changed. */
  function withChanged(file, name) {
    const bytes = readFileSync(path(file));
    const start = 8 + Number(bytes.readBigUInt64LE());
    const [from, to] = JSON.parse(bytes.toString("utf8", 8, start))[name].data_offsets;
    for (let at = start + from; at < start + to; at += 4) bytes.writeFloatLE(-bytes.readFloatLE(at), at);
    return bytes;
  }

  everywhere("wants the source of a model that was loaded from bytes", async (t, job) => {
    const [refused, found, kept] = await job(
      async ([address, texts]) => {
        const names = ["config.json", "tokenizer.json", "model.safetensors", "modules.json", "sentence_bert_config.json", "1_Pooling/config.json"];
        const bytes = async (name) => new Uint8Array(await (await fetch(address + name)).arrayBuffer());
        const source = Object.fromEntries(await Promise.all(names.map(async (name) => [name, await bytes(name)])));
        const embedder = await wick.Embedder.load(source);
        const refused = await failure(embedder.verify(texts));
        const found = await embedder.verify(texts, { source, wasm: candle });
        // Blobs are not memory of the page's, and are remembered.
        const other = await wick.Embedder.load(Object.fromEntries(Object.entries(source).map(([name, bytes]) => [name, new Blob([bytes])])));
        const kept = await other.verify(texts, { wasm: candle });
        embedder.dispose();
        other.dispose();
        return [refused, found, kept];
      },
      [fixture("xlmr"), TEXTS],
    );
    assert.deepEqual([refused.code, refused.at], ["invalid_option", "source"]);
    for (const { reference } of [found, kept]) isGood(reference, ["dense"], TEXTS);
  });

  everywhere("tells its progress, stops, and may fail: the embedder works afterwards", async (t, job) => {
    const { seen, none, errors, works } = await job(
      async ([source, texts]) => {
        // A signal of the load is not one of what comes later.
        const loading = new AbortController();
        const embedder = await wick.Embedder.load(source, { cache: false, signal: loading.signal });
        loading.abort();
        const seen = [];
        await embedder.verify(texts, { wasm: candle, onProgress: (progress) => seen.push(progress) });
        const none = await embedder.verify([], { wasm: candle });

        const errors = {};
        const aborted = new AbortController();
        aborted.abort();
        errors["aborted before"] = await failure(embedder.verify(texts, { signal: aborted.signal }));
        const inLoad = new AbortController();
        errors["aborted in the load"] = await failure(embedder.verify(texts, { wasm: candle, signal: inLoad.signal, onProgress: () => inLoad.abort() }));
        const later = new AbortController();
        const onProgress = ({ loaded, total }) => loaded === total && setTimeout(() => later.abort(), 50);
        errors["aborted while it computes"] = await failure(embedder.verify(Array(5000).fill(texts[2]), { wasm: candle, signal: later.signal, onProgress }));
        errors["missing_file "] = await failure(embedder.verify(texts, { wasm: candle, source: new URL("../../none/", source).href }));
        for (const [name, option] of Object.entries({ roles: "query", role: "question", source: 3, wasm: 3, signal: {}, worker: false })) {
          errors[`invalid_option ${name}`] = await failure(embedder.verify(texts, { [name]: option }));
        }
        for (const [name, bad] of Object.entries({ texts: "a", encode: [() => 1], "text 1": ["a", 3] })) errors[`invalid_text ${name}`] = await failure(embedder.verify(bad));
        const works = (await embedder.verify(texts, { wasm: candle })).reference.dense.cosines.length;
        embedder.dispose();
        errors["disposed "] = await failure(embedder.verify(texts));
        return { seen, none, errors, works };
      },
      [fixture("xlmr"), TEXTS],
    );
    assert.equal(works, TEXTS.length);
    assert.deepEqual(none, { reference: { dense: { cosines: [], difference: 0 } } });
    assert.ok(seen.some(({ file, loaded, total }) => file === "model.safetensors" && loaded === total), JSON.stringify(seen));
    for (const [wanted, error] of Object.entries(errors)) {
      const [code, ...at] = wanted.split(" ");
      assert.equal(error.code, code, `${wanted}: ${JSON.stringify(error)}`);
      if (code.startsWith("invalid")) assert.equal(error.at, at.join(" "), `${wanted}: ${JSON.stringify(error)}`);
    }
  });
});

describe("what a page fetches", () => {
  /** What was asked for since the last time, each once. */
  const fetched = () => {
    const files = [...new Set(requested)].sort();
    requested = [];
    return files;
  };
  /** With models on the page: `models`. */
  const openWith = async (t, options) => {
    const opened = await openPage(t, browser, server);
    fetched();
    await opened.page.evaluate(
      async ([embedder, reranker, options]) => {
        globalThis.models = [await wick.Embedder.load(embedder, options), await wick.Reranker.load(reranker, options)];
        await models[0].encode(["a"]);
        await models[0].encodeQueries(["a"]);
        await models[0].tokenize(["a"]);
        await models[1].rerank("a", ["b"]);
      },
      [fixture("splade-bert"), fixture("rerank-bert"), options],
    );
    return opened;
  };

  for (const worker of [true, false]) {
    test(`is the reference's module only when it is asked for, ${worker ? "in a worker" : "on its own thread"}`, async (t) => {
      const { page } = await openWith(t, { worker });
      const usual = fetched();
      assert.equal(usual.filter((file) => file.endsWith(".wasm")).length, 1);
      // Its glue is a part of the worker's script (pkg/src/worker.ts says why), and none of the page's.
      const scripts = ["reference.js", GLUE];
      assert.deepEqual(usual.filter((file) => file.includes("reference")), worker ? scripts : []);
      const found = await page.evaluate(async (texts) => Object.keys(await models[0].verify(texts)), TEXTS);
      assert.deepEqual(found, ["reference", "candleTransformers"]);
      const more = fetched();
      assert.deepEqual(more.filter((file) => !usual.includes(file)), worker ? [MODULE] : [...scripts, MODULE]);
      // A new worker asks for its scripts again, and not for the engine.
      assert.deepEqual(more.filter((file) => file.endsWith(".wasm")), [MODULE]);
      await page.evaluate((source) => load("small").then((model) => model.encode(["a"])), fixture("xlmr"));
      assert.ok(!fetched().includes(MODULE));
    });
  }

  test("is the module that the caller names, of either kind", async (t) => {
    const wasm = "/wick-embed/wick_embed_bg.wasm?engine";
    const { page } = await openWith(t, { wasm });
    assert.deepEqual(fetched().filter((file) => file.includes(".wasm")), ["wick_embed_bg.wasm?engine"]);
    await page.evaluate(() => models[0].verify(["a"]));
    assert.deepEqual(fetched().filter((file) => file.includes(".wasm")), [MODULE]);
    await page.evaluate(() => models[0].verify(["a"], { wasm: "/wick-embed/wick_reference_bg.wasm?mine" }));
    assert.deepEqual(fetched().filter((file) => file.includes(".wasm")), [`${MODULE}?mine`]);
  });
});
