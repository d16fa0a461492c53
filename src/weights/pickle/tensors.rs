//! The tensors that an unpickled object names, and their values out of the storages as those arrive.

use std::collections::{HashMap, HashSet};

use super::machine::{Object, Pickled, View};
use crate::{
    error::Result,
    weights::{Collector, Decoder, Dtype, Format, Refusal, Sink, TensorInfo, Values, little_endian},
};

/// How a storage's numbers are stored, by its class without `Storage`: bytes of a number, and how to read them where weights
/// have such numbers.
fn format(class: &str) -> Option<(u64, Option<Format>)> {
    Some(match class.strip_suffix("Storage")? {
        "Float" => (4, Some(Format::F32)),
        "Half" => (2, Some(Format::F16)),
        "BFloat16" => (2, Some(Format::Bf16)),
        "Double" => (8, Some(Format::F64)),
        "Long" => (8, Some(Format::I64)),
        "Int" => (4, Some(Format::I32)),
        "Char" => (1, Some(Format::I8)),
        "Byte" | "Bool" | "Untyped" | "QInt8" | "QUInt8" | "QUInt4x2" | "QUInt2x4" => (1, None),
        "Short" => (2, None),
        "QInt32" => (4, None),
        "ComplexFloat" => (8, None),
        "ComplexDouble" => (16, None),
        _ => return None,
    })
}

/// A tensor of the file.
struct Entry {
    info: TensorInfo,
    store: usize,
    view: View,
    /// The numbers of its storage between its first and behind its last.
    start: u64,
    end: u64,
    contiguous: bool,
}

impl Entry {
    /// Checks that a tensor lies inside a storage of `count` numbers.
    fn new(info: TensorInfo, store: usize, view: View, count: u64) -> Option<Self> {
        let sizes = || view.shape.iter().zip(&view.strides);
        let values = view.shape.iter().try_fold(1, |values: u64, &size| values.checked_mul(size))?;
        let reach = match values {
            0 => 0,
            _ => sizes().try_fold(1, |reach: u64, (&size, &stride)| {
                stride.checked_mul(size - 1).and_then(|step| reach.checked_add(step))
            })?,
        };
        let end = view.offset.checked_add(reach)?;
        // More values than the storage has: one number that is repeated could be a tensor of any size.
        if end > count || values > count {
            return None;
        }
        let mut next = 1;
        // Without values there are no places, and the product of the other sizes has no bound.
        let contiguous = values == 0
            || sizes().rev().all(|(&size, &stride)| {
                let fits = size == 1 || stride == next;
                next *= size;
                fits
            });
        // What is collected for a tensor must have to do with its size.
        if !contiguous && reach / 64 > values.max(1 << 14) {
            return None;
        }
        Some(Self { info, store, start: view.offset, end, contiguous, view })
    }
}

/// A storage that the pickle names.
struct Store {
    class: Box<str>,
    count: u64,
    /// Bytes of a number.
    size: u64,
    format: Option<Format>,
    entries: Vec<usize>,
    seen: bool,
}

/// How many times the numbers of the storages that arrived may be taken as values of tensors. T5
/// ties four tensors to one storage; a matrix that is saved in columns collects what lies between
/// them.
const MAX_TIMES: u64 = 8;
/// Numbers that may be taken besides, for small tensors that many layers share.
const MAX_SHARED: u64 = 1 << 20;

/// All that a pickle names.
pub struct Tensors {
    entries: Vec<Entry>,
    stores: Vec<Store>,
    by_key: HashMap<Box<str>, usize>,
    /// Numbers that may still be taken.
    allowance: u64,
}

/// A storage that is arriving.
pub struct Pull {
    pub store: usize,
    /// Bytes that have arrived.
    at: u64,
    wanted: Vec<Wanted>,
}

struct Wanted {
    entry: usize,
    dtype: Dtype,
    /// Its bytes in the storage.
    start: u64,
    end: u64,
    decoder: Option<Decoder>,
    done: bool,
}

