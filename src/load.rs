//! From opened files to a model's parts: what embedders and rerankers have in common.

use std::num::NonZeroUsize;

use futures_util::future::join_all;

#[cfg(feature = "candle")]
use crate::ops::candle::Candle;
#[cfg(feature = "webgpu")]
use crate::ops::{auto::Auto, gpu::Gpu};
use crate::{
    call::{Watch, check, invalid_option},
    error::{Code, Error, Result},
    model::{Architecture, Config, Network, NetworkPlan, Purpose, pipeline},
    ops::{Device, Executor, Ops, Pack, Processor},
    platform::{Body, Files, Pacer, whole},
    text::{Batch, Form, Tokenizer},
    weights::{
        Blueprint, Dtype, Loader, Reader,
        gguf::{Described, Describer},
        shards,
    },
};

pub const MODULES: &str = "modules.json";
pub const PROMPTS: &str = "config_sentence_transformers.json";
pub const CONFIG: &str = "config.json";
pub const TOKENIZER: &str = "tokenizer.json";
pub const TOKENIZER_CONFIG: &str = "tokenizer_config.json";
pub const WEIGHTS: &str = "model.safetensors";

/// Where the main weights may lie, in the order in which they are looked for. An index names the files that have them.
pub const OTHER_WEIGHTS: [&str; 3] =
    ["model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json"];

/// BERT's vocabulary, from which a tokenizer is made where there is no other.
pub const VOCABULARY: &str = "vocab.txt";

/// Where repositories keep the same model for ONNX Runtime; those of transformers.js have nothing else.
const ONNX: [&str; 2] = ["onnx/model.onnx", "model.onnx"];

/// What embedders and rerankers are asked for alike.
#[derive(Debug, Clone, Default)]
pub struct Request {
    pub device: Device,
    pub threads: Option<NonZeroUsize>,
    pub dtype: Option<Dtype>,
    pub max_tokens: Option<usize>,
    pub weights: Option<String>,
}

/// A model's files, with progress over all of them.
pub struct Session<'a, F: Files> {
    files: &'a F,
    meter: Meter<'a>,
    /// Opened at once when the load began, so that downloads overlap.
    opened: Vec<(&'static str, Option<F::Body>)>,
    /// The folder with the transformer's files: the root, unless `modules.json` says otherwise.
    folder: String,
    /// Whether there is a `modules.json`.
    is_listed: bool,
    /// What a GGUF file says of itself, which stands in for files that are not there.
    described: Option<Described>,
}

impl<'a, F: Files> Session<'a, F> {
    /// Opens the files that nearly every model has, and `more`.
    pub async fn open(files: &'a F, watch: &'a dyn Watch, request: &Request, more: &[&'static str]) -> Result<Self> {
        let mut names = vec![CONFIG, TOKENIZER, TOKENIZER_CONFIG, pipeline::TRANSFORMER_NAMES[0]];
        names.extend(more);
        if request.weights.is_none() {
            names.push(WEIGHTS);
        }
        let meter = Meter { watch, files: Vec::new() };
        let mut session =
            Self { files, meter, opened: Vec::new(), folder: String::new(), is_listed: false, described: None };
        for (name, body) in names.iter().zip(join_all(names.iter().map(|name| files.open(name))).await) {
            let body = body?;
            if let Some(body) = &body {
                session.meter.expect(name, body);
            }
            session.opened.push((name, body));
        }
        if let Some(file) = request.weights.as_deref().filter(|file| file.ends_with(".gguf")) {
            session.described = Some(session.describe(file).await?);
        }
        Ok(session)
    }

    /// Reads the head of a GGUF file; the rest of it is read again when the model is known.
    async fn describe(&mut self, file: &str) -> Result<Described> {
        let mut body = self.files.peek(file).await?.ok_or_else(|| missing(file))?;
        let mut describer = Describer::new(file);
        while let Some(chunk) = body.chunk().await? {
            check(self.meter.watch)?;
            if let Some(described) = describer.push(chunk)? {
                return Ok(described);
            }
        }
        Err(Error::new(Code::InvalidWeights, file, "truncated: the file ends inside its header"))
    }

    /// From here on the transformer's files are those of this folder, which `modules.json` names if there is one. What was
    /// opened in its place is given back.
    pub fn enter(&mut self, folder: &str, is_listed: bool) {
        self.is_listed = is_listed;
        if folder.is_empty() {
            return;
        }
        folder.clone_into(&mut self.folder);
        for (name, _) in self.opened.drain(..) {
            self.meter.files.retain(|(file, ..)| file != name);
        }
    }

    /// The path of one of the transformer's files.
    pub fn path(&self, file: &str) -> String {
        if self.folder.is_empty() { file.to_owned() } else { format!("{}/{file}", self.folder) }
    }

    /// Tells the caller what it should hear of.
    pub fn warn(&self, warning: Option<&str>) {
        if let Some(warning) = warning {
            self.meter.watch.warned(warning);
        }
    }

    /// How a GGUF file says its hidden states are pooled.
    pub fn described_pooling(&self) -> Option<&'static str> {
        self.described.as_ref()?.pooling
    }

