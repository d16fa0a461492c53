//! Quantised numbers in blocks to a tensor's values, some blocks at a time.
//!
//! A block holds small integers, the quants, and scales in half precision, all little-endian.
//! Layouts are those of `ggml-common.h`, arithmetic and its order those of `ggml-quants.c`
//! (<https://github.com/ggml-org/ggml/tree/master/src>) and of candle, with whose values the tests
//! compare these bit for bit.

use std::array::from_fn;

use half::f16;

use crate::{
    error::Result,
    weights::{Collector, Dtype, Values, fill},
};

/// Values that are decoded at a time; a multiple of every block.
const STEP: usize = 1 << 14;

/// A type of blocks: the values and bytes of one, and the function from whole blocks to values.
#[derive(Clone, Copy)]
pub struct Kind {
    values: usize,
    bytes: usize,
    widen: fn(&[u8], &mut [f32]),
}

impl Kind {
    /// A type by its number in the format.
    pub fn named(kind: u32) -> Option<Self> {
        let widen = match kind {
            2 => nibbles::<18, false, false>,
            3 => nibbles::<20, true, false>,
            6 => nibbles::<22, false, true>,
            7 => nibbles::<24, true, true>,
            8 => q8_0,
            10 => q2_k,
            11 => q3_k,
            12 => q4_k,
            13 => q5_k,
            14 => q6_k,
            _ => return None,
        };
        let (values, bytes) = super::block(kind)?;
        Some(Self { values: values as usize, bytes: bytes as usize, widen })
    }
}

/// Each block with the place of its values.
fn blocks<'a, const BYTES: usize, const VALUES: usize>(
    raw: &'a [u8],
    values: &'a mut [f32],
) -> impl Iterator<Item = (&'a [u8; BYTES], &'a mut [f32; VALUES])> {
    raw.as_chunks().0.iter().zip(values.as_chunks_mut().0)
}

/// The number in half precision at byte `at`.
fn half(block: &[u8], at: usize) -> f32 {
    f16::from_le_bytes([block[at], block[at + 1]]).to_f32()
}

/// Puts those `bits` of each quant that `plane` holds to their place, from bit `to` on. The first
/// `run` bytes of a plane hold the first `run` quants in their lowest bits, the next `run` quants
/// in the bits above, and so on; then come the next `run` bytes. `run` is a multiple of four, and
/// four bytes are taken at once.
fn put(quants: &mut [u8], plane: &[u8], run: usize, bits: usize, to: u32) {
    let mask = u32::from(u8::MAX >> (8 - bits)) * 0x0101_0101;
    for (quants, bytes) in quants.chunks_exact_mut(run * 8 / bits).zip(plane.chunks_exact(run)) {
        for (at, quants) in quants.chunks_exact_mut(run).enumerate() {
            for (quants, bytes) in quants.as_chunks_mut().0.iter_mut().zip(bytes.as_chunks().0) {
                let part = u32::from_le_bytes(*bytes) >> (at * bits) & mask;
                *quants = (u32::from_le_bytes(*quants) | part << to).to_le_bytes();
            }
        }
    }
}

/// Puts bit `n` of `bits` to quant `n` as its fifth. Four are taken at once: the product has one of
/// them as the lowest bit of each byte.
fn put_fifth(quants: &mut [u8; 32], bits: &[u8]) {
    for (at, quants) in quants.as_chunks_mut().0.iter_mut().enumerate() {
        let four = u32::from(bits[at / 2] >> (at % 2 * 4) & 15);
        let fifth = (four * 0x0020_4081) & 0x0101_0101;
        *quants = (u32::from_le_bytes(*quants) | fifth << 4).to_le_bytes();
    }
}

/// Values are `scale * (quant - zero) - minimum`, with both from `scales` for as many equal parts.
/// That a minimum is zero, or an offset with its sign turned, changes no bit of a value.
// Inlined, the loop would have a known length and be unrolled, after which the compiler finds no
// vector instructions for it.
#[inline(never)]
fn scale(mut quants: &[u8], zero: i8, scales: &[(f32, f32)], mut values: &mut [f32]) {
    let each = quants.len() / scales.len();
    for (scale, minimum) in scales {
        let (part, place);
        (part, quants) = quants.split_at(each);
        (place, values) = values.split_at_mut(each);
        for (value, quant) in place.iter_mut().zip(part) {
            *value = scale * f32::from(*quant as i8 - zero) - minimum;
        }
    }
}

/// Q4_0, Q4_1, Q5_0, Q5_1: scale; an offset in the `_1`; fifth bits in Q5; the lower four.
fn nibbles<const BYTES: usize, const OFFSET: bool, const FIFTH: bool>(raw: &[u8], values: &mut [f32]) {
    for (block, values) in blocks::<BYTES, 32>(raw, values) {
        let mut quants = [0; 32];
        put(&mut quants, &block[BYTES - 16..], 16, 4, 0);
        if FIFTH {
            put_fifth(&mut quants, &block[BYTES - 20..]);
        }
        let (zero, minimum) = match (OFFSET, FIFTH) {
            (true, _) => (0, -half(block, 2)),
            (false, false) => (8, 0.0),
            (false, true) => (16, 0.0),
        };
        scale(&quants, zero, &[(half(block, 0), minimum)], values);
    }
}

