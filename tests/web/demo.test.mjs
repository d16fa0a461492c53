// The demo page, driven as a person would, in real Chromium.
import assert from "node:assert/strict";
import { mkdirSync } from "node:fs";
import { after, before, test } from "node:test";
import { serve as serveProviders, seed, unit } from "../providers/server.mjs";
import { launch, nativeVectors, dot, path, serve, sharedPage } from "./harness.mjs";

const screenshots = path("build/screenshots");
let browser, server;

before(async () => {
  browser = await launch();
  server = await serve(path("build/site"));
  mkdirSync(screenshots, { recursive: true });
});

after(async () => {
  await browser?.close();
  await server?.close();
});

/** The page when it shows results. */
async function load(options) {
  const context = await browser.newContext({ viewport: { width: 1280, height: 900 }, ...options });
  const page = await context.newPage();
  const messages = [];
  page.on("console", (message) => ["error", "warning"].includes(message.type()) && messages.push(message.text()));
  page.on("pageerror", (error) => messages.push(String(error)));
  await page.goto(server.url);
  await state(page, "ready");
  return { page, messages };
}

/** The page as the test before left it. */
const shared = sharedPage(load);

/** With the model that it begins with. */
async function open(t) {
  const { page, messages } = await shared(t);
  if ((await page.textContent("#model-name")) !== "all-MiniLM-L6-v2") await choose(page, "all-MiniLM-L6-v2", 384);
  return { page, messages };
}

async function choose(page, model, dimensions) {
  await page.click(`[data-model=${model}]`);
  await page.waitForFunction((dimensions) => document.querySelector("#dimensions").textContent === dimensions, String(dimensions));
  await state(page, "ready");
}

const state = (page, wanted) => page.waitForFunction((wanted) => document.documentElement.dataset.state === wanted, wanted, { timeout: 60_000 });

/** The matrix as shown: scores by row and column. */
const matrix = (page) =>
  page.$$eval("#matrix td", (cells) => {
    const scores = [];
    for (const { dataset } of cells) (scores[dataset.row] ??= [])[dataset.col] = Number(dataset.score);
    return scores;
  });

async function type(page, lines) {
  await page.fill("#texts", lines.join("\n"));
  await page.waitForFunction((count) => document.querySelectorAll("#matrix td").length === count ** 2, lines.length);
  await state(page, "ready");
}

test("typed texts give their similarities, tokens and vector", async (t) => {
  const { page, messages } = await open(t);
  const texts = ["The weather is lovely today.", "It's so sunny outside!", "He drove to the stadium.", "Wick embeds."];
  await type(page, texts);
  const native = nativeVectors(t, texts);
  const scores = await matrix(page);
  for (const [row, values] of scores.entries()) {
    for (const [column, score] of values.entries()) {
      assert.ok(Math.abs(score - dot(native[row], native[column])) < 2e-6, `${row}, ${column}: ${score}`);
    }
  }
  const chips = await page.$$eval("#tokens .token", (tokens) => tokens.map(({ dataset }) => Number(dataset.id)));
  assert.equal(chips.at(0), 101);
  assert.equal(chips.at(-1), 102);
  assert.match(await page.textContent("#device"), /WebAssembly/);
  await page.screenshot({ path: `${screenshots}/light.png`, fullPage: true });
  assert.deepEqual(messages, []);
});

test("a query ranks the texts", async (t) => {
  const { page } = await open(t);
  const texts = ["Bread is baked in an oven.", "The striker scored twice.", "Rain is expected tonight."];
  await type(page, texts);
  await page.fill("#query", "Will it be wet this evening?");
  await page.waitForSelector("#results li[data-score]");
  await state(page, "ready");
  const results = await page.$$eval("#results li", (items) => items.map(({ dataset }) => [Number(dataset.index), Number(dataset.score)]));
  assert.equal(results.length, texts.length);
  assert.equal(results[0][0], 2);
  assert.ok(results.every(([, score], index) => index === 0 || score <= results[index - 1][1]));
});

test("it can be used by keyboard", async (t) => {
  const { page } = await open(t);
  // From the beginning.
  await page.evaluate(() => {
    document.body.tabIndex = -1;
    document.body.focus();
    document.body.removeAttribute("tabindex");
  });
  const reached = new Set();
  for (let step = 0; step < 40; step++) {
    await page.keyboard.press("Tab");
    reached.add(await page.evaluate(() => document.activeElement?.closest("[id]")?.id));
  }
  for (const id of ["check", "texts", "query", "matrix", "tokens"]) assert.ok(reached.has(id), `Tab never reached #${id}: ${[...reached]}`);
});

