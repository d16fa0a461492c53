//! Untrusted bytes to named f32 tensors, and from there to a model's weights.
//!
//! [`safetensors`] parses the bytes as they arrive and hands each finished tensor to a [`Sink`]; [`Loader`] is the sink that
//! packs tensors for an executor. Memory at its peak is the packed model and the one tensor that is still arriving.

mod decode;
mod loader;
pub mod safetensors;

pub use decode::{Decoder, Format};
pub use loader::{Blueprint, Loader, Source};

use crate::error::Result;

/// Name and shape of a tensor in a weights file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorInfo {
    pub name: String,
    pub shape: Vec<usize>,
}

/// Receives the tensors of a weights file in the order in which they are stored.
pub trait Sink {
    /// All tensors of the file, before the first of them arrives.
    fn begin(&mut self, tensors: &[TensorInfo]) -> Result<()>;

    /// Whether the tensor is to be decoded; the bytes of others are passed over.
    fn wants(&self, name: &str) -> bool;

    /// A finished tensor, row-major, every value finite.
    fn tensor(&mut self, name: &str, values: Vec<f32>) -> Result<()>;
}
