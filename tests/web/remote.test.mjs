// Remote providers from JavaScript, the same calls in Node and in a page of real Chromium, against
// a server that plays all of them and validates what it is asked (tests/providers/server.mjs). What
// each provider is sent in every case, tests/it/providers.rs says.
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { after, before, describe, test } from "node:test";
import { serve as serveProviders, score, seed, unit } from "../providers/server.mjs";
import { launch, openPage, path, serveSite, sharedPage } from "./harness.mjs";

const KEY = "sk-test-0123456789";
const TEXTS = ["The weather is lovely today.", "It's so sunny outside!", "Grüße aus 東京 🚀"];
const QUERY = "how is the weather?";

let browser, site, providers;
before(async () => {
  [browser, site, providers] = await Promise.all([launch(), serveSite(() => false), serveProviders()]);
});
after(() => Promise.all([browser?.close(), site?.close(), providers?.close()]));

let places = 0;
/** The address of a provider behind faults such as `~status=503*1`, and what it was asked there. */
function at(provider, faults = "") {
  const id = `js${places++}`;
  return { baseUrl: `${providers.url}/~id=${id}${faults}/${provider}`, log: () => providers.log(id) };
}

/** Waits until the server was told that nobody waits for its first answer. */
async function abandoned({ log }) {
  for (let tries = 0; !log().requests[0].abandoned; tries++) {
    assert.ok(tries < 100, "the request goes on");
    await new Promise((done) => setTimeout(done, 20));
  }
}

async function openRemote(t) {
  const opened = await openPage(t, browser, site);
  await opened.page.evaluate(() => {
    globalThis.failure = (promise) => promise.then(() => "no error", ({ code, at, message, name, provider }) => ({ code, at, message, name, provider }));
  });
  return opened;
}

const sharedRemote = sharedPage(openRemote);

/** Gives a function that runs another there, with arguments that are data; `wick` is the package. */
const surroundings = {
  Node: async () => {
    globalThis.wick = await import(path("pkg/dist/node.js"));
    globalThis.failure = (promise) => promise.then(() => "no error", ({ code, at, message, name, provider }) => ({ code, at, message, name, provider }));
    return { run: (call, ...args) => call(args), messages: [] };
  },
  Chromium: async (t, open = sharedRemote) => {
    const { page, messages } = await open(t);
    // A browser tells of every answer that is no success, and of every origin that lets no page in.
    t.after(() => assert.deepEqual(messages.filter((message) => !/Failed to load resource|blocked by CORS policy|may not be read/.test(message)), []));
    return { run: (call, ...args) => page.evaluate(call, args), messages, page };
  },
};

/** One call of a new embedder, as data. */
const encode = async ([provider, options, texts, method = "encode", call = {}]) => {
  const embedder = await wick.Embedder.remote(provider, options);
  const { dense, sparse, quantized, usage } = await embedder[method](texts, call);
  return {
    dense: dense?.map((row) => Array.from(row)),
    sparse: sparse?.map(({ indices, values }) => [Array.from(indices), Array.from(values)]),
    quantized: quantized && { dtype: quantized.dtype, type: quantized.vectors[0].constructor.name, vectors: quantized.vectors.map((row) => Array.from(row)) },
    usage,
    provider: embedder.provider,
    model: embedder.model,
    dimensions: embedder.dimensions,
    outputs: embedder.outputs,
  };
};

function near(rows, expected) {
  assert.equal(rows.length, expected.length);
  rows.forEach((row, index) => {
    assert.equal(row.length, expected[index].length);
    row.forEach((value, at) => assert.ok(Math.abs(value - expected[index][at]) < 1e-6, `row ${index}, ${at}`));
  });
}

