//! One dense vector per text: pooling, further stages, the cut to fewer dimensions, normalisation.
//!
//! Must agree with sentence-transformers' Pooling, Dense and Normalize modules. Dimensions are cut before the vector is
//! normalised, so that it always has unit length; sentence-transformers does so only where it is asked to normalise again.

use super::finite;
use crate::{
    call::normalize,
    error::Result,
    ops::{Activation, Linear, Norm, NormKind, Ops, Pack, Pooling, Weights},
    text::Batch,
};

/// What follows the encoder in a dense model.
pub struct Dense<W: Weights> {
    /// Usually one; several are laid side by side.
    pub pooling: Vec<Pooling>,
    /// Applied in order.
    pub stages: Vec<Stage<W>>,
    /// Components of a vector before it is cut.
    pub width: usize,
    /// Keep this many leading components.
    pub dimensions: Option<usize>,
    /// Whether the whole vector is put to mean 0 and variance 1 before it is cut, as Nomic's matryoshka recipe has it
    /// (<https://huggingface.co/nomic-ai/nomic-embed-text-v1.5>).
    pub standardize_before_cut: bool,
    /// Divide by the Euclidean norm.
    pub normalize: bool,
}

/// A module of sentence-transformers between Pooling and the last Normalize.
pub enum Stage<W: Weights> {
    /// Dense: `activation(linear(x))`, and what is added to it.
    Dense { linear: Linear<W>, activation: Activation, residual: Residual<W> },
    /// LayerNorm, or a Normalize that others follow.
    Norm(Norm<W>),
}

/// What a Dense module adds to its result.
pub enum Residual<W: Weights> {
    None,
    Input,
    /// The input after a map to the result's width.
    Mapped(Linear<W>),
}

/// The norm that gives `width` components unit length: torch's `normalize`, which divides by at least 1e-12.
pub fn unit_length<W: Pack>(pack: &W, width: usize) -> Result<Norm<W>> {
    let components = width as f64;
    Ok(Norm {
        kind: NormKind::Rms,
        gain: pack.vector(vec![(1.0 / components.sqrt()) as f32; width])?,
        bias: None,
        epsilon: 1e-24 / components,
    })
}

impl<W: Weights> Dense<W> {
    /// Components of a vector.
    pub fn dimensions(&self) -> usize {
        self.dimensions.map_or(self.width, |dimensions| dimensions.min(self.width))
    }

    /// A row for each text of the batch, `[texts, width]`.
    pub fn pooled(&self, ops: &W, hidden: &W::Tensor, batch: &Batch) -> Result<W::Tensor>
    where
        W: Ops,
    {
        let mut pooled = ops.pool(hidden, &batch.pooled, &self.pooling)?;
        for stage in &self.stages {
            pooled = match stage {
                Stage::Dense { linear, activation, residual } => {
                    let mapped = ops.linear(&pooled, linear, *activation)?;
                    match residual {
                        Residual::None => mapped,
                        Residual::Input => ops.add(mapped, &pooled)?,
                        Residual::Mapped(linear) => ops.add(mapped, &ops.linear(&pooled, linear, Activation::None)?)?,
                    }
                }
                Stage::Norm(norm) => ops.norm(&pooled, norm)?,
            };
        }
        Ok(pooled)
    }

    /// The vector of each row, with at most so many components. `unit`: whether they have unit length, other than loaded.
    pub fn vectors(&self, pooled: &[f32], dimensions: usize, unit: Option<bool>) -> Result<Vec<Vec<f32>>> {
        pooled.chunks_exact(self.width.max(1)).map(|row| self.finished(row.to_vec(), dimensions, unit)).collect()
    }

    fn finished(&self, mut row: Vec<f32>, dimensions: usize, unit: Option<bool>) -> Result<Vec<f32>> {
        if self.standardize_before_cut && dimensions < self.width {
            standardize(&mut row);
        }
        row.truncate(dimensions);
        if unit.unwrap_or(self.normalize) {
            normalize(&mut row);
        }
        finite(&row)?;
        Ok(row)
    }
}

/// `torch.nn.functional.layer_norm` without gain and bias, in f64.
fn standardize(row: &mut [f32]) {
    const EPSILON: f64 = 1e-5;
    let count = row.len().max(1) as f64;
    let mean = row.iter().map(|&value| f64::from(value)).sum::<f64>() / count;
    let variance = row.iter().map(|&value| (f64::from(value) - mean).powi(2)).sum::<f64>() / count;
    let scale = 1.0 / (variance + EPSILON).sqrt();
    for value in row {
        *value = ((f64::from(*value) - mean) * scale) as f32;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::host::Host;

    fn head(dimensions: Option<usize>, standardize_before_cut: bool) -> Dense<Host> {
        Dense {
            pooling: vec![Pooling::Mean],
            stages: Vec::new(),
            width: 4,
            dimensions,
            standardize_before_cut,
            normalize: true,
        }
    }

    /// As the head was loaded.
    fn finished(head: &Dense<Host>, row: &[f32]) -> Vec<f32> {
        head.finished(row.to_vec(), head.dimensions(), None).expect("finite")
    }

    #[test]
    fn dimensions_are_cut_to_what_there_is_and_before_normalising() {
        assert_eq!([None, Some(3), Some(9)].map(|dimensions| head(dimensions, false).dimensions()), [4, 3, 4]);
        assert_eq!(finished(&head(Some(2), false), &[3.0, 4.0, 100.0, 0.0]), [0.6, 0.8]);
        assert!(head(None, false).finished(vec![f32::NAN; 4], 4, None).is_err());
    }

    #[test]
    fn a_call_may_cut_further_and_leave_the_length() {
        let row = vec![3.0, 4.0, 100.0, 0.0];
        let head = head(Some(3), false);
        assert_eq!(head.finished(row.clone(), 2, None).expect("finite"), [0.6, 0.8]);
        assert_eq!(head.finished(row, 2, Some(false)).expect("finite"), [3.0, 4.0]);
    }

    #[test]
    fn only_a_cut_standardises() {
        let row = [3.0, 5.0, 3.0, 5.0];
        let root = 0.5f32.sqrt();
        let cut = finished(&head(Some(2), true), &row);
        assert!((cut[0] + root).abs() < 1e-6 && (cut[1] - root).abs() < 1e-6, "{cut:?}");
        let whole = finished(&head(None, true), &row);
        assert!(whole[0] > 0.0, "{whole:?}");
    }
}
