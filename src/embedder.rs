//! The product: texts in, vectors out, in the caller's order.

use std::num::NonZeroUsize;

#[cfg(feature = "candle")]
use crate::ops::candle::Candle;
#[cfg(feature = "webgpu")]
use crate::ops::gpu::Gpu;
#[cfg(feature = "reference")]
use crate::second_opinion::SecondOpinion;
use crate::{
    batches::{Batches, Computes, Limits},
    call::{
        EncodeOptions, Output, OutputKind, Role, RolePrompts, Usage, Vectors, Watch, check, check_outputs,
        invalid_option, normalize,
    },
    error::{Code, Error, Result},
    load::{CONFIG, MODULES, PROMPTS, Request, Session, TOKENIZER, fits, missing},
    model::{Architecture, Config, StaticPlan, StaticTable, pipeline},
    ops::{BATCH_TOKENS, Device, Effort, Executor, Pooling, Processor, host::Host, on_executor},
    platform::{Files, Pacer},
    sparse::SparseVector,
    text::{Batch, Encoded, Form, Prompts, Settings, Tokenizer},
    transformer::{DensePlan, Rows, StagePlan, Transformer, TransformerPlan},
    weights::Dtype,
};

/// How a model is loaded. The default takes everything from the model's own files; name what differs and take the rest from
/// `..LoadOptions::default()`, since there will be more.
#[derive(Debug, Clone, Default, serde::Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct LoadOptions {
    /// Where the model computes.
    pub device: Device,
    /// How many threads compute, on the processor; by default as many as it runs at once.
    pub threads: Option<NonZeroUsize>,
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

/// A token as the model sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token {
    pub id: u32,
    /// The vocabulary's string.
    pub text: String,
}

/// What computes.
enum Model {
    Transformer(OnExecutor),
    #[cfg(feature = "reference")]
    SecondOpinion(Box<SecondOpinion>),
    Static {
        table: StaticTable<Host>,
        /// Median length of a token's string, by which Model2Vec cuts texts; none for sentence-transformers' own tables.
        median: Option<usize>,
        dimensions: Option<usize>,
        normalize: bool,
        /// Takes the mean, where it is not ours that does.
        #[cfg(feature = "candle")]
        reference: Option<Candle>,
    },
}

/// A transformer on the executor that it was loaded for.
enum OnExecutor {
    Cpu(Box<Transformer<Processor>>),
    #[cfg(feature = "candle")]
    Candle(Box<Transformer<Candle>>),
    #[cfg(feature = "webgpu")]
    Gpu(Box<Transformer<Gpu>>),
}

/// A loaded model.
pub struct Embedder {
    model: Model,
    tokenizer: Tokenizer,
    prompts: Prompts,
    /// Whether pooling reads the prompt's tokens.
    pool_prompt: bool,
    outputs: Vec<OutputKind>,
    /// Weights that a sparse vector keeps, where the caller says nothing.
    top_k: Option<usize>,
}

