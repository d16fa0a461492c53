//! BERT (<https://arxiv.org/abs/1810.04805>), as `BertModel` of transformers computes it, and RoBERTa and XLM-R, which differ in the
//! numbering of positions and the names of their heads. CamemBERT is RoBERTa by another name.

use serde_json::json;

use super::{Config, keys::Keys, names::Names};
use crate::{
    encoder::{Embeddings, Encoder, Layer, Mlp, NormOrder, Positions},
    error::{Code, Error, Result},
    head::{Classifier, MaskedLm},
    ops::{Activation, Attention, Pooling},
    weights::Source,
};

const PREFIXES: &[&str] = &["", "bert.", "roberta."];
const PROBE: &str = "embeddings.word_embeddings.weight";

/// What `BertConfig`, `RobertaConfig`, `XLMRobertaConfig` and `CamembertConfig` have beside [`super::keys::COMMON`].
pub const KEYS: Keys = Keys {
    computed: &[
        "vocab_size",
        "hidden_size",
        "num_hidden_layers",
        "num_attention_heads",
        "intermediate_size",
        "hidden_act",
        "max_position_embeddings",
        "type_vocab_size",
        "layer_norm_eps",
        "pad_token_id",
        "position_embedding_type",
    ],
    // Of models whose own code computes something else under these names.
    refused: &[("use_flash_attn", &["false"]), ("lora_adaptations", &[]), ("emb_pooler", &[])],
    harmless: &[
        // The original's pooler, which takes no part in embeddings.
        "directionality",
        "pooler_fc_size",
        "pooler_num_attention_heads",
        "pooler_num_fc_layers",
        "pooler_size_per_head",
        "pooler_type",
    ],
};

#[derive(Debug)]
pub struct Bert {
    pub vocabulary: usize,
    pub width: usize,
    positions: usize,
    /// RoBERTa's padding token, from which its positions count.
    padding: Option<u32>,
    pub type_vocabulary: usize,
    inner: usize,
    layers: usize,
    heads: usize,
    head_width: usize,
    activation: Activation,
    epsilon: f64,
}

impl Bert {
    pub fn from_config(config: &Config) -> Result<Self> {
        config.only("position_embedding_type", &["absolute".into()])?;
        let config = config.with_defaults(&[
            ("hidden_act", "gelu".into()),
            ("max_position_embeddings", 512.into()),
            ("type_vocab_size", 2.into()),
            ("layer_norm_eps", json!(1e-12)),
            ("pad_token_id", 1.into()),
        ]);
        let roberta = config.string("model_type")? != "bert";
        let (width, heads) = (config.count("hidden_size")?, config.count("num_attention_heads")?);
        let positions = config.count("max_position_embeddings")?;
        let padding = roberta.then(|| config.id("pad_token_id")).transpose()?;
        if let Some(padding) = padding.filter(|&padding| padding as usize >= positions) {
            return Err(config.unsupported("pad_token_id", &format!("{padding} of {positions} positions")));
        }
        Ok(Self {
            vocabulary: config.count("vocab_size")?,
            width,
            positions,
            padding,
            type_vocabulary: config.count("type_vocab_size")?,
            inner: config.count("intermediate_size")?,
            layers: config.count("num_hidden_layers")?,
            heads,
            head_width: config.head_width(width, heads)?,
            activation: config.activation("hidden_act")?,
            epsilon: config.positive("layer_norm_eps")?,
        })
    }

    pub fn is_roberta(&self) -> bool {
        self.padding.is_some()
    }

    /// Most tokens of a text. RoBERTa's positions begin after that of the padding token.
    pub fn reach(&self) -> usize {
        self.positions.saturating_sub(self.padding.map_or(0, |padding| padding as usize + 1))
    }

    pub fn encoder<S: Source>(&self, source: &mut S) -> Result<Encoder<S::Weights>> {
        let mut names = Names::below(source, PREFIXES, PROBE);
        if names.has("encoder.layers.0.mixer.Wqkv", "weight") {
            let message = "the weights are of a model with code of its own (flash attention), which is not supported";
            return Err(Error::new(Code::UnsupportedModel, "encoder.layers.0.mixer.Wqkv.weight", message));
        }
        let (width, inner) = (self.width, self.inner);
        let embeddings = Embeddings {
            words: names.lookup("embeddings.word_embeddings", self.vocabulary, width)?,
            positions: Some(Positions {
                lookup: names.lookup("embeddings.position_embeddings", self.positions, width)?,
                padding: self.padding,
            }),
            types: Some(names.lookup("embeddings.token_type_embeddings", self.type_vocabulary, width)?),
            norm: Some(names.norm("embeddings.LayerNorm", width, self.epsilon)?),
        };
        let layers = (0..self.layers)
            .map(|index| {
                let layer = format!("encoder.layer.{index}");
                let attention = format!("{layer}.attention");
                let qkv = ["query", "key", "value"].map(|part| format!("{attention}.self.{part}"));
                Ok(Layer {
                    qkv: names.linear(&qkv, [width, width], true)?,
                    attention: Attention::full(self.heads, self.head_width),
                    attention_output: names.linear(&[format!("{attention}.output.dense")], [width, width], true)?,
                    attention_norm: Some(names.norm(&format!("{attention}.output.LayerNorm"), width, self.epsilon)?),
                    mlp: Mlp {
                        up: names.linear(&[format!("{layer}.intermediate.dense")], [inner, width], true)?,
                        activation: self.activation,
                        gate: None,
                        down: names.linear(&[format!("{layer}.output.dense")], [width, inner], true)?,
                    },
                    mlp_norm: names.norm(&format!("{layer}.output.LayerNorm"), width, self.epsilon)?,
                })
            })
            .collect::<Result<_>>()?;
        Ok(Encoder { embeddings, order: NormOrder::Post, layers, final_norm: None, relative: None })
    }

    /// `BertForMaskedLM`'s head, or `RobertaForMaskedLM`'s.
    pub fn masked_lm<S: Source>(&self, source: &mut S) -> Result<MaskedLm<S::Weights>> {
        let mut names = Names::below(source, &[""], PROBE);
        let (dense, norm, bias) = match self.padding {
            None => ("cls.predictions.transform.dense", "cls.predictions.transform.LayerNorm", "cls.predictions"),
            Some(_) => ("lm_head.dense", "lm_head.layer_norm", "lm_head"),
        };
        Ok(MaskedLm {
            dense: names.linear(&[dense.to_owned()], [self.width, self.width], true)?,
            activation: self.activation,
            norm: names.norm(norm, self.width, self.epsilon)?,
            bias: Some(names.vector(bias, "bias", self.vocabulary)?),
        })
    }

    /// `BertForSequenceClassification`'s pooler and classifier, or `RobertaForSequenceClassification`'s.
    pub fn classifier<S: Source>(&self, source: &mut S) -> Result<Classifier<S::Weights>> {
        let (dense, output) = match self.padding {
            None => ("pooler.dense", "classifier"),
            Some(_) => ("classifier.dense", "classifier.out_proj"),
        };
        let prefixes = if self.padding.is_none() { PREFIXES } else { &[""] };
        let mut names = Names::below(source, prefixes, &format!("{dense}.weight"));
        let dense = names.linear(&[dense.to_owned()], [self.width, self.width], true)?;
        let mut names = Names::below(source, &[""], "");
        Ok(Classifier {
            pooling: Pooling::Cls,
            dense,
            activation: Activation::Tanh,
            norm: None,
            output: names.linear(&[output.to_owned()], [1, self.width], true)?,
        })
    }
}
