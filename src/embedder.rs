//! The product: texts in, vectors out, in the caller's order.

use futures_util::future::join_all;

use crate::{
    encoder::Encoder,
    error::{Code, Error, Result},
    head::DenseHead,
    model::{Architecture, Config, pipeline},
    ops::{Device, Ops, candle::Candle},
    platform::{Body, Files, Pacer},
    text::{self, Batch, Encoded, Prompts, Role, Tokenizer},
    weights::{Loader, Reader},
};

/// Most tokens of a batch that has more than one text. Bounds the memory of activations (the widest of MiniLM is 6 MB here)
/// and the time until a cancelled call stops; larger batches were not faster.
const BATCH_TOKENS: usize = 1024;

/// Most bytes of a file that is read whole (all but the weights). The largest known tokenizer is 33 MB.
const MAX_SMALL_FILE: usize = 256 << 20;

const CONFIG: &str = "config.json";
const MODULES: &str = "modules.json";
const TRANSFORMER: &str = "sentence_bert_config.json";
const TOKENIZER: &str = "tokenizer.json";
const TOKENIZER_CONFIG: &str = "tokenizer_config.json";
const PROMPTS: &str = "config_sentence_transformers.json";
const WEIGHTS: &str = "model.safetensors";

/// How a model is loaded. The default takes everything from the model's own files; name what differs and take the rest from
/// `..LoadOptions::default()`, since there will be more.
#[derive(Debug, Clone, Default, serde::Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct LoadOptions {
    /// Where the model computes.
    pub device: Device,
    /// Cut texts after this many tokens, special tokens included. At most what the position embedding reaches.
    pub max_tokens: Option<usize>,
    /// Keep this many leading components of each vector (for models trained that way).
    pub dimensions: Option<usize>,
    /// Whether vectors have unit length; by default as `modules.json` says.
    pub normalize: Option<bool>,
}

/// What a long call tells its caller, and asks.
pub trait Watch {
    /// Bytes of all files so far, and of all files in total where servers said.
    fn loaded(&self, _loaded: u64, _total: Option<u64>, _file: &str) {}

    /// Texts encoded so far.
    fn encoded(&self, _done: usize, _total: usize) {}

    /// Whether to stop. Asked between chunks of a file and between batches.
    fn cancelled(&self) -> bool {
        false
    }
}

/// Sees nothing and never stops.
impl Watch for () {}

/// Equally wide vectors, one per text.
#[derive(Debug, Clone, PartialEq)]
pub struct Vectors {
    /// Components of each vector.
    pub width: usize,
    /// All vectors, one after the other.
    pub values: Vec<f32>,
}

impl Vectors {
    /// The vector of text `index`.
    pub fn row(&self, index: usize) -> &[f32] {
        &self.values[index * self.width..][..self.width]
    }

    /// All vectors in order.
    pub fn rows(&self) -> impl ExactSizeIterator<Item = &[f32]> {
        self.values.chunks_exact(self.width)
    }
}

/// What a call used.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Usage {
    /// Tokens that went through the model, special tokens included.
    pub tokens: usize,
    /// Indices of the texts that were cut to the model's length.
    pub truncated: Vec<usize>,
}

/// The result of [`Embedder::encode`].
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Output {
    pub dense: Vectors,
    pub usage: Usage,
}

/// A token as the model sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token {
    pub id: u32,
    /// The vocabulary's string.
    pub text: String,
}

/// An encoder with the executor it was loaded on.
struct Engine<O: Ops> {
    ops: O,
    encoder: Encoder<O>,
    width: usize,
}

/// A loaded model.
pub struct Embedder {
    engine: Engine<Candle>,
    tokenizer: Tokenizer,
    prompts: Prompts,
    head: DenseHead,
    /// Whether pooling reads the prompt's tokens.
    pool_prompt: bool,
    max_tokens: usize,
}

