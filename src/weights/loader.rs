//! From named tensors to an executor's weights.
//!
//! A [`Blueprint`] builds a model by asking a [`Source`] for each weight by name. It is run twice: when the header has
//! arrived, against a source that only writes down what is wanted (so that a missing tensor or a wrong shape is known before the
//! data is downloaded), and at the end, against one that gives the packed weights out in the same order. In between,
//! every tensor is packed through [`Ops`] as soon as it is complete.

use std::collections::HashMap;

use super::{Sink, TensorInfo};
use crate::{
    error::{Code, Error, Result},
    ops::{Ops, Weights},
};

/// Where a blueprint takes its weights from. Shapes are those of one tensor in the file; several names are stacked by rows,
/// in the order given.
pub trait Source {
    /// The form of the weights given out.
    type Weights: Weights;

    /// Whether the file has a tensor of this name.
    fn has(&self, name: &str) -> bool;

    /// A `[rows * names, inputs]` matrix.
    fn matrix(&mut self, names: &[String], shape: [usize; 2]) -> Result<<Self::Weights as Weights>::Matrix>;

    /// A `[width * names]` vector.
    fn vector(&mut self, names: &[String], width: usize) -> Result<<Self::Weights as Weights>::Vector>;

    /// A `[rows, width]` embedding.
    fn table(&mut self, name: &str, shape: [usize; 2]) -> Result<<Self::Weights as Weights>::Table>;
}

/// Something built from a source's weights. Must ask for the same weights in the same order every time.
pub trait Blueprint {
    /// What is built.
    type Model<W: Weights>;

    /// Builds it.
    fn build<S: Source>(&self, source: &mut S) -> Result<Self::Model<S::Weights>>;
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Matrix,
    Vector,
    Table,
}

/// A weight of the model: what it is made of, and what has arrived.
struct Slot<O: Ops> {
    kind: Kind,
    /// Of one part: `[rows, inputs]`, or `[width]`.
    shape: Vec<usize>,
    parts: Vec<Option<Vec<f32>>>,
    packed: Option<Packed<O>>,
}

enum Packed<O: Ops> {
    Matrix(O::Matrix),
    Vector(O::Vector),
    Table(O::Table),
}

/// Receives a file's tensors and builds a blueprint's model from them.
pub struct Loader<'a, O: Ops, B: Blueprint> {
    file: &'a str,
    ops: &'a O,
    blueprint: &'a B,
    tensors: HashMap<String, Vec<usize>>,
    slots: Vec<Slot<O>>,
    /// The slots and parts that each tensor goes to.
    targets: HashMap<String, Vec<(usize, usize)>>,
}

impl<'a, O: Ops, B: Blueprint> Loader<'a, O, B> {
    /// A loader for the tensors of `file`.
    pub fn new(file: &'a str, ops: &'a O, blueprint: &'a B) -> Self {
        Self { file, ops, blueprint, tensors: HashMap::new(), slots: Vec::new(), targets: HashMap::new() }
    }

    /// Builds the model, once every tensor has arrived.
    pub fn finish(self) -> Result<B::Model<O>>
    where
        O: Sized,
    {
        self.blueprint.build(&mut Take { file: self.file, tensors: &self.tensors, slots: self.slots.into_iter() })
    }
}

impl<O: Ops, B: Blueprint> Sink for Loader<'_, O, B> {
    fn begin(&mut self, tensors: &[TensorInfo]) -> Result<()> {
        self.tensors = tensors.iter().map(|info| (info.name.clone(), info.shape.clone())).collect();
        let mut declare =
            Declare { file: self.file, tensors: &self.tensors, slots: Vec::new(), targets: HashMap::new() };
        self.blueprint.build(&mut declare)?;
        (self.slots, self.targets) = (declare.slots, declare.targets);
        Ok(())
    }

    fn wants(&self, name: &str) -> bool {
        self.targets.contains_key(name)
    }

    fn tensor(&mut self, name: &str, values: Vec<f32>) -> Result<()> {
        let Some(targets) = self.targets.get(name) else {
            return Ok(());
        };
        let mut values = Some(values);
        for (use_, &(index, part)) in targets.iter().enumerate() {
            // The last use takes the values, earlier ones (tied weights) a copy.
            let last = use_ + 1 == targets.len();
            let slot = &mut self.slots[index];
            slot.parts[part] = if last { values.take() } else { values.clone() };
            if slot.parts.iter().all(Option::is_some) {
                slot.packed = Some(slot.pack(self.ops)?);
            }
        }
        Ok(())
    }
}

