// BM25 in real Chromium and in Node: pymilvus's values, what is saved and read again, and what is refused.
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { pathToFileURL } from "node:url";
import { json, launch, openPage, path, serveSite, sharedPage } from "./harness.mjs";

const golden = json("tests/golden/bm25_golden.json");
const parameters = json("tests/golden/bm25_params.json");

let browser, server;

before(async () => {
  browser = await launch();
  server = await serveSite((request, response, name) => {
    if (name === "bm25.json") return response.writeHead(200).end(JSON.stringify(parameters)), true;
    if (name === "broken") return response.writeHead(500).end(), true;
    return false;
  });
});

after(async () => {
  await browser?.close();
  await server?.close();
});

const open = sharedPage(() => openPage(undefined, browser, server));

/** Fits, encodes and saves; gives plain data. Runs in the page and here. */
const use = async ({ BM25 }, { corpus, docs5, queries }, options) => {
  const bm25 = await BM25.fit(corpus, options);
  const rows = ({ sparse }) => sparse.map(({ indices, values }) => Array.from(indices, (index, at) => [index, values[at]]));
  const { sparse } = await bm25.encodeQueries(queries);
  const result = {
    documents: rows(await bm25.encodeDocuments(docs5)),
    queries: rows({ sparse }),
    words: await sparse[0].decode(),
    milvus: sparse[0].toMilvus(),
    dimensions: bm25.dimensions,
    saved: await bm25.save(),
  };
  const again = await BM25.load(result.saved, options);
  result.again = rows(await again.encodeDocuments(docs5));
  result.same = (await again.save()) === result.saved;
  again.dispose();
  bm25.dispose();
  return result;
};

function compare({ documents, queries, words, milvus, dimensions, saved, again, same }) {
  assert.equal(dimensions, golden.dim);
  for (const [got, wanted] of [[documents, golden.docs5_rows], [queries, golden.query_rows]]) {
    for (const [index, row] of wanted.entries()) {
      assert.deepEqual(got[index].map(([key]) => key), row.map(([key]) => key));
      for (const [at, [, value]] of row.entries()) assert.ok(Math.abs(got[index][at][1] - value) < 1e-6, `${got[index][at]} ${value}`);
    }
  }
  assert.deepEqual(JSON.parse(saved).idf_word, parameters.idf_word);
  assert.deepEqual(milvus, Object.fromEntries(queries[0]));
  assert.deepEqual(words.map(({ token, weight }) => [parameters.idf_word.indexOf(token), weight]).sort(([a], [b]) => a - b), queries[0]);
  assert.deepEqual([again, same], [documents, true]);
}

test("pymilvus's values, in a worker, on the page and in Node", async (t) => {
  const { page, messages } = await open(t);
  for (const worker of [true, false]) compare(await page.evaluate(`(${use})(wick, ${JSON.stringify(golden)}, { worker: ${worker} })`));
  assert.deepEqual(messages, []);
  const wick = await import(pathToFileURL(path("pkg/dist/node.js")));
  for (const worker of [true, false]) compare(await use(wick, golden, { worker }));
});

test("what pymilvus saved is read from wherever it is", async (t) => {
  const { page } = await open(t);
  const values = await page.evaluate(
    async ([parameters, query]) => {
      const text = JSON.stringify(parameters);
      const sources = [text, parameters, new Blob([text]), new URL("/models/bm25.json", location.href)];
      const values = [];
      for (const source of sources) {
        const bm25 = await wick.BM25.load(source);
        values.push([...(await bm25.encodeQueries([query])).sparse[0].values]);
        bm25.dispose();
      }
      return values;
    },
    [parameters, golden.queries[0]],
  );
  const wick = await import(pathToFileURL(path("pkg/dist/node.js")));
  const bm25 = await wick.BM25.load(pathToFileURL(path("tests/golden/bm25_params.json")));
  values.push([...(await bm25.encodeQueries([golden.queries[0]])).sparse[0].values]);
  bm25.dispose();
  assert.ok(values[0].length > 1);
  for (const row of values) assert.deepEqual(row, values[0]);
});

