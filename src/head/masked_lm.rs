//! SPLADE (<https://arxiv.org/abs/2107.05720>): a masked language model's logits, each vocabulary entry's largest over the tokens of
//! a text, as sparse weights.

use super::finite;
use crate::{
    encoder::Lookup,
    error::Result,
    ops::{Activation, Linear, Norm, Ops, Weights},
    sparse::SparseVector,
    text::Batch,
};

/// A masked language model's head; its decoder is the word embedding.
pub struct MaskedLm<W: Weights> {
    pub dense: Linear<W>,
    pub activation: Activation,
    pub norm: Norm<W>,
    /// One per word.
    pub bias: Option<W::Vector>,
}

/// How logits become weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Splade {
    /// How often `ln(1 + w)` is taken of the rectified logit; once, or twice in models that are trained so.
    pub logarithms: usize,
    /// Entries of the tokenizer: rows beyond are there to fill the table and mean nothing.
    pub vocabulary: usize,
}

impl<W: Weights> MaskedLm<W> {
    /// The sparse vector of each text of the batch: `max over t of ln(1 + relu(logits[t, v]))`. Special tokens take part.
    pub async fn apply(
        &self,
        ops: &W,
        hidden: &W::Tensor,
        words: &Lookup<W>,
        batch: &Batch,
        splade: Splade,
    ) -> Result<Vec<SparseVector>>
    where
        W: Ops,
    {
        let x = ops.linear(hidden, &self.dense, self.activation)?;
        let x = ops.add_norm(x, None, &self.norm)?;
        let logits = ops.read(&ops.vocab_max(&x, &words.table, self.bias.as_ref(), &batch.spans)?).await?;
        finite(&logits)?;
        // Both functions are monotone, so they may as well follow the maximum.
        let weight = |logit: f32| (0..splade.logarithms).fold(logit.max(0.0), |value, _| value.ln_1p());
        let rows = logits.chunks_exact(words.rows.max(1)).map(|row| {
            let entries = row.iter().take(splade.vocabulary).enumerate().filter(|&(_, &logit)| logit > 0.0);
            SparseVector::from_pairs(entries.map(|(index, &logit)| (index as u32, weight(logit))))
        });
        Ok(rows.collect())
    }
}
