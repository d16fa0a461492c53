//! The contract between models and executors.
//!
//! Models ([`crate::encoder`]) and heads ([`crate::head`]) call nothing but [`Ops`]; an executor implements it. Operations are
//! fused at the level where speed is made, so that an executor is free to keep a bias, an activation or a residual in
//! registers. A new device is a new file here and nothing else changes.
//!
//! Activations are one packed `[tokens, width]` tensor; texts are told apart by offsets. Padding does not exist.

#[cfg(feature = "webgpu")]
pub mod auto;
#[cfg(feature = "candle")]
pub mod candle;
pub mod cpu;
#[cfg(feature = "webgpu")]
pub mod gpu;
pub mod host;

pub use crate::kernels::{Activation, Half, NormKind, Pooling};

use std::{
    num::NonZeroUsize,
    ops::Range,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use crate::{
    error::{Code, Error, Result},
    kernels::pool::Pool,
    weights::Values,
};

/// What stands in a model's weight fields: nothing while a model is only declared, an executor's own form afterwards.
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
    pub bias: Option<W::Vector>,
}

/// A norm over the last axis, with gain and, where there is one, bias.
pub struct Norm<W: Weights + ?Sized> {
    pub kind: NormKind,
    pub gain: W::Vector,
    pub bias: Option<W::Vector>,
    pub epsilon: f64,
}

/// How a layer attends, within one text.
#[derive(Debug, Clone, PartialEq)]
pub struct Attention {
    pub heads: usize,
    /// Width of a head.
    pub head_width: usize,
    /// What scores are multiplied by before the softmax.
    pub scale: f64,
    /// Rotary position embedding (<https://arxiv.org/abs/2104.09864>): radians per position for each pair of components, of which
    /// there are half as many as a head has. Component `i` is paired with `i + head_width / 2`.
    pub rotary: Option<Arc<[f32]>>,
    /// How many tokens to either side a token sees; all without one.
    pub window: Option<usize>,
}

impl Attention {
    /// Every token sees every other; scores are divided by the root of the head's width.
    pub fn full(heads: usize, head_width: usize) -> Self {
        Self { heads, head_width, scale: 1.0 / (head_width as f64).sqrt(), rotary: None, window: None }
    }
}

/// T5's relative position bias, added to the scores of every layer.
pub struct Relative<W: Weights + ?Sized> {
    /// `[buckets, heads]`.
    pub table: W::Table,
    /// The bucket of each distance, key minus query, from `-reach` to `reach`; what lies further off is in the outermost.
    pub buckets: Vec<u32>,
}

impl<W: Weights + ?Sized> Relative<W> {
    /// The bucket of a distance, key minus query.
    pub fn bucket(&self, distance: isize) -> usize {
        let reach = (self.buckets.len() / 2) as isize;
        self.buckets[(distance.clamp(-reach, reach) + reach) as usize] as usize
    }
}

/// Most tokens of a batch that has more than one text, on the processor. Bounds the memory of activations (the widest of MiniLM is 6 MB here)
/// and the time until a cancelled call stops; larger batches were not faster.
pub const BATCH_TOKENS: usize = 1024;

/// How a call goes.
#[derive(Debug, Clone, Copy)]
pub struct Effort {
    /// Since its first batch began.
    pub seconds: f64,
    /// Tokens computed.
    pub done: usize,
    /// Tokens still to be computed.
    pub left: usize,
}

/// The rows of a packed tensor that belong to one text.
pub type Span = Range<usize>;

/// What an executor computes on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Device {
    /// The processor, and for long calls a GPU beside it where that is faster (in builds with the feature `webgpu`).
    #[default]
    Auto,
    #[serde(alias = "wasm")]
    Cpu,
    /// The processor with stock Candle operations: slow, and what the others are compared with.
    Reference,
    /// candle-transformers' own forward, as a second opinion on BERT and on SPLADE with it, in builds with the feature `reference`.
    #[serde(rename = "candle-transformers")]
    CandleTransformers,
    /// An NVIDIA GPU, in builds with the feature `cuda`.
    Cuda,
    /// An Apple GPU, in builds with the feature `metal`.
    Metal,
    /// Any GPU by WebGPU, natively by what it stands on, in builds with the feature `webgpu`.
    WebGpu,
}

