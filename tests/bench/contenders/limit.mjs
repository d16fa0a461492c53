// The machine's limit as a contender: as many products as a text's encoding takes, in the fastest kernel alone (limit.rs), and no result.
// opts: { dtype: "f32" or "int8" }
const [LAYERS, WIDTH, INNER] = [6, 384, 1536];

/** Operations in the products and the attention of all-MiniLM-L6-v2. */
const operations = (tokens) => LAYERS * tokens * (2 * (4 * WIDTH * WIDTH + 2 * WIDTH * INNER) + 4 * WIDTH * tokens);

export async function load({ dtype, paths }) {
  const { instance: { exports } } = await WebAssembly.instantiateStreaming(fetch("/limit/limit.wasm"));
  const { workloads } = await (await fetch(`${paths.harness}workloads.json`)).json();
  const tokens = new Map(Object.values(workloads).flatMap(({ texts, token_counts }) => texts.map((text, i) => [text, token_counts[i]])));
  return {
    encode(texts) {
      exports[dtype](texts.reduce((sum, text) => sum + operations(tokens.get(text)), 0) / exports.operations());
      return texts.map(() => new Float32Array(WIDTH));
    },
  };
}
