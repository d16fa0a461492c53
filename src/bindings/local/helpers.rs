//! The threads beside the engine's own: workers that share its memory, each with an instance of the module.

use wasm_bindgen::prelude::wasm_bindgen;

use crate::kernels::pool;

/// Takes part in the engine's work; does not return.
#[wasm_bindgen(js_name = help)]
pub fn help() {
    pool::help();
}

/// The address of a number of 32 bits. Who writes one there says that a helper trapped; the engine then traps too, instead of waiting.
#[wasm_bindgen(js_name = lostAddress)]
pub fn lost_address() -> *const u32 {
    pool::LOST.as_ptr()
}