    /// The name under which the source knows the model.
    pub fn name(&self) -> Option<String> {
        self.files.name()
    }

    async fn body(&mut self, file: &str) -> Result<Option<F::Body>> {
        if let Some(opened) = self.opened.iter().position(|(name, _)| *name == file) {
            return Ok(self.opened.swap_remove(opened).1);
        }
        let body = self.files.open(file).await?;
        if let Some(body) = &body {
            self.meter.expect(file, body);
        }
        Ok(body)
    }

    /// A file that is read whole, if there is one.
    async fn file(&mut self, file: &str) -> Result<Option<Vec<u8>>> {
        match self.body(file).await? {
            Some(body) => self.meter.whole(file, body).await.map(Some),
            None => Ok(None),
        }
    }

    /// A file that is read whole, or what stands in for it.
    pub async fn small(&mut self, file: &str) -> Result<Option<Vec<u8>>> {
        if let Some(bytes) = self.file(file).await? {
            return Ok(Some(bytes));
        }
        Ok(self.described.as_mut().and_then(|described| match file {
            CONFIG => Some(described.config.to_string().into_bytes()),
            // Asked for once, and as large as the file's head.
            TOKENIZER => described.tokenizer.take().map(String::into_bytes),
            _ => None,
        }))
    }

    /// A file that is read whole, and must be there.
    pub async fn required(&mut self, file: &str) -> Result<Vec<u8>> {
        let found = self.small(file).await?;
        found.ok_or_else(|| missing(file))
    }

    /// Reads one weights file into a model.
    pub async fn weights<P: Pack, B: Blueprint>(
        &mut self,
        file: &str,
        pack: &P,
        blueprint: &B,
        dtype: Option<Dtype>,
    ) -> Result<B::Model<P>> {
        let body = self.body(file).await?.ok_or_else(|| missing(file))?;
        self.weights_from(file, body, pack, blueprint, dtype).await
    }

    /// Reads the first of several weights files that there is.
    pub async fn first_weights<P: Pack, B: Blueprint>(
        &mut self,
        files: &[String],
        pack: &P,
        blueprint: &B,
    ) -> Result<Option<B::Model<P>>> {
        for file in files {
            if let Some(body) = self.body(file).await? {
                return self.weights_from(file, body, pack, blueprint, None).await.map(Some);
            }
        }
        Ok(None)
    }

    async fn weights_from<P: Pack, B: Blueprint>(
        &mut self,
        file: &str,
        body: F::Body,
        pack: &P,
        blueprint: &B,
        dtype: Option<Dtype>,
    ) -> Result<B::Model<P>> {
        let mut loader = Loader::new(file, pack, blueprint, dtype);
        self.stream(file, body, &mut loader).await?;
        loader.finish()
    }

    async fn stream<P: Pack, B: Blueprint>(
        &mut self,
        file: &str,
        mut body: F::Body,
        loader: &mut Loader<'_, P, B>,
    ) -> Result<()> {
        let mut reader = Reader::new(file)?;
        let mut pacer = Pacer::new();
        while let Some(chunk) = body.chunk().await? {
            reader.push(chunk, loader)?;
            self.meter.add(file, chunk.len())?;
            pacer.breathe().await;
        }
        reader.finish()?;
        self.meter.end(file);
        Ok(())
    }

