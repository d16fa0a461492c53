//! GGUF (<https://github.com/ggml-org/ggml/blob/master/docs/gguf.md>), versions 2 and 3, read while the bytes arrive.
//!
//! Tensors appear under the names that transformers gives them, so that a family need not know where its weights come from. Two
//! things are undone that llama.cpp's converter does: dimensions are turned round, and the rows of RoBERTa's position table that
//! no token uses, which the converter cuts off, are there again, as zeros. [`Describer`] makes the configuration and the
//! tokenizer that a file carries into those that other models have beside their weights.

mod blocks;
mod describe;
mod header;

use std::{collections::BTreeSet, fmt};

use super::{Decoder, Dtype, Format, Refusal, Sink, TensorInfo, Values, take};
use crate::error::{Code, Error, Result};
use blocks::{Blocks, Kind};
use header::{Header, Info, Scan};

pub use describe::{Described, Describer};

/// Where a file does not say it.
const ALIGNMENT: u64 = 32;
/// Largest alignment; files have 32.
const MAX_ALIGNMENT: u64 = 1 << 16;
/// RoBERTa's padding token where a file does not say it, and the largest that is believed: so many rows are added.
const PADDING: u64 = 1;
const MAX_PADDING: u64 = 63;

/// Values and bytes of a block of each type in the format.
fn block(kind: u32) -> Option<(u64, u64)> {
    Some(match kind {
        0 | 26 => (1, 4),
        1 | 25 | 30 => (1, 2),
        24 => (1, 1),
        27 | 28 => (1, 8),
        2 | 20 => (32, 18),
        3 => (32, 20),
        6 => (32, 22),
        7 => (32, 24),
        8 => (32, 34),
        9 => (32, 40),
        10 => (256, 84),
        11 | 21 => (256, 110),
        12 => (256, 144),
        13 => (256, 176),
        14 => (256, 210),
        15 => (256, 292),
        16 | 35 => (256, 66),
        17 => (256, 74),
        18 => (256, 98),
        19 => (256, 50),
        22 => (256, 82),
        23 => (256, 136),
        29 => (256, 56),
        34 => (256, 54),
        39 => (32, 17),
        40 => (64, 36),
        41 => (128, 18),
        _ => return None,
    })
}

/// Types that are kept as they are, or nearly.
fn plain(kind: u32) -> Option<Format> {
    Some(match kind {
        0 => Format::F32,
        1 => Format::F16,
        30 => Format::Bf16,
        _ => return None,
    })
}

/// The families that are known here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Family {
    Bert,
    /// With the padding token, from which positions count.
    Roberta(u64),
    NomicBert,
}

impl Family {
    fn of(header: &Header, file: &str) -> Result<Self> {
        let architecture = header
            .text("general.architecture")
            .ok_or_else(|| Refusal::new("architecture", "the file does not say what it holds").at(file))?;
        match architecture {
            "nomic-bert" => Ok(Family::NomicBert),
            // The converter calls RoBERTa and XLM-R bert as well; their tokenizers tell them apart.
            "bert" => match header.text("tokenizer.ggml.model") {
                Some("t5" | "gpt2") => match header.count("tokenizer.ggml.padding_token_id").unwrap_or(PADDING) {
                    padding if padding > MAX_PADDING => {
                        Err(Refusal::new("padding", format!("{padding} is no padding token of RoBERTa")).at(file))
                    }
                    padding => Ok(Family::Roberta(padding)),
                },
                _ => Ok(Family::Bert),
            },
            other => Err(Error::new(
                Code::UnsupportedModel,
                file,
                format!("architecture {other:?} is not supported; supported: bert, nomic-bert"),
            )),
        }
    }

    /// A tensor's name in transformers; names that are not known stay as they are.
    fn name(self, name: &str) -> String {
        let Some((module, field @ ("weight" | "bias"))) = name.rsplit_once('.') else {
            return name.to_owned();
        };
        match self.module(module) {
            Some(module) => format!("{module}.{field}"),
            None => name.to_owned(),
        }
    }

