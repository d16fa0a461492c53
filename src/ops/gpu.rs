//! The GPU's executor: WGSL kernels on WebGPU ([`crate::gpu`]), in a page and natively.
//!
//! Operations only record; [`Ops::read_all`] sends everything off and waits, so that a batch is one submission and one read. Weights lie on the device in
//! the form they were given, and are widened in the kernels. Embeddings stay on the host: rows are summed there and sent, a few
//! megabytes for a batch, where the tables of multilingual models have a gigabyte.

mod pack;
mod probe;
#[cfg(test)]
mod tests;

use std::{
    slice,
    sync::{Arc, Mutex, OnceLock},
};

use super::{
    Activation, Attention, Entries, Half, Linear, Norm, NormKind, Ops, Pack, Pooling, Relative, Span, Weights,
    cpu::Cpu, host, lock,
};
use crate::{
    error::{Code, Error, Result},
    gpu::{
        Binding, Device, Dispatch, Profile, Queue, Slot,
        plan::{self, Form, Kernel, Tile},
    },
    kernels::pool::Pool,
    weights::Values,
};
use pack::{HALF, Proof, SINGLE};
pub use probe::{cosine, outputs};
#[cfg(test)]
pub use tests::gpu as test_gpu;

/// Runs [`Ops`] on the GPU.
#[derive(Clone)]
pub struct Gpu {
    queue: Arc<Queue>,
    kept: Arc<Mutex<Kept>>,
    /// Most bytes of a part of a matrix.
    limit: u64,
    /// The cut of products, where a test chooses it.
    tile: Option<Tile>,
}

/// What calls leave for those after them.
#[derive(Default)]
struct Kept {
    /// Weights of all matrices together, and the most inputs or outputs of one.
    weights: usize,
    widest: usize,
    /// Whether a model multiplies with its words.
    has_words: bool,
    /// Whether weights of some matrix are in half precision, and whether that was too small for an activation.
    has_half_weights: bool,
    is_too_large: bool,
    rotations: Vec<Rotations>,
    /// Matrices that were sent and not yet tried.
    untried: Vec<(Matrix, Proof)>,
}

/// Cosines and sines of every position up to some length, on the device.
struct Rotations {
    frequencies: Arc<[f32]>,
    positions: usize,
    values: Binding,
}

/// Activations `[rows, width]`, rows filled with zeros to groups of four values.
pub struct Tensor {
    rows: usize,
    width: usize,
    value: Mutex<Value>,
}

#[derive(Clone)]
enum Value {
    Stored(Arc<Slot>),
    /// The sum of two, which a norm that follows computes on its way.
    Sum(Arc<Slot>, Arc<Slot>),
}

/// A linear map's weight.
#[derive(Clone)]
pub struct Matrix {
    outputs: usize,
    inputs: usize,
    form: Form,
    /// By the outputs that each has; several where one is more than a binding may hold.
    parts: Arc<[(Span, Binding)]>,
    /// One per output, for eight-bit values.
    scales: Option<Vector>,
}

/// A bias or a gain.
#[derive(Clone)]
pub struct Vector(Binding);

/// An embedding, on the host; on the device only where it is multiplied with.
#[derive(Clone)]
pub struct Table {
    host: host::Table,
    words: Arc<OnceLock<Matrix>>,
}

impl Table {
    /// Of rows that stay where they are.
    pub fn on_host(host: host::Table) -> Self {
        Self { host, words: Arc::default() }
    }
}

fn bytes(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

fn words<const N: usize>(rows: impl IntoIterator<Item = [u32; N]>) -> Vec<u8> {
    rows.into_iter().flatten().flat_map(u32::to_le_bytes).collect()
}

fn word(bytes: &[u8]) -> u32 {
    u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])
}

impl Gpu {
    /// On the GPU, if there is one that computes what the processor does: else the error is `no_device`.
    pub async fn open() -> Result<Self> {
        Self::tried(Device::open().await?).await
    }

