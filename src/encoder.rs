//! The one forward: token ids to hidden states, for every transformer family.
//!
//! An [`Encoder`] is data; a family (`crate::model`) fills it from its own configuration and tensor names. All tokens of a
//! batch go through each linear map together, attention stays within a text.

use crate::{
    error::{Code, Error, Result},
    ops::{Activation, Linear, Norm, Ops, Weights},
    text::Batch,
};

/// A transformer encoder, post-norm.
pub struct Encoder<W: Weights> {
    pub embeddings: Embeddings<W>,
    pub layers: Vec<Layer<W>>,
    /// Width of the hidden states.
    pub width: usize,
    /// Attention heads.
    pub heads: usize,
}

/// Word, position and segment embeddings, summed and normalised.
pub struct Embeddings<W: Weights> {
    pub words: W::Table,
    pub positions: W::Table,
    pub types: W::Table,
    pub norm: Norm<W>,
    /// Rows of the three tables: an id at or above its bound is an error.
    pub vocabulary: usize,
    pub max_positions: usize,
    pub type_vocabulary: usize,
}

/// `x = norm(x + attention(x))`, then `x = norm(x + mlp(x))`.
pub struct Layer<W: Weights> {
    /// Query, key and value side by side: `[3 width, width]`.
    pub qkv: Linear<W>,
    pub attention_output: Linear<W>,
    pub attention_norm: Norm<W>,
    pub up: Linear<W>,
    pub activation: Activation,
    pub down: Linear<W>,
    pub mlp_norm: Norm<W>,
}

impl<O: Ops> Encoder<O> {
    /// Hidden states `[tokens, width]` of a batch with at least one token.
    pub fn forward(&self, ops: &O, batch: &Batch) -> Result<O::Tensor> {
        let embeddings = &self.embeddings;
        let positions: Vec<u32> = batch.spans.iter().flat_map(|span| 0..span.len() as u32).collect();
        within("token", &batch.ids, embeddings.vocabulary)?;
        within("position", &positions, embeddings.max_positions)?;
        within("segment", &batch.type_ids, embeddings.type_vocabulary)?;
        let summed = ops.gather(&[
            (&embeddings.words, &batch.ids),
            (&embeddings.positions, &positions),
            (&embeddings.types, &batch.type_ids),
        ])?;
        let mut x = ops.add_norm(summed, None, &embeddings.norm)?;
        for layer in &self.layers {
            let qkv = ops.linear(&x, &layer.qkv, Activation::None)?;
            let context = ops.attention(&qkv, &batch.spans, self.heads)?;
            let attended = ops.linear(&context, &layer.attention_output, Activation::None)?;
            x = ops.add_norm(attended, Some(&x), &layer.attention_norm)?;
            let inner = ops.linear(&x, &layer.up, layer.activation)?;
            let mlp = ops.linear(&inner, &layer.down, Activation::None)?;
            x = ops.add_norm(mlp, Some(&x), &layer.mlp_norm)?;
        }
        Ok(x)
    }
}

/// Executors may read tables unchecked, so ids are checked here once.
fn within(what: &str, ids: &[u32], bound: usize) -> Result<()> {
    match ids.iter().find(|&&id| id as usize >= bound) {
        None => Ok(()),
        Some(id) => Err(Error::new(
            Code::InvalidConfig,
            "encoder",
            format!("{what} {id} lies outside its table of {bound} rows"),
        )),
    }
}