test("analyzers, parameters and scores", async (t) => {
  const { page } = await open(t);
  const result = await page.evaluate(async () => {
    const corpus = ["Die Häuser stehen am Fluss.", "Ein Haus am See.", "Der Wald ist dunkel."];
    const bm25 = await wick.BM25.fit(corpus, { analyzer: { kind: "unicode", language: "de" }, k1: 1.2, b: 0.5 });
    const plain = await wick.BM25.fit(corpus, { analyzer: { kind: "unicode", stopWords: ["am"], stem: false } });
    const { sparse } = await bm25.encodeDocuments(corpus);
    const [query] = (await bm25.encodeQueries(["Hausen am Wald"])).sparse;
    const result = {
      saved: JSON.parse(await bm25.save()),
      words: JSON.parse(await plain.save()).idf_word,
      scores: sparse.map((row) => wick.lexicalScore(query, row)),
      unknown: (await bm25.encodeDocuments(["zebra", ""])).sparse.map((row) => row.isEmpty),
      encode: bm25.encode,
    };
    bm25.dispose();
    plain.dispose();
    return result;
  });
  assert.deepEqual([result.saved.k1, result.saved.b], [1.2, 0.5]);
  assert.ok(result.words.includes("häuser") && !result.words.includes("am"));
  assert.ok(result.scores[2] > 0);
  assert.deepEqual(result.unknown, [true, true]);
  assert.equal(result.encode, undefined);
});

test("what is refused has a code, and the next call works", async (t) => {
  const { page, messages } = await open(t);
  const { codes, works } = await page.evaluate(async () => {
    const { BM25 } = wick;
    const code = async (call) => (await failure((async () => call())())).code;
    const bm25 = await BM25.fit(["a panda eats"]);
    const codes = {
      invalid_text: [
        await code(() => BM25.fit("a")),
        await code(() => BM25.fit(["a", 3])),
        await code(() => BM25.fit([])),
        await code(() => BM25.fit([() => 1])),
        await code(() => bm25.encodeQueries(["fine", "\ud83d"])),
        await code(() => bm25.encodeDocuments("a")),
      ],
      invalid_option: [
        await code(() => BM25.fit(["a panda"], { k1: "1" })),
        await code(() => BM25.fit(["a panda"], { k1: -1 })),
        await code(() => BM25.fit(["a panda"], { b: 2 })),
        await code(() => BM25.fit(["a panda"], { epsilon: NaN })),
        await code(() => BM25.fit(["a panda"], { analyzer: "nltk" })),
        await code(() => BM25.fit(["a panda"], { analyzer: { kind: "words" } })),
        await code(() => BM25.fit(["a panda"], { analyzer: { kind: "nltk", language: "xx" } })),
        await code(() => BM25.load(null)),
        await code(() => BM25.load(3)),
        await code(() => BM25.load("{}", { signal: {} })),
      ],
      invalid_json: [await code(() => BM25.load("{")), await code(() => BM25.load(new Blob(["<html>"])))],
      invalid_config: [await code(() => BM25.load({})), await code(() => BM25.load("{\"version\":\"v2\"}"))],
      missing_file: [await code(() => BM25.load(new URL("/models/nowhere.json", location.href)))],
      http: [await code(() => BM25.load(new URL("/models/broken", location.href)))],
      network: [await code(() => BM25.load(new URL("http://localhost:9/x.json")))],
      aborted: [await code(() => BM25.fit(["a panda"], { signal: AbortSignal.abort() }))],
    };
    const works = (await bm25.encodeQueries(["panda"])).sparse[0].indices.length;
    bm25.dispose();
    codes.disposed = [await code(() => bm25.encodeQueries(["panda"])), await code(() => bm25.save())];
    return { codes, works };
  });
  for (const [wanted, got] of Object.entries(codes)) assert.deepEqual(got, got.map(() => wanted));
  assert.equal(works, 1);
  assert.deepEqual(messages.filter((message) => !/Failed to load resource|Fetch API cannot load/.test(message)), []);
});
