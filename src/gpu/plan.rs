//! What to run, as plain data: the cut of a product into tiles, of a matrix into bindings, of a batch into workgroups.

use std::ops::Range;

/// Most workgroups of a dispatch in one dimension, everywhere.
pub const MOST_WORKGROUPS: usize = 65_535;

/// Fewest and most tokens of a batch of several texts. With few a GPU waits for the host; with more than these it was busy in every report of
/// a peer, and a caller who asks to stop waits for longer.
const BATCH_TOKENS: Range<usize> = 1024..16_384;

/// Products of two numbers in a batch. A GPU of a phone does some 1e12 a second: so a batch is well below the two seconds after which systems take a GPU
/// for hung.
const BATCH_PRODUCTS: u64 = 100_000_000_000;

/// Most tokens of a batch of several texts, for a model of so many weights in matrices, the widest of which takes or gives `widest` numbers a token, where
/// a binding holds `limit` bytes.
pub fn batch_tokens(weights: usize, widest: usize, limit: u64) -> usize {
    let bound = (limit / (4 * stride(widest.max(1)) as u64)) as usize;
    let tokens = (BATCH_PRODUCTS / weights.max(1) as u64).min(BATCH_TOKENS.end as u64) as usize;
    tokens.max(BATCH_TOKENS.start).min(bound.max(1))
}

/// Queries that a workgroup of the attention kernel takes.
pub const QUERIES: usize = 64;

/// Poolings that the pooling kernel lays side by side.
pub const MOST_POOLINGS: usize = 8;

/// The form of a matrix in the device's memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Form {
    F32,
    F16,
    Int8,
}

impl Form {
    pub const ALL: [Form; 3] = [Form::F32, Form::F16, Form::Int8];

    /// The name that shaders use.
    pub const fn name(self) -> &'static str {
        match self {
            Form::F32 => "f32",
            Form::F16 => "f16",
            Form::Int8 => "int8",
        }
    }

    /// Bytes of four values.
    pub const fn bytes_of_four(self) -> usize {
        match self {
            Form::F32 => 16,
            Form::F16 => 8,
            Form::Int8 => 4,
        }
    }
}

/// How much of a product a workgroup computes. Sums are the same bits in each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Tile {
    /// 64 rows of 64 columns: fewest reads for each product.
    Large,
    /// 16 rows of 64 columns: more workgroups where there are few rows, and fewer waits for each.
    Small,
}

/// Workgroups below which a product is cut into small tiles: so many keep a GPU of average size busy.
const BUSY: usize = 64;

impl Tile {
    pub const ALL: [Tile; 2] = [Tile::Large, Tile::Small];

    /// Rows of a thread, threads across and threads down.
    pub const fn shape(self) -> (usize, usize, usize) {
        match self {
            Tile::Large => (8, 8, 8),
            Tile::Small => (2, 8, 8),
        }
    }

    /// Blocks of four inputs that stand in workgroup memory at a time.
    pub const fn blocks(self) -> usize {
        match self {
            Tile::Large => 4,
            Tile::Small => 8,
        }
    }

    pub const fn rows(self) -> usize {
        let (rows, _, down) = self.shape();
        rows * down
    }

    pub const fn columns(self) -> usize {
        let (_, across, _) = self.shape();
        8 * across
    }

    /// What stands for `{{NAME}}` in a product with weights in a form, computed in some precision.
    fn constants(self, form: Form, number: &str) -> Vec<(&'static str, String)> {
        let (rows, across, down) = self.shape();
        let numbers = [("ROWS", rows), ("THREADS_X", across), ("THREADS_Y", down), ("BLOCKS", self.blocks())];
        let names = [("FORM", form.name()), ("NUMBER", number)].map(|(name, value)| (name, value.to_owned()));
        numbers.map(|(name, number)| (name, number.to_string())).into_iter().chain(names).collect()
    }

    /// The one for a product of so many columns, both halves of a gated map counted.
    pub fn for_product(rows: usize, columns: usize) -> Self {
        let large = rows.div_ceil(Tile::Large.rows()) * columns.div_ceil(Tile::Large.columns());
        if large >= BUSY && rows > Tile::Small.rows() { Tile::Large } else { Tile::Small }
    }

    /// The one for texts of which the longest has so many tokens, each of which a workgroup takes through its columns alone.
    pub fn for_texts(longest: usize) -> Self {
        if longest > 2 * Tile::Small.rows() { Tile::Large } else { Tile::Small }
    }
}