/// Scale; quants with sign.
fn q8_0(raw: &[u8], values: &mut [f32]) {
    for (block, values) in blocks::<34, 32>(raw, values) {
        let scale = half(block, 0);
        for (value, quant) in values.iter_mut().zip(&block[2..]) {
            *value = scale * f32::from(*quant as i8);
        }
    }
}

/// Scales and minima of 16 values, half a byte each; quants; the scale of scales, that of minima.
fn q2_k(raw: &[u8], values: &mut [f32]) {
    for (block, values) in blocks::<84, 256>(raw, values) {
        let mut quants = [0; 256];
        put(&mut quants, &block[16..80], 32, 2, 0);
        let (d, min) = (half(block, 80), half(block, 82));
        let scales: [_; 16] = from_fn(|at| (d * f32::from(block[at] & 15), min * f32::from(block[at] >> 4)));
        scale(&quants, 0, &scales, values);
    }
}

/// Third bits, the lower two; scales of 16 values, first their lower four bits, then the upper two;
/// the scale of scales.
fn q3_k(raw: &[u8], values: &mut [f32]) {
    for (block, values) in blocks::<110, 256>(raw, values) {
        let mut quants = [0; 256];
        put(&mut quants, &block[..32], 32, 1, 2);
        put(&mut quants, &block[32..96], 32, 2, 0);
        let mut scales = [0; 16];
        put(&mut scales, &block[96..104], 8, 4, 0);
        put(&mut scales, &block[104..108], 4, 2, 4);
        let d = half(block, 108);
        scale(&quants, 4, &scales.map(|scale| (d * f32::from(scale as i8 - 32), 0.0)), values);
    }
}

/// What Q4_K and Q5_K begin with: the scale of scales, that of minima, and eight of both in six
/// bits each. Four bytes hold the first four scales, four the first four minima, both with the
/// upper two bits of the others above them, and the last four bytes the lower four bits of those.
fn scales(block: &[u8]) -> [(f32, f32); 8] {
    let (d, min, packed) = (half(block, 0), half(block, 2), &block[4..16]);
    from_fn(|at| {
        let (scale, minimum) = match at {
            0..4 => (packed[at] & 63, packed[at + 4] & 63),
            _ => (packed[at + 4] & 15 | packed[at - 4] >> 6 << 4, packed[at + 4] >> 4 | packed[at] >> 6 << 4),
        };
        (d * f32::from(scale), min * f32::from(minimum))
    })
}

/// Scales and minima of 32 values; quants.
fn q4_k(raw: &[u8], values: &mut [f32]) {
    for (block, values) in blocks::<144, 256>(raw, values) {
        let mut quants = [0; 256];
        put(&mut quants, &block[16..], 32, 4, 0);
        scale(&quants, 0, &scales(block), values);
    }
}

/// Scales and minima of 32 values; fifth bits, the lower four.
fn q5_k(raw: &[u8], values: &mut [f32]) {
    for (block, values) in blocks::<176, 256>(raw, values) {
        let mut quants = [0; 256];
        put(&mut quants, &block[16..48], 32, 1, 4);
        put(&mut quants, &block[48..], 32, 4, 0);
        scale(&quants, 0, &scales(block), values);
    }
}

/// Lower four bits, the upper two; scales of 16 values, with sign; the scale of scales.
fn q6_k(raw: &[u8], values: &mut [f32]) {
    for (block, values) in blocks::<210, 256>(raw, values) {
        let mut quants = [0; 256];
        put(&mut quants, &block[..128], 64, 4, 0);
        put(&mut quants, &block[128..192], 32, 2, 4);
        let d = half(block, 208);
        let scales: [_; 16] = from_fn(|at| (d * f32::from(block[192 + at] as i8), 0.0));
        scale(&quants, 32, &scales, values);
    }
}

/// Decodes one tensor while its blocks arrive.
pub struct Blocks {
    kind: Kind,
    collector: Collector,
    /// Up to `room` bytes, the blocks of a step.
    raw: Vec<u8>,
    room: usize,
    values: Vec<f32>,
}

impl Blocks {
    /// For so many values in rows of `width`, of which the first `zeros` are no part of the file.
    pub fn new(name: &str, kind: Kind, wanted: Dtype, width: usize, count: u64, zeros: usize) -> Result<Self> {
        let mut collector = Collector::new(name, wanted, width, count)?;
        for from in (0..zeros).step_by(STEP) {
            collector.push(&vec![0.0; STEP.min(zeros - from)])?;
        }
        let room = STEP / kind.values * kind.bytes;
        Ok(Self { kind, collector, raw: Vec::with_capacity(room), room, values: vec![0.0; STEP] })
    }

    /// Takes the next bytes.
    pub fn push(&mut self, mut bytes: &[u8]) -> Result<()> {
        while fill(&mut self.raw, &mut bytes, self.room) {
            self.decode()?;
        }
        Ok(())
    }

