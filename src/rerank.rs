//! Pairs of a query and a document to scores, with a cross-encoder.

use std::num::NonZeroUsize;

#[cfg(feature = "webgpu")]
use crate::ops::auto::{Auto, Subject};
use crate::{
    batches::{Batches, Computes, Limits},
    call::{Ranked, Watch, check, invalid_option, rank},
    error::{Code, Error, Result},
    load::{AnyEngine, CONFIG, Engine, MODULES, PROMPTS, Request, Session, architecture},
    model::{Purpose, pipeline},
    ops::{Device, Effort, Ops, on_executor},
    platform::{Files, Pacer},
    text::{Batch, Encoded, Form, PairLimit, Tokenizer, tokenizer::HalfPair},
    weights::Dtype,
};

/// How a reranker is loaded. The default takes everything from the model's own files.
#[derive(Debug, Clone, Default, serde::Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct RerankOptions {
    /// Where the model computes.
    pub device: Device,
    /// How many threads compute, on the processor; by default as many as it runs at once.
    pub threads: Option<NonZeroUsize>,
    /// How large weights are held; as they are stored by default.
    pub dtype: Option<Dtype>,
    /// Cut pairs after this many tokens, special tokens included.
    pub max_tokens: Option<usize>,
    /// Cut queries after this many tokens, and then only the document to what is left: FlagEmbedding's rule for BGE rerankers
    /// (there 256). Without it the longer of the two is cut.
    pub max_query_tokens: Option<usize>,
    /// Whether scores are between 0 and 1, by the logistic function; by default as the model's configuration says, and where it
    /// says nothing they are, as in sentence-transformers.
    pub normalize: Option<bool>,
    /// The file with the weights, where it is not one of the usual names.
    pub weights: Option<String>,
}

/// A loaded cross-encoder.
pub struct Reranker {
    engine: AnyEngine,
    tokenizer: Tokenizer,
    limit: PairLimit,
    sigmoid: bool,
    /// Put before each query.
    prompt: String,
}

impl Reranker {
    /// Loads a model from its files: `config.json`, `tokenizer.json` and its weights.
    pub async fn load<F: Files>(files: &F, options: &RerankOptions, watch: &dyn Watch) -> Result<Self> {
        let request = Request {
            device: options.device,
            threads: options.threads,
            dtype: options.dtype,
            max_tokens: options.max_tokens,
            weights: options.weights.clone(),
        };
        let mut session = Session::open(files, watch, &request, &[MODULES, PROMPTS]).await?;
        let (listed, saved) = (session.small(MODULES).await?, session.small(PROMPTS).await?);
        let saved = pipeline::Saved::from_bytes(saved.as_deref())?;
        // What these files say of another kind of model, sentence-transformers' CrossEncoder does not read.
        let saved = if saved.is_reranker() { saved } else { pipeline::Saved::default() };
        if saved.is_reranker() {
            let modules = pipeline::Modules::from_bytes(listed.as_deref())?;
            if let Some(stage) = modules.beyond_transformer() {
                let message = format!("a reranker with the stage {stage} is not supported");
                return Err(Error::new(Code::UnsupportedModel, MODULES, message));
            }
            session.enter(&modules.transformer, listed.is_some());
        }
        let config = session.small(&session.path(CONFIG)).await?;
        let architecture = architecture(config.as_deref())?;
        session.warn(architecture.warning.as_deref());
        let task = saved.is_reranker().then_some("sequence-classification");
        let tokenizer = session.tokenizer(&architecture, &request, Form::Pair, task).await?;
        let limit = match options.max_query_tokens {
            None => PairLimit::LongestFirst,
            Some(0) => return Err(invalid_option("maxQueryTokens", "it must be above zero".to_owned())),
            Some(tokens) => PairLimit::First(tokens),
        };
        let engine = session.any_engine(&architecture, Purpose::Rerank, &request).await?;
        #[cfg(feature = "webgpu")]
        if let AnyEngine::Gpu(engine) = &engine {
            // What is compiled when it is first used is compiled now, and what is wrong shows.
            logits(engine, &Batch::even(1, 3)).await?;
        }
        let sigmoid = options.normalize.or(saved.is_sigmoid()?).or(architecture.sigmoid).unwrap_or(true);
        let prompt = saved.prompts.default_prompt().to_owned();
        Ok(Self { engine, tokenizer, limit, sigmoid, prompt })
    }

    /// Scores each document for the query and orders them, best first, equal ones as they came; at most `top_k` of them.
    pub async fn rerank<T: AsRef<str>>(
        &self,
        query: &str,
        documents: &[T],
        top_k: Option<usize>,
        watch: &dyn Watch,
    ) -> Result<Vec<Ranked>> {
        let mut pacer = Pacer::new();
        let query = self.query(query)?;
        let mut pairs = Vec::with_capacity(documents.len());
        for document in documents {
            check(watch)?;
            pairs.push(self.pair(&query, document.as_ref())?);
            pacer.breathe().await;
        }
        let scores = self.score_prepared(&pairs, None, watch).await?;
        Ok(rank(scores.into_iter().enumerate(), top_k))
    }

