// node tests/matrix/run.mjs [NAME...]: the package as its users build and run it, each in a fresh
// project below build/matrix with the packed package and pinned tools from the registry. Prints the
// table of README, and fails where something does not give the numbers or README says something else.
import assert from "node:assert/strict";
import { execFile, execFileSync, spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, mkdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import { dirname, join } from "node:path";
import { promisify } from "node:util";
import { chromium, difference, launch, path, serve } from "../web/harness.mjs";
import { PROJECTS } from "./projects.mjs";

const ROOT = path("build/matrix");
const MODEL = path("build/models/minilm-static");
const TEXTS = ["The weather is lovely today.", "It's so sunny outside!", "He drove to the stadium."];
/** Longer than any of these takes on two slow cores. */
const LIMIT = 300_000;
const NODE = process.execPath;

const execute = promisify(execFile);
const env = { ...process.env, CI: "1", NEXT_TELEMETRY_DISABLED: "1", WRANGLER_SEND_METRICS: "false" };

/** Runs a command of a project; gives what it printed. */
async function run(folder, command, ...words) {
  const bin = join(folder, "node_modules/.bin", command);
  try {
    const { stdout } = await execute(existsSync(bin) ? bin : command, words, { cwd: folder, env, timeout: LIMIT, maxBuffer: 1 << 26 });
    return stdout;
  } catch (error) {
    throw new Error(`${command} ${words.join(" ")}: ${error.message}\n${error.stdout}`);
  }
}

async function freePort() {
  const server = createServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address();
  server.close();
  await once(server, "close");
  return port;
}

/** Starts a server of a project's own; gives its address once it answers. */
async function started(ends, folder, command, words) {
  const port = await freePort();
  const child = spawn(join(folder, "node_modules/.bin", command), [...words, String(port)], { cwd: folder, env, detached: true, stdio: ["ignore", "pipe", "pipe"] });
  let said = "";
  for (const stream of [child.stdout, child.stderr]) stream.on("data", (data) => (said += data));
  const exit = once(child, "exit");
  ends.push(async () => {
    // With all that it started.
    if (child.exitCode === null) process.kill(-child.pid, "SIGKILL");
    await exit;
  });
  const url = `http://localhost:${port}/`;
  for (let left = 600; left > 0; left--) {
    assert.equal(child.exitCode, null, said);
    // Whatever it answers, it is there.
    if (await fetch(url, { signal: AbortSignal.timeout(60_000) }).then(() => true, () => false)) return url;
    await new Promise((done) => setTimeout(done, 100));
  }
  throw new Error(`${command} does not answer: ${said}`);
}

function write(folder, files) {
  for (const [name, text] of Object.entries(files)) {
    mkdirSync(dirname(join(folder, name)), { recursive: true });
    writeFileSync(join(folder, name), text);
  }
}

let tarball, wanted, browser, cdn;

/** The numbers, within what a sum in another order may change. */
function right(rows, where) {
  assert.equal(rows?.length, TEXTS.length, `${where}: ${JSON.stringify(rows)?.slice(0, 200)}`);
  const worst = Math.max(...rows.map((row, index) => difference(wanted[index], Array.from(row))));
  assert.ok(worst <= 1e-6, `${where}: ${worst}`);
}

/** A page gives them, with the global `encode` that each project's script makes. */
async function page(url, where, options, threads) {
  const opened = await browser.newPage();
  const messages = [];
  opened.on("console", (message) => messages.push(message.text()));
  opened.on("pageerror", (error) => messages.push(String(error)));
  await opened.goto(url);
  try {
    await opened.waitForFunction(() => globalThis.encode, undefined, { timeout: 30_000 });
    const result = await opened.evaluate(([texts, options]) => encode(texts, options), [TEXTS, options]);
    right(result.rows, where);
    assert.equal(result.threads, threads, where);
  } catch (error) {
    throw new Error(`${where}: ${error.message}; the page said: ${messages.join("; ")}`);
  }
  await opened.close();
}

/** Pages that a project built into `folder`, isolated and not, with a worker and without. */
async function built(ends, folder, { script, type = "module", tag = `<script ${type && `type="${type}"`} src="${script}"></script>` }) {
  writeFileSync(join(folder, "isolated.html"), `<!doctype html><link rel="icon" href="data:,">${tag}`);
  if (!existsSync(join(folder, "model"))) symlinkSync(MODEL, join(folder, "model"));
  const server = await serve(folder, 0, async ({ url }, response) => {
    if (url !== "/open.html") return false;
    response.writeHead(200, { "content-type": "text/html" }).end(readFileSync(join(folder, "isolated.html")));
    return true;
  });
  ends.push(() => server.close());
  await page(`${server.url}open.html`, "in a worker", {}, 1);
  await page(`${server.url}open.html`, "on the page's thread", { worker: false }, 1);
  await page(`${server.url}isolated.html`, "isolated, two threads", { threads: 2 }, 2);
}

/** What an extension's background and its popup give. */
async function extension(ends, folder) {
  const profile = join(folder, "profile");
  const context = await chromium.launchPersistentContext(profile, {
    executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
    headless: false,
    args: ["--headless=new", "--no-sandbox", "--disable-gpu", `--disable-extensions-except=${folder}/extension`, `--load-extension=${folder}/extension`],
  });
  ends.push(() => context.close());
  const background = context.serviceWorkers()[0] ?? (await context.waitForEvent("serviceworker", { timeout: 30_000 }));
  right(await background.evaluate((texts) => encode(texts), TEXTS), "background");
  const popup = await context.newPage();
  await popup.goto(new URL("popup.html", background.url()).href);
  for (const options of [{}, { worker: false }]) {
    right((await popup.evaluate(([texts, options]) => encode(texts, options), [TEXTS, options])).rows, `popup ${JSON.stringify(options)}`);
  }
}

/** Results of `tests/web/browsers.test.mjs`, by browser. */
async function browsers() {
  const child = spawn(NODE, ["--test", "--test-reporter=tap", path("tests/web/browsers.test.mjs")], { env: { ...env, WICK_BROWSERS: "all" }, stdio: ["ignore", "pipe", "inherit"] });
  let said = "";
  child.stdout.on("data", (data) => (said += data));
  const stop = setTimeout(() => child.kill(), 3 * LIMIT);
  const [code] = await once(child, "close");
  clearTimeout(stop);
  assert.equal(code, 0, said.split("\n").filter((line) => /not ok|error:/.test(line)).join("\n"));
}

/** What a project's checks may use. */
const tools = { run, started, built, page, right, extension, browsers, write, serve, texts: TEXTS, model: MODEL, node: NODE };

async function install(folder, packages) {
  rmSync(folder, { recursive: true, force: true });
  mkdirSync(folder, { recursive: true });
  write(folder, { "package.json": JSON.stringify({ name: "project", private: true }) });
  await run(folder, "npm", "install", "--no-audit", "--no-fund", "--loglevel=error", tarball, ...packages);
}

// ---- the run

const asked = process.argv.slice(2);
const unknown = asked.filter((name) => !PROJECTS.some((project) => project.name === name));
if (unknown.length > 0) {
  console.error(`no such project: ${unknown.join(", ")}; there are ${PROJECTS.map(({ name }) => name).join(", ")}`);
  process.exit(2);
}
mkdirSync(ROOT, { recursive: true });
const [{ filename }] = JSON.parse(execFileSync("npm", ["pack", "--json", "--loglevel=error", path("pkg")], { cwd: ROOT, encoding: "utf8" }));
tarball = join(ROOT, filename);

// What all must give is what the same package gives in Node, which other tests hold to the published values.
const reference = join(ROOT, "reference");
await install(reference, []);
write(reference, {
  "main.mjs": `import { Embedder } from "wick-embed";
    const { dense } = await (await Embedder.load(${JSON.stringify(MODEL)}, { worker: false })).encode(${JSON.stringify(TEXTS)});
    console.log(JSON.stringify(dense.map((row) => Array.from(row))));`,
});
wanted = JSON.parse(await run(reference, NODE, "main.mjs"));
assert.ok(wanted.length === TEXTS.length && wanted.every((row) => row.length > 0 && Math.abs(Math.hypot(...row) - 1) < 1e-3));

// Another origin, with all projects below it.
cdn = await serve(ROOT, 0, async (_, response) => (response.setHeader("access-control-allow-origin", "*"), false));
browser = await launch();

const failures = [];
const rows = [];
for (const { name, title, takes = "nothing", packages = [], files = {}, check } of PROJECTS) {
  if (asked.length > 0 && !asked.includes(name)) continue;
  const start = performance.now();
  const ends = [];
  const folder = join(ROOT, name);
  try {
    await install(folder, packages);
    write(folder, typeof files === "function" ? files({ folder, model: MODEL, texts: TEXTS, cdn: `${cdn.url}${name}/` }) : files);
    await check({ ...tools, folder, ends, cdn: `${cdn.url}${name}/` });
    rows.push(`| ${title} | ${takes} |`);
  } catch (error) {
    failures.push(`${name}: ${error.stack}`);
  }
  for (const end of ends.reverse()) await end();
  console.error(`${((performance.now() - start) / 1000).toFixed(1).padStart(6)} s  ${name}${failures.at(-1)?.startsWith(`${name}:`) ? "  FAILED" : ""}`);
}
await Promise.all([browser.close(), cdn.close()]);

console.log(`| where | what it takes |\n|---|---|\n${rows.join("\n")}`);
const readme = readFileSync(path("README.md"), "utf8");
for (const row of rows) if (!readme.includes(row)) failures.push(`README's table lacks this row: ${row}`);
for (const failure of failures) console.error(`\n${failure}`);
process.exitCode = failures.length === 0 ? 0 : 1;
