//! The sentence-transformers layout around a transformer: stages, pooling, length limit, prompts.
//!
//! Must agree with sentence-transformers' `modules.json`, `1_Pooling/config.json`, `sentence_bert_config.json` and
//! `config_sentence_transformers.json`, in their old and new forms.

use std::num::NonZeroUsize;

use serde::Deserialize;
use serde_json::{Map, Value, json};

pub use super::config::parse;
use super::{
    config::Config,
    keys::{self, Keys},
};
use crate::{
    error::{Code, Error, Result},
    hub,
    ops::{Activation, Pooling},
    text::{BertText, Prompts, Settings},
};

/// `modules.json`: the stages in order.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Modules {
    /// The folder of the transformer's files; the root, where nearly all models have them, is the empty one.
    pub transformer: String,
    /// The folder of the pooling stage's configuration.
    pub pooling: Option<String>,
    /// What is done to pooled vectors, in order, before they may be normalised.
    pub stages: Vec<Stage>,
    /// Whether vectors are normalised at the end.
    pub normalize: bool,
    /// The folders of stages that normalise and may have a configuration.
    norms: Vec<String>,
    /// The folder of a SPLADE pooling stage's configuration.
    pub splade: Option<String>,
    /// The folder of a table of token vectors, which then is all there is.
    pub static_table: Option<String>,
}

/// A stage between pooling and the last normalisation, with its folder.
#[derive(Debug, Clone, PartialEq)]
pub enum Stage {
    Dense(String),
    LayerNorm(String),
    /// A normalisation that is not the last stage.
    Normalize,
}

const MODULES: &str = "modules.json";

/// Where the types of sentence-transformers' own stages begin.
const OWN: &str = "sentence_transformers.";

impl Modules {
    /// Parses the file; without one, sentence-transformers takes the mean and does not normalise.
    pub fn from_bytes(bytes: Option<&[u8]>) -> Result<Self> {
        let mut modules = Modules::default();
        let Some(bytes) = bytes else {
            return Ok(modules);
        };
        for module in parse::<Vec<Map<String, Value>>>(MODULES, bytes)? {
            keys::MODULE.check(MODULES, &module)?;
            let text = |key: &str| {
                let text = module.get(key).and_then(Value::as_str);
                text.ok_or_else(|| Error::new(Code::InvalidConfig, MODULES, format!("a stage has no {key}")))
            };
            modules.add(text("path")?, text("type")?)?;
        }
        Ok(modules)
    }

    fn add(&mut self, path: &str, kind: &str) -> Result<()> {
        let unsupported = |what: &str| {
            let message = format!("stage {what} at {path:?} is not supported here");
            Err(Error::new(Code::UnsupportedModel, MODULES, message))
        };
        let folder = || hub::check_relative(MODULES, path).map(|()| path.to_owned());
        let folder_or_root = || if ["", "."].contains(&path) { Ok(String::new()) } else { folder() };
        // Code in the repository, or another library's, computes what only it knows, whatever its name.
        if !kind.starts_with(OWN) {
            return unsupported(&format!("{kind}, which is not sentence-transformers' own,"));
        }
        let pooled = self.pooling.is_some();
        // The package path before the class name has changed over time.
        let name = kind.rsplit('.').next().unwrap_or_default();
        match name {
            "Transformer" | "MLMTransformer" if *self == Self::default() => self.transformer = folder_or_root()?,
            "Dropout" => {} // while training
            "Pooling" if !pooled => self.pooling = Some(folder()?),
            "Dense" if pooled => self.push(Stage::Dense(folder()?)),
            "LayerNorm" if pooled => self.push(Stage::LayerNorm(folder()?)),
            "Normalize" if pooled || self.static_table.is_some() => {
                self.normalize = true;
                // Older ones had no configuration, and asking for one is a request.
                if kind.starts_with("sentence_transformers.base.") {
                    self.norms.push(folder()?);
                }
            }
            "SpladePooling" if self.splade.is_none() => self.splade = Some(folder()?),
            "StaticEmbedding" if self.static_table.is_none() => self.static_table = Some(folder_or_root()?),
            "Dense" | "LayerNorm" | "Normalize" => {
                return unsupported(&format!("{name}, before any pooling or after SPLADE's,"));
            }
            other => return unsupported(other),
        }
        Ok(())
    }

    fn push(&mut self, stage: Stage) {
        if std::mem::take(&mut self.normalize) {
            self.stages.push(Stage::Normalize);
        }
        self.stages.push(stage);
    }

