//! DistilBERT (<https://arxiv.org/abs/1910.01108>), as `DistilBertModel` of transformers computes it: BERT without segments.

use super::{Config, keys::Keys, names::Names};
use crate::{
    encoder::{Embeddings, Encoder, Layer, Mlp, NormOrder, Positions},
    error::Result,
    head::{Classifier, MaskedLm},
    ops::{Activation, Attention, Pooling},
    weights::Source,
};

const PROBE: &str = "embeddings.word_embeddings.weight";

/// Of every norm; not configurable.
const EPSILON: f64 = 1e-12;

/// What `DistilBertConfig` has beside [`super::keys::COMMON`].
pub const KEYS: Keys = Keys {
    computed: &[
        "vocab_size",
        "dim",
        "hidden_size",
        "n_layers",
        "num_hidden_layers",
        "n_heads",
        "num_attention_heads",
        "hidden_dim",
        "intermediate_size",
        "max_position_embeddings",
        "activation",
    ],
    refused: &[],
    // Sinusoidal positions, too, are stored as a table.
    harmless: &[
        "sinusoidal_pos_embds",
        "pad_token_id",
        "qa_dropout",
        "seq_classif_dropout",
        "layer_norm_eps",
        "type_vocab_size",
    ],
};

#[derive(Debug)]
pub struct DistilBert {
    pub vocabulary: usize,
    pub width: usize,
    pub positions: usize,
    inner: usize,
    layers: usize,
    heads: usize,
    head_width: usize,
    activation: Activation,
}

impl DistilBert {
    pub fn from_config(config: &Config) -> Result<Self> {
        let config = config
            .renamed(&[
                ("dim", "hidden_size"),
                ("n_heads", "num_attention_heads"),
                ("n_layers", "num_hidden_layers"),
                ("hidden_dim", "intermediate_size"),
            ])?
            .with_defaults(&[("max_position_embeddings", 512.into()), ("activation", "gelu".into())]);
        let (width, heads) = (config.count("dim")?, config.count("n_heads")?);
        Ok(Self {
            vocabulary: config.count("vocab_size")?,
            width,
            positions: config.count("max_position_embeddings")?,
            inner: config.count("hidden_dim")?,
            layers: config.count("n_layers")?,
            heads,
            head_width: config.head_width(width, heads)?,
            activation: config.activation("activation")?,
        })
    }

    pub fn encoder<S: Source>(&self, source: &mut S) -> Result<Encoder<S::Weights>> {
        let mut names = Names::below(source, &["", "distilbert."], PROBE);
        let (width, inner) = (self.width, self.inner);
        let embeddings = Embeddings {
            words: names.lookup("embeddings.word_embeddings", self.vocabulary, width)?,
            // Sinusoidal positions, too, are stored as a table.
            positions: Some(Positions {
                lookup: names.lookup("embeddings.position_embeddings", self.positions, width)?,
                padding: None,
            }),
            types: None,
            norm: Some(names.norm("embeddings.LayerNorm", width, EPSILON)?),
        };
        let layers = (0..self.layers)
            .map(|index| {
                let layer = format!("transformer.layer.{index}");
                let qkv = ["q_lin", "k_lin", "v_lin"].map(|part| format!("{layer}.attention.{part}"));
                Ok(Layer {
                    qkv: names.linear(&qkv, [width, width], true)?,
                    attention: Attention::full(self.heads, self.head_width),
                    attention_output: names.linear(&[format!("{layer}.attention.out_lin")], [width, width], true)?,
                    attention_norm: Some(names.norm(&format!("{layer}.sa_layer_norm"), width, EPSILON)?),
                    mlp: Mlp {
                        up: names.linear(&[format!("{layer}.ffn.lin1")], [inner, width], true)?,
                        activation: self.activation,
                        gate: None,
                        down: names.linear(&[format!("{layer}.ffn.lin2")], [width, inner], true)?,
                    },
                    mlp_norm: names.norm(&format!("{layer}.output_layer_norm"), width, EPSILON)?,
                })
            })
            .collect::<Result<_>>()?;
        Ok(Encoder { embeddings, order: NormOrder::Post, layers, final_norm: None, relative: None })
    }

    /// `DistilBertForMaskedLM`'s head.
    pub fn masked_lm<S: Source>(&self, source: &mut S) -> Result<MaskedLm<S::Weights>> {
        let mut names = Names::below(source, &[""], PROBE);
        Ok(MaskedLm {
            dense: names.linear(&["vocab_transform".to_owned()], [self.width, self.width], true)?,
            activation: self.activation,
            norm: names.norm("vocab_layer_norm", self.width, EPSILON)?,
            bias: Some(names.vector("vocab_projector", "bias", self.vocabulary)?),
        })
    }

    /// `DistilBertForSequenceClassification`'s head.
    pub fn classifier<S: Source>(&self, source: &mut S) -> Result<Classifier<S::Weights>> {
        let mut names = Names::below(source, &[""], PROBE);
        Ok(Classifier {
            pooling: Pooling::Cls,
            dense: names.linear(&["pre_classifier".to_owned()], [self.width, self.width], true)?,
            activation: Activation::Relu,
            norm: None,
            output: names.linear(&["classifier".to_owned()], [1, self.width], true)?,
        })
    }
}