    /// On a device, unless it computes something else than the processor.
    pub async fn tried(device: Arc<Device>) -> Result<Self> {
        let gpu = Self::on(device);
        gpu.try_kernels(false).await?;
        Ok(gpu)
    }

    /// On a device, which is trusted.
    fn on(device: Arc<Device>) -> Self {
        let limit = device.binding_limit();
        Self { queue: Arc::new(Queue::new(device)), kept: Arc::default(), limit, tile: None }
    }

    /// Compares kernels with the processor's, once for a device: all but those for words, which few models need, or with these.
    async fn try_kernels(&self, has_words: bool) -> Result<()> {
        if !self.device().was_tried(has_words) {
            let want = outputs(&Cpu::new(Pool::new(1)), has_words).await?;
            probe::compare(self, &want, has_words).await?;
            self.device().set_tried(has_words);
        }
        Ok(())
    }

    pub fn device(&self) -> &Device {
        self.queue.device()
    }

    /// Whether to time kernels from here on, where the device has a clock. Each then runs by itself, and all take longer.
    pub fn set_timing(&self, is_timed: bool) {
        self.queue.set_timing(is_timed);
    }

    /// What ran since this was last asked.
    pub fn take_profile(&self) -> Profile {
        self.queue.take_profile()
    }

    /// The most floating-point operations a second that the device was seen to do in f32, in 1e9, where it has a clock.
    pub async fn peak(&self) -> Result<Option<f64>> {
        // About 1e10 products: long enough to be measured on any device, and short of what systems take for hung.
        const GROUPS: usize = 1024;
        const STEPS: usize = 1024;
        let gpu = Self { queue: Arc::new(Queue::new(self.queue.device().clone())), ..self.clone() };
        gpu.set_timing(true);
        let y = gpu.slot(GROUPS * 256, 4)?;
        let mut best: Option<f64> = None;
        // The first ones find the device asleep.
        for _ in 0..8 {
            gpu.queue.record().dispatch(&Dispatch {
                kernel: Kernel::Peak,
                grid: [GROUPS as u32, 1, 1],
                parameters: &[STEPS as u32, 0, 0, 0],
                buffers: &[Binding::first(y.buffer(), size(GROUPS * 256, 4))],
                products: (GROUPS * 256 * STEPS * 32) as f64,
            })?;
            gpu.queue.read(&[Binding::first(y.buffer(), 16)]).await?;
            for kernel in gpu.take_profile().kernels.values() {
                best = Some(best.unwrap_or(0.0).max(kernel.gflops()));
            }
        }
        Ok(best)
    }

    fn slot(&self, rows: usize, width: usize) -> Result<Arc<Slot>> {
        self.queue.slot(size(rows, width)).map(Arc::new)
    }

    fn stored(rows: usize, width: usize, slot: Arc<Slot>) -> Tensor {
        Tensor { rows, width, value: Mutex::new(Value::Stored(slot)) }
    }

    fn tensor(&self, rows: usize, width: usize, values: &[f32]) -> Result<Tensor> {
        let slot = self.slot(rows, width)?;
        let stride = plan::stride(width);
        let mut filled = Vec::with_capacity(4 * rows * stride);
        for row in values.chunks_exact(width.max(1)) {
            filled.extend(bytes(row));
            filled.resize(filled.len() + 4 * (stride - width), 0);
        }
        let mut recorder = self.queue.record();
        let sent = recorder.upload(&filled);
        recorder.copy(sent, slot.buffer());
        drop(recorder);
        Ok(Self::stored(rows, width, slot))
    }

