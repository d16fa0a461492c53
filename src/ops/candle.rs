//! The reference executor: stock Candle operations on any Candle device.
//!
//! It is what the fast executors are compared with, and what reaches CUDA and Metal. Every text's attention is computed
//! by itself, so no result can depend on a neighbour; nothing here is fused beyond what Candle offers. Weights in f16 or int8 are
//! widened to f32 for each product, a matrix at a time: they save memory here, not time.

use candle_core::{DType, Tensor};
use candle_nn::{
    ops::{layer_norm_slow, rms_norm_slow, silu, softmax_last_dim},
    rotary_emb::rope,
};

use super::{
    Activation, Attention, Device, Half, Linear, Norm, NormKind, Ops, Pack, Pooling, Relative, Span, Weights,
    host::{self, Table},
};
use crate::{
    error::{Code, Error, Result},
    weights::Values,
};

/// Most scores that stand in memory at once (16 MB); longer texts are attended to in blocks of queries.
const MOST_SCORES: usize = 1 << 22;

/// Rows of the vocabulary that [`Ops::vocab_max`] takes at a time.
const VOCABULARY_ROWS: usize = 512;

/// Runs [`Ops`] on a Candle device.
#[derive(Debug, Clone)]
pub struct Candle {
    device: candle_core::Device,
}

impl Candle {
    /// On the processor.
    pub fn cpu() -> Self {
        Self { device: candle_core::Device::Cpu }
    }

    /// On a device, if this build and this machine have it.
    pub fn on(device: Device) -> Result<Self> {
        let device = match device {
            Device::Auto | Device::Cpu | Device::Reference => Ok(candle_core::Device::Cpu),
            Device::Cuda => candle_core::Device::new_cuda(0),
            Device::Metal => candle_core::Device::new_metal(0),
            Device::CandleTransformers | Device::WebGpu => {
                return Err(Error::new(Code::InvalidOption, "device", "it is none of Candle's devices"));
            }
        };
        match device {
            Ok(device) => Ok(Self { device }),
            Err(error) => Err(Error::new(Code::InvalidOption, "device", error.to_string())),
        }
    }

    /// Which of our devices it is on.
    pub fn device(&self) -> Device {
        match self.device {
            candle_core::Device::Cpu => Device::Reference,
            candle_core::Device::Cuda(_) => Device::Cuda,
            candle_core::Device::Metal(_) => Device::Metal,
        }
    }

    /// The mean of so many rows of `width`, each times its weight; zeros without any.
    pub fn weighted_mean(&self, rows: &[f32], weights: &[f32], width: usize) -> Result<Vec<f32>> {
        if weights.is_empty() {
            return Ok(vec![0.0; width]);
        }
        let rows = self.on_device(rows, (weights.len(), width))?;
        let weighted = rows.broadcast_mul(&self.on_device(weights, (weights.len(), 1))?)?;
        Ok(weighted.mean(0)?.to_vec1()?)
    }

    fn on_device(&self, values: &[f32], shape: (usize, usize)) -> Result<Tensor> {
        Ok(Tensor::from_slice(values, shape, &self.device)?)
    }

    /// The cosines and sines of each position below `length`.
    fn rotations(&self, frequencies: &[f32], length: usize) -> Result<(Tensor, Tensor)> {
        let angles: Vec<f32> =
            (0..length).flat_map(|position| frequencies.iter().map(move |radians| position as f32 * radians)).collect();
        let angles = self.on_device(&angles, (length, frequencies.len()))?;
        Ok((angles.cos()?, angles.sin()?))
    }

