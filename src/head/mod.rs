//! Hidden states to what a model gives: dense vectors, sparse vectors, token vectors, scores.
//!
//! A head holds its weights and calls nothing but [`crate::ops::Ops`]; what is left for the host is a few values per text.

mod classifier;
mod colbert;
mod dense;
mod lexical;
mod masked_lm;

pub use classifier::Classifier;
pub use colbert::Colbert;
pub use dense::{Dense, Residual, Stage, unit_length};
pub use lexical::Lexical;
pub use masked_lm::{MaskedLm, Splade};

use crate::error::{Code, Error, Result};

/// Refuses values that no caller can use.
fn finite(values: &[f32]) -> Result<()> {
    match values.iter().all(|value| value.is_finite()) {
        true => Ok(()),
        false => Err(Error::new(Code::NotFinite, "head", "a computed vector is not finite")),
    }
}
