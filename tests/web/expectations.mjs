// The fixtures (tests/fixtures): what each must give, a server for their files, and how results are compared with it.
import assert from "node:assert/strict";
import { createReadStream, existsSync, readdirSync, statSync } from "node:fs";
import { join } from "node:path";
import { json, path, serveSite } from "./harness.mjs";

export const FIXTURES = "tests/fixtures";
const folders = readdirSync(path(FIXTURES)).filter((name) => existsSync(path(`${FIXTURES}/${name}/expect.json`)));
/** What is expected of each model, by its folder. Of a few fixtures only parts are read, in Rust. */
export const expectations = new Map(folders.map((name) => [name, json(`${FIXTURES}/${name}/expect.json`)]).filter(([, { cases, rerank }]) => cases?.length || rerank));
// Several models in one fixture, with one tokenizer.
const { texts: words, models } = json(`${FIXTURES}/model2vec/expect.json`);
for (const [name, dense] of Object.entries(models)) expectations.set(`model2vec/${name}`, { cases: [{ role: "plain", texts: words, dense }] });
// Where we differ from sentence-transformers on purpose, as in tests/it/families.rs: what is cut is
// normalised again, and a document has the prompt "passage" where there is no other (6.2 means to,
// but always finds an empty "document" first).
for (const [name, { cases = [] }] of expectations) {
  for (const wanted of cases) {
    const { dimensions, normalize } = wanted.options ?? {};
    if (dimensions && normalize === undefined) wanted.dense = wanted.dense.map((row) => row.map((value) => value / Math.hypot(...row)));
    if (name === "t5-gated" && wanted.role === "document") wanted.prompt = "";
  }
}

/** The name that a fixture's prompts are known by, or its own. */
const served = (name) => (expectations.get(name).model ?? name).split("/").at(-1);

/** The address of a fixture's folder. */
export const address = (name) => `/models/${name.replace("/", "~")}/${served(name)}/`;

/** Files to serve in place of a fixture's: by model and file. */
export const replaced = {};
/** What was asked for. */
export const requests = [];

/** The built site with all fixtures below /models/. */
export function serveFixtures() {
  // /models/FIXTURE/NAME/FILE: the name is the model's to the engine, and which folder it is stands before it, with ~ for a slash.
  return serveSite((request, response, folder, rest) => {
    const fixture = folder.replace("~", "/");
    const file = rest.split("/").slice(1).join("/");
    requests.push(`${request.method} ${fixture}/${file}`);
    if (fixture === "test") {
      response.writeHead(200, { "content-type": "text/javascript" });
      return createReadStream(path("tests/web/fixture.mjs")).pipe(response), true;
    }
    if (replaced[`${fixture}/${file}`]) return response.writeHead(200).end(replaced[`${fixture}/${file}`]), true;
    if (!expectations.has(fixture)) return false;
    const places = [path(join(FIXTURES, fixture, file)), ...(file === "tokenizer.json" ? [path(join(FIXTURES, fixture, "..", file))] : [])];
    const found = places.find((place) => statSync(place, { throwIfNoEntry: false })?.isFile());
    if (!found) return response.writeHead(404).end(), true;
    response.writeHead(200, { "content-length": statSync(found).size });
    createReadStream(found).pipe(response);
    return true;
  });
}

/** Fails the test where results differ from what is expected by more than is allowed; says how much they do. */
export function compare(t, expect, results) {
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
    // The largest is 63.8, which in the f32 of the original is known to 4e-6 only: beyond that, two units of its last place.
    for (const [pair, wanted] of scores.entries()) near(`${kind} score`, Math.abs(got[pair] - wanted), Math.max(1e-5, 2 ** -22 * wanted), `pair ${pair}`);
  }
  for (const [index, wanted] of (expect.rerank ?? []).entries()) {
    const got = results.rerank[index];
    near("rerank", furthest(got.scores, wanted.scores, `query ${index}`), 1e-5, `query ${index}`);
    assert.deepEqual([got.differs, got.sorted], [[], true], `query ${index}`);
  }
  assert.notDeepEqual(worst, {}, "nothing was compared");
  t.diagnostic(Object.entries(worst).map(([kind, value]) => `${kind} ${value.toExponential(1)}`).join(", "));
}
