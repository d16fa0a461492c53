//! The processor's inner loops.
//!
//! Each is written once, over the vectors of [`lanes`], and compiled for every instruction set that pays ([`sets`]). [`Kernels`] is
//! the safe side: slices in, slices out, work shared between the threads of a [`Pool`](pool::Pool). Whatever it is shared by, a result is the same.

mod aligned;
mod attention;
mod lanes;
mod math;
mod matmul_f32;
mod matmul_int8;
mod norm;
mod packed;
pub mod pool;
mod pooling;
#[cfg(test)]
pub(crate) mod reference;
mod sets;
#[cfg(test)]
mod tests;
mod tiles;

pub use aligned::{Aligned, Number};
pub use packed::{Matrix, Unpacked};

use std::{cell::RefCell, ops::Range, ptr};

use attention::Head;
use matmul_f32::F32Product;
use matmul_int8::{Int8Product, Quantized};
use packed::Form;
use pool::Pool;
use sets::Set;
use tiles::{Block, GROUP, Target};

/// The function applied to the output of a linear map.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activation {
    None,
    /// `x/2 (1 + erf(x/√2))`, the exact form.
    Gelu,
    /// The tanh approximation that configurations call `gelu_new` or `gelu_pytorch_tanh`.
    GeluTanh,
    Relu,
    /// `x / (1 + exp(-x))`, also called swish.
    Silu,
    Tanh,
    /// `1 / (1 + exp(-x))`.
    Sigmoid,
    /// `x` above zero, `x / 100` below.
    LeakyRelu,
    /// `x tanh(ln(1 + exp(x)))`.
    Mish,
}

/// A half of a gated map's output columns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Half {
    First,
    Second,
}

/// What a norm computes before gain and bias.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NormKind {
    /// `(x - mean) / sqrt(variance + epsilon)`, biased variance.
    Layer,
    /// `x / sqrt(mean(x²) + epsilon)`.
    Rms,
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

pub use norm::Norm;
pub use pooling::pool;

/// Rows of activations that a thread takes through a product at a time: they stay in its second cache while the weights pass.
const ROWS: usize = 60;

/// Fewest values for which a pass over memory is shared between threads.
const SHARED: usize = 1 << 15;

/// Rows of a table that [`Kernels::vocab_max`] multiplies at a time.
const WORDS: usize = 64;

/// The instruction set in use, and the threads.
#[derive(Debug, Clone)]
pub struct Kernels {
    set: &'static Set,
    pool: Pool,
}

/// One text's attention: how many heads of which width, and what else [`Kernels::attention`] needs to know of them.
pub struct Heads<'a> {
    pub count: usize,
    pub width: usize,
    pub scale: f32,
    /// Cosines and sines, `[positions, width / 2]`, of at least as many positions as the longest text has tokens.
    pub rotary: Option<(&'a [f32], &'a [f32])>,
    pub window: Option<usize>,
    /// For each head what is added to scores, by the distance of key from query plus `reach`.
    pub bias: Option<Distances<'a>>,
}

/// Numbers by head and distance.
#[derive(Clone, Copy)]
pub struct Distances<'a> {
    /// `[heads, stride]`.
    pub values: &'a [f32],
    /// Distances go from `-reach` to `reach`.
    pub reach: usize,
}

impl Distances<'_> {
    /// Numbers of a head: its distances, and room for a vector to be read at the last one.
    pub fn stride(reach: usize) -> usize {
        2 * reach + 1 + tiles::MOST_COLUMNS
    }
}

