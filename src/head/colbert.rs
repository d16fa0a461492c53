//! Token vectors for late interaction (<https://arxiv.org/abs/2004.12832>), as BGE-M3 computes them.

use super::finite;
use crate::{
    call::normalize,
    error::Result,
    ops::{Activation, Linear, Ops, Weights},
    text::Batch,
};

/// A linear map to one vector per token.
pub struct Colbert<W: Weights> {
    pub linear: Linear<W>,
    pub width: usize,
    /// Divide each by its Euclidean norm.
    pub normalize: bool,
}

impl<W: Weights> Colbert<W> {
    /// The vector of each token, `[tokens, width]`.
    pub fn projected(&self, ops: &W, hidden: &W::Tensor) -> Result<W::Tensor>
    where
        W: Ops,
    {
        ops.linear(hidden, &self.linear, Activation::None)
    }

    /// The vectors of each text of the batch, one after the other: one for each token but the first, which stands for the text.
    pub fn vectors(&self, mut values: Vec<f32>, batch: &Batch) -> Result<Vec<Vec<f32>>> {
        finite(&values)?;
        if self.normalize {
            values.chunks_exact_mut(self.width).for_each(normalize);
        }
        let rows = batch.spans.iter().map(|span| {
            let first = (span.start + 1).min(span.end);
            values[first * self.width..span.end * self.width].to_vec()
        });
        Ok(rows.collect())
    }
}
