//! A model's files to an encoder, a head, a tokenizer and prompts.
//!
//! [`pipeline`] reads the sentence-transformers layout, [`config`] gives typed access to `config.json`, and each family
//! file maps its own configuration and tensor names to [`Encoder`] data. A family decides nothing silently: a key it needs
//! and does not find is an error that names the key.

mod bert;
mod config;
mod names;
pub mod pipeline;

pub use config::Config;

use crate::{
    encoder::Encoder,
    error::{Code, Error, Result},
    ops::Weights,
    weights::{Blueprint, Source},
};

/// `model_type` of every supported family.
pub const SUPPORTED: [&str; 1] = ["bert"];

/// A supported architecture with its configuration, ready to take weights.
pub struct Architecture {
    family: Family,
    /// Most tokens the position embedding reaches.
    pub max_positions: usize,
    /// Rows of the word embedding.
    pub vocabulary: usize,
    /// Width of the hidden states.
    pub width: usize,
}

enum Family {
    Bert(bert::Bert),
}

impl Architecture {
    /// Reads `config.json`.
    pub fn from_config(config: &Config) -> Result<Self> {
        match config.string("model_type")? {
            "bert" => {
                let bert = bert::Bert::from_config(config)?;
                Ok(Self {
                    max_positions: bert.max_positions,
                    vocabulary: bert.vocabulary,
                    width: bert.width,
                    family: Family::Bert(bert),
                })
            }
            other => Err(Error::new(
                Code::UnsupportedModel,
                "config.json",
                format!("model_type {other:?} is not supported; supported: {}", SUPPORTED.join(", ")),
            )),
        }
    }
}

impl Blueprint for Architecture {
    type Model<W: Weights> = Encoder<W>;

    fn build<S: Source>(&self, source: &mut S) -> Result<Encoder<S::Weights>> {
        match &self.family {
            Family::Bert(bert) => bert.build(source),
        }
    }
}
