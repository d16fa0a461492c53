//! `wick encode`: texts in, vectors out.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, BufWriter, Write},
    num::NonZeroUsize,
    path::{Path, PathBuf},
};

use clap::ValueEnum;
use wick_embed::{
    Code, Device, Dtype, Embedder, EncodeOptions, Error, LoadOptions, Output, Result, Role, SparseVector,
    platform::native::{Directory, block_on},
};

use crate::Bars;

#[derive(clap::Args)]
pub struct Encode {
    /// The folder with config.json, tokenizer.json and model.safetensors.
    #[arg(long)]
    model: PathBuf,
    /// Texts to read; standard input by default.
    #[arg(long)]
    input: Option<PathBuf>,
    /// How texts are written; by default JSONL for a file that ends in .jsonl, lines otherwise.
    #[arg(long, value_enum)]
    input_format: Option<InputFormat>,
    /// For JSONL objects: the field that holds the text. A line may also be a bare JSON string.
    #[arg(long, default_value = "text")]
    field: String,
    /// Where vectors go; standard output by default.
    #[arg(long)]
    output: Option<PathBuf>,
    /// How vectors are written; by default .npy for a file that ends so, JSONL otherwise.
    #[arg(long, value_enum)]
    output_format: Option<OutputFormat>,
    /// What the texts are for: plain, query or document.
    #[arg(long, default_value = "plain")]
    role: Role,
    /// Where the model computes: auto, cpu, reference, cuda or metal.
    #[arg(long, default_value = "auto")]
    device: Device,
    /// How many threads compute; by default as many as the processor runs at once.
    #[arg(long)]
    threads: Option<NonZeroUsize>,
    /// How large weights are held: f32, f16 or int8; as they are stored by default.
    #[arg(long)]
    dtype: Option<Dtype>,
    /// The file with the weights, where it is not one of the usual names.
    #[arg(long)]
    weights: Option<String>,
    /// Keep the so many largest weights of each sparse vector.
    #[arg(long)]
    top_k: Option<usize>,
    /// Cut texts after this many tokens.
    #[arg(long)]
    max_tokens: Option<usize>,
    /// Keep this many leading components.
    #[arg(long)]
    dimensions: Option<usize>,
    /// Scale vectors to unit length or not; by default as the model says.
    #[arg(long)]
    normalize: Option<bool>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum InputFormat {
    /// A text per line.
    Lines,
    /// A JSON string, or an object with the text in a field, per line.
    Jsonl,
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
        let texts = self.texts()?;
        let bars = Bars::new();
        let options = LoadOptions {
            device: self.device,
            threads: self.threads,
            dtype: self.dtype,
            max_tokens: self.max_tokens,
            dimensions: self.dimensions,
            normalize: self.normalize,
            weights: self.weights.clone(),
            ..LoadOptions::default()
        };
        let embedder = block_on(Embedder::load(&Directory::new(&self.model), &options, &bars))?;
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

    fn texts(&self) -> Result<Vec<String>> {
        let format = self.input_format.unwrap_or(match &self.input {
            Some(path) if has_extension(path, "jsonl") => InputFormat::Jsonl,
            _ => InputFormat::Lines,
        });
        let at = self.input.as_deref().unwrap_or(Path::new("standard input"));
        let reader: Box<dyn BufRead> = match &self.input {
            Some(path) => Box::new(BufReader::new(File::open(path).map_err(file_error(path))?)),
            None => Box::new(io::stdin().lock()),
        };
        reader
            .lines()
            .enumerate()
            .map(|(index, line)| {
                let line = line.map_err(file_error(at))?;
                match format {
                    InputFormat::Lines => Ok(line),
                    InputFormat::Jsonl => self.text_of(&line).map_err(|message| {
                        Error::new(Code::InvalidText, format!("{}:{}", at.display(), index + 1), message)
                    }),
                }
            })
            .collect()
    }

    fn text_of(&self, line: &str) -> Result<String, String> {
        use serde_json::Value;
        match serde_json::from_str(line).map_err(|error| error.to_string())? {
            Value::String(text) => Ok(text),
            Value::Object(mut fields) => match fields.remove(&self.field) {
                Some(Value::String(text)) => Ok(text),
                Some(other) => Err(format!("field {:?} is {other}, not a string", self.field)),
                None => Err(format!("there is no field {:?}", self.field)),
            },
            other => Err(format!("{other} is neither a string nor an object")),
        }
    }
}

fn has_extension(path: &Path, extension: &str) -> bool {
    path.extension().is_some_and(|found| found == extension)
}

fn file_error(path: &Path) -> impl Fn(io::Error) -> Error {
    let at = path.display().to_string();
    move |error| Error::new(Code::Io, &at, error.to_string())
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
    let shape = (dense.rows().len(), dense.width);
    let array = candle_core::Tensor::from_slice(&dense.values, shape, &candle_core::Device::Cpu)?;
    array.write_npy(path).map_err(|error| Error::new(Code::Io, path.display().to_string(), error.to_string()))
}