    /// The folders of stages after pooling that have weights.
    pub fn stage_folders(&self) -> impl Iterator<Item = &String> {
        self.stages.iter().filter_map(|stage| match stage {
            Stage::Dense(folder) | Stage::LayerNorm(folder) => Some(folder),
            Stage::Normalize => None,
        })
    }

    /// All folders that must have files.
    pub fn folders(&self) -> impl Iterator<Item = &String> {
        let others = [&self.pooling, &self.splade, &self.static_table].into_iter().flatten();
        [&self.transformer].into_iter().chain(others).chain(self.stage_folders())
    }

    /// The folders of stages that normalise and may have a configuration.
    pub fn norm_folders(&self) -> &[String] {
        &self.norms
    }

    /// What these stages make beside a transformer's own output, which is all that a reranker is.
    pub fn beyond_transformer(&self) -> Option<&'static str> {
        let found = [
            (self.pooling.is_some(), "Pooling"),
            (!self.stages.is_empty() || self.normalize, "Dense, LayerNorm or Normalize"),
            (self.splade.is_some(), "SpladePooling"),
            (self.static_table.is_some(), "StaticEmbedding"),
        ];
        found.into_iter().find_map(|(is_there, name)| is_there.then_some(name))
    }
}

/// Checks the configuration of a stage that normalises.
pub fn check_normalize(file: &str, bytes: &[u8]) -> Result<()> {
    keys::NORMALIZE.check(file, &parse(file, bytes)?)
}

/// Parses a stage's file, whose every key must be known.
fn parse_stage<T: serde::de::DeserializeOwned>(file: &str, bytes: &[u8], keys: &Keys) -> Result<T> {
    keys.check(file, &parse(file, bytes)?)?;
    parse(file, bytes)
}

/// A Dense stage's `config.json`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct DenseConfig {
    pub in_features: usize,
    pub out_features: usize,
    #[serde(default = "yes")]
    pub bias: bool,
    /// A class of torch, by its path.
    #[serde(default)]
    activation_function: Option<String>,
    /// Whether the input is added to the result, where widths differ after a linear map of its own.
    #[serde(default)]
    pub use_residual: bool,
}

fn yes() -> bool {
    true
}

impl DenseConfig {
    /// Parses the file found at `file`.
    pub fn from_bytes(file: &str, bytes: &[u8]) -> Result<Self> {
        parse_stage(file, bytes, &keys::DENSE)
    }

    /// The activation; tanh where the file names none, as in sentence-transformers.
    pub fn activation(&self, file: &str) -> Result<Activation> {
        let name = self.activation_function.as_deref().unwrap_or("torch.nn.Tanh");
        // Classes that are not torch's may be anything; sentence-transformers takes tanh for them, or runs their code.
        match (name.starts_with("torch."), name.rsplit('.').next().unwrap_or_default()) {
            (true, "Identity") => Ok(Activation::None),
            (true, "Tanh") => Ok(Activation::Tanh),
            (true, "ReLU") => Ok(Activation::Relu),
            (true, "GELU") => Ok(Activation::Gelu),
            (true, "SiLU") => Ok(Activation::Silu),
            (true, "Sigmoid") => Ok(Activation::Sigmoid),
            (true, "LeakyReLU") => Ok(Activation::LeakyRelu),
            (true, "Mish") => Ok(Activation::Mish),
            _ => Err(Error::new(Code::UnsupportedModel, file, format!("activation {name} is not supported"))),
        }
    }
}

/// The width in a LayerNorm stage's `config.json`.
pub fn layer_norm_width(file: &str, bytes: &[u8]) -> Result<usize> {
    #[derive(Deserialize)]
    struct LayerNorm {
        dimension: usize,
    }
    parse_stage(file, bytes, &keys::LAYER_NORM).map(|LayerNorm { dimension }| dimension)
}

/// A SPLADE pooling stage's `config.json`: how often the logarithm is taken.
pub fn splade_logarithms(file: &str, bytes: &[u8]) -> Result<usize> {
    #[derive(Deserialize)]
    struct Pooling {
        pooling_strategy: Option<String>,
        activation_function: Option<String>,
    }
    let pooling: Pooling = parse_stage(file, bytes, &keys::SPLADE)?;
    let strategy = pooling.pooling_strategy.as_deref().unwrap_or("max");
    match (strategy, pooling.activation_function.as_deref().unwrap_or("relu")) {
        ("max", "relu") => Ok(1),
        ("max", "log1p_relu") => Ok(2),
        (strategy, activation) => {
            let message = format!("pooling {strategy:?} with activation {activation:?} is not supported");
            Err(Error::new(Code::UnsupportedModel, file, message))
        }
    }
}

