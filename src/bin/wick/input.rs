//! What commands read: a model and texts.

use std::{
    fs::File,
    io::{self, BufRead, BufReader},
    num::NonZeroUsize,
    path::{Path, PathBuf},
};

use clap::ValueEnum;
use wick_embed::{
    Code, Device, Dtype, Embedder, Error, LoadOptions, Result, Watch,
    platform::native::{Directory, block_on},
};

#[derive(clap::Args)]
pub struct Model {
    /// The folder with config.json, tokenizer.json and model.safetensors.
    #[arg(long)]
    model: PathBuf,
    #[command(flatten)]
    how: How,
}

/// How a model is loaded.
#[derive(clap::Args)]
pub struct How {
    /// Where the model computes: auto, cpu, gpu (any, by WebGPU), reference, cuda or metal.
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

impl Model {
    pub fn load(&self, watch: &dyn Watch) -> Result<Embedder> {
        block_on(Embedder::load(&Directory::new(&self.model), &self.how.options(), watch))
    }
}

impl How {
    pub fn options(&self) -> LoadOptions {
        LoadOptions {
            device: self.device,
            threads: self.threads,
            dtype: self.dtype,
            max_tokens: self.max_tokens,
            dimensions: self.dimensions,
            normalize: self.normalize,
            weights: self.weights.clone(),
            ..LoadOptions::default()
        }
    }
}

#[derive(clap::Args)]
pub struct Texts {
    /// Texts to read; standard input by default.
    #[arg(long)]
    input: Option<PathBuf>,
    /// How texts are written; by default JSONL for a file that ends in .jsonl, lines otherwise.
    #[arg(long, value_enum)]
    input_format: Option<Format>,
    /// For JSONL objects: the field that holds the text. A line may also be a bare JSON string.
    #[arg(long, default_value = "text")]
    field: String,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// A text per line.
    Lines,
    /// A JSON string, or an object with the text in a field, per line.
    Jsonl,
}

impl Texts {
    pub fn read(&self) -> Result<Vec<String>> {
        let format = self.input_format.unwrap_or(match &self.input {
            Some(path) if has_extension(path, "jsonl") => Format::Jsonl,
            _ => Format::Lines,
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
                    Format::Lines => Ok(line),
                    Format::Jsonl => self.text_of(&line).map_err(|message| {
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

pub fn has_extension(path: &Path, extension: &str) -> bool {
    path.extension().is_some_and(|found| found == extension)
}

pub fn file_error(path: &Path) -> impl Fn(io::Error) -> Error {
    let at = path.display().to_string();
    move |error| Error::new(Code::Io, &at, error.to_string())
}
