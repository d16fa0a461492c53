// Every family and head in real Chromium and in Node, on tiny checkpoints, against what their original programs gave; and what
// the package makes of it.
import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { pathToFileURL } from "node:url";
import { FIXTURES, address, compare, expectations, replaced, requests, serveFixtures } from "./expectations.mjs";
import { run } from "./fixture.mjs";
import { decodeRows, dot, json, launch, nativeVectors, openPage, path, sharedPage, stsSentences } from "./harness.mjs";

const fixtures = [...expectations.keys()];

let browser, server;

before(async () => {
  browser = await launch();
  server = await serveFixtures();
});

after(async () => {
  await browser?.close();
  await server?.close();
});

const open = sharedPage(() => openPage(undefined, browser, server));

describe("every fixture gives what its original program gave", () => {
  for (const [name, expect] of expectations) {
    test(`in Chromium: ${name}`, async (t) => {
      const { page, messages } = await open(t);
      const results = await page.evaluate(
        async ([source, expect]) => (await import("/models/test/fixture.mjs")).run(wick, source, expect, { cache: false }),
        [address(name), expect],
      );
      compare(t, expect, results);
      assert.deepEqual(messages.filter((message) => !/404/.test(message)), []);
    });
  }

  for (const name of ["bge-m3", "t5", "rerank-xlmr", "model2vec/int8"]) {
    test(`in Node: ${name}`, async (t) => {
      const wick = await import(pathToFileURL(path("pkg/dist/node.js")));
      const expect = expectations.get(name);
      const source = expect.model || name.includes("/") ? new URL(address(name), server.url) : path(`${FIXTURES}/${name}`);
      compare(t, expect, await run(wick, source, expect, { worker: name !== "t5" }));
    });
  }
});