    /// The tensor's buffer, and where it is a sum, that computed.
    fn value(&self, x: &Tensor) -> Result<Arc<Slot>> {
        let mut value = lock(&x.value);
        let (left, right) = match &*value {
            Value::Stored(slot) => return Ok(slot.clone()),
            Value::Sum(left, right) => (left.clone(), right.clone()),
        };
        let slot = self.slot(x.rows, x.width)?;
        let groups = x.rows * plan::stride(x.width) / 4;
        let [across, down] = plan::folded(groups.div_ceil(256));
        self.queue.record().dispatch(&Dispatch {
            kernel: Kernel::Add,
            grid: [across, down, 1],
            parameters: &[groups as u32, 0, 0, 0],
            buffers: &[x.part(&left), x.part(&right), x.part(&slot)],
            products: 0.0,
        })?;
        *value = Value::Stored(slot.clone());
        Ok(slot)
    }

    fn unread(&self) -> Binding {
        Binding::whole(self.device().unread())
    }

    fn or_unread(&self, vector: Option<&Vector>) -> Binding {
        vector.map_or_else(|| self.unread(), |vector| vector.0.clone())
    }

    /// Sends numbers that stay.
    fn constant(&self, values: &[f32]) -> Binding {
        let count = values.len().next_multiple_of(4).max(4);
        let mut filled = bytes(values);
        filled.resize(4 * count, 0);
        Binding::whole(&self.device().filled("vector", 4 * count, std::iter::once(filled)))
    }

    fn rotations(&self, frequencies: &Arc<[f32]>, length: usize) -> Binding {
        let mut kept = lock(&self.kept);
        let known = kept.rotations.iter().position(|known| Arc::ptr_eq(&known.frequencies, frequencies));
        if let Some(index) = known {
            if kept.rotations[index].positions >= length {
                return kept.rotations[index].values.clone();
            }
            kept.rotations.swap_remove(index);
        }
        // Rounded up, so that texts of growing length do not compute it anew each time. Here and not on the device, whose sines
        // of large angles are poor.
        let positions = length.next_power_of_two();
        let angle = |position: usize, radians: &f32| {
            let (sine, cosine) = (position as f32 * radians).sin_cos();
            [cosine, sine]
        };
        let values: Vec<f32> = (0..positions)
            .flat_map(|position| frequencies.iter().flat_map(move |radians| angle(position, radians)))
            .collect();
        let values = self.constant(&values);
        kept.rotations.push(Rotations { frequencies: frequencies.clone(), positions, values: values.clone() });
        values
    }

    fn packed(&self, outputs: usize, inputs: usize, values: &Values) -> Result<Matrix> {
        let form = pack::form(values);
        let parts = plan::parts(outputs, inputs, form, self.limit).ok_or_else(|| {
            let message = format!("a matrix of {outputs} x {inputs} cannot be cut into parts of {} bytes", self.limit);
            Error::new(Code::OutOfMemory, "webgpu", message)
        })?;
        let sent = |part: Span| {
            let size = part.len() * inputs.div_ceil(4) * form.bytes_of_four();
            let pieces = pack::pieces(values, inputs, part.clone());
            (part, Binding::whole(&self.device().filled("matrix", size.next_multiple_of(4), pieces)))
        };
        let parts = parts.into_iter().map(sent).collect();
        let scales = match values {
            Values::Int8 { scales, .. } => Some(Vector(self.constant(scales))),
            _ => None,
        };
        let matrix = Matrix { outputs, inputs, form, parts, scales };
        lock(&self.kept).untried.push((matrix.clone(), Proof::of(values, outputs, inputs)));
        Ok(matrix)
    }

