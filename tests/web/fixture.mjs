// Runs a fixture's expectations (tests/fixtures/*/expect.json) through the package: in a page, where the server gives this
// file, and in Node.

/** Options of a case by where they belong. `maxActive` is sentence-transformers' word; `file` has the weights. */
function split({ options: { topK, maxActive, ...load } = {}, file, prompt }) {
  return { load: { ...load, ...(file && { weights: file }) }, call: { topK: topK ?? maxActive, prompt } };
}

const same = (a, b) => a?.length === b?.length && Array.from(a ?? []).every((value, index) => Object.is(value, b[index]));
const ofText = {
  dense: same,
  sparse: (a, b) => same(a.indices, b.indices) && same(a.values, b.values),
  tokens: (a, b) => a.length === b.length && a.every((row, index) => same(row, b[index])),
};

/** Whether everything that an output holds for text `i` is bit-equal to what another holds for text `j`. */
const equal = (a, i, b, j) => Object.entries(ofText).every(([kind, equal]) => !a[kind] === !b[kind] && (!a[kind] || equal(a[kind][i], b[kind][j])));

const plain = {
  dense: (row) => Array.from(row),
  sparse: ({ indices, values }) => ({ indices: Array.from(indices), values: Array.from(values) }),
  tokens: (rows) => rows.map((row) => Array.from(row)),
};

/** What the package gives for every case, as plain data; `differs` names texts that are not bit-equal alone or reordered. */
export async function run({ Embedder, Reranker, colbertScore, hybridScore, lexicalScore }, source, expect, common = {}) {
  const loaded = new Map();
  const get = async (Kind, options) => {
    const key = JSON.stringify([Kind === Reranker, options]);
    if (!loaded.has(key)) loaded.set(key, await Kind.load(source, { ...common, ...options }));
    return loaded.get(key);
  };
  const results = { cases: [], rerank: [] };
  for (const wanted of expect.cases ?? []) {
    const { role, texts, ids } = wanted;
    const { load, call } = split(wanted);
    const embedder = await get(Embedder, load);
    const method = { plain: "encode", query: "encodeQueries", document: "encodeDocuments" }[role];
    const together = await embedder[method](texts, call);
    const backwards = await embedder[method](texts.toReversed(), call);
    const differs = [];
    for (const [index, text] of texts.entries()) {
      const alone = await embedder[method]([text], call);
      if (!equal(alone, 0, together, index) || !equal(backwards, texts.length - 1 - index, together, index)) differs.push(text);
    }
    const result = { differs, outputs: embedder.outputs };
    for (const [kind, row] of Object.entries(plain)) if (together[kind]) result[kind] = together[kind].map(row);
    if (ids) result.ids = (await embedder.tokenize(texts, { role })).map(({ ids }) => Array.from(ids));
    results.cases.push(result);
  }
  if (expect.scores) {
    const { pairs, weights } = expect.scores;
    const embedder = await get(Embedder, {});
    const [queries, documents] = [0, 1].map((side) => embedder.encode(pairs.map((pair) => pair[side])));
    const [a, b] = [await queries, await documents];
    results.scores = pairs.map((_, index) => {
      const parts = {
        dense: a.dense && a.dense[index].reduce((sum, value, at) => sum + value * b.dense[index][at], 0),
        sparse: a.sparse && lexicalScore(a.sparse[index], b.sparse[index]),
        colbert: a.tokens && colbertScore(a.tokens[index], b.tokens[index]),
      };
      const [dense, sparse, colbert] = weights;
      const mean = (...kinds) => hybridScore(Object.fromEntries(kinds.map((kind) => [kind, parts[kind]])), { dense, sparse, colbert });
      return { ...parts, "sparse+dense": mean("sparse", "dense"), "colbert+sparse+dense": mean("colbert", "sparse", "dense") };
    });
  }
  for (const wanted of expect.rerank ?? []) {
    const { query, documents } = wanted;
    const { load, call } = split(wanted);
    const reranker = await get(Reranker, load);
    const ranked = await reranker.rerank(query, documents, call);
    const scores = [];
    for (const { index, score } of ranked) scores[index] = score;
    const differs = [];
    const backwards = await reranker.rerank(query, documents.toReversed());
    for (const { index, score, text } of ranked) {
      const [alone] = await reranker.rerank(query, [documents[index]]);
      const other = backwards.find((document) => document.index === documents.length - 1 - index);
      if (!same([score, score, text], [alone.score, other.score, documents[index]])) differs.push(text);
    }
    const sorted = ranked.every(({ score }, index) => index === 0 || score <= ranked[index - 1].score);
    results.rerank.push({ scores, differs, sorted });
  }
  for (const model of loaded.values()) model.dispose();
  return results;
}
