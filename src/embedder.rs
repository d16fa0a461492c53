//! The product: texts in, vectors out, in the caller's order.

use crate::{
    error::{Code, Error, Result},
    head::{Colbert, Dense, Lexical, Projection, Splade, normalize},
    load::{CONFIG, Engine, Request, Session, TOKENIZER, Watch, architecture, check, fits, invalid_option},
    model::{Architecture, LinearPlan, Purpose, StaticPlan, StaticTable, pipeline},
    ops::{Device, candle::Candle, host::Host},
    platform::{Files, Pacer},
    sparse::SparseVector,
    text::{self, Batch, Encoded, Form, Prompts, Role, Tokenizer},
    weights::Dtype,
};

/// Most tokens of a batch that has more than one text. Bounds the memory of activations (the widest of MiniLM is 6 MB here)
/// and the time until a cancelled call stops; larger batches were not faster.
pub(crate) const BATCH_TOKENS: usize = 1024;

/// Most values of all texts of a batch over the vocabulary (16 MB).
const MOST_LOGITS: usize = 1 << 22;

pub(crate) const MODULES: &str = "modules.json";
pub(crate) const PROMPTS: &str = "config_sentence_transformers.json";

/// A kind of result.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum OutputKind {
    /// One vector per text.
    Dense,
    /// Weights over the vocabulary.
    Sparse,
    /// One vector per token, for late interaction.
    Tokens,
}

/// How a model is loaded. The default takes everything from the model's own files; name what differs and take the rest from
/// `..LoadOptions::default()`, since there will be more.
#[derive(Debug, Clone, Default, serde::Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct LoadOptions {
    /// Where the model computes.
    pub device: Device,
    /// How large weights are held; as they are stored by default (bf16 as f32).
    pub dtype: Option<Dtype>,
    /// Cut texts after this many tokens, special tokens included. At most what the model's positions reach.
    pub max_tokens: Option<usize>,
    /// Keep this many leading components of each dense vector (for models trained that way).
    pub dimensions: Option<usize>,
    /// Whether vectors have unit length; by default as `modules.json` says.
    pub normalize: Option<bool>,
    /// What the model is to give; all it can by default.
    pub outputs: Option<Vec<OutputKind>>,
    /// Put before queries and documents; by default what the model's files say, or what is known for its name.
    pub prompts: Option<RolePrompts>,
    /// The file with the weights, where it is not one of the usual names.
    pub weights: Option<String>,
}

/// What is put before texts, by what they are for.
#[derive(Debug, Clone, Default, serde::Deserialize)]
#[serde(default)]
pub struct RolePrompts {
    pub query: String,
    pub document: String,
}

/// What a call asks for. A [`Role`] alone is such a thing.
#[derive(Debug, Clone, Default)]
pub struct EncodeOptions {
    /// What the texts are for, which decides the prompt.
    pub role: Role,
    /// Another prompt than the role's, put before each text as it stands.
    pub prompt: Option<String>,
    /// What to give of what the model was loaded for; all by default.
    pub outputs: Option<Vec<OutputKind>>,
    /// Keep the so many largest weights of each sparse vector.
    pub top_k: Option<usize>,
}

impl From<Role> for EncodeOptions {
    fn from(role: Role) -> Self {
        Self { role, ..Self::default() }
    }
}

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

/// The result of [`Embedder::encode`]: for each text, in order, what the model gives and the call asked for.
#[derive(Debug, Clone, Default, PartialEq)]
#[non_exhaustive]
pub struct Output {
    /// A vector.
    pub dense: Option<Vectors>,
    /// A sparse vector over the vocabulary.
    pub sparse: Option<Vec<SparseVector>>,
    /// A vector for each token but the first.
    pub tokens: Option<Vec<Vectors>>,
    pub usage: Usage,
}

/// A token as the model sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token {
    pub id: u32,
    /// The vocabulary's string.
    pub text: String,
}

