/** Candle in a module of its own, and its glue. Both are loaded only when they are asked for: each is as large as the engine's. */

export * as glue from "./wick_reference.js";

export const file = (): URL => new URL("./wick_reference_bg.wasm", import.meta.url);
