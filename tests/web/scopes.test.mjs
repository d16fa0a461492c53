// Where a page may run the package, and what it says where it may not: service and shared workers,
// workers of the caller's own, and pages that forbid workers. In Chromium.
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { launch, openPage, path, serve, serveSite } from "./harness.mjs";

/** What the tiny model gives for "Wick" begins with this number; see `value` below. */
let wanted;
let browser, server, other;

/** A script that answers each message with what an embedder gives, or with its failure. */
const answering = (entry, options) => `
  import { Embedder } from "/wick-embed/${entry}";
  const answer = async (port) => {
    try {
      const embedder = await Embedder.load("/models/small/", ${JSON.stringify(options)});
      port.postMessage({ value: (await embedder.encode(["Wick"])).dense[0][0] });
      embedder.dispose();
    } catch ({ code, message }) {
      port.postMessage({ code, message });
    }
  };
  addEventListener("message", ({ ports: [port] }) => port && answer(port));
  addEventListener("connect", ({ ports: [port] }) => answer(port));`;

const SCRIPTS = {
  "/service-local.js": answering("local.js", {}),
  "/service-index.js": answering("index.js", {}),
  "/shared.js": answering("index.js", {}),
  // Ends without a word when it is told to.
  "/ending.js": `import "/wick-embed/worker.js";
    new BroadcastChannel("end").onmessage = () => close();`,
  "/imports.js": `import "/wick-embed/worker.js";`,
  "/throws.js": `throw new Error("mine");`,
};
/** Pages by the policy that they have. */
const POLICIES = { "/none.html": "worker-src 'none'" };

before(async () => {
  browser = await launch();
  server = await serveSite(
    () => false,
    (_, response, pathname) => {
      const type = { "content-type": "text/javascript", "cross-origin-embedder-policy": "require-corp" };
      if (SCRIPTS[pathname]) return response.writeHead(200, type).end(SCRIPTS[pathname]), true;
      const policy = { "content-type": "text/html", "content-security-policy": POLICIES[pathname] };
      if (POLICIES[pathname]) return response.writeHead(200, policy).end('<!doctype html><link rel="icon" href="data:,">'), true;
      return pathname === "/broken/worker.js" && (response.writeHead(404).end(), true);
    },
  );
  other = await serve(path("build/site"), 0, async (_, response) => (response.setHeader("access-control-allow-origin", "*"), false));
  const { page } = await openPage(undefined, browser, server);
  wanted = await page.evaluate(value, {});
  await page.close();
  assert.ok(Number.isFinite(wanted) && wanted !== 0);
});

after(async () => {
  await browser?.close();
  await Promise.all([server?.close(), other?.close()]);
});

/** In a page: the first number of a text. */
async function value(options) {
  const embedder = await load("small", options);
  const { dense } = await embedder.encode(["Wick"]);
  embedder.dispose();
  return dense[0][0];
}

/** What a service worker of this script answers. */
async function served(t, script) {
  const { page } = await openPage(t, browser, server);
  return page.evaluate(async (script) => {
    await navigator.serviceWorker.register(script, { type: "module", scope: "/" });
    const { active } = await navigator.serviceWorker.ready;
    const { port1, port2 } = new MessageChannel();
    const answer = new Promise((resolve) => (port1.onmessage = ({ data }) => resolve(data)));
    active.postMessage(0, [port2]);
    return answer;
  }, script);
}

test("in a service worker: wick-embed/local computes, and wick-embed names it", async (t) => {
  assert.deepEqual(await served(t, "/service-local.js"), { value: wanted });
  const { code, message } = await served(t, "/service-index.js");
  assert.equal(code, "executor");
  assert.match(message, /wick-embed\/local/);
});

test("in a shared worker, which has no workers, it computes on that thread", async (t) => {
  const { page } = await openPage(t, browser, server);
  const answer = await page.evaluate(() => {
    const { port } = new SharedWorker("/shared.js", { type: "module" });
    return new Promise((resolve) => (port.onmessage = ({ data }) => resolve(data)));
  });
  assert.deepEqual(answer, { value: wanted });
});