    /// Multiplies one row with each matrix that came since the last time, and compares with what the processor had from the same values.
    ///
    /// It proves that pieces arrived, and that the kernel is right in these shapes; not each weight, nor every cut of a batch.
    async fn try_matrices(&self) -> Result<()> {
        let untried = std::mem::take(&mut lock(&self.kept).untried);
        let mut forms = Vec::new();
        for group in untried.chunks(64) {
            let mut products = Vec::with_capacity(2 * group.len());
            for (matrix, proof) in group {
                let is_new = !forms.contains(&matrix.form);
                forms.extend(is_new.then_some(matrix.form));
                for tile in Tile::ALL.into_iter().filter(|&tile| is_new || tile == Tile::Small) {
                    let x = self.tensor(1, matrix.inputs, &proof.x)?;
                    let gpu = Self { tile: Some(tile), ..self.clone() };
                    let tolerance = if gpu.is_half(matrix.form) { HALF } else { SINGLE };
                    products.push((gpu.product(&x, matrix, None, Activation::None, None)?, proof, tolerance));
                }
            }
            let rows = self.read_tensors(&products.iter().map(|(product, ..)| product).collect::<Vec<_>>()).await?;
            for (row, (_, proof, tolerance)) in rows.iter().zip(&products) {
                proof.check(row, *tolerance).map_err(|message| probe::refused(self, &message))?;
            }
        }
        Ok(())
    }

    /// Whether products with weights in a form are computed in half precision.
    fn is_half(&self, form: Form) -> bool {
        form == Form::F16 && self.device().has_half() && !lock(&self.kept).is_too_large
    }

    fn product(
        &self,
        x: &Tensor,
        matrix: &Matrix,
        bias: Option<&Vector>,
        activation: Activation,
        gate: Option<Half>,
    ) -> Result<Tensor> {
        if gate.is_some() && matrix.parts.len() > 1 {
            // Halves of a row that lie in different parts meet afterwards.
            let both = self.product(x, matrix, bias, Activation::None, None)?;
            return self.gate(&both, activation, gate);
        }
        let (rows, stride) = (x.rows, plan::stride(matrix.inputs));
        let width = if gate.is_some() { matrix.outputs / 2 } else { matrix.outputs };
        let slot = self.slot(rows, width)?;
        let source = self.value(x)?;
        let tile = self.tile.unwrap_or_else(|| Tile::for_product(rows, matrix.outputs));
        let columns = if gate.is_some() { tile.columns() / 2 } else { tile.columns() };
        let kernel =
            if self.is_half(matrix.form) { Kernel::LinearHalf(tile) } else { Kernel::Linear(matrix.form, tile) };
        let mut recorder = self.queue.record();
        for (part, weights) in &*matrix.parts {
            let width = if gate.is_some() { width } else { part.len() };
            let y_stride = plan::stride(if gate.is_some() { width } else { matrix.outputs });
            recorder.dispatch(&Dispatch {
                kernel,
                grid: [width.div_ceil(columns) as u32, rows.div_ceil(tile.rows()) as u32, 1],
                parameters: &[
                    rows as u32,
                    stride as u32 / 4,
                    y_stride as u32 / 4,
                    part.len() as u32,
                    width as u32,
                    part.start as u32,
                    activation_number(activation),
                    half_number(gate),
                    bias.is_some().into(),
                    matrix.scales.is_some().into(),
                ],
                buffers: &[
                    x.part(&source),
                    weights.clone(),
                    self.or_unread(matrix.scales.as_ref()),
                    self.or_unread(bias),
                    Binding::first(slot.buffer(), size(rows, y_stride)),
                ],
                products: (rows * part.len()) as f64 * matrix.inputs as f64,
            })?;
        }
        drop(recorder);
        Ok(Self::stored(rows, width, slot))
    }

    fn gate(&self, x: &Tensor, activation: Activation, gate: Option<Half>) -> Result<Tensor> {
        let width = x.width / 2;
        let slot = self.slot(x.rows, width)?;
        let source = self.value(x)?;
        let stride = plan::stride(width);
        let [across, down] = plan::folded((x.rows * stride).div_ceil(256));
        self.queue.record().dispatch(&Dispatch {
            kernel: Kernel::Gate,
            grid: [across, down, 1],
            parameters: &[
                x.rows as u32,
                width as u32,
                plan::stride(x.width) as u32,
                stride as u32,
                activation_number(activation),
                half_number(gate),
            ],
            buffers: &[x.part(&source), Binding::first(slot.buffer(), size(x.rows, width))],
            products: 0.0,
        })?;
        Ok(Self::stored(x.rows, width, slot))
    }