describe("outputs", () => {
  const texts = ["When was artificial intelligence founded", "", "Alan Turing was born in Maida Vale, London."];

  test("are those asked for, at load and at each call", async (t) => {
    const { page } = await open(t);
    const results = await page.evaluate(
      async ([source, texts]) => {
        const kinds = ({ usage, ...outputs }) => Object.keys(outputs).sort();
        const all = await wick.Embedder.load(source);
        const results = { all: all.outputs, encoded: kinds(await all.encode(texts)), two: kinds(await all.encode(texts, { outputs: ["tokens", "dense"] })) };
        const frozen = await failure((async () => all.outputs.push("more"))());
        results.frozen = frozen !== "no error";
        const some = await wick.Embedder.load(source, { outputs: ["sparse"] });
        results.some = [some.outputs, kinds(await some.encode(texts)), some.dimensions, await failure(some.encode(texts, { outputs: ["dense"] }))];
        const { sparse } = await all.encode(texts);
        results.same = (await some.encode(texts)).sparse.every(({ values }, index) => String(values) === String(sparse[index].values));
        all.dispose();
        some.dispose();
        return results;
      },
      [address("bge-m3"), texts],
    );
    assert.deepEqual([results.all, results.encoded, results.two], [["dense", "sparse", "tokens"], ["dense", "sparse", "tokens"], ["dense", "tokens"]]);
    assert.deepEqual([results.some[0], results.some[1], results.some[3].code, results.some[3].at], [["sparse"], ["sparse"], "invalid_option", "outputs"]);
    assert.ok(results.frozen && results.same && results.some[2] > 0);
  });

  test("sparse vectors: the largest weights, words, and the form that Milvus takes", async (t) => {
    const { page } = await open(t);
    for (const worker of [true, false]) {
      const { all, top, words, empty, refused } = await page.evaluate(
        async ([splade, m3, text, worker]) => {
          const plain = async (row) => ({ indices: [...row.indices], values: [...row.values], milvus: JSON.stringify(row.toMilvus()), words: await row.decode(), isEmpty: row.isEmpty });
          const embedder = await wick.Embedder.load(splade, { worker });
          const [row] = (await embedder.encode([text])).sparse;
          const result = { all: await plain(row), top: await plain((await embedder.encode([text], { topK: 3 })).sparse[0]) };
          result.words = row instanceof wick.SparseVector;
          embedder.dispose();
          result.refused = await failure(row.decode());
          const other = await wick.Embedder.load(m3, { worker });
          result.empty = await plain((await other.encode(["panda", ""])).sparse[1]);
          other.dispose();
          return result;
        },
        [address("splade-bert"), address("bge-m3"), texts[0], worker],
      );
      assert.ok(words && !all.isEmpty && all.indices.length > 3 && all.indices.every((index, at) => at === 0 || index > all.indices[at - 1]));
      assert.deepEqual(JSON.parse(all.milvus), Object.fromEntries(all.indices.map((index, at) => [String(index), all.values[at]])));
      assert.match(all.milvus, /^\{"\d+":[\d.e-]+,/);
      const vocabulary = json(`${FIXTURES}/splade-bert/tokenizer.json`).model.vocab;
      assert.deepEqual(all.words.map(({ token, weight }) => [vocabulary[token], weight]).sort(([a], [b]) => a - b), all.indices.map((index, at) => [index, all.values[at]]));
      assert.ok(all.words.every(({ weight }, at) => at === 0 || weight <= all.words[at - 1].weight), "largest first");
      assert.deepEqual(top.words, all.words.slice(0, 3), "the largest stay");
      assert.deepEqual(empty, { indices: [], values: [], milvus: "{}", words: [], isEmpty: true });
      assert.equal(refused.code, "disposed");
    }
  });

  test("another prompt than the model's, at load and at a call", async (t) => {
    const { page } = await open(t);
    const same = await page.evaluate(async (source) => {
      const embedder = await wick.Embedder.load(source, { prompts: { query: "query: " } });
      const value = async (output) => String((await output).dense[0]);
      const wanted = await value(embedder.encode(["query: panda"]));
      const other = await value(embedder.encode(["panda"]));
      const results = [
        (await value(embedder.encodeQueries(["panda"]))) === wanted,
        (await value(embedder.encode(["panda"], { prompt: "query: " }))) === wanted,
        (await value(embedder.encodeDocuments(["panda"]))) === other,
        (await value(embedder.encodeQueries(["panda"], { prompt: "" }))) === other,
        (await value(embedder.encode(["panda"], { prompt: "auto" }))) === (await value(embedder.encode(["autopanda"]))),
        wanted !== other,
      ];
      embedder.dispose();
      return results;
    }, address("gte"));
    assert.deepEqual(same, Array(6).fill(true));
  });
});

describe("scores", async () => {
  const { colbertScore, hybridScore, lexicalScore } = await import(pathToFileURL(path("pkg/dist/node.js")));

  test("are those of src/score.rs", () => {
    const rows = (...rows) => rows.map((row) => Float32Array.from(row));
    assert.equal(colbertScore(rows([1, 0], [0, 1]), rows([0.5, 0], [0, 0.25], [1, 0])), (1 + 0.25) / 2);
    assert.equal(colbertScore([], rows([1, 0])), 0);
    assert.throws(() => colbertScore(rows([1, 0]), rows([1])), { code: "invalid_option" });
    const vector = (indices, values) => ({ indices, values });
    assert.equal(lexicalScore(vector([1, 5, 9], [1, 2, 3]), vector([0, 5, 9], [9, 4, 0.5])), 9.5);
    assert.equal(lexicalScore(vector([1], [1]), vector([], [])), 0);
    // What BGE-M3's card prints for its first pair.
    const [dense, sparse, colbert] = [0.62598, 0.19556, 0.7797];
    assert.ok(Math.abs(hybridScore({ dense, sparse }) - 0.4825) < 5e-5);
    assert.ok(Math.abs(hybridScore({ dense, sparse, colbert }) - 0.6014) < 5e-5);
    assert.equal(hybridScore({ dense, sparse, colbert }, { dense: 3 }), dense);
    assert.equal(hybridScore({ dense }, { sparse: 1 }), 0);
  });
});

describe("weights held smaller", () => {
  for (const [dtype, least] of [["f16", 0.9995], ["int8", 0.995]]) {
    test(`${dtype}: all STS-B sentences stay close to f32`, async (t) => {
      const { page } = await openPage(t, browser, server);
      const texts = stsSentences();
      const { packed, memory } = await page.evaluate(
        async ([texts, dtype]) => {
          const memory = engineMemory();
          const embedder = await load("all-MiniLM-L6-v2", { dtype, worker: false });
          const bytes = memory().buffer.byteLength;
          const { dense } = await embedder.encode(texts);
          return { packed: pack(dense), memory: bytes };
        },
        [texts, dtype],
      );
      const native = nativeVectors(t, texts);
      const cosines = decodeRows(packed, texts.length).map((row, index) => dot(row, native[index]));
      const smallest = Math.min(...cosines);
      t.diagnostic(`smallest cosine ${smallest.toFixed(6)}, memory after the load ${(memory / 2 ** 20).toFixed(0)} MiB`);
      assert.ok(smallest >= least && smallest < 1 - 1e-9, `${smallest}`);
    });
  }
});

describe("rerankers", () => {
  const name = fixtures.find((name) => expectations.get(name).rerank);
  const reranker = () => address(name);

  test("give the best first, and only so many", async (t) => {
    const { page } = await open(t);
    const documents = ["hi", "The giant panda is a bear from China.", "Rain is expected tonight.", "hi"];
    for (const worker of [true, false]) {
      const results = await page.evaluate(
        async ([source, documents, worker]) => {
          const reranker = await wick.Reranker.load(source, { worker, maxTokens: 24 });
          const progress = [];
          const own = [...documents];
          const call = reranker.rerank("What is a panda?", own, { onProgress: (p) => progress.push(p) });
          own.length = 0; // the array is the caller's again
          const all = await call;
          const two = await reranker.rerank("What is a panda?", documents, { topK: 2 });
          const none = await reranker.rerank("What is a panda?", []);
          const raw = await wick.Reranker.load(source, { worker, normalize: false, maxTokens: 24 });
          const logits = await raw.rerank("What is a panda?", documents);
          const about = [reranker.device, reranker.maxTokens];
          reranker.dispose();
          raw.dispose();
          return { all, two, none, logits, about, progress };
        },
        [reranker(), documents, worker],
      );
      const { all, two, none, logits, about, progress } = results;
      assert.deepEqual(all.map(({ index }) => index).sort(), [0, 1, 2, 3]);
      assert.ok(all.every(({ index, score, text }, at) => text === documents[index] && (at === 0 || score <= all[at - 1].score)));
      const at = (wanted) => all.findIndex(({ index }) => index === wanted);
      assert.equal(at(3), at(0) + 1, "equal ones as they came");
      assert.deepEqual([two, none, about], [all.slice(0, 2), [], ["wasm", 24]]);
      for (const [place, { index, score }] of logits.entries()) {
        assert.equal(index, all[place].index);
        assert.ok(Math.abs(1 / (1 + Math.exp(-score)) - all[place].score) < 1e-6);
      }
      assert.deepEqual(progress.at(-1), { done: 4, total: 4 });
    }
  });

  test("refuse bad input and options, and the next call works", async (t) => {
    const { page, messages } = await open(t);
    const results = await page.evaluate(async (source) => {
      const reranker = await wick.Reranker.load(source);
      const bad = {
        number: ["q", ["a", 3]],
        surrogate: ["q", ["fine", "\ud83d"]],
        string: ["q", "a"],
        nothing: ["q"],
        function: ["q", [() => 1]],
        query: [3, ["a"]],
        "half query": ["\ud83d", ["a"]],
        "no query": [undefined, ["a"]],
        "topK 0": ["q", ["a"], { topK: 0 }],
        "topK 1.5": ["q", ["a"], { topK: 1.5 }],
        "topK text": ["q", ["a"], { topK: "2" }],
        signal: ["q", ["a"], { signal: {} }],
      };
      const failures = {};
      for (const [name, call] of Object.entries(bad)) failures[name] = await failure(reranker.rerank(...call));
      const works = (await reranker.rerank("q", ["a"])).length;
      reranker.dispose();
      for (const option of [{ maxQueryTokens: 0 }, { maxTokens: -1 }, { normalize: 1 }, { dtype: "f64" }, { device: "abacus" }, { weights: 3 }]) {
        failures[JSON.stringify(option)] = await failure(wick.Reranker.load(source, option));
      }
      return { failures, works };
    }, reranker());
    for (const [name, error] of Object.entries(results.failures)) {
      assert.ok(error.isWickError, `${name}: ${JSON.stringify(error)}`);
      assert.equal(error.code, /topK|signal|\{/.test(name) ? "invalid_option" : "invalid_text", `${name}: ${JSON.stringify(error)}`);
    }
    assert.deepEqual([results.failures.number.at, results.failures.query.at, results.works], ["text 1", "query", 1]);
    assert.deepEqual(messages.filter((message) => !/404/.test(message)), []);
  });
});

describe("refusals", () => {
  test("options with wrong values, before anything is sent", async (t) => {
    const { page } = await open(t);
    requests.length = 0;
    const load = [{ dtype: "int4" }, { dtype: null }, { outputs: [] }, { outputs: ["dens"] }, { outputs: "dense" }, { prompts: "query: " }, { prompts: { question: "?" } }];
    load.push({ prompts: { query: 3 } }, { prompts: { document: "\ud83d" } }, { weights: 1 }, { device: "cpu" }, { maxTokens: "9" }, { dimensions: 0 }, { normalize: "yes" });
    const errors = await page.evaluate(
      async ([source, options]) => {
        const errors = [];
        for (const option of options) errors.push(await failure(wick.Embedder.load(source, option)));
        return errors;
      },
      [address("gte"), load],
    );
    assert.deepEqual(errors.map(({ code, at }, index) => [code, at, Object.keys(load[index])[0]]).filter(([code, at, name]) => code !== "invalid_option" || at !== name), []);
    assert.deepEqual(requests, []);
    const calls = [{ outputs: [] }, { outputs: ["dense", "words"] }, { topK: 0 }, { topK: 2.5 }, { topK: Infinity }, { prompt: 3 }, { prompt: "\ud83d" }];
    const refused = await page.evaluate(
      async ([source, calls]) => {
        const embedder = await wick.Embedder.load(source);
        const errors = [];
        for (const options of calls) errors.push(await failure(embedder.encode(["a"], options)));
        const works = (await embedder.encode(["a"])).dense.length;
        embedder.dispose();
        return [...errors, works];
      },
      [address("gte"), calls],
    );
    assert.equal(refused.pop(), 1);
    for (const [index, { code, at }] of refused.entries()) assert.deepEqual([code, at], ["invalid_option", Object.keys(calls[index])[0]]);
  });

  test("an architecture that is not known: the message says which it is, and which are", async (t) => {
    const { page } = await open(t);
    replaced["gte/config.json"] = JSON.stringify({ model_type: "deberta-v2" });
    const [embedder, reranker] = await page.evaluate(
      (source) => Promise.all([wick.Embedder, wick.Reranker].map((Kind) => failure(Kind.load(source, { cache: false })))),
      address("gte"),
    );
    delete replaced["gte/config.json"];
    for (const { code, message } of [embedder, reranker]) {
      assert.equal(code, "unsupported_model");
      for (const word of ["deberta-v2", "bert", "xlm-roberta", "t5", "modernbert"]) assert.ok(message.includes(word), message);
    }
  });

  test("an embedder is no reranker", async (t) => {
    const { page } = await open(t);
    const error = await page.evaluate((source) => failure(wick.Reranker.load(source, { cache: false })), address("gte-en"));
    assert.ok(error.isWickError && ["missing_tensor", "unsupported_model", "invalid_config"].includes(error.code), JSON.stringify(error));
  });
});
