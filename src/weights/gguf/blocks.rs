//! Quantised numbers in blocks to a tensor's values, some blocks at a time. The arithmetic is candle's.

use candle_core::{
    Device,
    quantized::{GgmlDType, ggml_file::qtensor_from_ggml},
};

use crate::{
    error::{Code, Error, Result},
    weights::{Collector, Dtype, Values},
};

/// Values that are decoded at a time; a multiple of every block.
const STEP: usize = 1 << 14;
/// What candle's blocks must be aligned to in memory; it reads them in place and does not check.
const ALIGNMENT: usize = 8;

/// A type of blocks by its number in the format.
pub fn named(kind: u32) -> Option<GgmlDType> {
    Some(match kind {
        2 => GgmlDType::Q4_0,
        3 => GgmlDType::Q4_1,
        6 => GgmlDType::Q5_0,
        7 => GgmlDType::Q5_1,
        8 => GgmlDType::Q8_0,
        10 => GgmlDType::Q2K,
        11 => GgmlDType::Q3K,
        12 => GgmlDType::Q4K,
        13 => GgmlDType::Q5K,
        14 => GgmlDType::Q6K,
        _ => return None,
    })
}

/// Decodes one tensor while its blocks arrive.
pub struct Blocks {
    name: String,
    dtype: GgmlDType,
    collector: Collector,
    /// Room for the blocks of a step, from the first aligned place on.
    raw: Vec<u8>,
    start: usize,
    filled: usize,
}

impl Blocks {
    /// For so many values in rows of `width`, of which the first `zeros` are no part of the file.
    pub fn new(name: &str, dtype: GgmlDType, wanted: Dtype, width: usize, count: u64, zeros: usize) -> Result<Self> {
        let mut collector = Collector::new(name, wanted, width, count)?;
        for from in (0..zeros).step_by(STEP) {
            collector.push(&vec![0.0; STEP.min(zeros - from)])?;
        }
        let raw = vec![0; STEP / dtype.block_size() * dtype.type_size() + ALIGNMENT];
        let start = raw.as_ptr().align_offset(ALIGNMENT).min(ALIGNMENT);
        Ok(Self { name: name.to_owned(), dtype, collector, raw, start, filled: 0 })
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
        let blocks = self.filled / self.dtype.type_size();
        // candle takes as many blocks as the shape says, whether they are there or not.
        let raw = &self.raw[self.start..self.start + blocks * self.dtype.type_size()];
        self.filled = 0;
        if blocks == 0 {
            return Ok(());
        }
        let count = blocks * self.dtype.block_size();
        let values = qtensor_from_ggml(self.dtype, raw, vec![count], &Device::Cpu)
            .and_then(|blocks| blocks.dequantize(&Device::Cpu))
            .and_then(|values| values.to_vec1::<f32>())
            .map_err(|error| Error::new(Code::Executor, &self.name, error.to_string()))?;
        self.collector.push(&values)
    }
}