    /// The entries of each row above zero: as many as there are, and they.
    fn compact(&self, x: &Tensor) -> Result<(Slot, Binding)> {
        let most = plan::entries(x.width);
        let bytes = (8 * x.rows * (most + 1)) as u64;
        let slot = self.queue.slot(bytes)?;
        let source = self.value(x)?;
        let [across, down] = plan::folded(x.rows);
        let y = Binding::first(slot.buffer(), bytes);
        self.queue.record().dispatch(&Dispatch {
            kernel: Kernel::Compact,
            grid: [across, down, 1],
            parameters: &[x.rows as u32, x.width as u32, plan::stride(x.width) as u32, most as u32],
            buffers: &[x.part(&source), y.clone()],
            products: 0.0,
        })?;
        Ok((slot, y))
    }

    async fn read_tensors(&self, tensors: &[&Tensor]) -> Result<Vec<Vec<f32>>> {
        let slots = tensors.iter().map(|x| self.value(x)).collect::<Result<Vec<_>>>()?;
        let sources: Vec<Binding> = tensors.iter().zip(&slots).map(|(x, slot)| x.part(slot)).collect();
        let bytes = self.queue.read(&sources).await?;
        let mut rest = bytes.as_slice();
        let mut read = Vec::with_capacity(tensors.len());
        for (x, source) in tensors.iter().zip(&sources) {
            let (own, others) = rest.split_at(source.size as usize);
            rest = others;
            let rows = own.chunks_exact(4 * plan::stride(x.width).max(1)).take(x.rows);
            let values = rows.flat_map(|row| row.chunks_exact(4).take(x.width));
            read.push(values.map(|value| f32::from_bits(word(value))).collect());
        }
        Ok(read)
    }

    fn normalized(&self, x: &Tensor, residual: Option<&Tensor>, norm: &Norm<Self>) -> Result<Tensor> {
        let residual = residual.map(|residual| self.value(residual)).transpose()?;
        let mut value = lock(&x.value);
        let sum = match (&*value, &residual) {
            (Value::Stored(_), _) => None,
            // The sum is needed later: it is written beside the norm.
            (Value::Sum(left, right), None) => Some((left.clone(), right.clone(), self.slot(x.rows, x.width)?)),
            (Value::Sum(..), Some(_)) => {
                drop(value);
                self.value(x)?;
                value = lock(&x.value);
                None
            }
        };
        let (left, right) = match (&sum, &*value) {
            (Some((left, right, _)), _) => (left.clone(), Some(right.clone())),
            (None, Value::Stored(slot) | Value::Sum(slot, _)) => (slot.clone(), residual),
        };
        let slot = self.slot(x.rows, x.width)?;
        let [across, down] = plan::folded(x.rows);
        self.queue.record().dispatch(&Dispatch {
            kernel: Kernel::Norm,
            grid: [across, down, 1],
            parameters: &[
                x.rows as u32,
                x.width as u32,
                plan::stride(x.width) as u32 / 4,
                (norm.kind == NormKind::Rms).into(),
                (norm.epsilon as f32).to_bits(),
                right.is_some().into(),
                norm.bias.is_some().into(),
                sum.is_some().into(),
            ],
            buffers: &[
                x.part(&left),
                right.as_ref().map_or_else(|| self.unread(), |right| x.part(right)),
                norm.gain.0.clone(),
                self.or_unread(norm.bias.as_ref()),
                match &sum {
                    Some((.., sum)) => x.part(sum),
                    None => Binding::whole(self.device().unwritten()),
                },
                x.part(&slot),
            ],
            products: 0.0,
        })?;
        if let Some((.., sum)) = sum {
            *value = Value::Stored(sum);
        }
        Ok(Self::stored(x.rows, x.width, slot))
    }
}

/// Bytes of a tensor.
fn size(rows: usize, width: usize) -> u64 {
    (4 * rows * plan::stride(width)) as u64
}

