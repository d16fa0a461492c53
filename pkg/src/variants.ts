/** The builds of the module: with relaxed SIMD where the engine of JavaScript has it, on shared memory where threads are wanted. */

/** A function that uses one instruction of relaxed SIMD, `i8x16.relaxed_swizzle`. */
const RELAXED = new Uint8Array([
  0, 97, 115, 109, 1, 0, 0, 0, 1, 5, 1, 96, 0, 1, 123, 3, 2, 1, 0, 10, 15, 1, 13, 0, 65, 1, 253, 15, 65, 2, 253, 15, 253, 128, 2, 11,
]);

/** The file of the build that runs here. A page fetches this one only. */
export function variant(threads: boolean): URL {
  // Each address is written out, so that bundlers see files to copy.
  if (WebAssembly.validate(RELAXED)) {
    return threads ? new URL("./wick_embed_relaxed_threads_bg.wasm", import.meta.url) : new URL("./wick_embed_relaxed_bg.wasm", import.meta.url);
  }
  return threads ? new URL("./wick_embed_threads_bg.wasm", import.meta.url) : new URL("./wick_embed_bg.wasm", import.meta.url);
}
