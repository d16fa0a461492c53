//! The contract between models and executors.
//!
//! Models ([`crate::encoder`]) and heads ([`crate::head`]) call nothing but [`Ops`]; an executor implements it. Operations are
//! fused at the level where speed is made, so that an executor is free to keep a bias, an activation or a residual in
//! registers. A new device is a new file here and nothing else changes.
//!
//! Activations are one packed `[tokens, width]` tensor; texts are told apart by offsets. Padding does not exist.

pub mod candle;

use std::ops::Range;

use crate::error::{Code, Error, Result};

/// What stands in a model's weight fields: tensor names before loading, an executor's own form afterwards.
pub trait Weights {
    /// Of a linear map: `[outputs, inputs]`.
    type Matrix;
    /// Of a bias or a norm's gain: `[width]`.
    type Vector;
    /// Of an embedding: `[rows, width]`, read a row at a time.
    type Table;
}

/// A linear map `y = x Wᵀ + b`.
pub struct Linear<W: Weights + ?Sized> {
    pub weight: W::Matrix,
    pub bias: W::Vector,
}

/// Layer norm over the last axis: `(x - mean) / sqrt(variance + epsilon) * gain + bias`, biased variance.
pub struct Norm<W: Weights + ?Sized> {
    pub gain: W::Vector,
    pub bias: W::Vector,
    pub epsilon: f64,
}

/// The function applied to the output of a [`Linear`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activation {
    None,
    /// `x/2 (1 + erf(x/√2))`, the exact form.
    Gelu,
    /// The tanh approximation that configurations call `gelu_new` or `gelu_pytorch_tanh`.
    GeluTanh,
    Relu,
}

/// How the token vectors of one text become one vector.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pooling {
    /// The first token.
    Cls,
    /// The largest value of each component.
    Max,
    /// The mean.
    Mean,
    /// The sum divided by the square root of the count.
    MeanSqrtLen,
    /// The mean weighted by position, the first token of the text counting 1.
    WeightedMean,
    /// The last token.
    LastToken,
}

/// The rows of a packed tensor that belong to one text.
pub type Span = Range<usize>;

/// What an executor computes on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Device {
    /// The best that is tried and tested: the processor in this version.
    #[default]
    Auto,
    Cpu,
    /// An NVIDIA GPU, in builds with the feature `cuda`.
    Cuda,
    /// An Apple GPU, in builds with the feature `metal`.
    Metal,
}

impl std::str::FromStr for Device {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        match name {
            "auto" => Ok(Device::Auto),
            "cpu" => Ok(Device::Cpu),
            "cuda" => Ok(Device::Cuda),
            "metal" => Ok(Device::Metal),
            _ => Err(Error::new(Code::InvalidOption, "device", format!("{name:?} is none of auto, cpu, cuda, metal"))),
        }
    }
}

/// The operations of an executor. Shapes are `[rows, width]`, values f32.
///
/// A row of every result depends only on the rows of its own text: not on other texts of the batch, nor on their order.
pub trait Ops: Weights {
    /// Activations on the executor's device.
    type Tensor;

    /// Takes a `[outputs, inputs]` row-major weight and packs it for [`linear`](Ops::linear).
    fn matrix(&self, outputs: usize, inputs: usize, values: Vec<f32>) -> Result<Self::Matrix>;

    /// Takes a bias or gain.
    fn vector(&self, values: Vec<f32>) -> Result<Self::Vector>;

    /// Takes a `[rows, width]` embedding.
    fn table(&self, rows: usize, width: usize, values: Vec<f32>) -> Result<Self::Table>;

    /// The sum over all lookups of the tables' rows: `y[t] = Σ table[ids[t]]`. Ids must be below the table's rows.
    fn gather(&self, lookups: &[(&Self::Table, &[u32])]) -> Result<Self::Tensor>;

    /// `activation(x Wᵀ + b)`.
    fn linear(&self, x: &Self::Tensor, linear: &Linear<Self>, activation: Activation) -> Result<Self::Tensor>;

    /// Scaled dot-product attention within each span of a `[tokens, 3 width]` tensor that holds q, k and v side by side,
    /// each as `heads` equal parts. The result is `[tokens, width]`.
    fn attention(&self, qkv: &Self::Tensor, spans: &[Span], heads: usize) -> Result<Self::Tensor>;

    /// `norm(x + residual)`.
    fn add_norm(&self, x: Self::Tensor, residual: Option<&Self::Tensor>, norm: &Norm<Self>) -> Result<Self::Tensor>;

    /// One `[width]` row for each span: `[spans, width]`. An empty span gives zeros.
    fn pool(&self, x: &Self::Tensor, spans: &[Span], pooling: Pooling) -> Result<Self::Tensor>;

    /// Brings a tensor to the host, row-major.
    fn read(&self, x: &Self::Tensor) -> impl Future<Output = Result<Vec<f32>>>;
}
