//! The processor, and beside it a GPU once that has shown that it is faster: [`Device::Auto`](super::Device::Auto).
//!
//! A model is loaded onto the processor, and short calls never touch a GPU. When a call would take long ([`Auto::consider`]) the GPU is opened, gets the
//! processor's copy of the weights, has to compute the processor's hidden states, and both are timed on a short and a long batch. From then on a
//! batch goes to the one that is faster for so many tokens. A GPU that is lost is opened anew once; one that is lost again, runs out of memory or gives what is
//! no number is done without, and the batch that met it is computed again.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use half::f16;

use super::{
    Activation, Attention, BATCH_TOKENS, Effort, Entries, Half, Linear, Norm, Ops, Pack, Pooling, Relative, Span,
    Weights,
    cpu::{self, Cpu},
    gpu::{self, Gpu, cosine},
    lock,
};
use crate::{
    error::{Code, Error, Result},
    gpu::Device,
    kernels::Unpacked,
    platform::{Clock, remember, remembered},
    weights::{Dtype, Values},
};

/// Seconds that the rest of a call must take before a GPU is tried that was never measured: opening it, compiling kernels and sending a model takes
/// about one.
const TRIAL: f64 = 3.0;

/// Seconds that a GPU that was measured before must save in a call before it is opened.
const OPENING: f64 = 1.0;

/// Texts and tokens of a text in the batches that are timed.
const SHORT: [usize; 2] = [1, 16];
const LONG: [usize; 2] = [8, 64];

/// The lowest cosine between hidden states of both, by how weights are held: with eight bits the processor rounds activations and the GPU does not.
fn lowest(dtype: Dtype) -> f64 {
    match dtype {
        Dtype::F32 => 0.999_99,
        Dtype::F16 => 0.999_5,
        Dtype::Int8 => 0.98,
    }
}

/// Runs [`Ops`] on the processor, and on a GPU where that is faster.
#[derive(Clone)]
pub struct Auto {
    cpu: Cpu,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    stage: Stage,
    model: Model,
    warnings: Vec<String>,
    /// Whether the last batch went to the GPU.
    is_on_gpu: bool,
}

/// How far the GPU has come.
#[derive(Clone, Default)]
enum Stage {
    /// No call asked for so much that it would have paid.
    #[default]
    Untried,
    /// It takes batches of at least `from` tokens.
    Tried { gpu: Arc<OnGpu>, from: usize, is_proven: bool },
    /// There is none, or none that is right and faster.
    Off,
}

/// A model that is tried.
pub trait Subject {
    /// Computes so many texts of so many tokens each, and gives their hidden states.
    fn hidden(&self, size: [usize; 2]) -> impl Future<Output = Result<Vec<f32>>>;

    /// Computes a batch with all heads.
    fn heads(&self) -> impl Future<Output = Result<()>>;
}

/// What is known of a model by its matrices, whatever order they come in.
#[derive(Debug, Clone, Copy)]
struct Model {
    fingerprint: u64,
    dtype: Dtype,
}

impl Default for Model {
    fn default() -> Self {
        Self { fingerprint: 0, dtype: Dtype::F32 }
    }
}

/// A GPU with its copies of this model's weights, by their numbers.
pub struct OnGpu {
    gpu: Gpu,
    matrices: Copies<gpu::Matrix>,
    vectors: Copies<gpu::Vector>,
    tables: Copies<gpu::Table>,
}

/// Made when they are first used; freed with the GPU that they are on.
struct Copies<T>(Mutex<HashMap<usize, T>>);

impl<T: Clone> Copies<T> {
    fn new() -> Self {
        Self(Mutex::default())
    }

    fn get(&self, number: usize, make: impl FnOnce() -> Result<T>) -> Result<T> {
        let mut kept = lock(&self.0);
        if let Some(copy) = kept.get(&number) {
            return Ok(copy.clone());
        }
        let copy = make()?;
        kept.insert(number, copy.clone());
        Ok(copy)
    }
}

/// Numbers weights, over all models.
static WEIGHTS: AtomicUsize = AtomicUsize::new(0);

/// A weight of the processor, and its number.
pub struct Numbered<T> {
    number: usize,
    cpu: T,
}

