//! `wick distill`: an encoder to a static model.

use std::{num::NonZeroUsize, path::PathBuf};

use clap::ValueEnum;
use wick_embed::{
    Device, Dtype, Result,
    distill::{DistillOptions, Weighting, distill},
};

use crate::{Bars, input::invalid_option, megabytes, tell};

#[derive(clap::Args)]
pub struct Distill {
    /// The folder with the encoder.
    #[arg(long)]
    model: PathBuf,
    /// The folder to write, which must be new.
    #[arg(long)]
    output: PathBuf,
    /// Components of a vector.
    #[arg(long, default_value_t = DistillOptions::default().dimensions)]
    dimensions: usize,
    /// How entries of the vocabulary count, by their rank.
    #[arg(long, value_enum, default_value = "sif")]
    weighting: By,
    /// The coefficient of sif, 0.0001 by default: the smaller, the less frequent entries count.
    #[arg(long)]
    sif: Option<f64>,
    /// How the table is written: f32, f16 or int8.
    #[arg(long, default_value = DistillOptions::default().dtype.as_str())]
    dtype: Dtype,
    /// Where the encoder computes: auto, cpu, reference, cuda or metal.
    #[arg(long, default_value = "auto")]
    device: Device,
    /// How many threads compute; by default as many as the processor runs at once.
    #[arg(long)]
    threads: Option<NonZeroUsize>,
}

#[derive(Clone, Copy, ValueEnum)]
enum By {
    /// Smooth inverse frequency.
    Sif,
    /// The logarithm of the rank.
    Zipf,
    /// All alike.
    None,
}

impl Distill {
    pub fn run(self) -> Result<()> {
        let weighting = match (self.weighting, self.sif) {
            (By::Sif, sif) => Weighting::Sif(sif.unwrap_or(1e-4)),
            (_, Some(_)) => return Err(invalid_option("--sif", "it is the coefficient of --weighting sif")),
            (By::Zipf, None) => Weighting::Zipf,
            (By::None, None) => Weighting::None,
        };
        let bars = Bars::new();
        let Self { dimensions, dtype, device, threads, .. } = self;
        let options = DistillOptions { dimensions, weighting, dtype, device, threads };
        let made = distill(&self.model, &self.output, &options, &bars)?;
        bars.bar.finish_and_clear();
        let (share, size) = (100.0 * made.share, megabytes(made.bytes));
        tell(&format!("{} vectors of {dimensions}, {size}, {share:.1} % of the variance", made.tokens));
        Ok(())
    }
}
