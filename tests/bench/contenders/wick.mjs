// Wick as a contender, from the built package (mounted at /wick/).
// opts: { worker, numThreads, model, paths: { models } }; on the page's own thread its memory can be seen and measured.
export async function load({ worker = false, model = "all-MiniLM-L6-v2", paths }) {
  const { Embedder } = await import("/wick/index.js");
  const embedder = await Embedder.load(`${paths.models}${model}/`, { worker, cache: false });
  return {
    info: { device: embedder.device, worker },
    encode: async (texts) => (await embedder.encode(texts)).dense,
  };
}
