//! The safetensors format (<https://github.com/huggingface/safetensors#format>), read while the bytes arrive.
//!
//! Every rule of the format is checked before a tensor is touched: the header's length, offsets that are contiguous from zero
//! (no overlap, no hole), sizes that match shape and type, and a file that ends exactly where the last tensor does. Every refusal
//! names its rule. Sizes are counted in 64 bits, because a page's own are 32: the format's crate refuses tensors of 512 MB there.

use std::{collections::BTreeMap, fmt};

use serde::Deserialize;

use super::{Decoder, Format, Sink, TensorInfo, take};
use crate::error::{Code, Error, Result};

/// The format's own limit on the header, in bytes.
const MAX_HEADER: u64 = 100_000_000;

/// A tensor as the header describes it.
#[derive(Deserialize)]
struct Header {
    dtype: String,
    shape: Vec<u64>,
    data_offsets: [u64; 2],
}

/// One tensor in file order.
struct Entry {
    info: TensorInfo,
    dtype: String,
    bytes: u64,
}

/// Bits of a value of each type in the format.
fn bits(dtype: &str) -> Option<u64> {
    Some(match dtype {
        "F4" => 4,
        "F6_E2M3" | "F6_E3M2" => 6,
        "BOOL" | "U8" | "I8" | "F8_E4M3" | "F8_E5M2" | "F8_E8M0" | "F8_E4M3FNUZ" | "F8_E5M2FNUZ" => 8,
        "U16" | "I16" | "F16" | "BF16" => 16,
        "U32" | "I32" | "F32" => 32,
        "U64" | "I64" | "F64" | "C64" => 64,
        _ => return None,
    })
}

enum State {
    /// Collecting the eight bytes of the header's length, then the header.
    Header { bytes: Vec<u8>, length: Option<usize> },
    /// Inside the data; `next` is the tensor under way, `left` how many of its bytes are missing.
    Data { entries: Vec<Entry>, next: usize, left: u64, decoder: Option<Decoder> },
}

/// A parser to push bytes into, in chunks of any size.
pub struct Reader {
    file: String,
    state: State,
}

impl Reader {
    /// A reader for a file whose name appears in errors.
    pub fn new(file: &str) -> Self {
        Self { file: file.to_owned(), state: State::Header { bytes: Vec::new(), length: None } }
    }

    fn broken(&self, rule: &str, message: impl fmt::Display) -> Error {
        Error::new(Code::InvalidWeights, &self.file, format!("{rule}: {message}"))
    }

    /// Takes the next bytes of the file and gives each tensor that is complete to `sink`.
    pub fn push(&mut self, mut chunk: &[u8], sink: &mut dyn Sink) -> Result<()> {
        while let State::Header { bytes, length } = &mut self.state {
            let Some(length) = *length else {
                let taken = take(&mut chunk, 8 - bytes.len() as u64);
                bytes.extend_from_slice(taken);
                let Ok(length) = <[u8; 8]>::try_from(bytes.as_slice()) else {
                    return Ok(());
                };
                let length = u64::from_le_bytes(length);
                // A page that answers HTML, or any other file, usually fails here.
                if !(2..=MAX_HEADER).contains(&length) {
                    return Err(self.broken("header_length", format!("{length} is not between 2 and {MAX_HEADER}")));
                }
                self.state = State::Header { bytes: Vec::new(), length: Some(length as usize) };
                continue;
            };
            let taken = take(&mut chunk, (length - bytes.len()) as u64);
            bytes.extend_from_slice(taken);
            if bytes.len() < length {
                return Ok(());
            }
            let header = std::mem::take(bytes);
            let entries = self.entries(&header)?;
            let infos: Vec<TensorInfo> = entries.iter().map(|entry| entry.info.clone()).collect();
            sink.begin(&infos)?;
            self.state = State::Data { entries, next: 0, left: 0, decoder: None };
            self.start_tensor(sink)?;
        }
        while !chunk.is_empty() {
            let State::Data { left, decoder, .. } = &mut self.state else { unreachable!("the header is complete") };
            if *left == 0 {
                return Err(self.broken("trailing_bytes", "the file goes on after its last tensor"));
            }
            let taken = take(&mut chunk, *left);
            if let Some(decoder) = decoder {
                decoder.push(taken)?;
            }
            *left -= taken.len() as u64;
            if *left == 0 {
                self.end_tensor(sink)?;
                self.start_tensor(sink)?;
            }
        }
        Ok(())
    }

