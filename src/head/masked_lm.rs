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

/// Logits that are in memory at a time, 32 MB, unless one text has more: a batch may have hundreds of short texts.
const LOGITS: usize = 1 << 23;

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
        let mut rows = Vec::with_capacity(batch.spans.len());
        for spans in batch.spans.chunks((LOGITS / words.rows.max(1)).max(1)) {
            let logits = ops.vocab_max(&x, &words.table, self.bias.as_ref(), spans)?;
            rows.extend(ops.read_entries(&logits, words.rows).await?);
        }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        kernels::pool::Pool,
        ops::{NormKind, Pack, cpu::Cpu},
        platform::native::block_on,
        weights::Values,
    };

    /// More logits than are in memory at a time.
    #[test]
    fn a_batch_of_many_texts_is_its_texts() {
        const WIDTH: usize = 4;
        const WORDS: usize = LOGITS / 3;
        let ops = Cpu::new(Pool::new(1));
        let identity = (0..WIDTH * WIDTH).map(|at| f32::from(at % (WIDTH + 1) == 0)).collect();
        let masked_lm = MaskedLm::<Cpu> {
            dense: Linear { weight: ops.matrix(WIDTH, WIDTH, Values::F32(identity)).expect("memory"), bias: None },
            activation: Activation::None,
            norm: Norm {
                kind: NormKind::Layer,
                gain: ops.vector(vec![1.0; WIDTH]).expect("memory"),
                bias: None,
                epsilon: 1e-5,
            },
            bias: None,
        };
        let table = (0..WORDS * WIDTH).map(|at| ((at * 37 + at / 11) % 101) as f32 / 100.0 - 0.9).collect();
        let words = Lookup { table: ops.table(WORDS, WIDTH, Values::F32(table)).expect("memory"), rows: WORDS };
        let vectors = |batch: &Batch| {
            let hidden = ops.gather(&[(&words.table, batch.ids.as_slice())]).expect("known ids");
            let splade = Splade { logarithms: 1, vocabulary: WORDS - 1 };
            block_on(masked_lm.apply(&ops, &hidden, &words, batch, splade)).expect("finite")
        };
        // Texts of two words.
        let batch = |texts: std::ops::Range<usize>| Batch {
            ids: texts.clone().flat_map(|text| [text as u32, 7 + text as u32]).collect(),
            spans: (0..texts.len()).map(|index| 2 * index..2 * index + 2).collect(),
            ..Batch::default()
        };
        let together = vectors(&batch(0..7));
        assert_eq!(together.len(), 7);
        for (text, vector) in together.into_iter().enumerate() {
            assert!(vector.len() > 1000 && vector.indices.iter().all(|&word| (word as usize) < WORDS - 1));
            assert_eq!(vec![vector], vectors(&batch(text..text + 1)), "text {text}");
        }
    }
}
