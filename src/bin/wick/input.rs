//! What commands read: a model and texts.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, BufRead, BufReader},
    num::NonZeroUsize,
    path::{Path, PathBuf},
};

use clap::ValueEnum;
use serde_json::value::RawValue;
use wick_embed::{
    Code, Device, Dtype, Embedder, Error, LoadOptions, OutputKind, RerankOptions, Result, Watch,
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
    #[command(flatten)]
    machine: Machine,
    /// Keep this many leading components.
    #[arg(long)]
    dimensions: Option<usize>,
    /// Scale vectors to unit length or not; by default as the model says.
    #[arg(long)]
    normalize: Option<bool>,
}

/// How a model of any kind is loaded.
#[derive(clap::Args)]
pub struct Machine {
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
}

impl Model {
    /// Loads it. Options that its kind of result has no place for are refused.
    pub fn load(&self, watch: &dyn Watch) -> Result<Embedder> {
        let embedder = block_on(Embedder::load(&Directory::new(&self.model), &self.how.options(), watch))?;
        let gives = |kind| embedder.outputs().contains(&kind);
        let is_dense = gives(OutputKind::Dense);
        for (name, is_idle) in [
            ("--dimensions", self.how.dimensions.is_some() && !is_dense),
            ("--normalize", self.how.normalize.is_some() && !is_dense && !gives(OutputKind::Tokens)),
        ] {
            if is_idle {
                return Err(invalid_option(name, "the model gives no dense vectors"));
            }
        }
        Ok(embedder)
    }
}

impl How {
    pub fn options(&self) -> LoadOptions {
        let Machine { device, threads, dtype, max_tokens, weights } = &self.machine;
        LoadOptions {
            device: *device,
            threads: *threads,
            dtype: *dtype,
            max_tokens: *max_tokens,
            dimensions: self.dimensions,
            normalize: self.normalize,
            weights: weights.clone(),
            ..LoadOptions::default()
        }
    }
}