/// What computes.
enum Model {
    Transformer(Box<Transformer>),
    Static {
        table: StaticTable<Host>,
        /// Median length of a token's string, by which Model2Vec cuts texts; none for sentence-transformers' own tables.
        median: Option<usize>,
        dimensions: Option<usize>,
        normalize: bool,
    },
}

struct Transformer {
    engine: Engine<Candle>,
    dense: Option<Dense<Candle>>,
    sparse: Option<Sparse>,
    colbert: Option<Colbert<Candle>>,
}

enum Sparse {
    Splade(Splade),
    Lexical(Lexical<Candle>),
}

/// A loaded model.
pub struct Embedder {
    model: Model,
    tokenizer: Tokenizer,
    prompts: Prompts,
    /// Whether pooling reads the prompt's tokens.
    pool_prompt: bool,
    outputs: Vec<OutputKind>,
}

impl Embedder {
    /// Loads a model from its files: `config.json`, `tokenizer.json` and its weights, and where present those of the
    /// sentence-transformers layout. The usual ones are opened at once; weights are packed while they arrive.
    pub async fn load<F: Files, W: Watch>(files: &F, options: &LoadOptions, watch: &W) -> Result<Self> {
        let request = Request {
            device: options.device,
            dtype: options.dtype,
            max_tokens: options.max_tokens,
            weights: options.weights.clone(),
        };
        let mut session = Session::open(files, watch, &request, &[MODULES, PROMPTS]).await?;
        let listed = session.small(MODULES).await?;
        let config = session.small(CONFIG).await?;
        let prompts = session.small(PROMPTS).await?;
        let mut modules = pipeline::Modules::from_bytes(listed.as_deref())?;
        if listed.is_none() && pipeline::is_static(config.as_deref(), prompts.is_some()) {
            modules.static_table = Some(String::new());
        }
        let mut embedder = match &modules.static_table {
            Some(folder) => {
                // Model2Vec's settings, in its own layout or in that of sentence-transformers, which has tables of its own too.
                let is_model2vec = listed.is_none() || pipeline::is_static(config.as_deref(), false);
                let settings = config.as_deref().or(prompts.as_deref()).filter(|_| is_model2vec);
                Self::load_static(&mut session, folder, settings, options, &request, modules.normalize).await?
            }
            None => {
                let architecture = architecture(config.as_deref())?;
                let listed = listed.is_some();
                Self::load_transformer(&mut session, architecture, &modules, listed, options, &request).await?
            }
        };
        let name = session.name();
        embedder.prompts = match &options.prompts {
            // Also empty ones: a caller may want none.
            Some(prompts) => Prompts::new(&prompts.query, &prompts.document),
            None => pipeline::prompts(prompts.as_deref())?.or_known(name.as_deref()),
        }
        .used_as(name.as_deref());
        embedder.pool_prompt &= !embedder.prompts.unpooled;
        Ok(embedder)
    }

