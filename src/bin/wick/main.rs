//! `wick`: the native program. Reads arguments, calls the library; decides nothing that the library does not decide.

mod bench;
mod convert;
mod distill;
mod encode;
mod input;
#[cfg(feature = "serve")]
mod serve;

use std::{
    io::{self, IsTerminal, Write},
    process::ExitCode,
};

use clap::{Parser, Subcommand};
use indicatif::{ProgressBar, ProgressStyle};
use wick_embed::Watch;

/// Text embeddings: the same vectors as in the page.
#[derive(Parser)]
#[command(version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Encode texts, one per line or one JSON value per line.
    Encode(encode::Encode),
    /// Measure how fast texts are encoded.
    Bench(bench::Bench),
    /// Write a model with smaller weights, which the page loads as it does the original.
    Convert(convert::Convert),
    /// Make a static model, a table of word vectors, from an encoder.
    Distill(distill::Distill),
    /// Answer OpenAI's and text-embeddings-inference's requests over HTTP.
    #[cfg(feature = "serve")]
    Serve(serve::Serve),
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Encode(arguments) => arguments.run(),
        Command::Bench(arguments) => arguments.run(),
        Command::Convert(arguments) => arguments.run(),
        Command::Distill(arguments) => arguments.run(),
        #[cfg(feature = "serve")]
        Command::Serve(arguments) => arguments.run(),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(io::stderr(), "wick: {} [{}]", error, error.code());
            ExitCode::FAILURE
        }
    }
}

/// Says what was done.
fn tell(message: &str) {
    let _ = writeln!(io::stderr(), "wick: {message}");
}

/// Bytes in words.
fn megabytes(bytes: u64) -> String {
    format!("{:.1} MB", bytes as f64 / 1e6)
}

/// A progress bar on a terminal, nothing elsewhere.
struct Bars {
    bar: ProgressBar,
}

impl Bars {
    fn new() -> Self {
        let bar = match io::stderr().is_terminal() {
            true => ProgressBar::new(0),
            false => ProgressBar::hidden(),
        };
        let style = ProgressStyle::with_template("{msg:>18} {wide_bar} {pos}/{len} {eta}");
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        Self { bar }
    }

    fn show(&self, message: &str, done: u64, total: u64) {
        if self.bar.message() != message {
            self.bar.set_message(message.to_owned());
        }
        self.bar.set_length(total);
        self.bar.set_position(done);
    }
}

impl Watch for Bars {
    fn loaded(&self, loaded: u64, total: Option<u64>, _: &str) {
        self.show("loading (bytes)", loaded, total.unwrap_or(loaded));
    }

    fn warned(&self, message: &str) {
        self.bar.suspend(|| tell(message));
    }

    fn encoded(&self, done: usize, total: usize) {
        self.show("encoding (texts)", done as u64, total as u64);
    }
}
