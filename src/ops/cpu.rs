//! The processor's executor: our own kernels ([`crate::kernels`]) on packed weights.
//!
//! A forward takes its tensors from a store of buffers and gives them back, so that nothing is allocated once the largest batch
//! was seen.

use std::{
    mem,
    sync::{Arc, Mutex},
};

use super::{
    Activation, Attention, Half, Linear, Norm, Ops, Pack, Pooling, Relative, Span, Weights,
    host::{self, Table},
    lock,
};
use crate::{
    error::{Code, Error, Result},
    kernels::{self, Aligned, Distances, Heads, Kernels, Matrix, Words, pool::Pool},
    weights::Values,
};

/// Runs [`Ops`] on the processor.
#[derive(Debug, Clone)]
pub struct Cpu {
    kernels: Kernels,
    kept: Arc<Mutex<Kept>>,
}

/// What calls leave for those after them.
#[derive(Debug, Default)]
struct Kept {
    buffers: Vec<Aligned<f32>>,
    rotations: Vec<Rotations>,
}

/// Cosines and sines of every position up to some length.
#[derive(Debug, Clone)]
struct Rotations {
    frequencies: Arc<[f32]>,
    cosines: Arc<[f32]>,
    sines: Arc<[f32]>,
}

/// Activations `[rows, width]`.
pub struct Tensor {
    values: Aligned<f32>,
    width: usize,
    kept: Arc<Mutex<Kept>>,
}

impl Drop for Tensor {
    fn drop(&mut self) {
        lock(&self.kept).buffers.push(mem::take(&mut self.values));
    }
}

impl Tensor {
    fn rows(&self) -> usize {
        self.values.len() / self.width.max(1)
    }
}

impl Cpu {
    /// With the threads of a pool.
    pub fn new(pool: Pool) -> Self {
        Self { kernels: Kernels::new(pool), kept: Arc::default() }
    }

    /// The kernels in use.
    pub fn kernels(&self) -> &Kernels {
        &self.kernels
    }

    /// A tensor of any values: the smallest kept buffer that is large enough, else the largest.
    fn tensor(&self, rows: usize, width: usize) -> Result<Tensor> {
        let count = rows * width;
        let mut kept = lock(&self.kept);
        let fits = |buffer: &Aligned<f32>| (buffer.capacity() < count, buffer.capacity().abs_diff(count));
        let best = kept.buffers.iter().enumerate().min_by_key(|(_, buffer)| fits(buffer)).map(|(index, _)| index);
        let mut values = best.map_or_else(Aligned::default, |index| kept.buffers.swap_remove(index));
        drop(kept);
        match values.resize(count) {
            true => Ok(Tensor { values, width, kept: self.kept.clone() }),
            false => Err(out_of_memory(count)),
        }
    }

    fn rotations(&self, frequencies: &Arc<[f32]>, length: usize) -> Rotations {
        let mut kept = lock(&self.kept);
        let known = kept.rotations.iter().position(|known| Arc::ptr_eq(&known.frequencies, frequencies));
        if let Some(index) = known {
            if kept.rotations[index].cosines.len() >= length * frequencies.len() {
                return kept.rotations[index].clone();
            }
            kept.rotations.swap_remove(index);
        }
        // Rounded up, so that texts of growing length do not compute it anew each time.
        let positions = 0..length.next_power_of_two();
        let (sines, cosines): (Vec<f32>, Vec<f32>) = positions
            .flat_map(|position| frequencies.iter().map(move |radians| (position as f32 * radians).sin_cos()))
            .unzip();
        let rotations = Rotations { frequencies: frequencies.clone(), cosines: cosines.into(), sines: sines.into() };
        kept.rotations.push(rotations.clone());
        rotations
    }
}

fn out_of_memory(count: usize) -> Error {
    Error::new(Code::OutOfMemory, "cpu", format!("no memory for {count} values"))
}

impl Weights for Cpu {
    type Matrix = Arc<Matrix>;
    type Vector = Arc<[f32]>;
    type Table = Table;
}

impl Pack for Cpu {
    fn matrix(&self, outputs: usize, inputs: usize, values: Values) -> Result<Arc<Matrix>> {
        let packed = match &values {
            Values::F32(values) => self.kernels.matrix_f32(outputs, inputs, values),
            Values::F16(values) => self.kernels.matrix_f16(outputs, inputs, values.iter().map(|value| value.to_bits())),
            Values::Int8 { values, scales } => self.kernels.matrix_int8(outputs, inputs, values, scales),
        };
        packed.map(Arc::new).ok_or_else(|| out_of_memory(values.len()))
    }

    fn vector(&self, values: Vec<f32>) -> Result<Arc<[f32]>> {
        Ok(values.into())
    }

    fn table(&self, _: usize, width: usize, values: Values) -> Result<Table> {
        Ok(Table { values: Arc::new(values), width })
    }
}