impl<T> Numbered<T> {
    fn new(cpu: T) -> Self {
        Self { number: WEIGHTS.fetch_add(1, Ordering::Relaxed), cpu }
    }
}

/// Activations on one of the two.
pub enum Tensor {
    Cpu(cpu::Tensor),
    Gpu(Arc<OnGpu>, gpu::Tensor),
}

/// One of the two, and its own form of each weight.
trait Side {
    type Executor: Ops;

    fn own_matrix(&self, weight: &<Auto as Weights>::Matrix) -> Result<<Self::Executor as Weights>::Matrix>;
    fn own_vector(&self, weight: &<Auto as Weights>::Vector) -> Result<<Self::Executor as Weights>::Vector>;
    fn own_table(&self, weight: &<Auto as Weights>::Table) -> Result<<Self::Executor as Weights>::Table>;

    fn own_linear(&self, linear: &Linear<Auto>) -> Result<Linear<Self::Executor>> {
        let bias = linear.bias.as_ref().map(|bias| self.own_vector(bias)).transpose()?;
        Ok(Linear { weight: self.own_matrix(&linear.weight)?, bias })
    }

    fn own_norm(&self, norm: &Norm<Auto>) -> Result<Norm<Self::Executor>> {
        let bias = norm.bias.as_ref().map(|bias| self.own_vector(bias)).transpose()?;
        Ok(Norm { kind: norm.kind, gain: self.own_vector(&norm.gain)?, bias, epsilon: norm.epsilon })
    }

    fn own_relative(&self, relative: Option<&Relative<Auto>>) -> Result<Option<Relative<Self::Executor>>> {
        let own = |relative: &Relative<Auto>| {
            Ok(Relative { table: self.own_table(&relative.table)?, buckets: relative.buckets.clone() })
        };
        relative.map(own).transpose()
    }
}

impl Side for Cpu {
    type Executor = Cpu;

    fn own_matrix(&self, weight: &<Auto as Weights>::Matrix) -> Result<<Cpu as Weights>::Matrix> {
        Ok(weight.cpu.clone())
    }

    fn own_vector(&self, weight: &<Auto as Weights>::Vector) -> Result<<Cpu as Weights>::Vector> {
        Ok(weight.cpu.clone())
    }

    fn own_table(&self, weight: &<Auto as Weights>::Table) -> Result<<Cpu as Weights>::Table> {
        Ok(weight.cpu.clone())
    }
}

impl OnGpu {
    fn new(gpu: Gpu) -> Self {
        Self { gpu, matrices: Copies::new(), vectors: Copies::new(), tables: Copies::new() }
    }
}

impl Side for OnGpu {
    type Executor = Gpu;

    fn own_matrix(&self, weight: &<Auto as Weights>::Matrix) -> Result<gpu::Matrix> {
        self.matrices.get(weight.number, || {
            let values = match weight.cpu.unpacked() {
                Unpacked::F32(values) => Values::F32(values),
                Unpacked::F16(bits) => Values::F16(bits.into_iter().map(f16::from_bits).collect()),
                Unpacked::Int8 { values, scales } => Values::Int8 { values, scales },
            };
            self.gpu.matrix(weight.cpu.outputs, weight.cpu.inputs, values)
        })
    }

    fn own_vector(&self, weight: &<Auto as Weights>::Vector) -> Result<gpu::Vector> {
        self.vectors.get(weight.number, || self.gpu.vector(weight.cpu.to_vec()))
    }

    fn own_table(&self, weight: &<Auto as Weights>::Table) -> Result<gpu::Table> {
        self.tables.get(weight.number, || Ok(gpu::Table::on_host(weight.cpu.clone())))
    }
}

/// The same operation on the side where its input is: the executor, the side that has the weights, and the input.
macro_rules! on_side {
    ($auto:expr, $x:expr, ($executor:ident, $side:ident, $value:ident) => $operation:expr) => {
        match $x {
            Tensor::Cpu($value) => {
                let ($executor, $side) = (&$auto.cpu, &$auto.cpu);
                Ok(Tensor::Cpu($operation?))
            }
            Tensor::Gpu(on, $value) => {
                let ($executor, $side) = (&on.gpu, &**on);
                Ok(Tensor::Gpu(on.clone(), $operation?))
            }
        }
    };
}

