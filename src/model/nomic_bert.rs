//! NomicBert (<https://arxiv.org/abs/2402.01613>), as nomic-ai's own code and transformers 5 compute it: BERT with rotary positions and a
//! gated MLP, without biases.

use std::sync::Arc;

use super::{Config, keys::Keys, names::Names, rotary};
use crate::{
    encoder::{Embeddings, Encoder, Layer, Mlp, NormOrder},
    error::Result,
    ops::{Activation, Attention, Half},
    weights::Source,
};

/// What `NomicBertConfig` of the original code, which is a GPT-2's, and that of transformers have beside [`super::keys::COMMON`].
pub const KEYS: Keys = Keys {
    computed: &[
        "vocab_size",
        "hidden_size",
        "n_embd",
        "num_attention_heads",
        "n_head",
        "num_hidden_layers",
        "n_layer",
        "intermediate_size",
        "n_inner",
        "max_position_embeddings",
        "n_positions",
        "max_trained_positions",
        "layer_norm_eps",
        "layer_norm_epsilon",
        "hidden_act",
        "activation_function",
        "type_vocab_size",
        "rope_theta",
        "rotary_emb_base",
        "rope_parameters",
        "rope_scaling",
        "rotary_emb_fraction",
        "rotary_emb_interleaved",
        "rotary_emb_scale_base",
        "rotary_scaling_factor",
        "prenorm",
        "use_rms_norm",
        "parallel_block",
        "causal",
        "num_experts",
    ],
    refused: &[],
    harmless: &[
        "attn_pdrop",
        "dense_seq_output",
        "embd_pdrop",
        "expert_choice_router",
        "ffn_div",
        "fused_bias_fc",
        "fused_dropout_add_ln",
        "head_dim",
        // Biases are taken where the weights have them.
        "mlp_fc1_bias",
        "mlp_fc2_bias",
        "moe_every_n_layers",
        "moe_impl",
        "moe_normalize_expert_weights",
        "moe_resid_pdrop",
        "moe_top_k",
        "num_shared_experts",
        "pad_token_id",
        "pad_vocab_size_multiple",
        "parallel_block_tied_norm",
        "qkv_proj_bias",
        "reorder_and_upcast_attn",
        "resid_pdrop",
        "router_aux_loss_coef",
        "scale_attn_by_inverse_layer_idx",
        "scale_attn_weights",
        "summary_activation",
        "summary_first_dropout",
        "summary_proj_to_labels",
        "summary_type",
        "summary_use_proj",
        "use_flash_attn",
        "use_xentropy",
    ],
};

#[derive(Debug)]
pub struct NomicBert {
    pub vocabulary: usize,
    pub width: usize,
    pub reach: usize,
    /// The length it was trained at; beyond it positions are extrapolated.
    pub trained: Option<usize>,
    pub type_vocabulary: usize,
    inner: usize,
    layers: usize,
    heads: usize,
    head_width: usize,
    activation: Activation,
    frequencies: Arc<[f32]>,
    epsilon: f64,
}

impl NomicBert {
    pub fn from_config(config: &Config) -> Result<Self> {
        // The original code's names, to those of transformers 5.
        let config = config.renamed(&[
            ("hidden_size", "n_embd"),
            ("num_attention_heads", "n_head"),
            ("num_hidden_layers", "n_layer"),
            ("intermediate_size", "n_inner"),
            ("max_position_embeddings", "n_positions"),
            ("layer_norm_eps", "layer_norm_epsilon"),
            ("hidden_act", "activation_function"),
            ("rope_theta", "rotary_emb_base"),
        ])?;
        config.only("rotary_emb_fraction", &[1.0.into(), 1.into()])?;
        for unset in ["rotary_emb_interleaved", "prenorm", "use_rms_norm", "parallel_block", "causal"] {
            config.only(unset, &[false.into()])?;
        }
        for absent in ["rotary_emb_scale_base", "rotary_scaling_factor"] {
            config.only(absent, &[])?;
        }
        config.only("num_experts", &[0.into()])?;
        let activation = match config.string("hidden_act")? {
            // transformers 5 knows no other MLP than the gated one, and names its activation alone.
            "swiglu" | "silu" => Activation::Silu,
            "geglu" => Activation::Gelu,
            other => return Err(config.unsupported("activation_function", &format!("{other:?}"))),
        };
        let (width, heads) = (config.count("hidden_size")?, config.count("num_attention_heads")?);
        let head_width = config.head_width(width, heads)?;
        Ok(Self {
            vocabulary: config.count("vocab_size")?,
            width,
            reach: config.count("max_position_embeddings")?,
            trained: config.has("max_trained_positions").then(|| config.count("max_trained_positions")).transpose()?,
            type_vocabulary: config.count("type_vocab_size")?,
            inner: config.count("intermediate_size")?,
            layers: config.count("num_hidden_layers")?,
            heads,
            head_width,
            activation,
            frequencies: rotary::frequencies(&config, head_width)?,
            epsilon: config.positive("layer_norm_eps")?,
        })
    }

    pub fn encoder<S: Source>(&self, source: &mut S) -> Result<Encoder<S::Weights>> {
        let mut names = Names::below(source, &["", "bert.", "nomic_bert."], "embeddings.word_embeddings.weight");
        let (width, inner) = (self.width, self.inner);
        let embeddings = Embeddings {
            words: names.lookup("embeddings.word_embeddings", self.vocabulary, width)?,
            positions: None,
            types: Some(names.lookup("embeddings.token_type_embeddings", self.type_vocabulary, width)?),
            norm: Some(names.norm("emb_ln", width, self.epsilon)?),
        };
        let attention =
            Attention { rotary: Some(self.frequencies.clone()), ..Attention::full(self.heads, self.head_width) };
        let layers = (0..self.layers)
            .map(|index| {
                let part = |name: &str| format!("encoder.layers.{index}.{name}");
                let (qkv, out) = (part("attn.Wqkv"), part("attn.out_proj"));
                let (up, gate, down) = (part("mlp.fc11"), part("mlp.fc12"), part("mlp.fc2"));
                // Relatives of this model have biases; the file says whether.
                let bias = |names: &Names<'_, S>, module: &str| names.has(module, "bias");
                let (qkv_bias, out_bias) = (bias(&names, &qkv), bias(&names, &out));
                let (up_bias, down_bias) = (bias(&names, &up), bias(&names, &down));
                Ok(Layer {
                    qkv: names.linear(&[qkv], [3 * width, width], qkv_bias)?,
                    attention: attention.clone(),
                    attention_output: names.linear(&[out], [width, width], out_bias)?,
                    attention_norm: Some(names.norm(&part("norm1"), width, self.epsilon)?),
                    mlp: Mlp {
                        up: names.linear(&[up, gate], [inner, width], up_bias)?,
                        activation: self.activation,
                        gate: Some(Half::Second),
                        down: names.linear(&[down], [width, inner], down_bias)?,
                    },
                    mlp_norm: names.norm(&part("norm2"), width, self.epsilon)?,
                })
            })
            .collect::<Result<_>>()?;
        Ok(Encoder { embeddings, order: NormOrder::Post, layers, final_norm: None, relative: None })
    }
}
