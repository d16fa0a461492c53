/** How alike a query and a document are, by what was encoded of each: BGE-M3's scores, as `src/score.rs` computes them. */

import { invalid } from "./options.js";
import type { HybridScores, SparseEntries } from "./types.js";

/**
 * Late interaction: for each token vector of the query the largest inner product with one of the document, and the mean of these.
 * Zero without tokens. Takes `output.tokens[i]` of each.
 */
export function colbertScore(queryTokens: readonly Float32Array[], documentTokens: readonly Float32Array[]): number {
  if (queryTokens.length === 0 || documentTokens.length === 0) return 0;
  const width = queryTokens[0]?.length;
  if (![...queryTokens, ...documentTokens].every((row) => row.length === width)) throw invalid("tokens", "vectors of different widths have no inner product");
  let sum = 0;
  for (const token of queryTokens) {
    let best = -Infinity;
    for (const other of documentTokens) {
      let dot = 0;
      for (let i = 0; i < token.length; i++) dot += (token[i] as number) * (other[i] as number);
      if (dot > best) best = dot;
    }
    sum += best;
  }
  return sum / queryTokens.length;
}

/** The inner product of two sparse vectors: over shared indices, the sum of the products. Indices must ascend. */
export function lexicalScore(a: SparseEntries, b: SparseEntries): number {
  let sum = 0;
  for (let i = 0, j = 0; i < a.indices.length && j < b.indices.length; ) {
    const [left, right] = [a.indices[i] as number, b.indices[j] as number];
    if (left === right) sum += (a.values[i] as number) * (b.values[j] as number);
    if (left <= right) i++;
    if (right <= left) j++;
  }
  return sum;
}

/**
 * The weighted mean of those scores that are given. The weights are BGE-M3's by default; with weights of your own, a score
 * without one is left out. Zero if nothing is left.
 */
export function hybridScore(scores: HybridScores, weights: HybridScores = { dense: 0.4, sparse: 0.2, colbert: 0.4 }): number {
  let [sum, total] = [0, 0];
  for (const kind of ["dense", "sparse", "colbert"] as const) {
    const { [kind]: score } = scores;
    const { [kind]: weight = 0 } = weights;
    if (score === undefined || weight === 0) continue;
    sum += score * weight;
    total += weight;
  }
  return total === 0 ? 0 : sum / total;
}
