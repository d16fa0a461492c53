//! The reference executor: stock Candle operations on any Candle device.
//!
//! It is what the fast executors are compared with, and what reaches CUDA and Metal. Every text's attention is computed
//! by itself, so no result can depend on a neighbour; nothing here is fused beyond what Candle offers.

use candle_core::Tensor;
use candle_nn::ops::{layer_norm_slow, softmax_last_dim};

use super::{Activation, Device, Linear, Norm, Ops, Pooling, Span, Weights};
use crate::error::{Code, Error, Result};

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
            Device::Auto | Device::Cpu => Ok(candle_core::Device::Cpu),
            Device::Cuda => candle_core::Device::new_cuda(0),
            Device::Metal => candle_core::Device::new_metal(0),
        };
        match device {
            Ok(device) => Ok(Self { device }),
            Err(error) => Err(Error::new(Code::InvalidOption, "device", error.to_string())),
        }
    }
}

impl Weights for Candle {
    /// Transposed, `[inputs, outputs]` and contiguous.
    ///
    /// With this layout Candle's CPU product sums each row's terms in an order that does not depend on how many rows there
    /// are (two or more), which is what makes a text's vector bit-equal in any batch. With the transposed view it does.
    type Matrix = Tensor;
    type Vector = Tensor;
    type Table = Tensor;
}

impl From<candle_core::Error> for Error {
    fn from(error: candle_core::Error) -> Self {
        Error::new(Code::Executor, "candle", error.to_string())
    }
}

impl Ops for Candle {
    type Tensor = Tensor;

    fn matrix(&self, outputs: usize, inputs: usize, values: Vec<f32>) -> Result<Tensor> {
        let weight = Tensor::from_vec(values, (outputs, inputs), &self.device)?;
        Ok(weight.t()?.contiguous()?)
    }

    fn vector(&self, values: Vec<f32>) -> Result<Tensor> {
        let width = values.len();
        Ok(Tensor::from_vec(values, width, &self.device)?)
    }

    fn table(&self, rows: usize, width: usize, values: Vec<f32>) -> Result<Tensor> {
        Ok(Tensor::from_vec(values, (rows, width), &self.device)?)
    }

    fn gather(&self, lookups: &[(&Tensor, &[u32])]) -> Result<Tensor> {
        let mut sum: Option<Tensor> = None;
        for (table, ids) in lookups {
            let rows = table.index_select(&Tensor::new(*ids, &self.device)?, 0)?;
            sum = Some(match sum {
                Some(sum) => (sum + rows)?,
                None => rows,
            });
        }
        sum.ok_or_else(|| Error::new(Code::Executor, "gather", "no table to look up"))
    }

    fn linear(&self, x: &Tensor, linear: &Linear<Self>, activation: Activation) -> Result<Tensor> {
        // A single row would take Candle's vector path, which sums in another order than two rows do.
        let rows = x.dim(0)?;
        let product = if rows == 1 {
            Tensor::cat(&[x, x], 0)?.matmul(&linear.weight)?.narrow(0, 0, 1)?
        } else {
            x.matmul(&linear.weight)?
        };
        let y = product.broadcast_add(&linear.bias)?;
        Ok(match activation {
            Activation::None => y,
            Activation::Gelu => y.gelu_erf()?,
            Activation::GeluTanh => y.gelu()?,
            Activation::Relu => y.relu()?,
        })
    }

    fn attention(&self, qkv: &Tensor, spans: &[Span], heads: usize) -> Result<Tensor> {
        let width = qkv.dim(1)? / 3;
        let scale = 1.0 / ((width / heads) as f64).sqrt();
        let mut contexts = Vec::with_capacity(spans.len());
        for span in spans.iter().filter(|span| !span.is_empty()) {
            let rows = qkv.narrow(0, span.start, span.len())?;
            let part = |index: usize| -> Result<Tensor> {
                // [length, width] -> [heads, length, width / heads]
                let part = rows.narrow(1, index * width, width)?;
                Ok(part.reshape((span.len(), heads, ()))?.transpose(0, 1)?.contiguous()?)
            };
            let (q, k, v) = (part(0)?, part(1)?, part(2)?);
            let scores = (q * scale)?.matmul(&k.t()?.contiguous()?)?;
            let context = softmax_last_dim(&scores)?.matmul(&v)?;
            contexts.push(context.transpose(0, 1)?.reshape((span.len(), width))?);
        }
        Ok(Tensor::cat(&contexts, 0)?)
    }

    fn add_norm(&self, x: Tensor, residual: Option<&Tensor>, norm: &Norm<Self>) -> Result<Tensor> {
        let x = match residual {
            Some(residual) => (x + residual)?,
            None => x,
        };
        Ok(layer_norm_slow(&x, &norm.gain, &norm.bias, norm.epsilon as f32)?)
    }

    fn pool(&self, x: &Tensor, spans: &[Span], pooling: Pooling) -> Result<Tensor> {
        let width = x.dim(1)?;
        let mut rows = Vec::with_capacity(spans.len());
        for span in spans {
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
        Ok(Tensor::stack(&rows, 0)?)
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
        let pool = |pooling| host(&ops.pool(&x, &[1..4, 2..2], pooling).expect("pool"));
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
                weight: ops.matrix(outputs, inputs, noise(outputs * inputs)).expect("matrix"),
                bias: ops.vector(noise(outputs)).expect("vector"),
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
        let got = host(&ops.attention(&qkv, &[0..2, 2..3], 1).expect("attention"));
        let weight = (ln2 * ln2).exp();
        let want = [2.5, (1.0 + 4.0 * weight) / (1.0 + weight), 7.0];
        for (got, want) in got.iter().zip(want) {
            assert!((got - want).abs() < 1e-6, "{got} is not {want}");
        }
    }
}