/// The same for an operation on two inputs.
macro_rules! on_both {
    ($auto:expr, $x:expr, $y:expr, ($executor:ident, $side:ident, $value:ident, $other:ident) => $operation:expr) => {
        match ($x, $y) {
            (Tensor::Cpu($value), Tensor::Cpu($other)) => {
                let ($executor, $side) = (&$auto.cpu, &$auto.cpu);
                Ok(Tensor::Cpu($operation?))
            }
            (Tensor::Gpu(on, $value), Tensor::Gpu(_, $other)) => {
                let result = {
                    let ($executor, $side) = (&on.gpu, &*on);
                    $operation?
                };
                Ok(Tensor::Gpu(on, result))
            }
            _ => Err(Error::new(Code::Executor, "auto", "tensors of one batch lie on two devices")),
        }
    };
}

impl Weights for Auto {
    type Matrix = Numbered<<Cpu as Weights>::Matrix>;
    type Vector = Numbered<<Cpu as Weights>::Vector>;
    type Table = Numbered<<Cpu as Weights>::Table>;
}

impl Pack for Auto {
    fn matrix(&self, outputs: usize, inputs: usize, values: Values) -> Result<Self::Matrix> {
        lock(&self.state).model.add(outputs, inputs, values.dtype());
        self.cpu.matrix(outputs, inputs, values).map(Numbered::new)
    }

    fn vector(&self, values: Vec<f32>) -> Result<Self::Vector> {
        self.cpu.vector(values).map(Numbered::new)
    }

    fn table(&self, rows: usize, width: usize, values: Values) -> Result<Self::Table> {
        self.cpu.table(rows, width, values).map(Numbered::new)
    }
}

impl Model {
    fn add(&mut self, outputs: usize, inputs: usize, dtype: Dtype) {
        let mixed = (outputs as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ (inputs as u64).rotate_left(32);
        self.fingerprint = self.fingerprint.wrapping_add(mixed.wrapping_mul(0xBF58_476D_1CE4_E5B9) ^ (mixed >> 29));
        if lowest(dtype) < lowest(self.dtype) {
            self.dtype = dtype;
        }
    }
}

/// Seconds that batches take: so many for each, and for each token.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize, serde::Deserialize)]
struct Cost {
    batch: f64,
    token: f64,
}

impl Cost {
    /// By what a short and a long batch took.
    fn of(short: f64, long: f64) -> Self {
        let [short_tokens, long_tokens] = [SHORT, LONG].map(|[texts, length]| (texts * length) as f64);
        let token = ((long - short) / (long_tokens - short_tokens)).max(0.0);
        Self { batch: (short - token * short_tokens).max(0.0), token }
    }

    fn seconds(&self, tokens: usize) -> f64 {
        self.batch + self.token * tokens as f64
    }
}

/// What was measured on a machine.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
struct Costs {
    /// The GPU's name.
    gpu_name: String,
    cpu: Cost,
    gpu: Cost,
}

impl Costs {
    /// Tokens of a batch from which on the GPU takes it; none if it is never faster.
    fn crossover(&self) -> Option<usize> {
        let saved = self.cpu.token - self.gpu.token;
        if self.gpu.seconds(BATCH_TOKENS) >= self.cpu.seconds(BATCH_TOKENS) {
            return None;
        }
        let from = if saved > 0.0 { (self.gpu.batch - self.cpu.batch) / saved } else { 0.0 };
        Some(from.max(0.0).ceil() as usize)
    }

    /// Seconds that the GPU saves in a call.
    fn saved(&self, tokens: usize) -> f64 {
        match self.crossover() {
            Some(_) => self.cpu.seconds(tokens) - self.gpu.seconds(tokens),
            None => 0.0,
        }
    }
}

impl Auto {
    /// On the processor for now.
    pub fn new(cpu: Cpu) -> Self {
        Self { cpu, state: Arc::default() }
    }

    /// On the processor for good.
    pub fn alone(cpu: Cpu) -> Self {
        let auto = Self::new(cpu);
        auto.set_stage(Stage::Off);
        auto
    }

