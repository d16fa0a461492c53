//! SPLADE (<https://arxiv.org/abs/2107.05720>): a masked language model's logits, each vocabulary entry's largest over the tokens of
//! a text, as sparse weights.

use super::finite;
use crate::{
    encoder::Lookup,
    error::Result,
    ops::{Activation, Entries, Linear, Norm, Ops, Weights},
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
        let logits = ops.vocab_max(&x, &words.table, self.bias.as_ref(), &batch.spans)?;
        let rows = ops.read_entries(&logits, words.rows).await?;
        let values: Vec<f32> = rows.iter().flatten().map(|&(_, logit)| logit).collect();
        finite(&values)?;
        // Both functions are monotone, so they may as well follow the maximum.
        let weight = |logit: f32| (0..splade.logarithms).fold(logit, |value, _| value.ln_1p());
        let vector = |row: Entries| {
            let entries = row.into_iter().filter(|&(index, _)| (index as usize) < splade.vocabulary);
            SparseVector::from_pairs(entries.map(|(index, logit)| (index, weight(logit))))
        };
        Ok(rows.into_iter().map(vector).collect())
    }
}
