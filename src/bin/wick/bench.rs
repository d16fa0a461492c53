//! `wick bench`: how fast a model encodes given texts on this machine.

use std::{
    io::{self, Write},
    num::NonZeroUsize,
    path::Path,
    time::Instant,
};

use wick_embed::{Code, Error, Result, Role, platform::native::block_on};

use crate::{
    Bars,
    input::{Model, Texts, file_error},
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
        let (call_ms, round_ms) = (median(&mut calls), median(&mut rounds));
        let rate = tokens as f64 / round_ms * 1e3;
        let count = texts.len();
        let said = if self.json {
            let line = serde_json::json!({
                "texts": count, "tokens": tokens, "rounds": self.rounds, "load_ms": load_ms,
                "call_ms": call_ms, "round_ms": round_ms, "tokens_per_s": rate,
            });
            line.to_string()
        } else {
            let rounds = self.rounds;
            format!(
                "{count} texts of {tokens} tokens in {round_ms:.1} ms: {rate:.0} tokens/s (median of {rounds})\n\
                 a call: {call_ms:.2} ms (median); loading: {load_ms:.0} ms"
            )
        };
        writeln!(io::stdout(), "{said}").map_err(file_error(Path::new("standard output")))
    }
}

fn milliseconds(start: Instant) -> f64 {
    start.elapsed().as_secs_f64() * 1e3
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    if values.len() % 2 == 1 { values[middle] } else { f64::midpoint(values[middle - 1], values[middle]) }
}
