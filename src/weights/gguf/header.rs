//! All of a GGUF file that stands before the tensors' values.

use std::collections::BTreeMap;

use crate::weights::{MAX_NAME, MAX_TENSORS, Refusal, fill, little_endian};

/// Longest header. That of a vocabulary of 250,000 pieces has some 10 MB.
const MAX_LENGTH: u64 = 64 << 20;
/// Longest string, in bytes: chat templates and licences are longer than names.
const MAX_STRING: u64 = 1 << 20;
/// Most keys.
const MAX_KEYS: u64 = 1 << 16;
/// Most values of a list that is kept. The largest vocabularies have 262,144 pieces.
const MAX_LIST: u64 = 1 << 20;
/// The lists that are kept, all below this.
const LISTS: &str = "tokenizer.ggml.";
const KEPT: [&str; 4] = ["tokens", "token_type", "scores", "precompiled_charsmap"];
/// Most dimensions of a tensor, as in ggml.
const MAX_RANK: u64 = 4;
/// Values of an array that are read at once.
const STEP: u64 = 1024;

const TEXT: u32 = 8;
const ARRAY: u32 = 9;

/// The value of a key, as far as it is of use.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    Count(u64),
    /// Below zero.
    Negative,
    Float(f64),
    Bool(bool),
    Text(Box<str>),
    Texts(Vec<Box<str>>),
    Ints(Vec<i32>),
    Floats(Vec<f32>),
    Bytes(Vec<u8>),
    /// An array that was passed over.
    Passed,
}

/// What the header says of a tensor; the fastest dimension comes first.
#[derive(Debug, Clone)]
pub struct Info {
    pub name: String,
    pub dims: Vec<u64>,
    pub kind: u32,
    pub offset: u64,
}

#[derive(Debug, Default)]
pub struct Header {
    pub values: BTreeMap<String, Value>,
    pub tensors: Vec<Info>,
    /// In bytes.
    pub length: u64,
}

impl Header {
    pub fn count(&self, key: &str) -> Option<u64> {
        match self.values.get(key)? {
            Value::Count(count) => Some(*count),
            _ => None,
        }
    }