/// A table by rows, as [`Kernels::vocab_max`] reads it.
#[derive(Clone, Copy)]
pub enum Words<'a> {
    /// As they are multiplied.
    F32(&'a [f32]),
    /// Any other form that can give a row as f32.
    Rows(&'a (dyn Fn(usize, &mut [f32]) + Sync)),
    /// Eight bits with a scale per row.
    Int8 { values: &'a [i8], scales: &'a [f32] },
}

/// A pointer that threads may share: each writes to a part of its own.
#[derive(Clone, Copy)]
struct Shared<T>(*mut T);

// SAFETY: whoever uses it says why parts are disjoint.
unsafe impl<T> Send for Shared<T> {}
// SAFETY: as above.
unsafe impl<T> Sync for Shared<T> {}

impl<T> Shared<T> {
    fn get(&self) -> *mut T {
        self.0
    }
}

/// What a thread works in; kept, so that nothing is allocated once it is large enough.
#[derive(Default)]
struct Room {
    floats: Aligned<f32>,
    bytes: Aligned<u8>,
    rows: Vec<Quantized>,
    /// Of the thread that calls: activations in panels, which all read.
    panels: Aligned<f32>,
}

thread_local! {
    static ROOM: RefCell<Room> = RefCell::default();
}

/// Runs with this thread's room.
fn with_room<T>(run: impl FnOnce(&mut Room) -> T) -> T {
    ROOM.with(|room| match room.try_borrow_mut() {
        Ok(mut room) => run(&mut room),
        // A kernel inside a kernel: none does that, but if one did it would be right all the same.
        Err(_) => run(&mut Room::default()),
    })
}

/// The larger one, and NaN where either is.
fn larger(most: f32, value: f32) -> f32 {
    if value <= most || most.is_nan() { most } else { value }
}

/// A thread's room of `count` floats.
fn floats(room: &mut Aligned<f32>, count: usize) -> &mut [f32] {
    if room.len() < count {
        assert!(room.resize(count), "no memory for {count} values");
    }
    &mut room[..count]
}

/// Activations of a block of rows, as a product reads them.
enum Input {
    F32 { start: *const f32, stride: usize },
    Int8 { start: *const u8, rows: *const Quantized },
}

impl Kernels {
    /// The best instruction set of this processor.
    pub fn new(pool: Pool) -> Self {
        Self { set: sets::best(), pool }
    }

    /// The name of the instruction set.
    pub fn name(&self) -> &'static str {
        self.set.name
    }

    pub fn pool(&self) -> &Pool {
        &self.pool
    }

    /// `y = activation(x Wᵀ + b)`, rows of `x` and `y` one after the other.
    pub fn linear(&self, x: &[f32], matrix: &Matrix, bias: Option<&[f32]>, activation: Activation, y: &mut [f32]) {
        let rows = self.check(x, matrix, bias, y.len(), matrix.outputs);
        let outputs = matrix.outputs;
        let target = Shared(y.as_mut_ptr());
        self.blocks(rows, outputs.div_ceil(self.columns(matrix)), &|rows, panels| {
            let columns = self.columns_of(matrix, &panels);
            with_room(|room| {
                // SAFETY: `check` compared all lengths; blocks of rows and columns are disjoint.
                unsafe {
                    let input = self.input(x, &rows, matrix, &mut room.bytes, &mut room.rows);
                    let block = Block {
                        rows: rows.len(),
                        columns: columns.len(),
                        y: Target { start: target.get().add(rows.start * outputs + columns.start), stride: outputs },
                        bias: bias.map_or(ptr::null(), |bias| bias[columns.start..].as_ptr()),
                        activation,
                    };
                    self.product(&input, matrix, panels, &block, &mut room.floats);
                }
            });
        });
    }

    /// The product of the two halves of `x Wᵀ + b`, the activation being applied to one of them.
    pub fn gated(
        &self,
        x: &[f32],
        matrix: &Matrix,
        bias: Option<&[f32]>,
        activation: Activation,
        activated: Half,
        y: &mut [f32],
    ) {
        let width = matrix.outputs / 2;
        let rows = self.check(x, matrix, bias, y.len(), width);
        let panel = self.columns(matrix);
        let aligned = width.is_multiple_of(panel);
        let target = Shared(y.as_mut_ptr());
        // Where a panel has columns of both halves, each block of rows computes all of them.
        let panels = if aligned { width / panel } else { 1 };
        self.blocks(rows, panels, &|rows, panels| {
            let columns = if aligned { panels.start * panel..panels.end * panel } else { 0..width };
            with_room(|room| {
                let Room { floats: room, bytes, rows: scales, .. } = room;
                let (count, wide) = (rows.len(), columns.len());
                let mut halves = Aligned::default();
                std::mem::swap(&mut halves, room);
                floats(&mut halves, 2 * count * wide);
                // SAFETY: `check` compared all lengths; blocks of rows and columns are disjoint.
                unsafe {
                    let input = self.input(x, &rows, matrix, bytes, scales);
                    let mut compute = |panels: Range<usize>, columns: Range<usize>, start: usize, stride: usize| {
                        let block = Block {
                            rows: count,
                            columns: columns.len(),
                            y: Target { start: halves.as_mut_ptr().add(start), stride },
                            bias: bias.map_or(ptr::null(), |bias| bias[columns.start..].as_ptr()),
                            activation: Activation::None,
                        };
                        self.product(&input, matrix, panels, &block, room);
                    };
                    if aligned {
                        let second = width / panel;
                        compute(panels.clone(), columns.clone(), 0, 2 * wide);
                        let columns = columns.start + width..columns.end + width;
                        compute(panels.start + second..panels.end + second, columns, wide, 2 * wide);
                    } else {
                        compute(0..matrix.outputs.div_ceil(panel), 0..matrix.outputs, 0, 2 * wide);
                    }
                    for (row, both) in halves[..2 * count * wide].chunks_exact_mut(2 * wide.max(1)).enumerate() {
                        let (first, second) = both.split_at_mut(wide);
                        let to = target.get().add((rows.start + row) * width + columns.start);
                        let to = std::slice::from_raw_parts_mut(to, wide);
                        let half = if activated == Half::First { &mut *first } else { &mut *second };
                        (self.set.activate)(half.as_mut_ptr(), wide, activation);
                        to.iter_mut().zip(first.iter().zip(&*second)).for_each(|(to, (a, b))| *to = a * b);
                    }
                }
                std::mem::swap(&mut halves, room);
            });
        });
    }

    /// Dot-product attention within each span of a `[tokens, 3 heads width]` tensor that holds q, k and v side by side.
    pub fn attention(&self, qkv: &[f32], spans: &[Range<usize>], heads: &Heads, y: &mut [f32]) {
        let inner = heads.count * heads.width;
        let stride = 3 * inner;
        let tokens = qkv.len() / stride.max(1);
        assert!(qkv.len() == tokens * stride && y.len() == tokens * inner, "attention: shapes");
        assert!(spans.iter().all(|span| span.start <= span.end && span.end <= tokens), "attention: spans");
        let longest = spans.iter().map(Range::len).max().unwrap_or(0);
        if let Some((cosines, sines)) = heads.rotary {
            let needed = longest * (heads.width / 2);
            assert!(cosines.len() >= needed && sines.len() >= needed, "attention: rotations");
        }
        if let Some(bias) = heads.bias {
            let needed = heads.count * Distances::stride(bias.reach);
            assert!(bias.values.len() >= needed && bias.reach + 1 >= longest, "attention: bias");
        }
        let target = Shared(y.as_mut_ptr());
        self.pool.run(spans.len() * heads.count, &|part| {
            let (span, head) = (&spans[part / heads.count], part % heads.count);
            let column = head * heads.width;
            // SAFETY: all lengths were compared above; each part is a head of a text, which overlap with no other.
            unsafe {
                let q = qkv.as_ptr().add(span.start * stride + column);
                let bias =
                    heads.bias.map(|bias| bias.values.as_ptr().add(head * Distances::stride(bias.reach) + bias.reach));
                let head = Head {
                    q,
                    k: q.add(inner),
                    v: q.add(2 * inner),
                    stride,
                    length: span.len(),
                    width: heads.width,
                    scale: heads.scale,
                    rotary: heads.rotary.map(|(cosines, sines)| (cosines.as_ptr(), sines.as_ptr())),
                    window: heads.window,
                    bias,
                    y: Target { start: target.get().add(span.start * inner + column), stride: inner },
                };
                with_room(|room| {
                    let count = attention::room(span.len(), heads.width, self.set.tall, self.set.columns);
                    (self.set.attend)(&head, floats(&mut room.floats, count).as_mut_ptr());
                });
            }
        });
    }

    /// `x = norm(x + residual)`, row by row.
    pub fn add_norm(&self, x: &mut [f32], residual: Option<&[f32]>, norm: &Norm) {
        let width = norm.gain.len();
        let rows = x.len() / width.max(1);
        assert!(x.len() == rows * width && norm.bias.is_none_or(|bias| bias.len() == width), "norm: shapes");
        assert!(residual.is_none_or(|residual| residual.len() == x.len()), "norm: shapes");
        let target = Shared(x.as_mut_ptr());
        self.passes(rows, width, &|rows| {
            for row in rows {
                // SAFETY: lengths were compared above; rows are disjoint.
                unsafe {
                    let x = target.get().add(row * width);
                    let residual = residual.map_or(ptr::null(), |residual| residual[row * width..].as_ptr());
                    (self.set.norm)(x, residual, x, norm);
                }
            }
        });
    }

    /// `y = norm(x)`, row by row.
    pub fn norm(&self, x: &[f32], norm: &Norm, y: &mut [f32]) {
        let width = norm.gain.len();
        let rows = x.len() / width.max(1);
        assert!(x.len() == rows * width && norm.bias.is_none_or(|bias| bias.len() == width), "norm: shapes");
        assert!(y.len() == x.len(), "norm: shapes");
        let target = Shared(y.as_mut_ptr());
        self.passes(rows, width, &|rows| {
            for row in rows {
                // SAFETY: lengths were compared above; rows are disjoint.
                unsafe {
                    let y = target.get().add(row * width);
                    (self.set.norm)(x[row * width..].as_ptr(), ptr::null(), y, norm);
                }
            }
        });
    }

    /// `x += y`.
    pub fn add(&self, x: &mut [f32], y: &[f32]) {
        assert!(x.len() == y.len(), "add: shapes");
        x.iter_mut().zip(y).for_each(|(x, y)| *x += y);
    }

    /// For each span and each of `count` words the largest product with a row of the span, plus the word's bias: `[spans, count]`.
    /// No span may be empty.
    pub fn vocab_max(
        &self,
        x: &[f32],
        width: usize,
        words: Words,
        count: usize,
        bias: Option<&[f32]>,
        spans: &[Range<usize>],
        y: &mut [f32],
    ) {
        let tokens = x.len() / width.max(1);
        assert!(x.len() == tokens * width && y.len() == spans.len() * count, "vocab_max: shapes");
        assert!(bias.is_none_or(|bias| bias.len() == count), "vocab_max: bias");
        assert!(spans.iter().all(|span| !span.is_empty() && span.end <= tokens), "vocab_max: spans");
        match words {
            Words::F32(values) => {
                assert!(values.len() == count * width, "vocab_max: words");
                self.largest_of_floats(x, width, &|words, _| values[words.start * width..].as_ptr(), count, spans, y);
            }
            Words::Rows(read) => {
                let rows = |words: Range<usize>, room: &mut [f32]| {
                    room.chunks_exact_mut(width.max(1)).zip(words).for_each(|(row, word)| read(word, row));
                    room.as_ptr()
                };
                self.largest_of_floats(x, width, &rows, count, spans, y);
            }
            Words::Int8 { values, scales } => {
                assert!(values.len() == count * width && scales.len() == count, "vocab_max: words");
                self.largest_of_bytes(x, width, values, scales, spans, y);
            }
        }
        if let Some(bias) = bias {
            // Rounding is monotone: the bias may as well be added once, after the maximum.
            y.chunks_exact_mut(count.max(1)).for_each(|y| y.iter_mut().zip(bias).for_each(|(y, bias)| *y += bias));
        }
    }

    /// The largest products with words as the rows and tokens as the columns: there are fewer of those to pack, and a table is read
    /// front to back. `rows` says where some words lie, and may write them into the room of as many rows.
    fn largest_of_floats(
        &self,
        x: &[f32],
        width: usize,
        rows: &(dyn Fn(Range<usize>, &mut [f32]) -> *const f32 + Sync),
        count: usize,
        spans: &[Range<usize>],
        y: &mut [f32],
    ) {
        let (tokens, columns) = (x.len() / width.max(1), self.set.columns);
        let mut panels = with_room(|room| std::mem::take(&mut room.panels));
        packed::pack(x, tokens, width, columns, 1, floats(&mut panels, tokens.next_multiple_of(columns) * width));
        let target = Shared(y.as_mut_ptr());
        self.pool.run(count.div_ceil(WORDS), &|part| {
            let words = part * WORDS..((part + 1) * WORDS).min(count);
            let here = words.len();
            with_room(|room| {
                let (room, products) = floats(&mut room.floats, here * (width + tokens)).split_at_mut(here * width);
                let x = rows(words.clone(), room);
                let product = F32Product {
                    inputs: width,
                    x,
                    stride: width,
                    panels: panels.as_ptr(),
                    panel_stride: width * columns,
                };
                let block = Block {
                    rows: here,
                    columns: tokens,
                    y: Target { start: products.as_mut_ptr(), stride: tokens },
                    bias: ptr::null(),
                    activation: Activation::None,
                };
                // SAFETY: there are as many rows as words, as many panels as tokens need, and room for their products.
                unsafe { (self.set.f32)(&product, &block) };
                for (word, products) in words.zip(products.chunks_exact(tokens.max(1))) {
                    for (index, span) in spans.iter().enumerate() {
                        let most =
                            products[span.clone()].iter().fold(f32::NEG_INFINITY, |most, &value| larger(most, value));
                        // SAFETY: each part writes its own words of each row.
                        unsafe { *target.get().add(index * count + word) = most };
                    }
                }
            });
        });
        with_room(|room| room.panels = panels);
    }

    /// The largest products with words as the columns, which are packed as they come: weights of eight bits are on that side.
    fn largest_of_bytes(
        &self,
        x: &[f32],
        width: usize,
        values: &[i8],
        scales: &[f32],
        spans: &[Range<usize>],
        y: &mut [f32],
    ) {
        let count = scales.len();
        let target = Shared(y.as_mut_ptr());
        self.pool.run(count.div_ceil(WORDS), &|part| {
            let words = part * WORDS..((part + 1) * WORDS).min(count);
            let here = words.len();
            let packed = &values[words.start * width..words.end * width];
            let matrix = self.matrix_int8(here, width, packed, &scales[words.clone()]);
            let matrix = matrix.unwrap_or_else(|| panic!("no memory for {here} words"));
            let mut products = vec![0.0; ROWS * here];
            for (index, span) in spans.iter().enumerate() {
                // SAFETY: each part writes its own words of each row.
                let most =
                    unsafe { std::slice::from_raw_parts_mut(target.get().add(index * count + words.start), here) };
                most.fill(f32::NEG_INFINITY);
                for start in span.clone().step_by(ROWS) {
                    let rows = start..(start + ROWS).min(span.end);
                    let products = &mut products[..rows.len() * here];
                    with_room(|room| {
                        // SAFETY: lengths were compared by the caller.
                        unsafe {
                            let input = self.input(x, &rows, &matrix, &mut room.bytes, &mut room.rows);
                            let block = Block {
                                rows: rows.len(),
                                columns: here,
                                y: Target { start: products.as_mut_ptr(), stride: here },
                                bias: ptr::null(),
                                activation: Activation::None,
                            };
                            let panels = 0..here.div_ceil(self.columns(&matrix));
                            self.product(&input, &matrix, panels, &block, &mut room.floats);
                        }
                    });
                    for row in products.chunks_exact(here) {
                        most.iter_mut().zip(row).for_each(|(most, &value)| *most = larger(*most, value));
                    }
                }
            }
        });
    }

    /// How many rows `x` has, after comparing all lengths of a product.
    fn check(&self, x: &[f32], matrix: &Matrix, bias: Option<&[f32]>, y: usize, width: usize) -> usize {
        let rows = x.len() / matrix.inputs.max(1);
        assert!(x.len() == rows * matrix.inputs && y == rows * width, "linear: shapes");
        assert!(bias.is_none_or(|bias| bias.len() == matrix.outputs), "linear: bias");
        assert!(ptr::eq(matrix.set, self.set), "linear: packed for {}", matrix.set.name);
        rows
    }

    /// Columns of a panel of this matrix.
    fn columns(&self, matrix: &Matrix) -> usize {
        match matrix.form {
            Form::Int8 { .. } => self.set.int8_columns,
            _ => self.set.columns,
        }
    }

    /// The output channels of some panels.
    fn columns_of(&self, matrix: &Matrix, panels: &Range<usize>) -> Range<usize> {
        let width = self.columns(matrix);
        panels.start * width..(panels.end * width).min(matrix.outputs)
    }

    /// Shares blocks of rows and panels between the threads.
    fn blocks(&self, rows: usize, panels: usize, task: &(dyn Fn(Range<usize>, Range<usize>) + Sync)) {
        let row_blocks = rows.div_ceil(ROWS);
        // At least two parts a thread, so that one that was held up does not hold up all.
        let wanted = if self.pool.threads() == 1 { 1 } else { 2 * self.pool.threads() };
        let splits = wanted.div_ceil(row_blocks.max(1)).min(panels.div_ceil(GROUP)).max(1);
        self.pool.run(row_blocks * splits, &|part| {
            let (block, split) = (part / splits, part % splits);
            let panels = panels * split / splits..panels * (split + 1) / splits;
            if !panels.is_empty() {
                task(block * ROWS..((block + 1) * ROWS).min(rows), panels);
            }
        });
    }

    /// Shares rows between the threads, where that pays.
    fn passes(&self, rows: usize, width: usize, task: &(dyn Fn(Range<usize>) + Sync)) {
        if rows * width < SHARED || self.pool.threads() == 1 {
            return task(0..rows);
        }
        self.pool.run(rows.div_ceil(ROWS), &|part| task(part * ROWS..((part + 1) * ROWS).min(rows)));
    }

    /// Rows of activations in the form in which this matrix multiplies them.
    ///
    /// # Safety
    /// The rows must lie within `x`, in rows of the matrix's inputs. What is given out lives as long as `x` and the room are left alone.
    unsafe fn input(
        &self,
        x: &[f32],
        rows: &Range<usize>,
        matrix: &Matrix,
        bytes: &mut Aligned<u8>,
        scales: &mut Vec<Quantized>,
    ) -> Input {
        let inputs = matrix.inputs;
        let start = x[rows.start * inputs..rows.end * inputs].as_ptr();
        let Form::Int8 { padded, .. } = matrix.form else {
            return Input::F32 { start, stride: inputs };
        };
        let size = padded * self.set.activation_bytes;
        if bytes.len() < rows.len() * size {
            assert!(bytes.resize(rows.len() * size), "no memory for {} rows", rows.len());
        }
        scales.clear();
        for row in 0..rows.len() {
            // SAFETY: the row lies within `x`, and there is room for it.
            scales.push(unsafe {
                (self.set.quantize)(start.add(row * inputs), inputs, bytes.as_mut_ptr().add(row * size), padded)
            });
        }
        Input::Int8 { start: bytes.as_ptr(), rows: scales.as_ptr() }
    }

    /// A block's product with some panels of a matrix.
    ///
    /// # Safety
    /// The input must have the block's rows, the matrix the panels, of which the block has the columns, and `y` and the bias must be valid for it.
    unsafe fn product(
        &self,
        input: &Input,
        matrix: &Matrix,
        panels: Range<usize>,
        block: &Block,
        room: &mut Aligned<f32>,
    ) {
        let width = self.columns(matrix);
        let inputs = matrix.inputs;
        // SAFETY: the caller's promise.
        unsafe {
            match (&matrix.form, input) {
                (Form::F32(values), &Input::F32 { start, stride }) => {
                    let panel_stride = inputs * width;
                    let values = values[panels.start * panel_stride..panels.end * panel_stride].as_ptr();
                    let product = F32Product { inputs, x: start, stride, panels: values, panel_stride };
                    (self.set.f32)(&product, block);
                }
                (Form::F16(values), &Input::F32 { start, stride }) => {
                    // Some panels at a time are widened, and then serve all rows of the block.
                    let panel_stride = inputs * width;
                    for first in panels.clone().step_by(GROUP) {
                        let count = GROUP.min(panels.end - first);
                        let narrow = &values[first * panel_stride..(first + count) * panel_stride];
                        let wide = floats(room, count * panel_stride);
                        (self.set.widen)(narrow.as_ptr(), wide.as_mut_ptr(), narrow.len());
                        let column = (first - panels.start) * width;
                        let product = F32Product { inputs, x: start, stride, panels: wide.as_ptr(), panel_stride };
                        let bias = if block.bias.is_null() { block.bias } else { block.bias.add(column) };
                        let y = Target { start: block.y.start.add(column), ..block.y };
                        let columns = (block.columns - column).min(count * width);
                        (self.set.f32)(&product, &Block { columns, y, bias, ..*block });
                    }
                }
                (Form::Int8 { values, sums, scales, padded }, &Input::Int8 { start, rows }) => {
                    let column = panels.start * width;
                    let product = Int8Product {
                        inputs: *padded,
                        x: start,
                        rows,
                        panels: values[column * padded..panels.end * width * padded].as_ptr(),
                        column_sums: sums[column..panels.end * width].as_ptr(),
                        column_scales: scales[column..panels.end * width].as_ptr(),
                    };
                    (self.set.int8)(&product, block);
                }
                _ => unreachable!("inputs are made for the matrix"),
            }
        }
    }
}