    /// Checks that the file was whole.
    pub fn finish(self) -> Result<()> {
        match &self.state {
            State::Header { .. } => Err(self.broken("truncated", "the file ends inside its header")),
            State::Data { entries, next, .. } => match entries.get(*next) {
                None => Ok(()),
                Some(entry) => Err(self.broken("truncated", format!("the file ends inside {}", entry.info.name))),
            },
        }
    }

    /// The tensors in the order of their bytes.
    fn entries(&self, header: &[u8]) -> Result<Vec<Entry>> {
        let mut tensors: BTreeMap<String, serde_json::Value> =
            serde_json::from_slice(header).map_err(|error| self.broken("header", error))?;
        tensors.remove("__metadata__");
        let mut headers = tensors
            .into_iter()
            .map(|(name, value)| match Header::deserialize(value) {
                Ok(header) => Ok((name, header)),
                Err(error) => Err(self.broken("header", format!("{name}: {error}"))),
            })
            .collect::<Result<Vec<_>>>()?;
        headers.sort_unstable_by_key(|(_, header)| header.data_offsets);
        let mut position = 0;
        headers
            .into_iter()
            .map(|(name, header)| {
                let [start, end] = header.data_offsets;
                if start != position || end < start {
                    let message = format!("{name} lies at {start}..{end}, the tensor before it ends at {position}");
                    return Err(self.broken("offsets", message));
                }
                position = end;
                let Some(width) = bits(&header.dtype) else {
                    return Err(
                        self.broken("dtype", format!("{name} is {}, which the format does not know", header.dtype))
                    );
                };
                let count = header.shape.iter().try_fold(1, |count: u64, &size| count.checked_mul(size));
                let size = count.and_then(|count| count.checked_mul(width));
                let shape: Option<Vec<usize>> = header.shape.iter().map(|&size| usize::try_from(size).ok()).collect();
                match (size, shape) {
                    (Some(size), Some(shape)) if (end - start).checked_mul(8) == Some(size) => {
                        let dtype = Format::named(&header.dtype).map(Format::dtype);
                        Ok(Entry { info: TensorInfo { name, shape, dtype }, dtype: header.dtype, bytes: end - start })
                    }
                    _ => {
                        let message = format!("{name} has {} bytes, not those of {:?}", end - start, header.shape);
                        Err(self.broken("size", message))
                    }
                }
            })
            .collect()
    }

    /// Makes the decoder for tensor `next`, after those that have no bytes at all.
    fn start_tensor(&mut self, sink: &mut dyn Sink) -> Result<()> {
        loop {
            let State::Data { entries, next, .. } = &self.state else { unreachable!("tensors follow the header") };
            let Some(entry) = entries.get(*next) else {
                return Ok(());
            };
            let (name, bytes) = (&entry.info.name, entry.bytes);
            let new = match sink.wants(name) {
                None => None,
                Some(wanted) => {
                    let Some(format) = Format::named(&entry.dtype) else {
                        return Err(self.broken("dtype", format!("{name} is {}, which no weight is", entry.dtype)));
                    };
                    Some(Decoder::new(name, format, wanted, entry.info.row(), bytes)?)
                }
            };
            if let State::Data { left, decoder, .. } = &mut self.state {
                (*left, *decoder) = (bytes, new);
            }
            if bytes > 0 {
                return Ok(());
            }
            self.end_tensor(sink)?;
        }
    }