    /// Whether the last batch went to the GPU.
    pub fn is_on_gpu(&self) -> bool {
        lock(&self.state).is_on_gpu
    }

    fn stage(&self) -> Stage {
        lock(&self.state).stage.clone()
    }

    fn set_stage(&self, stage: Stage) {
        lock(&self.state).stage = stage;
    }

    /// The GPU gave a result.
    fn set_proven(&self) {
        if let Stage::Tried { is_proven, .. } = &mut lock(&self.state).stage {
            *is_proven = true;
        }
    }

    /// Takes the GPU in if the rest of a call would take long without.
    pub async fn consider<S: Subject>(&self, effort: &Effort, model: &S) {
        // Short calls ask for nothing, not even for what is remembered.
        if effort.left <= BATCH_TOKENS || !matches!(self.stage(), Stage::Untried) {
            return;
        }
        let Model { fingerprint, dtype } = lock(&self.state).model;
        let (threads, set) = (self.cpu.kernels().pool().threads(), self.cpu.kernels().name());
        let name = format!("{fingerprint:016x}-{}-{set}-{threads}", dtype.as_str());
        let known = remembered(&name).await.and_then(|text| serde_json::from_str::<Costs>(&text).ok());
        let pays = match &known {
            Some(costs) => costs.saved(effort.left) > OPENING,
            None => effort.done > 0 && effort.seconds / effort.done as f64 * effort.left as f64 > TRIAL,
        };
        if !pays {
            return;
        }
        // Calls beside this one go on without it.
        self.set_stage(Stage::Off);
        match self.tried(known.clone(), model).await {
            Ok(None) => self.set_stage(Stage::Off),
            Ok(Some((gpu, costs))) => {
                if known.as_ref() != Some(&costs)
                    && let Ok(text) = serde_json::to_string(&costs)
                {
                    remember(&name, &text).await;
                }
                self.set_stage(match costs.crossover() {
                    Some(from) => Stage::Tried { gpu, from, is_proven: true },
                    None => Stage::Off,
                });
            }
            Err(error) => self.end(&error),
        }
    }

    /// Opens the GPU, compares and measures. None where there is nothing to try.
    async fn tried<S: Subject>(&self, known: Option<Costs>, model: &S) -> Result<Option<(Arc<OnGpu>, Costs)>> {
        let Ok(device) = Device::open().await else { return Ok(None) };
        // A processor that plays a GPU is no faster than one that does not; tests have no other.
        if device.is_software() && !cfg!(test) {
            return Ok(None);
        }
        let gpu = Arc::new(OnGpu::new(Gpu::tried(device).await?));
        let gpu_name = gpu.gpu.device().name().to_owned();
        let known = known.filter(|costs| costs.gpu_name == gpu_name);
        let want = model.hidden(SHORT).await?;
        let cpu = match &known {
            Some(costs) => costs.cpu,
            None => Cost::of(timed(model, SHORT, 3).await?, timed(model, LONG, 1).await?),
        };
        self.set_stage(Stage::Tried { gpu: gpu.clone(), from: 0, is_proven: false });
        // With these its weights are sent and its kernels compiled.
        model.heads().await?;
        let got = model.hidden(SHORT).await?;
        let (cosine, lowest) = (cosine(&got, &want), lowest(lock(&self.state).model.dtype));
        if got.len() != want.len() || cosine.is_nan() || cosine < lowest {
            let message = format!("{gpu_name} gives hidden states at a cosine of {cosine:.6} to the processor's");
            return Err(Error::new(Code::NoDevice, "webgpu", message));
        }
        let gpu_cost = match known {
            Some(costs) => costs.gpu,
            None => {
                model.hidden(LONG).await?;
                Cost::of(timed(model, SHORT, 3).await?, timed(model, LONG, 2).await?)
            }
        };
        Ok(Some((gpu, Costs { gpu_name, cpu, gpu: gpu_cost })))
    }