    async fn load_transformer<F: Files, W: Watch>(
        session: &mut Session<'_, F, W>,
        architecture: Architecture,
        modules: &pipeline::Modules,
        listed: bool,
        options: &LoadOptions,
        request: &Request,
    ) -> Result<Self> {
        let asked = |kind| options.outputs.as_ref().is_none_or(|outputs| outputs.contains(&kind));
        let named = |kind| options.outputs.as_ref().is_some_and(|outputs| outputs.contains(&kind));
        // A masked language model without a list of stages is taken for what sentence-transformers takes it: SPLADE.
        let logits = architecture.is_masked_lm() && (!listed || named(OutputKind::Sparse));
        let is_splade = (modules.splade.is_some() || logits) && asked(OutputKind::Sparse);
        let has_dense = match listed {
            true => modules.pooling.is_some(),
            false => !is_splade || named(OutputKind::Dense),
        };

        let (pooling, projections) = match has_dense && asked(OutputKind::Dense) {
            true => (Some(pooling_config(session, modules).await?), dense_configs(session, modules).await?),
            false => (None, Vec::new()),
        };
        let logarithms = match &modules.splade {
            Some(folder) => {
                let file = format!("{folder}/{CONFIG}");
                pipeline::splade_logarithms(&file, &session.required(&file).await?)?
            }
            None => 1,
        };
        let tokenizer = session.tokenizer(&architecture, request, Form::Text).await?;
        let pool_prompt = pooling.as_ref().is_none_or(|pooling| pooling.include_prompt);
        let mut width = pooling.as_ref().map_or(0, |pooling| pooling.modes.len() * architecture.width);
        for (file, config) in &projections {
            if config.in_features != width || config.out_features == 0 {
                let message = format!("in_features is {}, what comes before it gives {width}", config.in_features);
                return Err(Error::new(Code::InvalidConfig, file, message));
            }
            width = config.out_features;
        }
        if let (Some(dimensions), true) = (options.dimensions, pooling.is_some()) {
            check_dimensions(dimensions, width)?;
        }

        let purpose = if is_splade { Purpose::Splade } else { Purpose::Embed };
        let mut engine = session.engine(&architecture, purpose, request).await?;
        let ops = engine.ops.clone();
        // llama.cpp, whose files these are, normalises unless it is told not to.
        let is_described = !listed && session.described_pooling().is_some();
        let dense = match pooling {
            None => None,
            Some(pooling) => {
                let mut stages = Vec::with_capacity(projections.len());
                for ((file, config), folder) in projections.iter().zip(&modules.projections) {
                    let shape = [config.out_features, config.in_features];
                    let plan = LinearPlan { prefix: "linear.", shape, bias: config.bias };
                    let names = ["model.safetensors", "pytorch_model.bin"].map(|name| format!("{folder}/{name}"));
                    let linear = session.first_weights(&names, &ops, &plan).await?;
                    let linear =
                        linear.ok_or_else(|| Error::new(Code::MissingFile, &names[0], "nor is there a .bin"))?;
                    stages.push(Projection { linear, activation: config.activation(file)? });
                }
                Some(Dense {
                    pooling: pooling.modes,
                    projections: stages,
                    width,
                    dimensions: options.dimensions,
                    standardize_before_cut: architecture.standardizes_before_cut(),
                    normalize: options.normalize.unwrap_or(modules.normalize || is_described),
                })
            }
        };

        let lexical = |linear| {
            let special = ["<s>", "</s>", "<pad>", "<unk>", "[CLS]", "[SEP]", "[PAD]", "[UNK]"];
            Sparse::Lexical(Lexical { linear, excluded: tokenizer.ids_of(&special) })
        };
        let mut sparse = engine.network.lexical.take().filter(|_| asked(OutputKind::Sparse)).map(lexical);
        if is_splade {
            sparse = Some(Sparse::Splade(Splade { logarithms, vocabulary: tokenizer.id_bound() as usize }));
        }
        let mut colbert = None;
        if architecture.may_have_bge_heads() && !is_splade {
            // BGE-M3 has its heads in files of their own.
            let width = architecture.width;
            let names = |head: &str| ["safetensors", "pt"].map(|end| format!("{head}_linear.{end}"));
            if asked(OutputKind::Sparse) {
                let plan = LinearPlan { prefix: "", shape: [1, width], bias: true };
                sparse = session.first_weights(&names("sparse"), &ops, &plan).await?.map(lexical);
            }
            // Who has one has both.
            if named(OutputKind::Tokens) || (asked(OutputKind::Tokens) && sparse.is_some()) {
                let plan = LinearPlan { prefix: "", shape: [width, width], bias: true };
                let linear = session.first_weights(&names("colbert"), &ops, &plan).await?;
                let normalize = options.normalize.unwrap_or(true);
                colbert = linear.map(|linear| Colbert { linear, width, normalize });
            }
        }
        let outputs: Vec<OutputKind> = [
            dense.as_ref().map(|_| OutputKind::Dense),
            sparse.as_ref().map(|_| OutputKind::Sparse),
            colbert.as_ref().map(|_| OutputKind::Tokens),
        ]
        .into_iter()
        .flatten()
        .collect();
        check_outputs(options.outputs.as_deref(), &outputs)?;
        if outputs.is_empty() {
            let message = "its stages give hidden states, but no pooling and no head makes a result of them";
            return Err(Error::new(Code::UnsupportedModel, MODULES, message));
        }
        let model = Model::Transformer(Box::new(Transformer { engine, dense, sparse, colbert }));
        Ok(Self { model, tokenizer, prompts: Prompts::default(), pool_prompt, outputs })
    }

