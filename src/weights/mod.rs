//! Untrusted bytes to named tensors, and from there to a model's weights.
//!
//! A [`Reader`] parses the bytes as they arrive and hands each finished tensor to a [`Sink`]; [`Loader`] is the sink that
//! packs tensors for an executor. Memory at its peak is the packed model and the one tensor that is still arriving, which is
//! converted to the form wanted while it arrives.

mod decode;
mod loader;
mod reader;
pub mod safetensors;
mod values;
mod writer;

pub use decode::{Decoder, Format};
pub use loader::{Blueprint, CONVERTED_FROM, Loader, Source, scales_of};
pub use reader::{Reader, shards};
pub use values::{Collector, Dtype, Values};
pub use writer::{Planned, Writer};

use crate::error::Result;

/// What a weights file says of a tensor before its values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorInfo {
    pub name: String,
    pub shape: Vec<usize>,
    /// The form that holds the stored values without loss and without waste; none for what no weight is.
    pub dtype: Option<Dtype>,
}

impl TensorInfo {
    /// Values of a row, the unit that is scaled as one in eight bits.
    pub fn row(&self) -> usize {
        self.shape.last().copied().unwrap_or(1)
    }
}

/// Receives the tensors of a weights file in the order in which they are stored.
pub trait Sink {
    /// All tensors of the file, before the first of them arrives.
    fn begin(&mut self, tensors: &[TensorInfo]) -> Result<()>;

    /// The form in which the tensor is wanted; the bytes of others are passed over.
    fn wants(&self, name: &str) -> Option<Dtype>;

    /// A finished tensor, row-major, every value finite. Stored eight-bit integers come as they are, without scales.
    fn tensor(&mut self, name: &str, values: Values) -> Result<()>;
}
