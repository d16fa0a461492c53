// `wick serve` as others' clients see it: OpenAI's own SDK, a page of another origin, and the published descriptions of both APIs.
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { after, before, test } from "node:test";
import { Ajv } from "ajv";
import OpenAI from "openai";
import { MODEL, PROGRAM, json, launch, nativeVectors, openPage, path, serveSite } from "./harness.mjs";

const TEXTS = ["The weather is lovely today.", "It's so sunny outside!", "Zürich 東京"];
const NAME = "all-MiniLM-L6-v2";
const KEY = "a-key";
const DENSE = ["--model", MODEL, "--reranker", "tests/fixtures/rerank-bert"];
const SPARSE = ["--model", "tests/fixtures/splade-bert"];

/** Starts a server; gives its address, and a way to stop it that says how it ended. */
async function start(...args) {
  const environment = { ...process.env, WICK_TEST_KEY: KEY };
  const child = spawn(PROGRAM, ["serve", "--port", "0", ...args], { cwd: path("."), env: environment, stdio: ["ignore", "ignore", "pipe"] });
  const ended = new Promise((done) => child.once("exit", done));
  let said = "";
  const url = await new Promise((found, fail) => {
    child.stderr.setEncoding("utf8").on("data", (text) => {
      said += text;
      const [, address] = /listening at (\S+)\n/.exec(said) ?? [];
      if (address) found(address);
    });
    ended.then(() => fail(new Error(said)));
  });
  return { url, stop: () => (child.kill("SIGTERM"), ended) };
}

/** `site` is of an origin that is allowed, `other` is not. */
let browser, site, other;
const running = {};
before(async () => {
  [browser, site, other] = await Promise.all([launch(), serveSite(() => false), serveSite(() => false)]);
  const cors = ["--cors-allow-origin", new URL(site.url).origin];
  const locked = ["--api-key-env", "WICK_TEST_KEY"];
  running.dense = await start(...DENSE, "--max-texts", "64");
  running.sparse = await start(...SPARSE, ...cors);
  running.locked = await start(...DENSE, ...locked, "--max-queued-texts", "40", "--max-body-bytes", "100000");
  running.open = await start(...DENSE, ...locked, ...cors);
});
after(async () => {
  await Promise.all([browser?.close(), site?.close(), other?.close()]);
  const ended = await Promise.all(Object.values(running).map(({ stop }) => stop()));
  assert.deepEqual(ended, ended.map(() => 0));
});

const client = (server, options) => new OpenAI({ baseURL: `${server.url}/v1`, apiKey: KEY, maxRetries: 0, ...options });

const ask = (server, place, body) =>
  fetch(server.url + place, body && { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(body) });

test("OpenAI's SDK gets the native program's vectors, in either encoding", async (t) => {
  const expected = nativeVectors(t, TEXTS).map((row) => Array.from(row));
  const { embeddings, models } = client(running.dense);
  // Without an encoding it asks for base64 and decodes it.
  for (const encoding_format of [undefined, "float"]) {
    const { data, usage, model } = await embeddings.create({ model: NAME, input: TEXTS, encoding_format });
    assert.equal(model, NAME);
    assert.ok(usage.total_tokens > 15 && usage.total_tokens === usage.prompt_tokens);
    data.forEach(({ embedding, index }, at) => {
      assert.equal(index, at);
      assert.deepEqual(Array.from(Float32Array.from(embedding)), expected[at]);
    });
  }
  const base64 = await embeddings.create({ model: NAME, input: TEXTS[0], encoding_format: "base64" });
  const bytes = Buffer.from(base64.data[0].embedding, "base64");
  assert.deepEqual(Array.from({ length: bytes.length / 4 }, (_, at) => bytes.readFloatLE(4 * at)), expected[0]);
  const short = await embeddings.create({ model: NAME, input: TEXTS, dimensions: 64 });
  for (const { embedding } of short.data) {
    assert.equal(embedding.length, 64);
    assert.ok(Math.abs(Math.hypot(...embedding) - 1) < 1e-6);
  }
  const ids = [];
  for await (const { id } of models.list()) ids.push(id);
  assert.deepEqual(ids, [NAME, "rerank-bert"]);
  assert.equal((await models.retrieve(NAME)).id, NAME);
});