    /// Reads the main weights, wherever they are.
    async fn main_weights<P: Pack, B: Blueprint>(
        &mut self,
        pack: &P,
        blueprint: &B,
        request: &Request,
    ) -> Result<B::Model<P>> {
        if let Some(file) = &request.weights {
            return self.weights(file, pack, blueprint, request.dtype).await;
        }
        let usual = self.path(WEIGHTS);
        if let Some(body) = self.body(&usual).await? {
            return self.weights_from(&usual, body, pack, blueprint, request.dtype).await;
        }
        for file in OTHER_WEIGHTS {
            let file = &self.path(file);
            let Some(body) = self.body(file).await? else {
                continue;
            };
            if !file.ends_with(".json") {
                return self.weights_from(file, body, pack, blueprint, request.dtype).await;
            }
            let shards = shards(file, &self.meter.whole(file, body).await?)?;
            let names = shards.values().flatten().cloned();
            let mut loader = Loader::sharded(file, names, pack, blueprint, request.dtype)?;
            for shard in shards.keys() {
                crate::hub::check_relative(file, shard)?;
                let shard = &self.path(shard);
                let body = self.body(shard).await?.ok_or_else(|| missing(shard))?;
                self.stream(shard, body, &mut loader).await?;
            }
            return loader.finish();
        }
        for file in ONNX {
            if self.files.peek(file).await?.is_some() {
                let message = "the repository holds its weights for ONNX Runtime alone, which are not read; its model card, \
                               or _name_or_path in its config.json, names the model that they were made from";
                return Err(Error::new(Code::UnsupportedModel, file, message));
            }
        }
        let message = format!("the model has no such file, nor {}", OTHER_WEIGHTS.join(", "));
        Err(Error::new(Code::MissingFile, usual, message))
    }

    /// The bytes of `tokenizer.json`, wherever it lies.
    pub async fn tokenizer_json(&mut self, file: &str) -> Result<Vec<u8>> {
        self.small(file).await?.ok_or_else(|| {
            let message = "the model has no such file; SentencePiece models, and a vocab.txt that is not BERT's, are not \
                           read: transformers' AutoTokenizer saves them in this form";
            Error::new(Code::MissingFile, file, message)
        })
    }

    /// The tokenizer with the length limit of this model. `task` is what the transformer's own file may name.
    pub async fn tokenizer(
        &mut self,
        architecture: &Architecture,
        request: &Request,
        form: Form,
        task: Option<&str>,
    ) -> Result<Tokenizer> {
        let transformer = self.transformer_config(task).await?;
        let path = self.path(TOKENIZER_CONFIG);
        let (config, warning) = pipeline::TokenizerConfig::from_bytes(self.small(&path).await?.as_deref())?;
        self.warn(warning.as_deref());
        let config = config.or_class(architecture.tokenizer_class.as_deref());
        let max_tokens = match (request.max_tokens, architecture.reach) {
            (Some(asked), Some(reach)) if asked > reach => {
                return Err(invalid_option("maxTokens", format!("{asked} is more than the model's {reach}")));
            }
            (Some(asked), _) => asked,
            (None, reach) => pipeline::max_tokens(&transformer, &config, reach, architecture.trained),
        };
        let mut settings = config.settings(&architecture.name, transformer.do_lower_case, architecture.types)?;
        let path = self.path(TOKENIZER);
        let json = match self.file(&path).await? {
            Some(json) => json,
            None => match self.vocabulary(&config, &architecture.name).await? {
                Some(json) => json,
                None => {
                    // A GGUF file's own tokenizer is not one of a class of transformers.
                    (settings.bert, settings.trims_end) = (None, false);
                    self.tokenizer_json(&path).await?
                }
            },
        };
        let tokenizer = Tokenizer::from_bytes(&json, max_tokens, &settings, form)?;
        fits(&tokenizer, architecture.vocabulary)?;
        Ok(tokenizer)
    }

    /// `sentence_bert_config.json`, under the first of its names. Old ones are asked for where there are stages alone: each is a
    /// request.
    async fn transformer_config(&mut self, task: Option<&str>) -> Result<pipeline::TransformerConfig> {
        let names = if self.is_listed { &pipeline::TRANSFORMER_NAMES[..] } else { &pipeline::TRANSFORMER_NAMES[..1] };
        for name in names {
            let path = self.path(name);
            if let Some(bytes) = self.small(&path).await? {
                let config = pipeline::TransformerConfig::from_bytes(&path, Some(&bytes))?;
                task.map_or(Ok(()), |task| config.makes(&path, task))?;
                return Ok(config);
            }
        }
        Ok(pipeline::TransformerConfig::default())
    }