    /// Goes on without the GPU.
    fn end(&self, reason: &Error) {
        let mut state = lock(&self.state);
        state.stage = Stage::Off;
        state.warnings.push(format!("{reason}; the processor goes on without the GPU"));
    }
}

/// The shortest of some times that a batch takes.
async fn timed<S: Subject>(model: &S, size: [usize; 2], rounds: usize) -> Result<f64> {
    let mut best = f64::INFINITY;
    for _ in 0..rounds {
        let clock = Clock::start();
        model.hidden(size).await?;
        best = best.min(clock.seconds());
    }
    Ok(best)
}

impl Ops for Auto {
    type Tensor = Tensor;

    fn gather(&self, lookups: &[(&Self::Table, &[u32])]) -> Result<Tensor> {
        let tokens = lookups.first().map_or(0, |(_, ids)| ids.len());
        let gpu = {
            let mut state = lock(&self.state);
            let gpu = match &state.stage {
                Stage::Tried { gpu, from, .. } if tokens >= *from => Some(gpu.clone()),
                _ => None,
            };
            state.is_on_gpu = gpu.is_some();
            gpu
        };
        match gpu {
            None => {
                let lookups: Vec<_> = lookups.iter().map(|(table, ids)| (&table.cpu, *ids)).collect();
                self.cpu.gather(&lookups).map(Tensor::Cpu)
            }
            Some(on) => {
                let tables = lookups.iter().map(|(table, _)| on.own_table(table)).collect::<Result<Vec<_>>>()?;
                let lookups: Vec<_> = tables.iter().zip(lookups).map(|(table, (_, ids))| (table, *ids)).collect();
                let x = on.gpu.gather(&lookups)?;
                Ok(Tensor::Gpu(on, x))
            }
        }
    }

    fn linear(&self, x: &Tensor, linear: &Linear<Self>, activation: Activation) -> Result<Tensor> {
        on_side!(self, x, (ops, side, x) => ops.linear(x, &side.own_linear(linear)?, activation))
    }

    fn gated(&self, x: &Tensor, linear: &Linear<Self>, activation: Activation, activated: Half) -> Result<Tensor> {
        on_side!(self, x, (ops, side, x) => ops.gated(x, &side.own_linear(linear)?, activation, activated))
    }

    fn attention(
        &self,
        qkv: &Tensor,
        spans: &[Span],
        attention: &Attention,
        relative: Option<&Relative<Self>>,
    ) -> Result<Tensor> {
        on_side!(self, qkv, (ops, side, qkv) => ops.attention(qkv, spans, attention, side.own_relative(relative)?.as_ref()))
    }

    fn add_norm(&self, x: Tensor, residual: Option<&Tensor>, norm: &Norm<Self>) -> Result<Tensor> {
        match residual {
            Some(residual) => {
                on_both!(self, x, residual, (ops, side, x, y) => ops.add_norm(x, Some(y), &side.own_norm(norm)?))
            }
            None => match x {
                Tensor::Cpu(x) => self.cpu.add_norm(x, None, &self.cpu.own_norm(norm)?).map(Tensor::Cpu),
                Tensor::Gpu(on, x) => {
                    let x = on.gpu.add_norm(x, None, &on.own_norm(norm)?)?;
                    Ok(Tensor::Gpu(on, x))
                }
            },
        }
    }

    fn norm(&self, x: &Tensor, norm: &Norm<Self>) -> Result<Tensor> {
        on_side!(self, x, (ops, side, x) => ops.norm(x, &side.own_norm(norm)?))
    }

    fn add(&self, x: Tensor, residual: &Tensor) -> Result<Tensor> {
        on_both!(self, x, residual, (ops, _side, x, y) => ops.add(x, y))
    }

    fn pool(&self, x: &Tensor, spans: &[Span], poolings: &[Pooling]) -> Result<Tensor> {
        on_side!(self, x, (ops, _side, x) => ops.pool(x, spans, poolings))
    }

    fn vocab_max(
        &self,
        x: &Tensor,
        words: &Self::Table,
        bias: Option<&Self::Vector>,
        spans: &[Span],
    ) -> Result<Tensor> {
        on_side!(self, x, (ops, side, x) => {
            let bias = bias.map(|bias| side.own_vector(bias)).transpose()?;
            ops.vocab_max(x, &side.own_table(words)?, bias.as_ref(), spans)
        })
    }

