// What a page keeps of a model's files, when it asks the server again, and whom it sends what.
import assert from "node:assert/strict";
import { readFileSync, statSync } from "node:fs";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { SMALL, launch, openPage, path, serve, serveSite } from "./harness.mjs";

const WEIGHTS = "model.safetensors";
const POOLING = "1_Pooling/config.json";
const LENGTH = "sentence_bert_config.json";
const COMMITS = ["a", "b"].map((letter) => letter.repeat(40));
/** nginx sends no cache-control: a browser may take a file of this date for fresh for months. */
const LONG_AGO = "Tue, 02 Jan 2018 00:00:00 GMT";

let browser, server;
/** Answers requests below /models/NAME/. */
const models = {};
/** Of the test that runs: method, file and headers. */
const requests = [];

before(async () => {
  browser = await launch();
  server = await serveSite((request, response, name, file) => {
    const model = models[name];
    if (!model) return false;
    requests.push({ method: request.method, file, headers: request.headers });
    model(request, response, file);
    return true;
  });
});

after(async () => {
  await browser?.close();
  await server?.close();
});

/** The bytes of a file of the tiny model; undefined if it has none. */
function bytes(file) {
  const found = path(join(SMALL, file));
  return statSync(found, { throwIfNoEntry: false })?.isFile() ? readFileSync(found) : undefined;
}

/** Another version of a file, as long as the first. */
function otherBytes(file) {
  const other = bytes(file);
  if (file === POOLING) {
    const config = JSON.parse(other);
    for (const mode of ["mean_tokens", "cls_token"]) config[`pooling_mode_${mode}`] = !config[`pooling_mode_${mode}`];
    return Buffer.from(JSON.stringify(config).padEnd(other.length));
  }
  if (file === WEIGHTS) {
    // The last float of the file belongs to a tensor that is not read: some word of the table.
    const length = Number(other.readBigUInt64LE(0));
    const header = JSON.parse(other.subarray(8, 8 + length));
    const [, { data_offsets: [start] }] = Object.entries(header).find(([name]) => name.endsWith("word_embeddings.weight"));
    for (let at = 0; at < 4000; at++) other.writeFloatLE(other.readFloatLE(8 + length + start + at * 4) + 1, 8 + length + start + at * 4);
  }
  return other;
}

/**
 * A server with the tiny model. `state.changed` names files that are there in their other version,
 * `headers` says what it sends beside the bytes, and `first` may answer before it.
 */
function serving(name, { headers = () => ({}), first = () => false } = {}) {
  const state = { changed: [] };
  models[name] = (request, response, path) => {
    const file = path.startsWith("resolve/") ? path.split("/").slice(2).join("/") : path;
    if (first(request, response, file)) return;
    const body = state.changed.includes(file) ? otherBytes(file) : bytes(file);
    if (!body) return response.writeHead(404).end();
    response.writeHead(200, headers(state.changed.includes(file) ? 2 : 1, body, file));
    response.end(request.method === "HEAD" ? undefined : body);
  };
  return state;
}

const tagged = (version, body) => ({ etag: `"${version}"`, "content-length": body.length });

/** A page of its own, with an empty cache; `first` gives the first component of the vector of a text. */
async function open(t) {
  requests.length = 0;
  const { page } = await openPage(t, browser, server);
  await page.evaluate(() => {
    globalThis.first = async (source, options) => {
      const embedder = await wick.Embedder.load(source, options);
      const { dense } = await embedder.encode(["Wick"]);
      embedder.dispose();
      return dense[0][0];
    };
  });
  const first = (name, options) => page.evaluate(([name, options]) => first(`/models/${name}/`, options), [name, options]);
  const failing = (name, options) => page.evaluate(([name, options]) => failure(first(`/models/${name}/`, options)), [name, options]);
  return { page, first, failing };
}

/** How often a file was asked for. */
function counted(file, method = "GET") {
  return requests.filter((request) => request.method === method && (!file || request.file.endsWith(file))).length;
}

test("what is disposed at once is kept all the same, also large weights", async (t) => {
  const { page } = await openPage(t, browser, server);
  const gets = [];
  page.on("request", (request) => request.url().endsWith(WEIGHTS) && request.method() === "GET" && gets.push(request.url()));
  for (let visit = 0; visit < 3; visit++) {
    await page.evaluate(async () => (await load("all-MiniLM-L6-v2")).dispose());
    // The cache is written by a worker that nobody has a handle of any more.
    await page.evaluate(async () => {
      const cache = await caches.open("wick-embed");
      for (let left = 1500; !(await cache.match("/models/all-MiniLM-L6-v2/model.safetensors")); left--) {
        if (left === 0) throw new Error("the weights are not kept");
        await new Promise((done) => setTimeout(done, 20));
      }
    });
  }
  // And then the workers end.
  while (page.workers().length > 0) await page.workers()[0].waitForEvent("close", { timeout: 20_000 }).catch((error) => assert.equal(page.workers().length, 0, String(error)));
  assert.equal(gets.length, 1);
});