impl Tensor {
    fn part(&self, slot: &Slot) -> Binding {
        Binding::first(slot.buffer(), size(self.rows, self.width))
    }
}

/// The number that `shaders/math.wgsl` knows an activation by.
fn activation_number(activation: Activation) -> u32 {
    match activation {
        Activation::None => 0,
        Activation::Gelu => 1,
        Activation::GeluTanh => 2,
        Activation::Relu => 3,
        Activation::Silu => 4,
        Activation::Tanh => 5,
        Activation::Sigmoid => 6,
        Activation::LeakyRelu => 7,
        Activation::Mish => 8,
    }
}

/// The number that kernels know the activated half by.
fn half_number(half: Option<Half>) -> u32 {
    match half {
        None => 0,
        Some(Half::First) => 1,
        Some(Half::Second) => 2,
    }
}

/// The number that `shaders/pool.wgsl` knows a pooling by.
fn pooling_number(pooling: Pooling) -> u32 {
    match pooling {
        Pooling::Cls => 0,
        Pooling::Max => 1,
        Pooling::Mean => 2,
        Pooling::MeanSqrtLen => 3,
        Pooling::WeightedMean => 4,
        Pooling::LastToken => 5,
    }
}

impl Weights for Gpu {
    type Matrix = Matrix;
    type Vector = Vector;
    type Table = Table;
}

impl Pack for Gpu {
    fn matrix(&self, outputs: usize, inputs: usize, values: Values) -> Result<Matrix> {
        let matrix = self.packed(outputs, inputs, &values)?;
        self.device().flush();
        let mut kept = lock(&self.kept);
        kept.weights += outputs * inputs;
        kept.has_half_weights |= matrix.form == Form::F16;
        kept.widest = kept.widest.max(outputs).max(inputs);
        Ok(matrix)
    }

    fn vector(&self, values: Vec<f32>) -> Result<Vector> {
        Ok(Vector(self.constant(&values)))
    }

    fn table(&self, _: usize, width: usize, values: Values) -> Result<Table> {
        Ok(Table::on_host(host::Table { values: Arc::new(values), width }))
    }
}

impl Ops for Gpu {
    type Tensor = Tensor;

    fn gather(&self, lookups: &[(&Table, &[u32])]) -> Result<Tensor> {
        let lookups: Vec<_> = lookups.iter().map(|(table, ids)| (&table.host, *ids)).collect();
        let (rows, width) = host::gathered(&lookups)?;
        let mut sums = vec![0.0; rows * width];
        host::gather(&lookups, &mut vec![0.0; width], &mut sums);
        self.tensor(rows, width, &sums)
    }

    fn linear(&self, x: &Tensor, linear: &Linear<Self>, activation: Activation) -> Result<Tensor> {
        self.product(x, &linear.weight, linear.bias.as_ref(), activation, None)
    }

    fn gated(&self, x: &Tensor, linear: &Linear<Self>, activation: Activation, activated: Half) -> Result<Tensor> {
        self.product(x, &linear.weight, linear.bias.as_ref(), activation, Some(activated))
    }