    fn batch_tokens(&self) -> usize {
        match self.stage() {
            // As long as batches of the processor's size already go there.
            Stage::Tried { gpu, from, .. } if from <= BATCH_TOKENS => gpu.gpu.batch_tokens(),
            _ => BATCH_TOKENS,
        }
    }

    async fn recover(&self, error: &Error) -> bool {
        let stage = self.stage();
        let on_gpu = error.at() == "webgpu" || (error.code() == Code::NotFinite && self.is_on_gpu());
        let Stage::Tried { gpu, from, is_proven } = stage else {
            // It ended in a call beside this one.
            return on_gpu && matches!(stage, Stage::Off);
        };
        if !on_gpu {
            return false;
        }
        if gpu.gpu.recover(error).await {
            return true;
        }
        if error.code() == Code::DeviceLost && gpu.gpu.device().lost().is_none() {
            // A call beside this one has opened it anew.
            return true;
        }
        if error.code() == Code::DeviceLost && is_proven {
            drop(gpu);
            if let Ok(gpu) = Gpu::open().await {
                let gpu = Arc::new(OnGpu::new(gpu));
                self.set_stage(Stage::Tried { gpu, from, is_proven: false });
                return true;
            }
        }
        self.end(error);
        true
    }

    fn warnings(&self) -> Vec<String> {
        std::mem::take(&mut lock(&self.state).warnings)
    }

    async fn read(&self, x: &Tensor) -> Result<Vec<f32>> {
        match x {
            Tensor::Cpu(x) => self.cpu.read(x).await,
            Tensor::Gpu(on, x) => {
                // What was sent since the last time must have arrived.
                on.gpu.ready().await?;
                let values = on.gpu.read(x).await?;
                self.set_proven();
                Ok(values)
            }
        }
    }

    async fn read_all(&self, tensors: &[&Tensor]) -> Result<Vec<Vec<f32>>> {
        let Some(Tensor::Gpu(on, _)) = tensors.first() else {
            let mut read = Vec::with_capacity(tensors.len());
            for x in tensors {
                read.push(self.read(x).await?);
            }
            return Ok(read);
        };
        // A batch is on one side.
        let here = tensors.iter().filter_map(|x| match x {
            Tensor::Gpu(_, x) => Some(x),
            Tensor::Cpu(_) => None,
        });
        on.gpu.ready().await?;
        let read = on.gpu.read_all(&here.collect::<Vec<_>>()).await?;
        self.set_proven();
        Ok(read)
    }

    async fn read_entries(&self, x: &Tensor, width: usize) -> Result<Vec<Entries>> {
        match x {
            Tensor::Cpu(x) => self.cpu.read_entries(x, width).await,
            Tensor::Gpu(on, x) => {
                on.gpu.ready().await?;
                let rows = on.gpu.read_entries(x, width).await?;
                self.set_proven();
                Ok(rows)
            }
        }
    }
}

#[cfg(test)]
impl Auto {
    /// As if the GPU had been tried, and were faster from so many tokens on.
    pub async fn take_gpu(&self, from: usize) -> Result<()> {
        let gpu = Arc::new(OnGpu::new(Gpu::open().await?));
        self.set_stage(Stage::Tried { gpu, from, is_proven: true });
        Ok(())
    }

