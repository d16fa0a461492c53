//! `wick convert`: a model's folder to a smaller one.

use std::path::PathBuf;

use wick_embed::{
    Dtype, Result,
    convert::{ConvertOptions, convert},
};

use crate::{Bars, megabytes, tell};

#[derive(clap::Args)]
pub struct Convert {
    /// The folder with config.json, tokenizer.json and the weights.
    #[arg(long)]
    model: PathBuf,
    /// The folder to write, which must be new.
    #[arg(long)]
    output: PathBuf,
    /// How large weights are written: f32, f16 or int8 (with a scale per row).
    #[arg(long)]
    dtype: Dtype,
    /// The file with the weights, where it is not one of the usual names.
    #[arg(long)]
    weights: Option<String>,
}

impl Convert {
    pub fn run(self) -> Result<()> {
        let bars = Bars::new();
        let options = ConvertOptions { dtype: self.dtype, weights: self.weights };
        let converted = convert(&self.model, &self.output, &options, &bars)?;
        bars.bar.finish_and_clear();
        tell(&format!("weights {}, before {}", megabytes(converted.after), megabytes(converted.before)));
        let (count, shown) = (converted.left_out.len(), converted.left_out.len().min(10));
        if count > 0 {
            let names = converted.left_out[..shown].join(", ");
            let more = if shown < count { ", ..." } else { "" };
            tell(&format!("left out {count} tensors, being no weights: {names}{more}"));
        }
        Ok(())
    }
}