    async fn load_static<F: Files, W: Watch>(
        session: &mut Session<'_, F, W>,
        folder: &str,
        settings: Option<&[u8]>,
        options: &LoadOptions,
        request: &Request,
        normalized: bool,
    ) -> Result<Self> {
        let below = |file: &str| if folder.is_empty() { file.to_owned() } else { format!("{folder}/{file}") };
        check_outputs(options.outputs.as_deref(), &[OutputKind::Dense])?;
        let is_model2vec = settings.is_some();
        let config = match settings {
            Some(settings) => pipeline::StaticConfig::from_bytes(CONFIG, settings)?,
            None => pipeline::StaticConfig { normalize: false, max_length: None },
        };
        let json = session.tokenizer_json(&below(TOKENIZER)).await?;
        let max_tokens = options.max_tokens.or(config.max_length).unwrap_or(u32::MAX as usize);
        let tokenizer = Tokenizer::from_bytes(&json, max_tokens, false, Form::Words)?;
        let file = match &request.weights {
            Some(file) => file.clone(),
            None => below("model.safetensors"),
        };
        let table = session.weights(&file, &Host, &StaticPlan, request.dtype).await?;
        table.check()?;
        fits(&tokenizer, table.tokens())?;
        if let Some(dimensions) = options.dimensions {
            check_dimensions(dimensions, table.width)?;
        }
        let median = is_model2vec.then(|| tokenizer.median_length());
        let normalize = options.normalize.unwrap_or(config.normalize || normalized);
        Ok(Self {
            model: Model::Static { table, median, dimensions: options.dimensions, normalize },
            tokenizer,
            prompts: Prompts::default(),
            pool_prompt: true,
            outputs: vec![OutputKind::Dense],
        })
    }

    /// Encodes texts, each with the prompt that the model has for its role. Results come in the order of the texts, whatever
    /// order they were computed in; a text's vectors do not depend on the others.
    pub async fn encode<T: AsRef<str>, W: Watch>(
        &self,
        texts: &[T],
        options: impl Into<EncodeOptions>,
        watch: &W,
    ) -> Result<Output> {
        let options = options.into();
        check_outputs(options.outputs.as_deref(), &self.outputs)?;
        let wanted = |kind| {
            self.outputs.contains(&kind) && options.outputs.as_ref().is_none_or(|outputs| outputs.contains(&kind))
        };
        let mut pacer = Pacer::new();
        let mut encoded = Vec::with_capacity(texts.len());
        for text in texts {
            check(watch)?;
            encoded.push(self.tokenized(text.as_ref(), options.role, options.prompt.as_deref())?);
            pacer.breathe().await;
        }
        let lengths: Vec<usize> = encoded.iter().map(|text| text.ids.len()).collect();
        let usage = Usage {
            tokens: lengths.iter().sum(),
            truncated: (0..encoded.len()).filter(|&index| encoded[index].truncated).collect(),
        };
        let mut rows = Rows {
            dense: match wanted(OutputKind::Dense) {
                true => Some(Vectors { width: self.dimensions(), values: zeros(texts.len(), self.dimensions())? }),
                false => None,
            },
            sparse: wanted(OutputKind::Sparse).then(|| vec![SparseVector::default(); texts.len()]),
            tokens: wanted(OutputKind::Tokens).then(|| vec![Vec::new(); texts.len()]),
        };
        let mut done = 0;
        for indices in text::plan(&lengths, BATCH_TOKENS, self.model.most_texts()) {
            check(watch)?;
            // A text without a single token keeps the zero vector.
            let filled: Vec<usize> = indices.iter().copied().filter(|&index| lengths[index] > 0).collect();
            if !filled.is_empty() {
                self.model.fill(&mut rows, &encoded, &filled, options.top_k).await?;
            }
            done += indices.len();
            watch.encoded(done, texts.len());
            pacer.breathe().await;
        }
        let width = self.model.token_width();
        let tokens = rows.tokens.map(|rows| rows.into_iter().map(|values| Vectors { width, values }).collect());
        Ok(Output { dense: rows.dense, sparse: rows.sparse, tokens, usage })
    }