test("on a phone and in the dark nothing is wider than the screen", async (t) => {
  const { page } = await load({ viewport: { width: 360, height: 740 }, colorScheme: "dark", hasTouch: true, isMobile: true });
  t.after(() => page.context().close());
  const [inner, content] = await page.evaluate(() => [innerWidth, document.documentElement.scrollWidth]);
  assert.ok(content <= inner, `${content} > ${inner}`);
  const background = await page.evaluate(() => {
    // Any colour notation, as drawn.
    const context = document.createElement("canvas").getContext("2d");
    context.fillStyle = getComputedStyle(document.body).backgroundColor;
    context.fillRect(0, 0, 1, 1);
    return [...context.getImageData(0, 0, 1, 1).data];
  });
  assert.ok(Math.max(...background.slice(0, 3)) < 80, `${background} is not dark`);
  await page.screenshot({ path: `${screenshots}/phone-dark.png`, fullPage: true });
});

test("a model that is not there is said so, and the page recovers", async (t) => {
  const { page } = await shared(t);
  await page.fill("#model-source", "./models/none/");
  await page.press("#model-source", "Enter");
  await state(page, "error");
  assert.match(await page.textContent("#error"), /missing_file/);
  await page.fill("#model-source", "./models/minilm-static/");
  await page.press("#model-source", "Enter");
  await state(page, "ready");
});

test("the static model is one click away and is the one that the native program reads", async (t) => {
  const { page, messages } = await shared(t);
  await choose(page, "minilm-static", 256);
  assert.equal(await page.textContent("#model-name"), "minilm-static");
  const texts = ["The weather is lovely today.", "It's so sunny outside!", "He drove to the stadium."];
  await type(page, texts);
  const native = nativeVectors(t, texts, "build/models/minilm-static");
  for (const [row, values] of (await matrix(page)).entries()) {
    for (const [column, score] of values.entries()) {
      assert.ok(Math.abs(score - dot(native[row], native[column])) < 2e-6, `${row}, ${column}: ${score}`);
    }
  }
  await page.screenshot({ path: `${screenshots}/static.png`, fullPage: true });
  await choose(page, "all-MiniLM-L6-v2", 384);
  assert.deepEqual(messages, []);
});

test("the vectors are compared with Candle's, which is fetched only then", async (t) => {
  const { page, messages } = await open(t);
  const requested = [];
  const listen = ({ url }) => requested.push(url.split("/").pop());
  server.server.on("request", listen);
  t.after(() => server.server.off("request", listen));
  const candle = () => requested.filter((file) => file.startsWith("wick_reference"));
  const says = (wanted) => page.waitForFunction((wanted) => document.querySelector("#check-status").textContent.includes(wanted), wanted, { timeout: 60_000 });
  const shown = async () => [await page.textContent("#check"), await page.textContent("#check-status"), await page.isVisible("#check-found")];

  await type(page, ["The weather is lovely today.", "It's so sunny outside!", "He drove to the stadium."]);
  assert.deepEqual([await shown(), candle()], [["Check with Candle", "", false], []]);
  // It may take its time to come.
  let come;
  const coming = new Promise((resolve) => (come = resolve));
  await page.route("**/wick_reference_bg.wasm", (route) => coming.then(() => route.continue()));
  await page.focus("#check");
  await page.keyboard.press("Enter");
  assert.deepEqual([await shown(), await page.isVisible("#check-progress")], [["Cancel", "Loading Candle", false], true]);
  come();
  await says("3 texts compared");
  await page.unroute("**/wick_reference_bg.wasm");
  assert.deepEqual(await shown(), ["Check with Candle", "Both give the same vectors, up to rounding: 3 texts compared", true]);
  assert.deepEqual([...new Set(candle())].sort(), ["wick_reference.js", "wick_reference_bg.wasm"]);
  const rows = await page.$$eval("#check-found tbody tr", (rows) => rows.map(({ cells }) => [...cells].map(({ textContent }) => textContent)));
  assert.deepEqual(rows.map(([name]) => name), ["Candle", "Candle’s own BERT"]);
  for (const [, cosine, difference] of rows) assert.ok(Number(cosine) > 0.99999 && Number(difference) > 0 && Number(difference) < 2e-5, `${rows}`);
  assert.equal(await page.evaluate(() => document.activeElement.id), "check");
  await page.screenshot({ path: `${screenshots}/check.png`, fullPage: true });

  // What is said is of the texts that are shown.
  await type(page, ["The weather is lovely today.", "Wick embeds."]);
  assert.deepEqual(await shown(), ["Check with Candle", "", false]);
  await page.click("#check");
  await page.click("#check");
  await says("Check cancelled");
  await page.click("#check");
  await type(page, ["Wick embeds."]);
  assert.deepEqual(await shown(), ["Check with Candle", "", false]);
  await page.fill("#texts", "");
  await page.waitForFunction(() => document.querySelector("#check").disabled);
  await type(page, ["Wick embeds."]);
  assert.deepEqual(messages, []);

  await page.route("**/wick_reference_bg.wasm", (route) => route.abort());
  await page.click("#check");
  await says("Not checked");
  assert.match(await page.textContent("#check-error"), /Candle or the model’s files could not be fetched.*network/s);
  await page.unroute("**/wick_reference_bg.wasm");
  await page.click("#check");
  await says("1 text compared");
  assert.ok(await page.isHidden("#check-error"));
});