test("each load reaches the server, not the browser's HTTP cache", async (t) => {
  const { first } = await open(t);
  const state = serving("dated", { headers: (version, body) => ({ "last-modified": version === 1 ? LONG_AGO : "Wed, 03 Jan 2018 00:00:00 GMT", ...tagged(version, body) }) });
  const before = await first("dated");
  requests.length = 0;
  assert.equal(await first("dated"), before);
  assert.equal(counted(WEIGHTS), 0);
  assert.ok(counted(undefined, "HEAD") >= 6, "each kept file was asked after");
  state.changed = [POOLING];
  const pooled = await first("dated");
  assert.notEqual(pooled, before);
  assert.equal(await first("dated", { cache: false }), pooled);
  // Both at once: weights too large for the HTTP cache must not meet a pooling out of it.
  state.changed = [];
  assert.equal(await first("dated"), before);
  state.changed = [POOLING, WEIGHTS];
  const both = await first("dated", { cache: false });
  assert.equal(await first("dated"), both);
  assert.ok(both !== before && both !== pooled);
});

test("without an entity tag or a date a kept file is fetched again", async (t) => {
  const { first } = await open(t);
  const cases = {
    nothing: () => ({}),
    "only a length": (version, body) => ({ "content-length": body.length }),
  };
  for (const [name, headers] of Object.entries(cases)) {
    const state = serving("silent", { headers });
    const before = await first("silent");
    state.changed = [WEIGHTS];
    assert.notEqual(await first("silent"), before, name);
    state.changed = [];
    assert.equal(await first("silent"), before, name);
  }
});

test("a server that refuses HEAD is asked by the head of a GET", async (t) => {
  const { first } = await open(t);
  const state = serving("headless", {
    headers: tagged,
    first: (request, response) => request.method === "HEAD" && (response.writeHead(405).end(), true),
  });
  const before = await first("headless");
  assert.equal(await first("headless"), before);
  state.changed = [WEIGHTS];
  const after = await first("headless");
  assert.notEqual(after, before);
  assert.equal(await first("headless"), after);
});

test("what one key fetched is not given to another, not even of a pinned commit", async (t) => {
  const { page } = await open(t);
  const first = (request, response) => request.headers.authorization !== "Bearer right" && (response.writeHead(401).end(), true);
  serving("private", { headers: tagged, first });
  const load = (headers, source) => page.evaluate(([headers, source]) => failure(globalThis.first(source, { host: "/models/", ...(headers && { headers }) })), [headers, source]);
  for (const source of ["private", `private@${COMMITS[0]}`]) {
    assert.equal(await load({ authorization: "Bearer right" }, source), "no error");
    for (const headers of [undefined, { authorization: "Bearer wrong" }]) {
      const error = await load(headers, source);
      assert.equal(error.code, "http", `${source} ${JSON.stringify(headers)}`);
      assert.match(error.message, /401/);
    }
    requests.length = 0;
    assert.equal(await load({ authorization: "Bearer right" }, source), "no error");
    assert.equal(counted(WEIGHTS), 0, "the owner's copy is still there");
  }
});

test("a pinned commit of a public model is not asked after", async (t) => {
  const { page } = await open(t);
  serving("public", { headers: tagged });
  const load = () => page.evaluate((commit) => first(`public@${commit}`, { host: "/models/" }), COMMITS[0]);
  const before = await load();
  requests.length = 0;
  assert.equal(await load(), before);
  assert.deepEqual(requests, []);
});

test('cache: "reload" fetches everything again and keeps it', async (t) => {
  const { first, failing } = await open(t);
  // A server that changes a file and not what it says of it.
  const state = serving("stale", { headers: (version, body) => tagged(1, body) });
  const before = await first("stale");
  state.changed = [WEIGHTS];
  assert.equal(await first("stale"), before);
  const after = await first("stale", { cache: "reload" });
  assert.notEqual(after, before);
  requests.length = 0;
  assert.equal(await first("stale"), after);
  assert.equal(counted(WEIGHTS), 0);
  assert.equal((await failing("stale", { cache: "again" })).code, "invalid_option");
});

