//! The pickle machine, without its dangerous half: it builds data, and calls nothing.
//!
//! Written here and not taken from candle: a page reads its pickle in chunks, candle's machine wants a buffered file, keeps
//! a memo and a stack without bounds, and its refusals have no names. Everything this machine holds is paid for by a byte of the
//! pickle, and an opcode makes at most one object, so bounds on the two bound memory.

use std::collections::HashMap;

use crate::weights::{Refusal, take};

/// Longest pickle. That of a checkpoint with a thousand tensors has some 100 KB.
const MAX_LENGTH: u64 = 64 << 20;
/// Most opcodes of a pickle; a tensor takes about forty.
const MAX_STEPS: usize = 1 << 21;
/// Longest module and class name of a global, with their line ends.
const MAX_GLOBAL: usize = 512;
/// Most arguments of a function; `_rebuild_tensor_v2` takes up to seven.
const MAX_ARGUMENTS: usize = 16;
/// Longest key of a storage. Keys are numbers.
const MAX_KEY: usize = 64;
/// Most dimensions of a tensor, as in torch.
const MAX_RANK: usize = 64;

/// Index of an object. Python's objects are shared and changed after they were shared, so they live in one list.
pub type Id = usize;

/// What a pickle is made of, as far as it matters here.
#[derive(Debug, Clone)]
pub enum Object {
    /// None, numbers with a point, byte strings: known, and of no use.
    Other,
    Bool(bool),
    Int(i64),
    /// An integer of more than eight bytes, little-endian.
    Long(Box<[u8]>),
    Str(Box<str>),
    Tuple(Box<[Id]>),
    List(Vec<Id>),
    Dict(Vec<(Id, Id)>),
    /// `module name` of something that the program which wrote the file had imported.
    Global(Box<str>),
    Storage(Box<Storage>),
    Tensor(Box<View>),
}

/// A block of numbers that lies outside of the pickle.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Storage {
    /// Its class, such as `FloatStorage`.
    pub class: Box<str>,
    pub key: Box<str>,
    /// How many numbers it has.
    pub count: u64,
}

/// A tensor: numbers of a storage, counted in numbers from its start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct View {
    pub storage: Id,
    pub offset: u64,
    pub shape: Vec<u64>,
    pub strides: Vec<u64>,
}

/// A finished pickle.
#[derive(Debug)]
pub struct Pickled {
    pub objects: Vec<Object>,
    pub root: Id,
}

impl Pickled {
    pub fn root(&self) -> &Object {
        &self.objects[self.root]
    }

    pub fn string(&self, id: Id) -> Option<&str> {
        match &self.objects[id] {
            Object::Str(text) => Some(text),
            _ => None,
        }
    }
}

/// What follows an opcode.
enum Argument {
    Bytes(usize),
    /// A length of so many bytes, then as many bytes as it says.
    Counted(usize),
    /// Two lines.
    Lines,
}

fn argument(opcode: u8) -> Option<Argument> {
    Some(match opcode {
        b'.' | b'(' | b'0' | b'1' | b'2' | b'N' | 0x88 | 0x89 => Argument::Bytes(0),
        b']' | b'a' | b'e' | b'l' | b')' | b't' | 0x85..=0x87 | b'}' | b's' | b'u' | b'd' => Argument::Bytes(0),
        0x94 | 0x93 | b'R' | b'b' | 0x81 | b'o' | b'Q' => Argument::Bytes(0),
        0x80 | b'K' | b'h' | b'q' => Argument::Bytes(1),
        b'M' => Argument::Bytes(2),
        b'J' | b'j' | b'r' => Argument::Bytes(4),
        b'G' | 0x95 => Argument::Bytes(8),
        0x8a | b'U' | b'C' | 0x8c => Argument::Counted(1),
        0x8b | b'T' | b'B' | b'X' => Argument::Counted(4),
        0x8d | 0x8e | 0x96 => Argument::Counted(8),
        b'c' | b'i' => Argument::Lines,
        _ => return None,
    })
}