    fn module(self, module: &str) -> Option<String> {
        let nomic = self == Family::NomicBert;
        let fixed = match module {
            "token_embd" => "embeddings.word_embeddings",
            "position_embd" => "embeddings.position_embeddings",
            "token_types" => "embeddings.token_type_embeddings",
            "token_embd_norm" if nomic => "emb_ln",
            "token_embd_norm" => "embeddings.LayerNorm",
            "cls" if self.is_roberta() => "classifier.dense",
            "cls.output" if self.is_roberta() => "classifier.out_proj",
            "cls.output" => "classifier",
            _ => {
                let (layer, part) = module.strip_prefix("blk.")?.split_once('.')?;
                let layer: u32 = layer.parse().ok()?;
                return Some(if nomic {
                    let part = match part {
                        "attn_qkv" => "attn.Wqkv",
                        "attn_output" => "attn.out_proj",
                        "attn_output_norm" => "norm1",
                        "ffn_up" => "mlp.fc11",
                        "ffn_gate" => "mlp.fc12",
                        "ffn_down" => "mlp.fc2",
                        "layer_output_norm" => "norm2",
                        _ => return None,
                    };
                    format!("encoder.layers.{layer}.{part}")
                } else {
                    let part = match part {
                        "attn_q" => "attention.self.query",
                        "attn_k" => "attention.self.key",
                        "attn_v" => "attention.self.value",
                        "attn_output" => "attention.output.dense",
                        "attn_output_norm" => "attention.output.LayerNorm",
                        "ffn_up" => "intermediate.dense",
                        "ffn_down" => "output.dense",
                        "layer_output_norm" => "output.LayerNorm",
                        _ => return None,
                    };
                    format!("encoder.layer.{layer}.{part}")
                });
            }
        };
        Some(fixed.to_owned())
    }

    fn is_roberta(self) -> bool {
        matches!(self, Family::Roberta(_))
    }

    /// Rows that the converter cut off the beginning of a tensor.
    fn cut(self, name: &str) -> u64 {
        match self {
            Family::Roberta(padding) if name == "position_embd.weight" => padding + 1,
            _ => 0,
        }
    }
}

/// Rows and width of a matrix. The converter used to drop a dimension of one.
fn shape(info: &Info) -> Vec<u64> {
    let mut shape: Vec<u64> = info.dims.iter().rev().copied().collect();
    if shape.len() == 1 && matches!(&*info.name, "token_types.weight" | "cls.output.weight") {
        shape.insert(0, 1);
    }
    shape
}

/// One tensor in file order.
struct Entry {
    info: TensorInfo,
    kind: u32,
    bytes: u64,
    /// All values, and those of them that are zeros before the file's own.
    count: u64,
    zeros: usize,
}

impl Entry {
    fn new(info: &Info, family: Family) -> Result<Self, Refusal> {
        let Some((values, bytes)) = block(info.kind) else {
            let message = format!("{:?} has type {}, which the format does not know", info.name, info.kind);
            return Err(Refusal::new("type", message));
        };
        let refused = || Refusal::new("size", format!("{:?} of {:?} cannot be", info.name, info.dims));
        let stored = info.dims.iter().try_fold(1, |count: u64, &size| count.checked_mul(size)).ok_or_else(refused)?;
        if !info.dims.first().unwrap_or(&1).is_multiple_of(values) {
            return Err(refused());
        }
        let mut shape = shape(info);
        let row = shape.last().copied().unwrap_or(1);
        let cut = family.cut(&info.name);
        if let (Some(rows), true) = (shape.first_mut(), cut > 0) {
            *rows = rows.checked_add(cut).ok_or_else(refused)?;
        }
        let zeros = cut.checked_mul(row).ok_or_else(refused)?;
        let count = stored.checked_add(zeros).ok_or_else(refused)?;
        // In bytes as well, of the longest type that is read.
        if count.checked_mul(4).is_none() || zeros.checked_mul(4).is_none_or(|zeros| usize::try_from(zeros).is_err()) {
            return Err(refused());
        }
        let shape: Option<Vec<usize>> = shape.iter().map(|&size| usize::try_from(size).ok()).collect();
        // Half precision holds what blocks of up to eight bits with a scale of sixteen hold, but for its last bits.
        let dtype = plain(info.kind).map(Format::dtype).or(Kind::named(info.kind).map(|_| Dtype::F16));
        Ok(Self {
            info: TensorInfo { name: family.name(&info.name), shape: shape.ok_or_else(refused)?, dtype },
            kind: info.kind,
            bytes: (stored / values).checked_mul(bytes).ok_or_else(refused)?,
            count,
            zeros: zeros as usize,
        })
    }
}