    /// The tokens of a text as the model would see it: prompt, special tokens and truncation included.
    pub fn tokenize(&self, text: &str, role: Role) -> Result<Vec<Token>> {
        let ids = self.tokenized(text, role, None)?.ids;
        let token = |id| Token { id, text: self.tokenizer.token(id).unwrap_or_default() };
        Ok(ids.into_iter().map(token).collect())
    }

    fn tokenized(&self, text: &str, role: Role, prompt: Option<&str>) -> Result<Encoded> {
        let prompt = prompt.unwrap_or_else(|| self.prompts.prefix(role));
        let text = if self.prompts.strip { text.trim() } else { text };
        match &self.model {
            Model::Transformer(_) => self.tokenizer.encode(prompt, text, self.pool_prompt),
            Model::Static { median, .. } => self.tokenizer.encode_words(&format!("{prompt}{text}"), *median),
        }
    }

    /// The vocabulary's string for each index of a sparse vector.
    pub fn decode(&self, indices: &[u32]) -> Vec<String> {
        indices.iter().map(|&index| self.tokenizer.token(index).unwrap_or_default()).collect()
    }

    /// Components of a dense vector; of a model that gives none, entries of the vocabulary.
    pub fn dimensions(&self) -> usize {
        match &self.model {
            Model::Static { table, dimensions, .. } => dimensions.unwrap_or(table.width),
            Model::Transformer(transformer) => match &transformer.dense {
                Some(dense) => dense.dimensions(),
                None => self.tokenizer.id_bound() as usize,
            },
        }
    }

    /// Most tokens of a text, special tokens included.
    pub fn max_tokens(&self) -> usize {
        self.tokenizer.max_tokens()
    }

    /// What the model gives.
    pub fn outputs(&self) -> &[OutputKind] {
        &self.outputs
    }
}

/// Results of a call while they are made.
struct Rows {
    dense: Option<Vectors>,
    sparse: Option<Vec<SparseVector>>,
    tokens: Option<Vec<Vec<f32>>>,
}