impl Embedder {
    /// Loads a model from its files: `config.json`, `tokenizer.json` and `model.safetensors`, and where present `modules.json`,
    /// the pooling configuration it names, `sentence_bert_config.json`, `config_sentence_transformers.json` and
    /// `tokenizer_config.json`. All are opened at once; the weights are packed while they arrive.
    pub async fn load<F: Files, W: Watch>(files: &F, options: &LoadOptions, watch: &W) -> Result<Self> {
        let names = [CONFIG, MODULES, TRANSFORMER, TOKENIZER, TOKENIZER_CONFIG, PROMPTS, WEIGHTS];
        let mut opened = Vec::with_capacity(names.len());
        for body in join_all(names.iter().map(|name| files.open(name))).await {
            opened.push(body?);
        }
        let mut meter = Meter { watch, files: Vec::new() };
        for (name, body) in names.iter().zip(&opened) {
            if let Some(body) = body {
                meter.expect(name, body);
            }
        }
        let mut opened = opened.into_iter();
        let mut small = Vec::new();
        for (name, body) in names.iter().zip(opened.by_ref()).take(names.len() - 1) {
            small.push(match body {
                Some(body) => Some(meter.whole(name, body).await?),
                None => None,
            });
        }
        let weights = opened.next().flatten();
        let [config, modules, transformer, tokenizer, tokenizer_config, prompts] =
            small.try_into().unwrap_or_else(|_| unreachable!("six files come before the weights"));

        let architecture = Architecture::from_config(&Config::from_bytes(&required(CONFIG, config)?)?)?;
        let mut weights = required(WEIGHTS, weights)?;
        let modules = pipeline::Modules::from_bytes(modules.as_deref())?;
        let pooling_file = modules.pooling.as_ref().map(|path| format!("{path}/{CONFIG}"));
        let pooling = match &pooling_file {
            Some(file) => {
                let body = required(file, files.open(file).await?)?;
                meter.expect(file, &body);
                Some(meter.whole(file, body).await?)
            }
            None => None,
        };
        let pooling =
            pipeline::PoolingConfig::from_bytes(pooling_file.as_deref().unwrap_or_default(), pooling.as_deref())?;
        let transformer = pipeline::TransformerConfig::from_bytes(transformer.as_deref())?;
        let tokenizer_config = pipeline::TokenizerConfig::from_bytes(tokenizer_config.as_deref())?;
        let prompts = pipeline::prompts(prompts.as_deref())?;

        let reach = architecture.max_positions;
        let max_tokens = match options.max_tokens {
            Some(asked) if asked > reach => {
                return Err(invalid_option("maxTokens", format!("{asked} is more than the model's {reach}")));
            }
            Some(asked) => asked,
            None => pipeline::max_tokens(&transformer, &tokenizer_config, reach),
        };
        let tokenizer = Tokenizer::from_bytes(&required(TOKENIZER, tokenizer)?, max_tokens, transformer.do_lower_case)?;
        if tokenizer.id_bound() > architecture.vocabulary as u64 {
            return Err(Error::new(
                Code::InvalidTokenizer,
                TOKENIZER,
                format!(
                    "its vocabulary of {} does not fit the model's {} rows",
                    tokenizer.id_bound(),
                    architecture.vocabulary
                ),
            ));
        }
        let mut head = pipeline::dense_head(&modules, &pooling);
        head.normalize = options.normalize.unwrap_or(head.normalize);
        head.dimensions = options.dimensions;
        let width = architecture.width * head.pooling.len();
        if let Some(asked) = options.dimensions.filter(|asked| !(1..=width).contains(asked)) {
            return Err(invalid_option("dimensions", format!("{asked} is not between 1 and {width}")));
        }

        let ops = Candle::on(options.device)?;
        let mut loader = Loader::new(WEIGHTS, &ops, &architecture, None);
        let mut reader = Reader::new(WEIGHTS)?;
        let mut pacer = Pacer::new();
        while let Some(chunk) = weights.chunk().await? {
            reader.push(chunk, &mut loader)?;
            meter.add(WEIGHTS, chunk.len())?;
            pacer.breathe().await;
        }
        reader.finish()?;
        meter.end(WEIGHTS);
        let encoder = loader.finish()?;
        Ok(Self {
            engine: Engine { ops, encoder, width: architecture.width },
            tokenizer,
            prompts,
            head,
            pool_prompt: pooling.include_prompt,
            max_tokens,
        })
    }

    /// Encodes texts, each with the prompt that the model has for `role`. Vectors come in the order of the texts, whatever
    /// order they were computed in; a text's vector does not depend on the others.
    pub async fn encode<T: AsRef<str>, W: Watch>(&self, texts: &[T], role: Role, watch: &W) -> Result<Output> {
        let mut pacer = Pacer::new();
        let mut encoded = Vec::with_capacity(texts.len());
        for text in texts {
            check(watch)?;
            encoded.push(self.tokenized(text.as_ref(), role)?);
            pacer.breathe().await;
        }
        let usage = Usage {
            tokens: encoded.iter().map(|text| text.ids.len()).sum(),
            truncated: (0..encoded.len()).filter(|&index| encoded[index].truncated).collect(),
        };
        let width = self.dimensions();
        let mut values = zeros(texts.len(), width)?;
        let lengths: Vec<usize> = encoded.iter().map(|text| text.ids.len()).collect();
        let mut done = 0;
        for indices in text::plan(&lengths, BATCH_TOKENS) {
            check(watch)?;
            // A text without a single token keeps the zero vector.
            let filled: Vec<usize> = indices.iter().copied().filter(|&index| lengths[index] > 0).collect();
            if !filled.is_empty() {
                let batch = Batch::pack(filled.iter().map(|&index| &encoded[index]));
                let rows = self.engine.vectors(&self.head, &batch).await?;
                for (index, row) in filled.iter().zip(rows) {
                    values[index * width..][..width].copy_from_slice(&row);
                }
            }
            done += indices.len();
            watch.encoded(done, texts.len());
            pacer.breathe().await;
        }
        Ok(Output { dense: Vectors { width, values }, usage })
    }