/// Reads one pickle. Stops at its end, whatever follows.
#[derive(Default)]
pub struct Machine {
    /// Whether storages may be named.
    storages: bool,
    /// An opcode that is not complete yet.
    pending: Vec<u8>,
    length: u64,
    steps: usize,
    objects: Vec<Object>,
    stack: Vec<Id>,
    /// Lengths of the stack where a mark was set.
    marks: Vec<usize>,
    memo: HashMap<u32, Id>,
}

type Result<T> = std::result::Result<T, Refusal>;

impl Machine {
    pub fn new(storages: bool) -> Self {
        Self { storages, ..Self::default() }
    }

    /// Takes the pickle's next bytes off `chunk`; gives what it holds at its end.
    pub fn push(&mut self, chunk: &mut &[u8]) -> Result<Option<Pickled>> {
        loop {
            let visible = if self.pending.is_empty() { *chunk } else { self.pending.as_slice() };
            let needed = self.measure(visible)?;
            let root = if visible.len() < needed {
                if chunk.is_empty() {
                    return Ok(None);
                }
                let missing = needed - self.pending.len();
                self.pending.extend_from_slice(take(chunk, missing as u64));
                continue;
            } else if self.pending.is_empty() {
                let operation = take(chunk, needed as u64);
                self.execute(operation)?
            } else {
                let operation = std::mem::take(&mut self.pending);
                self.execute(&operation)?
            };
            self.length += needed as u64;
            if let Some(root) = root {
                return Ok(Some(Pickled { objects: std::mem::take(&mut self.objects), root }));
            }
        }
    }

    /// How many bytes the opcode at the front takes, as far as can be seen.
    fn measure(&self, bytes: &[u8]) -> Result<usize> {
        let Some(&opcode) = bytes.first() else {
            return Ok(1);
        };
        if (self.length == 0) != (opcode == 0x80) {
            return Err(Refusal::new("protocol", "a pickle begins with the number of its protocol, once"));
        }
        let Some(argument) = argument(opcode) else {
            return Err(Refusal::new("opcode", format!("{opcode:#04x} is none that weights need")));
        };
        let needed = match argument {
            Argument::Bytes(count) => 1 + count as u64,
            Argument::Counted(width) => match bytes.get(1..1 + width) {
                None => 1 + width as u64,
                Some(count) => (1 + width as u64).saturating_add(crate::weights::little_endian(count)),
            },
            Argument::Lines => {
                let ends = bytes.iter().enumerate().filter(|&(_, &byte)| byte == b'\n').nth(1);
                let needed = ends.map_or(bytes.len() + 1, |(index, _)| index + 1);
                if needed > MAX_GLOBAL {
                    return Err(Refusal::new("global", format!("a name has more than {MAX_GLOBAL} bytes")));
                }
                needed as u64
            }
        };
        if self.length.saturating_add(needed) > MAX_LENGTH {
            return Err(Refusal::new("pickle_length", format!("it has more than {MAX_LENGTH} bytes")));
        }
        Ok(needed as usize)
    }

