//! Little-endian numbers in chunks of any size to a tensor's values.

use half::{bf16, f16};

use super::{Collector, Dtype, Values};
use crate::error::Result;

/// How a number is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    F64,
    F32,
    F16,
    Bf16,
    I64,
    I32,
    I8,
}

impl Format {
    /// The type by safetensors' name for it.
    pub fn named(name: &str) -> Option<Self> {
        Some(match name {
            "F64" => Format::F64,
            "F32" => Format::F32,
            "F16" => Format::F16,
            "BF16" => Format::Bf16,
            "I64" => Format::I64,
            "I32" => Format::I32,
            "I8" => Format::I8,
            _ => return None,
        })
    }

    /// Bytes of a number.
    pub fn bytes(self) -> usize {
        match self {
            Format::F64 | Format::I64 => 8,
            Format::F32 | Format::I32 => 4,
            Format::F16 | Format::Bf16 => 2,
            Format::I8 => 1,
        }
    }

    /// The form that holds such numbers without loss and without waste.
    pub fn dtype(self) -> Dtype {
        match self {
            Format::F16 => Dtype::F16,
            Format::I8 => Dtype::Int8,
            _ => Dtype::F32,
        }
    }

    fn value(self, bytes: &[u8]) -> f32 {
        match (self, bytes) {
            (Format::F64, &[a, b, c, d, e, f, g, h]) => f64::from_le_bytes([a, b, c, d, e, f, g, h]) as f32,
            (Format::I64, &[a, b, c, d, e, f, g, h]) => i64::from_le_bytes([a, b, c, d, e, f, g, h]) as f32,
            (Format::F32, &[a, b, c, d]) => f32::from_le_bytes([a, b, c, d]),
            (Format::I32, &[a, b, c, d]) => i32::from_le_bytes([a, b, c, d]) as f32,
            (Format::F16, &[a, b]) => f16::from_le_bytes([a, b]).to_f32(),
            (Format::Bf16, &[a, b]) => bf16::from_le_bytes([a, b]).to_f32(),
            (Format::I8, &[a]) => f32::from(a as i8),
            _ => unreachable!("chunks are cut to the size of the format"),
        }
    }
}

/// Decodes one tensor while its bytes arrive, so that the bytes themselves are never kept.
pub struct Decoder {
    format: Format,
    collector: Collector,
    /// The bytes of a number that a chunk boundary cut in two.
    carry: Vec<u8>,
    /// Numbers of the chunk under way.
    decoded: Vec<f32>,
}

impl Decoder {
    /// Numbers decoded at a time.
    const STEP: usize = 4096;

    /// For so many bytes of numbers in rows of `width`, kept as `dtype`; asks for their memory at once. Eight-bit integers are
    /// kept as they are, without scales.
    pub fn new(name: &str, format: Format, dtype: Dtype, width: usize, bytes: u64) -> Result<Self> {
        let dtype = if format == Format::I8 { Dtype::Int8 } else { dtype };
        let collector = Collector::new(name, dtype, width, bytes / format.bytes() as u64)?;
        Ok(Self { format, collector, carry: Vec::with_capacity(format.bytes()), decoded: Vec::new() })
    }

    /// Takes the next bytes.
    pub fn push(&mut self, mut bytes: &[u8]) -> Result<()> {
        if self.format == Format::I8 {
            self.collector.push_i8(bytes.iter().map(|&byte| byte as i8));
            return Ok(());
        }
        let size = self.format.bytes();
        if !self.carry.is_empty() {
            let missing = (size - self.carry.len()).min(bytes.len());
            let (head, rest) = bytes.split_at(missing);
            self.carry.extend_from_slice(head);
            bytes = rest;
            if self.carry.len() < size {
                return Ok(());
            }
            self.collector.push(&[self.format.value(&self.carry)])?;
            self.carry.clear();
        }
        let (whole, rest) = bytes.split_at(bytes.len() / size * size);
        self.carry.extend_from_slice(rest);
        for part in whole.chunks(Self::STEP * size) {
            self.decoded.clear();
            self.decoded.extend(part.chunks_exact(size).map(|number| self.format.value(number)));
            self.collector.push(&self.decoded)?;
        }
        Ok(())
    }

    /// The values, once all bytes were pushed.
    pub fn finish(self) -> Values {
        self.collector.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Code;

    #[test]
    fn any_chunking_gives_the_same_values() {
        let want = [1.5f32, -0.25, 3.0, 65504.0, -0.0];
        let cases: [(Format, Vec<u8>); 4] = [
            (Format::F64, want.iter().flat_map(|v| f64::from(*v).to_le_bytes()).collect()),
            (Format::F32, want.iter().flat_map(|v| v.to_le_bytes()).collect()),
            (Format::F16, want.iter().flat_map(|v| f16::from_f32(*v).to_le_bytes()).collect()),
            (Format::Bf16, want.iter().flat_map(|v| bf16::from_f32(*v).to_le_bytes()).collect()),
        ];
        for (format, bytes) in cases {
            for size in 1..=bytes.len() {
                let mut decoder = Decoder::new("w", format, Dtype::F32, 1, bytes.len() as u64).expect("memory");
                for chunk in bytes.chunks(size) {
                    decoder.push(chunk).expect("finite");
                }
                let got = decoder.finish().into_f32(1);
                // 65504 is the largest f16; bf16 rounds it to 65536.
                let exact =
                    got.iter().zip(want).all(|(got, want)| *got == want || (format == Format::Bf16 && *got == 65536.0));
                assert!(exact && got.len() == want.len(), "{format:?} in chunks of {size}: {got:?}");
            }
        }
    }

    #[test]
    fn a_number_that_is_not_finite_is_named() {
        let mut bytes: Vec<u8> = [1.0f32, 2.0, f32::NAN, 4.0].iter().flat_map(|v| v.to_le_bytes()).collect();
        for size in [1, 3, 4, 16] {
            let mut decoder = Decoder::new("w", Format::F32, Dtype::F32, 1, 16).expect("memory");
            let error = bytes.chunks(size).find_map(|chunk| decoder.push(chunk).err()).expect("an error");
            assert_eq!((error.code(), error.at()), (Code::NotFinite, "w"));
            assert!(error.message().contains("value 2"), "{error}");
        }
        bytes.splice(8..12, f32::NEG_INFINITY.to_le_bytes());
        assert!(Decoder::new("w", Format::F32, Dtype::F32, 1, 16).expect("memory").push(&bytes).is_err());
    }
}