for (const [name, open] of Object.entries(surroundings)) {
  describe(name, () => {
    test("every provider is told what texts are for, and has the key in a header alone", async (t) => {
      const { run } = await open(t);
      const cases = [
        ["openai", "text-embedding-3-small", 1536, ["", "", ""]],
        ["mistral", "mistral-embed", 1024, ["", "", ""]],
        ["cohere", "embed-v4.0", 1536, ["classification", "search_query", "search_document"]],
        ["voyage", "voyage-4", 1024, ["", "query", "document"]],
        ["jina", "jina-embeddings-v3", 1024, ["classification", "retrieval.query", "retrieval.passage"]],
        ["nomic", "nomic-embed-text-v1.5", 768, ["classification", "search_query", "search_document"]],
        ["gemini", "gemini-embedding-001", 3072, ["CLASSIFICATION", "RETRIEVAL_QUERY", "RETRIEVAL_DOCUMENT"]],
        ["tei", "", 16, ["", "", ""]],
      ];
      for (const [provider, model, native, kinds] of cases) {
        const { baseUrl, log } = at(provider);
        const options = { model, apiKey: KEY, baseUrl, ...(kinds[0] && { task: kinds[0] }) };
        for (const [index, method] of ["encode", "encodeQueries", "encodeDocuments"].entries()) {
          const result = await run(encode, provider, options, TEXTS, method);
          near(result.dense, TEXTS.map((text) => unit(seed(kinds[index], text), native)));
          const counted = TEXTS.reduce((sum, text) => sum + Math.ceil(Buffer.byteLength(text) / 4), 0);
          assert.deepEqual(result.usage, { tokens: provider === "gemini" ? 0 : counted, truncated: [] });
          assert.deepEqual([result.provider, result.model, result.dimensions, result.outputs], [provider, model, native, ["dense"]]);
        }
        const { requests } = log();
        assert.equal(requests.length, 3);
        for (const { status, headers, url } of requests) {
          assert.equal(status, 200);
          assert.ok((headers["x-goog-api-key"] ?? headers.authorization).endsWith(KEY) && !url.includes(KEY));
        }
      }
    });

    test("numbers that are no floats come in arrays of their own", async (t) => {
      const { run } = await open(t);
      const floats = TEXTS.map((text) => unit(seed("query", text), 1024));
      const bits = floats.map((row) => Array.from({ length: 128 }, (_, at) => row.subarray(8 * at, 8 * at + 8).reduce((byte, value) => (byte << 1) | (value >= 0), 0)));
      const expected = {
        int8: ["Int8Array", floats.map((row) => Array.from(row, (value) => Math.floor(value * 127)))],
        uint8: ["Uint8Array", floats.map((row) => Array.from(row, (value) => Math.floor(((value + 1) / 2) * 255)))],
        binary: ["Int8Array", bits.map((row) => row.map((byte) => byte - 128))],
        ubinary: ["Uint8Array", bits],
      };
      for (const [outputDtype, [type, vectors]] of Object.entries(expected)) {
        for (const encodingFormat of ["float", "base64"]) {
          const { baseUrl } = at("voyage");
          const { dense, quantized } = await run(encode, "voyage", { model: "voyage-4", apiKey: KEY, baseUrl, outputDtype, encodingFormat }, TEXTS, "encodeQueries");
          assert.equal(dense, undefined);
          assert.deepEqual(quantized, { dtype: outputDtype, type, vectors });
        }
        // Of a model that is not known here the answer tells.
        const { dimensions } = await run(encode, "voyage", { model: "some-model", apiKey: KEY, baseUrl: at("voyage").baseUrl, outputDtype }, TEXTS, "encodeQueries");
        assert.equal(dimensions, 16);
      }
    });

    test("dense and sparse vectors of a server of one's own", async (t) => {
      const { run } = await open(t);
      const { baseUrl, log } = at("tei");
      const texts = Array.from({ length: 70 }, (_, index) => `sun rain sun ${index}`);
      const options = { baseUrl, outputs: ["dense", "sparse"], prompts: { query: "query: " } };
      const { dense, sparse, outputs } = await run(encode, "tei", options, texts, "encodeQueries", { topK: 2 });
      near(dense, texts.map((text) => unit(seed("", `query: ${text}`), 16)));
      assert.deepEqual(outputs, ["dense", "sparse"]);
      assert.ok(sparse.every(([indices, values]) => indices.length === 2 && Math.max(...values) === 1));
      assert.equal(log().requests.length, 6);
      const decoded = await run(async ([options]) => {
        const embedder = await wick.Embedder.remote("tei", options);
        const { sparse, dense } = await embedder.encode(["a b"], { outputs: ["sparse"] });
        return [dense === undefined, sparse[0] instanceof wick.SparseVector, (await failure(sparse[0].decode())).code];
      }, options);
      assert.deepEqual(decoded, [true, true, "unsupported_model"]);
    });

    test("every reranker", async (t) => {
      const { run } = await open(t);
      const documents = Array.from({ length: 40 }, (_, index) => `document ${index}`);
      const best = documents.map((text, index) => ({ index, score: score(QUERY, text), text })).sort((a, b) => b.score - a.score);
      for (const [provider, model] of [["cohere", "rerank-v4.0-pro"], ["voyage", "rerank-2.5"], ["jina", "jina-reranker-v2-base-multilingual"], ["tei", ""]]) {
        const { baseUrl } = at(provider);
        const ranked = await run(
          async ([provider, options, query, documents]) => {
            const reranker = await wick.Reranker.remote(provider, options);
            return [reranker.provider, reranker.model, await reranker.rerank(query, documents), await reranker.rerank(query, documents, { topK: 3 })];
          },
          provider, { model, apiKey: KEY, baseUrl }, QUERY, documents,
        );
        assert.deepEqual(ranked.slice(0, 2), [provider, model]);
        for (const [index, count] of [[2, 40], [3, 3]]) {
          assert.deepEqual(ranked[index].map(({ index, text }) => [index, text]), best.slice(0, count).map(({ index, text }) => [index, text]));
          ranked[index].forEach(({ score }, place) => assert.ok(Math.abs(score - best[place].score) < 1e-6));
        }
      }
    });

    test("a key may come from a function, and is in no error even if the server repeats it", async (t) => {
      const { run } = await open(t);
      const { baseUrl, log } = at("openai");
      const asked = await run(
        async ([baseUrl, key]) => {
          let asked = 0;
          const apiKey = async () => `${key}-${asked++}`;
          const embedder = await wick.Embedder.remote("openai", { model: "m", baseUrl, apiKey });
          const before = asked;
          await embedder.encode(["a"]);
          await embedder.encode(["b"]);
          return [before, asked];
        },
        baseUrl, KEY,
      );
      assert.deepEqual(asked, [0, 2]);
      assert.deepEqual(log().requests.map(({ headers }) => headers.authorization), [`Bearer ${KEY}-0`, `Bearer ${KEY}-1`]);

      const echo = at("openai", "/~echo=401");
      const failed = await run(async ([options]) => failure((await wick.Embedder.remote("openai", options)).encode(["a"])), { model: "m", apiKey: KEY, baseUrl: echo.baseUrl });
      assert.equal(echo.log().requests.length, 1);
      assert.deepEqual([failed.code, failed.name, failed.provider.status, failed.provider.retryable, failed.provider.requestId], ["http", "WickError", 401, false, "req_echo"]);
      assert.ok(!JSON.stringify(failed).includes(KEY) && failed.message.includes("401"), failed.message);

      const wrong = await run(async ([options]) => failure((await wick.Embedder.remote("cohere", options)).encodeQueries(["a"])), { model: "embed-v4.0", apiKey: "wrong-key", baseUrl: at("cohere").baseUrl });
      assert.deepEqual([wrong.code, wrong.provider.name, wrong.provider.status], ["http", "cohere", 401]);
      const broken = await run(
        async ([baseUrl]) => {
          const apiKey = () => Promise.reject(new Error("secret-in-an-error"));
          return failure((await wick.Embedder.remote("openai", { model: "m", baseUrl, apiKey })).encode(["a"]));
        },
        baseUrl,
      );
      assert.deepEqual([broken.code, broken.at, broken.message.includes("secret")], ["invalid_option", "apiKey", false]);
    });

    test("wrong options are refused before anything is sent", async (t) => {
      const { run } = await open(t);
      const { baseUrl, log } = at("openai");
      const cases = [
        ["openai", { model: "m", modle: "m" }, "modle"],
        ["openai", { model: "m", task: "x" }, "task"],
        ["openai", { model: "m", dimensions: 0 }, "dimensions"],
        ["openai", { model: "m", maxRetries: -1 }, "maxRetries"],
        ["openai", { model: "m", truncate: true }, "truncate"],
        ["openai", { model: "m", apiKey: 3 }, "apiKey"],
        ["openai", { model: "m", fetch: "fetch" }, "fetch"],
        ["openai", { model: "m", headers: "none" }, "headers"],
        ["openai", { model: "m", headers: { "a b": "secret" } }, "headers"],
        ["openai", { model: "m", headers: { a: "secret\n" + "b: c" } }, "headers"],
        ["openai", { model: "m", headers: "secret" }, "headers"],
        ["openai", { model: "m", extra: "secret" }, "extra"],
        ["openai", { model: "m", batchSize: 2 ** 40 }, "batchSize"],
        ["openai", { model: "m", baseUrl: "" }, "baseUrl"],
        ["openai", { model: "m", baseUrl: 7 }, "baseUrl"],
        ["openai", { model: "m", baseUrl: "localhost:8080" }, "baseUrl"],
        ["openai", { model: "m", wasm: 5 }, "wasm"],
        ["openai", { model: "m", extra: { input: ["b"] } }, "extra"],
        ["openai", { model: "m", baseUrl: "ftp://example.com" }, "baseUrl"],
        ["openai", { model: "m", outputs: ["sparse"] }, "outputs"],
        ["openai", {}, "model"],
        ["cohere", { model: "embed-v4.0", encodingFormat: "base32" }, "encodingFormat"],
        ["tei", { baseUrl: undefined }, "baseUrl"],
      ];
      for (const [provider, options, place] of cases) {
        const all = "baseUrl" in options ? options : { ...options, baseUrl };
        const { code, at, message } = await run(([provider, options]) => failure(wick.Embedder.remote(provider, options)), provider, all);
        assert.deepEqual([code, at], ["invalid_option", place], `${JSON.stringify(options)}: ${message}`);
        assert.ok(!message.includes("secret"), message);
      }
      const free = at("openai");
      // Objects that cannot be sent into a page, or that do harm when they are read.
      const harmful = await run(async ([baseUrl]) => {
        const circular = {};
        circular.self = circular;
        let deep = {};
        for (let depth = 0; depth < 100_000; depth++) deep = { deep };
        const throwing = Object.defineProperty({}, "x", { enumerable: true, get: () => { throw new Error("boom"); } });
        const results = [];
        for (const options of [null, 7, { extra: circular }, { extra: deep }, { extra: throwing }, { headers: throwing }, { extra: { x: 1n } }]) {
          const { code, at } = await failure(wick.Embedder.remote("openai", typeof options === "object" && options ? { model: "m", baseUrl, ...options } : options));
          results.push(`${code} ${at}`);
        }
        // What is no JSON is left out, and headers come in any form.
        const embedder = await wick.Embedder.remote("openai", { model: "m", baseUrl, apiKey: undefined, extra: { user: "u", x: undefined }, headers: new Headers([["Authorization", "Bearer own"], ["X-Own", "1"]]) });
        return [...results, (await embedder.encode(["a"])).dense.length];
      }, free.baseUrl);
      const [{ headers, body }] = free.log().requests;
      assert.deepEqual([harmful.at(-1), headers.authorization, headers["x-own"], body.user, "x" in body], [1, "Bearer own", "1", "u", false]);
      // Engines of JavaScript differ in how deep they write.
      assert.match(harmful.splice(3, 1)[0], /^invalid_option (extra|options)$/);
      assert.deepEqual(harmful.slice(0, 6), ["invalid_option options", "invalid_option options", "invalid_option extra", "invalid_option extra", "invalid_option headers", "invalid_option extra"]);
      const provider = ({ code, at }) => [code, at];
      assert.deepEqual(provider(await run(() => failure(wick.Embedder.remote("acme", { model: "m" })))), ["invalid_option", "provider"]);
      assert.deepEqual(provider(await run(() => failure(wick.Reranker.remote("openai", { model: "m" })))), ["invalid_option", "provider"]);
      assert.equal(log().requests.length, 0);
    });

    test("wrong texts are refused, and the next call works", async (t) => {
      const { run } = await open(t);
      const { baseUrl, log } = at("openai");
      const results = await run(async ([options]) => {
        const embedder = await wick.Embedder.remote("openai", options);
        const code = async (promise) => (await failure(promise)).code;
        return [
          await code(embedder.encode("one text")),
          await code(embedder.encode(["a", 1])),
          await code(embedder.encode(["\ud800"])),
          await code(embedder.encode(["a", ""])),
          await code(embedder.encode(["a"], { outputs: ["tokens"] })),
          (await embedder.encode([])).usage.tokens,
          (await embedder.encode(["a"])).dense.length,
        ];
      }, { model: "m", apiKey: KEY, baseUrl });
      assert.deepEqual(results, ["invalid_text", "invalid_text", "invalid_text", "invalid_text", "invalid_option", 0, 1]);
      assert.equal(log().requests.length, 1);
    });

    test("five thousand texts come in order through every fault", { timeout: 180_000 }, async (t) => {
      const { run } = await open(t);
      const texts = Array.from({ length: 5000 }, (_, index) => `text ${index}`);
      const expected = texts.map((text) => unit(seed("", text), 16)[0]);
      // Faults, texts of a request, how many requests it takes. (A browser may send again by itself what was reset.)
      const cases = [
        ["", 20, 250],
        ["/~retry-ms=5*1", 20, 500],
        ["/~retry=0*1/~retry-ms=20*1", 50, 300],
        ["/~retry-date=-5*1", 100, 100],
        ["/~status=429*1", 500, 20],
        ["/~status=500*1/~status=502*1", 1250, 12],
        ["/~reset*1", 1250, 8],
        ["/~half*1/~half=chunked*1", 1250, 12],
        ["/~status=503*1/~slow=100*1", 1250, 8],
        ["/~gzip", 500, 10],
        ["/~type/~shuffle", 500, 10],
        ["/~html=502*1", 1250, 8],
      ];
      for (const [faults, batchSize, count] of cases) {
        const { baseUrl, log } = at("openai", faults);
        const result = await run(
          async ([options, texts]) => {
            const embedder = await wick.Embedder.remote("openai", options);
            const done = [];
            const { dense, usage } = await embedder.encode(texts, { onProgress: (progress) => done.push(progress) });
            return { first: dense.map((row) => row[0]), width: dense[0].length, tokens: usage.tokens, done };
          },
          { model: "m", apiKey: KEY, baseUrl, batchSize }, texts,
        );
        assert.deepEqual([result.width, result.first.length], [16, 5000]);
        expected.forEach((value, index) => assert.ok(Math.abs(result.first[index] - value) < 1e-6, `${faults}: ${texts[index]}`));
        assert.equal(result.tokens, texts.reduce((sum, text) => sum + Math.ceil(text.length / 4), 0));
        assert.deepEqual(result.done.at(-1), { done: 5000, total: 5000 });
        assert.ok(result.done.every(({ done }, index) => index === 0 || done > result.done[index - 1].done));
        const { requests, most } = log();
        const isRepeated = name === "Chromium" && faults.includes("reset");
        assert.ok(isRepeated ? requests.length >= count : requests.length === count, `${faults}: ${requests.length} requests`);
        // A slow answer is waited for beside others.
        assert.ok(most <= 4 && (most > 1 || !faults.includes("slow")), `${faults}: ${most} at once`);
      }
    });

    test("a call is aborted at once, disposing ends those under way, and a request has its time", async (t) => {
      const { run } = await open(t);
      const hanging = at("openai", "/~hang*1");
      const results = await run(async ([options]) => {
        const embedder = await wick.Embedder.remote("openai", options);
        const abort = new AbortController();
        const call = failure(embedder.encode(["a"], { signal: abort.signal }));
        // The server must have the request by then: it is the first that hangs, and no other.
        await new Promise((done) => setTimeout(done, 500));
        const start = performance.now();
        abort.abort();
        const { code, name } = await call;
        const waited = performance.now() - start;
        return [code, name, waited < 2000, (await embedder.encode(["a"])).dense.length, (await failure(embedder.encode(["b"], { signal: abort.signal }))).code];
      }, { model: "m", apiKey: KEY, baseUrl: hanging.baseUrl, maxRetries: 0 });
      assert.deepEqual(results, ["aborted", "AbortError", true, 1, "aborted"]);
      await abandoned(hanging);

      const ended = at("openai", "/~hang");
      const disposed = await run(async ([options]) => {
        const embedder = await wick.Embedder.remote("openai", options);
        const call = failure(embedder.encode(["a"]));
        await new Promise((done) => setTimeout(done, 50));
        embedder.dispose();
        embedder.dispose();
        const other = await wick.Embedder.remote("openai", { ...options, timeoutMs: 150 });
        return [(await call).code, (await failure(embedder.encode(["a"]))).code, embedder.dimensions, (await failure(other.encode(["a"]))).code];
      }, { model: "text-embedding-3-small", apiKey: KEY, baseUrl: ended.baseUrl, maxRetries: 0 });
      assert.deepEqual(disposed, ["disposed", "disposed", 1536, "timeout"]);
      await abandoned(ended);
    });

    test("answers that are not what is documented are errors, and the next call works", async (t) => {
      const { run } = await open(t);
      for (const fault of ["fewer", "more", "short", "nan", "null", "index=1", "index=none", "html", "cut", "empty"]) {
        const { baseUrl } = at("openai", `/~${fault}*1`);
        const [first, next] = await run(async ([options, texts]) => {
          const embedder = await wick.Embedder.remote("openai", options);
          return [(await failure(embedder.encode(texts))).code, (await embedder.encode(texts)).dense.length];
        }, { model: "text-embedding-3-small", apiKey: KEY, baseUrl, maxRetries: 0, encodingFormat: "float" }, TEXTS);
        assert.deepEqual([first, next], ["invalid_response", 3], fault);
      }
    });

    test("requests go through the fetch that is handed in", async (t) => {
      const { run } = await open(t);
      const { baseUrl, log } = at("openai");
      const seen = await run(async ([baseUrl, key]) => {
        const seen = [];
        const ask = (url, init) => {
          seen.push([url.replace("http://nowhere.invalid", ""), init.method, typeof init.body]);
          return fetch(url.replace("http://nowhere.invalid", baseUrl), init);
        };
        const embedder = await wick.Embedder.remote("openai", { model: "m", apiKey: key, baseUrl: "http://nowhere.invalid", fetch: ask });
        const { dense } = await embedder.encode(["a"]);
        const broken = await wick.Embedder.remote("openai", { model: "m", apiKey: key, maxRetries: 0, fetch: () => { throw new TypeError("no network here"); } });
        return [seen[0].slice(0, 2), dense.length, (await failure(broken.encode(["a"]))).code];
      }, baseUrl, KEY);
      assert.deepEqual(seen, [["/embeddings", "POST"], 1, "network"]);
      assert.equal(log().requests.length, 1);
    });

    test("whatever it gives: another library's answer is as good, and what cannot be read is an error", async (t) => {
      const { run } = await open(t);
      const { baseUrl } = at("openai");
      const results = await run(async ([options]) => {
        const look = (response) => ({ status: response.status, headers: new Map(response.headers), body: response.body, bodyUsed: false });
        const fetches = {
          alike: async (...all) => look(await fetch(...all)),
          read: async (...all) => { const response = await fetch(...all); await response.text(); return response; },
          locked: async (...all) => { const response = await fetch(...all); response.body.getReader(); return response; },
          stream: async (...all) => ({ ...look(await fetch(...all)), body: { pipe() {} } }),
          nothing: async () => undefined,
          text: () => "text",
        };
        const results = {};
        for (const [name, ask] of Object.entries(fetches)) {
          const embedder = await wick.Embedder.remote("openai", { ...options, fetch: ask });
          results[name] = await embedder.encode(["a"]).then(({ dense }) => dense.length, ({ code, message }) => [code, message.includes("fetch")]);
        }
        const own = globalThis.fetch;
        delete globalThis.fetch;
        try {
          results.none = (await failure(wick.Embedder.remote("openai", options))).at;
        } finally {
          globalThis.fetch = own;
        }
        return results;
      }, { model: "m", apiKey: KEY, baseUrl, maxRetries: 0 });
      const refused = ["invalid_option", true];
      assert.deepEqual(results, { alike: 1, read: refused, locked: refused, stream: refused, nothing: refused, text: refused, none: "fetch" });
    });

    test("many calls go on side by side", async (t) => {
      const { run } = await open(t);
      const { baseUrl, log } = at("openai", "/~slow=300");
      const warnings = [];
      const onWarning = (warning) => warnings.push(warning.message);
      process.on("warning", onWarning);
      t.after(() => process.off("warning", onWarning));
      const rows = await run(async ([options]) => {
        const [one, other] = [await wick.Embedder.remote("openai", options), await wick.Embedder.remote("openai", options)];
        const calls = Array.from({ length: 24 }, (_, index) => [one, other][index % 2].encode([`text ${index}`]));
        return (await Promise.all(calls)).map(({ dense: [row] }) => Array.from(row));
      }, { model: "m", apiKey: KEY, baseUrl });
      near(rows, rows.map((_, index) => unit(seed("", `text ${index}`), 16)));
      assert.ok(log().most > 5, `${log().most}`);
      await new Promise((done) => setTimeout(done, 20));
      assert.deepEqual(warnings, []);
    });
  });
}