/// Whether a cross-encoder's logit becomes a score by the logistic function, where `config.json` says, in sentence-transformers' form
/// of versions 4 and 5 or an older one.
pub fn is_sigmoid(config: &Config) -> Result<Option<bool>> {
    const OLD: &str = "sbert_ce_default_activation_function";
    let new = config.section("sentence_transformers").filter(|section| section.has("activation_fn"));
    let name = match &new {
        Some(section) => section.string("activation_fn")?,
        None if config.has(OLD) => config.string(OLD)?,
        None => return Ok(None),
    };
    logistic("config.json", name).map(Some)
}

/// Whether this class of torch is the logistic function, or none.
fn logistic(file: &str, name: &str) -> Result<bool> {
    match (name.starts_with("torch."), name.rsplit('.').next().unwrap_or_default()) {
        (true, "Identity") => Ok(false),
        (true, "Sigmoid") => Ok(true),
        _ => Err(Error::new(Code::UnsupportedModel, file, format!("activation_fn {name:?} is not supported"))),
    }
}

/// Whether files without a list of stages are those of a static model: its own layout says so, that of sentence-transformers has
/// no `config.json` at all but `config_sentence_transformers.json`.
pub fn is_static(config: Option<&[u8]>, has_prompts_file: bool) -> bool {
    match config {
        None => has_prompts_file,
        // Only `model2vec.distill` names a type; a model with vectors of its own has these keys alone.
        Some(config) => {
            is_model2vec(config) && {
                let config: Map<String, Value> = serde_json::from_slice(config).unwrap_or_default();
                ["model_type", "embedding_dtype", "normalize", "apply_pca"].iter().any(|key| config.contains_key(*key))
            }
        }
    }
}

/// Whether a `config.json` beside a static table is Model2Vec's: that of a transformer names its type, and sentence-transformers'
/// own tables have none.
pub fn is_model2vec(config: &[u8]) -> bool {
    #[derive(Deserialize)]
    struct Kind {
        model_type: Option<String>,
    }
    // What cannot be read is refused by whoever needs it.
    let kind = serde_json::from_slice::<Kind>(config).ok();
    kind.is_some_and(|kind| kind.model_type.is_none_or(|kind| kind == "model2vec"))
}

/// The `config.json` of a static model.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct StaticConfig {
    #[serde(default)]
    pub normalize: bool,
    /// Most tokens of a text; null for no limit. Model2Vec takes 512 where the key is absent.
    #[serde(default = "StaticConfig::usual_length")]
    pub max_length: Option<usize>,
}

impl StaticConfig {
    fn usual_length() -> Option<usize> {
        Some(512)
    }

    /// Parses the file found at `file`, with the warning for keys that are not known.
    pub fn from_bytes(file: &str, bytes: &[u8]) -> Result<(Self, Option<String>)> {
        let unknown = keys::unknown(&[&keys::MODEL2VEC, &keys::SENTENCE_TRANSFORMERS], &parse(file, bytes)?);
        Ok((parse(file, bytes)?, keys::warning(file, &unknown)))
    }
}

/// The pooling stage's `config.json`.
#[derive(Debug, Clone, PartialEq)]
pub struct PoolingConfig {
    /// In the order in which they are laid side by side.
    pub modes: Vec<Pooling>,
    /// Whether a prompt's tokens take part.
    pub include_prompt: bool,
}

/// Modes with their names in the new form (`pooling_mode`) and the old (booleans), in the order of the old one.
const MODES: [(Pooling, &str, &str); 6] = [
    (Pooling::Cls, "cls", "pooling_mode_cls_token"),
    (Pooling::Max, "max", "pooling_mode_max_tokens"),
    (Pooling::Mean, "mean", "pooling_mode_mean_tokens"),
    (Pooling::MeanSqrtLen, "mean_sqrt_len_tokens", "pooling_mode_mean_sqrt_len_tokens"),
    (Pooling::WeightedMean, "weightedmean", "pooling_mode_weightedmean_tokens"),
    (Pooling::LastToken, "lasttoken", "pooling_mode_lasttoken"),
];