/// The tensors in the order of their bytes.
fn entries(header: &Header, family: Family, alignment: u64) -> Result<Vec<Entry>, Refusal> {
    let mut names = BTreeSet::new();
    let mut position: u64 = 0;
    header
        .tensors
        .iter()
        .map(|info| {
            let entry = Entry::new(info, family)?;
            if !names.insert(entry.info.name.clone()) {
                return Err(Refusal::new("duplicate", format!("the tensor {:?} is there twice", info.name)));
            }
            if info.offset != position {
                let message = format!("{:?} lies at {}, not at {position}", info.name, info.offset);
                return Err(Refusal::new("offsets", message));
            }
            let end = position.checked_add(entry.bytes).and_then(|end| end.checked_next_multiple_of(alignment));
            position = end.ok_or_else(|| Refusal::new("size", format!("{:?} ends nowhere", info.name)))?;
            Ok(entry)
        })
        .collect()
}

enum Body {
    /// Not wanted.
    Passed,
    Plain(Decoder),
    Blocks(Box<Blocks>),
}

impl Body {
    fn new(entry: &Entry, wanted: Option<Dtype>) -> Result<Self> {
        let (name, width) = (&entry.info.name, entry.info.row());
        let Some(wanted) = wanted else {
            return Ok(Body::Passed);
        };
        if let Some(format) = plain(entry.kind) {
            // Zeros are the same bytes in every type of floating point.
            let mut missing = entry.zeros * format.bytes();
            let mut decoder = Decoder::new(name, format, wanted, width, entry.count * format.bytes() as u64)?;
            while missing > 0 {
                let part = missing.min(4096);
                decoder.push(&[0; 4096][..part])?;
                missing -= part;
            }
            return Ok(Body::Plain(decoder));
        }
        match Kind::named(entry.kind) {
            Some(kind) => {
                let blocks = Blocks::new(name, kind, wanted, width, entry.count, entry.zeros)?;
                Ok(Body::Blocks(Box::new(blocks)))
            }
            None => Err(Error::new(
                Code::InvalidWeights,
                name,
                format!(
                    "type: {} is none of those that can be read: F32, F16, BF16, Q4_0 to Q8_0, Q2_K to Q6_K",
                    entry.kind
                ),
            )),
        }
    }

    fn push(&mut self, bytes: &[u8]) -> Result<()> {
        match self {
            Body::Passed => Ok(()),
            Body::Plain(decoder) => decoder.push(bytes),
            Body::Blocks(blocks) => blocks.push(bytes),
        }
    }

    fn finish(self) -> Result<Option<Values>> {
        match self {
            Body::Passed => Ok(None),
            Body::Plain(decoder) => Ok(Some(decoder.finish())),
            Body::Blocks(blocks) => blocks.finish().map(Some),
        }
    }
}

enum State {
    Header(Scan),
    /// Inside the data; `next` is the tensor under way, behind `padding` and with `left` bytes missing.
    Data {
        entries: Vec<Entry>,
        next: usize,
        padding: u64,
        left: u64,
        body: Body,
    },
}

/// A parser to push bytes into, in chunks of any size.
pub struct Reader {
    file: String,
    alignment: u64,
    state: State,
}

impl Reader {
    /// A reader for a file whose name appears in errors.
    pub fn new(file: &str) -> Self {
        Self { file: file.to_owned(), alignment: ALIGNMENT, state: State::Header(Scan::new(false)) }
    }

    fn broken(&self, rule: &'static str, message: impl fmt::Display) -> Error {
        Refusal::new(rule, message).at(&self.file)
    }