impl Embedder {
    /// Loads a model from its files: `config.json`, `tokenizer.json` and its weights, and where present those of the
    /// sentence-transformers layout. The usual ones are opened at once; weights are packed while they arrive.
    pub async fn load<F: Files>(files: &F, options: &LoadOptions, watch: &dyn Watch) -> Result<Self> {
        let request = Request {
            device: options.device,
            threads: options.threads,
            dtype: options.dtype,
            max_tokens: options.max_tokens,
            weights: options.weights.clone(),
        };
        let mut session = Session::open(files, watch, &request, &[MODULES, PROMPTS]).await?;
        let listed = session.small(MODULES).await?;
        let mut modules = pipeline::Modules::from_bytes(listed.as_deref())?;
        let prompts = session.small(PROMPTS).await?;
        session.enter(&modules.transformer, listed.is_some());
        let config = session.small(&session.path(CONFIG)).await?;
        if listed.is_none() && pipeline::is_static(config.as_deref(), prompts.is_some()) {
            modules.static_table = Some(String::new());
        }
        for folder in modules.norm_folders() {
            let file = format!("{folder}/{CONFIG}");
            if let Some(bytes) = session.small(&file).await? {
                pipeline::check_normalize(&file, &bytes)?;
            }
        }
        let saved = match &modules.static_table {
            Some(_) => pipeline::Saved::from_static(prompts.as_deref())?,
            None => pipeline::Saved::from_bytes(prompts.as_deref())?,
        };
        let truncated = saved.truncate_dim.map(NonZeroUsize::get);
        let mut embedder = match &modules.static_table {
            Some(_) if request.device == Device::CandleTransformers => {
                let message = "candle-transformers has no static models";
                return Err(Error::new(Code::UnsupportedModel, MODULES, message));
            }
            Some(folder) => {
                // Model2Vec's settings, in its own layout or in that of sentence-transformers, which has tables of its own too.
                let model2vecs = config.as_deref().filter(|config| pipeline::is_model2vec(config));
                let settings = match listed {
                    None => config.as_deref().or(prompts.as_deref()),
                    Some(_) => model2vecs,
                };
                let normalized = modules.normalize;
                Self::load_static(&mut session, folder, settings, options, &request, normalized, truncated).await?
            }
            None => {
                let config = config.ok_or_else(|| missing(&session.path(CONFIG)))?;
                let listed = listed.is_some();
                Self::load_transformer(&mut session, &config, &modules, listed, options, &request, truncated).await?
            }
        };
        let name = session.name();
        embedder.prompts = match &options.prompts {
            // Also empty ones: a caller may want none.
            Some(prompts) => Prompts::new(&prompts.query, &prompts.document),
            None => saved.prompts.or_known(name.as_deref()),
        }
        .used_as(name.as_deref());
        embedder.pool_prompt &= !embedder.prompts.unpooled;
        embedder.top_k = saved.max_active_dims;
        Ok(embedder)
    }

