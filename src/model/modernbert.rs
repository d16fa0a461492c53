//! ModernBERT (<https://arxiv.org/abs/2412.13663>), as `ModernBertModel` of transformers computes it: pre-norm, rotary positions, a gated MLP, and
//! attention that is local in most layers.

use std::sync::Arc;

use serde_json::json;

use super::{Config, keys::Keys, names::Names, rotary};
use crate::{
    encoder::{Embeddings, Encoder, Layer, Mlp, NormOrder},
    error::Result,
    head::{Classifier, MaskedLm},
    ops::{Activation, Attention, Half, Norm, NormKind, Pooling},
    weights::Source,
};

const PROBE: &str = "embeddings.tok_embeddings.weight";

/// More than any model has.
const MAX_LAYERS: usize = 1 << 12;

/// What `ModernBertConfig` has beside [`super::keys::COMMON`].
pub const KEYS: Keys = Keys {
    computed: &[
        "vocab_size",
        "hidden_size",
        "intermediate_size",
        "num_hidden_layers",
        "num_attention_heads",
        "hidden_activation",
        "max_position_embeddings",
        "norm_eps",
        "local_attention",
        "global_attn_every_n_layers",
        "global_rope_theta",
        "local_rope_theta",
        "layer_types",
        "rope_parameters",
        "rope_scaling",
        "classifier_pooling",
        "classifier_activation",
    ],
    refused: &[],
    harmless: &[
        // Biases are taken where the weights have them.
        "attention_bias",
        "classifier_bias",
        "decoder_bias",
        "mlp_bias",
        "norm_bias",
        "pad_token_id",
        "allow_embedding_resizing",
        "deterministic_flash_attn",
        "embedding_dropout",
        "initializer_cutoff_factor",
        "layer_norm_eps",
        "mlp_dropout",
        // Positions are rotary, whatever this says.
        "position_embedding_type",
        "reference_compile",
        "repad_logits_with_grad",
        "sparse_pred_ignore_index",
        "sparse_prediction",
        "type_vocab_size",
    ],
};

#[derive(Debug)]
pub struct ModernBert {
    pub vocabulary: usize,
    pub width: usize,
    pub reach: usize,
    inner: usize,
    heads: usize,
    head_width: usize,
    activation: Activation,
    /// For each layer whether it sees the whole text.
    global: Vec<bool>,
    /// How far to either side the other layers see.
    window: usize,
    global_frequencies: Arc<[f32]>,
    local_frequencies: Arc<[f32]>,
    epsilon: f64,
    /// Of the heads.
    head_activation: Option<Activation>,
    head_pooling: Pooling,
}

impl ModernBert {
    pub fn from_config(config: &Config) -> Result<Self> {
        // What `ModernBertConfig` takes for what is absent.
        let config = &config.with_defaults(&[
            ("hidden_activation", "gelu".into()),
            ("norm_eps", json!(1e-5)),
            ("global_attn_every_n_layers", 3.into()),
            ("local_attention", 128.into()),
            ("global_rope_theta", json!(160_000.0)),
            ("local_rope_theta", json!(10_000.0)),
        ]);
        let (width, heads) = (config.count("hidden_size")?, config.count("num_attention_heads")?);
        let head_width = config.head_width(width, heads)?;
        let layers = config.count("num_hidden_layers")?;
        // A list by layer is made before any weight is seen.
        if layers > MAX_LAYERS {
            return Err(config.unsupported("num_hidden_layers", &layers.to_string()));
        }
        let (global, frequencies) = if config.has("layer_types") {
            // transformers 5: a type per layer, and rotary parameters per type.
            let types = config.strings("layer_types");
            if types.len() != layers || types.iter().any(|kind| !["full_attention", "sliding_attention"].contains(kind))
            {
                return Err(config.unsupported("layer_types", &format!("{types:?} for {layers} layers")));
            }
            let parameters = config.section("rope_parameters").unwrap_or_else(|| config.clone());
            let of = |kind: &str| match parameters.section(kind) {
                Some(parameters) => rotary::frequencies(&parameters, head_width),
                None => Err(config.missing(&format!("rope_parameters.{kind}"))),
            };
            let global = types.iter().map(|&kind| kind == "full_attention").collect();
            (global, [of("full_attention")?, of("sliding_attention")?])
        } else {
            let every = config.count("global_attn_every_n_layers")?;
            let of = |key: &str| rotary::frequencies(&config.renamed(&[("rope_theta", key)])?, head_width);
            let global = (0..layers).map(|layer| layer % every == 0).collect();
            (global, [of("global_rope_theta")?, of("local_rope_theta")?])
        };
        let [global_frequencies, local_frequencies] = frequencies;
        config.only("classifier_pooling", &["cls".into(), "mean".into()])?;
        Ok(Self {
            vocabulary: config.count("vocab_size")?,
            width,
            reach: config.count("max_position_embeddings")?,
            inner: config.count("intermediate_size")?,
            heads,
            head_width,
            activation: config.activation("hidden_activation")?,
            global,
            window: config.count("local_attention")? / 2,
            global_frequencies,
            local_frequencies,
            epsilon: config.positive("norm_eps")?,
            head_activation: match config.has("classifier_activation") {
                true => Some(config.activation("classifier_activation")?),
                false => None,
            },
            head_pooling: match config.has("classifier_pooling") && config.string("classifier_pooling")? == "mean" {
                true => Pooling::Mean,
                false => Pooling::Cls,
            },
        })
    }

