//! What torch wrote before 1.6: four pickles (a magic number, a version, the system, the object), the list of storages, and each
//! storage after the count of its numbers.

use super::{
    machine::{Machine, Object, Pickled},
    tensors::{Pull, Tensors, same_count},
};
use crate::{
    error::Result,
    weights::{Refusal, Sink, fill, take},
};

/// 0x1950a86a20f9469cfc6c, as a pickle holds it.
const MAGIC: [u8; 10] = [0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19];
const VERSION: i64 = 1001;

#[derive(Clone, Copy)]
enum Pickle {
    Magic,
    Version,
    System,
    Object,
    Keys,
}

enum State {
    Pickle(Pickle, Machine),
    /// The count before storage `next`.
    Count(Vec<u8>),
    Storage {
        pull: Pull,
        left: u64,
    },
    Done,
}

pub struct Walk {
    state: State,
    tensors: Option<Tensors>,
    /// The storages in the order of the file.
    order: Vec<usize>,
    next: usize,
}

impl Walk {
    pub fn new() -> Self {
        Self { state: State::Pickle(Pickle::Magic, Machine::new(false)), tensors: None, order: Vec::new(), next: 0 }
    }

    pub fn push(&mut self, file: &str, mut chunk: &[u8], sink: &mut dyn Sink) -> Result<()> {
        let at = |refusal: Refusal| refusal.at(file);
        while !chunk.is_empty() {
            match &mut self.state {
                State::Pickle(which, machine) => {
                    let which = *which;
                    if let Some(pickled) = machine.push(&mut chunk).map_err(at)? {
                        self.unpickled(which, &pickled).map_err(at)?;
                        match (which, &self.tensors) {
                            (Pickle::Object, Some(tensors)) => sink.begin(&tensors.infos())?,
                            (Pickle::Keys, _) => self.start(file, sink)?,
                            _ => {}
                        }
                    }
                }
                State::Count(bytes) => {
                    if fill(bytes, &mut chunk, 8)
                        && let Some(tensors) = &mut self.tensors
                    {
                        let store = self.order[self.next];
                        same_count(tensors, store, bytes).map_err(at)?;
                        let mut pull = tensors.begin(store, sink).map_err(at)?;
                        tensors.push(&mut pull, &[], sink)?;
                        let left = tensors.bytes(store);
                        self.state = State::Storage { pull, left };
                        self.end(file, sink)?;
                    }
                }
                State::Storage { pull, left } => {
                    let bytes = take(&mut chunk, *left);
                    *left -= bytes.len() as u64;
                    if let Some(tensors) = &self.tensors {
                        tensors.push(pull, bytes, sink)?;
                    }
                    self.end(file, sink)?;
                }
                State::Done => {
                    return Err(at(Refusal::new("trailing_bytes", "the file goes on after its last storage")));
                }
            }
        }
        Ok(())
    }

    pub fn finish(&self, file: &str) -> Result<()> {
        let inside = match self.state {
            State::Done => return Ok(()),
            State::Pickle(..) => "its pickles".to_owned(),
            _ => format!("storage {} of {}", self.next + 1, self.order.len()),
        };
        Err(Refusal::new("truncated", format!("the file ends inside {inside}")).at(file))
    }

    /// Reads a finished pickle and makes the machine for the next.
    fn unpickled(&mut self, which: Pickle, pickled: &Pickled) -> Result<(), Refusal> {
        let next = match (which, pickled.root()) {
            (Pickle::Magic, Object::Long(number)) if **number == MAGIC => Pickle::Version,
            (Pickle::Magic, _) => return Err(Refusal::new("magic", "the pickle is none that torch.save wrote")),
            (Pickle::Version, Object::Int(VERSION)) => Pickle::System,
            (Pickle::Version, _) => return Err(Refusal::new("version", format!("it is not {VERSION}"))),
            (Pickle::System, Object::Dict(pairs)) => {
                let order = pairs.iter().find(|(key, _)| pickled.string(*key) == Some("little_endian"));
                if !order.is_some_and(|&(_, value)| matches!(pickled.objects[value], Object::Bool(true))) {
                    return Err(Refusal::new("byteorder", "the file is not little-endian"));
                }
                Pickle::Object
            }
            (Pickle::System, _) => return Err(Refusal::new("byteorder", "the file does not say")),
            (Pickle::Object, _) => {
                self.tensors = Some(Tensors::new(pickled)?);
                Pickle::Keys
            }
            (Pickle::Keys, Object::List(keys)) => {
                for &key in keys {
                    let key = pickled.string(key).unwrap_or_default();
                    let store = self.tensors.as_ref().and_then(|tensors| tensors.store(key));
                    let missing = || Refusal::new("storage", format!("{key:?} is none that the pickle names"));
                    self.order.push(store.ok_or_else(missing)?);
                }
                return Ok(());
            }
            (Pickle::Keys, _) => return Err(Refusal::new("storage", "the storages are no list")),
        };
        self.state = State::Pickle(next, Machine::new(matches!(next, Pickle::Object)));
        Ok(())
    }

    /// After the bytes of a storage: the next one, if it was the last of them.
    fn end(&mut self, file: &str, sink: &mut dyn Sink) -> Result<()> {
        if matches!(self.state, State::Storage { left: 0, .. }) {
            self.next += 1;
            self.start(file, sink)?;
        }
        Ok(())
    }

    fn start(&mut self, file: &str, sink: &dyn Sink) -> Result<()> {
        if self.next < self.order.len() {
            self.state = State::Count(Vec::new());
            return Ok(());
        }
        self.state = State::Done;
        match self.tensors.as_ref().and_then(|tensors| tensors.missing(sink)) {
            None => Ok(()),
            Some(name) => Err(Refusal::new("storage", format!("the file has none for {name}")).at(file)),
        }
    }
}
