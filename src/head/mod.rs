//! Hidden states to what a model gives: dense vectors, sparse vectors, token vectors, scores.
//!
//! A head holds its weights and calls nothing but [`crate::ops::Ops`]; what is left for the host is a few values per text.

mod classifier;
mod colbert;
mod dense;
mod lexical;
mod masked_lm;
mod quantized;

pub use classifier::Classifier;
pub use colbert::Colbert;
pub use dense::{Dense, Projection};
pub use lexical::Lexical;
pub use masked_lm::{MaskedLm, Splade};
pub use quantized::{OutputDtype, QuantizedValues, QuantizedVectors};

use crate::error::{Code, Error, Result};

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

/// Refuses values that no caller can use.
fn finite(values: &[f32]) -> Result<()> {
    match values.iter().all(|value| value.is_finite()) {
        true => Ok(()),
        false => Err(Error::new(Code::NotFinite, "head", "a computed vector is not finite")),
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