test("where a page is not let in, the error says so and where to read on", async (t) => {
  const { run } = await surroundings.Chromium(t);
  const ask = ([provider, options]) => wick.Embedder.remote(provider, options).then((embedder) => failure(embedder.encodeQueries(["a"])));
  const closed = await run(ask, "cohere", { model: "embed-v4.0", apiKey: KEY, baseUrl: at("cohere", "/~nocors").baseUrl, maxRetries: 0 });
  assert.equal(closed.code, "network");
  assert.match(closed.message, /CORS/);
  assert.match(closed.message, /baseUrl to a proxy, as docs\/providers\.md/);
  // A provider that lets pages in, but with these headers only.
  const plain = { model: "mistral-embed", apiKey: KEY, baseUrl: at("mistral").baseUrl, maxRetries: 0 };
  assert.equal(await run(ask, "mistral", plain), "no error");
  assert.equal((await run(ask, "mistral", { ...plain, headers: { "x-own": "1" } })).code, "network");
});

test("the proxy of the documentation lets this page in, and keeps the key on its side", async (t) => {
  const closed = at("cohere", "/~nocors");
  const environment = { ...process.env, UPSTREAM: closed.baseUrl, PATHS: "/v2/embed", API_KEY: KEY, ORIGIN: new URL(site.url).origin, PORT: "0" };
  const proxy = spawn(process.execPath, [path("docs/proxy.mjs")], { env: environment, stdio: ["ignore", "pipe", "inherit"] });
  t.after(() => proxy.kill());
  const [address] = await once(proxy.stdout.setEncoding("utf8"), "data");
  const { run } = await surroundings.Chromium(t);
  const { dense } = await run(encode, "cohere", { model: "some-model", baseUrl: address.trim(), maxRetries: 0 }, TEXTS, "encodeQueries");
  near(dense, TEXTS.map((text) => unit(seed("search_query", text), 16)));
  assert.deepEqual(closed.log().requests.map(({ headers }) => headers.authorization), [`Bearer ${KEY}`]);
});

