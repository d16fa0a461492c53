//! The safetensors format (<https://github.com/huggingface/safetensors#format>), read while the bytes arrive.
//!
//! Every rule of the format is checked before a tensor is touched: the header's length, names and
//! fields that come once, metadata of strings, offsets that are contiguous from zero (no overlap,
//! no hole), sizes that match shape and type, and a file that ends exactly where the last tensor
//! does. Every refusal names its rule. Sizes are counted in 64 bits, because a page's own are 32:
//! the format's crate refuses tensors of 512 MB there.
//!
//! Reading a header takes its own bytes and a bounded number of bounded entries, whatever it holds:
//! values go straight into the entries, and what is not needed is passed over without being kept.

use std::fmt;

use serde::{
    Deserialize, Deserializer,
    de::{Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor},
};
use serde_json::value::RawValue;

use super::{Decoder, Format, MAX_NAME, MAX_TENSORS, Sink, TensorInfo, take};
use crate::error::{Code, Error, Result};

/// The format's own limit on the header, in bytes.
const MAX_HEADER: u64 = 100_000_000;
/// Most dimensions of a tensor; weights have up to five.
const MAX_RANK: usize = 8;
/// How deep lists and objects nest. A header of today has three levels; the parser keeps a byte for
/// each.
const MAX_DEPTH: usize = 16;

/// The tensors as the header describes them.
struct Header<'a>(Vec<(String, Tensor<'a>)>);

impl<'de> Deserialize<'de> for Header<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Tensors;
        impl<'de> Visitor<'de> for Tensors {
            type Value = Header<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of tensors")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Header<'de>, A::Error> {
                let (mut tensors, mut has_metadata) = (Vec::new(), false);
                while let Some(key) = map.next_key::<&RawValue>()? {
                    // Not unescaped before its length is known: the parser's buffer would grow to
                    // it.
                    let key = Some(key.get()).filter(|key| key.len() <= 6 * MAX_NAME);
                    let name: Option<String> = key.and_then(|key| serde_json::from_str(key).ok());
                    let Some(name) = name.filter(|name| name.len() <= MAX_NAME) else {
                        return Err(A::Error::custom(format!("a name is no string of at most {MAX_NAME} bytes")));
                    };
                    if name == "__metadata__" {
                        if std::mem::replace(&mut has_metadata, true) {
                            return Err(A::Error::custom("__metadata__ is there twice"));
                        }
                        map.next_value::<Metadata>()?;
                        continue;
                    }
                    if tensors.len() == MAX_TENSORS {
                        return Err(A::Error::custom(format!("there are more than {MAX_TENSORS} tensors")));
                    }
                    let tensor = map.next_value().map_err(|error| A::Error::custom(format!("{name}: {error}")))?;
                    tensors.push((name, tensor));
                }
                Ok(Header(tensors))
            }
        }
        deserializer.deserialize_map(Tensors)
    }
}

/// The metadata, of which nothing is kept.
struct Metadata;

impl<'de> Deserialize<'de> for Metadata {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Strings;
        impl<'de> Visitor<'de> for Strings {
            type Value = Metadata;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of strings under __metadata__")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Metadata, A::Error> {
                while let Some((_, value)) = map.next_entry::<&RawValue, &RawValue>()? {
                    if !value.get().starts_with('"') {
                        return Err(A::Error::custom("__metadata__ holds a value that is no string"));
                    }
                }
                Ok(Metadata)
            }
        }
        deserializer.deserialize_map(Strings)
    }
}

/// The object under a tensor's name.
struct Tensor<'a> {
    dtype: &'a str,
    shape: Vec<u64>,
    offsets: [u64; 2],
}

impl<'de> Deserialize<'de> for Tensor<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Fields;
        impl<'de> Visitor<'de> for Fields {
            type Value = Tensor<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object with dtype, shape and data_offsets")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Tensor<'de>, A::Error> {
                let (mut dtype, mut shape, mut offsets) = (None, None, None);
                while let Some(key) = map.next_key::<&RawValue>()? {
                    let is_new = match key.get() {
                        "\"dtype\"" => dtype.replace(map.next_value::<&RawValue>()?.get()).is_none(),
                        "\"shape\"" => shape.replace(map.next_value::<Shape>()?.0).is_none(),
                        "\"data_offsets\"" => offsets.replace(map.next_value()?).is_none(),
                        _ => map.next_value::<IgnoredAny>().map(|_| true)?,
                    };
                    if !is_new {
                        return Err(A::Error::custom(format!("{} is there twice", key.get())));
                    }
                }
                let dtype = dtype.ok_or_else(|| A::Error::missing_field("dtype"))?;
                Ok(Tensor {
                    dtype: dtype.trim_matches('"'),
                    shape: shape.ok_or_else(|| A::Error::missing_field("shape"))?,
                    offsets: offsets.ok_or_else(|| A::Error::missing_field("data_offsets"))?,
                })
            }
        }
        deserializer.deserialize_map(Fields)
    }
}