/// A kernel with the constants that it is compiled for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kernel {
    Linear(Form, Tile),
    /// The same with weights in half precision, and products in it too, where the device has `shader-f16`.
    LinearHalf(Tile),
    VocabMax(Form, Tile),
    /// With the components of a head, rounded up.
    Attention(usize),
    Norm,
    Add,
    Gate,
    Pool,
    Compact,
    /// Runs in no model: it tells what the device can do.
    Peak,
}

/// Components of a head that attention is compiled for.
pub const HEAD_WIDTHS: [usize; 5] = [8, 16, 32, 64, 128];

impl Kernel {
    /// Attention with heads of so many components, unless there are too many.
    pub fn attention(head_width: usize) -> Option<Self> {
        HEAD_WIDTHS.into_iter().find(|&width| head_width <= width).map(Kernel::Attention)
    }

    /// Every kernel that there is.
    pub fn all() -> Vec<Self> {
        let products = Form::ALL.into_iter().flat_map(|form| Tile::ALL.map(|tile| (form, tile)));
        products
            .flat_map(|(form, tile)| [Kernel::Linear(form, tile), Kernel::VocabMax(form, tile)])
            .chain(Tile::ALL.map(Kernel::LinearHalf))
            .chain(HEAD_WIDTHS.map(Kernel::Attention))
            .chain([Kernel::Norm, Kernel::Add, Kernel::Gate, Kernel::Pool, Kernel::Compact, Kernel::Peak])
            .collect()
    }

    /// Whether it computes in half precision.
    pub const fn is_half(self) -> bool {
        matches!(self, Kernel::LinearHalf(_))
    }

    /// Its file, and its row in a table of times.
    pub const fn name(self) -> &'static str {
        match self {
            Kernel::Linear(..) | Kernel::LinearHalf(_) => "linear",
            Kernel::VocabMax(..) => "vocab_max",
            Kernel::Attention(_) => "attention",
            Kernel::Norm => "norm",
            Kernel::Add => "add",
            Kernel::Gate => "gate",
            Kernel::Pool => "pool",
            Kernel::Compact => "compact",
            Kernel::Peak => "peak",
        }
    }

    /// How many buffers it reads, and how many it writes, in the order of their bindings after the parameters.
    pub const fn bindings(self) -> (usize, usize) {
        match self {
            Kernel::Linear(..) | Kernel::LinearHalf(_) => (4, 1),
            Kernel::VocabMax(..) => (5, 1),
            Kernel::Attention(_) => (4, 1),
            Kernel::Norm => (4, 2),
            Kernel::Add => (2, 1),
            Kernel::Gate | Kernel::Compact => (1, 1),
            Kernel::Pool => (2, 1),
            Kernel::Peak => (0, 1),
        }
    }

    /// What stands for `{{NAME}}` in its source.
    pub fn constants(self) -> Vec<(&'static str, String)> {
        match self {
            Kernel::Linear(form, tile) | Kernel::VocabMax(form, tile) => tile.constants(form, "f32"),
            Kernel::LinearHalf(tile) => tile.constants(Form::F16, "f16"),
            Kernel::Attention(width) => {
                vec![("WIDTH", (width / 4).to_string())]
            }
            _ => Vec::new(),
        }
    }
}

/// Entries that are read of a row of so many logits. Few are above zero: of BERT's 30,522 a trained SPLADE leaves some hundreds.
pub fn entries(logits: usize) -> usize {
    (logits / 16).max(256)
}

/// Workgroups in each dimension.
pub type Grid = [u32; 3];

/// So many workgroups in two dimensions, since one holds too few; the last row may reach beyond, and its kernel must look.
pub fn folded(count: usize) -> [u32; 2] {
    let rows = count.div_ceil(MOST_WORKGROUPS).max(1);
    [count.div_ceil(rows) as u32, rows as u32]
}

/// Values of a row in the device's memory: kernels read and write four at a time.
pub const fn stride(width: usize) -> usize {
    width.next_multiple_of(4)
}