test("many calls of the SDK at once keep their order", async (t) => {
  const texts = Array.from({ length: 64 }, (_, index) => `${"some words ".repeat(index % 7)}${index}`);
  const expected = nativeVectors(t, texts);
  const { embeddings } = client(running.dense);
  const answers = await Promise.all(texts.map((input) => embeddings.create({ model: NAME, input })));
  answers.forEach(({ data }, index) => assert.deepEqual(Float32Array.from(data[0].embedding), expected[index]));
});

test("errors arrive as the SDK's own", async () => {
  const failure = async (server, body, options) => {
    const error = await client(server, options).embeddings.create({ model: NAME, input: "a", ...body }).then(() => assert.fail("it succeeds"), (error) => error);
    return [error.constructor.name, error.status, error.code, error.param];
  };
  const { dense, locked, sparse } = running;
  assert.deepEqual(await failure(locked, {}, { apiKey: "another key" }), ["AuthenticationError", 401, "invalid_api_key", null]);
  assert.deepEqual(await failure(dense, { model: "gpt" }), ["NotFoundError", 404, "model_not_found", "model"]);
  assert.deepEqual(await failure(sparse, { model: "splade-bert" }), ["NotFoundError", 404, "model_not_found", "model"]);
  assert.deepEqual(await failure(dense, { input: "" }), ["BadRequestError", 400, null, "input"]);
  assert.deepEqual(await failure(dense, { input: [1, 2, 3] }), ["BadRequestError", 400, null, null]);
  assert.deepEqual(await failure(dense, { input: Array(65).fill("a") }), ["BadRequestError", 400, null, "input"]);
  assert.deepEqual(await failure(dense, { input: "a ".repeat(300) }), ["BadRequestError", 400, "context_length_exceeded", "input"]);
  assert.deepEqual(await failure(dense, { dimensions: 385 }), ["BadRequestError", 400, "invalid_option", "dimensions"]);
  assert.deepEqual(await failure(locked, { input: "a ".repeat(100_000) }), ["APIError", 413, "request_too_large", null]);
  assert.deepEqual(await failure(locked, { input: Array(41).fill("a") }), ["BadRequestError", 400, null, "input"], "as many as may wait");
  // While the model is busy.
  const under_way = client(locked).embeddings.create({ model: NAME, input: Array(40).fill("word ".repeat(250)) });
  await new Promise((done) => setTimeout(done, 100));
  assert.deepEqual(await failure(locked, {}), ["RateLimitError", 429, "rate_limit_exceeded", null]);
  // The SDK waits as long as it is told to, and has its vector in the end.
  const patient = await client(locked, { maxRetries: 60 }).embeddings.create({ model: NAME, input: "a" });
  assert.equal(patient.data[0].embedding.length, 384);
  assert.equal((await under_way).data.length, 40);
});

