//! Results, in the order of the texts.

use super::{QuantizedVectors, invalid_option};
use crate::{error::Result, sparse::SparseVector};

/// A kind of result.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum OutputKind {
    /// One vector per text.
    Dense,
    /// Weights over the vocabulary.
    Sparse,
    /// One vector per token, for late interaction.
    Tokens,
}

/// Equally wide vectors, one per text.
#[derive(Debug, Clone, PartialEq)]
pub struct Vectors {
    /// Components of each vector.
    pub width: usize,
    /// All vectors, one after the other.
    pub values: Vec<f32>,
}

impl Vectors {
    /// The vector of text `index`.
    pub fn row(&self, index: usize) -> &[f32] {
        &self.values[index * self.width..][..self.width]
    }

    /// All vectors in order.
    pub fn rows(&self) -> impl ExactSizeIterator<Item = &[f32]> {
        self.values.chunks_exact(self.width.max(1))
    }
}

/// The smallest norm that a vector is divided by, as in `torch.nn.functional.normalize`.
const EPSILON: f64 = 1e-12;

/// Divides by the Euclidean norm; the squares are summed in f64.
pub(crate) fn normalize(row: &mut [f32]) {
    let square: f64 = row.iter().map(|&value| f64::from(value) * f64::from(value)).sum();
    let scale = 1.0 / square.sqrt().max(EPSILON);
    for value in row {
        *value = (f64::from(*value) * scale) as f32;
    }
}

/// What a call used.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Usage {
    /// Tokens that went through the model, special tokens included. Of a remote provider what it says, and 0 if it says nothing.
    pub tokens: usize,
    /// Indices of the texts that were cut to the model's length; remote providers do not say.
    pub truncated: Vec<usize>,
}

/// The result of [`Embedder::encode`]: for each text, in order, what the model gives and the call asked for.
#[derive(Debug, Clone, Default, PartialEq)]
#[non_exhaustive]
pub struct Output {
    /// A vector.
    pub dense: Option<Vectors>,
    /// A sparse vector over the vocabulary.
    pub sparse: Option<Vec<SparseVector>>,
    /// A vector of small integers or bits, in place of `dense`, where a remote provider was asked for them.
    pub quantized: Option<QuantizedVectors>,
    /// A vector for each token but the first.
    pub tokens: Option<Vec<Vectors>>,
    pub usage: Usage,
}

/// A document's place in the order.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Ranked {
    /// Which of the documents.
    pub index: usize,
    pub score: f32,
}

/// Best first, equal ones as they came; at most `top_k` of them.
pub fn rank(scores: impl IntoIterator<Item = (usize, f32)>, top_k: Option<usize>) -> Vec<Ranked> {
    let mut ranked: Vec<_> = scores.into_iter().map(|(index, score)| Ranked { index, score }).collect();
    ranked.sort_unstable_by(|a, b| b.score.total_cmp(&a.score).then(a.index.cmp(&b.index)));
    ranked.truncate(top_k.unwrap_or(usize::MAX));
    ranked
}

pub(crate) fn check_outputs(asked: Option<&[OutputKind]>, given: &[OutputKind]) -> Result<()> {
    let absent = |kind: &&OutputKind| !given.contains(kind);
    match asked {
        Some([]) => Err(invalid_option("outputs", "it is empty".to_owned())),
        Some(asked) => match asked.iter().find(absent) {
            None => Ok(()),
            Some(kind) => {
                Err(invalid_option("outputs", format!("{kind:?} is not among what the model gives: {given:?}")))
            }
        },
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_zero_vector_stays_zero_and_any_other_becomes_unit_length() {
        let mut zero = [0.0; 3];
        normalize(&mut zero);
        assert_eq!(zero, [0.0; 3]);
        let mut row = [3e20, -4e20];
        normalize(&mut row);
        assert_eq!(row, [0.6, -0.8]);
    }
}