    /// What is added to the scores of the queries in `queries` for the keys in `keys`: `[heads or 1, queries, keys]`.
    fn score_bias(
        &self,
        queries: Span,
        keys: Span,
        attention: &Attention,
        relative: Option<&Relative<Self>>,
    ) -> Result<Option<Tensor>> {
        let masked = attention.window.is_some_and(|window| queries.len().max(keys.len()) > window);
        if relative.is_none() && !masked {
            return Ok(None);
        }
        let heads = if relative.is_some() { attention.heads } else { 1 };
        let mut values = vec![0.0; heads * queries.len() * keys.len()];
        let mut buckets = vec![0.0; heads];
        for (row, query) in queries.clone().enumerate() {
            for (column, key) in keys.clone().enumerate() {
                let unseen = attention.window.is_some_and(|window| query.abs_diff(key) > window);
                if let Some(relative) = relative {
                    relative.table.read(relative.bucket(key as isize - query as isize), &mut buckets);
                }
                for (head, &value) in buckets.iter().enumerate() {
                    let at = (head * queries.len() + row) * keys.len() + column;
                    values[at] = if unseen { f32::NEG_INFINITY } else { value };
                }
            }
        }
        Ok(Some(Tensor::from_vec(values, (heads, queries.len(), keys.len()), &self.device)?))
    }
}

/// A linear map's weight.
#[derive(Debug, Clone)]
pub struct Matrix {
    /// Transposed, `[inputs, outputs]` and contiguous; f32, f16, or eight-bit values plus 128.
    ///
    /// With this layout Candle's CPU product sums each row's terms in an order that does not depend on how many rows there
    /// are (two or more), which is what makes a text's vector bit-equal in any batch. With the transposed view it does.
    weight: Tensor,
    /// One per output, for eight-bit values.
    scales: Option<Tensor>,
}

impl Weights for Candle {
    type Matrix = Matrix;
    type Vector = Tensor;
    type Table = Table;
}

impl From<candle_core::Error> for Error {
    fn from(error: candle_core::Error) -> Self {
        Error::new(Code::Executor, "candle", error.to_string())
    }
}

/// `x w`, each row in the order of sums that it has beside others.
fn product(x: &Tensor, w: &Tensor) -> Result<Tensor> {
    // A single row would take Candle's vector path, which sums in another order than two rows do.
    match x.dim(0)? {
        1 => Ok(Tensor::cat(&[x, x], 0)?.matmul(w)?.narrow(0, 0, 1)?),
        _ => Ok(x.matmul(w)?),
    }
}

fn activated(x: &Tensor, activation: Activation) -> Result<Tensor> {
    Ok(match activation {
        Activation::None => x.clone(),
        Activation::Gelu => x.gelu_erf()?,
        Activation::GeluTanh => x.gelu()?,
        Activation::Relu => x.relu()?,
        Activation::Silu => silu(x)?,
        Activation::Tanh => x.tanh()?,
        Activation::Sigmoid => candle_nn::ops::sigmoid(x)?,
        Activation::LeakyRelu => candle_nn::ops::leaky_relu(x, 0.01)?,
        Activation::Mish => candle_nn::ops::mish(x)?,
    })
}

impl Pack for Candle {
    fn matrix(&self, outputs: usize, inputs: usize, values: Values) -> Result<Matrix> {
        let shape = (outputs, inputs);
        let (weight, scales) = match values {
            Values::F32(values) => (Tensor::from_vec(values, shape, &self.device)?, None),
            Values::F16(values) => (Tensor::from_vec(values, shape, &self.device)?, None),
            Values::Int8 { values, scales } => {
                let shifted = values.into_iter().map(|value| (i16::from(value) + 128) as u8).collect::<Vec<_>>();
                (Tensor::from_vec(shifted, shape, &self.device)?, Some(self.vector(scales)?))
            }
        };
        Ok(Matrix { weight: weight.t()?.contiguous()?, scales })
    }

    fn vector(&self, values: Vec<f32>) -> Result<Tensor> {
        let width = values.len();
        Ok(Tensor::from_vec(values, width, &self.device)?)
    }

    fn table(&self, _: usize, width: usize, values: Values) -> Result<Table> {
        Ok(Table { values: values.into(), width })
    }
}

impl Ops for Candle {
    type Tensor = Tensor;