    /// Ends the GPU as a driver may.
    pub fn lose_gpu(&self) {
        if let Stage::Tried { gpu, .. } = self.stage() {
            gpu.gpu.device().destroy();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;
    use crate::{
        kernels::pool::Pool,
        ops::gpu::{outputs, test_gpu},
        platform::native::block_on,
    };

    fn auto() -> Auto {
        Auto::new(Cpu::new(Pool::new(1)))
    }

    fn computed<O: Ops>(ops: &O) -> Result<[Vec<f32>; 2]> {
        block_on(outputs(ops, true))
    }

    fn same(left: &[Vec<f32>; 2], right: &[Vec<f32>; 2]) -> bool {
        let bits = |values: &[Vec<f32>; 2]| values.concat().iter().map(|value| value.to_bits()).collect::<Vec<_>>();
        bits(left) == bits(right)
    }

    #[test]
    fn a_batch_goes_to_the_gpu_from_so_many_tokens_on() {
        let Some(gpu) = test_gpu() else { return };
        let auto = auto();
        let cpu = computed(&auto.cpu).expect("valid");
        assert!(same(&computed(&auto).expect("valid"), &cpu) && !auto.is_on_gpu());
        block_on(auto.take_gpu(71)).expect("a GPU");
        assert!(same(&computed(&auto).expect("valid"), &cpu) && !auto.is_on_gpu());
        block_on(auto.take_gpu(70)).expect("a GPU");
        let got = computed(&auto).expect("valid");
        assert!(auto.is_on_gpu() && same(&got, &computed(&gpu).expect("valid")) && !same(&got, &cpu));
        assert!(auto.warnings().is_empty());
    }

    /// The network's outputs, computed again as long as the executor says so.
    fn until_it_runs(auto: &Auto) -> [Vec<f32>; 2] {
        loop {
            match computed(auto) {
                Ok(outputs) => return outputs,
                Err(error) => assert!(block_on(auto.recover(&error)), "{error}"),
            }
        }
    }

    #[test]
    fn a_lost_gpu_is_opened_anew_once_and_then_done_without() {
        let Some(gpu) = test_gpu() else { return };
        let (auto, want) = (auto(), computed(&gpu).expect("valid"));
        block_on(auto.take_gpu(0)).expect("a GPU");
        for _ in 0..2 {
            auto.lose_gpu();
            assert!(same(&until_it_runs(&auto), &want) && auto.is_on_gpu());
            assert!(auto.warnings().is_empty());
        }
        // Twice without a result between them.
        auto.lose_gpu();
        let error = computed(&auto).expect_err("lost");
        assert_eq!(error.code(), Code::DeviceLost);
        assert!(block_on(auto.recover(&error)));
        auto.lose_gpu();
        let got = until_it_runs(&auto);
        assert!(!auto.is_on_gpu() && same(&got, &computed(&auto.cpu).expect("valid")));
        let warnings = auto.warnings();
        assert!(warnings.len() == 1 && warnings[0].contains("goes on without the GPU"), "{warnings:?}");
        assert!(!block_on(auto.recover(&Error::new(Code::Executor, "cpu", "its own fault"))));
    }

    #[test]
    fn without_memory_or_numbers_the_processor_takes_over() {
        let Some(_gpu) = test_gpu() else { return };
        for error in [Error::new(Code::OutOfMemory, "webgpu", "full"), Error::new(Code::NotFinite, "text 3", "NaN")] {
            let auto = auto();
            assert!(!block_on(auto.recover(&error)) || error.at() == "webgpu", "{error}");
            block_on(auto.take_gpu(0)).expect("a GPU");
            computed(&auto).expect("valid");
            assert!(auto.is_on_gpu() && !block_on(auto.recover(&Error::new(Code::Aborted, "embedder", "stop"))));
            assert!(block_on(auto.recover(&error)), "{error}");
            computed(&auto).expect("valid");
            assert!(!auto.is_on_gpu() && auto.warnings().len() == 1, "{error}");
            // What the processor gives is its own fault.
            assert!(!block_on(auto.recover(&Error::new(Code::NotFinite, "text 3", "NaN"))));
        }
    }

    /// A linear map of a table's rows, off by an error on the GPU.
    struct Network<'a> {
        auto: &'a Auto,
        table: <Auto as Weights>::Table,
        linear: Linear<Auto>,
        error: f32,
        calls: Cell<usize>,
    }

    impl<'a> Network<'a> {
        fn new(auto: &'a Auto, seed: usize, error: f32) -> Self {
            let weight = auto.matrix(64, 64, Values::F32(vec![0.01; 64 * 64])).expect("memory");
            // Another matrix, another model.
            auto.matrix(seed, 1, Values::F32(vec![0.0; seed])).expect("memory");
            let table = auto.table(3, 64, Values::F32((0..192).map(|at| at as f32).collect())).expect("memory");
            Self { auto, table, linear: Linear { weight, bias: None }, error, calls: Cell::new(0) }
        }
    }

    impl Subject for Network<'_> {
        async fn hidden(&self, [texts, length]: [usize; 2]) -> Result<Vec<f32>> {
            self.calls.set(self.calls.get() + 1);
            let ids: Vec<u32> = (0..texts * length).map(|at| at as u32 % 3).collect();
            let x = self.auto.gather(&[(&self.table, &ids)])?;
            let mut values = self.auto.read(&self.auto.linear(&x, &self.linear, Activation::None)?).await?;
            if self.auto.is_on_gpu() {
                values[0] += self.error;
            }
            Ok(values)
        }

        async fn heads(&self) -> Result<()> {
            Ok(())
        }
    }