    /// What [`rerank`](Self::rerank) makes of query and documents first: a pair for each document.
    pub fn prepare<T: AsRef<str>>(&self, query: &str, documents: &[T]) -> Result<Vec<Encoded>> {
        let query = self.query(query)?;
        documents.iter().map(|document| self.pair(&query, document.as_ref())).collect()
    }

    fn query(&self, query: &str) -> Result<HalfPair> {
        self.tokenizer.half_pair(&format!("{}{query}", self.prompt))
    }

    fn pair(&self, query: &HalfPair, document: &str) -> Result<Encoded> {
        self.tokenizer.encode_pair(query, &self.tokenizer.half_pair(document)?, self.limit)
    }

    /// The score of each prepared pair, in their order. `normalize`: whether scores are between 0 and 1, other than loaded.
    pub async fn score_prepared(
        &self,
        pairs: &[Encoded],
        normalize: Option<bool>,
        watch: &dyn Watch,
    ) -> Result<Vec<f32>> {
        let sigmoid = normalize.unwrap_or(self.sigmoid);
        let lengths: Vec<usize> = pairs.iter().map(|pair| pair.ids.len()).collect();
        // A pair without a single token says nothing.
        let mut scores = vec![0.0; pairs.len()];
        let mut batches = Batches::new(&lengths);
        while let Some(indices) = batches.next(&self.engine, watch).await? {
            let batch = Batch::pack(indices.iter().map(|&index| &pairs[index]));
            let logits = on_executor!(AnyEngine, &self.engine, engine => logits(engine, &batch).await?);
            for (&index, logit) in indices.iter().zip(logits) {
                scores[index] = if sigmoid { logistic(logit) } else { logit };
            }
        }
        Ok(scores)
    }

    /// What computed the last batch: with [`Device::Auto`] the processor or a GPU.
    pub fn device(&self) -> Device {
        match &self.engine {
            #[cfg(feature = "candle")]
            AnyEngine::Candle(engine) => engine.ops.device(),
            _ if self.is_on_gpu() => Device::WebGpu,
            _ => Device::Cpu,
        }
    }

    /// Whether a GPU computed the last batch, by WebGPU.
    pub fn is_on_gpu(&self) -> bool {
        match &self.engine {
            #[cfg(feature = "webgpu")]
            AnyEngine::Cpu(engine) => engine.ops.is_on_gpu(),
            #[cfg(not(feature = "webgpu"))]
            AnyEngine::Cpu(_) => false,
            #[cfg(feature = "candle")]
            AnyEngine::Candle(_) => false,
            #[cfg(feature = "webgpu")]
            AnyEngine::Gpu(_) => true,
        }
    }

    /// Most tokens of a pair, special tokens included.
    pub fn max_tokens(&self) -> usize {
        self.tokenizer.max_tokens()
    }
}

fn logistic(logit: f32) -> f32 {
    (1.0 / (1.0 + (-f64::from(logit)).exp())) as f32
}

async fn logits<O: Ops>(engine: &Engine<O>, batch: &Batch) -> Result<Vec<f32>> {
    let Some(classifier) = &engine.network.classifier else {
        unreachable!("a reranker is loaded with its classifier");
    };
    // As `Transformer::fill` does. One function for both would take a closure, whose future is not `Send`.
    loop {
        let scored = match engine.hidden(batch) {
            Ok(hidden) => classifier.apply(&engine.ops, &hidden, batch).await,
            Err(error) => Err(error),
        };
        match scored {
            Err(error) if engine.ops.recover(&error).await => {}
            scored => return scored,
        }
    }
}

#[cfg(feature = "webgpu")]
impl Subject for Engine<Auto> {
    async fn hidden(&self, size: [usize; 2]) -> Result<Vec<f32>> {
        self.measured(size).await
    }

    async fn heads(&self) -> Result<()> {
        logits(self, &Batch::even(1, 3)).await.map(drop)
    }
}

impl Computes for AnyEngine {
    fn limits(&self) -> Limits {
        Limits { tokens: on_executor!(AnyEngine, self, engine => engine.ops.batch_tokens()), texts: usize::MAX }
    }

    #[cfg_attr(not(feature = "webgpu"), allow(unused_variables, reason = "there is nothing to consider"))]
    async fn consider(&self, effort: &Effort) {
        #[cfg(feature = "webgpu")]
        if let AnyEngine::Cpu(engine) = self {
            engine.ops.consider(effort, &**engine).await;
        }
    }

    fn warnings(&self) -> Vec<String> {
        on_executor!(AnyEngine, self, engine => engine.ops.warnings())
    }
}