impl std::str::FromStr for Device {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        match name {
            "auto" => Ok(Device::Auto),
            "cpu" => Ok(Device::Cpu),
            "reference" => Ok(Device::Reference),
            "candle-transformers" => Ok(Device::CandleTransformers),
            "cuda" => Ok(Device::Cuda),
            "metal" => Ok(Device::Metal),
            "webgpu" | "gpu" => Ok(Device::WebGpu),
            _ => Err(Error::new(
                Code::InvalidOption,
                "device",
                format!("{name:?} is none of auto, cpu, reference, candle-transformers, cuda, metal, webgpu"),
            )),
        }
    }
}

/// What computes on the processor. With a GPU in the build that may take one in, and there is no other: each executor makes a module larger.
#[cfg(feature = "webgpu")]
pub type Processor = auto::Auto;
#[cfg(not(feature = "webgpu"))]
pub type Processor = cpu::Cpu;

#[cfg(feature = "webgpu")]
fn processor(cpu: cpu::Cpu, device: Device) -> Processor {
    if device == Device::Auto { Processor::new(cpu) } else { Processor::alone(cpu) }
}

#[cfg(not(feature = "webgpu"))]
fn processor(cpu: cpu::Cpu, _: Device) -> Processor {
    cpu
}

/// An executor of this build.
pub enum Executor {
    Cpu(Processor),
    #[cfg(feature = "candle")]
    Candle(candle::Candle),
    #[cfg(feature = "webgpu")]
    Gpu(gpu::Gpu),
}

impl Executor {
    /// The one for a device, if this build and this machine have it. Threads are the processor's.
    pub async fn open(device: Device, threads: Option<NonZeroUsize>) -> Result<Self> {
        match device {
            Device::Auto | Device::Cpu => Ok(Self::Cpu(processor(cpu::Cpu::new(Pool::with(threads)), device))),
            #[cfg(feature = "candle")]
            Device::Reference | Device::Cuda | Device::Metal => candle::Candle::on(device).map(Self::Candle),
            #[cfg(not(feature = "candle"))]
            Device::Reference | Device::Cuda | Device::Metal => {
                let message = format!("{device:?} is not in this build: it has no feature \"candle\"");
                Err(Error::new(Code::InvalidOption, "device", message))
            }
            Device::CandleTransformers => {
                let message = match cfg!(feature = "reference") {
                    true => "candle-transformers computes no rerankers here",
                    false => "CandleTransformers is not in this build: it has no feature \"reference\"",
                };
                Err(Error::new(Code::InvalidOption, "device", message))
            }
            #[cfg(feature = "webgpu")]
            Device::WebGpu => gpu::Gpu::open().await.map(Self::Gpu),
            #[cfg(not(feature = "webgpu"))]
            Device::WebGpu => {
                let message = "WebGpu is not in this build: it has no feature \"webgpu\"";
                Err(Error::new(Code::InvalidOption, "device", message))
            }
        }
    }
}

/// What is kept is whole at every moment, also where a thread panicked that held it.
fn lock<T>(kept: &Mutex<T>) -> MutexGuard<'_, T> {
    kept.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The same expression for what was made for an executor, whichever it is; the type has a variant for each, as [`Executor`] has.
macro_rules! on_executor {
    ($kind:ident, $value:expr, $made:ident => $expression:expr) => {
        match $value {
            $kind::Cpu($made) => $expression,
            #[cfg(feature = "candle")]
            $kind::Candle($made) => $expression,
            #[cfg(feature = "webgpu")]
            $kind::Gpu($made) => $expression,
        }
    };
}
pub(crate) use on_executor;

/// Takes weights into an executor, once, in the form its operations read.
pub trait Pack: Weights {
    /// Takes a `[outputs, inputs]` row-major weight and packs it for [`Ops::linear`].
    fn matrix(&self, outputs: usize, inputs: usize, values: Values) -> Result<Self::Matrix>;

    /// Takes a bias or gain.
    fn vector(&self, values: Vec<f32>) -> Result<Self::Vector>;

    /// Takes a `[rows, width]` embedding.
    fn table(&self, rows: usize, width: usize, values: Values) -> Result<Self::Table>;
}