impl PoolingConfig {
    /// Parses the file found at `file`; without one: the mean.
    pub fn from_bytes(file: &str, bytes: Option<&[u8]>) -> Result<Self> {
        let Some(bytes) = bytes else {
            return Ok(Self { modes: vec![Pooling::Mean], include_prompt: true });
        };
        let config: Map<String, Value> = parse_stage(file, bytes, &keys::POOLING)?;
        let flag = |key: &str| match config.get(key) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::Bool(flag)) => Ok(Some(*flag)),
            Some(other) => Err(Error::new(Code::InvalidConfig, file, format!("{key} is {other}, not true or false"))),
        };
        let mut modes = Vec::new();
        match config.get("pooling_mode") {
            // Side by side in the order of the list; the booleans have one of their own.
            Some(Value::Array(names)) => {
                for name in names {
                    modes.push(Self::named(file, name)?);
                }
            }
            None | Some(Value::Null) => {
                for (mode, _, key) in MODES {
                    if flag(key)? == Some(true) {
                        modes.push(mode);
                    }
                }
                // What sentence-transformers takes where none is on.
                if modes.is_empty() && !config.is_empty() {
                    modes.push(Pooling::Mean);
                }
            }
            Some(name) => modes.push(Self::named(file, name)?),
        }
        if modes.is_empty() {
            return Err(Error::new(Code::InvalidConfig, file, "it names no pooling mode"));
        }
        let include_prompt = flag("include_prompt")?.unwrap_or(true);
        if !include_prompt && modes.contains(&Pooling::WeightedMean) {
            // The weights would have to count the prompt that they leave out; no known model asks for it.
            return Err(Error::new(
                Code::UnsupportedModel,
                file,
                "a weighted mean without the prompt is not supported",
            ));
        }
        Ok(Self { modes, include_prompt })
    }

    fn named(file: &str, name: &Value) -> Result<Pooling> {
        let mode = MODES.iter().find(|(_, known, _)| name == known);
        mode.map(|(mode, ..)| *mode)
            .ok_or_else(|| Error::new(Code::UnsupportedModel, file, format!("pooling mode {name} is not supported")))
    }
}

/// The names that `sentence_bert_config.json` has had, in the order in which sentence-transformers looks for them.
pub const TRANSFORMER_NAMES: [&str; 7] = [
    "sentence_bert_config.json",
    "sentence_roberta_config.json",
    "sentence_distilbert_config.json",
    "sentence_camembert_config.json",
    "sentence_albert_config.json",
    "sentence_xlm-roberta_config.json",
    "sentence_xlnet_config.json",
];

/// `sentence_bert_config.json`.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct TransformerConfig {
    /// Most tokens of a text, special tokens included.
    pub max_seq_length: Option<usize>,
    pub do_lower_case: bool,
    /// What the hidden states are made into, where the file says.
    task: Option<String>,
}

impl TransformerConfig {
    /// Parses the file found at `file`, if there is one.
    pub fn from_bytes(file: &str, bytes: Option<&[u8]>) -> Result<Self> {
        #[derive(Default, Deserialize)]
        struct Read {
            max_seq_length: Option<usize>,
            do_lower_case: Option<bool>,
            transformer_task: Option<String>,
            module_output_name: Option<String>,
            modality_config: Option<Map<String, Value>>,
        }
        let Some(bytes) = bytes else {
            return Ok(Self::default());
        };
        let values: Map<String, Value> = parse(file, bytes)?;
        let read: Read = parse_stage(file, bytes, &keys::TRANSFORMER)?;
        for key in ["model_args", "model_kwargs", "tokenizer_args", "processor_kwargs", "config_args", "config_kwargs"]
        {
            if let Some(arguments) = values.get(key).and_then(Value::as_object) {
                keys::ARGUMENTS.check(&format!("{file}, {key}"), arguments)?;
            }
        }
        let unsupported = |message: String| Err(Error::new(Code::UnsupportedModel, file, message));
        match (read.transformer_task.as_deref(), read.module_output_name.as_deref()) {
            (None | Some("feature-extraction" | "fill-mask"), None | Some("token_embeddings")) => {}
            (None | Some("sequence-classification"), None | Some("scores")) => {}
            (task, output) => {
                let named = |name: Option<&str>| name.unwrap_or("unnamed").to_owned();
                return unsupported(format!(
                    "transformer_task {} with module_output_name {} is not supported",
                    named(task),
                    named(output)
                ));
            }
        }
        for (modality, how) in read.modality_config.iter().flatten() {
            let output = how["method_output_name"].as_str();
            if modality != "text"
                || how["method"] != "forward"
                || !matches!(output, Some("last_hidden_state" | "logits"))
            {
                return unsupported(format!("modality_config {modality}: {how} is not supported"));
            }
        }
        Ok(Self {
            max_seq_length: read.max_seq_length,
            do_lower_case: read.do_lower_case.unwrap_or(false),
            task: read.transformer_task,
        })
    }