test("one load does not mix two versions", async (t) => {
  const { page, first, failing } = await open(t);
  let fault = () => false;
  const state = serving("mixed", { headers: tagged, first: (...all) => fault(...all) });
  const before = await first("mixed");

  // Out of order, and unchanged: what is kept counts.
  fault = (request, response) => (response.writeHead(503).end(), true);
  assert.equal(await first("mixed"), before);

  // The weights have changed, and of the pooling nobody knows.
  state.changed = [WEIGHTS, POOLING];
  fault = (request, response, file) => file === POOLING && (response.writeHead(503).end(), true);
  const error = await failing("mixed");
  assert.equal(error.code, "network");
  assert.match(error.message, /another version/);

  // It changes after the server vouched for one file, and before it is asked for the weights.
  state.changed = [];
  fault = () => false;
  assert.equal(await first("mixed"), before);
  fault = (request, response, file) => {
    if (file === WEIGHTS && request.method === "HEAD") {
      const vouched = requests.some((request) => request.method === "HEAD" && request.file === LENGTH);
      if (!vouched) return setTimeout(() => models.mixed(request, response, file), 20), true;
      state.changed = [WEIGHTS, LENGTH];
    }
    return false;
  };
  requests.length = 0;
  const during = await failing("mixed");
  assert.equal(during.code, "network");
  assert.match(during.message, /changed on the server while/);
  fault = () => false;
  const after = await first("mixed");
  assert.notEqual(after, before);

  // The hub says of which commit an answer is.
  let commit = () => COMMITS[0];
  serving("hub", { headers: (version, body, file) => ({ ...tagged(version, body), "x-repo-commit": commit(file) }) });
  const hub = () => page.evaluate(() => failure(globalThis.first("hub", { host: "/models/" })));
  assert.equal(await hub(), "no error");
  commit = (file) => COMMITS[file === WEIGHTS ? 1 : 0];
  assert.equal((await hub()).code, "network");
  commit = () => COMMITS[1];
  assert.equal(await hub(), "no error");
});

test("a server that never answers, or stops in the middle, is not waited for for ever", async (t) => {
  const { page, failing, first } = await open(t);
  let stalled = () => false;
  serving("lie-fi", { headers: tagged, first: (...all) => stalled(...all) });
  const own = { worker: false };
  const before = await first("lie-fi", own);
  // The engine waits on the page's own thread, whose clock runs ahead.
  await page.evaluate(() => {
    const { setTimeout: wait } = globalThis;
    globalThis.setTimeout = (callback, delay, ...all) => wait(callback, delay >= 5000 ? delay / 20 : delay, ...all);
  });
  stalled = () => true;
  assert.equal(await first("lie-fi", own), before, "what is kept counts");
  const silent = await failing("lie-fi", { ...own, cache: false });
  assert.equal(silent.code, "network");
  assert.match(silent.message, /did not answer within 60 s/);
  stalled = (request, response, file) => {
    if (file !== WEIGHTS || request.method !== "GET") return false;
    response.writeHead(200, { "content-length": bytes(WEIGHTS).length });
    response.write(bytes(WEIGHTS).subarray(0, 1000));
    return true;
  };
  const half = await failing("lie-fi", { ...own, cache: false });
  assert.equal(half.code, "network");
  assert.match(half.message, /sent nothing for 60 s/);
  stalled = () => false;
  assert.equal(await first("lie-fi", own), before, "and the next load works");
});

test("headers stay with the server that they are for", async (t) => {
  const { page, failing, first } = await open(t);
  const seen = [];
  const other = await serve(path(SMALL), 0, (request, response) => {
    seen.push(request.headers);
    for (const [name, value] of [["origin", "*"], ["headers", "authorization, x-api-key"]]) response.setHeader(`access-control-allow-${name}`, value);
    return request.method === "OPTIONS" && (response.writeHead(204).end(), true);
  });
  t.after(() => other.close());
  serving("moved", { first: (request, response, file) => file === WEIGHTS && (response.writeHead(302, { location: `${other.url}${WEIGHTS}` }).end(), true) });
  const error = await failing("moved", { headers: { "X-Api-Key": "secret", authorization: "Bearer secret" } });
  assert.equal(error.code, "network");
  assert.match(error.message, /X-Api-Key would go along/);
  assert.deepEqual(seen, []);
  // `authorization` alone is taken away by the browser.
  assert.equal(typeof (await first("moved", { headers: { authorization: "Bearer secret" } })), "number");
  assert.ok(seen.length > 0 && seen.every((headers) => !headers.authorization && !headers["x-api-key"]));

  requests.length = 0;
  const host = await page.evaluate(() => failure(globalThis.first("org/name", { host: "hf-mirror.example", headers: { authorization: "Bearer secret" } })));
  assert.equal(host.code, "invalid_option");
  assert.match(host.message, /https:\/\/hf-mirror\.example/);
  assert.deepEqual(requests, []);
});

test("a server of a single-page application: its index page is no file", async (t) => {
  const { first, failing } = await open(t);
  const index = (response) => (response.writeHead(200, { "content-type": "text/html; charset=utf-8" }).end("<!doctype html><p>app"), true);
  serving("spa", { headers: tagged, first: (request, response, file) => !bytes(file) && index(response) });
  const values = [await first("spa"), await first("spa")];
  assert.ok(Number.isFinite(values[0]) && values[0] === values[1]);
  serving("empty", { first: (request, response) => index(response) });
  const error = await failing("empty");
  assert.equal(error.code, "missing_file");
});
