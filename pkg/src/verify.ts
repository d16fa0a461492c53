/** How alike what two computed of the same texts is. */

import type { SparseVector } from "./sparse.js";
import type { Agreement, Output } from "./types.js";

/** Compares each kind of result that both have, text by text. */
export function agreement(ours: Output, theirs: Output): Agreement {
  return {
    ...(ours.dense && theirs.dense && { dense: compared(ours.dense, theirs.dense, (row) => row) }),
    ...(ours.tokens && theirs.tokens && { tokens: compared(ours.tokens, theirs.tokens, flat) }),
    ...(ours.sparse && theirs.sparse && { sparse: sparse(ours.sparse, theirs.sparse) }),
  };
}

function compared<T>(ours: readonly T[], theirs: readonly T[], values: (row: T) => Float32Array): { cosines: number[]; difference: number } {
  const pairs = ours.map((row, index) => [values(row), values(theirs[index]!)] as const);
  // Not `Math.max(...all)`: a call cannot have so many arguments.
  const largest = pairs.reduce((most, [a, b]) => Math.max(most, difference(a, b)), 0);
  return { cosines: pairs.map(([a, b]) => cosine(a, b)), difference: largest };
}

/** Over all indices that either has: one that the other lacks is zero there. */
function sparse(ours: readonly SparseVector[], theirs: readonly SparseVector[]): { cosines: number[]; difference: number } {
  const rows = ours.map((row, index): [Float32Array, Float32Array] => {
    const other = theirs[index]!;
    const places = new Map<number, number>();
    for (const index of [...row.indices, ...other.indices]) if (!places.has(index)) places.set(index, places.size);
    const spread = ({ indices, values }: SparseVector) => {
      const all = new Float32Array(places.size);
      indices.forEach((index, at) => (all[places.get(index)!] = values[at]!));
      return all;
    };
    return [spread(row), spread(other)];
  });
  return compared(rows.map(([a]) => a), rows.map(([, b]) => b), (row) => row);
}

function flat(vectors: readonly Float32Array[]): Float32Array {
  const all = new Float32Array(vectors.reduce((sum, { length }) => sum + length, 0));
  let at = 0;
  for (const vector of vectors) {
    all.set(vector, at);
    at += vector.length;
  }
  return all;
}

function dot(a: Float32Array, b: Float32Array): number {
  return a.reduce((sum, value, at) => sum + value * b[at]!, 0);
}

/** Two without a direction are alike; one alone is unlike any other, as is another length. */
function cosine(a: Float32Array, b: Float32Array): number {
  if (a.length !== b.length) return 0;
  const [left, right] = [dot(a, a), dot(b, b)];
  if (left === 0 || right === 0) return left === right ? 1 : 0;
  return dot(a, b) / Math.sqrt(left * right);
}

/** The largest between two components. Of different lengths there is no telling. */
function difference(a: Float32Array, b: Float32Array): number {
  return a.length === b.length ? a.reduce((most, value, at) => Math.max(most, Math.abs(value - b[at]!)), 0) : Infinity;
}