    /// Refuses a file that says that the model makes something else than what is wanted of it.
    pub fn makes(&self, file: &str, task: &str) -> Result<()> {
        match self.task.as_deref().filter(|&own| own != task) {
            None => Ok(()),
            Some(own) => {
                let message = format!("transformer_task {own:?} is not supported for a model of this kind");
                Err(Error::new(Code::UnsupportedModel, file, message))
            }
        }
    }
}

/// `tokenizer_config.json`: what transformers takes from there, and not from `tokenizer.json`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
pub struct TokenizerConfig {
    /// A float when the tokenizer has no limit (1e30).
    #[serde(default)]
    pub model_max_length: Option<f64>,
    do_lower_case: Option<bool>,
    strip_accents: Option<bool>,
    tokenize_chinese_chars: Option<bool>,
    add_prefix_space: Option<bool>,
    truncation_side: Option<String>,
    model_input_names: Option<Vec<String>>,
    tokenizer_class: Option<String>,
    unk_token: Option<Value>,
    sep_token: Option<Value>,
    pad_token: Option<Value>,
    cls_token: Option<Value>,
    mask_token: Option<Value>,
}

const TOKENIZER_CONFIG: &str = "tokenizer_config.json";

impl TokenizerConfig {
    /// Parses the file, if there is one, with the warning for keys that are not known.
    pub fn from_bytes(bytes: Option<&[u8]>) -> Result<(Self, Option<String>)> {
        let Some(bytes) = bytes else {
            return Ok((Self::default(), None));
        };
        let values: Map<String, Value> = parse(TOKENIZER_CONFIG, bytes)?;
        keys::TOKENIZER.refuse(TOKENIZER_CONFIG, &values)?;
        let warning = keys::warning(TOKENIZER_CONFIG, &keys::unknown(&[&keys::TOKENIZER], &values));
        Ok((parse(TOKENIZER_CONFIG, bytes)?, warning))
    }

    /// With the class that `config.json` names, where this file names none.
    pub fn or_class(self, class: Option<&str>) -> Self {
        Self { tokenizer_class: self.tokenizer_class.or_else(|| class.map(str::to_owned)), ..self }
    }

    /// Whether transformers reads the model's texts with one of these classes, which are those of these families where the file
    /// names none (`TOKENIZER_MAPPING_NAMES`).
    fn is_of(&self, classes: &[&str], families: &[&str], family: &str) -> bool {
        match self.tokenizer_class.as_deref() {
            Some(class) => classes.contains(&class.strip_suffix("Fast").unwrap_or(class)),
            None => families.contains(&family),
        }
    }

    fn is_bert(&self, family: &str) -> bool {
        self.is_of(&["BertTokenizer", "DistilBertTokenizer"], &["bert", "distilbert", "nomic_bert"], family)
    }

    /// What it says of the tokenizer. `family` is the `model_type`.
    pub fn settings(&self, family: &str, lower_case: bool, types: usize) -> Result<Settings> {
        let bert = self.is_bert(family).then(|| BertText {
            lower_case: self.do_lower_case.unwrap_or(true),
            strip_accents: self.strip_accents,
            chinese: self.tokenize_chinese_chars.unwrap_or(true),
        });
        let cuts_beginning = match self.truncation_side.as_deref() {
            None => None,
            Some("right") => Some(false),
            Some("left") => Some(true),
            Some(side) => {
                let message = format!("truncation_side is {side:?}, neither left nor right");
                return Err(Error::new(Code::InvalidConfig, TOKENIZER_CONFIG, message));
            }
        };
        let named = |names: &Vec<String>| names.iter().any(|name| name == "token_type_ids");
        // RoBERTa's classes have no segments unless they are asked for them.
        let usual = !["roberta", "xlm-roberta", "camembert"].contains(&family);
        let segments = types > 1 && self.model_input_names.as_ref().map_or(usual, named);
        // These classes split texts at white space, whatever `tokenizer.json` says.
        let classes = ["XLMRobertaTokenizer", "CamembertTokenizer", "T5Tokenizer"];
        let trims_end = self.is_of(&classes, &["xlm-roberta", "camembert", "t5", "gte"], family);
        Ok(Settings { lower_case, bert, prefix_space: self.add_prefix_space, cuts_beginning, trims_end, segments })
    }