    fn end_tensor(&mut self, sink: &mut dyn Sink) -> Result<()> {
        if let State::Data { entries, next, decoder, .. } = &mut self.state {
            if let Some(decoder) = decoder.take() {
                sink.tensor(&entries[*next].info.name, decoder.finish())?;
            }
            *next += 1;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::weights::collect::{self, Collect};

    /// A file from a header and data.
    fn file(header: &str, data: &[u8]) -> Vec<u8> {
        let mut file = (header.len() as u64).to_le_bytes().to_vec();
        file.extend_from_slice(header.as_bytes());
        file.extend_from_slice(data);
        file
    }

    fn floats(values: &[f32]) -> Vec<u8> {
        values.iter().flat_map(|value| value.to_le_bytes()).collect()
    }

    fn read(bytes: &[u8], size: usize) -> Result<Collect> {
        collect::read("model.safetensors", bytes, size)
    }

    const TWO: &str = r#"{"__metadata__":{"format":"pt"},
        "a":{"dtype":"F32","shape":[2,2],"data_offsets":[0,16]},
        "skip.ids":{"dtype":"I64","shape":[1],"data_offsets":[16,24]},
        "empty":{"dtype":"F32","shape":[0,4],"data_offsets":[24,24]},
        "b":{"dtype":"F32","shape":[1],"data_offsets":[24,28]}}"#;

    fn two() -> Vec<u8> {
        let mut data = floats(&[1.0, 2.0, 3.0, 4.0]);
        data.extend_from_slice(&7i64.to_le_bytes());
        data.extend(floats(&[5.0]));
        file(TWO, &data)
    }

    #[test]
    fn any_chunking_gives_the_same_tensors() {
        let bytes = two();
        for size in 1..=bytes.len() {
            let sink = read(&bytes, size).expect("a valid file");
            assert_eq!(sink.tensors["a"], [1.0, 2.0, 3.0, 4.0], "chunks of {size}");
            assert_eq!(sink.tensors["b"], [5.0], "chunks of {size}");
            assert_eq!(sink.tensors["empty"], [0f32; 0], "chunks of {size}");
            assert!(!sink.tensors.contains_key("skip.ids"));
            assert_eq!(sink.infos.len(), 4);
        }
    }

    #[test]
    fn every_broken_rule_is_refused_by_name() {
        let header = |text: &str| file(text, &floats(&[0.0; 8]));
        let cases: Vec<(&str, Vec<u8>)> = vec![
            ("truncated", Vec::new()),
            ("truncated", two()[..5].to_vec()),
            ("truncated", two()[..40].to_vec()),
            ("truncated", two()[..two().len() - 1].to_vec()),
            ("trailing_bytes", [two(), vec![0]].concat()),
            ("header_length", b"<!doctype html><title>not here</title>".to_vec()),
            ("header_length", u64::MAX.to_le_bytes().to_vec()),
            ("header_length", 1u64.to_le_bytes().to_vec()),
            ("header", header("{\"a\": 1}")),
            ("header", header("not json at all")),
            ("header", file("\u{1}\u{2}\u{3}", &[])),
            ("header", header(r#"{"a":{"dtype":"F32","shape":[-1],"data_offsets":[0,4]}}"#)),
            ("header", header(r#"{"a":{"dtype":"F32","shape":[1]}}"#)),
            ("offsets", header(r#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}}"#)), // a hole
            ("offsets", header(r#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[4,0]}}"#)), // backwards
            (
                "offsets", // an overlap
                header(
                    r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"b":{"dtype":"F32","shape":[2],"data_offsets":[4,12]}}"#,
                ),
            ),
            ("size", header(r#"{"a":{"dtype":"F32","shape":[3],"data_offsets":[0,8]}}"#)),
            ("size", header(r#"{"a":{"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,0]}}"#)),
            ("size", header(r#"{"a":{"dtype":"F4","shape":[1],"data_offsets":[0,0]}}"#)), // half a byte
            ("dtype", header(r#"{"a":{"dtype":"Q8","shape":[8],"data_offsets":[0,8]}}"#)),
            ("dtype", header(r#"{"a":{"dtype":"U32","shape":[8],"data_offsets":[0,32]}}"#)),
        ];
        for (rule, bytes) in cases {
            for size in [1, 7, 1 << 20] {
                let error = read(&bytes, size).err().unwrap_or_else(|| panic!("{rule} was accepted"));
                assert_eq!(error.code(), Code::InvalidWeights, "{error}");
                assert!(error.message().starts_with(&format!("{rule}: ")), "{rule} in chunks of {size}: {error}");
            }
        }
    }

    #[test]
    fn a_tensor_as_large_as_the_address_space_is_refused_without_a_panic() {
        let count = u64::MAX / 64;
        let header = format!(r#"{{"a":{{"dtype":"F32","shape":[{count}],"data_offsets":[0,{}]}}}}"#, count * 4);
        let error = read(&file(&header, &[]), 64).err().expect("refused");
        assert_eq!(error.code(), Code::OutOfMemory, "{error}");
    }

    #[test]
    fn a_table_of_half_a_gigabyte_and_more_is_as_good_as_any() {
        // mGTE's words in f32: its size in bits does not fit into a page's 32-bit count.
        let header = r#"{"skip.words":{"dtype":"F32","shape":[250048,768],"data_offsets":[0,768147456]}}"#;
        let error = read(&file(header, &[0; 64]), 64).err().expect("it ends too early");
        assert!(error.message().starts_with("truncated"), "{error}");
    }

    #[test]
    fn many_empty_tensors_do_not_exhaust_the_stack() {
        let tensors: Vec<String> = (0..100_000)
            .map(|index| format!(r#""{index}":{{"dtype":"F32","shape":[0],"data_offsets":[0,0]}}"#))
            .collect();
        let sink = read(&file(&format!("{{{}}}", tensors.join(",")), &[]), 1 << 20).expect("a valid file");
        assert_eq!(sink.tensors.len(), 100_000);
    }
}