/// A list of sizes.
struct Shape(Vec<u64>);

impl<'de> Deserialize<'de> for Shape {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Sizes;
        impl<'de> Visitor<'de> for Sizes {
            type Value = Shape;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of sizes")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Shape, A::Error> {
                let mut sizes = Vec::new();
                while let Some(size) = list.next_element()? {
                    if sizes.len() == MAX_RANK {
                        return Err(A::Error::custom(format!("there are more than {MAX_RANK} dimensions")));
                    }
                    sizes.push(size);
                }
                Ok(Shape(sizes))
            }
        }
        deserializer.deserialize_seq(Sizes)
    }
}

/// Whether lists and objects nest no deeper than [`MAX_DEPTH`].
fn is_shallow(json: &[u8]) -> bool {
    let (mut depth, mut is_quoted, mut is_escaped) = (0_usize, false, false);
    json.iter().all(|byte| {
        match byte {
            _ if is_escaped => is_escaped = false,
            b'\\' => is_escaped = is_quoted,
            b'"' => is_quoted = !is_quoted,
            b'[' | b'{' if !is_quoted => depth += 1,
            b']' | b'}' if !is_quoted => depth = depth.saturating_sub(1),
            _ => {}
        }
        depth <= MAX_DEPTH
    })
}

/// One tensor in file order: how it is stored, and where.
struct Entry {
    dtype: Box<str>,
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
    Data { infos: Vec<TensorInfo>, entries: Vec<Entry>, next: usize, left: u64, decoder: Option<Decoder> },
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
                let (mut bytes, length) = (Vec::new(), length as usize);
                // At once: a buffer that grows would for a moment be there twice.
                if bytes.try_reserve_exact(length).is_err() {
                    let message = format!("no memory for a header of {length} bytes");
                    return Err(Error::new(Code::OutOfMemory, &self.file, message));
                }
                self.state = State::Header { bytes, length: Some(length) };
                continue;
            };
            let taken = take(&mut chunk, (length - bytes.len()) as u64);
            bytes.extend_from_slice(taken);
            if bytes.len() < length {
                return Ok(());
            }
            let header = std::mem::take(bytes);
            let (infos, entries) = self.entries(&header)?;
            drop(header);
            sink.begin(&infos)?;
            self.state = State::Data { infos, entries, next: 0, left: 0, decoder: None };
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
            State::Data { infos, next, .. } => match infos.get(*next) {
                None => Ok(()),
                Some(info) => Err(self.broken("truncated", format!("the file ends inside {}", info.name))),
            },
        }
    }

    /// The tensors in the order of their bytes.
    fn entries(&self, header: &[u8]) -> Result<(Vec<TensorInfo>, Vec<Entry>)> {
        if !is_shallow(header) {
            return Err(self.broken("header", format!("it nests deeper than {MAX_DEPTH} levels")));
        }
        let Header(mut tensors) = serde_json::from_slice(header).map_err(|error| self.broken("header", error))?;
        let mut names: Vec<&str> = tensors.iter().map(|(name, _)| name.as_str()).collect();
        names.sort_unstable();
        if let Some(same) = names.windows(2).find(|pair| pair[0] == pair[1]) {
            return Err(self.broken("duplicate", format!("{} is there twice", same[0])));
        }
        tensors.sort_unstable_by_key(|(_, tensor)| tensor.offsets);
        let mut position = 0;
        let (mut infos, mut entries) = (Vec::with_capacity(tensors.len()), Vec::with_capacity(tensors.len()));
        for (name, Tensor { dtype, shape, offsets: [start, end] }) in tensors {
            if start != position || end < start {
                let message = format!("{name} lies at {start}..{end}, the tensor before it ends at {position}");
                return Err(self.broken("offsets", message));
            }
            position = end;
            let Some(width) = bits(dtype) else {
                let dtype: String = dtype.chars().take(MAX_NAME).collect();
                return Err(self.broken("dtype", format!("{name} is {dtype}, which the format does not know")));
            };
            let count = shape.iter().try_fold(1, |count: u64, &size| count.checked_mul(size));
            let size = count.and_then(|count| count.checked_mul(width));
            let sizes: Option<Vec<usize>> = shape.iter().map(|&size| usize::try_from(size).ok()).collect();
            let (Some(sizes), true) = (sizes, size.is_some() && (end - start).checked_mul(8) == size) else {
                let message = format!("{name} has {} bytes, not those of {shape:?}", end - start);
                return Err(self.broken("size", message));
            };
            infos.push(TensorInfo { name, shape: sizes, dtype: Format::named(dtype).map(Format::dtype) });
            entries.push(Entry { dtype: dtype.into(), bytes: end - start });
        }
        Ok((infos, entries))
    }

    /// Makes the decoder for tensor `next`, after those that have no bytes at all.
    fn start_tensor(&mut self, sink: &mut dyn Sink) -> Result<()> {
        loop {
            let State::Data { infos, entries, next, .. } = &self.state else {
                unreachable!("tensors follow the header")
            };
            let (Some(info), Some(entry)) = (infos.get(*next), entries.get(*next)) else {
                return Ok(());
            };
            let (name, bytes) = (&info.name, entry.bytes);
            let new = match sink.wants(name) {
                None => None,
                Some(wanted) => {
                    let Some(format) = Format::named(&entry.dtype) else {
                        return Err(self.broken("dtype", format!("{name} is {}, which no weight is", entry.dtype)));
                    };
                    Some(Decoder::new(name, format, wanted, info.row(), bytes)?)
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
        if let State::Data { infos, next, decoder, .. } = &mut self.state {
            if let Some(decoder) = decoder.take() {
                sink.tensor(&infos[*next].name, decoder.finish())?;
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
            ("header", header(r#"{"a":["F32",[1],[0,4]]}"#)),
            ("header", header(r#"{"a":{"dtype":"F32","dtype":"F32","shape":[1],"data_offsets":[0,4]}}"#)),
            ("header", header(r#"{"a":{"dtype":"F32","shape":[1,1,1,1,1,1,1,1,1],"data_offsets":[0,4]}}"#)),
            (
                "header",
                header(&format!(r#"{{"{}":{{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}}}"#, "a".repeat(300))),
            ),
            ("header", header(r#"{"__metadata__":[]}"#)),
            ("header", header(r#"{"__metadata__":{"format":1}}"#)),
            ("header", header(r#"{"__metadata__":{},"__metadata__":{}}"#)),
            ("header", header(&format!(r#"{{"__metadata__":{{"a":{}}}}}"#, "[".repeat(99)))),
            ("header", file(&many(MAX_TENSORS + 1), &[])),
            (
                "duplicate",
                header(
                    r#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"\u0061":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}}"#,
                ),
            ),
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
            ("dtype", header(r#"{"a":{"dtype":7,"shape":[8],"data_offsets":[0,8]}}"#)),
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

    /// The header of so many empty tensors.
    fn many(count: usize) -> String {
        let tensors: Vec<String> = (0..count)
            .map(|index| format!(r#""{index}":{{"dtype":"F32","shape":[0],"data_offsets":[0,0]}}"#))
            .collect();
        format!("{{{}}}", tensors.join(","))
    }

    #[test]
    fn many_empty_tensors_do_not_exhaust_the_stack() {
        let sink = read(&file(&many(MAX_TENSORS), &[]), 1 << 20).expect("a valid file");
        assert_eq!(sink.tensors.len(), MAX_TENSORS);
    }

    /// As the format's crate does: a later version of the format may have more.
    #[test]
    fn fields_and_names_that_are_written_otherwise_are_read() {
        let header = r#"{ "__metadata__" : {"a\"b": "\n"}, "\u0061":{"since":[{"v":[1]}],"data_offsets":[0,4],"shape":[1],"dtype":"F32"} }  "#;
        assert_eq!(read(&file(header, &floats(&[2.0])), 5).expect("a valid file").tensors["a"], [2.0]);
    }
}