    /// The values, once all bytes were pushed.
    pub fn finish(mut self) -> Result<Values> {
        self.decode()?;
        Ok(self.collector.finish())
    }

    fn decode(&mut self) -> Result<()> {
        let values = &mut self.values[..self.raw.len() / self.kind.bytes * self.kind.values];
        (self.kind.widen)(&self.raw, values);
        self.raw.clear();
        self.collector.push(values)
    }
}

#[cfg(all(test, feature = "candle"))]
mod tests {
    use std::borrow::Cow;

    use candle_core::{CpuStorage, quantized::GgmlDType};

    use super::*;

    /// Every type, candle's name for it, and where its blocks have numbers in half precision.
    const KINDS: [(u32, GgmlDType, &[usize]); 10] = [
        (2, GgmlDType::Q4_0, &[0]),
        (3, GgmlDType::Q4_1, &[0, 2]),
        (6, GgmlDType::Q5_0, &[0]),
        (7, GgmlDType::Q5_1, &[0, 2]),
        (8, GgmlDType::Q8_0, &[0]),
        (10, GgmlDType::Q2K, &[80, 82]),
        (11, GgmlDType::Q3K, &[108]),
        (12, GgmlDType::Q4K, &[0, 2]),
        (13, GgmlDType::Q5K, &[0, 2]),
        (14, GgmlDType::Q6K, &[208]),
    ];

    /// Zeros, ones, subnormal numbers and the largest.
    const SCALES: [u16; 9] = [0, 0x8000, 0x3c00, 0xbc00, 1, 0x8001, 0x83ff, 0x7bff, 0xfbff];

    fn kind(number: u32) -> Kind {
        Kind::named(number).expect("a type that is read")
    }

    /// Blocks of the same bytes with each pair of [`SCALES`], then more than a step of noise.
    fn samples(kind: Kind, halves: &[usize]) -> Vec<u8> {
        let mut raw = Vec::new();
        let mut push = |mut block: Vec<u8>, scales: [u16; 2]| {
            for (&at, scale) in halves.iter().zip(scales) {
                block[at..at + 2].copy_from_slice(&scale.to_le_bytes());
            }
            raw.extend(block);
        };
        for byte in [0, 0xff, 0x80, 0x7f, 0x0f, 0xf0] {
            for scale in SCALES {
                SCALES.iter().for_each(|&other| push(vec![byte; kind.bytes], [scale, other]));
            }
        }
        let mut state: u64 = 0x9e37_79b9_7f4a_7c15;
        let mut noise = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 32) as u16
        };
        for _ in 0..700 {
            // Without the uppermost bit of the exponent a number is finite.
            let scales =
                [noise(), noise()].map(|bits| if f16::from_bits(bits).is_finite() { bits } else { bits & 0xbfff });
            push((0..kind.bytes).map(|_| noise() as u8).collect(), scales);
        }
        raw
    }

    /// All values at once.
    fn widened(kind: Kind, raw: &[u8]) -> Vec<f32> {
        let mut values = vec![f32::NAN; raw.len() / kind.bytes * kind.values];
        (kind.widen)(raw, &mut values);
        values
    }

    fn same(what: &str, got: &[f32], want: &[f32]) {
        assert_eq!(got.len(), want.len(), "{what}");
        for (at, (got, want)) in got.iter().zip(want).enumerate() {
            assert_eq!(got.to_bits(), want.to_bits(), "{what}: value {at} is {got}, not {want}");
        }
    }

    #[test]
    fn values_are_those_of_candle_bit_for_bit() {
        for (number, dtype, halves) in KINDS {
            let kind = kind(number);
            assert_eq!((kind.values, kind.bytes), (dtype.block_size(), dtype.type_size()), "{dtype:?}");
            assert!(STEP.is_multiple_of(kind.values));
            let raw = samples(kind, halves);
            let got = widened(kind, &raw);
            assert!(got.iter().all(|value| value.is_finite()), "{dtype:?}");
            let want = dtype.from_data(Cow::Borrowed(&raw)).dequantize(got.len());
            let CpuStorage::F32(want) = want.expect("candle's values") else { panic!("candle gave other numbers") };
            same(&format!("{dtype:?}"), &got, &want);
        }
    }

    #[test]
    fn any_chunking_gives_the_same_values() {
        const ZEROS: usize = 5;
        for (number, dtype, halves) in KINDS {
            let kind = kind(number);
            let raw = samples(kind, halves);
            let want = [vec![0.0; ZEROS], widened(kind, &raw)].concat();
            for size in [1, 7, 1000, raw.len()] {
                let mut blocks = Blocks::new("w", kind, Dtype::F32, 1, want.len() as u64, ZEROS).expect("memory");
                raw.chunks(size).for_each(|chunk| blocks.push(chunk).expect("finite"));
                let got = blocks.finish().expect("finite").into_f32(1);
                same(&format!("{dtype:?} in chunks of {size}"), &got, &want);
            }
        }
    }

    #[test]
    fn other_types_are_not_read() {
        assert!([0, 1, 4, 5, 9, 15, 16, 30, 39, u32::MAX].iter().all(|&number| Kind::named(number).is_none()));
    }
}