impl Tensors {
    /// The tensors of a state dict: the root, or what it has as `state_dict`. Anything else in it is passed over.
    pub fn new(pickled: &Pickled) -> Result<Self, Refusal> {
        let mut tensors =
            Self { entries: Vec::new(), stores: Vec::new(), by_key: HashMap::new(), allowance: MAX_SHARED };
        // All storages, not only those of tensors: their lengths tell where the next one begins.
        for object in &pickled.objects {
            if let Object::Storage(storage) = object {
                tensors.add_store(&storage.key, &storage.class, storage.count)?;
            }
        }
        let Object::Dict(mut pairs) = pickled.root().clone() else {
            return Err(Refusal::new("state_dict", "the file holds something other than a dict of tensors"));
        };
        for &(key, value) in &pairs {
            if let (Some("state_dict"), Object::Dict(inner)) = (pickled.string(key), &pickled.objects[value]) {
                pairs = inner.clone();
                break;
            }
        }
        let mut names = HashSet::new();
        for (key, value) in pairs {
            if let (Some(name), Object::Tensor(view)) = (pickled.string(key), &pickled.objects[value]) {
                if !names.insert(name) {
                    return Err(Refusal::new("duplicate", format!("{name:?} is there twice")));
                }
                tensors.add(name, view, pickled)?;
            }
        }
        Ok(tensors)
    }

    fn add_store(&mut self, key: &str, class: &str, count: u64) -> Result<(), Refusal> {
        if let Some(&index) = self.by_key.get(key) {
            let known = &self.stores[index];
            return match *known.class == *class && known.count == count {
                true => Ok(()),
                false => Err(Refusal::new("storage", format!("{key:?} is named with different classes or counts"))),
            };
        }
        let Some((size, format)) = format(class) else {
            return Err(Refusal::new("dtype", format!("{class} is none of the storages known here")));
        };
        if count.checked_mul(size).is_none() {
            return Err(Refusal::new("storage", format!("{key:?} has {count} numbers")));
        }
        self.by_key.insert(key.into(), self.stores.len());
        self.stores.push(Store { class: class.into(), count, size, format, entries: Vec::new(), seen: false });
        Ok(())
    }

    fn add(&mut self, name: &str, view: &View, pickled: &Pickled) -> Result<(), Refusal> {
        let outside = || Refusal::new("view", format!("{name:?} does not lie inside its storage"));
        let Object::Storage(storage) = &pickled.objects[view.storage] else {
            return Err(outside());
        };
        let index = self.by_key[&storage.key];
        let store = &mut self.stores[index];
        let shape: Option<Vec<usize>> = view.shape.iter().map(|&size| usize::try_from(size).ok()).collect();
        let info = TensorInfo {
            name: name.to_owned(),
            shape: shape.ok_or_else(outside)?,
            dtype: store.format.map(Format::dtype),
        };
        let entry = Entry::new(info, index, view.clone(), store.count).ok_or_else(outside)?;
        store.entries.push(self.entries.len());
        self.entries.push(entry);
        Ok(())
    }

    pub fn infos(&self) -> Vec<TensorInfo> {
        self.entries.iter().map(|entry| entry.info.clone()).collect()
    }

    /// The storage of a key.
    pub fn store(&self, key: &str) -> Option<usize> {
        self.by_key.get(key).copied()
    }

    pub fn count(&self, store: usize) -> u64 {
        self.stores[store].count
    }

    pub fn bytes(&self, store: usize) -> u64 {
        self.stores[store].count * self.stores[store].size
    }

    /// A tensor that is wanted and has not arrived.
    pub fn missing(&self, sink: &dyn Sink) -> Option<&str> {
        let mut names =
            self.entries.iter().filter(|entry| !self.stores[entry.store].seen).map(|entry| &*entry.info.name);
        names.find(|name| sink.wants(name).is_some())
    }

    /// Begins with a storage.
    pub fn begin(&mut self, index: usize, sink: &dyn Sink) -> Result<Pull, Refusal> {
        let store = &mut self.stores[index];
        if std::mem::replace(&mut store.seen, true) {
            return Err(Refusal::new("duplicate", "a storage comes twice"));
        }
        let mut wanted = Vec::new();
        // Only those of storages that are there: a pickle may name others of any size.
        let mut allowance = self.allowance.saturating_add(store.count.saturating_mul(MAX_TIMES));
        for &entry in &store.entries {
            let Entry { info, start, end, .. } = &self.entries[entry];
            let Some(dtype) = sink.wants(&info.name) else {
                continue;
            };
            if store.format.is_none() {
                let message = format!("{} is a {}, which no weight is", info.name, store.class);
                return Err(Refusal::new("dtype", message));
            }
            let Some(left) = allowance.checked_sub(self.entries[entry].cost()) else {
                let message = format!("{} and others take a storage more than {MAX_TIMES} times", info.name);
                return Err(Refusal::new("shared", message));
            };
            allowance = left;
            let (start, end) = (start * store.size, end * store.size);
            wanted.push(Wanted { entry, dtype, start, end, decoder: None, done: false });
        }
        self.allowance = allowance;
        wanted.sort_unstable_by_key(|wanted| wanted.start);
        Ok(Pull { store: index, at: 0, wanted })
    }

