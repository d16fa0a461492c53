//! BERT (<https://arxiv.org/abs/1810.04805>), as `BertModel` of transformers computes it; the encoder of all-MiniLM-L6-v2.

use super::Config;
use crate::{
    encoder::{Embeddings, Encoder, Layer},
    error::{Code, Error, Result},
    ops::{Activation, Linear, Norm},
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
        // Checkpoints saved from a model with a task head have all names under `bert.`.
        let prefix = if source.has("bert.embeddings.word_embeddings.weight") { "bert." } else { "" };
        let mut names = Names { source, prefix };
        let (width, inner) = (self.width, self.inner);
        let embeddings = Embeddings {
            words: names.table("embeddings.word_embeddings", [self.vocabulary, width])?,
            positions: names.table("embeddings.position_embeddings", [self.max_positions, width])?,
            types: names.table("embeddings.token_type_embeddings", [self.type_vocabulary, width])?,
            norm: names.norm("embeddings.LayerNorm", width, self.epsilon)?,
            vocabulary: self.vocabulary,
            max_positions: self.max_positions,
            type_vocabulary: self.type_vocabulary,
        };
        let layers = (0..self.layers)
            .map(|index| {
                let layer = format!("encoder.layer.{index}");
                let attention = format!("{layer}.attention");
                let qkv = ["query", "key", "value"].map(|part| format!("{attention}.self.{part}"));
                Ok(Layer {
                    qkv: names.linear(&qkv, [width, width])?,
                    attention_output: names.linear(&[format!("{attention}.output.dense")], [width, width])?,
                    attention_norm: names.norm(&format!("{attention}.output.LayerNorm"), width, self.epsilon)?,
                    up: names.linear(&[format!("{layer}.intermediate.dense")], [inner, width])?,
                    activation: self.activation,
                    down: names.linear(&[format!("{layer}.output.dense")], [width, inner])?,
                    mlp_norm: names.norm(&format!("{layer}.output.LayerNorm"), width, self.epsilon)?,
                })
            })
            .collect::<Result<_>>()?;
        Ok(Encoder { embeddings, layers, width, heads: self.heads })
    }
}

/// PyTorch's naming below a prefix: a module's `weight` and `bias`.
struct Names<'a, S> {
    source: &'a mut S,
    prefix: &'static str,
}

impl<S: Source> Names<'_, S> {
    fn all(&self, modules: &[String], field: &str) -> Vec<String> {
        modules.iter().map(|module| format!("{}{module}.{field}", self.prefix)).collect()
    }

    fn table(&mut self, module: &str, shape: [usize; 2]) -> Result<<S::Weights as crate::ops::Weights>::Table> {
        self.source.table(&format!("{}{module}.weight", self.prefix), shape)
    }

    /// One linear map from the stacked rows of several, each `[outputs, inputs]`.
    fn linear(&mut self, modules: &[String], shape: [usize; 2]) -> Result<Linear<S::Weights>> {
        Ok(Linear {
            weight: self.source.matrix(&self.all(modules, "weight"), shape)?,
            bias: self.source.vector(&self.all(modules, "bias"), shape[0])?,
        })
    }

    fn norm(&mut self, module: &str, width: usize, epsilon: f64) -> Result<Norm<S::Weights>> {
        let module = [module.to_owned()];
        // Checkpoints converted from TensorFlow keep its names: gamma and beta.
        let (gain, bias) = match self.source.has(&self.all(&module, "gamma")[0]) {
            true => ("gamma", "beta"),
            false => ("weight", "bias"),
        };
        Ok(Norm {
            gain: self.source.vector(&self.all(&module, gain), width)?,
            bias: self.source.vector(&self.all(&module, bias), width)?,
            epsilon,
        })
    }
}
