// Wick as a contender, from the built package (mounted at /wick/).
// opts: { worker, numThreads, dtype, model, paths: { models } }; on the page's own thread its memory can be seen and measured.
export async function load({ worker = false, numThreads = 1, dtype = "auto", model = "all-MiniLM-L6-v2", paths }) {
  const { Embedder } = await import("/wick/index.js");
  const embedder = await Embedder.load(`${paths.models}${model}/`, { worker, threads: numThreads, dtype, cache: false });
  return {
    info: { device: embedder.device, threads: embedder.threads, worker },
    encode: async (texts) => (await embedder.encode(texts)).dense,
  };
}