impl Model {
    /// Computes a batch, the texts at `indices`, and puts its results in their places.
    async fn fill(&self, rows: &mut Rows, encoded: &[Encoded], indices: &[usize], top_k: Option<usize>) -> Result<()> {
        match self {
            Model::Static { table, normalize: unit, .. } => {
                let Some(dense) = &mut rows.dense else {
                    return Ok(());
                };
                for &index in indices {
                    let mut row = table.mean(&encoded[index].ids);
                    row.truncate(dense.width);
                    if *unit {
                        normalize(&mut row);
                    }
                    dense.values[index * dense.width..][..dense.width].copy_from_slice(&row);
                }
            }
            Model::Transformer(transformer) => {
                let Transformer { engine, dense, sparse, colbert } = transformer.as_ref();
                let batch = Batch::pack(indices.iter().map(|&index| &encoded[index]));
                let hidden = engine.hidden(&batch)?;
                if let (Some(rows), Some(head)) = (&mut rows.dense, dense) {
                    let width = rows.width;
                    for (index, row) in indices.iter().zip(head.apply(&engine.ops, &hidden, &batch).await?) {
                        rows.values[index * width..][..width].copy_from_slice(&row);
                    }
                }
                if let (Some(rows), Some(head)) = (&mut rows.sparse, sparse) {
                    let found = match (head, &engine.network.masked_lm) {
                        (Sparse::Lexical(head), _) => head.apply(&engine.ops, &hidden, &batch).await?,
                        (Sparse::Splade(splade), Some(head)) => {
                            let words = &engine.network.encoder.embeddings.words;
                            head.apply(&engine.ops, &hidden, words, &batch, *splade).await?
                        }
                        (Sparse::Splade(_), None) => unreachable!("a model for SPLADE is loaded with its head"),
                    };
                    for (&index, mut row) in indices.iter().zip(found) {
                        row.keep_largest(top_k.unwrap_or(usize::MAX));
                        rows[index] = row;
                    }
                }
                if let (Some(rows), Some(head)) = (&mut rows.tokens, colbert) {
                    for (&index, row) in indices.iter().zip(head.apply(&engine.ops, &hidden, &batch).await?) {
                        rows[index] = row;
                    }
                }
            }
        }
        Ok(())
    }

    /// Most texts of a batch: SPLADE has a value for each text and word, whatever the text's length.
    fn most_texts(&self) -> usize {
        match self {
            Model::Transformer(transformer) if matches!(transformer.sparse, Some(Sparse::Splade(_))) => {
                let words = transformer.engine.network.encoder.embeddings.words.rows;
                (MOST_LOGITS / words.max(1)).max(1)
            }
            _ => usize::MAX,
        }
    }

    /// Components of a token's vector.
    fn token_width(&self) -> usize {
        match self {
            Model::Transformer(transformer) => transformer.colbert.as_ref().map_or(1, |head| head.width),
            Model::Static { .. } => 1,
        }
    }
}

async fn pooling_config<F: Files, W: Watch>(
    session: &mut Session<'_, F, W>,
    modules: &pipeline::Modules,
) -> Result<pipeline::PoolingConfig> {
    match &modules.pooling {
        None => match session.described_pooling() {
            None => pipeline::PoolingConfig::from_bytes("", None),
            Some(mode) => {
                let config = serde_json::json!({ "pooling_mode": mode }).to_string();
                pipeline::PoolingConfig::from_bytes("pooling_type", Some(config.as_bytes()))
            }
        },
        Some(folder) => {
            let file = format!("{folder}/{CONFIG}");
            pipeline::PoolingConfig::from_bytes(&file, Some(&session.required(&file).await?))
        }
    }
}

/// The configuration of each Dense stage, with its file.
async fn dense_configs<F: Files, W: Watch>(
    session: &mut Session<'_, F, W>,
    modules: &pipeline::Modules,
) -> Result<Vec<(String, pipeline::DenseConfig)>> {
    let mut configs = Vec::with_capacity(modules.projections.len());
    for folder in &modules.projections {
        let file = format!("{folder}/{CONFIG}");
        let config = pipeline::DenseConfig::from_bytes(&file, &session.required(&file).await?)?;
        configs.push((file, config));
    }
    Ok(configs)
}

fn check_dimensions(asked: usize, width: usize) -> Result<()> {
    match (1..=width).contains(&asked) {
        true => Ok(()),
        false => Err(invalid_option("dimensions", format!("{asked} is not between 1 and {width}"))),
    }
}

fn check_outputs(asked: Option<&[OutputKind]>, given: &[OutputKind]) -> Result<()> {
    let absent = |kind: &&OutputKind| !given.contains(kind);
    match asked {
        Some([]) => Err(invalid_option("outputs", "it is empty".to_owned())),
        Some(asked) => match asked.iter().find(absent) {
            None => Ok(()),
            Some(kind) => {
                Err(invalid_option("outputs", format!("{kind:?} is not among what the model gives: {given:?}")))
            }
        },
        None => Ok(()),
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