    fn attention(
        &self,
        qkv: &Tensor,
        spans: &[Span],
        attention: &Attention,
        relative: Option<&Relative<Self>>,
    ) -> Result<Tensor> {
        let &Attention { heads, head_width, scale, ref rotary, window } = attention;
        let inner = heads * head_width;
        let kernel = Kernel::attention(head_width).ok_or_else(|| {
            Error::new(Code::UnsupportedModel, "webgpu", format!("heads of {head_width} components are too wide"))
        })?;
        let longest = spans.iter().map(Span::len).max().unwrap_or(0);
        let rotations = rotary.as_ref().map(|frequencies| self.rotations(frequencies, longest));
        let reach = relative.map_or(0, |relative| relative.buckets.len() / 2);
        let biases = relative.map(|relative| {
            let mut values = vec![0.0; heads * (2 * reach + 1)];
            let mut row = vec![0.0; heads];
            for at in 0..=2 * reach {
                relative.table.host.read(relative.bucket(at as isize - reach as isize), &mut row);
                for (head, &value) in row.iter().enumerate() {
                    values[head * (2 * reach + 1) + at] = value;
                }
            }
            values
        });
        let tiles = plan::attention_tiles(spans);
        let [across, down] = plan::folded(tiles.len());
        let slot = self.slot(qkv.rows, inner)?;
        let source = self.value(qkv)?;
        let mut recorder = self.queue.record();
        let uploaded = recorder.upload(&words(tiles.iter().copied()));
        let bias = biases.map(|biases| recorder.upload(&bytes(&biases)));
        recorder.dispatch(&Dispatch {
            kernel,
            grid: [across, heads as u32, down],
            parameters: &[
                tiles.len() as u32,
                heads as u32,
                head_width as u32,
                inner as u32,
                plan::stride(qkv.width) as u32,
                plan::stride(inner) as u32,
                (scale as f32).to_bits(),
                window.map_or(u32::MAX, |window| u32::try_from(window).unwrap_or(u32::MAX)),
                rotations.is_some().into(),
                bias.is_some().into(),
                reach as u32,
            ],
            buffers: &[
                qkv.part(&source),
                uploaded,
                rotations.unwrap_or_else(|| self.unread()),
                bias.unwrap_or_else(|| self.unread()),
                Binding::first(slot.buffer(), size(qkv.rows, inner)),
            ],
            // Scores, and what they weigh; of a window, too, all of them.
            products: spans.iter().map(|span| 2.0 * (span.len() * span.len()) as f64 * inner as f64).sum(),
        })?;
        drop(recorder);
        Ok(Self::stored(qkv.rows, inner, slot))
    }

    fn add_norm(&self, x: Tensor, residual: Option<&Tensor>, norm: &Norm<Self>) -> Result<Tensor> {
        self.normalized(&x, residual, norm)
    }

    fn norm(&self, x: &Tensor, norm: &Norm<Self>) -> Result<Tensor> {
        self.normalized(x, None, norm)
    }

    fn add(&self, x: Tensor, residual: &Tensor) -> Result<Tensor> {
        let (left, right) = (self.value(&x)?, self.value(residual)?);
        Ok(Tensor { rows: x.rows, width: x.width, value: Mutex::new(Value::Sum(left, right)) })
    }

    fn pool(&self, x: &Tensor, spans: &[Span], poolings: &[Pooling]) -> Result<Tensor> {
        if poolings.len() > plan::MOST_POOLINGS {
            return Err(Error::new(Code::UnsupportedModel, "webgpu", format!("{} poolings", poolings.len())));
        }
        let width = poolings.len() * x.width;
        let stride = plan::stride(width);
        let slot = self.slot(spans.len(), width)?;
        let source = self.value(x)?;
        let mut parameters = vec![
            spans.len() as u32,
            x.width as u32,
            plan::stride(x.width) as u32,
            stride as u32,
            poolings.len() as u32,
            0,
            0,
            0,
        ];
        parameters.extend(poolings.iter().copied().map(pooling_number));
        parameters.resize(8 + plan::MOST_POOLINGS, 0);
        let [across, down] = plan::folded(spans.len());
        let mut recorder = self.queue.record();
        let uploaded = recorder.upload(&words(spans.iter().map(|span| [span.start as u32, span.end as u32])));
        recorder.dispatch(&Dispatch {
            kernel: Kernel::Pool,
            grid: [stride.div_ceil(64) as u32, across, down],
            parameters: &parameters,
            buffers: &[x.part(&source), uploaded, Binding::first(slot.buffer(), size(spans.len(), width))],
            products: 0.0,
        })?;
        drop(recorder);
        Ok(Self::stored(spans.len(), width, slot))
    }

