//! The sentence-transformers layout around a transformer: stages, pooling, length limit, prompts.
//!
//! Must agree with sentence-transformers' `modules.json`, `1_Pooling/config.json`, `sentence_bert_config.json` and
//! `config_sentence_transformers.json`, in their old and new forms.

use serde::Deserialize;
use serde_json::{Map, Value};

use super::config::Config;
pub use super::config::parse;
use crate::{
    error::{Code, Error, Result},
    hub,
    ops::{Activation, Pooling},
    text::Prompts,
};

/// `modules.json`: the stages in order.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Modules {
    /// The folder of the pooling stage's configuration.
    pub pooling: Option<String>,
    /// The folders of Dense stages, in order.
    pub projections: Vec<String>,
    /// Whether vectors are normalised at the end.
    pub normalize: bool,
    /// The folder of a SPLADE pooling stage's configuration.
    pub splade: Option<String>,
    /// The folder of a table of token vectors, which then is all there is.
    pub static_table: Option<String>,
}

#[derive(Deserialize)]
struct Module {
    path: String,
    #[serde(rename = "type")]
    kind: String,
}

impl Modules {
    /// Parses the file; without one, sentence-transformers takes the mean and does not normalise.
    pub fn from_bytes(bytes: Option<&[u8]>) -> Result<Self> {
        const FILE: &str = "modules.json";
        let mut modules = Modules::default();
        let Some(bytes) = bytes else {
            return Ok(modules);
        };
        for module in parse::<Vec<Module>>(FILE, bytes)? {
            let Module { path, kind } = module;
            let unsupported = |stage: &str| {
                Error::new(Code::UnsupportedModel, FILE, format!("stage {stage} at {path:?} is not supported here"))
            };
            let folder = |path: &str| hub::check_relative(FILE, path).map(|()| path.to_owned());
            // The package path before the class name has changed over time.
            match kind.rsplit('.').next().unwrap_or_default() {
                "Transformer" | "MLMTransformer" if path.is_empty() => {}
                "Dropout" => {} // while training
                "Pooling" if modules.pooling.is_none() => modules.pooling = Some(folder(&path)?),
                "Dense" if modules.pooling.is_some() && !modules.normalize => modules.projections.push(folder(&path)?),
                "Normalize" => modules.normalize = true,
                "SpladePooling" if modules.splade.is_none() => modules.splade = Some(folder(&path)?),
                "StaticEmbedding" if modules.static_table.is_none() => {
                    let here = path.is_empty() || path == ".";
                    modules.static_table = Some(if here { String::new() } else { folder(&path)? });
                }
                other => return Err(unsupported(other)),
            }
        }
        Ok(modules)
    }
}

/// A Dense stage's `config.json`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct DenseConfig {
    pub in_features: usize,
    pub out_features: usize,
    pub bias: bool,
    /// A class of torch, by its path.
    #[serde(default)]
    activation_function: Option<String>,
}

impl DenseConfig {
    /// Parses the file found at `file`.
    pub fn from_bytes(file: &str, bytes: &[u8]) -> Result<Self> {
        parse(file, bytes)
    }

    /// The activation; tanh where the file names none, as in sentence-transformers.
    pub fn activation(&self, file: &str) -> Result<Activation> {
        let name = self.activation_function.as_deref().unwrap_or("Tanh");
        match name.rsplit('.').next().unwrap_or_default() {
            "Identity" => Ok(Activation::None),
            "Tanh" => Ok(Activation::Tanh),
            "ReLU" => Ok(Activation::Relu),
            "GELU" => Ok(Activation::Gelu),
            "SiLU" => Ok(Activation::Silu),
            _ => Err(Error::new(Code::UnsupportedModel, file, format!("activation {name} is not supported"))),
        }
    }
}