    /// Takes the next bytes of the file and gives each tensor that is complete to `sink`.
    pub fn push(&mut self, mut chunk: &[u8], sink: &mut dyn Sink) -> Result<()> {
        if let State::Header(scan) = &mut self.state {
            let Some(header) = scan.push(&mut chunk).map_err(|refusal| refusal.at(&self.file))? else {
                return Ok(());
            };
            self.begin(&header, sink)?;
        }
        while !chunk.is_empty() {
            let State::Data { entries, next, padding, left, body } = &mut self.state else {
                unreachable!("the header is complete")
            };
            *padding -= take(&mut chunk, *padding).len() as u64;
            if *padding > 0 || chunk.is_empty() {
                break;
            }
            if *next == entries.len() {
                return Err(self.broken("trailing_bytes", "the file goes on after its last tensor"));
            }
            let taken = take(&mut chunk, *left);
            body.push(taken)?;
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
            State::Header(_) => Err(self.broken("truncated", "the file ends inside its header")),
            State::Data { entries, next, .. } => match entries.get(*next) {
                // Zeros up to the alignment may follow the last tensor, or not.
                None => Ok(()),
                Some(entry) => Err(self.broken("truncated", format!("the file ends inside {}", entry.info.name))),
            },
        }
    }

    fn begin(&mut self, header: &Header, sink: &mut dyn Sink) -> Result<()> {
        self.alignment = alignment(header).map_err(|refusal| refusal.at(&self.file))?;
        let family = Family::of(header, &self.file)?;
        let entries = entries(header, family, self.alignment).map_err(|refusal| refusal.at(&self.file))?;
        let infos: Vec<TensorInfo> = entries.iter().map(|entry| entry.info.clone()).collect();
        sink.begin(&infos)?;
        let padding = header.length.next_multiple_of(self.alignment) - header.length;
        self.state = State::Data { entries, next: 0, padding, left: 0, body: Body::Passed };
        self.start_tensor(sink)
    }

    /// Makes the body for tensor `next`, after those that have no bytes at all.
    fn start_tensor(&mut self, sink: &mut dyn Sink) -> Result<()> {
        loop {
            let State::Data { entries, next, left, body, .. } = &mut self.state else {
                unreachable!("tensors follow the header")
            };
            let Some(entry) = entries.get(*next) else {
                return Ok(());
            };
            (*left, *body) = (entry.bytes, Body::new(entry, sink.wants(&entry.info.name))?);
            if entry.bytes > 0 {
                return Ok(());
            }
            self.end_tensor(sink)?;
        }
    }

    fn end_tensor(&mut self, sink: &mut dyn Sink) -> Result<()> {
        let alignment = self.alignment;
        if let State::Data { entries, next, padding, body, .. } = &mut self.state {
            let entry = &entries[*next];
            if let Some(values) = std::mem::replace(body, Body::Passed).finish()? {
                sink.tensor(&entry.info.name, values)?;
            }
            *padding += entry.bytes.next_multiple_of(alignment) - entry.bytes;
            *next += 1;
        }
        Ok(())
    }
}

