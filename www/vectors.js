/** The vectors of the texts on the page, so that only what is new goes through the model. */

export class Vectors {
  #encode;
  /** From a text to its vector and whether the text was cut. */
  #known = new Map();

  /** `encode` is one of an embedder's: for documents or for queries, before which models may put different prompts. */
  constructor(encode) {
    this.#encode = encode;
  }

  /** Those of `texts` that are not known, each once. */
  missing(texts) {
    return [...new Set(texts)].filter((text) => !this.#known.has(text));
  }

  /** Encodes those of `texts` that are not known yet, and forgets all others. Returns what that took, if anything. */
  async fill(texts, options) {
    const missing = this.missing(texts);
    let run;
    if (missing.length > 0) {
      const start = performance.now();
      const { dense, usage } = await this.#encode(missing, options);
      run = { texts: missing.length, tokens: usage.tokens, ms: performance.now() - start };
      // A copy: the vectors of one call share a buffer, which one that stays would keep whole.
      missing.forEach((text, index) =>
        this.#known.set(text, { vector: dense[index].slice(), cut: usage.truncated.includes(index) }),
      );
    }
    const wanted = new Set(texts);
    for (const text of this.#known.keys()) if (!wanted.has(text)) this.#known.delete(text);
    return run;
  }

  get(text) {
    return this.#known.get(text)?.vector;
  }

  isCut(text) {
    return this.#known.get(text)?.cut ?? false;
  }
}

/** Vectors have unit length, so this is their cosine. */
export function cosine(a, b) {
  let sum = 0;
  for (let index = 0; index < a.length; index++) sum += a[index] * b[index];
  return sum;
}