impl<O: Ops> Slot<O> {
    fn pack(&mut self, ops: &O) -> Result<Packed<O>> {
        let count = self.parts.len();
        let mut parts = self.parts.iter_mut().filter_map(Option::take);
        let mut values = parts.next().unwrap_or_default();
        for part in parts {
            values.extend(part);
        }
        Ok(match (self.kind, self.shape.as_slice()) {
            (Kind::Matrix, &[rows, inputs]) => Packed::Matrix(ops.matrix(rows * count, inputs, values)?),
            (Kind::Table, &[rows, width]) => Packed::Table(ops.table(rows, width, values)?),
            _ => Packed::Vector(ops.vector(values)?),
        })
    }
}

/// The first run: writes down what the model is made of.
struct Declare<'a, O: Ops> {
    file: &'a str,
    tensors: &'a HashMap<String, Vec<usize>>,
    slots: Vec<Slot<O>>,
    targets: HashMap<String, Vec<(usize, usize)>>,
}

/// The form of weights during the first run: none.
struct Nothing;

impl Weights for Nothing {
    type Matrix = ();
    type Vector = ();
    type Table = ();
}

impl<O: Ops> Declare<'_, O> {
    fn slot(&mut self, kind: Kind, names: &[String], shape: &[usize]) -> Result<()> {
        for (part, name) in names.iter().enumerate() {
            let Some(found) = self.tensors.get(name) else {
                return Err(Error::new(Code::MissingTensor, name, format!("{} has no such tensor", self.file)));
            };
            if found != shape {
                return Err(Error::new(
                    Code::WrongShape,
                    name,
                    format!("{} has shape {found:?}, the configuration asks for {shape:?}", self.file),
                ));
            }
            self.targets.entry(name.clone()).or_default().push((self.slots.len(), part));
        }
        self.slots.push(Slot { kind, shape: shape.to_vec(), parts: vec![None; names.len()], packed: None });
        Ok(())
    }
}

impl<O: Ops> Source for Declare<'_, O> {
    type Weights = Nothing;

    fn has(&self, name: &str) -> bool {
        self.tensors.contains_key(name)
    }

    fn matrix(&mut self, names: &[String], shape: [usize; 2]) -> Result<()> {
        self.slot(Kind::Matrix, names, &shape)
    }

    fn vector(&mut self, names: &[String], width: usize) -> Result<()> {
        self.slot(Kind::Vector, names, &[width])
    }

    fn table(&mut self, name: &str, shape: [usize; 2]) -> Result<()> {
        self.slot(Kind::Table, &[name.to_owned()], &shape)
    }
}

/// The second run: gives the packed weights out in the order of the first.
struct Take<'a, O: Ops> {
    file: &'a str,
    tensors: &'a HashMap<String, Vec<usize>>,
    slots: std::vec::IntoIter<Slot<O>>,
}

impl<O: Ops> Take<'_, O> {
    fn next(&mut self, name: &str) -> Result<Packed<O>> {
        self.slots
            .next()
            .and_then(|slot| slot.packed)
            .ok_or_else(|| Error::new(Code::MissingTensor, name, format!("{} ended before it", self.file)))
    }
}

fn out_of_order(name: &str) -> Error {
    Error::new(Code::Executor, name, "the blueprint asked for its weights in another order")
}

impl<O: Ops> Source for Take<'_, O> {
    type Weights = O;

    fn has(&self, name: &str) -> bool {
        self.tensors.contains_key(name)
    }

    fn matrix(&mut self, names: &[String], _: [usize; 2]) -> Result<O::Matrix> {
        match self.next(&names[0])? {
            Packed::Matrix(matrix) => Ok(matrix),
            _ => Err(out_of_order(&names[0])),
        }
    }

    fn vector(&mut self, names: &[String], _: usize) -> Result<O::Vector> {
        match self.next(&names[0])? {
            Packed::Vector(vector) => Ok(vector),
            _ => Err(out_of_order(&names[0])),
        }
    }

    fn table(&mut self, name: &str, _: [usize; 2]) -> Result<O::Table> {
        match self.next(name)? {
            Packed::Table(table) => Ok(table),
            _ => Err(out_of_order(name)),
        }
    }
}