impl Norm<Cpu> {
    fn rows(&self) -> kernels::Norm<'_> {
        kernels::Norm { kind: self.kind, gain: &self.gain, bias: self.bias.as_deref(), epsilon: self.epsilon as f32 }
    }
}

impl Ops for Cpu {
    type Tensor = Tensor;

    fn gather(&self, lookups: &[(&Table, &[u32])]) -> Result<Tensor> {
        let (rows, width) = host::gathered(lookups)?;
        let mut sums = self.tensor(rows, width)?;
        let mut row = self.tensor(1, width)?;
        host::gather(lookups, &mut row.values, &mut sums.values);
        Ok(sums)
    }

    fn linear(&self, x: &Tensor, linear: &Linear<Self>, activation: Activation) -> Result<Tensor> {
        let mut y = self.tensor(x.rows(), linear.weight.outputs)?;
        self.kernels.linear(&x.values, &linear.weight, linear.bias.as_deref(), activation, &mut y.values);
        Ok(y)
    }

    fn gated(&self, x: &Tensor, linear: &Linear<Self>, activation: Activation, activated: Half) -> Result<Tensor> {
        let mut y = self.tensor(x.rows(), linear.weight.outputs / 2)?;
        let bias = linear.bias.as_deref();
        self.kernels.gated(&x.values, &linear.weight, bias, activation, activated, &mut y.values);
        Ok(y)
    }

    fn attention(
        &self,
        qkv: &Tensor,
        spans: &[Span],
        attention: &Attention,
        relative: Option<&Relative<Self>>,
    ) -> Result<Tensor> {
        let heads = attention.heads;
        let longest = spans.iter().map(Span::len).max().unwrap_or(0);
        let mut y = self.tensor(qkv.rows(), heads * attention.head_width)?;
        let rotations = attention.rotary.as_ref().map(|frequencies| self.rotations(frequencies, longest));
        let reach = longest.saturating_sub(1);
        let biases = match relative {
            None => None,
            Some(relative) => {
                let stride = Distances::stride(reach);
                let mut values = self.tensor(heads, stride)?;
                let mut row = self.tensor(1, heads)?;
                values.values.fill(0.0);
                for (at, distance) in (-(reach as isize)..=reach as isize).enumerate() {
                    relative.table.read(relative.bucket(distance), &mut row.values);
                    for (head, &value) in row.values.iter().enumerate() {
                        values.values[head * stride + at] = value;
                    }
                }
                Some(values)
            }
        };
        let heads = Heads {
            count: heads,
            width: attention.head_width,
            scale: attention.scale as f32,
            rotary: rotations.as_ref().map(|rotations| (&*rotations.cosines, &*rotations.sines)),
            window: attention.window,
            bias: biases.as_ref().map(|biases| Distances { values: &biases.values, reach }),
        };
        self.kernels.attention(&qkv.values, spans, &heads, &mut y.values);
        Ok(y)
    }

    fn add_norm(&self, mut x: Tensor, residual: Option<&Tensor>, norm: &Norm<Self>) -> Result<Tensor> {
        self.kernels.add_norm(&mut x.values, residual.map(|residual| &*residual.values), &norm.rows());
        Ok(x)
    }

    fn norm(&self, x: &Tensor, norm: &Norm<Self>) -> Result<Tensor> {
        let mut y = self.tensor(x.rows(), x.width)?;
        self.kernels.norm(&x.values, &norm.rows(), &mut y.values);
        Ok(y)
    }

    fn add(&self, mut x: Tensor, residual: &Tensor) -> Result<Tensor> {
        self.kernels.add(&mut x.values, &residual.values);
        Ok(x)
    }

    fn pool(&self, x: &Tensor, spans: &[Span], poolings: &[Pooling]) -> Result<Tensor> {
        let width = x.width;
        let mut y = self.tensor(spans.len(), poolings.len() * width)?;
        let mut pooled = y.values.chunks_exact_mut(width.max(1));
        for span in spans {
            let rows = &x.values[span.start * width..span.end * width];
            for (&pooling, out) in poolings.iter().zip(&mut pooled) {
                kernels::pool(rows, pooling, out);
            }
        }
        Ok(y)
    }

    fn vocab_max(&self, x: &Tensor, words: &Table, bias: Option<&Arc<[f32]>>, spans: &[Span]) -> Result<Tensor> {
        let count = words.rows();
        let mut y = self.tensor(spans.len(), count)?;
        let read = |row: usize, out: &mut [f32]| words.read(row, out);
        let rows = match &*words.values {
            Values::F32(values) => Words::F32(values),
            Values::Int8 { values, scales } => Words::Int8 { values, scales },
            Values::F16(_) => Words::Rows(&read),
        };
        let bias = bias.map(|bias| &**bias);
        self.kernels.vocab_max(&x.values, words.width, rows, count, bias, spans, &mut y.values);
        Ok(y)
    }

    async fn read(&self, x: &Tensor) -> Result<Vec<f32>> {
        Ok(x.values.to_vec())
    }
}