    /// A `tokenizer.json` from BERT's `vocab.txt`, as `BertTokenizer` of transformers makes one, where that is the tokenizer.
    pub fn word_piece(&self, vocab: &[u8], family: &str) -> Result<Option<Vec<u8>>> {
        const FILE: &str = "vocab.txt";
        if !self.is_bert(family) {
            return Ok(None);
        }
        let damaged = |message: String| Error::new(Code::InvalidTokenizer, FILE, message);
        let text = std::str::from_utf8(vocab).map_err(|_| damaged("it is not UTF-8".to_owned()))?;
        let text = text.replace("\r\n", "\n").replace('\r', "\n");
        let mut ids = Map::new();
        for (id, token) in text.strip_suffix('\n').unwrap_or(&text).split('\n').enumerate() {
            ids.insert(token.to_owned(), id.into());
        }
        let mut added = Vec::new();
        let mut special = |given: &Option<Value>, usual: &str| {
            // A string, or an object with it.
            let token = given.as_ref().and_then(|token| token.as_str().or_else(|| token["content"].as_str()));
            let token = token.unwrap_or(usual).to_owned();
            let id = ids.get(&token).cloned().ok_or_else(|| damaged(format!("it has no {token}")))?;
            added.push(json!({
                "id": id, "content": token, "single_word": false, "lstrip": false, "rstrip": false,
                "normalized": false, "special": true,
            }));
            Ok::<_, Error>((token, id))
        };
        let (unknown, _) = special(&self.unk_token, "[UNK]")?;
        let (sep, cls) = (special(&self.sep_token, "[SEP]")?, special(&self.cls_token, "[CLS]")?);
        // Nothing needs these, and old vocabularies may lack one.
        let _ = (special(&self.pad_token, "[PAD]"), special(&self.mask_token, "[MASK]"));
        added.sort_by_key(|token| token["id"].as_u64());
        let tokenizer = json!({
            "version": "1.0",
            "added_tokens": added,
            "normalizer": {
                "type": "BertNormalizer", "clean_text": true, "handle_chinese_chars": true, "strip_accents": null,
                "lowercase": true,
            },
            "pre_tokenizer": { "type": "BertPreTokenizer" },
            "post_processor": { "type": "BertProcessing", "sep": [sep.0, sep.1], "cls": [cls.0, cls.1] },
            "model": {
                "type": "WordPiece", "unk_token": unknown, "continuing_subword_prefix": "##",
                "max_input_chars_per_word": 100, "vocab": ids,
            },
        });
        Ok(Some(tokenizer.to_string().into_bytes()))
    }
}

/// Most tokens of a text where neither files nor positions set a limit.
const UNLIMITED: usize = 8192;

/// Most tokens of a text: the configured length, else the tokenizer's, and never more than the positions reach. Where only the
/// positions speak, what the model was trained at counts.
pub fn max_tokens(
    transformer: &TransformerConfig,
    tokenizer: &TokenizerConfig,
    reach: Option<usize>,
    trained: Option<usize>,
) -> usize {
    let most = reach.unwrap_or(UNLIMITED);
    let configured = transformer.max_seq_length.filter(|&length| length > 0).or_else(|| {
        let length = tokenizer.model_max_length?;
        (length >= 1.0 && length < most as f64).then_some(length as usize)
    });
    let configured = configured.unwrap_or(most).min(most);
    trained.map_or(configured, |trained| configured.min(trained))
}

const SENTENCE_TRANSFORMERS: &str = "config_sentence_transformers.json";

/// `config_sentence_transformers.json`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
pub struct Saved {
    #[serde(skip)]
    pub prompts: Prompts,
    /// Components that a dense vector is cut to.
    pub truncate_dim: Option<NonZeroUsize>,
    /// Weights that a sparse vector keeps.
    pub max_active_dims: Option<usize>,
    activation_fn: Option<String>,
    model_type: Option<String>,
}