    /// Runs one complete opcode; at the end gives the result.
    fn execute(&mut self, operation: &[u8]) -> Result<Option<Id>> {
        self.spend(1)?;
        let (opcode, argument) = (operation[0], &operation[1..]);
        let number = crate::weights::little_endian(argument);
        match opcode {
            0x80 if !(2..=5).contains(&number) => {
                return Err(Refusal::new("protocol", format!("{number} is not between 2 and 5")));
            }
            0x80 | 0x95 => {}
            b'.' => return self.pop().map(Some),
            b'(' => self.marks.push(self.stack.len()),
            b'0' => drop(self.pop()?),
            b'1' => drop(self.marked()?),
            b'2' => {
                let top = self.pop()?;
                self.stack.extend([top, top]);
            }
            b'N' | b'G' | b'B' | b'C' | 0x8e | 0x96 => self.give(Object::Other),
            0x88 => self.give(Object::Bool(true)),
            0x89 => self.give(Object::Bool(false)),
            b'K' | b'M' => self.give(Object::Int(number as i64)),
            b'J' => self.give(Object::Int(i64::from(number as u32 as i32))),
            0x8a => self.give(long(&argument[1..])),
            0x8b => self.give(long(&argument[4..])),
            b'U' => self.give(python2(&argument[1..])),
            b'T' => self.give(python2(&argument[4..])),
            0x8c => self.string(&argument[1..])?,
            b'X' => self.string(&argument[4..])?,
            0x8d => self.string(&argument[8..])?,
            b']' => self.give(Object::List(Vec::new())),
            b'l' => {
                let items = self.marked()?;
                self.give(Object::List(items));
            }
            b'a' => {
                let item = self.pop()?;
                self.list()?.push(item);
            }
            b'e' => {
                let items = self.marked()?;
                self.list()?.extend(items);
            }
            b')' => self.give(Object::Tuple(Box::new([]))),
            b't' => {
                let items = self.marked()?;
                self.give(Object::Tuple(items.into()));
            }
            0x85..=0x87 => {
                let start = self.stack.len().checked_sub(usize::from(opcode - 0x84));
                let Some(start) = start.filter(|&start| start >= self.floor()) else {
                    return Err(Refusal::new("stack", "there is less on it than a tuple takes"));
                };
                let items = self.stack.split_off(start);
                self.give(Object::Tuple(items.into()));
            }
            b'}' => self.give(Object::Dict(Vec::new())),
            b'd' => {
                let pairs = pairs(&self.marked()?)?;
                self.give(Object::Dict(pairs));
            }
            b's' => {
                let (value, key) = (self.pop()?, self.pop()?);
                self.dict()?.push((key, value));
            }
            b'u' => {
                let pairs = pairs(&self.marked()?)?;
                self.dict()?.extend(pairs);
            }
            b'q' | b'r' => self.memoize(number as u32)?,
            0x94 => self.memoize(self.memo.len() as u32)?,
            b'h' | b'j' => {
                let Some(&id) = self.memo.get(&(number as u32)) else {
                    return Err(Refusal::new("memo", format!("nothing was kept as {number}")));
                };
                self.stack.push(id);
            }
            b'c' => {
                let global = global(argument)?;
                self.give(Object::Global(global));
            }
            0x93 => {
                let (name, module) = (self.pop()?, self.pop()?);
                let (Object::Str(module), Object::Str(name)) = (&self.objects[module], &self.objects[name]) else {
                    return Err(Refusal::new("global", "its name is no string"));
                };
                if module.len() + name.len() > MAX_GLOBAL {
                    return Err(Refusal::new("global", format!("a name has more than {MAX_GLOBAL} bytes")));
                }
                let global: Box<str> = format!("{module} {name}").into();
                // Unlike what a line spells out, it is made from strings that may be named again and again.
                self.spend(global.len() / 16)?;
                self.give(Object::Global(global));
            }
            // An object's class is called with its arguments, in four notations.
            b'R' | 0x81 => {
                let (arguments, callee) = (self.pop()?, self.pop()?);
                let arguments = self.tuple(arguments)?;
                if arguments.len() > MAX_ARGUMENTS {
                    return Err(Refusal::new("arguments", format!("there are more than {MAX_ARGUMENTS}")));
                }
                let arguments = arguments.to_vec();
                self.call(callee, &arguments)?;
            }
            b'o' => {
                let items = self.marked()?;
                let Some((&callee, arguments)) = items.split_first() else {
                    return Err(Refusal::new("stack", "an object has no class"));
                };
                self.call(callee, arguments)?;
            }
            b'i' => {
                let (callee, arguments) = (global(argument)?, self.marked()?);
                self.objects.push(Object::Global(callee));
                self.call(self.objects.len() - 1, &arguments)?;
            }
            // State of an object: of an OrderedDict its `_metadata`, of anything else nothing that was wanted.
            b'b' => {
                self.pop()?;
                self.top()?;
            }
            b'Q' => {
                let id = self.pop()?;
                let storage = self.storage(id)?;
                self.spend(8)?;
                self.give(Object::Storage(Box::new(storage)));
            }
            _ => return Err(Refusal::new("opcode", format!("{opcode:#04x} is none that weights need"))),
        }
        Ok(None)
    }

