// The package in Chromium, Firefox and WebKitGTK, on pages that are cross-origin isolated and not,
// and from another origin. The engine's memory is shared on all of them, but only an isolated page
// may send it to threads. Firefox and WebKitGTK are skipped where they are not installed, unless
// WICK_BROWSERS=all asks for all.
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, symlinkSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import { join } from "node:path";
import { after, before, test } from "node:test";
import puppeteer from "puppeteer-core";
import { MODEL, launch, milvusError, path, scratch, serve } from "./harness.mjs";

const CHROMIUM = process.env.CHROMIUM ?? "/usr/bin/chromium";
const FIREFOX = process.env.FIREFOX ?? "/usr/bin/firefox-esr";
const WEBKIT_DRIVER = "/usr/bin/WebKitWebDriver";
const MINI_BROWSER = `/usr/lib/${process.arch === "arm64" ? "aarch64" : "x86_64"}-linux-gnu/webkit2gtk-4.1/MiniBrowser`;
const XVFB = "/usr/bin/Xvfb";

/** What a page does, with the package at `address`. */
const html = (address, first = "") => `<!doctype html><link rel="icon" href="data:,"><script>${first}</script><script type="module">
  import { Embedder } from ${JSON.stringify(`${address}index.js`)};
  globalThis.encode = async (texts, options) => {
    const embedder = await Embedder.load("/model/", options);
    const { dense } = await embedder.encode(texts);
    const { threads, device } = embedder;
    embedder.dispose();
    return { threads, device, rows: dense.map((row) => Array.from(row)) };
  };
</script>`;

/** Takes away what an executor of futures would wait by, if several threads could wake them. */
const WITHOUT = "delete Atomics.waitAsync; delete globalThis.Worker;";

/** Servers of the same files: with the headers that isolate a page, without, and as another origin. */
const servers = {};
const cleanups = [];

before(async () => {
  const folder = scratch({ after: (cleanup) => cleanups.push(cleanup) });
  symlinkSync(path("pkg/dist"), join(folder, "wick-embed"));
  symlinkSync(path(MODEL), join(folder, "model"));
  servers.isolated = await serve(folder);
  servers.open = await serve(folder, 0, withoutIsolation);
  servers.other = await serve(folder, 0, (request, response) => {
    response.setHeader("access-control-allow-origin", "*");
    return withoutIsolation(request, response);
  });
  writeFileSync(join(folder, "own.html"), html("/wick-embed/"));
  writeFileSync(join(folder, "other.html"), html(`${servers.other.url}wick-embed/`));
  writeFileSync(join(folder, "without.html"), html("/wick-embed/", WITHOUT));
});

after(async () => {
  await Promise.all(Object.values(servers).map((server) => server.close()));
  cleanups.forEach((cleanup) => cleanup());
});

async function withoutIsolation(_, response) {
  const { writeHead } = response;
  response.writeHead = (status, headers) =>
    writeHead.call(response, status, Object.fromEntries(Object.entries(headers).filter(([name]) => !name.startsWith("cross-origin-"))));
  return false;
}

/**
 * WebKitGTK 2.50 isolates pages and still leaves out `SharedArrayBuffer`, which Safari has. An
 * option of its engine brings it.
 */
const WEBKIT = { "webkit2gtk-driver": [WEBKIT_DRIVER, MINI_BROWSER], xvfb: process.env.DISPLAY ? [] : [XVFB] };

/** Each with the files that it needs, by the package that has them, and how to start it. */
const BROWSERS = {
  Chromium: { chromium: [CHROMIUM], start: () => launch().then(driven) },
  Firefox: {
    "firefox-esr": [FIREFOX],
    start: async () => driven(await puppeteer.launch({ browser: "firefox", executablePath: FIREFOX, headless: true })),
  },
  WebKitGTK: { ...WEBKIT, start: (ends) => startWebKit(ends, {}), mayNotShare: true },
  "WebKitGTK with shared memory": { ...WEBKIT, start: (ends) => startWebKit(ends, { JSC_useSharedArrayBuffer: "1" }) },
};

for (const [name, { start, mayNotShare = false, ...packages }] of Object.entries(BROWSERS)) {
  const missing = Object.keys(packages).filter((key) => !packages[key].every(existsSync));
  const lack = missing.length > 0 && `not installed: ${missing.join(", ")}`;
  test(name, { skip: name !== "Chromium" && process.env.WICK_BROWSERS !== "all" && lack }, async (t) => {
    assert.ok(!lack, lack);
    const ends = [];
    t.after(async () => {
      for (const end of ends.reverse()) await end();
    });
    const browser = await start(ends);
    ends.push(browser.close);
    t.diagnostic(browser.version);
    for (const isolated of [true, false]) {
      for (const file of ["own.html", "other.html"]) {
        await t.test(`${isolated ? "isolated" : "not isolated"}, ${file === "own.html" ? "package of the page" : "package from another origin"}`, async (t) => {
          const site = isolated ? servers.isolated : servers.open;
          const page = await browser.open(site.url + file);
          assert.equal(await page.evaluate(() => crossOriginIsolated), isolated);
          const shares = isolated && (await page.evaluate(() => typeof SharedArrayBuffer === "function"));
          assert.ok(shares || !isolated || mayNotShare);
          const cores = await page.evaluate(() => Math.min(8, navigator.hardwareConcurrency));
          await gives(t, page, {}, shares ? cores : 1);
          await gives(t, page, { worker: false }, 1);
          if (isolated) await gives(t, page, { threads: 2 }, shares ? 2 : 1);
          await page.close();
        });
      }
    }
  });
}