impl Saved {
    /// Parses the file, if there is one.
    pub fn from_bytes(bytes: Option<&[u8]>) -> Result<Self> {
        let Some(bytes) = bytes else {
            return Ok(Self::default());
        };
        let values: Map<String, Value> = parse(SENTENCE_TRANSFORMERS, bytes)?;
        let kind = values.get("model_type").and_then(Value::as_str);
        if kind.is_some_and(|kind| ["ColBERT", "MultiVectorEncoder"].contains(&kind)) {
            let message = "models for late interaction (model_type ColBERT or MultiVectorEncoder) are not supported";
            return Err(Error::new(Code::UnsupportedModel, SENTENCE_TRANSFORMERS, message));
        }
        keys::SENTENCE_TRANSFORMERS.check(SENTENCE_TRANSFORMERS, &values)?;
        let saved = Self { prompts: parse(SENTENCE_TRANSFORMERS, bytes)?, ..parse(SENTENCE_TRANSFORMERS, bytes)? };
        if let Some(name) = saved.prompts.missing_default() {
            let message = format!("default_prompt_name is {name:?}, which is none of its prompts");
            return Err(Error::new(Code::InvalidConfig, SENTENCE_TRANSFORMERS, message));
        }
        Ok(saved)
    }

    /// The file as a static model has it: Model2Vec may keep its own settings there.
    pub fn from_static(bytes: Option<&[u8]>) -> Result<Self> {
        let Some(bytes) = bytes else {
            return Ok(Self::default());
        };
        let mut values: Map<String, Value> = parse(SENTENCE_TRANSFORMERS, bytes)?;
        values.retain(|key, _| key == "model_type" || !keys::MODEL2VEC.computed.contains(&key.as_str()));
        Self::from_bytes(Some(Value::Object(values).to_string().as_bytes()))
    }

    /// Whether it is a reranker's. sentence-transformers does not read what another model's file says.
    pub fn is_reranker(&self) -> bool {
        self.model_type.as_deref() == Some("CrossEncoder")
    }