    /// The tokens of a text as the model would see it: prompt, special tokens and truncation included.
    pub fn tokenize(&self, text: &str, role: Role) -> Result<Vec<Token>> {
        let ids = self.tokenized(text, role)?.ids;
        let token = |id| Token { id, text: self.tokenizer.token(id).unwrap_or_default() };
        Ok(ids.into_iter().map(token).collect())
    }

    fn tokenized(&self, text: &str, role: Role) -> Result<Encoded> {
        self.tokenizer.encode(self.prompts.prefix(role), text, self.pool_prompt)
    }

    /// Components of a vector.
    pub fn dimensions(&self) -> usize {
        self.head.width(self.engine.width)
    }

    /// Most tokens of a text, special tokens included.
    pub fn max_tokens(&self) -> usize {
        self.max_tokens
    }
}

impl<O: Ops> Engine<O> {
    async fn vectors(&self, head: &DenseHead, batch: &Batch) -> Result<Vec<Vec<f32>>> {
        let hidden = self.encoder.forward(&self.ops, batch)?;
        head.apply(&self.ops, &hidden, batch).await
    }
}

/// Counts the bytes of all files.
struct Meter<'a, W: Watch> {
    watch: &'a W,
    /// Name, bytes so far, and how many there will be.
    files: Vec<(String, u64, Option<u64>)>,
}

impl<W: Watch> Meter<'_, W> {
    fn expect(&mut self, file: &str, body: &impl Body) {
        self.files.push((file.to_owned(), 0, body.length()));
    }

    fn tell(&self, file: &str) {
        let loaded = self.files.iter().map(|(_, loaded, _)| loaded).sum();
        // A server may have said too little: it counts compressed bytes.
        let total = self.files.iter().map(|(_, loaded, length)| Some((*length)?.max(*loaded))).sum();
        self.watch.loaded(loaded, total, file);
    }

    fn add(&mut self, file: &str, bytes: usize) -> Result<()> {
        for (_, loaded, _) in self.files.iter_mut().filter(|(name, ..)| name == file) {
            *loaded += bytes as u64;
        }
        self.tell(file);
        check(self.watch)
    }

    /// From here on the file's length is known.
    fn end(&mut self, file: &str) {
        for (_, loaded, length) in self.files.iter_mut().filter(|(name, ..)| name == file) {
            *length = Some(*loaded);
        }
        self.tell(file);
    }

    async fn whole<B: Body>(&mut self, file: &str, mut body: B) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        while let Some(chunk) = body.chunk().await? {
            if bytes.len() + chunk.len() > MAX_SMALL_FILE {
                return Err(Error::new(Code::InvalidConfig, file, "the file is larger than any of its kind"));
            }
            bytes.extend_from_slice(chunk);
            self.add(file, chunk.len())?;
        }
        self.end(file);
        Ok(bytes)
    }
}

/// Room for the result, which may be more than there is: a million vectors of 384 are 1.5 GB.
fn zeros(rows: usize, width: usize) -> Result<Vec<f32>> {
    let mut values = Vec::new();
    match rows.checked_mul(width) {
        Some(count) if values.try_reserve_exact(count).is_ok() => values.resize(count, 0.0),
        _ => return Err(Error::new(Code::OutOfMemory, "encode", format!("no memory for {rows} vectors of {width}"))),
    }
    Ok(values)
}

fn check(watch: &impl Watch) -> Result<()> {
    match watch.cancelled() {
        true => Err(Error::new(Code::Aborted, "embedder", "the caller asked to stop")),
        false => Ok(()),
    }
}

fn required<T>(file: &str, found: Option<T>) -> Result<T> {
    found.ok_or_else(|| Error::new(Code::MissingFile, file, "the model has no such file"))
}

fn invalid_option(name: &str, message: String) -> Error {
    Error::new(Code::InvalidOption, name, message)
}