    /// Counts what takes time or memory.
    fn spend(&mut self, steps: usize) -> Result<()> {
        self.steps = self.steps.saturating_add(steps);
        match self.steps > MAX_STEPS {
            true => Err(Refusal::new("steps", format!("the pickle takes more than {MAX_STEPS}"))),
            false => Ok(()),
        }
    }

    fn give(&mut self, object: Object) {
        self.stack.push(self.objects.len());
        self.objects.push(object);
    }

    fn string(&mut self, bytes: &[u8]) -> Result<()> {
        let text = std::str::from_utf8(bytes).map_err(|error| Refusal::new("string", error))?;
        self.give(Object::Str(text.into()));
        Ok(())
    }

    /// Nothing below the last mark may be taken.
    fn floor(&self) -> usize {
        self.marks.last().copied().unwrap_or(0)
    }

    fn pop(&mut self) -> Result<Id> {
        let top = self.top()?;
        self.stack.pop();
        Ok(top)
    }

    fn top(&self) -> Result<Id> {
        let top = self.stack[self.floor().min(self.stack.len())..].last();
        top.copied().ok_or_else(|| Refusal::new("stack", "something is taken that is not there"))
    }

    /// All above the last mark, and the mark.
    fn marked(&mut self) -> Result<Vec<Id>> {
        let mark = self.marks.pop().ok_or_else(|| Refusal::new("stack", "no mark is set"))?;
        Ok(self.stack.split_off(mark.min(self.stack.len())))
    }

    fn memoize(&mut self, index: u32) -> Result<()> {
        let top = self.top()?;
        self.memo.insert(index, top);
        Ok(())
    }

    fn list(&mut self) -> Result<&mut Vec<Id>> {
        let top = self.top()?;
        match &mut self.objects[top] {
            Object::List(items) => Ok(items),
            _ => Err(Refusal::new("stack", "something is appended to what is no list")),
        }
    }

    fn dict(&mut self) -> Result<&mut Vec<(Id, Id)>> {
        let top = self.top()?;
        match &mut self.objects[top] {
            Object::Dict(pairs) => Ok(pairs),
            _ => Err(Refusal::new("stack", "a key is set in what is no dict")),
        }
    }

    fn tuple(&self, id: Id) -> Result<&[Id]> {
        match &self.objects[id] {
            Object::Tuple(items) => Ok(items),
            _ => Err(Refusal::new("arguments", "they are no tuple")),
        }
    }

    fn count(&self, id: Id) -> Result<u64> {
        match self.objects[id] {
            Object::Int(number) if number >= 0 => Ok(number as u64),
            _ => Err(Refusal::new("arguments", "a size or position is no whole number from zero")),
        }
    }

    fn counts(&self, id: Id) -> Result<Vec<u64>> {
        let ids = self.tuple(id)?;
        if ids.len() > MAX_RANK {
            return Err(Refusal::new("arguments", format!("a tensor has {} dimensions", ids.len())));
        }
        ids.iter().map(|&id| self.count(id)).collect()
    }