/// The outputs of each part of a `[outputs, inputs]` matrix, of which no part is larger than a binding of `limit` bytes. All but the last
/// are as many as a multiple of 64, so that parts begin on whole groups of columns.
pub fn parts(outputs: usize, inputs: usize, form: Form, limit: u64) -> Option<Vec<Range<usize>>> {
    let column = inputs.div_ceil(4).max(1) * form.bytes_of_four();
    let most = usize::try_from(limit).unwrap_or(usize::MAX) / column;
    if most >= outputs {
        return Some(std::iter::once(0..outputs).collect());
    }
    let step = most / 64 * 64;
    (step > 0).then(|| (0..outputs).step_by(step).map(|start| start..(start + step).min(outputs)).collect())
}

/// The tiles of attention: the text's first token, its length, and the first query.
pub fn attention_tiles(spans: &[Range<usize>]) -> Vec<[u32; 4]> {
    let tiles = |span: &Range<usize>| {
        let (start, length) = (span.start as u32, span.len() as u32);
        (0..span.len()).step_by(QUERIES).map(move |query| [start, length, query as u32, 0])
    };
    spans.iter().flat_map(tiles).collect()
}

/// Bytes that a buffer is created with for `size`: a few classes, so that batches of similar size share buffers.
pub fn capacity(size: u64) -> u64 {
    let step = (size.max(1024).next_power_of_two() / 8).max(256);
    size.next_multiple_of(step)
}

#[cfg(test)]
mod tests {
    use std::slice;

    use super::*;

    #[test]
    fn grids_hold_every_workgroup_within_the_limit() {
        for count in [1, 2, 65_535, 65_536, 131_070, 131_071, 1 << 28] {
            let [x, y] = folded(count).map(|side| side as usize);
            assert!(x * y >= count && x * y < count + y, "{count}: {x} x {y}");
            assert!(x <= MOST_WORKGROUPS && y <= MOST_WORKGROUPS, "{count}: {x} x {y}");
        }
    }

    #[test]
    fn matrices_are_cut_where_a_binding_ends() {
        let limit = 128 << 20;
        // BGE-M3's vocabulary.
        for (form, count) in [(Form::F32, 8), (Form::F16, 4), (Form::Int8, 2)] {
            let parts = parts(250_002, 1024, form, limit).expect("it fits");
            assert_eq!(parts.len(), count, "{form:?}");
            assert_eq!(parts.iter().map(Range::len).sum::<usize>(), 250_002);
            for (part, next) in parts.iter().zip(&parts[1..]) {
                assert!(part.end == next.start && part.start.is_multiple_of(64) && part.end.is_multiple_of(64));
            }
            let bytes = |part: &Range<usize>| part.len() * 256 * form.bytes_of_four();
            assert!(parts.iter().all(|part| bytes(part) as u64 <= limit));
        }
        assert_eq!(parts(384, 1536, Form::F32, limit).as_deref(), Some(slice::from_ref(&(0..384))));
        assert_eq!(parts(1 << 20, 1 << 20, Form::F32, limit), None, "not even 64 columns fit");
        assert_eq!(parts(0, 0, Form::F32, limit).as_deref(), Some(slice::from_ref(&(0..0))));
    }

    #[test]
    fn tiles_are_large_where_there_is_work_for_many() {
        assert_eq!(Tile::for_product(10, 1536), Tile::Small);
        assert_eq!(Tile::for_product(128, 384), Tile::Small);
        assert_eq!(Tile::for_product(1024, 384), Tile::Large);
        // A vocabulary alone does not fill a large tile's rows.
        assert_eq!(Tile::for_product(10, 250_002), Tile::Small);
        assert_eq!((Tile::Large.rows(), Tile::Large.columns()), (64, 64));
        assert_eq!((Tile::Small.rows(), Tile::Small.columns()), (16, 64));
    }

    #[test]
    fn attention_takes_each_query_once() {
        let tiles = attention_tiles(&[0..1, 1..1, 1..130]);
        assert_eq!(tiles, [[0, 1, 0, 0], [1, 129, 0, 0], [1, 129, 64, 0], [1, 129, 128, 0]]);
        assert_eq!(Kernel::attention(6), Some(Kernel::Attention(8)));
        assert_eq!(Kernel::attention(64), Some(Kernel::Attention(64)));
        assert_eq!(Kernel::attention(129), None);
    }

    #[test]
    fn buffers_are_little_larger_than_asked_for() {
        for size in [0, 4, 1000, 1024, 5000, 123_456, 1 << 20, 134_217_728] {
            let capacity = capacity(size);
            assert!(
                capacity >= size && capacity <= size + size / 4 + 1024 && capacity.is_multiple_of(256),
                "{size}: {capacity}"
            );
        }
    }
}