    fn vocab_max(&self, x: &Tensor, table: &Table, bias: Option<&Vector>, spans: &[Span]) -> Result<Tensor> {
        let matrix = match table.words.get() {
            Some(matrix) => matrix,
            None => {
                let host::Table { values, width } = &table.host;
                let matrix = self.packed(table.host.rows(), *width, values)?;
                self.device().compile(Tile::ALL.map(|tile| Kernel::VocabMax(matrix.form, tile)).into_iter());
                self.device().flush();
                lock(&self.kept).has_words = true;
                table.words.get_or_init(|| matrix)
            }
        };
        let count = matrix.outputs;
        let slot = self.slot(spans.len(), count)?;
        let source = self.value(x)?;
        let longest = spans.iter().map(Span::len).max().unwrap_or(0);
        let tile = self.tile.unwrap_or_else(|| Tile::for_texts(longest));
        let [across, down] = plan::folded(spans.len());
        let mut recorder = self.queue.record();
        let uploaded = recorder.upload(&words(spans.iter().map(|span| [span.start as u32, span.end as u32])));
        for (part, weights) in &*matrix.parts {
            recorder.dispatch(&Dispatch {
                kernel: Kernel::VocabMax(matrix.form, tile),
                grid: [part.len().div_ceil(tile.columns()) as u32, across, down],
                parameters: &[
                    spans.len() as u32,
                    plan::stride(matrix.inputs) as u32 / 4,
                    part.len() as u32,
                    plan::stride(count) as u32,
                    part.start as u32,
                    bias.is_some().into(),
                    matrix.scales.is_some().into(),
                ],
                buffers: &[
                    x.part(&source),
                    weights.clone(),
                    self.or_unread(matrix.scales.as_ref()),
                    self.or_unread(bias),
                    uploaded.clone(),
                    Binding::first(slot.buffer(), size(spans.len(), count)),
                ],
                products: (x.rows * part.len()) as f64 * matrix.inputs as f64,
            })?;
        }
        drop(recorder);
        Ok(Self::stored(spans.len(), count, slot))
    }

    async fn ready(&self) -> Result<()> {
        self.try_matrices().await?;
        let has_words = lock(&self.kept).has_words;
        if has_words { self.try_kernels(true).await } else { Ok(()) }
    }

    /// Activations beyond 65,504, which some T5 have, are infinite in half precision: then the model goes on in f32.
    async fn recover(&self, error: &Error) -> bool {
        let mut kept = lock(&self.kept);
        let was_half = error.code() == Code::NotFinite && kept.has_half_weights && self.device().has_half();
        was_half && !std::mem::replace(&mut kept.is_too_large, true)
    }

    fn batch_tokens(&self) -> usize {
        let kept = lock(&self.kept);
        plan::batch_tokens(kept.weights, kept.widest, self.limit)
    }

    async fn read(&self, x: &Tensor) -> Result<Vec<f32>> {
        Ok(self.read_tensors(&[x]).await?.remove(0))
    }

    async fn read_all(&self, tensors: &[&Tensor]) -> Result<Vec<Vec<f32>>> {
        self.read_tensors(tensors).await
    }

    async fn read_entries(&self, x: &Tensor, width: usize) -> Result<Vec<Entries>> {
        // The buffer is ours until it was read.
        let (_slot, compact) = self.compact(x)?;
        let read = self.queue.read(slice::from_ref(&compact)).await?;
        let pairs: Vec<(u32, u32)> = read.chunks_exact(8).map(|pair| (word(&pair[..4]), word(&pair[4..]))).collect();
        let mut rows = Vec::with_capacity(x.rows);
        for row in pairs.chunks_exact(plan::entries(x.width) + 1).take(x.rows) {
            let Some(found) = row[1..].get(..row[0].0 as usize) else {
                // More than was provided for. The tensor is still there.
                return Ok(super::entries(&self.read(x).await?, width));
            };
            rows.push(found.iter().map(|&(index, bits)| (index, f32::from_bits(bits))).collect());
        }
        Ok(rows)
    }
}