test("wick-embed/local in a page: the same numbers, no worker, no reference", async (t) => {
  const { page } = await openPage(t, browser, server);
  const workers = [];
  page.on("worker", (worker) => workers.push(worker.url()));
  const results = await page.evaluate(async () => {
    globalThis.wick = await import("/wick-embed/local.js");
    const embedder = await load("small");
    const { dense } = await embedder.encode(["Wick"]);
    const remote = await failure(wick.Embedder.remote("openai", { model: "m", apiKey: "k", baseUrl: "http://localhost:9/" }));
    return [dense[0][0], remote, await failure(embedder.verify(["Wick"])), await failure(load("small", { worker: "/imports.js" }))];
  });
  const [number, remote, ...refused] = results;
  assert.deepEqual([number, remote], [wanted, "no error"]);
  for (const { code, message } of refused) {
    assert.equal(code, "invalid_option");
    assert.match(message, /wick-embed\/local/);
  }
  assert.deepEqual(workers, []);
});

test("a worker of the caller's own: an address, one of another origin, a function", async (t) => {
  const { page, messages } = await openPage(t, browser, server);
  const results = await page.evaluate(async (foreign) => {
    const workers = {
      address: "/imports.js",
      url: new URL("/imports.js", location.href),
      foreign,
      function: () => new Worker("/imports.js", { type: "module" }),
    };
    const results = {};
    for (const [name, worker] of Object.entries(workers)) {
      const embedder = await load("small", { worker, threads: 2 });
      results[name] = [(await embedder.encode(["Wick"])).dense[0][0], embedder.threads];
      embedder.dispose();
    }
    return results;
  }, `${other.url}wick-embed/worker.js`);
  for (const [name, result] of Object.entries(results)) assert.deepEqual(result, [wanted, 2], name);
  assert.deepEqual(messages, []);
  const refused = await page.evaluate(() =>
    Promise.all([1, null, {}, () => 1, () => undefined].map(async (worker) => (await failure(load("small", { worker }))).code)),
  );
  assert.deepEqual(refused, Array(5).fill("invalid_option"));
});

test("a worker that does not start says so, with its address and what helps", async (t) => {
  const { page } = await openPage(t, browser, server);
  const failures = await page.evaluate(async () => [
    await failure(load("small", { worker: "/nowhere.js" })),
    await failure(load("small", { worker: "/throws.js" })),
    await failure(wick.BM25.fit(["a"], { worker: () => new Worker("/nowhere.js") })),
  ]);
  for (const { code, at, message } of failures) {
    assert.deepEqual([code, at], ["executor", "worker"], message);
    for (const word of ["worker-src", "wick-embed/worker", "worker: false"]) assert.ok(message.includes(word), `${word}: ${message}`);
  }
  assert.ok(failures[0].message.includes(`${server.url}nowhere.js`), failures[0].message);
  assert.match(failures[1].message, /mine/);

  const { page: policed } = await openPage(t, browser, server, { file: "none.html" });
  const { code, at, message } = await policed.evaluate(() => failure(load("small")));
  assert.deepEqual([code, at], ["executor", "worker"], message);
  assert.ok(message.includes(`${server.url}wick-embed/worker.js`), message);
  assert.equal(await policed.evaluate(value, { worker: false }), wanted);
});

test("a worker that ends without a word rejects its calls, and those that come later", async (t) => {
  const { page } = await openPage(t, browser, server);
  const codes = await page.evaluate(async () => {
    const embedder = await load("small", { worker: "/ending.js" });
    const long = failure(embedder.encode(Array(50_000).fill("a b c d e f g h"), { onProgress: () => new BroadcastChannel("end").postMessage(0) }));
    return [(await long).code, (await failure(embedder.encode(["Wick"]))).code];
  });
  assert.deepEqual(codes, ["crashed", "crashed"]);
});

test("what is not there is named with its address", async (t) => {
  const { page } = await openPage(t, browser, server);
  const [folder, name] = await page.evaluate(async () => [
    await failure(load("nowhere")),
    await failure(wick.Embedder.load("nobody/nothing@v1", { host: "/models/" })),
  ]);
  assert.equal(folder.code, "missing_file");
  assert.ok(folder.message.includes(`${server.url}models/nowhere/`), folder.message);
  assert.equal(name.code, "missing_file");
  for (const part of ["nobody/nothing", "v1", `${server.url}models/`]) assert.ok(name.message.includes(part), name.message);
});