    /// Takes the storage's next bytes; with the last of them, or none where it has none, every tensor in it is given out.
    pub fn push(&self, pull: &mut Pull, bytes: &[u8], sink: &mut dyn Sink) -> Result<()> {
        let Some(format) = self.stores[pull.store].format else {
            pull.at += bytes.len() as u64;
            return Ok(());
        };
        let (from, to) = (pull.at, pull.at + bytes.len() as u64);
        for wanted in pull.wanted.iter_mut().filter(|wanted| !wanted.done) {
            // In the order of their first bytes.
            if wanted.start > to {
                break;
            }
            let entry = &self.entries[wanted.entry];
            let name = &entry.info.name;
            let decoder = match &mut wanted.decoder {
                Some(decoder) => decoder,
                None => {
                    // Rows exist only after what is strewn was gathered.
                    let dtype = if entry.contiguous { wanted.dtype } else { Dtype::F32 };
                    let decoder = Decoder::new(name, format, dtype, entry.info.row(), wanted.end - wanted.start)?;
                    wanted.decoder.insert(decoder)
                }
            };
            let first = wanted.start.max(from) - from;
            let last = wanted.end.min(to).saturating_sub(from).max(first);
            decoder.push(&bytes[first as usize..last as usize])?;
            if to >= wanted.end {
                wanted.done = true;
                if let Some(decoder) = wanted.decoder.take() {
                    let values = decoder.finish();
                    sink.tensor(name, if entry.contiguous { values } else { entry.gathered(&values, wanted.dtype)? })?;
                }
            }
        }
        pull.at = to;
        Ok(())
    }
}

impl Entry {
    /// Numbers that are held for it: its own, and where they are strewn those between the first and
    /// the last of them.
    fn cost(&self) -> u64 {
        let values = self.view.shape.iter().product::<u64>();
        if self.contiguous { values } else { values.saturating_add(self.end - self.start) }
    }

    /// The tensor's values row by row, from those between its first and its last.
    fn gathered(&self, span: &Values, dtype: Dtype) -> Result<Values> {
        let count = self.view.shape.iter().product();
        match span {
            Values::Int8 { values, .. } => {
                let mut collector = Collector::new(&self.info.name, Dtype::Int8, self.info.row(), count)?;
                self.each_place(count, |place| {
                    collector.push_i8(values.get(place).copied().into_iter());
                    Ok(())
                })?;
                Ok(collector.finish())
            }
            _ => {
                const STEP: usize = 4096;
                let Values::F32(values) = span else { unreachable!("it was collected as f32") };
                let mut collector = Collector::new(&self.info.name, dtype, self.info.row(), count)?;
                let mut part = Vec::with_capacity(STEP);
                self.each_place(count, |place| {
                    part.extend(values.get(place));
                    if part.len() < STEP {
                        return Ok(());
                    }
                    collector.push(&part)?;
                    part.clear();
                    Ok(())
                })?;
                collector.push(&part)?;
                Ok(collector.finish())
            }
        }
    }

    /// Visits the places of `count` values in row-major order, relative to the first.
    fn each_place(&self, count: u64, mut visit: impl FnMut(usize) -> Result<()>) -> Result<()> {
        let View { shape, strides, .. } = &self.view;
        let (mut index, mut place) = (vec![0; shape.len()], 0);
        for _ in 0..count {
            visit(place as usize)?;
            for axis in (0..shape.len()).rev() {
                index[axis] += 1;
                place += strides[axis];
                if index[axis] < shape[axis] {
                    break;
                }
                place -= strides[axis] * shape[axis];
                index[axis] = 0;
            }
        }
        Ok(())
    }
}

/// What a number in the file says, next to what the pickle says of a storage.
pub fn same_count(tensors: &Tensors, store: usize, bytes: &[u8]) -> Result<(), Refusal> {
    let count = little_endian(bytes);
    match count == tensors.count(store) {
        true => Ok(()),
        false => {
            let message = format!("a storage has {count} numbers, {} by the pickle", tensors.count(store));
            Err(Refusal::new("size", message))
        }
    }
}