    async fn load_transformer<F: Files>(
        session: &mut Session<'_, F>,
        config: &[u8],
        modules: &pipeline::Modules,
        listed: bool,
        options: &LoadOptions,
        request: &Request,
        truncated: Option<usize>,
    ) -> Result<Self> {
        let architecture = Architecture::from_config(&Config::from_bytes(config)?)?;
        session.warn(architecture.warning.as_deref());
        let asked = |kind| options.outputs.as_ref().is_none_or(|outputs| outputs.contains(&kind));
        let named = |kind| options.outputs.as_ref().is_some_and(|outputs| outputs.contains(&kind));
        // A masked language model without a list of stages is taken for what sentence-transformers takes it: SPLADE.
        let logits = architecture.is_masked_lm() && (!listed || named(OutputKind::Sparse));
        let is_splade = (modules.splade.is_some() || logits) && asked(OutputKind::Sparse);
        let has_dense = match listed {
            true => modules.pooling.is_some(),
            false => !is_splade || named(OutputKind::Dense),
        };

        let pooling = match has_dense && asked(OutputKind::Dense) {
            true => Some(pooling_config(session, modules).await?),
            false => None,
        };
        let logarithms = match &modules.splade {
            Some(folder) => {
                let file = format!("{folder}/{CONFIG}");
                pipeline::splade_logarithms(&file, &session.required(&file).await?)?
            }
            None => 1,
        };
        // A model that gives both has no list of stages, nor a file that names a task.
        let task = match (&modules.splade, &modules.pooling) {
            (Some(_), None) => Some("fill-mask"),
            (None, Some(_)) => Some("feature-extraction"),
            _ => None,
        };
        let tokenizer = session.tokenizer(&architecture, request, Form::Text, task).await?;
        let pool_prompt = pooling.as_ref().is_none_or(|pooling| pooling.include_prompt);
        let pooled = pooling.as_ref().map_or(0, |pooling| pooling.modes.len() * architecture.width);
        let (stages, width) = match &pooling {
            Some(_) => stage_plans(session, modules, pooled).await?,
            None => (Vec::new(), pooled),
        };
        if let (Some(dimensions), true) = (options.dimensions, pooling.is_some()) {
            check_dimensions(dimensions, width)?;
        }

        let plan = TransformerPlan {
            architecture: &architecture,
            tokenizer: &tokenizer,
            asked: options.outputs.as_deref(),
            is_splade,
            logarithms,
            dense: pooling.map(|pooling| DensePlan {
                pooling: pooling.modes,
                stages,
                width,
                dimensions: options.dimensions.or(truncated),
                // llama.cpp, whose files say how they are pooled, normalises unless it is told not to.
                normalize: modules.normalize || (!listed && session.described_pooling().is_some()),
            }),
            normalize: options.normalize,
        };
        #[cfg(feature = "reference")]
        if request.device == Device::CandleTransformers {
            let opinion = SecondOpinion::load(session, config, plan, request).await?;
            let outputs = opinion.outputs();
            check_outputs(options.outputs.as_deref(), &outputs)?;
            let model = Model::SecondOpinion(Box::new(opinion));
            return Ok(Self { model, tokenizer, prompts: Prompts::default(), pool_prompt, outputs, top_k: None });
        }
        let transformer = match Executor::open(request.device, request.threads).await? {
            Executor::Cpu(ops) => OnExecutor::Cpu(Box::new(Transformer::load(session, ops, plan, request).await?)),
            #[cfg(feature = "candle")]
            Executor::Candle(ops) => {
                OnExecutor::Candle(Box::new(Transformer::load(session, ops, plan, request).await?))
            }
            #[cfg(feature = "webgpu")]
            Executor::Gpu(ops) => {
                let transformer = Transformer::load(session, ops, plan, request).await?;
                // What is compiled when it is first used is compiled now, and what is wrong shows.
                transformer.warm().await?;
                OnExecutor::Gpu(Box::new(transformer))
            }
        };
        let outputs = on_executor!(OnExecutor, &transformer, transformer => transformer.outputs());
        check_outputs(options.outputs.as_deref(), &outputs)?;
        if outputs.is_empty() {
            let message = "its stages give hidden states, but no pooling and no head makes a result of them";
            return Err(Error::new(Code::UnsupportedModel, MODULES, message));
        }
        let model = Model::Transformer(transformer);
        Ok(Self { model, tokenizer, prompts: Prompts::default(), pool_prompt, outputs, top_k: None })
    }

    async fn load_static<F: Files>(
        session: &mut Session<'_, F>,
        folder: &str,
        settings: Option<&[u8]>,
        options: &LoadOptions,
        request: &Request,
        normalized: bool,
        truncated: Option<usize>,
    ) -> Result<Self> {
        let below = |file: &str| if folder.is_empty() { file.to_owned() } else { format!("{folder}/{file}") };
        check_outputs(options.outputs.as_deref(), &[OutputKind::Dense])?;
        let is_model2vec = settings.is_some();
        let (config, warning) = match settings {
            Some(settings) => pipeline::StaticConfig::from_bytes(CONFIG, settings)?,
            None => (pipeline::StaticConfig { normalize: false, max_length: None }, None),
        };
        session.warn(warning.as_deref());
        let json = session.tokenizer_json(&below(TOKENIZER)).await?;
        let max_tokens = options.max_tokens.or(config.max_length).unwrap_or(u32::MAX as usize);
        // Where the caller says nothing, sentence-transformers' tables are cut as their tokenizer's file says.
        let form = if is_model2vec || options.max_tokens.is_some() { Form::Words } else { Form::Table };
        let tokenizer = Tokenizer::from_bytes(&json, max_tokens, &Settings::default(), form)?;
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
        let dimensions = options.dimensions.or(truncated.map(|most| most.min(table.width)));
        Ok(Self {
            model: Model::Static {
                table,
                median,
                dimensions,
                normalize,
                #[cfg(feature = "candle")]
                reference: (request.device == Device::Reference).then(Candle::cpu),
            },
            tokenizer,
            prompts: Prompts::default(),
            pool_prompt: true,
            outputs: vec![OutputKind::Dense],
            top_k: None,
        })
    }

