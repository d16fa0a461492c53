//! What torch writes since 1.6: a zip file with the pickle first and one entry for each storage, all of them stored as they are.
//!
//! Read from front to back, without the directory at the end. torch does not write the size of an entry before the entry, but it can
//! be known: the pickle ends with an opcode and says how long each storage is, and the few entries that are neither are short
//! enough to look for the descriptor behind them. Checksums are not compared; torch can be told not to compute them.

use super::{
    machine::Machine,
    tensors::{Pull, Tensors},
};
use crate::{
    error::Result,
    weights::{Refusal, Sink, fill, little_endian, take},
};

const ENTRY: &[u8] = b"PK\x03\x04";
/// Behind an entry's data; after it a checksum, and its compressed and its whole size in four or eight bytes.
const DESCRIPTOR: &[u8] = b"PK\x07\x08";
const DIRECTORY: &[u8] = b"PK\x01\x02";
const END: &[u8] = b"PK\x05\x06";
/// The end of the directory, which has no comment in torch's files.
const END_SIZE: usize = 22;
/// The fixed part of an entry's header, behind its signature.
const HEADER: usize = 26;
/// Longest entry that is neither the pickle nor a storage nor says how long it is.
const MAX_SMALL: usize = 64 << 10;
/// Where a size that needs 64 bits is found in the extra field instead.
const SIZE_ELSEWHERE: u64 = 0xffff_ffff;

#[derive(Default)]
struct Entry {
    name: String,
    /// None where only a descriptor behind the entry says it.
    size: Option<u64>,
    descriptor: bool,
}

impl Entry {
    /// What follows its `size` bytes.
    fn after(&self, size: u64) -> State {
        if self.descriptor { State::Descriptor { size } } else { State::Signature }
    }

    /// Whether it says the order of bytes in storages.
    fn is_byteorder(&self) -> bool {
        self.name.rsplit('/').next() == Some("byteorder")
    }
}

enum State {
    Signature,
    Header,
    /// Name and extra field, of which the header has the lengths.
    Name {
        header: Vec<u8>,
    },
    Pickle {
        machine: Machine,
        read: u64,
    },
    Storage {
        pull: Pull,
        left: u64,
    },
    /// An entry that says its size.
    Known {
        left: u64,
    },
    /// An entry that does not, up to its descriptor.
    Small,
    Descriptor {
        size: u64,
    },
    /// The directory and all behind it, of which the buffer has the end.
    Directory,
}

pub struct Walk {
    state: State,
    buffer: Vec<u8>,
    entry: Entry,
    /// What stands before `data.pkl`, with the slash.
    prefix: Option<String>,
    tensors: Option<Tensors>,
}

impl Walk {
    pub fn new() -> Self {
        Self { state: State::Signature, buffer: Vec::new(), entry: Entry::default(), prefix: None, tensors: None }
    }