/// A SPLADE pooling stage's `config.json`: how often the logarithm is taken.
pub fn splade_logarithms(file: &str, bytes: &[u8]) -> Result<usize> {
    #[derive(Deserialize)]
    struct Pooling {
        pooling_strategy: String,
        activation_function: String,
    }
    let pooling: Pooling = parse(file, bytes)?;
    match (pooling.pooling_strategy.as_str(), pooling.activation_function.as_str()) {
        ("max", "relu") => Ok(1),
        ("max", "log1p_relu") => Ok(2),
        (strategy, activation) => {
            let message = format!("pooling {strategy:?} with activation {activation:?} is not supported");
            Err(Error::new(Code::UnsupportedModel, file, message))
        }
    }
}

/// Whether a cross-encoder's logit becomes a score by the logistic function, where `config.json` says, in sentence-transformers' new
/// form or its old one.
pub fn is_sigmoid(config: &Config) -> Result<Option<bool>> {
    const OLD: &str = "sbert_ce_default_activation_function";
    let new = config.section("sentence_transformers").filter(|section| section.has("activation_fn"));
    let name = match &new {
        Some(section) => section.string("activation_fn")?,
        None if config.has(OLD) => config.string(OLD)?,
        None => return Ok(None),
    };
    match name.rsplit('.').next().unwrap_or_default() {
        "Identity" => Ok(Some(false)),
        "Sigmoid" => Ok(Some(true)),
        _ => Err(config.unsupported("activation_fn", &format!("{name:?}"))),
    }
}

/// Whether files without a list of stages are those of a static model: its own layout says so, that of sentence-transformers has
/// no `config.json` at all but `config_sentence_transformers.json`.
pub fn is_static(config: Option<&[u8]>, has_prompts_file: bool) -> bool {
    #[derive(Deserialize)]
    struct Kind {
        model_type: String,
    }
    match config {
        None => has_prompts_file,
        // What cannot be read is refused by whoever needs it.
        Some(config) => serde_json::from_slice::<Kind>(config).is_ok_and(|kind| kind.model_type == "model2vec"),
    }
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

    /// Parses the file found at `file`.
    pub fn from_bytes(file: &str, bytes: &[u8]) -> Result<Self> {
        parse(file, bytes)
    }
}

/// The pooling stage's `config.json`.
#[derive(Debug, Clone, PartialEq)]
pub struct PoolingConfig {
    /// In the fixed order in which sentence-transformers lays several modes side by side.
    pub modes: Vec<Pooling>,
    /// Whether a prompt's tokens take part.
    pub include_prompt: bool,
}

/// Modes in sentence-transformers' order, with their names in the new form (`pooling_mode`) and the old (booleans).
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
        let config: Map<String, Value> = parse(file, bytes)?;
        let modes = match config.get("pooling_mode") {
            Some(Value::String(name)) => Self::named(file, &[Value::String(name.clone())])?,
            Some(Value::Array(names)) => Self::named(file, names)?,
            _ => {
                let on = |key: &str| config.get(key).and_then(Value::as_bool).unwrap_or(false);
                MODES.iter().filter(|(_, _, key)| on(key)).map(|(mode, ..)| *mode).collect()
            }
        };
        if modes.is_empty() {
            return Err(Error::new(Code::InvalidConfig, file, "no pooling mode is on"));
        }
        let include_prompt = config.get("include_prompt").and_then(Value::as_bool).unwrap_or(true);
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

    fn named(file: &str, names: &[Value]) -> Result<Vec<Pooling>> {
        if let Some(unknown) = names.iter().find(|name| !MODES.iter().any(|(_, known, _)| *name == known)) {
            return Err(Error::new(Code::UnsupportedModel, file, format!("pooling mode {unknown} is not supported")));
        }
        let chosen = MODES.iter().filter(|(_, known, _)| names.iter().any(|name| name == known));
        Ok(chosen.map(|(mode, ..)| *mode).collect())
    }
}

