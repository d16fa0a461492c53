//! BERT (<https://arxiv.org/abs/1810.04805>), as `BertModel` of transformers computes it; the encoder of all-MiniLM-L6-v2.

use super::{Config, names::Names};
use crate::{
    encoder::{Embeddings, Encoder, Layer, Mlp, NormOrder, Positions},
    error::{Code, Error, Result},
    ops::{Activation, Attention},
    weights::Source,
};

pub struct Bert {
    pub vocabulary: usize,
    pub max_positions: usize,
    pub width: usize,
    type_vocabulary: usize,
    inner: usize,
    layers: usize,
    heads: usize,
    activation: Activation,
    epsilon: f64,
}

impl Bert {
    pub fn from_config(config: &Config) -> Result<Self> {
        config.only("position_embedding_type", &["absolute".into()])?;
        config.only("is_decoder", &[false.into()])?;
        config.only("add_cross_attention", &[false.into()])?;
        let bert = Self {
            vocabulary: config.count("vocab_size")?,
            max_positions: config.count("max_position_embeddings")?,
            width: config.count("hidden_size")?,
            type_vocabulary: config.count("type_vocab_size")?,
            inner: config.count("intermediate_size")?,
            layers: config.count("num_hidden_layers")?,
            heads: config.count("num_attention_heads")?,
            activation: config.activation("hidden_act")?,
            epsilon: config.positive("layer_norm_eps")?,
        };
        if !bert.width.is_multiple_of(bert.heads) {
            return Err(Error::new(
                Code::InvalidConfig,
                "config.json",
                format!("hidden_size {} is no multiple of num_attention_heads {}", bert.width, bert.heads),
            ));
        }
        Ok(bert)
    }

    pub fn build<S: Source>(&self, source: &mut S) -> Result<Encoder<S::Weights>> {
        let mut names = Names::below(source, &["", "bert."], "embeddings.word_embeddings.weight");
        let (width, inner) = (self.width, self.inner);
        let embeddings = Embeddings {
            words: names.lookup("embeddings.word_embeddings", self.vocabulary, width)?,
            positions: Some(Positions {
                lookup: names.lookup("embeddings.position_embeddings", self.max_positions, width)?,
                padding: None,
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
                    attention: Attention::full(self.heads, width / self.heads),
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
}
