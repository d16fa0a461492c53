//! Quantised numbers in blocks to a tensor's values, some blocks at a time. The arithmetic is candle's.

use candle_core::quantized::{GgmlType, k_quants as blocks};

use crate::{
    error::Result,
    weights::{Collector, Dtype, Values},
};

/// Values that are decoded at a time; a multiple of every block.
const STEP: usize = 1 << 14;
/// What candle's blocks must be aligned to in memory, where it reads them.
const ALIGNMENT: usize = 8;

/// A type of blocks: the values and bytes of one, and candle's function for them. Going through candle's tensors instead would bring
/// its products into the page, with Rayon and all.
#[derive(Clone, Copy)]
pub struct Kind {
    values: usize,
    bytes: usize,
    widen: fn(&[u8], &mut [f32]),
}

impl Kind {
    const fn of<B: GgmlType>() -> Self {
        assert!(STEP.is_multiple_of(B::BLCK_SIZE) && align_of::<B>() <= ALIGNMENT);
        Self { values: B::BLCK_SIZE, bytes: size_of::<B>(), widen: widen::<B> }
    }

    /// A type by its number in the format.
    pub fn named(kind: u32) -> Option<Self> {
        Some(match kind {
            2 => const { Self::of::<blocks::BlockQ4_0>() },
            3 => const { Self::of::<blocks::BlockQ4_1>() },
            6 => const { Self::of::<blocks::BlockQ5_0>() },
            7 => const { Self::of::<blocks::BlockQ5_1>() },
            8 => const { Self::of::<blocks::BlockQ8_0>() },
            10 => const { Self::of::<blocks::BlockQ2K>() },
            11 => const { Self::of::<blocks::BlockQ3K>() },
            12 => const { Self::of::<blocks::BlockQ4K>() },
            13 => const { Self::of::<blocks::BlockQ5K>() },
            14 => const { Self::of::<blocks::BlockQ6K>() },
            _ => return None,
        })
    }
}

/// Whole blocks from an aligned place to their values.
#[allow(unsafe_code, reason = "candle has no safe way from bytes to its blocks but its tensors")]
fn widen<B: GgmlType>(raw: &[u8], values: &mut [f32]) {
    // SAFETY: the types above are `repr(C)` of u8, i8 and f16 without gaps, so that any bytes are some block.
    let (before, blocks, after) = unsafe { raw.align_to::<B>() };
    assert!(before.is_empty() && after.is_empty());
    B::to_float(blocks, values);
}

/// Decodes one tensor while its blocks arrive.
pub struct Blocks {
    kind: Kind,
    collector: Collector,
    /// Room for the blocks of a step, from the first aligned place on.
    raw: Vec<u8>,
    start: usize,
    filled: usize,
    values: Vec<f32>,
}

impl Blocks {
    /// For so many values in rows of `width`, of which the first `zeros` are no part of the file.
    pub fn new(name: &str, kind: Kind, wanted: Dtype, width: usize, count: u64, zeros: usize) -> Result<Self> {
        let mut collector = Collector::new(name, wanted, width, count)?;
        for from in (0..zeros).step_by(STEP) {
            collector.push(&vec![0.0; STEP.min(zeros - from)])?;
        }
        let raw = vec![0; STEP / kind.values * kind.bytes + ALIGNMENT];
        let start = raw.as_ptr().align_offset(ALIGNMENT).min(ALIGNMENT);
        Ok(Self { kind, collector, raw, start, filled: 0, values: vec![0.0; STEP] })
    }

    /// Takes the next bytes.
    pub fn push(&mut self, mut bytes: &[u8]) -> Result<()> {
        let room = self.raw.len() - ALIGNMENT;
        while !bytes.is_empty() {
            let taken;
            (taken, bytes) = bytes.split_at((room - self.filled).min(bytes.len()));
            let at = self.start + self.filled;
            self.raw[at..at + taken.len()].copy_from_slice(taken);
            self.filled += taken.len();
            if self.filled == room {
                self.decode()?;
            }
        }
        Ok(())
    }

    /// The values, once all bytes were pushed.
    pub fn finish(mut self) -> Result<Values> {
        self.decode()?;
        Ok(self.collector.finish())
    }

    fn decode(&mut self) -> Result<()> {
        let blocks = self.filled / self.kind.bytes;
        let values = &mut self.values[..blocks * self.kind.values];
        (self.kind.widen)(&self.raw[self.start..self.start + blocks * self.kind.bytes], values);
        self.filled = 0;
        self.collector.push(values)
    }
}