    pub fn push(&mut self, file: &str, mut chunk: &[u8], sink: &mut dyn Sink) -> Result<()> {
        let at = |refusal: Refusal| refusal.at(file);
        while !chunk.is_empty() {
            match &mut self.state {
                State::Signature => {
                    if fill(&mut self.buffer, &mut chunk, 4) {
                        self.state = self.signed(sink).map_err(at)?;
                        self.buffer.clear();
                    }
                }
                State::Header => {
                    if fill(&mut self.buffer, &mut chunk, HEADER) {
                        self.state = State::Name { header: std::mem::take(&mut self.buffer) };
                    }
                }
                State::Name { header } => {
                    let (name, extra) = (little_endian(&header[22..24]), little_endian(&header[24..26]));
                    if fill(&mut self.buffer, &mut chunk, (name + extra) as usize) {
                        let header = std::mem::take(header);
                        self.state = self.entered(&header, name as usize, sink).map_err(at)?;
                        self.buffer.clear();
                    }
                }
                State::Pickle { machine, read } => {
                    let visible = take(&mut { chunk }, self.entry.size.unwrap_or(u64::MAX) - *read);
                    let mut rest = visible;
                    let pickled = machine.push(&mut rest).map_err(at)?;
                    let taken = visible.len() - rest.len();
                    chunk = &chunk[taken..];
                    *read += taken as u64;
                    let whole = self.entry.size.is_none_or(|size| size == *read);
                    match pickled {
                        Some(_) if !whole => {
                            return Err(at(Refusal::new("size", "the pickle ends before its entry does")));
                        }
                        None if whole && self.entry.size.is_some() => {
                            return Err(at(Refusal::new("size", "the pickle does not end where its entry does")));
                        }
                        None => {}
                        Some(pickled) => {
                            self.state = self.entry.after(*read);
                            let tensors = self.tensors.insert(Tensors::new(&pickled).map_err(at)?);
                            sink.begin(&tensors.infos())?;
                        }
                    }
                }
                State::Storage { pull, left } => {
                    let bytes = take(&mut chunk, *left);
                    *left -= bytes.len() as u64;
                    if let Some(tensors) = &self.tensors {
                        tensors.push(pull, bytes, sink)?;
                        if *left == 0 {
                            self.state = self.entry.after(tensors.bytes(pull.store));
                        }
                    }
                }
                State::Known { left } => {
                    let bytes = take(&mut chunk, *left);
                    *left -= bytes.len() as u64;
                    if self.entry.is_byteorder() {
                        let room = MAX_SMALL.saturating_sub(self.buffer.len());
                        self.buffer.extend_from_slice(&bytes[..bytes.len().min(room)]);
                    }
                    if *left == 0 {
                        self.ended(self.buffer.len()).map_err(at)?;
                        self.buffer.clear();
                        self.state = self.entry.after(self.entry.size.unwrap_or(0));
                    }
                }
                State::Small => {
                    self.buffer.extend_from_slice(take(&mut chunk, 1));
                    if let Some(size) = self.found().map_err(at)? {
                        self.ended(size).map_err(at)?;
                        self.buffer.drain(..size);
                        self.state = State::Descriptor { size: size as u64 };
                    }
                }
                State::Descriptor { size } => {
                    let size = *size;
                    if fill(&mut self.buffer, &mut chunk, 20) {
                        self.described(size, &mut chunk).map_err(at)?;
                    }
                }
                State::Directory => {
                    self.buffer.extend_from_slice(&chunk[chunk.len().saturating_sub(END_SIZE)..]);
                    self.buffer.drain(..self.buffer.len().saturating_sub(END_SIZE));
                    chunk = &[];
                }
            }
        }
        Ok(())
    }

    pub fn finish(&self, file: &str) -> Result<()> {
        let whole = self.buffer.len() == END_SIZE && self.buffer.starts_with(END) && self.buffer.ends_with(&[0, 0]);
        match self.state {
            State::Directory if whole => Ok(()),
            State::Directory => Err(Refusal::new("truncated", "the file does not end with its directory").at(file)),
            _ => Err(Refusal::new("truncated", format!("the file ends at its entry {:?}", self.entry.name)).at(file)),
        }
    }

    /// What the four bytes between two entries begin.
    fn signed(&self, sink: &dyn Sink) -> Result<State, Refusal> {
        if self.buffer == ENTRY {
            return Ok(State::Header);
        }
        if self.buffer != DIRECTORY {
            return Err(Refusal::new("signature", format!("no entry follows {:?}", self.entry.name)));
        }
        let Some(tensors) = &self.tensors else {
            return Err(Refusal::new("missing", "the file has no data.pkl; torch.save did not write it"));
        };
        match tensors.missing(sink) {
            None => Ok(State::Directory),
            Some(name) => Err(Refusal::new("truncated", format!("the entries end before the storage of {name}"))),
        }
    }

    /// Reads an entry's header; the buffer has its name and extra field.
    fn entered(&mut self, header: &[u8], length: usize, sink: &dyn Sink) -> Result<State, Refusal> {
        let (name, mut extra) = self.buffer.split_at(length);
        let name = String::from_utf8_lossy(name).into_owned();
        let (flags, method) = (little_endian(&header[2..4]), little_endian(&header[4..6]));
        if flags & 1 != 0 {
            return Err(Refusal::new("encryption", format!("{name:?} is encrypted")));
        }
        if method != 0 {
            return Err(Refusal::new("compression", format!("{name:?} is compressed; torch.save never does that")));
        }
        let descriptor = flags & 8 != 0;
        let mut size = little_endian(&header[18..22]);
        if size == SIZE_ELSEWHERE {
            let mut found = None;
            while extra.len() >= 4 && found.is_none() {
                let (id, end) = (little_endian(&extra[..2]), 4 + little_endian(&extra[2..4]) as usize);
                let field = extra.get(4..end).unwrap_or_default();
                found = (id == 1).then(|| field.get(..8).map(little_endian)).flatten();
                extra = extra.get(end..).unwrap_or_default();
            }
            size = found.ok_or_else(|| Refusal::new("size", format!("{name:?} does not say its 64-bit size")))?;
        }
        self.entry = Entry { name, size: (size != 0 || !descriptor).then_some(size), descriptor };
        self.begin(sink)
    }