    /// Whether a reranker's logit becomes a score by the logistic function, where the file says.
    pub fn is_sigmoid(&self) -> Result<Option<bool>> {
        self.activation_fn.as_deref().map(|name| logistic(SENTENCE_TRANSFORMERS, name)).transpose()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::{Form, Tokenizer};

    #[test]
    fn stages_are_known_by_the_last_word_of_their_type() {
        for package in ["models", "sentence_transformer.modules", "base.modules"] {
            let json = format!(
                r#"[{{"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.{package}.Transformer"}},
                    {{"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.{package}.Pooling"}},
                    {{"idx": 2, "name": "2", "path": "2_Normalize", "type": "sentence_transformers.{package}.Normalize"}}]"#
            );
            let modules = Modules::from_bytes(Some(json.as_bytes())).expect("modules");
            assert_eq!(modules.pooling.as_deref(), Some("1_Pooling"));
            assert!(modules.normalize);
        }
        for unknown in
            ["sentence_transformers.models.LSTM", "custom_st.Transformer", "pylate.models.Dense.Dense", "Pooling"]
        {
            let json = format!(r#"[{{"path": "1_LSTM", "type": "{unknown}"}}]"#);
            let error = Modules::from_bytes(Some(json.as_bytes())).expect_err("not supported");
            assert_eq!(error.code(), Code::UnsupportedModel, "{error}");
            assert!(error.message().contains(unknown.rsplit('.').next().expect("a name")), "{error}");
        }
    }

    #[test]
    fn stages_after_pooling_keep_their_order() {
        let stages = |kinds: &[&str]| {
            let stage = |(index, kind): (usize, &&str)| {
                format!(r#"{{"path": "{index}_{kind}", "type": "sentence_transformers.models.{kind}"}}"#)
            };
            let stages: Vec<String> = kinds.iter().enumerate().map(stage).collect();
            Modules::from_bytes(Some(format!("[{}]", stages.join(",")).as_bytes()))
        };
        let modules =
            stages(&["Transformer", "Pooling", "Normalize", "Dense", "LayerNorm", "Normalize"]).expect("stages");
        assert_eq!(modules.transformer, "0_Transformer");
        let between = [Stage::Normalize, Stage::Dense("3_Dense".into()), Stage::LayerNorm("4_LayerNorm".into())];
        assert_eq!((modules.stages, modules.normalize), (between.into(), true));
        let modules = stages(&["Transformer", "Pooling", "Normalize", "Dense"]).expect("stages");
        assert!(!modules.normalize);
        for order in [
            &["Transformer", "Dense", "Pooling"][..],
            &["Transformer", "Transformer"],
            &["Pooling", "Transformer"],
            &["Transformer", "SpladePooling", "Normalize"],
        ] {
            assert_eq!(stages(order).expect_err("not supported").code(), Code::UnsupportedModel, "{order:?}");
        }
    }

    #[test]
    fn pooling_modes_are_read_in_both_forms_and_in_the_order_of_each() {
        let modes = |json: &str| PoolingConfig::from_bytes("1_Pooling/config.json", Some(json.as_bytes()));
        let old = modes(
            r#"{"pooling_mode_mean_tokens": true, "pooling_mode_cls_token": true, "pooling_mode_max_tokens": false}"#,
        );
        assert_eq!(old.expect("old form").modes, [Pooling::Cls, Pooling::Mean]);
        let new = modes(r#"{"pooling_mode": ["lasttoken", "max"], "include_prompt": false}"#).expect("new form");
        assert_eq!(new.modes, [Pooling::LastToken, Pooling::Max]);
        assert!(!new.include_prompt);
        assert_eq!(modes(r#"{"pooling_mode": "mean"}"#).expect("one").modes, [Pooling::Mean]);
        assert_eq!(modes(r#"{"pooling_mode": "median"}"#).expect_err("unknown").code(), Code::UnsupportedModel);
        assert_eq!(modes("{}").expect_err("none").code(), Code::InvalidConfig);
        let none = r#"{"word_embedding_dimension": 32, "pooling_mode_mean_tokens": false, "pooling_mode": null}"#;
        assert_eq!(modes(none).expect("the mean").modes, [Pooling::Mean]);
        assert_eq!(modes(r#"{"pooling_mode_cls_token": "true"}"#).expect_err("a text").code(), Code::InvalidConfig);
        assert_eq!(modes("<!doctype html>").expect_err("a page").code(), Code::InvalidJson);
    }

    #[test]
    fn the_length_limit_is_the_configured_one_within_the_positions() {
        let transformer = |max_seq_length| TransformerConfig { max_seq_length, ..TransformerConfig::default() };
        let tokenizer = |model_max_length| TokenizerConfig { model_max_length, ..TokenizerConfig::default() };
        assert_eq!(max_tokens(&transformer(Some(256)), &tokenizer(Some(128.0)), Some(512), None), 256);
        assert_eq!(max_tokens(&transformer(Some(1024)), &tokenizer(None), Some(512), None), 512);
        assert_eq!(max_tokens(&transformer(None), &tokenizer(Some(128.0)), Some(512), None), 128);
        assert_eq!(max_tokens(&transformer(None), &tokenizer(Some(1e30)), Some(512), None), 512);
        assert_eq!(max_tokens(&transformer(None), &tokenizer(None), Some(512), None), 512);
        assert_eq!(max_tokens(&transformer(Some(8192)), &tokenizer(None), Some(8192), Some(2048)), 2048);
        assert_eq!(max_tokens(&transformer(None), &tokenizer(Some(512.0)), None, None), 512);
    }

    /// `BertTokenizer` of transformers makes these ids of these lines.
    #[test]
    fn a_vocabulary_is_a_tokenizer() {
        let config = |json: &str| TokenizerConfig::from_bytes(Some(json.as_bytes())).expect("a configuration").0;
        let vocab = "[PAD]\r\n[UNK]\r\n[CLS]\r\n[SEP]\r\n[MASK]\r\nhello\r\nHello\r\n##s\r\n\u{4e1c}\r\n\u{4eac}\r\n\u{2028}\r\n";
        let ids = |json: &str, family: &str, text: &str| {
            let config = config(json);
            let made = config.word_piece(vocab.as_bytes(), family).expect("a vocabulary")?;
            let settings = config.settings(family, false, 2).expect("settings");
            let tokenizer = Tokenizer::from_bytes(&made, 16, &settings, Form::Text).expect("a tokenizer");
            Some(tokenizer.encode("", text, true).expect("ids").ids)
        };
        let text = "Hellos [MASK] \u{4e1c}\u{4eac} other";
        assert_eq!(ids("{}", "bert", text), Some(vec![2, 5, 7, 4, 8, 9, 1, 3]));
        assert_eq!(ids(r#"{"do_lower_case": false}"#, "distilbert", "Hello hello"), Some(vec![2, 6, 5, 3]));
        let named = r#"{"tokenizer_class": "BertTokenizerFast", "cls_token": {"content": "[MASK]"}}"#;
        assert_eq!(ids(named, "roberta", "hello"), Some(vec![4, 5, 3]));
        // Tokenizers of other classes have a vocab.txt too, and another rule.
        assert_eq!(ids(r#"{"tokenizer_class": "BertJapaneseTokenizer"}"#, "bert", text), None);
        assert_eq!(ids("{}", "roberta", text), None);
        let error = config("{}").word_piece(b"[PAD]\nhello\n", "bert").expect_err("no special tokens");
        assert_eq!(error.code(), Code::InvalidTokenizer);
    }
}
