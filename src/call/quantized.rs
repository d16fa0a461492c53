//! Vectors of small integers and of bits.
//!
//! Names and packing are those that the providers and sentence-transformers (`quantize_embeddings`) share: bits lie most
//! significant first, and `binary` is the byte of `ubinary` less 128.

/// What the numbers of a vector are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Deserialize, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum OutputDtype {
    /// f32, in [`Vectors`](super::Vectors).
    #[default]
    Float,
    Int8,
    Uint8,
    /// Eight dimensions in a signed byte.
    Binary,
    /// Eight dimensions in a byte.
    Ubinary,
}

impl OutputDtype {
    /// The name that options and requests use.
    pub const fn as_str(self) -> &'static str {
        match self {
            OutputDtype::Float => "float",
            OutputDtype::Int8 => "int8",
            OutputDtype::Uint8 => "uint8",
            OutputDtype::Binary => "binary",
            OutputDtype::Ubinary => "ubinary",
        }
    }

    /// Dimensions that one value holds.
    pub const fn dimensions_per_value(self) -> usize {
        match self {
            OutputDtype::Binary | OutputDtype::Ubinary => 8,
            _ => 1,
        }
    }
}

/// Equally wide vectors of small integers or of bits, one per text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QuantizedVectors {
    /// Values of each vector; of bits there are eight in one.
    pub width: usize,
    pub values: QuantizedValues,
}

/// The values of all vectors, one after the other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum QuantizedValues {
    Int8(Vec<i8>),
    Uint8(Vec<u8>),
    Binary(Vec<i8>),
    Ubinary(Vec<u8>),
}

impl QuantizedVectors {
    /// What the values are.
    pub fn dtype(&self) -> OutputDtype {
        match self.values {
            QuantizedValues::Int8(_) => OutputDtype::Int8,
            QuantizedValues::Uint8(_) => OutputDtype::Uint8,
            QuantizedValues::Binary(_) => OutputDtype::Binary,
            QuantizedValues::Ubinary(_) => OutputDtype::Ubinary,
        }
    }

    /// Dimensions of each vector.
    pub fn dimensions(&self) -> usize {
        self.width * self.dtype().dimensions_per_value()
    }

    /// How many vectors there are.
    pub fn len(&self) -> usize {
        let values = match &self.values {
            QuantizedValues::Int8(values) | QuantizedValues::Binary(values) => values.len(),
            QuantizedValues::Uint8(values) | QuantizedValues::Ubinary(values) => values.len(),
        };
        values / self.width.max(1)
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The packed bits of text `index` as unsigned bytes, which is what Milvus calls a BINARY_VECTOR; `None` where vectors are not of
    /// bits.
    pub fn bits(&self, index: usize) -> Option<Vec<u8>> {
        let range = index * self.width..(index + 1) * self.width;
        match &self.values {
            QuantizedValues::Ubinary(values) => Some(values[range].to_vec()),
            // Less 128 modulo 256 is the highest bit turned round.
            QuantizedValues::Binary(values) => Some(values[range].iter().map(|&value| value as u8 ^ 0x80).collect()),
            _ => None,
        }
    }

    /// Puts the vectors of `other`, of the same width and dtype, behind these; `false`, and nothing is done, if they are not.
    #[must_use]
    pub fn append(&mut self, other: QuantizedVectors) -> bool {
        if self.width != other.width {
            return false;
        }
        match (&mut self.values, other.values) {
            (QuantizedValues::Int8(values), QuantizedValues::Int8(more))
            | (QuantizedValues::Binary(values), QuantizedValues::Binary(more)) => values.extend(more),
            (QuantizedValues::Uint8(values), QuantizedValues::Uint8(more))
            | (QuantizedValues::Ubinary(values), QuantizedValues::Ubinary(more)) => values.extend(more),
            _ => return false,
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signed_and_unsigned_bytes_hold_the_same_bits() {
        let unsigned = QuantizedVectors { width: 2, values: QuantizedValues::Ubinary(vec![0, 255, 128, 1]) };
        let mut signed = QuantizedVectors { width: 2, values: QuantizedValues::Binary(vec![-128, 127, 0, -127]) };
        assert_eq!((unsigned.bits(1), signed.bits(1)), (Some(vec![128, 1]), Some(vec![128, 1])));
        assert_eq!((signed.bits(0), signed.dimensions(), signed.len()), (Some(vec![0, 255]), 16, 2));
        assert!(!signed.append(unsigned));
        let integers = QuantizedVectors { width: 2, values: QuantizedValues::Int8(vec![1, 2]) };
        assert_eq!((integers.bits(0), integers.dimensions()), (None, 2));
    }
}