    fn gather(&self, lookups: &[(&Table, &[u32])]) -> Result<Tensor> {
        let (rows, width) = host::gathered(lookups)?;
        let mut sums = vec![0.0; rows * width];
        host::gather(lookups, &mut vec![0.0; width], &mut sums);
        Ok(Tensor::from_vec(sums, (rows, width), &self.device)?)
    }

    fn linear(&self, x: &Tensor, linear: &Linear<Self>, activation: Activation) -> Result<Tensor> {
        let Matrix { weight, scales } = &linear.weight;
        let mut y = match (weight.dtype(), scales) {
            (DType::F32, _) => product(x, weight)?,
            (_, None) => product(x, &weight.to_dtype(DType::F32)?)?,
            (_, Some(scales)) => {
                product(x, &weight.to_dtype(DType::F32)?.affine(1.0, -128.0)?)?.broadcast_mul(scales)?
            }
        };
        if let Some(bias) = &linear.bias {
            y = y.broadcast_add(bias)?;
        }
        activated(&y, activation)
    }

    fn gated(&self, x: &Tensor, linear: &Linear<Self>, activation: Activation, half: Half) -> Result<Tensor> {
        let y = self.linear(x, linear, Activation::None)?;
        let width = y.dim(1)? / 2;
        let (first, second) = (y.narrow(1, 0, width)?.contiguous()?, y.narrow(1, width, width)?.contiguous()?);
        Ok(match half {
            Half::First => (activated(&first, activation)? * second)?,
            Half::Second => (first * activated(&second, activation)?)?,
        })
    }

    fn attention(
        &self,
        qkv: &Tensor,
        spans: &[Span],
        attention: &Attention,
        relative: Option<&Relative<Self>>,
    ) -> Result<Tensor> {
        let &Attention { heads, head_width, scale, ref rotary, window } = attention;
        let width = heads * head_width;
        let longest = spans.iter().map(Span::len).max().unwrap_or(0);
        let rotations = rotary.as_ref().map(|frequencies| self.rotations(frequencies, longest)).transpose()?;
        let mut contexts = Vec::with_capacity(spans.len());
        for span in spans.iter().filter(|span| !span.is_empty()) {
            let length = span.len();
            let rows = qkv.narrow(0, span.start, length)?;
            let part = |index: usize| -> Result<Tensor> {
                // [length, width] -> [heads, length, head_width]
                let part = rows.narrow(1, index * width, width)?;
                Ok(part.reshape((length, heads, head_width))?.transpose(0, 1)?.contiguous()?)
            };
            let (mut q, mut k, v) = (part(0)?, part(1)?, part(2)?);
            if let Some((cos, sin)) = &rotations {
                let (cos, sin) = (cos.narrow(0, 0, length)?, sin.narrow(0, 0, length)?);
                q = rope(&q.unsqueeze(0)?, &cos, &sin)?.squeeze(0)?;
                k = rope(&k.unsqueeze(0)?, &cos, &sin)?.squeeze(0)?;
            }
            let (q, k) = ((q * scale)?, k.t()?.contiguous()?);
            // Blocks depend on this text's length alone, and so do its sums.
            let fitting = (MOST_SCORES / (heads * length)).clamp(1, length);
            let block = window.map_or(fitting, |window| window.saturating_mul(2).clamp(1, length).min(fitting));
            let mut blocks = Vec::with_capacity(length.div_ceil(block));
            for start in (0..length).step_by(block) {
                let end = (start + block).min(length);
                let keys = match window {
                    Some(window) => start.saturating_sub(window)..(end + window).min(length),
                    None => 0..length,
                };
                let visible = k.narrow(2, keys.start, keys.len())?.contiguous()?;
                let mut scores = q.narrow(1, start, end - start)?.contiguous()?.matmul(&visible)?;
                if let Some(bias) = self.score_bias(start..end, keys.clone(), attention, relative)? {
                    scores = scores.broadcast_add(&bias)?;
                }
                let values = v.narrow(1, keys.start, keys.len())?.contiguous()?;
                blocks.push(softmax_last_dim(&scores)?.matmul(&values)?);
            }
            contexts.push(Tensor::cat(&blocks, 1)?.transpose(0, 1)?.reshape((length, width))?);
        }
        Ok(Tensor::cat(&contexts, 0)?)
    }