    pub fn encoder<S: Source>(&self, source: &mut S) -> Result<Encoder<S::Weights>> {
        let mut names = Names::below(source, &["", "model."], PROBE);
        let (width, inner) = (self.width, self.inner);
        let embeddings = Embeddings {
            words: names.lookup("embeddings.tok_embeddings", self.vocabulary, width)?,
            positions: None,
            types: None,
            norm: Some(self.norm(&mut names, "embeddings.norm")?),
        };
        let layers = self
            .global
            .iter()
            .enumerate()
            .map(|(index, &global)| {
                let part = |name: &str| format!("layers.{index}.{name}");
                let (rotary, window) = match global {
                    true => (&self.global_frequencies, None),
                    false => (&self.local_frequencies, Some(self.window)),
                };
                let has = |names: &Names<'_, S>, module: &str| names.has(&part(module), "bias");
                let (qkv_bias, out_bias) = (has(&names, "attn.Wqkv"), has(&names, "attn.Wo"));
                let (up_bias, down_bias) = (has(&names, "mlp.Wi"), has(&names, "mlp.Wo"));
                Ok(Layer {
                    qkv: names.linear(&[part("attn.Wqkv")], [3 * width, width], qkv_bias)?,
                    attention: Attention {
                        rotary: Some(rotary.clone()),
                        window,
                        ..Attention::full(self.heads, self.head_width)
                    },
                    attention_output: names.linear(&[part("attn.Wo")], [width, width], out_bias)?,
                    // The first layer's input comes from the norm of the embeddings.
                    attention_norm: match index {
                        0 => None,
                        _ => Some(self.norm(&mut names, &part("attn_norm"))?),
                    },
                    mlp: Mlp {
                        up: names.linear(&[part("mlp.Wi")], [2 * inner, width], up_bias)?,
                        activation: self.activation,
                        gate: Some(Half::First),
                        down: names.linear(&[part("mlp.Wo")], [width, inner], down_bias)?,
                    },
                    mlp_norm: self.norm(&mut names, &part("mlp_norm"))?,
                })
            })
            .collect::<Result<_>>()?;
        let final_norm = Some(self.norm(&mut names, "final_norm")?);
        Ok(Encoder { embeddings, order: NormOrder::Pre, layers, final_norm, relative: None })
    }

    fn norm<S: Source>(&self, names: &mut Names<'_, S>, module: &str) -> Result<Norm<S::Weights>> {
        match names.has(module, "bias") {
            true => names.norm(module, self.width, self.epsilon),
            false => names.gain_norm(NormKind::Layer, module, self.width, self.epsilon),
        }
    }

    /// `ModernBertForMaskedLM`'s head.
    pub fn masked_lm<S: Source>(&self, source: &mut S) -> Result<MaskedLm<S::Weights>> {
        let mut names = Names::below(source, &[""], PROBE);
        let (dense_bias, bias) = (names.has("head.dense", "bias"), names.has("decoder", "bias"));
        Ok(MaskedLm {
            dense: names.linear(&["head.dense".to_owned()], [self.width, self.width], dense_bias)?,
            activation: self.head_activation.unwrap_or(self.activation),
            norm: self.norm(&mut names, "head.norm")?,
            bias: bias.then(|| names.vector("decoder", "bias", self.vocabulary)).transpose()?,
        })
    }

    /// `ModernBertForSequenceClassification`'s head.
    pub fn classifier<S: Source>(&self, source: &mut S) -> Result<Classifier<S::Weights>> {
        let mut names = Names::below(source, &[""], PROBE);
        let bias = names.has("head.dense", "bias");
        Ok(Classifier {
            pooling: self.head_pooling,
            dense: names.linear(&["head.dense".to_owned()], [self.width, self.width], bias)?,
            activation: self.head_activation.unwrap_or(self.activation),
            norm: Some(self.norm(&mut names, "head.norm")?),
            output: names.linear(&["classifier".to_owned()], [1, self.width], true)?,
        })
    }
}