test("Chromium: on the page's thread the engine needs neither `Atomics.waitAsync` nor workers", async (t) => {
  const browser = await launch().then(driven);
  t.after(() => browser.close());
  for (const { url } of [servers.isolated, servers.open]) {
    const page = await browser.open(`${url}without.html`);
    assert.deepEqual(await page.evaluate(() => [typeof Atomics.waitAsync, typeof Worker]), ["undefined", "undefined"]);
    await gives(t, page, { worker: false }, 1);
    await page.close();
  }
});

test("Chromium: WebGPU takes what lies in shared memory, on a page that is not isolated", async (t) => {
  // gpu.test.mjs has the rest, on isolated pages.
  const browser = await launch({ args: ["--no-sandbox", "--enable-unsafe-webgpu", "--use-webgpu-adapter=swiftshader"] }).then(driven);
  t.after(() => browser.close());
  const page = await browser.open(`${servers.open.url}own.html`);
  await gives(t, page, { device: "webgpu" }, 1);
  await page.close();
});

/** A page gives the published vectors, on so many threads and where it was asked to. */
async function gives(t, page, options, threads) {
  const { device = "wasm" } = options;
  const { error } = await milvusError(async (texts) => {
    const result = await page.evaluate((texts, options) => encode(texts, options), texts, options);
    assert.deepEqual([result.threads, result.device], [threads, device], JSON.stringify(options));
    return result.rows;
  });
  t.diagnostic(`${JSON.stringify(options)}: threads ${threads}, largest error ${error.toExponential(2)}`);
  assert.ok(error <= 2e-6, `${JSON.stringify(options)}: ${error}`);
  assert.deepEqual(page.messages, []);
}

/** A browser that Playwright or Puppeteer drives: alike, but for how a function gets its arguments. */
async function driven(browser) {
  const isPlaywright = "newContext" in browser;
  return {
    version: `${await browser.version()}`,
    close: () => browser.close(),
    async open(address) {
      const page = await browser.newPage();
      const messages = [];
      page.on("console", (message) => messages.push(message.text()));
      page.on("pageerror", (error) => messages.push(String(error)));
      await page.goto(address);
      const evaluate = (run, ...all) => (isPlaywright ? page.evaluate(`(${run})(...${JSON.stringify(all)})`) : page.evaluate(run, ...all));
      return { messages, evaluate, close: () => page.close() };
    },
  };
}

/** Starts a program, and puts down how it is ended. */
function running(ends, command, options) {
  const child = spawn(command[0], command.slice(1), options);
  const exit = once(child, "exit");
  ends.push(() => (child.kill(), exit));
  return child;
}

/** The display that there is, or one without a screen. */
async function display(ends) {
  if (process.env.DISPLAY) return process.env.DISPLAY;
  // It writes its number when it is there.
  const { stdio } = running(ends, [XVFB, "-displayfd", "3", "-screen", "0", "1024x768x24", "-nolisten", "tcp"], { stdio: ["ignore", "ignore", "ignore", "pipe"] });
  const [number] = await once(stdio[3], "data");
  return `:${String(number).trim()}`;
}

/** WebKitGTK by the protocol of the W3C. It has one window, and tells nothing of its console. */
async function startWebKit(ends, options) {
  const env = { ...process.env, ...options, DISPLAY: await display(ends) };
  const port = await freePort();
  const address = `http://127.0.0.1:${port}`;
  running(ends, [WEBKIT_DRIVER, "--host=127.0.0.1", `--port=${port}`], { env, stdio: "ignore" });
  for (let left = 100; left > 0 && !(await fetch(`${address}/status`).then(({ ok }) => ok, () => false)); left--) {
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
  const send = async (method, command, body) => {
    const response = await fetch(`${address}/session${command}`, { method, body: body && JSON.stringify(body) });
    const { value } = await response.json();
    assert.ok(response.ok, `${value?.error}: ${value?.message}`);
    return value;
  };
  const alwaysMatch = { browserName: "MiniBrowser", "webkitgtk:browserOptions": { binary: MINI_BROWSER, args: ["--automation"] } };
  const { sessionId, capabilities } = await send("POST", "", { capabilities: { alwaysMatch } });
  const post = (command, body) => send("POST", `/${sessionId}/${command}`, body);
  await post("timeouts", { script: 300_000 });
  const evaluate = async (run, ...args) => {
    const script = `const done = arguments[arguments.length - 1];
      Promise.resolve().then(() => (${run})(...arguments[0])).then((value) => done({ value }), (error) => done({ error: String(error) }));`;
    const { value, error } = await post("execute/async", { script, args: [args] });
    assert.equal(error, undefined);
    return value;
  };
  return {
    version: `${capabilities.browserName} ${capabilities.browserVersion}`,
    close: () => send("DELETE", `/${sessionId}`),
    async open(url) {
      await post("url", { url });
      // Where the page begins another process, this answers before it is loaded.
      const loaded = () => evaluate((url) => location.href === url && document.readyState === "complete", url);
      for (let left = 100; left > 0 && !(await loaded()); left--) await new Promise((resolve) => setTimeout(resolve, 100));
      return { messages: [], evaluate, close: () => post("url", { url: "about:blank" }) };
    },
  };
}

/** A port that nobody has; whoever asks twice may get another. */
async function freePort() {
  const server = createServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address();
  server.close();
  await once(server, "close");
  return port;
}