test("answers and errors are as the published descriptions have them", async () => {
  // OpenAPI's own words are not a schema's; numbers' formats say nothing that JSON can.
  const ajv = new Ajv({ strict: false, validateFormats: false, allErrors: true });
  for (const [name, description] of Object.entries(json("tests/web/serve-schemas.json"))) ajv.addSchema(description, name);
  const check = (schema, value) => {
    const valid = ajv.validate({ $ref: schema }, value);
    assert.ok(valid, `${schema}: ${ajv.errorsText()}: ${JSON.stringify(value).slice(0, 300)}`);
  };
  const schema = (api, name) => `${api}#/components/schemas/${name}`;
  // The schemas are in use: each refuses what is wrong.
  for (const name of ["CreateEmbeddingResponse", "ErrorResponse"]) assert.ok(!ajv.validate({ $ref: schema("openai", name) }, { object: "list" }));
  for (const name of ["EmbedResponse", "EmbedSparseResponse", "RerankResponse"]) assert.ok(!ajv.validate({ $ref: schema("tei", name) }, [{ index: "0" }]));
  assert.ok(!ajv.validate({ $ref: schema("tei", "ErrorResponse") }, { error: "a", error_type: "b" }));

  const answer = async (server, place, api, [asked, answered], body, status = 200) => {
    check(schema(api, asked), body);
    const response = await ask(server, place, body);
    assert.equal(response.status, status);
    const value = await response.json();
    check(schema(api, status === 200 ? answered : "ErrorResponse"), value);
    return value;
  };
  const { dense, sparse } = running;
  const openai = ["CreateEmbeddingRequest", "CreateEmbeddingResponse"];
  await answer(dense, "/v1/embeddings", "openai", openai, { model: NAME, input: TEXTS });
  await answer(dense, "/v1/embeddings", "openai", openai, { model: NAME, input: "a", encoding_format: "float", dimensions: 5, user: "u" });
  for (const body of [{ input: "" }, { input: [[1, 2]] }, { input: "a", dimensions: 999 }, { input: "a ".repeat(300) }])
    await answer(dense, "/v1/embeddings", "openai", openai, { model: NAME, ...body }, 400);
  await answer(dense, "/v1/embeddings", "openai", openai, { model: "x", input: "a" }, 404);
  const compatible = ["OpenAICompatRequest", "OpenAICompatResponse"];
  for (const encoding_format of ["float", "base64"]) await answer(dense, "/v1/embeddings", "tei", compatible, { input: TEXTS, encoding_format });

  const embed = ["EmbedRequest", "EmbedResponse"];
  assert.equal((await answer(dense, "/embed", "tei", embed, { inputs: TEXTS, normalize: false, truncate: true })).length, 3);
  await answer(dense, "/embed", "tei", embed, { inputs: "" }, 400);
  await answer(dense, "/embed", "tei", embed, { inputs: "a ".repeat(300) }, 413);
  await answer(dense, "/embed", "tei", embed, { inputs: Array(65).fill("a") }, 413);
  await answer(dense, "/embed", "tei", embed, { inputs: [[1]] }, 422);
  await answer(dense, "/embed", "tei", embed, { inputs: "a", truncation_direction: "Left" }, 422);
  await answer(sparse, "/embed", "tei", embed, { inputs: "a" }, 424);
  await answer(running.locked, "/embed", "tei", embed, { inputs: "a" }, 401);
  const sparseRows = await answer(sparse, "/embed_sparse", "tei", ["EmbedSparseRequest", "EmbedSparseResponse"], { inputs: TEXTS });
  assert.ok(sparseRows.length === 3 && sparseRows.every((row) => row.length > 0));
  await answer(dense, "/embed_sparse", "tei", ["EmbedSparseRequest", "EmbedSparseResponse"], { inputs: "a" }, 424);
  const rerank = ["RerankRequest", "RerankResponse"];
  const ranks = await answer(dense, "/rerank", "tei", rerank, { query: "a", texts: TEXTS, return_text: true, raw_scores: true });
  assert.deepEqual(ranks.map(({ index, text }) => TEXTS[index] === text), [true, true, true]);
  await answer(sparse, "/rerank", "tei", rerank, { query: "a", texts: TEXTS }, 424);
  for (const server of [dense, sparse]) check(schema("tei", "Info"), await (await ask(server, "/info")).json());
  const reranker = await start("--reranker", "tests/fixtures/rerank-bert");
  check(schema("tei", "Info"), await (await ask(reranker, "/info")).json());
  assert.equal(await reranker.stop(), 0);
});

