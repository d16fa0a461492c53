//! Lexical weights, as BGE-M3 (<https://arxiv.org/abs/2402.03216>) and mGTE compute them: each token of a text with a weight of its own.

use super::finite;
use crate::{
    error::Result,
    ops::{Activation, Linear, Ops, Weights},
    sparse::SparseVector,
    text::Batch,
};

/// A linear map to one weight per token.
pub struct Lexical<W: Weights> {
    pub linear: Linear<W>,
    /// Ids that never take part: those of the tokens that begin, end, fill and replace.
    pub excluded: Vec<u32>,
}

impl<W: Weights> Lexical<W> {
    /// The weight of each token: `relu(w · h + b)`, `[tokens, 1]`.
    pub fn weights(&self, ops: &W, hidden: &W::Tensor) -> Result<W::Tensor>
    where
        W: Ops,
    {
        ops.linear(hidden, &self.linear, Activation::Relu)
    }

    /// The sparse vector of each text of the batch: the largest weight of its occurrences for each id.
    pub fn vectors(&self, weights: &[f32], batch: &Batch) -> Result<Vec<SparseVector>> {
        finite(weights)?;
        let rows = batch.spans.iter().map(|span| {
            let tokens = batch.ids[span.clone()].iter().copied().zip(weights[span.clone()].iter().copied());
            SparseVector::from_pairs(tokens.filter(|(id, _)| !self.excluded.contains(id)))
        });
        Ok(rows.collect())
    }
}