    #[test]
    fn long_calls_alone_try_the_gpu_and_what_was_measured_is_kept() {
        let Some(_gpu) = test_gpu() else { return };
        let long = Effort { seconds: 10.0, done: 1000, left: 100_000 };
        // Gives how often hidden states were computed.
        let consider = |auto: &Auto, seed: usize, effort: &Effort, error: f32| {
            let network = Network::new(auto, seed, error);
            block_on(auto.consider(effort, &network));
            network.calls.get()
        };
        let short =
            [Effort { left: BATCH_TOKENS, ..long }, Effort { seconds: 0.02, ..long }, Effort { done: 0, ..long }];
        for effort in short {
            let auto = auto();
            assert_eq!(consider(&auto, 7001, &effort, 0.0), 0, "{effort:?}");
            assert!(matches!(auto.stage(), Stage::Untried));
        }
        let first = auto();
        let measured = consider(&first, 7001, &long, 0.0);
        let name = |auto: &Auto| {
            let fingerprint = lock(&auto.state).model.fingerprint;
            format!("{fingerprint:016x}-f32-{}-1", auto.cpu.kernels().name())
        };
        let text = block_on(remembered(&name(&first))).expect("kept");
        let costs: Costs = serde_json::from_str(&text).expect("JSON");
        match (first.stage(), costs.crossover()) {
            (Stage::Tried { from, .. }, Some(crossover)) => assert_eq!(from, crossover),
            (Stage::Off, None) => {}
            _ => panic!("not what was measured: {costs:?}"),
        }
        assert!(first.warnings().is_empty() && measured >= 8, "{measured}");
        // The same model again.
        let faster = Costs { cpu: Cost { batch: 0.0, token: 1.0 }, ..costs.clone() };
        block_on(remember(&name(&first), &serde_json::to_string(&faster).expect("JSON")));
        let second = auto();
        assert_eq!(consider(&second, 7001, &Effort { done: 0, ..long }, 0.0), 2);
        assert!(matches!(second.stage(), Stage::Tried { .. }) && name(&second) == name(&first));
        let slower = Costs { cpu: Cost { batch: 0.0, token: 0.0 }, ..costs };
        block_on(remember(&name(&first), &serde_json::to_string(&slower).expect("JSON")));
        assert_eq!(consider(&auto(), 7001, &long, 0.0), 0);
        // One that computes something else.
        let wrong = auto();
        consider(&wrong, 7002, &long, 1e9);
        let warnings = wrong.warnings();
        assert!(
            matches!(wrong.stage(), Stage::Off) && warnings.len() == 1 && warnings[0].contains("cosine"),
            "{warnings:?}"
        );
        assert_eq!(block_on(remembered(&name(&wrong))), None);
    }

    #[test]
    fn a_batch_goes_to_the_faster_one() {
        let costs = |cpu: [f64; 2], gpu: [f64; 2]| Costs {
            gpu_name: String::new(),
            cpu: Cost::of(cpu[0], cpu[1]),
            gpu: Cost::of(gpu[0], gpu[1]),
        };
        // 1 ms a token, and 16 ms with 0.1 ms a token: equal at 16 / 0.9.
        let both = costs([0.016, 0.512], [0.0176, 0.0672]);
        assert_eq!(both.crossover(), Some(18));
        assert!((both.saved(10_000) - (10.0 - 1.016)).abs() < 1e-9);
        assert!(costs([0.016, 0.512], [0.001, 0.001]).crossover() <= Some(1));
        let never = costs([0.016, 0.512], [0.02, 0.9]);
        assert_eq!((never.crossover(), never.saved(1_000_000)), (None, 0.0));
    }
}
