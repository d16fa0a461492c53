//! `bindgen IN.wasm OUT_DIR`: writes the JavaScript and TypeScript glue of a module built by `build.sh wasm`.
//!
//! The same work as the `wasm-bindgen` program, whose installation takes five times as long and whose version would have to be kept
//! equal to the lock file by hand.

use std::{env, error::Error};

fn main() -> Result<(), Box<dyn Error>> {
    let [_, input, output] =
        env::args().collect::<Vec<_>>().try_into().map_err(|_| "usage: bindgen IN.wasm OUT_DIR")?;
    let mut bindgen = wasm_bindgen_cli_support::Bindgen::new();
    bindgen
        .input_path(input)
        .web(true)
        .map_err(|error| error.to_string())?
        // The package names the module's address itself, in one place (pkg/src/variants.ts).
        .omit_default_module_path(true)
        .typescript(true)
        .generate(output)
        .map_err(|error| format!("{error:#}"))?;
    Ok(())
}
