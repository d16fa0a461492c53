//! `wick encode`: texts in, vectors out.
//!
//! Texts are read, encoded and written in parts, so that memory does not grow with the input; what
//! can be known before the first text is computed is checked by then.

use std::{
    io::{self, Write},
    path::PathBuf,
};

use clap::ValueEnum;
use wick_embed::{EncodeOptions, Output, OutputKind, Result, Role, SparseVector, platform::native::block_on};

use crate::{
    Bars, Part,
    input::{Model, Texts, has_extension, invalid_option},
    output::Target,
    tell,
};

/// Most texts that are encoded in one call, and bytes after which no more join it: enough to keep a
/// GPU busy for seconds.
const PART: (usize, usize) = (4096, 8 << 20);
/// Where each token has a vector, which take a thousand times the bytes of the text.
const PART_OF_TOKENS: (usize, usize) = (64, 64 << 10);

#[derive(clap::Args)]
pub struct Encode {
    #[command(flatten)]
    model: Model,
    #[command(flatten)]
    texts: Texts,
    /// Where vectors go; standard output by default.
    #[arg(long)]
    output: Option<PathBuf>,
    /// How vectors are written; by default .npy for a file that ends so, JSONL otherwise.
    #[arg(long, value_enum)]
    output_format: Option<OutputFormat>,
    /// What the texts are for: plain, query or document.
    #[arg(long, default_value = "plain")]
    role: Role,
    /// Keep this many of the largest weights of each sparse vector.
    #[arg(long)]
    top_k: Option<usize>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum OutputFormat {
    /// Per line an array of numbers, or of models that give more than dense vectors an object: dense, sparse, tokens.
    Jsonl,
    /// NumPy's format: one [texts, dimensions] array of f32. Needs --output.
    Npy,
}

impl Encode {
    pub fn run(&self) -> Result<()> {
        let format = self.output_format.unwrap_or(match &self.output {
            Some(path) if has_extension(path, "npy") => OutputFormat::Npy,
            _ => OutputFormat::Jsonl,
        });
        if self.top_k == Some(0) {
            return Err(invalid_option("--top-k", "it must be at least 1"));
        }
        if format == OutputFormat::Npy && self.output.is_none() {
            return Err(invalid_option("--output-format", "npy needs --output"));
        }
        let mut target = Target::open(self.output.as_deref())?;
        if format == OutputFormat::Npy {
            // How many rows there are is written at the end, to the beginning.
            target.rewind()?;
        }
        let count = self.texts.count()?;
        let mut texts = self.texts.open()?;
        let bars = Bars::new();
        let embedder = self.model.load(&bars)?;
        let gives = |kind| embedder.outputs().contains(&kind);
        if format == OutputFormat::Npy && !gives(OutputKind::Dense) {
            let message = "npy holds dense vectors, which this model gives none of";
            return Err(invalid_option("--output-format", message));
        }
        if self.top_k.is_some() && !gives(OutputKind::Sparse) {
            return Err(invalid_option("--top-k", "the model gives no sparse vectors"));
        }
        let mut options = EncodeOptions { role: self.role, top_k: self.top_k, ..EncodeOptions::default() };
        if format == OutputFormat::Npy {
            options.outputs = Some(vec![OutputKind::Dense]);
        }
        let (most_texts, most_bytes) =
            if gives(OutputKind::Tokens) && format == OutputFormat::Jsonl { PART_OF_TOKENS } else { PART };
        let width = embedder.dimensions();
        let (mut done, mut truncated) = (0, 0);
        let mut is_read =
            format == OutputFormat::Jsonl || target.write(|target| target.write_all(&npy_header(0, width)))?;
        while is_read {
            let some = texts.some(most_texts, most_bytes)?;
            if some.is_empty() {
                break;
            }
            let part = Part { bars: &bars, before: done, total: count };
            let output = block_on(embedder.encode(&some, options.clone(), &part))?;
            done += some.len();
            truncated += output.usage.truncated.len();
            is_read = target.write(|target| match format {
                OutputFormat::Jsonl => write_jsonl(target, &output),
                OutputFormat::Npy => write_rows(target, &output),
            })?;
        }
        if format == OutputFormat::Npy && is_read {
            target.rewind()?;
            target.write(|target| target.write_all(&npy_header(done, width)))?;
        }
        target.finish()?;
        bars.bar.finish_and_clear();
        if truncated > 0 {
            tell(&format!("{truncated} texts were cut to {} tokens", embedder.max_tokens()));
        }
        Ok(())
    }
}

fn write_jsonl(target: &mut dyn Write, output: &Output) -> io::Result<()> {
    let count = [
        output.dense.as_ref().map(|rows| rows.rows().len()),
        output.sparse.as_ref().map(Vec::len),
        output.tokens.as_ref().map(Vec::len),
    ];
    let only_dense = output.sparse.is_none() && output.tokens.is_none();
    for index in 0..count.into_iter().flatten().next().unwrap_or(0) {
        let mut row = serde_json::Map::new();
        if let Some(dense) = &output.dense {
            row.insert("dense".to_owned(), dense.row(index).into());
        }
        if let Some(sparse) = &output.sparse {
            let SparseVector { indices, values } = &sparse[index];
            row.insert("sparse".to_owned(), serde_json::json!({ "indices": indices, "values": values }));
        }
        if let Some(tokens) = &output.tokens {
            row.insert("tokens".to_owned(), tokens[index].rows().map(<[f32]>::to_vec).collect());
        }
        match &output.dense {
            Some(dense) if only_dense => serde_json::to_writer(&mut *target, dense.row(index))?,
            _ => serde_json::to_writer(&mut *target, &row)?,
        }
        target.write_all(b"\n")?;
    }
    Ok(())
}

fn write_rows(target: &mut dyn Write, output: &Output) -> io::Result<()> {
    let values = output.dense.iter().flat_map(|dense| &dense.values);
    let bytes: Vec<u8> = values.flat_map(|value| value.to_le_bytes()).collect();
    target.write_all(&bytes)
}

/// The header of a `[rows, width]` array of little-endian f32 in NumPy's format, version 1.0
/// (<https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html>): its length is a multiple of 64, and the same for
/// any number of rows.
fn npy_header(rows: usize, width: usize) -> Vec<u8> {
    let fields = |rows| format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({rows}, {width}), }}");
    // Magic, version and length before the fields, a line feed behind them.
    let length = (10 + fields(usize::MAX).len() + 1).next_multiple_of(64) - 10;
    let mut header = b"\x93NUMPY\x01\x00".to_vec();
    header.extend_from_slice(&(length as u16).to_le_bytes());
    header.extend_from_slice(fields(rows).as_bytes());
    header.resize(10 + length - 1, b' ');
    header.push(b'\n');
    header
}