test("a module that does not start fails who asked for it, and no other", async (t) => {
  const options = { model: "m", apiKey: KEY, baseUrl: at("openai").baseUrl };
  const { run } = await surroundings.Chromium(t, openRemote);
  const results = await run(async ([options]) => {
    const open = (wasm) => wick.Embedder.remote("openai", { ...options, ...(wasm !== undefined && { wasm }) });
    const code = (wasm) => failure(open(wasm)).then(({ code, at } = {}) => code && [code, at]);
    const engine = new URL("/wick-embed/wick_embed_bg.wasm", location.href);
    const alone = [await code("./none.wasm"), await code(new Uint8Array(9)), await code(engine)];
    // Whichever is first.
    const [, usual] = await Promise.all([code("./none.wasm"), failure(open())]);
    return [...alone, usual, (await (await open()).encode(["a"])).dense.length];
  }, options);
  assert.deepEqual(results, [["network", "wasm"], ["executor", "wasm"], ["executor", "wasm"], "no error", 1]);
  for (const form of ["address", "bytes", "module"]) {
    const { run } = await surroundings.Chromium(t, openRemote);
    const count = await run(async ([options, form]) => {
      const address = "/wick-embed/wick_remote_bg.wasm";
      const bytes = () => fetch(address).then((response) => response.arrayBuffer());
      const wasm = form === "address" ? address : form === "bytes" ? await bytes() : await WebAssembly.compile(await bytes());
      return (await (await wick.Embedder.remote("openai", { ...options, wasm })).encode(["a"])).dense.length;
    }, options, form);
    assert.equal(count, 1, form);
  }
});

