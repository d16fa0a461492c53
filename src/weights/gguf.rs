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
use blocks::Blocks;
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
    /// All values, with those that are zeros before the file's own.
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
        let zeros = cut.checked_mul(row).and_then(|zeros| usize::try_from(zeros).ok()).ok_or_else(refused)?;
        let shape: Option<Vec<usize>> = shape.iter().map(|&size| usize::try_from(size).ok()).collect();
        // Half precision holds what blocks of up to eight bits with a scale of sixteen hold, but for its last bits.
        let dtype = plain(info.kind).map(Format::dtype).or(blocks::named(info.kind).map(|_| Dtype::F16));
        Ok(Self {
            info: TensorInfo { name: family.name(&info.name), shape: shape.ok_or_else(refused)?, dtype },
            kind: info.kind,
            bytes: (stored / values).checked_mul(bytes).ok_or_else(refused)?,
            count: stored.checked_add(zeros as u64).ok_or_else(refused)?,
            zeros,
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
        match blocks::named(entry.kind) {
            Some(dtype) => {
                let blocks = Blocks::new(name, dtype, wanted, width, entry.count, entry.zeros)?;
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
    pub fn push(&mut self, mut chunk: &[u8], sink: &mut impl Sink) -> Result<()> {
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

    fn begin(&mut self, header: &Header, sink: &mut impl Sink) -> Result<()> {
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
    fn start_tensor(&mut self, sink: &mut impl Sink) -> Result<()> {
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

    fn end_tensor(&mut self, sink: &mut impl Sink) -> Result<()> {
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
