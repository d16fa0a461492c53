//! `wick encode`: texts in, vectors out.

use std::{
    fs::File,
    io::{self, BufWriter, Write},
    path::{Path, PathBuf},
};

use clap::ValueEnum;
use wick_embed::{Code, EncodeOptions, Error, Output, Result, Role, SparseVector, platform::native::block_on};

use crate::{
    Bars,
    input::{Model, Texts, file_error, has_extension},
};

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
    /// Keep the so many largest weights of each sparse vector.
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
        if format == OutputFormat::Npy && self.output.is_none() {
            return Err(Error::new(Code::InvalidOption, "--output-format", "npy needs --output"));
        }
        let texts = self.texts.read()?;
        let bars = Bars::new();
        let embedder = self.model.load(&bars)?;
        let options = EncodeOptions { role: self.role, top_k: self.top_k, ..EncodeOptions::default() };
        let output = block_on(embedder.encode(&texts, options, &bars))?;
        bars.bar.finish_and_clear();
        if !output.usage.truncated.is_empty() {
            let (count, limit) = (output.usage.truncated.len(), embedder.max_tokens());
            let _ = writeln!(io::stderr(), "wick: {count} texts were cut to {limit} tokens");
        }
        match (format, &self.output) {
            (OutputFormat::Npy, Some(path)) => write_npy(path, &output),
            (_, Some(path)) => {
                write_jsonl(File::create(path).map_err(file_error(path))?, &output).map_err(file_error(path))
            }
            (_, None) => write_jsonl(io::stdout().lock(), &output).map_err(file_error(Path::new("standard output"))),
        }
    }
}

fn write_jsonl(target: impl Write, output: &Output) -> io::Result<()> {
    let mut target = BufWriter::new(target);
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
            Some(dense) if only_dense => serde_json::to_writer(&mut target, dense.row(index))?,
            _ => serde_json::to_writer(&mut target, &row)?,
        }
        target.write_all(b"\n")?;
    }
    target.flush()
}

fn write_npy(path: &Path, output: &Output) -> Result<()> {
    let Some(dense) = &output.dense else {
        return Err(Error::new(
            Code::InvalidOption,
            "--output-format",
            "npy holds dense vectors, which this model gives none of",
        ));
    };
    let mut file = BufWriter::new(File::create(path).map_err(file_error(path))?);
    let written = file.write_all(&npy_header(dense.rows().len(), dense.width)).and_then(|()| {
        dense.values.iter().try_for_each(|value| file.write_all(&value.to_le_bytes()))?;
        file.flush()
    });
    written.map_err(file_error(path))
}

/// The header of a `[rows, width]` array of little-endian f32 in NumPy's format, version 1.0
/// (<https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html>): its length is a multiple of 64.
fn npy_header(rows: usize, width: usize) -> Vec<u8> {
    let fields = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({rows}, {width}), }}");
    // Magic, version and length before the fields, a line feed behind them.
    let length = (10 + fields.len() + 1).next_multiple_of(64) - 10;
    let mut header = b"\x93NUMPY\x01\x00".to_vec();
    header.extend_from_slice(&(length as u16).to_le_bytes());
    header.extend_from_slice(fields.as_bytes());
    header.resize(10 + length - 1, b' ');
    header.push(b'\n');
    header
}