test("another module's trap is none of ours", async (t) => {
  const { page } = await openPage(t, browser, site);
  const options = { model: "m", apiKey: KEY, baseUrl: at("openai", "/~slow=300").baseUrl };
  const count = await page.evaluate(async ([options]) => {
    const embedder = await wick.Embedder.remote("openai", options);
    const call = embedder.encode(["a"]);
    const bytes = new Uint8Array([0, 97, 115, 109, 1, 0, 0, 0, 1, 4, 1, 96, 0, 0, 3, 2, 1, 0, 7, 5, 1, 1, 102, 0, 0, 10, 5, 1, 3, 0, 0, 11]);
    const { instance } = await WebAssembly.instantiate(bytes);
    const trapped = new Promise((seen) => addEventListener("error", (event) => (seen(event.defaultPrevented), event.preventDefault()), { once: true }));
    setTimeout(instance.exports.f);
    return [await trapped, (await call).dense.length, (await embedder.encode(["b"])).dense.length];
  }, [options]);
  assert.deepEqual(count, [false, 1, 1]);
});

test("a page fetches the small module alone, and a key stays on its thread", async (t) => {
  const context = await browser.newContext();
  const files = [];
  context.on("request", (request) => files.push(new URL(request.url()).pathname.split("/").at(-1)));
  const { page } = await openPage(t, browser, site, { context });
  const workers = [];
  page.on("worker", (worker) => workers.push(worker.url()));
  await page.evaluate(encode, ["openai", { model: "m", apiKey: KEY, baseUrl: at("openai").baseUrl }, ["a"]]);
  assert.deepEqual(files.filter((file) => file.endsWith(".wasm")), ["wick_remote_bg.wasm"]);
  assert.ok(!files.some((file) => file.startsWith("wick_embed") || file === "engine.js"), `${files}`);
  assert.deepEqual(workers, []);
});