    /// A `tokenizer.json` from BERT's own vocabulary, if there is one.
    async fn vocabulary(&mut self, config: &pipeline::TokenizerConfig, family: &str) -> Result<Option<Vec<u8>>> {
        if self.described.is_some() {
            return Ok(None);
        }
        let path = self.path(VOCABULARY);
        match self.file(&path).await? {
            Some(vocab) => config.word_piece(&vocab, family),
            None => Ok(None),
        }
    }

    /// The main network, on an executor.
    pub async fn engine<O: Ops>(
        &mut self,
        ops: O,
        architecture: &Architecture,
        purpose: Purpose,
        request: &Request,
    ) -> Result<Engine<O>> {
        let network = self.main_weights(&ops, &NetworkPlan { architecture, purpose }, request).await?;
        ops.ready().await?;
        Ok(Engine { ops, network })
    }

    /// The main network, on the executor that was asked for.
    pub async fn any_engine(
        &mut self,
        architecture: &Architecture,
        purpose: Purpose,
        request: &Request,
    ) -> Result<AnyEngine> {
        Ok(match Executor::open(request.device, request.threads).await? {
            Executor::Cpu(ops) => AnyEngine::Cpu(Box::new(self.engine(ops, architecture, purpose, request).await?)),
            #[cfg(feature = "candle")]
            Executor::Candle(ops) => {
                AnyEngine::Candle(Box::new(self.engine(ops, architecture, purpose, request).await?))
            }
            #[cfg(feature = "webgpu")]
            Executor::Gpu(ops) => AnyEngine::Gpu(Box::new(self.engine(ops, architecture, purpose, request).await?)),
        })
    }
}

/// A network with the executor it was loaded on.
pub struct Engine<O: Ops> {
    pub ops: O,
    pub network: Network<O>,
}

/// An engine on the executor that was asked for.
pub enum AnyEngine {
    Cpu(Box<Engine<Processor>>),
    #[cfg(feature = "candle")]
    Candle(Box<Engine<Candle>>),
    #[cfg(feature = "webgpu")]
    Gpu(Box<Engine<Gpu>>),
}

impl<O: Ops> Engine<O> {
    /// Hidden states of a batch.
    pub fn hidden(&self, batch: &Batch) -> Result<O::Tensor> {
        self.network.encoder.forward(&self.ops, batch)
    }
}

#[cfg(feature = "webgpu")]
impl Engine<Auto> {
    /// Hidden states of so many texts and tokens of each, for [`Subject`](crate::ops::auto::Subject).
    pub async fn measured(&self, [texts, length]: [usize; 2]) -> Result<Vec<f32>> {
        let reach = self.network.encoder.embeddings.reach();
        self.ops.read(&self.hidden(&Batch::even(texts, length.min(reach)))?).await
    }
}

/// The architecture that `config.json` names.
pub fn architecture(config: Option<&[u8]>) -> Result<Architecture> {
    Architecture::from_config(&Config::from_bytes(config.ok_or_else(|| missing(CONFIG))?)?)
}

/// Refuses a tokenizer that gives ids beyond the model's table.
pub fn fits(tokenizer: &Tokenizer, rows: usize) -> Result<()> {
    match tokenizer.id_bound() > rows as u64 {
        false => Ok(()),
        true => {
            let message = format!("its vocabulary of {} does not fit the model's {rows} rows", tokenizer.id_bound());
            Err(Error::new(Code::InvalidTokenizer, TOKENIZER, message))
        }
    }
}

/// The error for a file that must be there.
pub fn missing(file: &str) -> Error {
    Error::new(Code::MissingFile, file, "the model has no such file")
}

/// Counts the bytes of all files.
struct Meter<'a> {
    watch: &'a dyn Watch,
    /// Name, bytes so far, and how many there will be.
    files: Vec<(String, u64, Option<u64>)>,
}

impl Meter<'_> {
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

    async fn whole<B: Body>(&mut self, file: &str, body: B) -> Result<Vec<u8>> {
        let bytes = whole(file, body, |count| self.add(file, count)).await?;
        self.end(file);
        Ok(bytes)
    }
}