    /// Encodes texts, each with the prompt that the model has for its role. Results come in the order of the texts, whatever
    /// order they were computed in; a text's vectors do not depend on the others.
    pub async fn encode<T: AsRef<str>>(
        &self,
        texts: &[T],
        options: impl Into<EncodeOptions>,
        watch: &dyn Watch,
    ) -> Result<Output> {
        let options = options.into();
        self.check(&options)?;
        let mut pacer = Pacer::new();
        let mut prepared = Vec::with_capacity(texts.len());
        for text in texts {
            check(watch)?;
            prepared.push(self.prepare(text.as_ref(), &options)?);
            pacer.breathe().await;
        }
        self.encode_prepared(&prepared, &options, watch).await
    }

    /// What [`encode`](Self::encode) makes of a text first: who gathers texts before encoding them sees here how long each is.
    pub fn prepare(&self, text: &str, options: &EncodeOptions) -> Result<Encoded> {
        self.tokenized(text, options.role, options.prompt.as_deref())
    }

    /// Refuses options that the model cannot honour.
    pub fn check(&self, options: &EncodeOptions) -> Result<()> {
        check_outputs(options.outputs.as_deref(), &self.outputs)?;
        if options.top_k == Some(0) {
            return Err(invalid_option("topK", "it must be at least 1".to_owned()));
        }
        match (options.dimensions, self.outputs.contains(&OutputKind::Dense)) {
            (Some(dimensions), true) => check_dimensions(dimensions, self.dimensions()),
            _ => Ok(()),
        }
    }

