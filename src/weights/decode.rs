//! Little-endian numbers in chunks of any size to f32.

use half::{bf16, f16};

use crate::error::{Code, Error, Result};

/// How a number is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    F32,
    F16,
    Bf16,
}

impl Format {
    fn bytes(self) -> usize {
        match self {
            Format::F32 => 4,
            Format::F16 | Format::Bf16 => 2,
        }
    }

    fn value(self, bytes: &[u8]) -> f32 {
        match (self, bytes) {
            (Format::F32, &[a, b, c, d]) => f32::from_le_bytes([a, b, c, d]),
            (Format::F16, &[a, b]) => f16::from_le_bytes([a, b]).to_f32(),
            (Format::Bf16, &[a, b]) => bf16::from_le_bytes([a, b]).to_f32(),
            _ => unreachable!("chunks are cut to the size of the format"),
        }
    }
}

/// Decodes one tensor while its bytes arrive, so that the bytes themselves are never kept.
pub struct Decoder {
    name: String,
    format: Format,
    values: Vec<f32>,
    /// The bytes of a number that a chunk boundary cut in two.
    carry: Vec<u8>,
}

impl Decoder {
    /// A decoder for so many bytes; asks for the memory of their values at once.
    pub fn new(name: &str, format: Format, bytes: u64) -> Result<Self> {
        let count = bytes / format.bytes() as u64;
        let mut values = Vec::new();
        let reserved = usize::try_from(count).is_ok_and(|count| values.try_reserve_exact(count).is_ok());
        if !reserved {
            return Err(Error::new(Code::OutOfMemory, name, format!("no memory for {count} values")));
        }
        Ok(Self { name: name.to_owned(), format, values, carry: Vec::with_capacity(format.bytes()) })
    }

    /// Takes the next bytes.
    pub fn push(&mut self, mut bytes: &[u8]) -> Result<()> {
        let size = self.format.bytes();
        if !self.carry.is_empty() {
            let missing = (size - self.carry.len()).min(bytes.len());
            let (head, rest) = bytes.split_at(missing);
            self.carry.extend_from_slice(head);
            bytes = rest;
            if self.carry.len() < size {
                return Ok(());
            }
            self.values.push(self.format.value(&self.carry));
            self.carry.clear();
        }
        let start = self.values.len().saturating_sub(1);
        let chunks = bytes.chunks_exact(size);
        self.carry.extend_from_slice(chunks.remainder());
        self.values.extend(chunks.map(|chunk| self.format.value(chunk)));
        match self.values[start..].iter().position(|value| !value.is_finite()) {
            None => Ok(()),
            Some(index) => Err(Error::new(
                Code::NotFinite,
                &self.name,
                format!("value {} is {}", start + index, self.values[start + index]),
            )),
        }
    }

    /// The values, once all bytes were pushed.
    pub fn finish(self) -> Vec<f32> {
        self.values
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_chunking_gives_the_same_values() {
        let want = [1.5f32, -0.25, 3.0, 65504.0, -0.0];
        let cases: [(Format, Vec<u8>); 3] = [
            (Format::F32, want.iter().flat_map(|v| v.to_le_bytes()).collect()),
            (Format::F16, want.iter().flat_map(|v| f16::from_f32(*v).to_le_bytes()).collect()),
            (Format::Bf16, want.iter().flat_map(|v| bf16::from_f32(*v).to_le_bytes()).collect()),
        ];
        for (format, bytes) in cases {
            for size in 1..=bytes.len() {
                let mut decoder = Decoder::new("w", format, bytes.len() as u64).expect("memory");
                for chunk in bytes.chunks(size) {
                    decoder.push(chunk).expect("finite");
                }
                let got = decoder.finish();
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
            let mut decoder = Decoder::new("w", Format::F32, 16).expect("memory");
            let error = bytes.chunks(size).find_map(|chunk| decoder.push(chunk).err()).expect("an error");
            assert_eq!((error.code(), error.at()), (Code::NotFinite, "w"));
            assert!(error.message().contains("value 2"), "{error}");
        }
        bytes.splice(8..12, f32::NEG_INFINITY.to_le_bytes());
        assert!(Decoder::new("w", Format::F32, 16).expect("memory").push(&bytes).is_err());
    }
}
