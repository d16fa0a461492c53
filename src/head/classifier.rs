//! A score per text, from a sequence classifier with one label: what cross-encoders end in.

use super::finite;
use crate::{
    error::Result,
    ops::{Activation, Linear, Norm, Ops, Pooling, Weights},
    text::Batch,
};

/// `output(norm(activation(dense(pooled))))`.
pub struct Classifier<W: Weights> {
    pub pooling: Pooling,
    pub dense: Linear<W>,
    pub activation: Activation,
    pub norm: Option<Norm<W>>,
    /// To one logit.
    pub output: Linear<W>,
}

impl<W: Weights> Classifier<W> {
    /// The logit of each text of the batch.
    pub async fn apply(&self, ops: &W, hidden: &W::Tensor, batch: &Batch) -> Result<Vec<f32>>
    where
        W: Ops,
    {
        let pooled = ops.pool(hidden, &batch.spans, &[self.pooling])?;
        let mut x = ops.linear(&pooled, &self.dense, self.activation)?;
        if let Some(norm) = &self.norm {
            x = ops.add_norm(x, None, norm)?;
        }
        let logits = ops.read(&ops.linear(&x, &self.output, Activation::None)?).await?;
        finite(&logits)?;
        Ok(logits)
    }
}
