/** Sparse vectors, as a caller sees them and as they come from the engine. */

import type { SparseRows } from "./protocol.js";
import type { SparseEntries, TokenWeight } from "./types.js";

/** Gives the vocabulary's string of each index. */
export type Strings = (indices: Uint32Array) => Promise<string[]>;

/** Weights over a vocabulary: indices ascending, each with a value above zero. Made by encoders. */
export class SparseVector implements SparseEntries {
  readonly indices: Uint32Array;
  readonly values: Float32Array;
  readonly #strings: Strings;

  /** @internal */
  constructor(indices: Uint32Array, values: Float32Array, strings: Strings) {
    this.indices = indices;
    this.values = values;
    this.#strings = strings;
  }

  /** Whether there is no entry, as for a text without a word that counts. Milvus refuses such a vector: leave its row out. */
  get isEmpty(): boolean {
    return this.indices.length === 0;
  }

  /**
   * The form that Milvus' REST interface and pymilvus take: an object from decimal indices to values. Milvus refuses an
   * empty one ({@link isEmpty}).
   */
  toMilvus(): Record<string, number> {
    return Object.fromEntries(Array.from(this.indices, (index, at) => [index, this.values[at] as number]));
  }

  /** The words that the indices stand for, as the vocabulary writes them, largest weight first. Needs the model, not disposed. */
  async decode(): Promise<TokenWeight[]> {
    const strings = await this.#strings(this.indices);
    return strings.map((token, at) => ({ token, weight: this.values[at] as number })).sort((a, b) => b.weight - a.weight);
  }
}

/** Rows from the engine, each with arrays of its own. */
export function sparseRows({ indices, values, ends }: SparseRows, strings: Strings): SparseVector[] {
  return spans(ends, (start, end) => new SparseVector(indices.slice(start, end), values.slice(start, end), strings));
}

/** Cuts rows that lie one after the other. */
export function spans<T>(ends: Uint32Array, row: (start: number, end: number) => T): T[] {
  return Array.from(ends, (end, index) => row(index === 0 ? 0 : (ends[index - 1] as number), end));
}
