//! Alibaba's GTE encoder (<https://arxiv.org/abs/2407.19669>), `model_type` `new` in its own code and `gte` in transformers 5: BERT with rotary
//! positions, packed query, key and value, and a gated MLP.

use std::sync::Arc;

use super::{Config, keys::Keys, names::Names, rotary};
use crate::{
    encoder::{Embeddings, Encoder, Layer, Mlp, NormOrder},
    error::Result,
    head::Classifier,
    ops::{Activation, Attention, Half, Linear, Pooling},
    weights::Source,
};

const PREFIXES: &[&str] = &["", "new.", "gte."];

/// What `NewConfig` of the original code and `GteConfig` have beside [`super::keys::COMMON`].
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
        "layer_norm_type",
        "position_embedding_type",
        "rope_theta",
        "rope_scaling",
        "rope_parameters",
        "logn_attention_scale",
    ],
    refused: &[],
    harmless: &[
        "logn_attention_clip1",
        "pad_token_id",
        "pack_qkv",
        "unpad_inputs",
        "use_memory_efficient_attention",
        "rope_type",
    ],
};

#[derive(Debug)]
pub struct Gte {
    pub vocabulary: usize,
    pub width: usize,
    pub reach: usize,
    /// Zero in the English models, which have no segments.
    pub type_vocabulary: usize,
    inner: usize,
    layers: usize,
    heads: usize,
    head_width: usize,
    activation: Activation,
    frequencies: Arc<[f32]>,
    epsilon: f64,
}

impl Gte {
    pub fn from_config(config: &Config) -> Result<Self> {
        config.only("position_embedding_type", &["rope".into()])?;
        config.only("layer_norm_type", &["layer_norm".into()])?;
        config.only("logn_attention_scale", &[false.into()])?;
        let (width, heads) = (config.count("hidden_size")?, config.count("num_attention_heads")?);
        let head_width = config.head_width(width, heads)?;
        Ok(Self {
            vocabulary: config.count("vocab_size")?,
            width,
            reach: config.count("max_position_embeddings")?,
            type_vocabulary: config.id("type_vocab_size")? as usize,
            inner: config.count("intermediate_size")?,
            layers: config.count("num_hidden_layers")?,
            heads,
            head_width,
            activation: config.activation("hidden_act")?,
            frequencies: rotary::frequencies(config, head_width)?,
            epsilon: config.positive("layer_norm_eps")?,
        })
    }

    pub fn encoder<S: Source>(&self, source: &mut S) -> Result<Encoder<S::Weights>> {
        let mut names = Names::below(source, PREFIXES, "embeddings.word_embeddings.weight");
        let (width, inner) = (self.width, self.inner);
        let types = "embeddings.token_type_embeddings";
        let embeddings = Embeddings {
            words: names.lookup("embeddings.word_embeddings", self.vocabulary, width)?,
            positions: None,
            types: match self.type_vocabulary {
                0 => None,
                rows => Some(names.lookup(types, rows, width)?),
            },
            norm: Some(names.norm("embeddings.LayerNorm", width, self.epsilon)?),
        };
        let attention =
            Attention { rotary: Some(self.frequencies.clone()), ..Attention::full(self.heads, self.head_width) };
        let layers = (0..self.layers)
            .map(|index| {
                let part = |name: &str| format!("encoder.layer.{index}.{name}");
                // With `pack_qkv` false the three stand apart.
                let qkv = match names.has(&part("attention.qkv_proj"), "weight") {
                    true => names.linear(&[part("attention.qkv_proj")], [3 * width, width], true)?,
                    false => {
                        let apart = ["q_proj", "k_proj", "v_proj"].map(|name| part(&format!("attention.{name}")));
                        names.linear(&apart, [width, width], true)?
                    }
                };
                Ok(Layer {
                    qkv,
                    attention: attention.clone(),
                    attention_output: names.linear(&[part("attention.o_proj")], [width, width], true)?,
                    attention_norm: Some(names.norm(&part("attn_ln"), width, self.epsilon)?),
                    mlp: Mlp {
                        up: names.linear(&[part("mlp.up_gate_proj")], [2 * inner, width], false)?,
                        activation: self.activation,
                        gate: Some(Half::Second),
                        down: names.linear(&[part("mlp.down_proj")], [width, inner], true)?,
                    },
                    mlp_norm: names.norm(&part("mlp_ln"), width, self.epsilon)?,
                })
            })
            .collect::<Result<_>>()?;
        Ok(Encoder { embeddings, order: NormOrder::Post, layers, final_norm: None, relative: None })
    }

    /// The token classifier of gte-multilingual-base, which gives each token its lexical weight.
    pub fn lexical<S: Source>(&self, source: &mut S) -> Result<Option<Linear<S::Weights>>> {
        let mut names = Names::below(source, &[""], "");
        match names.has("classifier", "weight") {
            true => Ok(Some(names.linear(&["classifier".to_owned()], [1, self.width], true)?)),
            false => Ok(None),
        }
    }

    /// The sequence classifier of gte-multilingual-reranker-base.
    pub fn classifier<S: Source>(&self, source: &mut S) -> Result<Classifier<S::Weights>> {
        let pooler = "pooler.dense";
        let mut names = Names::below(source, PREFIXES, &format!("{pooler}.weight"));
        let dense = names.linear(&[pooler.to_owned()], [self.width, self.width], true)?;
        let mut names = Names::below(source, &[""], "");
        Ok(Classifier {
            pooling: Pooling::Cls,
            dense,
            activation: Activation::Tanh,
            norm: None,
            output: names.linear(&["classifier".to_owned()], [1, self.width], true)?,
        })
    }
}