    fn add_norm(&self, x: Tensor, residual: Option<&Tensor>, norm: &Norm<Self>) -> Result<Tensor> {
        match residual {
            Some(residual) => self.norm(&(x + residual)?, norm),
            None => self.norm(&x, norm),
        }
    }

    fn norm(&self, x: &Tensor, norm: &Norm<Self>) -> Result<Tensor> {
        let epsilon = norm.epsilon as f32;
        Ok(match (norm.kind, &norm.bias) {
            (NormKind::Layer, Some(bias)) => layer_norm_slow(x, &norm.gain, bias, epsilon)?,
            (NormKind::Layer, None) => layer_norm_slow(x, &norm.gain, &norm.gain.zeros_like()?, epsilon)?,
            (NormKind::Rms, None) => rms_norm_slow(x, &norm.gain, epsilon)?,
            (NormKind::Rms, Some(bias)) => rms_norm_slow(x, &norm.gain, epsilon)?.broadcast_add(bias)?,
        })
    }

    fn add(&self, x: Tensor, residual: &Tensor) -> Result<Tensor> {
        Ok((x + residual)?)
    }

    fn pool(&self, x: &Tensor, spans: &[Span], poolings: &[Pooling]) -> Result<Tensor> {
        let width = x.dim(1)?;
        let mut rows = Vec::with_capacity(spans.len() * poolings.len());
        for (span, pooling) in spans.iter().flat_map(|span| poolings.iter().map(move |pooling| (span, pooling))) {
            let count = span.len();
            if count == 0 {
                rows.push(Tensor::zeros(width, x.dtype(), &self.device)?);
                continue;
            }
            let text = x.narrow(0, span.start, count)?;
            rows.push(match pooling {
                Pooling::Cls => text.get(0)?,
                Pooling::LastToken => text.get(count - 1)?,
                Pooling::Max => text.max(0)?,
                Pooling::Mean => (text.sum(0)? / count as f64)?,
                Pooling::MeanSqrtLen => (text.sum(0)? / (count as f64).sqrt())?,
                Pooling::WeightedMean => {
                    let weights: Vec<f32> = (1..=count).map(|position| position as f32).collect();
                    let total: f32 = weights.iter().sum();
                    let weights = Tensor::from_vec(weights, (count, 1), &self.device)?;
                    (text.broadcast_mul(&weights)?.sum(0)? / f64::from(total))?
                }
            });
        }
        Ok(Tensor::stack(&rows, 0)?.reshape((spans.len(), poolings.len() * width))?)
    }

    fn vocab_max(&self, x: &Tensor, words: &Table, bias: Option<&Tensor>, spans: &[Span]) -> Result<Tensor> {
        let (rows, width) = (words.rows(), words.width);
        let mut parts = Vec::with_capacity(rows.div_ceil(VOCABULARY_ROWS));
        for start in (0..rows).step_by(VOCABULARY_ROWS) {
            let count = VOCABULARY_ROWS.min(rows - start);
            let mut values = vec![0.0; count * width];
            values.chunks_exact_mut(width).enumerate().for_each(|(row, out)| words.read(start + row, out));
            let products = product(x, &self.on_device(&values, (count, width))?.t()?.contiguous()?)?;
            let largest = spans
                .iter()
                .map(|span| Ok(products.narrow(0, span.start, span.len())?.max(0)?))
                .collect::<Result<Vec<_>>>()?;
            parts.push(Tensor::stack(&largest, 0)?);
        }
        let largest = Tensor::cat(&parts, 1)?;
        // Rounding is monotone: the bias may as well be added once, after the maximum.
        Ok(match bias {
            Some(bias) => largest.broadcast_add(bias)?,
            None => largest,
        })
    }

