/** Candle in a module of its own, and its glue. The module is fetched only when it is asked for: it is larger than the engine's. */

export * as glue from "./wick_reference.js";

export const file = (): URL => new URL("./wick_reference_bg.wasm", import.meta.url);
