// node tests/web/run.mjs [NAME...]: all tests of this folder, or those of NAME.test.mjs. How long
// each file took stands at the end.
import { spawn } from "node:child_process";
import { readdirSync } from "node:fs";
import { fileURLToPath } from "node:url";

/** What measures time or memory has nothing beside it; of other files two run at a time. */
const ALONE = ["timing"];
/** Begin first, so that none of them is left over at the end. */
const LONG = ["gpu", "browsers", "reference"];

const folder = fileURLToPath(new URL(".", import.meta.url));
const END = ".test.mjs";
const all = readdirSync(folder).filter((file) => file.endsWith(END)).map((file) => file.slice(0, -END.length));
const asked = process.argv.slice(2);
const unknown = [...asked, ...ALONE, ...LONG].filter((name) => !all.includes(name));
if (unknown.length > 0) {
  console.error(`no such file: ${unknown.map((name) => name + END).join(", ")}; there are ${all.join(", ")}`);
  process.exit(2);
}

const results = [];

/** Runs a file, and prints all it said once it has ended. */
async function run(name) {
  const start = performance.now();
  const child = spawn(process.execPath, ["--test-reporter=spec", folder + name + END], { stdio: ["ignore", "pipe", "pipe"] });
  const said = [];
  for (const stream of [child.stdout, child.stderr]) stream.on("data", (data) => said.push(data));
  const code = await new Promise((done) => child.once("close", done));
  const seconds = (performance.now() - start) / 1000;
  results.push({ name, code, seconds });
  process.stdout.write(`\n== ${name}: ${seconds.toFixed(1)} s\n${Buffer.concat(said)}`);
}

async function runAll(names, atOnce) {
  const left = [...names];
  const next = async () => {
    for (let name; (name = left.shift()); ) await run(name);
  };
  await Promise.all(Array.from({ length: atOnce }, next));
}

const start = performance.now();
const names = [...new Set(asked.length > 0 ? asked : [...LONG, ...all])];
await runAll(names.filter((name) => !ALONE.includes(name)), 2);
await runAll(names.filter((name) => ALONE.includes(name)), 1);

console.log("");
for (const { name, code, seconds } of results.sort((a, b) => b.seconds - a.seconds)) {
  console.log(`${seconds.toFixed(1).padStart(7)} s  ${name}${code === 0 ? "" : "  FAILED"}`);
}
console.log(`${((performance.now() - start) / 1000).toFixed(1).padStart(7)} s  in all`);
process.exitCode = results.every(({ code }) => code === 0) ? 0 : 1;