test("Wick's own client gets the native program's vectors, in Node and in a page", async (t) => {
  const expected = nativeVectors(t, TEXTS).map((row) => Array.from(row));
  const ask = async ([dense, sparse, apiKey, texts]) => {
    const openai = await wick.Embedder.remote("openai", { model: "all-MiniLM-L6-v2", apiKey, baseUrl: `${dense}/v1` });
    const tei = await wick.Embedder.remote("tei", { apiKey, baseUrl: dense });
    const splade = await wick.Embedder.remote("tei", { baseUrl: sparse, outputs: ["sparse"] });
    const reranker = await wick.Reranker.remote("tei", { apiKey, baseUrl: dense });
    const many = Array.from({ length: 200 }, (_, index) => texts[index % texts.length]);
    const rows = async (embedder, texts) => (await embedder.encode(texts)).dense.map((row) => Array.from(row));
    const denied = await wick.Embedder.remote("openai", { model: "all-MiniLM-L6-v2", apiKey: "another", baseUrl: `${dense}/v1` });
    return {
      openai: await rows(openai, texts),
      tei: await rows(tei, texts),
      many: await rows(openai, many),
      usage: (await openai.encode(texts)).usage,
      sparse: (await splade.encode(texts)).sparse.map(({ indices, values }) => [Array.from(indices), Array.from(values)]),
      ranked: await reranker.rerank("a", texts),
      denied: await denied.encode(texts).catch(({ code, provider }) => [code, provider.status, provider.code]),
    };
  };
  const local = await wickInNode();
  const splade = await local.Embedder.load(path("tests/fixtures/splade-bert"), { worker: false });
  const reranker = await local.Reranker.load(path("tests/fixtures/rerank-bert"), { worker: false, normalize: true });
  const sparse = (await splade.encode(TEXTS)).sparse.map(({ indices, values }) => [Array.from(indices), Array.from(values)]);
  const ranked = await reranker.rerank("a", TEXTS);
  const { page } = await openPage(t, browser, site);
  const urls = [running.open, running.sparse].map(({ url }) => url);
  for (const answers of [await ask([...urls, KEY, TEXTS]), await page.evaluate(ask, [...urls, KEY, TEXTS])]) {
    assert.deepEqual(answers.openai, expected);
    assert.deepEqual(answers.tei, expected);
    answers.many.forEach((row, index) => assert.deepEqual(row, expected[index % TEXTS.length]));
    assert.ok(answers.usage.tokens > 15);
    answers.sparse.forEach(([indices, values], row) => {
      assert.deepEqual(indices, sparse[row][0]);
      values.forEach((value, at) => assert.ok(Math.abs(value - sparse[row][1][at]) < 1e-5));
    });
    assert.deepEqual(answers.ranked.map(({ index, text }) => [index, text]), ranked.map(({ index, text }) => [index, text]));
    answers.ranked.forEach(({ score }, place) => assert.ok(Math.abs(score - ranked[place].score) < 1e-5));
    assert.deepEqual(answers.denied, ["http", 401, "invalid_api_key"]);
  }
});

/** The package, for functions that a page runs as well. */
const wickInNode = async () => (globalThis.wick = await import(path("pkg/dist/node.js")));

test("a page asks from an origin that is allowed, and from no other", async (t) => {
  const from = async (origin, key) => {
    const tab = await browser.newPage();
    t.after(() => tab.close());
    await tab.goto(`${origin.url}open.html`);
    return tab.evaluate(
      async ([url, key, input]) => {
        const headers = { authorization: `Bearer ${key}`, "content-type": "application/json", "x-stainless-lang": "js" };
        const response = await fetch(`${url}/v1/embeddings`, { method: "POST", headers, body: JSON.stringify({ input }) }).catch((error) => error.name);
        if (typeof response === "string") return response;
        const { data, error } = await response.json();
        return error?.code ?? data.map(({ embedding }) => embedding);
      },
      [running.open.url, key, TEXTS],
    );
  };
  const rows = await from(site, KEY);
  nativeVectors(t, TEXTS).forEach((row, index) => assert.deepEqual(Float32Array.from(rows[index]), row));
  assert.equal(await from(site, "wrong"), "invalid_api_key");
  assert.equal(await from(other, KEY), "TypeError");
});
