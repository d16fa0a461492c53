// What the page, package and demo tests share.
import { execFileSync } from "node:child_process";
import { createReadStream, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { chromium } from "playwright-core";

import { serve } from "../../tools/serve.mjs";

export { chromium, serve };

/** A path in the repository. */
export const path = (relative) => fileURLToPath(new URL(`../../${relative}`, import.meta.url));
export const json = (relative) => JSON.parse(readFileSync(path(relative), "utf8"));

export const MODEL = "build/models/all-MiniLM-L6-v2";

/** The native program, of whichever build the tests are for. */
export const PROGRAM = process.env.WICK ?? path("target/release/wick");

/**
 * A tiny checkpoint, for whatever does not depend on the model: vectors of 32 numbers, from at most
 * 64 tokens, and from 70 without `sentence_bert_config.json`.
 */
export const SMALL = "tests/fixtures/xlmr";

/** Sends a file of it, in pieces, so that weights do not arrive at once; false if there is none. */
export function sendSmall(response, file) {
  const found = path(join(SMALL, file));
  const info = statSync(found, { throwIfNoEntry: false });
  if (!info?.isFile()) return false;
  response.writeHead(200, { "content-length": info.size });
  createReadStream(found, { highWaterMark: 8192 }).pipe(response);
  return true;
}

/**
 * What the tests of a file share, such as a loaded model: made when the first of them asks for it,
 * and made again after a test that failed, which may have left anything behind.
 */
export function shared(make) {
  let made;
  return (t) => {
    t.after(() => t.passed || (made = undefined));
    return (made ??= make());
  };
}

/**
 * A page that tests share, because opening one takes most of the time of many tests. Each sees what
 * came onto the console since it began.
 */
export function sharedPage(open) {
  const opened = shared(open);
  return async (t) => {
    const all = await opened(t);
    all.messages.length = 0;
    return all;
  };
}

/** Chromium without a network of its own. */
export function launch(options = {}) {
  return chromium.launch({
    executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
    args: ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update", "--disable-sync", "--no-first-run"],
    ...options,
  });
}

/** What isolates a page, so that its threads may share memory. */
const ISOLATED = { "cross-origin-opener-policy": "same-origin", "cross-origin-embedder-policy": "require-corp" };

/**
 * The built site with pages that are empty, `blank.html` and one that is not isolated, `open.html`,
 * and the tiny checkpoint as /models/small/. `models` may answer requests below /models/NAME/
 * instead of the folder, and `others` any other.
 */
export function serveSite(models, others = () => false) {
  return serve(path("build/site"), 0, async (request, response) => {
    const { pathname } = new URL(request.url, "http://localhost");
    const headers = { "/blank.html": ISOLATED, "/open.html": {} }[pathname];
    if (headers) return response.writeHead(200, { ...headers, "content-type": "text/html" }).end('<!doctype html><link rel="icon" href="data:,">');
    const [, folder, name, ...file] = pathname.split("/");
    if (folder !== "models") return others(request, response, pathname);
    return models(request, response, name, file.join("/")) || (name === "small" && sendSmall(response, file.join("/")));
  });
}

/**
 * A page with the package imported as `wick`, and helpers. It is closed after test `t`, or without
 * one with the browser.
 */
export async function openPage(t, browser, server, { context, file = "blank.html" } = {}) {
  context ??= await browser.newContext();
  t?.after(() => context.close());
  const page = await context.newPage();
  const messages = [];
  page.on("console", (message) => messages.push(message.text()));
  page.on("pageerror", (error) => messages.push(String(error)));
  await page.goto(`${server.url}${file}`);
  await page.evaluate(async () => {
    globalThis.wick = await import("/wick-embed/index.js");
    globalThis.load = (name, options) => wick.Embedder.load(`/models/${name}/`, options);
    globalThis.failure = (promise) =>
      promise.then(
        () => "no error",
        (error) => ({ code: error.code, name: error.name, at: error.at, message: error.message, isWickError: error instanceof wick.WickError }),
      );
    // Gives the memory of the engine that is loaded next on the page's own thread.
    globalThis.engineMemory = () => {
      let memory;
      const { instantiate } = WebAssembly;
      WebAssembly.instantiate = async (...all) => {
        const instance = await instantiate.apply(WebAssembly, all);
        memory = instance.exports.memory;
        return instance;
      };
      return () => memory;
    };
    // Rows as base64, because numbers through the driver are slow.
    globalThis.pack = (rows) => {
      const bytes = new Uint8Array(rows.length * rows[0].byteLength);
      rows.forEach((row, index) => bytes.set(new Uint8Array(row.buffer, row.byteOffset, row.byteLength), index * row.byteLength));
      let text = "";
      for (let at = 0; at < bytes.length; at += 4096) text += String.fromCharCode(...bytes.subarray(at, at + 4096));
      return btoa(text);
    };
  });
  return { page, context, messages };
}

/** A new folder, gone when the test ends. */
export function scratch(test) {
  const folder = mkdtempSync(join(tmpdir(), "wick-test-"));
  test.after(() => rmSync(folder, { recursive: true, force: true }));
  return folder;
}

const native = new Map();

/** Vectors of the native program, as rows, computed once. */
export function nativeVectors(test, texts, model = MODEL, ...options) {
  const key = JSON.stringify([texts, model, options]);
  if (!native.has(key)) native.set(key, encodeNatively(test, texts, model, options));
  return native.get(key);
}

function encodeNatively(test, texts, model, options) {
  const folder = scratch(test);
  writeFileSync(join(folder, "in.jsonl"), texts.map((text) => JSON.stringify(text)).join("\n"));
  const output = join(folder, "out.npy");
  execFileSync(PROGRAM, ["encode", "--model", path(model), "--input", join(folder, "in.jsonl"), "--output", output, ...options]);
  const bytes = readFileSync(output);
  const start = 10 + bytes.readUInt16LE(8);
  const values = new Float32Array(bytes.buffer.slice(bytes.byteOffset + start, bytes.byteOffset + bytes.length));
  const width = values.length / texts.length;
  return texts.map((_, index) => values.subarray(index * width, (index + 1) * width));
}

/** Rows that a page sent as numbers in base64. */
export function decodeRows(base64, count) {
  const bytes = Buffer.from(base64, "base64");
  const values = new Float32Array(bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.length));
  const width = values.length / count;
  return Array.from({ length: count }, (_, index) => values.subarray(index * width, (index + 1) * width));
}

export const difference = (a, b) => a.reduce((most, value, index) => Math.max(most, Math.abs(value - b[index])), 0);
export const dot = (a, b) => a.reduce((sum, value, index) => sum + value * b[index], 0);

/** The largest error of Milvus' printed values (tests/golden/minilm.json); `encode` takes texts and gives rows. */
export async function milvusError(encode) {
  const entries = json("tests/golden/minilm.json").filter((entry) => entry.source.startsWith("milvus-io"));
  const rows = await encode(entries.map((entry) => entry.text));
  const errors = entries.map(({ kind, expected }, index) => {
    const row = Array.from(rows[index]);
    return difference(expected, kind === "dense_prefix" ? row : row.slice(-expected.length));
  });
  return { count: entries.flatMap((entry) => entry.expected).length, error: Math.max(...errors) };
}

/** STS-B's sentences, each once. */
export function stsSentences() {
  const lines = readFileSync(path("build/stsb-en-test.tsv"), "utf8").trimEnd().split("\n").slice(1);
  return [...new Set(lines.flatMap((line) => line.split("\t").slice(1)))];
}
