//! Hidden states to dense vectors: pooling, truncation to fewer dimensions, normalisation.
//!
//! Must agree with sentence-transformers' Pooling and Normalize modules (`EPSILON` included) and with its order: dimensions
//! are cut before the vector is normalised.

use crate::{
    error::{Code, Error, Result},
    ops::{Ops, Pooling},
    text::Batch,
};

/// The smallest norm that a vector is divided by, as in `torch.nn.functional.normalize`.
const EPSILON: f64 = 1e-12;

/// What follows the encoder.
#[derive(Debug, Clone, PartialEq)]
pub struct DenseHead {
    /// Usually one; several are laid side by side.
    pub pooling: Vec<Pooling>,
    /// Keep this many leading components.
    pub dimensions: Option<usize>,
    /// Divide by the Euclidean norm.
    pub normalize: bool,
}

impl DenseHead {
    /// Width of the vectors for hidden states of `width`.
    pub fn width(&self, width: usize) -> usize {
        let pooled = width * self.pooling.len();
        self.dimensions.map_or(pooled, |dimensions| dimensions.min(pooled))
    }

    /// One vector per text of the batch, in its order.
    pub async fn apply<O: Ops>(&self, ops: &O, hidden: &O::Tensor, batch: &Batch) -> Result<Vec<Vec<f32>>> {
        let mut rows = vec![Vec::new(); batch.spans.len()];
        let pooled = ops.read(&ops.pool(hidden, &batch.pooled, &self.pooling)?).await?;
        let width = pooled.len() / rows.len().max(1);
        for (row, values) in rows.iter_mut().zip(pooled.chunks_exact(width.max(1))) {
            row.extend_from_slice(values);
        }
        for row in &mut rows {
            row.truncate(self.width(row.len() / self.pooling.len().max(1)));
            if self.normalize {
                normalize(row);
            }
            if row.iter().any(|value| !value.is_finite()) {
                return Err(Error::new(Code::NotFinite, "head", "a computed vector is not finite"));
            }
        }
        Ok(rows)
    }
}

/// Divides by the Euclidean norm; the squares are summed in f64.
fn normalize(row: &mut [f32]) {
    let square: f64 = row.iter().map(|&value| f64::from(value) * f64::from(value)).sum();
    let scale = 1.0 / square.sqrt().max(EPSILON);
    for value in row {
        *value = (f64::from(*value) * scale) as f32;
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

    #[test]
    fn dimensions_are_cut_to_what_there_is() {
        let head = |dimensions| DenseHead { pooling: vec![Pooling::Cls, Pooling::Mean], dimensions, normalize: true };
        assert_eq!(head(None).width(4), 8);
        assert_eq!(head(Some(3)).width(4), 3);
        assert_eq!(head(Some(9)).width(4), 8);
    }
}