test("a provider's model fills the same panels, and its key is in memory alone", async (t) => {
  const providers = await serveProviders();
  t.after(() => providers.close());
  const { page, messages } = await shared(t);
  const key = "sk-demo-0123456789";
  const use = async (provider, fields) => {
    await page.selectOption("#remote-provider", provider);
    for (const [field, value] of Object.entries(fields)) await page.fill(`#remote-${field}`, value);
    await page.click("#remote-form button");
  };
  await page.click(".remote summary");
  await use("voyage", { key, address: `${providers.url}/~id=demo/voyage` });
  await page.waitForFunction(() => document.querySelector("#device").textContent === "at the provider");
  await state(page, "ready");
  assert.equal(await page.textContent("#model-name"), "voyage-4");
  assert.match(await page.textContent("#model-origin"), /by Voyage AI: your texts are sent to http:\/\/127/);
  const texts = ["The weather is lovely today.", "It's so sunny outside!", "He drove to the stadium."];
  await type(page, texts);
  const rows = texts.map((text) => unit(seed("document", text), 1024));
  for (const [row, values] of (await matrix(page)).entries()) {
    for (const [column, score] of values.entries()) assert.ok(Math.abs(score - dot(rows[row], rows[column])) < 2e-6, `${row}, ${column}: ${score}`);
  }
  await page.fill("#query", "sun");
  // Only once the keys rest: each call counts.
  const best = rows.map((row) => dot(row, unit(seed("query", "sun"), 1024)));
  await page.waitForFunction((score) => Math.abs(document.querySelector("#results li")?.dataset.score - score) < 2e-6, Math.max(...best));
  assert.deepEqual([await page.textContent("#dimensions"), await page.textContent("#max-tokens")], ["1024", "–"]);
  assert.ok(await page.isDisabled("#check"));
  assert.match(await page.textContent("#check-hint"), /a provider’s does not/);
  assert.equal(await page.locator("#tokens .token").count(), 0);
  assert.match(await page.textContent("#token-detail"), /does not tell/);
  const chosen = rows[await page.evaluate(() => document.querySelector("#chosen").selectedIndex)];
  assert.ok((await page.textContent("#vector-values")).startsWith(`[${chosen[0].toFixed(4).replace("-", "−")}, `));
  await page.screenshot({ path: `${screenshots}/provider.png`, fullPage: true });

  const stored = await page.evaluate(async () => {
    const names = await caches.keys();
    const cached = await Promise.all(names.map(async (name) => (await (await caches.open(name)).keys()).map(({ url }) => url)));
    const databases = await indexedDB.databases();
    return JSON.stringify([location.href, document.cookie, { ...localStorage }, { ...sessionStorage }, cached, databases, document.documentElement.outerHTML]);
  });
  assert.ok(!stored.includes(key));
  const { requests } = providers.log("demo");
  assert.ok(requests.every(({ headers, url, status }) => headers.authorization === `Bearer ${key}` && !url.includes(key) && status === 200));

  // Another provider must not get it, a wrong one is said so, and the page's own model is a click away.
  await page.selectOption("#remote-provider", "openai");
  assert.deepEqual([await page.inputValue("#remote-key"), await page.inputValue("#remote-address")], ["", ""]);
  assert.deepEqual(messages, []);
  await use("openai", { key: "wrong-key", address: `${providers.url}/openai` });
  await state(page, "error");
  assert.match(await page.textContent("#error"), /refused the key.*http/s);
  assert.ok(!(await page.textContent("#error")).includes("wrong-key"));
  await choose(page, "minilm-static", 256);
  await page.reload();
  await state(page, "ready");
  assert.equal(await page.inputValue("#remote-key"), "");
});