impl Machine {
    pub fn rerank_options(&self) -> RerankOptions {
        RerankOptions {
            device: self.device,
            threads: self.threads,
            dtype: self.dtype,
            max_tokens: self.max_tokens,
            weights: self.weights.clone(),
            ..RerankOptions::default()
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
    /// For JSONL objects: the field that holds the text, "text" by default. A line may also be a
    /// bare JSON string.
    #[arg(long)]
    field: Option<String>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// A text per line, which may be empty.
    Lines,
    /// A JSON string, or an object with the text in a field, per line; blank lines are passed over.
    Jsonl,
}

impl Texts {
    /// Opens the input, from which texts are then read one by one.
    pub fn open(&self) -> Result<Lines> {
        let format = self.input_format.unwrap_or(match &self.input {
            Some(path) if has_extension(path, "jsonl") => Format::Jsonl,
            _ => Format::Lines,
        });
        if format == Format::Lines && self.field.is_some() {
            return Err(invalid_option("--field", "lines have no fields; --input-format jsonl has"));
        }
        let reader: Box<dyn BufRead> = match &self.input {
            Some(path) => Box::new(BufReader::new(File::open(path).map_err(file_error(path))?)),
            None => Box::new(io::stdin().lock()),
        };
        let at = self.input.clone().unwrap_or_else(|| PathBuf::from("standard input"));
        let field = self.field.clone().unwrap_or_else(|| "text".to_owned());
        Ok(Lines { reader, at, format, field, line: 0, bytes: Vec::new() })
    }

    /// Reads a file through, so that a line which cannot be read is known before the first text is
    /// computed; how many texts there are. Of what can be read only once, none.
    pub fn count(&self) -> Result<Option<usize>> {
        let is_file = self.input.as_ref().is_some_and(|path| fs::metadata(path).is_ok_and(|found| found.is_file()));
        let mut lines = self.open()?;
        match is_file {
            true => lines.try_fold(0, |count, text| text.map(|_| count + 1)).map(Some),
            false => Ok(None),
        }
    }

    /// All texts.
    pub fn read(&self) -> Result<Vec<String>> {
        self.open()?.collect()
    }
}

/// The texts of an input, in order.
pub struct Lines {
    reader: Box<dyn BufRead>,
    at: PathBuf,
    format: Format,
    field: String,
    /// Lines read so far.
    line: usize,
    bytes: Vec<u8>,
}

impl Lines {
    /// The next texts, of which there are no more than so many, and which end with the one that
    /// reaches so many bytes. Empty at the end.
    pub fn some(&mut self, texts: usize, bytes: usize) -> Result<Vec<String>> {
        let (mut some, mut length) = (Vec::new(), 0);
        while some.len() < texts && length < bytes {
            let Some(text) = self.next().transpose()? else { break };
            length += text.len();
            some.push(text);
        }
        Ok(some)
    }

    fn invalid(&self, message: impl Into<String>) -> Error {
        Error::new(Code::InvalidText, format!("{}:{}", self.at.display(), self.line), message)
    }

    fn text_of(&self, line: &str) -> Result<String> {
        let field = &self.field;
        let invalid = |error| self.invalid(explained(line, &error));
        match line.trim_ascii_start().as_bytes().first() {
            Some(b'"') => serde_json::from_str(line).map_err(invalid),
            // Other fields may be large: they are passed over.
            Some(b'{') => {
                match serde_json::from_str::<BTreeMap<String, &RawValue>>(line).map_err(invalid)?.remove(field) {
                    Some(value) if value.get().starts_with('"') => serde_json::from_str(value.get())
                        .map_err(|error| self.invalid(format!("field {field:?}: {}", explained(value.get(), &error)))),
                    Some(value) => {
                        let value: String = value.get().chars().take(40).collect();
                        Err(self.invalid(format!("field {field:?} is {value}, not a string")))
                    }
                    None => Err(self.invalid(format!("there is no field {field:?}"))),
                }
            }
            _ => {
                serde_json::from_str::<serde::de::IgnoredAny>(line).map_err(invalid)?;
                Err(self.invalid("it is neither a string nor an object"))
            }
        }
    }
}

impl Iterator for Lines {
    type Item = Result<String>;

    fn next(&mut self) -> Option<Result<String>> {
        loop {
            self.bytes.clear();
            match self.reader.read_until(b'\n', &mut self.bytes) {
                Ok(0) => return None,
                Ok(_) => self.line += 1,
                Err(error) => return Some(Err(file_error(&self.at)(error))),
            }
            let mut bytes = self.bytes.as_slice();
            // What Windows programs begin UTF-8 with.
            if self.line == 1 {
                bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
            }
            bytes = bytes.strip_suffix(b"\n").unwrap_or(bytes);
            bytes = bytes.strip_suffix(b"\r").unwrap_or(bytes);
            let text = match std::str::from_utf8(bytes) {
                Ok(text) => text,
                Err(error) => {
                    let message = format!("it is no UTF-8 from byte {} of the line on", error.valid_up_to() + 1);
                    return Some(Err(self.invalid(message)));
                }
            };
            match self.format {
                Format::Lines => return Some(Ok(text.to_owned())),
                Format::Jsonl if text.trim_ascii().is_empty() => {}
                Format::Jsonl => return Some(self.text_of(text)),
            }
        }
    }
}

/// What is wrong with JSON of one line.
fn explained(json: &str, error: &serde_json::Error) -> String {
    if let Some(escape) = lone_surrogate(json) {
        return format!("{escape} is a lone surrogate, half of a UTF-16 pair");
    }
    let (message, column) = (error.to_string(), error.column());
    match message.strip_suffix(&format!(" at line 1 column {column}")) {
        Some(message) => format!("{message} (column {column})"),
        None => message,
    }
}

/// The first escape of a UTF-16 unit that has no other half.
fn lone_surrogate(json: &str) -> Option<&str> {
    let escape = |at: usize| json.get(at..at + 6).filter(|escape| escape.starts_with("\\u"));
    let unit = |at: usize| u16::from_str_radix(escape(at)?.get(2..)?, 16).ok();
    let mut at = 0;
    loop {
        at += json.as_bytes().get(at..)?.iter().position(|&byte| byte == b'\\')?;
        at += match unit(at) {
            Some(0xd800..=0xdbff) if matches!(unit(at + 6), Some(0xdc00..=0xdfff)) => 12,
            Some(0xd800..=0xdfff) => return escape(at),
            _ => 2,
        };
    }
}

pub fn has_extension(path: &Path, extension: &str) -> bool {
    path.extension().is_some_and(|found| found == extension)
}

pub fn file_error(path: &Path) -> impl Fn(io::Error) -> Error {
    let at = path.display().to_string();
    move |error| Error::new(Code::Io, &at, error.to_string())
}

/// The error for an option that cannot be honoured.
pub fn invalid_option(name: &str, message: &str) -> Error {
    Error::new(Code::InvalidOption, name, message)
}
