//! The encoder of T5 (<https://arxiv.org/abs/1910.10683>), as `T5EncoderModel` of transformers computes it: pre-norm with RMS norms, relative
//! position bias, unscaled scores, no biases.

use serde_json::json;

use super::{Config, keys::Keys, names::Names};
use crate::{
    encoder::{Embeddings, Encoder, Layer, Mlp, NormOrder},
    error::Result,
    ops::{Activation, Attention, Half, NormKind, Relative},
    weights::Source,
};

/// Further than any model tells distances apart.
const MAX_DISTANCE: usize = 1 << 16;

/// More heads, or wider ones, than any model has.
const MAX_HEADS: usize = 1 << 12;

/// What `T5Config` has beside [`super::keys::COMMON`].
pub const KEYS: Keys = Keys {
    computed: &[
        "vocab_size",
        "d_model",
        "d_kv",
        "d_ff",
        "num_layers",
        "num_heads",
        "relative_attention_num_buckets",
        "relative_attention_max_distance",
        "layer_norm_epsilon",
        "feed_forward_proj",
    ],
    refused: &[],
    // The decoder's, and what `feed_forward_proj` says too.
    harmless: &[
        "num_decoder_layers",
        "pad_token_id",
        "n_positions",
        "dense_act_fn",
        "is_gated_act",
        "scale_decoder_outputs",
    ],
};

#[derive(Debug)]
pub struct T5 {
    pub vocabulary: usize,
    pub width: usize,
    inner: usize,
    layers: usize,
    heads: usize,
    head_width: usize,
    activation: Activation,
    gated: bool,
    buckets: usize,
    max_distance: usize,
    epsilon: f64,
}

impl T5 {
    pub fn from_config(config: &Config) -> Result<Self> {
        // `T5Config` itself gives these to configurations that are older than the keys.
        let config = config.with_defaults(&[
            ("feed_forward_proj", "relu".into()),
            ("relative_attention_max_distance", 128.into()),
            ("relative_attention_num_buckets", 32.into()),
            ("layer_norm_epsilon", json!(1e-6)),
        ]);
        let feed_forward = config.string("feed_forward_proj")?;
        let max_distance = config.count("relative_attention_max_distance")?;
        // A table by distance is made before any weight is seen.
        if max_distance > MAX_DISTANCE {
            return Err(config.unsupported("relative_attention_max_distance", &max_distance.to_string()));
        }
        let (heads, head_width) = (config.count("num_heads")?, config.count("d_kv")?);
        // Their product is a tensor's width, and must not wrap where numbers have 32 bits.
        if heads > MAX_HEADS || head_width > MAX_HEADS {
            return Err(config.unsupported("d_kv", &format!("{head_width} with {heads} heads")));
        }
        let (activation, gated) = match feed_forward {
            "relu" => (Activation::Relu, false),
            "gated-relu" => (Activation::Relu, true),
            "gated-silu" => (Activation::Silu, true),
            // With this name transformers means the tanh approximation.
            "gated-gelu" => (Activation::GeluTanh, true),
            other => return Err(config.unsupported("feed_forward_proj", &format!("{other:?}"))),
        };
        Ok(Self {
            vocabulary: config.count("vocab_size")?,
            width: config.count("d_model")?,
            inner: config.count("d_ff")?,
            layers: config.count("num_layers")?,
            heads,
            head_width,
            activation,
            gated,
            buckets: config.count("relative_attention_num_buckets")?,
            max_distance,
            epsilon: config.positive("layer_norm_epsilon")?,
        })
    }

    pub fn encoder<S: Source>(&self, source: &mut S) -> Result<Encoder<S::Weights>> {
        let words = if source.has("shared.weight") { "shared" } else { "encoder.embed_tokens" };
        let mut names = Names::below(source, &[""], "");
        let (width, inner, heads) = (self.width, self.inner, self.heads * self.head_width);
        let embeddings = Embeddings {
            words: names.lookup(words, self.vocabulary, width)?,
            positions: None,
            types: None,
            norm: None,
        };
        let bias = "encoder.block.0.layer.0.SelfAttention.relative_attention_bias";
        let relative = Relative {
            table: names.lookup(bias, self.buckets, self.heads)?.table,
            buckets: distance_buckets(self.buckets, self.max_distance),
        };
        let layers = (0..self.layers)
            .map(|index| {
                let part = |name: &str| format!("encoder.block.{index}.layer.{name}");
                let up = match self.gated {
                    true => vec![part("1.DenseReluDense.wi_0"), part("1.DenseReluDense.wi_1")],
                    false => vec![part("1.DenseReluDense.wi")],
                };
                let qkv = ["q", "k", "v"].map(|name| part(&format!("0.SelfAttention.{name}")));
                let norm = |names: &mut Names<'_, S>, module: &str| {
                    names.gain_norm(NormKind::Rms, &part(module), width, self.epsilon)
                };
                Ok(Layer {
                    qkv: names.linear(&qkv, [heads, width], false)?,
                    attention: Attention { scale: 1.0, ..Attention::full(self.heads, self.head_width) },
                    attention_output: names.linear(&[part("0.SelfAttention.o")], [width, heads], false)?,
                    attention_norm: Some(norm(&mut names, "0.layer_norm")?),
                    mlp: Mlp {
                        up: names.linear(&up, [inner, width], false)?,
                        activation: self.activation,
                        gate: self.gated.then_some(Half::First),
                        down: names.linear(&[part("1.DenseReluDense.wo")], [width, inner], false)?,
                    },
                    mlp_norm: norm(&mut names, "1.layer_norm")?,
                })
            })
            .collect::<Result<_>>()?;
        let final_norm = Some(names.gain_norm(NormKind::Rms, "encoder.final_layer_norm", width, self.epsilon)?);
        Ok(Encoder { embeddings, order: NormOrder::Pre, layers, final_norm, relative: Some(relative) })
    }
}

/// The bucket of each distance, key minus query, from `-max_distance` to `max_distance`.
///
/// Half the buckets are for keys behind, half for keys ahead; of each half, one half holds one distance each, the other ever larger
/// ranges up to `max_distance`. In f32, as in transformers' `_relative_position_bucket`.
fn distance_buckets(buckets: usize, max_distance: usize) -> Vec<u32> {
    let half = (buckets / 2).max(1);
    let exact = (half / 2).max(1);
    let bucket = |distance: isize| {
        let (side, far) = (if distance > 0 { half } else { 0 }, distance.unsigned_abs());
        let within = if far < exact {
            far
        } else {
            let scale = ((max_distance as f64 / exact as f64).ln()) as f32;
            let step = (far as f32 / exact as f32).ln() / scale * (half - exact) as f32;
            exact.saturating_add(step as usize).min(half - 1)
        };
        ((side + within) as u32).min(buckets as u32 - 1)
    };
    (-(max_distance as isize)..=max_distance as isize).map(bucket).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_are_those_of_the_paper() {
        // transformers' _relative_position_bucket(..., num_buckets=32, max_distance=128) for these distances.
        let buckets = distance_buckets(32, 128);
        let at = |distance: isize| buckets[(distance + 128) as usize];
        let cases = [
            (0, 0),
            (-1, 1),
            (1, 17),
            (-7, 7),
            (-8, 8),
            (-11, 8),
            (-12, 9),
            (8, 24),
            (-16, 10),
            (64, 30),
            (-127, 15),
            (128, 31),
        ];
        for (distance, bucket) in cases {
            assert_eq!(at(distance), bucket, "distance {distance}");
        }
        assert!(distance_buckets(1, 1).iter().all(|&bucket| bucket == 0));
    }
}