    pub fn text(&self, key: &str) -> Option<&str> {
        match self.values.get(key)? {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    pub fn tensor(&self, name: &str) -> Option<&Info> {
        self.tensors.iter().find(|info| info.name == name)
    }
}

/// What a string is.
#[derive(Debug, Clone, Copy)]
enum Role {
    Key,
    Value,
    Item { left: u64 },
    Tensor,
}

/// What comes next in the file.
#[derive(Debug, Clone, Copy)]
enum Next {
    Start,
    Length(Role),
    Text(Role, u64),
    Kind,
    Scalar(u32),
    Array,
    Items { kind: u32, left: u64 },
    Rank,
    Tensor { rank: u64 },
    Done,
}

/// Bytes of a value, or the least that one takes.
fn size(kind: u32) -> Result<u64, Refusal> {
    match kind {
        0 | 1 | 7 => Ok(1),
        2 | 3 => Ok(2),
        4..=6 => Ok(4),
        TEXT | 10..=12 => Ok(8),
        ARRAY => Err(Refusal::new("nesting", "an array holds arrays")),
        _ => Err(Refusal::new("type", format!("a value has type {kind}, which the format does not know"))),
    }
}

/// Reads a header while its bytes arrive.
pub struct Scan {
    /// Whether the arrays of [`KEPT`] are kept.
    lists: bool,
    next: Next,
    pending: Vec<u8>,
    /// Keys and tensors that are still to come.
    keys: u64,
    tensors: u64,
    key: String,
    name: String,
    header: Header,
}

impl Scan {
    pub fn new(lists: bool) -> Self {
        Self {
            lists,
            next: Next::Start,
            pending: Vec::new(),
            keys: 0,
            tensors: 0,
            key: String::new(),
            name: String::new(),
            header: Header::default(),
        }
    }

    /// Takes the header's next bytes off `chunk`; gives it when it is complete.
    pub fn push(&mut self, chunk: &mut &[u8]) -> Result<Option<Header>, Refusal> {
        loop {
            let needed = match self.next {
                Next::Start => 24,
                Next::Length(_) => 8,
                Next::Text(_, length) => length,
                Next::Kind | Next::Rank => 4,
                Next::Scalar(kind) => size(kind)?,
                Next::Array => 12,
                Next::Items { kind, left } => size(kind)? * left.min(STEP),
                Next::Tensor { rank } => rank * 8 + 12,
                Next::Done => return Ok(Some(std::mem::take(&mut self.header))),
            };
            if self.header.length.saturating_add(needed) > MAX_LENGTH {
                return Err(Refusal::new("header_length", format!("it has more than {MAX_LENGTH} bytes")));
            }
            if !fill(&mut self.pending, chunk, needed as usize) {
                return Ok(None);
            }
            self.header.length += needed;
            let bytes = std::mem::take(&mut self.pending);
            self.next = self.read(&bytes)?;
        }
    }

    /// Reads what was waited for, and says what comes next.
    fn read(&mut self, bytes: &[u8]) -> Result<Next, Refusal> {
        match self.next {
            Next::Start => {
                if !bytes.starts_with(b"GGUF") {
                    return Err(Refusal::new("magic", "the file does not begin with GGUF"));
                }
                match little_endian(&bytes[4..8]) {
                    2 | 3 => {}
                    version if version & 0xffff == 0 => {
                        return Err(Refusal::new("byteorder", "the file is big-endian"));
                    }
                    version => return Err(Refusal::new("version", format!("{version} is neither 2 nor 3"))),
                }
                (self.tensors, self.keys) = (little_endian(&bytes[8..]), little_endian(&bytes[16..]));
                if self.tensors > MAX_TENSORS as u64 || self.keys > MAX_KEYS {
                    let message = format!("there are {} tensors and {} keys", self.tensors, self.keys);
                    return Err(Refusal::new("count", message));
                }
                Ok(self.item())
            }
            Next::Length(role) => {
                let most = if matches!(role, Role::Tensor) { MAX_NAME as u64 } else { MAX_STRING };
                match little_endian(bytes) {
                    length if length > most => {
                        Err(Refusal::new("string", format!("one has {length} bytes, more than {most}")))
                    }
                    length => Ok(Next::Text(role, length)),
                }
            }
            Next::Text(role, _) => {
                let text = std::str::from_utf8(bytes).map_err(|error| Refusal::new("string", error))?;
                match role {
                    Role::Key => {
                        self.key = text.to_owned();
                        Ok(Next::Kind)
                    }
                    Role::Tensor => {
                        self.name = text.to_owned();
                        Ok(Next::Rank)
                    }
                    Role::Value => self.keep(Value::Text(text.into())),
                    Role::Item { left } => {
                        if let Some(Value::Texts(texts)) = self.header.values.get_mut(&self.key) {
                            texts.push(text.into());
                        }
                        Ok(self.items(TEXT, left - 1))
                    }
                }
            }
            Next::Kind => match little_endian(bytes) as u32 {
                TEXT => Ok(Next::Length(Role::Value)),
                ARRAY => Ok(Next::Array),
                kind => size(kind).map(|_| Next::Scalar(kind)),
            },
            Next::Scalar(kind) => {
                let number = little_endian(bytes);
                let signed = |bits: u32| match (number << (64 - bits)) as i64 >> (64 - bits) {
                    value if value < 0 => Value::Negative,
                    value => Value::Count(value as u64),
                };
                self.keep(match kind {
                    1 => signed(8),
                    3 => signed(16),
                    5 => signed(32),
                    11 => signed(64),
                    // By way of the shortest decimal, as the configuration had it: 1e-12 and not 9.99999996e-13.
                    6 => Value::Float(f32::from_bits(number as u32).to_string().parse().unwrap_or(f64::NAN)),
                    12 => Value::Float(f64::from_bits(number)),
                    7 => Value::Bool(number != 0),
                    _ => Value::Count(number),
                })
            }
            Next::Array => {
                let (kind, count) = (little_endian(&bytes[..4]) as u32, little_endian(&bytes[4..]));
                let least = size(kind)?.checked_mul(count).and_then(|least| least.checked_add(self.header.length));
                if least.is_none_or(|least| least > MAX_LENGTH) {
                    return Err(Refusal::new("count", format!("{:?} has {count} values", self.key)));
                }
                let kept = self.lists && self.key.strip_prefix(LISTS).is_some_and(|name| KEPT.contains(&name));
                if kept && count > MAX_LIST {
                    let message = format!("{:?} has {count} values, more than {MAX_LIST}", self.key);
                    return Err(Refusal::new("count", message));
                }
                let length = count as usize;
                self.keep(match kind {
                    TEXT if kept => Value::Texts(Vec::with_capacity(length)),
                    0 | 1 if kept => Value::Bytes(Vec::with_capacity(length)),
                    4 | 5 if kept => Value::Ints(Vec::with_capacity(length)),
                    6 if kept => Value::Floats(Vec::with_capacity(length)),
                    _ => Value::Passed,
                })?;
                Ok(self.items(kind, count))
            }
            Next::Items { kind, left } => {
                match self.header.values.get_mut(&self.key) {
                    Some(Value::Bytes(values)) => values.extend_from_slice(bytes),
                    Some(Value::Ints(values)) => {
                        values.extend(bytes.chunks_exact(4).map(|bytes| little_endian(bytes) as u32 as i32));
                    }
                    Some(Value::Floats(values)) => {
                        values.extend(bytes.chunks_exact(4).map(|bytes| f32::from_bits(little_endian(bytes) as u32)));
                    }
                    _ => {}
                }
                Ok(self.items(kind, left - left.min(STEP)))
            }
            Next::Rank => match little_endian(bytes) {
                rank if rank > MAX_RANK => {
                    Err(Refusal::new("dims", format!("{:?} has {rank}, more than {MAX_RANK}", self.name)))
                }
                rank => Ok(Next::Tensor { rank }),
            },
            Next::Tensor { rank } => {
                let (dims, rest) = bytes.split_at(rank as usize * 8);
                self.header.tensors.push(Info {
                    name: std::mem::take(&mut self.name),
                    dims: dims.chunks_exact(8).map(little_endian).collect(),
                    kind: little_endian(&rest[..4]) as u32,
                    offset: little_endian(&rest[4..]),
                });
                self.tensors -= 1;
                Ok(self.item())
            }
            Next::Done => Ok(Next::Done),
        }
    }

    /// Between two keys or tensors.
    fn item(&self) -> Next {
        match (self.keys, self.tensors) {
            (0, 0) => Next::Done,
            (0, _) => Next::Length(Role::Tensor),
            _ => Next::Length(Role::Key),
        }
    }

    /// Inside an array, or behind it.
    fn items(&self, kind: u32, left: u64) -> Next {
        match (kind, left) {
            (_, 0) => self.item(),
            (TEXT, _) => Next::Length(Role::Item { left }),
            _ => Next::Items { kind, left },
        }
    }

    /// Ends a key with its value, or with the array that its values will go to.
    fn keep(&mut self, value: Value) -> Result<Next, Refusal> {
        if self.header.values.insert(self.key.clone(), value).is_some() {
            return Err(Refusal::new("duplicate", format!("the key {:?} is there twice", self.key)));
        }
        self.keys -= 1;
        Ok(self.item())
    }
}