fn alignment(header: &Header) -> Result<u64, Refusal> {
    let key = "general.alignment";
    match header.values.contains_key(key) {
        false => Ok(ALIGNMENT),
        true => match header.count(key) {
            Some(alignment) if alignment.is_power_of_two() && alignment <= MAX_ALIGNMENT => Ok(alignment),
            _ => Err(Refusal::new("alignment", format!("it is no power of two up to {MAX_ALIGNMENT}"))),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::weights::collect::{self, Collect};

    fn read(bytes: &[u8], size: usize) -> Result<Collect> {
        collect::read("model.gguf", bytes, size)
    }

    fn text(text: &str) -> Vec<u8> {
        [&(text.len() as u64).to_le_bytes()[..], text.as_bytes()].concat()
    }

    fn key(name: &str, kind: u32, value: &[u8]) -> Vec<u8> {
        [text(name), kind.to_le_bytes().to_vec(), value.to_vec()].concat()
    }

    fn tensor(name: &str, dims: &[u64], kind: u32, offset: u64) -> Vec<u8> {
        let dims: Vec<u8> = dims.iter().flat_map(|size| size.to_le_bytes()).collect();
        let rank = (dims.len() as u32 / 8).to_le_bytes().to_vec();
        [text(name), rank, dims, kind.to_le_bytes().to_vec(), offset.to_le_bytes().to_vec()].concat()
    }

    fn start(tensors: u64, keys: u64) -> Vec<u8> {
        [b"GGUF\x03\0\0\0", &tensors.to_le_bytes()[..], &keys.to_le_bytes()].concat()
    }

    fn file(keys: &[Vec<u8>], tensors: &[Vec<u8>], data: &[u8]) -> Vec<u8> {
        let start = start(tensors.len() as u64, keys.len() as u64);
        let mut file = [start, keys.concat(), tensors.concat()].concat();
        file.resize(file.len().next_multiple_of(32), 0);
        file.extend_from_slice(data);
        file
    }

    fn bert() -> Vec<u8> {
        key("general.architecture", 8, &text("bert"))
    }

    fn floats(values: &[f32]) -> Vec<u8> {
        values.iter().flat_map(|value| value.to_le_bytes()).collect()
    }

    /// A small file of each kind of tensor.
    fn several(tokenizer: &str) -> Vec<u8> {
        let keys = [
            bert(),
            key("tokenizer.ggml.model", 8, &text(tokenizer)),
            key("ids", 9, &[5, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
        ];
        let half = |value: f32| half::f16::from_f32(value).to_le_bytes().to_vec();
        let mut data = floats(&[1.0, 2.0, 3.0, 4.0]);
        data.resize(32, 0);
        data.extend([half(0.5), (0..32).collect()].concat());
        data.resize(96, 0);
        data.extend([half(7.0), half(8.0)].concat());
        let tensors = [
            tensor("position_embd.weight", &[2, 2], 0, 0),
            tensor("blk.3.attn_q.weight", &[32, 1], 8, 32),
            tensor("skip.ids", &[0, 4], 26, 96),
            tensor("token_types.weight", &[2], 1, 96),
        ];
        file(&keys, &tensors, &data)
    }

    #[test]
    fn any_chunking_gives_the_same_tensors() {
        for (tokenizer, positions) in [("bert", 2), ("t5", 4)] {
            let bytes = several(tokenizer);
            for size in 1..=bytes.len() {
                let sink = read(&bytes, size).expect("a valid file");
                let zeros = vec![0.0; 2 * positions - 4];
                let wanted = [zeros, vec![1.0, 2.0, 3.0, 4.0]].concat();
                assert_eq!(sink.tensors["embeddings.position_embeddings.weight"], wanted, "chunks of {size}");
                let wanted: Vec<f32> = (0..32).map(|value| value as f32 * 0.5).collect();
                assert_eq!(sink.tensors["encoder.layer.3.attention.self.query.weight"], wanted);
                assert_eq!(sink.tensors["embeddings.token_type_embeddings.weight"], [7.0, 8.0]);
                assert_eq!(sink.infos[0].shape, [positions, 2]);
                assert_eq!(sink.infos[3].shape, [1, 2]);
                assert_eq!((sink.tensors.len(), sink.infos.len()), (3, 4));
            }
        }
    }

    #[test]
    fn padding_may_follow_the_last_tensor_or_not() {
        let mut bytes = several("bert");
        for _ in 0..28 {
            bytes.push(0);
            assert!(read(&bytes, 5).is_ok());
        }
        bytes.push(0);
        assert!(read(&bytes, 5).err().expect("refused").message().starts_with("trailing_bytes"));
    }

    #[test]
    fn every_broken_rule_is_refused_by_name() {
        let one = |tensor: Vec<u8>| file(&[bert()], &[tensor], &floats(&[0.0; 8]));
        let keyed = |value: Vec<u8>| file(&[bert(), value], &[], &[]);
        let array = |kind: u32, count: u64| [kind.to_le_bytes().to_vec(), count.to_le_bytes().to_vec()].concat();
        let patched = |at: usize, bytes: &[u8]| {
            let mut file = several("bert");
            file[at..at + bytes.len()].copy_from_slice(bytes);
            file
        };
        let cases: Vec<(&str, Vec<u8>)> = vec![
            ("truncated", Vec::new()),
            ("truncated", several("bert")[..30].to_vec()),
            ("truncated", several("bert")[..several("bert").len() - 1].to_vec()),
            ("magic", b"<!doctype html><title>not here</title>".to_vec()),
            ("version", patched(4, &[1])),
            ("version", patched(4, &[4])),
            ("byteorder", patched(4, &[0, 0, 0, 3])),
            ("count", start(1 << 17, 0)),
            ("count", start(0, u64::MAX)),
            ("count", keyed(key("a", 9, &array(0, u64::MAX)))),
            ("count", keyed(key("a", 9, &array(8, 1 << 30)))),
            ("count", keyed(key("a", 9, &array(12, u64::MAX / 8 + 1)))),
            ("string", keyed(key("a", 8, &u64::MAX.to_le_bytes()))),
            ("string", keyed(key("a", 8, &[1, 0, 0, 0, 0, 0, 0, 0, 0xff]))),
            ("string", [start(0, 1), u64::MAX.to_le_bytes().to_vec()].concat()),
            ("type", keyed(key("a", 13, &[0; 8]))),
            ("type", keyed(key("a", 9, &array(99, 1)))),
            ("nesting", keyed(key("a", 9, &array(9, 1)))),
            ("duplicate", keyed(bert())),
            ("alignment", keyed(key("general.alignment", 4, &[0; 4]))),
            ("alignment", keyed(key("general.alignment", 4, &[33, 0, 0, 0]))),
            ("alignment", keyed(key("general.alignment", 4, &[0, 0, 0, 0x80]))),
            ("alignment", keyed(key("general.alignment", 8, &text("32")))),
            ("architecture", file(&[], &[], &[])),
            ("dims", one(tensor("a", &[1; 5], 0, 0))),
            ("dims", [start(1, 0), text("a"), u32::MAX.to_le_bytes().to_vec()].concat()),
            ("type", one(tensor("a", &[1], 4, 0))),
            ("type", one(tensor("a", &[1], u32::MAX, 0))),
            ("type", one(tensor("a", &[256], 16, 0))), // known, and not read
            ("size", one(tensor("a", &[u64::MAX, 2], 0, 0))),
            ("size", one(tensor("a", &[u64::MAX], 0, 0))),
            ("size", one(tensor("a", &[33], 8, 0))),
            ("size", one(tensor("a", &[16, 2], 8, 0))), // a block across two rows
            ("offsets", one(tensor("a", &[1], 0, 32))),
            ("offsets", one(tensor("a", &[1], 0, u64::MAX))),
            ("offsets", file(&[bert()], &[tensor("a", &[1], 0, 0), tensor("b", &[1], 0, 4)], &floats(&[0.0; 16]))),
            ("duplicate", file(&[bert()], &[tensor("a", &[1], 0, 0), tensor("a", &[1], 0, 32)], &floats(&[0.0; 16]))),
            (
                "padding",
                file(
                    &[
                        bert(),
                        key("tokenizer.ggml.model", 8, &text("t5")),
                        key("tokenizer.ggml.padding_token_id", 4, &[0xff; 4]),
                    ],
                    &[],
                    &[],
                ),
            ),
        ];
        for (rule, bytes) in cases {
            for size in [1, 7, 1 << 20] {
                let error = read(&bytes, size).err().unwrap_or_else(|| panic!("{rule} was accepted"));
                assert_eq!(error.code(), Code::InvalidWeights, "{error}");
                assert!(error.message().starts_with(&format!("{rule}: ")), "{rule} in chunks of {size}: {error}");
            }
        }
        let long = vec![key("a", 9, &[array(8, 100), text(&"a".repeat(1 << 20)).repeat(100)].concat())];
        let error = read(&file(&long, &[], &[]), 1 << 20).err().expect("refused");
        assert!(error.message().starts_with("header_length"), "{error}");
    }

    #[test]
    fn an_architecture_that_is_not_known_is_named() {
        let error = read(&file(&[key("general.architecture", 8, &text("llama"))], &[], &[]), 7).err().expect("refused");
        assert_eq!(error.code(), Code::UnsupportedModel);
        assert!(error.message().contains("llama") && error.message().contains("nomic-bert"), "{error}");
    }

    #[test]
    fn a_tensor_as_large_as_the_address_space_is_refused_without_a_panic() {
        for kind in [0, 8] {
            let bytes = file(&[bert()], &[tensor("a", &[1 << 58], kind, 0)], &[0; 64]);
            let error = read(&bytes, 64).err().expect("refused");
            assert_eq!(error.code(), Code::OutOfMemory, "{error}");
        }
    }
}
