// Every family and head in real Chromium and in Node, on tiny checkpoints, against what their original programs gave; and what
// the package makes of it.
import assert from "node:assert/strict";
import { createReadStream, existsSync, readdirSync, statSync } from "node:fs";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { pathToFileURL } from "node:url";
import { decodeRows, dot, json, launch, nativeVectors, openPage, path, serveSite, stsSentences } from "./harness.mjs";
import { run } from "./fixture.mjs";

const FIXTURES = "tests/fixtures";
const fixtures = readdirSync(path(FIXTURES)).filter((name) => existsSync(path(`${FIXTURES}/${name}/expect.json`)));
const expectations = new Map(fixtures.map((name) => [name, json(`${FIXTURES}/${name}/expect.json`)]));
/** The name that a fixture's prompts are known by, or its own. */
const served = (name) => (expectations.get(name).model ?? name).split("/").at(-1);

let browser, server;
/** Files to serve in place of a fixture's: by model and file. */
const replaced = {};
const requests = [];

before(async () => {
  browser = await launch();
  // /models/FIXTURE/NAME/FILE: the name is the model's to the engine, and which folder it is stands before it.
  server = await serveSite((request, response, fixture, rest) => {
    const file = rest.split("/").slice(1).join("/");
    requests.push(`${request.method} ${fixture}/${file}`);
    if (fixture === "test") {
      response.writeHead(200, { "content-type": "text/javascript" });
      return createReadStream(path("tests/web/fixture.mjs")).pipe(response), true;
    }
    if (replaced[`${fixture}/${file}`]) return response.writeHead(200).end(replaced[`${fixture}/${file}`]), true;
    const found = path(join(FIXTURES, fixture, file));
    const info = statSync(found, { throwIfNoEntry: false });
    if (!expectations.has(fixture)) return false;
    if (!info?.isFile()) return response.writeHead(404).end(), true;
    response.writeHead(200, { "content-length": info.size });
    createReadStream(found).pipe(response);
    return true;
  });
});

after(async () => {
  await browser?.close();
  await server?.close();
});

const open = (t) => openPage(t, browser, server);
const address = (name) => `/models/${name}/${served(name)}/`;

/** Fails the test where results differ from what is expected by more than is allowed; says how much they do. */
function compare(t, expect, results) {
  const worst = {};
  const near = (kind, difference, allowed, where) => {
    worst[kind] = Math.max(worst[kind] ?? 0, difference);
    assert.ok(difference <= allowed, `${kind} of ${where}: ${difference} > ${allowed}`);
  };
  const furthest = (a, b, where) => {
    assert.equal(a?.length, b.length, where);
    return b.reduce((most, value, index) => Math.max(most, Math.abs(value - a[index])), 0);
  };
  for (const [index, wanted] of (expect.cases ?? []).entries()) {
    const got = results.cases[index];
    for (const [at, text] of wanted.texts.entries()) {
      const where = `case ${index}, text ${at} ${JSON.stringify(text.slice(0, 40))}`;
      if (wanted.ids) assert.deepEqual(got.ids[at], wanted.ids[at], `ids of ${where}`);
      if (wanted.dense) near("dense", furthest(got.dense?.[at], wanted.dense[at], where), 2e-5, where);
      if (wanted.tokens) {
        assert.equal(got.tokens?.[at].length, wanted.tokens[at].length, `tokens of ${where}`);
        for (const [row, token] of wanted.tokens[at].entries()) near("tokens", furthest(got.tokens[at][row], token, where), 2e-5, `${where}, token ${row}`);
      }
      if (wanted.sparse) {
        const entries = ({ indices, values }) => new Map(indices.map((index, i) => [index, values[i]]));
        const [a, b] = [entries(got.sparse[at]), entries(wanted.sparse[at])];
        for (const key of new Set([...a.keys(), ...b.keys()])) near("sparse", Math.abs((a.get(key) ?? 0) - (b.get(key) ?? 0)), 1e-4, `${where}, index ${key}`);
      }
    }
    assert.deepEqual(got.differs, [], `case ${index}: not bit-equal alone, in a batch and reordered`);
    for (const kind of ["dense", "sparse", "tokens"]) assert.equal(got.outputs.includes(kind), got[kind] !== undefined, kind);
  }
  for (const [kind, scores] of Object.entries(expect.scores ?? {})) {
    if (["pairs", "weights"].includes(kind)) continue;
    const got = results.scores.map((scores) => scores[kind]);
    near(`${kind} score`, furthest(got, scores, kind), 1e-5, "the pairs");
  }
  for (const [index, wanted] of (expect.rerank ?? []).entries()) {
    const got = results.rerank[index];
    near("rerank", furthest(got.scores, wanted.scores, `query ${index}`), 1e-5, `query ${index}`);
    assert.deepEqual([got.differs, got.sorted], [[], true], `query ${index}`);
  }
  assert.notDeepEqual(worst, {}, "nothing was compared");
  t.diagnostic(Object.entries(worst).map(([kind, value]) => `${kind} ${value.toExponential(1)}`).join(", "));
}

describe("every fixture gives what its original program gave", () => {
  for (const [name, expect] of expectations) {
    test(`in Chromium: ${name}`, async (t) => {
      const { page, messages } = await open(t);
      const results = await page.evaluate(
        async ([source, expect]) => (await import("/models/test/fixture.mjs")).run(wick, source, expect, { cache: false }),
        [address(name), expect],
      );
      compare(t, expect, results);
      assert.deepEqual(messages.filter((message) => !/404/.test(message)), []);
    });
  }

  for (const name of ["bge-m3", "t5", "static", "reranker"].flatMap((start) => fixtures.find((name) => name.startsWith(start)) ?? [])) {
    test(`in Node: ${name}`, async (t) => {
      const wick = await import(pathToFileURL(path("pkg/dist/node.js")));
      // A folder's name is what prompts are known by; no model here needs them.
      compare(t, expectations.get(name), await run(wick, path(`${FIXTURES}/${name}`), expectations.get(name), { worker: name !== "t5" }));
    });
  }
});
