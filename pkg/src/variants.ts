/** The engine's two builds, of which a browser fetches one. */

/** A function that uses one instruction of relaxed SIMD, `i8x16.relaxed_swizzle`. */
const RELAXED = new Uint8Array([
  0, 97, 115, 109, 1, 0, 0, 0, 1, 5, 1, 96, 0, 1, 123, 3, 2, 1, 0, 10, 15, 1, 13, 0, 65, 1, 253, 15, 65, 2, 253, 15, 253, 128, 2, 11,
]);

/** The one with relaxed SIMD where this browser has that. */
export function variant(): URL {
  // Each address is written out, so that bundlers see files to copy.
  return WebAssembly.validate(RELAXED)
    ? new URL("./wick_embed_relaxed_bg.wasm", import.meta.url)
    : new URL("./wick_embed_bg.wasm", import.meta.url);
}