    /// Begins with the data of the entry under way.
    fn begin(&mut self, sink: &dyn Sink) -> Result<State, Refusal> {
        let Entry { name, size, .. } = &self.entry;
        let other = || size.map_or(State::Small, |left| State::Known { left });
        let Some(prefix) = &self.prefix else {
            if let Some(prefix) =
                name.strip_suffix("data.pkl").filter(|prefix| prefix.is_empty() || prefix.ends_with('/'))
            {
                self.prefix = Some(prefix.to_owned());
                return Ok(State::Pickle { machine: Machine::new(true), read: 0 });
            }
            return match name.contains("data/") && !name.contains(".data/") {
                true => Err(Refusal::new("order", format!("{name:?} comes before data.pkl"))),
                false => Ok(other()),
            };
        };
        let (Some(inner), Some(tensors)) = (name.strip_prefix(&**prefix), &mut self.tensors) else {
            return Ok(other());
        };
        if inner == "data.pkl" {
            return Err(Refusal::new("duplicate", format!("{name:?} is there twice")));
        }
        let Some(store) = inner.strip_prefix("data/").and_then(|key| tensors.store(key)) else {
            return Ok(other());
        };
        let left = tensors.bytes(store);
        if size.is_some_and(|size| size != left) {
            return Err(Refusal::new("size", format!("{name:?} has other than the {left} bytes of its storage")));
        }
        Ok(State::Storage { pull: tensors.begin(store, sink)?, left })
    }

    /// Whether the buffer ends with the beginning of a descriptor of just what stands before it.
    fn found(&self) -> Result<Option<usize>, Refusal> {
        let Some(size) = self.buffer.len().checked_sub(12) else {
            return Ok(None);
        };
        let tail = &self.buffer[size..];
        if tail.starts_with(DESCRIPTOR) && little_endian(&tail[8..12]) == size as u64 {
            return Ok(Some(size));
        }
        match size > MAX_SMALL {
            true => Err(Refusal::new("entry", format!("{:?} is no storage of a tensor, and long", self.entry.name))),
            false => Ok(None),
        }
    }

    /// After an entry that is neither pickle nor storage, of whose content the buffer begins with `size` bytes.
    fn ended(&self, size: usize) -> Result<(), Refusal> {
        let content = &self.buffer[..size];
        match self.entry.is_byteorder() && content != b"little" {
            true => Err(Refusal::new("byteorder", format!("it is {:?}", String::from_utf8_lossy(content)))),
            false => Ok(()),
        }
    }

    /// Compares the descriptor in the buffer with the size that was read. Its own sizes have four bytes or eight, which nothing
    /// says.
    fn described(&mut self, size: u64, chunk: &mut &[u8]) -> Result<(), Refusal> {
        let bytes = &self.buffer;
        let refused = || Refusal::new("descriptor", format!("it does not fit {:?} of {size} bytes", self.entry.name));
        if !bytes.starts_with(DESCRIPTOR) {
            return Err(refused());
        }
        let short = little_endian(&bytes[8..12]) == size && little_endian(&bytes[12..16]) == size;
        // Of nothing both forms are zeros; only the short one has a signature right behind it.
        if short && (size != 0 || bytes[16..20] != [0; 4]) {
            // The last four bytes are the next signature.
            self.buffer.drain(..16);
            self.state = State::Signature;
            return Ok(());
        }
        if !fill(&mut self.buffer, chunk, 24) {
            return Ok(());
        }
        let bytes = &self.buffer;
        if little_endian(&bytes[8..16]) != size || little_endian(&bytes[16..24]) != size {
            return Err(Refusal::new("descriptor", format!("it does not fit {:?} of {size} bytes", self.entry.name)));
        }
        self.buffer.clear();
        self.state = State::Signature;
        Ok(())
    }
}