/// `sentence_bert_config.json`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
pub struct TransformerConfig {
    /// Most tokens of a text, special tokens included.
    #[serde(default)]
    pub max_seq_length: Option<usize>,
    #[serde(default)]
    pub do_lower_case: bool,
}

impl TransformerConfig {
    /// Parses the file, if there is one.
    pub fn from_bytes(bytes: Option<&[u8]>) -> Result<Self> {
        bytes.map_or_else(|| Ok(Self::default()), |bytes| parse("sentence_bert_config.json", bytes))
    }
}

/// `tokenizer_config.json`, for the length limit of models that have no other.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
pub struct TokenizerConfig {
    /// A float when the tokenizer has no limit (1e30).
    #[serde(default)]
    pub model_max_length: Option<f64>,
}

impl TokenizerConfig {
    /// Parses the file, if there is one.
    pub fn from_bytes(bytes: Option<&[u8]>) -> Result<Self> {
        bytes.map_or_else(|| Ok(Self::default()), |bytes| parse("tokenizer_config.json", bytes))
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

/// `config_sentence_transformers.json`, for its prompts.
pub fn prompts(bytes: Option<&[u8]>) -> Result<Prompts> {
    bytes.map_or_else(|| Ok(Prompts::default()), |bytes| parse("config_sentence_transformers.json", bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

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
        let unknown = br#"[{"path": "1_LSTM", "type": "sentence_transformers.models.LSTM"}]"#;
        let error = Modules::from_bytes(Some(unknown)).expect_err("not supported");
        assert_eq!(error.code(), Code::UnsupportedModel);
        assert!(error.message().contains("LSTM"));
    }

    #[test]
    fn pooling_modes_are_read_in_both_forms_and_kept_in_order() {
        let modes = |json: &str| PoolingConfig::from_bytes("1_Pooling/config.json", Some(json.as_bytes()));
        let old = modes(
            r#"{"pooling_mode_mean_tokens": true, "pooling_mode_cls_token": true, "pooling_mode_max_tokens": false}"#,
        );
        assert_eq!(old.expect("old form").modes, [Pooling::Cls, Pooling::Mean]);
        let new = modes(r#"{"pooling_mode": ["lasttoken", "max"], "include_prompt": false}"#).expect("new form");
        assert_eq!(new.modes, [Pooling::Max, Pooling::LastToken]);
        assert!(!new.include_prompt);
        assert_eq!(modes(r#"{"pooling_mode": "mean"}"#).expect("one").modes, [Pooling::Mean]);
        assert_eq!(modes(r#"{"pooling_mode": "median"}"#).expect_err("unknown").code(), Code::UnsupportedModel);
        assert_eq!(modes("{}").expect_err("none").code(), Code::InvalidConfig);
        assert_eq!(modes("<!doctype html>").expect_err("a page").code(), Code::InvalidJson);
    }

    #[test]
    fn the_length_limit_is_the_configured_one_within_the_positions() {
        let transformer = |max_seq_length| TransformerConfig { max_seq_length, do_lower_case: false };
        let tokenizer = |model_max_length| TokenizerConfig { model_max_length };
        assert_eq!(max_tokens(&transformer(Some(256)), &tokenizer(Some(128.0)), Some(512), None), 256);
        assert_eq!(max_tokens(&transformer(Some(1024)), &tokenizer(None), Some(512), None), 512);
        assert_eq!(max_tokens(&transformer(None), &tokenizer(Some(128.0)), Some(512), None), 128);
        assert_eq!(max_tokens(&transformer(None), &tokenizer(Some(1e30)), Some(512), None), 512);
        assert_eq!(max_tokens(&transformer(None), &tokenizer(None), Some(512), None), 512);
        assert_eq!(max_tokens(&transformer(Some(8192)), &tokenizer(None), Some(8192), Some(2048)), 2048);
        assert_eq!(max_tokens(&transformer(None), &tokenizer(Some(512.0)), None, None), 512);
    }
}
