//! `wick bench`: how fast a model encodes given texts on this machine.

use std::{collections::BTreeMap, num::NonZeroUsize, time::Instant};

use wick_embed::{Code, Embedder, Error, Result, Role, platform::native::block_on};

use crate::{
    Bars,
    input::{Model, Texts},
    output::say,
};

#[derive(clap::Args)]
pub struct Bench {
    #[command(flatten)]
    model: Model,
    #[command(flatten)]
    texts: Texts,
    /// Texts a call; all by default.
    #[arg(long)]
    batch: Option<NonZeroUsize>,
    /// How often all texts are encoded, after a first time that does not count.
    #[arg(long, default_value = "5")]
    rounds: NonZeroUsize,
    /// Print a line of JSON.
    #[arg(long)]
    json: bool,
}

impl Bench {
    pub fn run(&self) -> Result<()> {
        let texts = self.texts.read()?;
        if texts.is_empty() {
            return Err(Error::new(Code::InvalidOption, "--input", "there is no text to measure with"));
        }
        let bars = Bars::new();
        let start = Instant::now();
        let embedder = self.model.load(&bars)?;
        let load_ms = milliseconds(start);
        bars.bar.finish_and_clear();
        let (mut calls, mut rounds) = (Vec::new(), Vec::new());
        let mut tokens = 0;
        for round in 0..=self.rounds.get() {
            tokens = 0;
            let start = Instant::now();
            for texts in texts.chunks(self.batch.map_or(texts.len(), NonZeroUsize::get)) {
                let start = Instant::now();
                tokens += block_on(embedder.encode(texts, Role::Plain, &()))?.usage.tokens;
                if round > 0 {
                    calls.push(milliseconds(start));
                }
            }
            if round > 0 {
                rounds.push(milliseconds(start));
            }
        }
        let (kernels, peak) = kernel_times(&embedder, &texts, self.batch)?;
        let (call_ms, round_ms) = (median(&mut calls), median(&mut rounds));
        let rate = tokens as f64 / round_ms * 1e3;
        let count = texts.len();
        let said = if self.json {
            let line = serde_json::json!({
                "texts": count, "tokens": tokens, "rounds": self.rounds, "load_ms": load_ms,
                "call_ms": call_ms, "round_ms": round_ms, "tokens_per_s": rate, "kernels": kernels, "peak_gflops": peak,
            });
            line.to_string()
        } else {
            let rounds = self.rounds;
            format!(
                "{count} texts of {tokens} tokens in {round_ms:.1} ms: {rate:.0} tokens/s (median of {rounds})\n\
                 a call: {call_ms:.2} ms (median); loading: {load_ms:.0} ms{}",
                table(&kernels, peak)
            )
        };
        say(&said)
    }
}

/// What a kernel did in a round of its own.
#[derive(serde::Serialize)]
struct Kernel {
    /// How often it ran, and how long in all.
    count: usize,
    ms: f64,
    /// Products of two numbers, in 1e9, and bytes of its buffers, in 1e9, each taken once.
    gproducts: f64,
    gbytes: f64,
    /// 1e9 floating-point operations and 1e9 bytes a second.
    gflops: f64,
    gbytes_per_s: f64,
}

/// By name; empty where the device has no clock.
type Kernels = BTreeMap<String, Kernel>;

#[cfg(feature = "webgpu")]
fn kernel_times(embedder: &Embedder, texts: &[String], batch: Option<NonZeroUsize>) -> Result<(Kernels, Option<f64>)> {
    let Some(gpu) = embedder.gpu() else { return Ok((Kernels::new(), None)) };
    gpu.take_profile();
    gpu.set_timing(true);
    for texts in texts.chunks(batch.map_or(texts.len(), NonZeroUsize::get)) {
        block_on(embedder.encode(texts, Role::Plain, &()))?;
    }
    gpu.set_timing(false);
    let kernels = gpu.take_profile().kernels.into_iter();
    let kernel = |time: wick_embed::gpu::KernelTime| Kernel {
        count: time.count,
        ms: time.milliseconds,
        gproducts: 1e-9 * time.work.products,
        gbytes: 1e-9 * time.work.bytes,
        gflops: time.gflops(),
        gbytes_per_s: time.gigabytes(),
    };
    let kernels = kernels.map(|(name, time)| (name, kernel(time))).collect();
    Ok((kernels, block_on(gpu.peak())?))
}

#[cfg(not(feature = "webgpu"))]
fn kernel_times(_: &Embedder, _: &[String], _: Option<NonZeroUsize>) -> Result<(Kernels, Option<f64>)> {
    Ok((Kernels::new(), None))
}

/// A line for each kernel, longest first, with the bytes of its buffers and what it reaches of the device's peak, which is that of f32.
fn table(kernels: &Kernels, peak: Option<f64>) -> String {
    let mut rows: Vec<_> = kernels.iter().collect();
    rows.sort_by(|(_, left), (_, right)| right.ms.total_cmp(&left.ms));
    let line = |(name, kernel): &(&String, &Kernel)| {
        let Kernel { count, ms, gbytes, gflops, gbytes_per_s, .. } = kernel;
        let each = ms / *count as f64;
        let share = match peak {
            Some(peak) if *gflops > 0.0 => {
                format!("  {gflops:>9.1} GFLOP/s, {:.1} % of the peak", 100.0 * gflops / peak)
            }
            _ => String::new(),
        };
        format!(
            "\n{name:<24} {count:>6} x {each:>9.4} ms = {ms:>9.2} ms  {gbytes:>7.3} GB at {gbytes_per_s:>6.1} GB/s{share}"
        )
    };
    let lines: String = rows.iter().map(line).collect();
    let peak = peak.map(|peak| format!("\npeak in f32: {peak:.0} GFLOP/s"));
    lines + &peak.unwrap_or_default()
}

fn milliseconds(start: Instant) -> f64 {
    start.elapsed().as_secs_f64() * 1e3
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    if values.len() % 2 == 1 { values[middle] } else { f64::midpoint(values[middle - 1], values[middle]) }
}