    async fn read(&self, x: &Tensor) -> Result<Vec<f32>> {
        Ok(x.flatten_all()?.to_vec1()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(values: &[f32], width: usize) -> Tensor {
        Tensor::new(values, &candle_core::Device::Cpu).and_then(|t| t.reshape(((), width))).expect("test tensor")
    }

    fn host(x: &Tensor) -> Vec<f32> {
        x.flatten_all().and_then(|x| x.to_vec1()).expect("f32 tensor")
    }

    #[test]
    fn pooling_reads_only_its_span() {
        let ops = Candle::cpu();
        let x = rows(&[9.0, 9.0, 1.0, -4.0, 3.0, -2.0, 5.0, -9.0, 9.0, 9.0], 2);
        let pool = |pooling| host(&ops.pool(&x, &[1..4, 2..2], &[pooling]).expect("pool"));
        assert_eq!(pool(Pooling::Cls), [1.0, -4.0, 0.0, 0.0]);
        assert_eq!(pool(Pooling::LastToken), [5.0, -9.0, 0.0, 0.0]);
        assert_eq!(pool(Pooling::Max), [5.0, -2.0, 0.0, 0.0]);
        assert_eq!(pool(Pooling::Mean), [3.0, -5.0, 0.0, 0.0]);
        assert_eq!(pool(Pooling::WeightedMean), [22.0 / 6.0, -35.0 / 6.0, 0.0, 0.0]);
        let root = 3f32.sqrt();
        for (got, want) in pool(Pooling::MeanSqrtLen).into_iter().zip([9.0 / root, -15.0 / root, 0.0, 0.0]) {
            assert!((got - want).abs() < 1e-6, "{got} is not {want}");
        }
    }

    #[test]
    fn a_row_of_a_product_does_not_depend_on_how_many_rows_there_are() {
        let ops = Candle::cpu();
        // The shapes of MiniLM's products, and one that is smaller than a kernel tile.
        for (inputs, outputs) in [(384, 1152), (384, 1536), (1536, 384), (32, 40)] {
            let mut state = 7u32;
            let mut noise = |count: usize| -> Vec<f32> {
                (0..count)
                    .map(|_| {
                        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                        (state >> 8) as f32 / (1 << 23) as f32 - 1.0
                    })
                    .collect()
            };
            let linear = Linear {
                weight: ops.matrix(outputs, inputs, Values::F32(noise(outputs * inputs))).expect("matrix"),
                bias: Some(ops.vector(noise(outputs)).expect("vector")),
            };
            let x = rows(&noise(300 * inputs), inputs);
            let whole = host(&ops.linear(&x, &linear, Activation::Gelu).expect("linear"));
            for count in [1, 2, 3, 5, 8, 17, 64, 129] {
                let part = x.narrow(0, 3, count).expect("rows");
                let part = host(&ops.linear(&part, &linear, Activation::Gelu).expect("linear"));
                assert!(part == whole[3 * outputs..][..count * outputs], "{count} rows of {inputs} x {outputs}");
            }
        }
    }

    #[test]
    fn attention_is_the_formula() {
        let ops = Candle::cpu();
        // One head of width 1: q = k = [0, ln 2], v = [1, 4]; scores of token 1: [0, ln²2].
        let ln2 = std::f32::consts::LN_2;
        let qkv = rows(&[0.0, 0.0, 1.0, ln2, ln2, 4.0, 5.0, 5.0, 7.0], 3);
        let attention = Attention { heads: 1, head_width: 1, scale: 1.0, rotary: None, window: None };
        let got = host(&ops.attention(&qkv, &[0..2, 2..3], &attention, None).expect("attention"));
        let weight = (ln2 * ln2).exp();
        let want = [2.5, (1.0 + 4.0 * weight) / (1.0 + weight), 7.0];
        for (got, want) in got.iter().zip(want) {
            assert!((got - want).abs() < 1e-6, "{got} is not {want}");
        }
    }
}