/// The operations of an executor. Shapes are `[rows, width]`; activations are f32 whatever form the weights have.
///
/// A row of every result depends only on the rows of its own text: not on other texts of the batch, nor on their order.
pub trait Ops: Pack {
    /// Activations on the executor's device.
    type Tensor;

    /// The sum over all lookups of the tables' rows: `y[t] = Σ table[ids[t]]`. Ids must be below the table's rows.
    fn gather(&self, lookups: &[(&Self::Table, &[u32])]) -> Result<Self::Tensor>;

    /// `activation(x Wᵀ + b)`.
    fn linear(&self, x: &Self::Tensor, linear: &Linear<Self>, activation: Activation) -> Result<Self::Tensor>;

    /// The product of the two halves of `x Wᵀ + b`, the activation being applied to one of them.
    fn gated(
        &self,
        x: &Self::Tensor,
        linear: &Linear<Self>,
        activation: Activation,
        activated: Half,
    ) -> Result<Self::Tensor>;

    /// Dot-product attention within each span of a `[tokens, 3 heads head_width]` tensor that holds q, k and v side by side,
    /// each as equal parts for the heads. The result is `[tokens, heads head_width]`.
    fn attention(
        &self,
        qkv: &Self::Tensor,
        spans: &[Span],
        attention: &Attention,
        relative: Option<&Relative<Self>>,
    ) -> Result<Self::Tensor>;

    /// `norm(x + residual)`.
    fn add_norm(&self, x: Self::Tensor, residual: Option<&Self::Tensor>, norm: &Norm<Self>) -> Result<Self::Tensor>;

    /// `norm(x)`.
    fn norm(&self, x: &Self::Tensor, norm: &Norm<Self>) -> Result<Self::Tensor>;

    /// `x + residual`.
    fn add(&self, x: Self::Tensor, residual: &Self::Tensor) -> Result<Self::Tensor>;

    /// One row for each span, its poolings side by side: `[spans, poolings width]`. An empty span gives zeros.
    fn pool(&self, x: &Self::Tensor, spans: &[Span], poolings: &[Pooling]) -> Result<Self::Tensor>;

    /// For each span and each row of the table the largest product with a token of the span, plus the row's bias:
    /// `y[s, v] = max over t in s of x[t] · words[v] + bias[v]`, as `[spans, rows]`. `[tokens, rows]` never exists. No span may be empty.
    fn vocab_max(
        &self,
        x: &Self::Tensor,
        words: &Self::Table,
        bias: Option<&Self::Vector>,
        spans: &[Span],
    ) -> Result<Self::Tensor>;

    /// Called once a model's weights are in: an executor that does not take its device on trust tries them here.
    fn ready(&self) -> impl Future<Output = Result<()>> {
        async { Ok(()) }
    }

    /// Most tokens of a batch of several texts.
    fn batch_tokens(&self) -> usize {
        BATCH_TOKENS
    }

    /// Called after a batch failed: whether to compute it again, because what failed is mended or done without.
    fn recover(&self, _: &Error) -> impl Future<Output = bool> {
        async { false }
    }

    /// What the caller is to hear of, since this was last asked.
    fn warnings(&self) -> Vec<String> {
        Vec::new()
    }

    /// Brings a tensor to the host, row-major.
    fn read(&self, x: &Self::Tensor) -> impl Future<Output = Result<Vec<f32>>>;

    /// Brings several at once.
    fn read_all(&self, tensors: &[&Self::Tensor]) -> impl Future<Output = Result<Vec<Vec<f32>>>> {
        async move {
            let mut read = Vec::with_capacity(tensors.len());
            for x in tensors {
                read.push(self.read(x).await?);
            }
            Ok(read)
        }
    }

    /// Brings of each row of a `[rows, width]` tensor what is above zero or no finite number, in any order.
    fn read_entries(&self, x: &Self::Tensor, width: usize) -> impl Future<Output = Result<Vec<Entries>>> {
        async move { Ok(entries(&self.read(x).await?, width)) }
    }
}

/// Index and value of some numbers of a row.
pub type Entries = Vec<(u32, f32)>;

fn entries(values: &[f32], width: usize) -> Vec<Entries> {
    let is_entry = |&(_, value): &(u32, f32)| value > 0.0 || !value.is_finite();
    values.chunks_exact(width.max(1)).map(|row| (0..).zip(row.iter().copied()).filter(is_entry).collect()).collect()
}