    /// Encodes prepared texts. Role and prompt of the options are not looked at: they are in the texts.
    pub async fn encode_prepared(
        &self,
        encoded: &[Encoded],
        options: &EncodeOptions,
        watch: &dyn Watch,
    ) -> Result<Output> {
        self.check(options)?;
        let options = &EncodeOptions { top_k: options.top_k.or(self.top_k), ..options.clone() };
        let wanted = |kind| {
            self.outputs.contains(&kind) && options.outputs.as_ref().is_none_or(|outputs| outputs.contains(&kind))
        };
        let lengths: Vec<usize> = encoded.iter().map(|text| text.ids.len()).collect();
        let usage = Usage {
            tokens: lengths.iter().sum(),
            truncated: (0..encoded.len()).filter(|&index| encoded[index].truncated).collect(),
        };
        let count = encoded.len();
        let width = options.dimensions.unwrap_or_else(|| self.dimensions());
        let mut rows = Rows {
            dense: match wanted(OutputKind::Dense) {
                true => Some(Vectors { width, values: zeros(count, width)? }),
                false => None,
            },
            sparse: wanted(OutputKind::Sparse).then(|| vec![SparseVector::default(); count]),
            tokens: wanted(OutputKind::Tokens).then(|| vec![Vec::new(); count]),
        };
        // A text without a single token keeps the zero vector.
        let mut batches = Batches::new(&lengths);
        while let Some(indices) = batches.next(&self.model, watch).await? {
            self.model.fill(&mut rows, encoded, &indices, options).await?;
        }
        let width = self.model.token_width();
        let tokens = rows.tokens.map(|rows| rows.into_iter().map(|values| Vectors { width, values }).collect());
        Ok(Output { dense: rows.dense, sparse: rows.sparse, quantized: None, tokens, usage })
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
            Model::Static { median, .. } => self.tokenizer.encode_words(&format!("{prompt}{text}"), *median),
            _ => self.tokenizer.encode(prompt, text, self.pool_prompt),
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
            Model::Transformer(transformer) => {
                let width = on_executor!(OnExecutor, transformer, model => model.dimensions());
                width.unwrap_or(self.tokenizer.id_bound() as usize)
            }
            #[cfg(feature = "reference")]
            Model::SecondOpinion(opinion) => opinion.dimensions().unwrap_or(self.tokenizer.id_bound() as usize),
        }
    }

    /// The prompt that the model has under a name, such as `query`.
    pub fn prompt(&self, name: &str) -> Option<&str> {
        self.prompts.named(name)
    }

    /// How dense vectors are pooled; empty where there are none, or no transformer.
    pub fn pooling(&self) -> &[Pooling] {
        match &self.model {
            Model::Static { .. } => &[],
            Model::Transformer(transformer) => on_executor!(OnExecutor, transformer, model => model.pooling()),
            #[cfg(feature = "reference")]
            Model::SecondOpinion(opinion) => opinion.pooling(),
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

    /// What computed the last batch: with [`Device::Auto`] the processor or a GPU. A static model never is on a GPU.
    pub fn device(&self) -> Device {
        match &self.model {
            #[cfg(feature = "candle")]
            Model::Static { reference: Some(candle), .. } => candle.device(),
            Model::Static { .. } => Device::Cpu,
            #[cfg(feature = "reference")]
            Model::SecondOpinion(_) => Device::CandleTransformers,
            #[cfg(feature = "candle")]
            Model::Transformer(OnExecutor::Candle(transformer)) => transformer.ops().device(),
            Model::Transformer(_) if self.is_on_gpu() => Device::WebGpu,
            Model::Transformer(_) => Device::Cpu,
        }
    }

    /// Whether a GPU computed the last batch, by WebGPU.
    pub fn is_on_gpu(&self) -> bool {
        match &self.model {
            #[cfg(feature = "webgpu")]
            Model::Transformer(OnExecutor::Cpu(transformer)) => transformer.ops().is_on_gpu(),
            #[cfg(feature = "webgpu")]
            Model::Transformer(OnExecutor::Gpu(_)) => true,
            _ => false,
        }
    }

    /// The GPU that it was loaded onto, if it was: what it ran, and how long that took.
    #[cfg(feature = "webgpu")]
    pub fn gpu(&self) -> Option<&Gpu> {
        match &self.model {
            Model::Transformer(OnExecutor::Gpu(transformer)) => Some(transformer.ops()),
            _ => None,
        }
    }
}

impl Model {
    /// Computes a batch, the texts at `indices`, and puts its results in their places.
    async fn fill(
        &self,
        rows: &mut Rows,
        encoded: &[Encoded],
        indices: &[usize],
        options: &EncodeOptions,
    ) -> Result<()> {
        match self {
            #[cfg(feature = "candle")]
            Model::Static { table, normalize: unit, reference: Some(candle), .. } => {
                let Some(dense) = &mut rows.dense else {
                    return Ok(());
                };
                for &index in indices {
                    let ids = &encoded[index].ids;
                    let mut vectors = vec![0.0; ids.len() * table.width];
                    let read = |(&id, row): (&u32, &mut [f32])| table.read(id, row);
                    let weights: Vec<f32> = ids.iter().zip(vectors.chunks_exact_mut(table.width)).map(read).collect();
                    let row = candle.weighted_mean(&vectors, &weights, table.width)?;
                    put(dense, index, row, options.normalize.unwrap_or(*unit));
                }
            }
            Model::Static { table, normalize: unit, .. } => {
                let Some(dense) = &mut rows.dense else {
                    return Ok(());
                };
                for &index in indices {
                    put(dense, index, table.mean(&encoded[index].ids), options.normalize.unwrap_or(*unit));
                }
            }
            Model::Transformer(transformer) => {
                let batch = Batch::pack(indices.iter().map(|&index| &encoded[index]));
                let (top_k, unit) = (options.top_k, options.normalize);
                on_executor!(OnExecutor, transformer, transformer => transformer.fill(rows, &batch, indices, top_k, unit).await?);
            }
            #[cfg(feature = "reference")]
            Model::SecondOpinion(opinion) => {
                let batch = Batch::pack(indices.iter().map(|&index| &encoded[index]));
                opinion.fill(rows, &batch, indices, options.top_k, options.normalize)?;
            }
        }
        Ok(())
    }

    /// Components of a token's vector.
    fn token_width(&self) -> usize {
        match self {
            Model::Transformer(transformer) => on_executor!(OnExecutor, transformer, model => model.token_width()),
            _ => 1,
        }
    }
}

/// Puts a static model's vector to its place, cut to the width that was asked for.
fn put(dense: &mut Vectors, index: usize, mut row: Vec<f32>, unit: bool) {
    row.truncate(dense.width);
    if unit {
        normalize(&mut row);
    }
    dense.values[index * dense.width..][..dense.width].copy_from_slice(&row);
}

impl Computes for Model {
    fn limits(&self) -> Limits {
        match self {
            Model::Transformer(transformer) => on_executor!(OnExecutor, transformer, model => model.limits()),
            _ => Limits { tokens: BATCH_TOKENS, texts: usize::MAX },
        }
    }

    #[cfg_attr(not(feature = "webgpu"), allow(unused_variables, reason = "there is nothing to consider"))]
    async fn consider(&self, effort: &Effort) {
        #[cfg(feature = "webgpu")]
        if let Model::Transformer(OnExecutor::Cpu(transformer)) = self {
            transformer.ops().consider(effort, &**transformer).await;
        }
    }

    fn warnings(&self) -> Vec<String> {
        match self {
            Model::Transformer(transformer) => on_executor!(OnExecutor, transformer, model => model.warnings()),
            _ => Vec::new(),
        }
    }
}

async fn pooling_config<F: Files>(
    session: &mut Session<'_, F>,
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

/// What follows pooling, which gives vectors of so many components, and the components of what comes out.
async fn stage_plans<F: Files>(
    session: &mut Session<'_, F>,
    modules: &pipeline::Modules,
    mut width: usize,
) -> Result<(Vec<StagePlan>, usize)> {
    let mut plans = Vec::with_capacity(modules.stages.len());
    for stage in &modules.stages {
        let fits = |file: &str, key: &str, own: usize| match own == width {
            true => Ok(()),
            false => {
                let message = format!("{key} is {own}, what comes before it gives {width}");
                Err(Error::new(Code::InvalidConfig, file, message))
            }
        };
        plans.push(match stage {
            pipeline::Stage::Dense(folder) => {
                let file = format!("{folder}/{CONFIG}");
                let config = pipeline::DenseConfig::from_bytes(&file, &session.required(&file).await?)?;
                fits(&file, "in_features", config.in_features)?;
                if config.out_features == 0 {
                    return Err(Error::new(Code::InvalidConfig, file, "out_features is 0"));
                }
                width = config.out_features;
                StagePlan::Dense { folder: folder.clone(), file, config }
            }
            pipeline::Stage::LayerNorm(folder) => {
                let file = format!("{folder}/{CONFIG}");
                let own = pipeline::layer_norm_width(&file, &session.required(&file).await?)?;
                fits(&file, "dimension", own)?;
                StagePlan::LayerNorm { folder: folder.clone(), width }
            }
            pipeline::Stage::Normalize => StagePlan::Normalize { width },
        });
    }
    Ok((plans, width))
}

fn check_dimensions(asked: usize, width: usize) -> Result<()> {
    match (1..=width).contains(&asked) {
        true => Ok(()),
        false => Err(invalid_option("dimensions", format!("{asked} is not between 1 and {width}"))),
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
