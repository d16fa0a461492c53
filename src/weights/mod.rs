//! Untrusted bytes to named tensors, and from there to a model's weights.
//!
//! A [`Reader`] parses the bytes as they arrive and hands each finished tensor to a [`Sink`]; [`Loader`] is the sink that
//! packs tensors for an executor. Memory at its peak is the packed model and the one tensor that is still arriving, which is
//! converted to the form wanted while it arrives.

#[cfg(test)]
mod collect;
mod decode;
pub mod gguf;
mod loader;
pub mod pickle;
mod reader;
pub mod safetensors;
mod values;
mod writer;

pub use decode::{Decoder, Format};
pub use loader::{Blueprint, CONVERTED_FROM, Loader, Source, scales_of};
pub use reader::{Reader, shards};
pub use values::{Collector, Dtype, Values};
pub use writer::{Planned, Writer};

use std::fmt;

use crate::error::{Code, Error, Result};

/// Most tensors of a file, and most bytes of a tensor's name. Encoders have some hundreds, with
/// names of up to a hundred bytes; together they bound what a header costs beside its own bytes.
const MAX_TENSORS: usize = 1 << 16;
const MAX_NAME: usize = 256;

/// A broken rule of a format, found where the file's name is not known.
#[derive(Debug)]
struct Refusal {
    rule: &'static str,
    message: String,
}

impl Refusal {
    fn new(rule: &'static str, message: impl fmt::Display) -> Self {
        Self { rule, message: message.to_string() }
    }

    fn at(self, file: &str) -> Error {
        Error::new(Code::InvalidWeights, file, format!("{}: {}", self.rule, self.message))
    }
}

/// Moves bytes off the front of `chunk` until `buffer` has `length`, and says whether it has.
fn fill(buffer: &mut Vec<u8>, chunk: &mut &[u8], length: usize) -> bool {
    buffer.extend_from_slice(take(chunk, length.saturating_sub(buffer.len()) as u64));
    buffer.len() >= length
}

/// Cuts up to `count` bytes off the front of `chunk`.
fn take<'a>(chunk: &mut &'a [u8], count: u64) -> &'a [u8] {
    let (head, rest) = chunk.split_at(usize::try_from(count).unwrap_or(usize::MAX).min(chunk.len()));
    *chunk = rest;
    head
}

/// The little-endian number of the first (up to eight) bytes.
fn little_endian(bytes: &[u8]) -> u64 {
    bytes.iter().take(8).rev().fold(0, |number, &byte| number << 8 | u64::from(byte))
}

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