    /// What the few known functions would return. Nothing is ever called.
    fn call(&mut self, callee: Id, arguments: &[Id]) -> Result<()> {
        let Object::Global(name) = &self.objects[callee] else {
            return Err(Refusal::new("global", "something is called that is no function"));
        };
        match (&**name, arguments) {
            ("torch._utils _rebuild_tensor_v2", &[storage, offset, shape, strides, ..]) => {
                let view = View {
                    storage,
                    offset: self.count(offset)?,
                    shape: self.counts(shape)?,
                    strides: self.counts(strides)?,
                };
                if !matches!(self.objects[storage], Object::Storage(_)) || view.shape.len() != view.strides.len() {
                    return Err(Refusal::new("arguments", "a tensor has no storage, or other strides than dimensions"));
                }
                self.spend(2 * view.shape.len())?;
                self.give(Object::Tensor(Box::new(view)));
            }
            ("torch._utils _rebuild_parameter", &[tensor, ..]) if matches!(self.objects[tensor], Object::Tensor(_)) => {
                self.stack.push(tensor);
            }
            ("torch Size", &[sizes]) => {
                self.tuple(sizes)?;
                self.stack.push(sizes);
            }
            ("collections OrderedDict", &[]) => self.give(Object::Dict(Vec::new())),
            ("collections OrderedDict", &[items]) => {
                let Object::List(items) = &self.objects[items] else {
                    return Err(Refusal::new("arguments", "an OrderedDict is made from no list"));
                };
                let pair = |item: &Id| match self.objects[*item] {
                    Object::Tuple(ref pair) if pair.len() == 2 => Ok((pair[0], pair[1])),
                    Object::List(ref pair) if pair.len() == 2 => Ok((pair[0], pair[1])),
                    _ => Err(Refusal::new("arguments", "an OrderedDict is made from what are no pairs")),
                };
                let pairs: Vec<_> = items.iter().map(pair).collect::<Result<_>>()?;
                // One list may be named again and again, and each time is copied.
                self.spend(pairs.len())?;
                self.give(Object::Dict(pairs));
            }
            (
                "torch._utils _rebuild_tensor_v2"
                | "torch._utils _rebuild_parameter"
                | "torch Size"
                | "collections OrderedDict",
                _,
            ) => return Err(Refusal::new("arguments", format!("{name} takes others"))),
            _ => {
                let message = format!("the pickle calls {:?}, which builds no weights", name.replace(' ', "."));
                return Err(Refusal::new("global", message));
            }
        }
        Ok(())
    }

    /// The storage that `("storage", class, key, location, count)` names; older files add a view, which is always None.
    fn storage(&self, id: Id) -> Result<Storage> {
        let refused = |why: &str| Refusal::new("persistent_id", why);
        if !self.storages {
            return Err(refused("there is none to be named here"));
        }
        let Object::Tuple(parts) = &self.objects[id] else {
            return Err(refused("it is no tuple"));
        };
        let (&[kind, class, key, _, count], rest) =
            parts.split_first_chunk().ok_or_else(|| refused("it is too short"))?;
        let (Object::Str(kind), Object::Global(class), Object::Str(key), &Object::Int(count)) =
            (&self.objects[kind], &self.objects[class], &self.objects[key], &self.objects[count])
        else {
            return Err(refused("it is no storage with class, key and count"));
        };
        if &**kind != "storage"
            || key.len() > MAX_KEY
            || count < 0
            || rest.iter().any(|&id| !matches!(self.objects[id], Object::Other))
        {
            return Err(refused("it is no whole storage"));
        }
        let class = class.strip_prefix("torch ").or_else(|| class.strip_prefix("torch.storage "));
        let Some(class) = class.filter(|class| class.ends_with("Storage")) else {
            return Err(refused("its class is none of torch's storages"));
        };
        Ok(Storage { class: class.into(), key: key.clone(), count: count as u64 })
    }
}

/// The two lines of a global's name.
fn global(lines: &[u8]) -> Result<Box<str>> {
    let lines = std::str::from_utf8(lines).map_err(|error| Refusal::new("global", error))?;
    let (module, name) = lines.split_once('\n').unwrap_or((lines, ""));
    Ok(format!("{module} {}", name.trim_end_matches('\n')).into())
}

fn pairs(items: &[Id]) -> Result<Vec<(Id, Id)>> {
    match items.as_chunks() {
        (pairs, []) => Ok(pairs.iter().map(|&[key, value]| (key, value)).collect()),
        _ => Err(Refusal::new("stack", "a key has no value")),
    }
}

/// An integer of any length, in two's complement.
fn long(bytes: &[u8]) -> Object {
    match bytes.len() {
        0..=8 => {
            let negative = bytes.last().is_some_and(|&byte| byte >= 0x80);
            let mut all = [if negative { 0xff } else { 0 }; 8];
            all[..bytes.len()].copy_from_slice(bytes);
            Object::Int(i64::from_le_bytes(all))
        }
        _ => Object::Long(bytes.into()),
    }
}

/// Python 2 had one type for strings and bytes.
fn python2(bytes: &[u8]) -> Object {
    std::str::from_utf8(bytes).map_or(Object::Other, |text| Object::Str(text.into()))
}
