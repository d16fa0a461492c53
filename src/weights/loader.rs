//! From named tensors to an executor's weights.
//!
//! A [`Blueprint`] builds a model by asking a [`Source`] for each weight by name. It is run twice: when the names are
//! known (a file's header, or the index of several files), against a source that only writes down what is wanted, so that a
//! missing tensor or a wrong shape is an error before the data is downloaded; and at the end, against one that gives the
//! packed weights out in the same order. In between, every tensor is packed through [`Pack`] as soon as it is complete.

use std::collections::HashMap;

use super::{Dtype, Sink, TensorInfo, Values};
use crate::{
    error::{Code, Error, Result},
    ops::{Pack, Weights},
};

/// Where a blueprint takes its weights from. Shapes are those of one tensor in the file; several names are stacked by rows,
/// in the order given.
pub trait Source {
    /// The form of the weights given out.
    type Weights: Weights;

    /// Whether there is a tensor of this name.
    fn has(&self, name: &str) -> bool;

    /// A tensor's shape, where the model's files say it nowhere else. Of a sharded checkpoint it is not known.
    fn shape(&self, name: &str) -> Option<&[usize]>;

    /// A `[rows * names, inputs]` matrix.
    fn matrix(&mut self, names: &[String], shape: [usize; 2]) -> Result<<Self::Weights as Weights>::Matrix>;

    /// A `[width * names]` vector.
    fn vector(&mut self, names: &[String], width: usize) -> Result<<Self::Weights as Weights>::Vector>;

    /// A `[rows, width]` embedding.
    fn table(&mut self, name: &str, shape: [usize; 2]) -> Result<<Self::Weights as Weights>::Table>;

    /// An embedding whose eight-bit integers, if it is stored so, are its values where no scales stand beside them.
    fn unscaled_table(&mut self, name: &str, shape: [usize; 2]) -> Result<<Self::Weights as Weights>::Table>;
}

/// Something built from a source's weights. Must ask for the same weights in the same order every time.
pub trait Blueprint {
    /// What is built.
    type Model<W: Weights>;

    /// Builds it.
    fn build<S: Source>(&self, source: &mut S) -> Result<Self::Model<S::Weights>>;
}

/// Matrices and tables with fewer values stay f32: heads and small tables are sensitive and weigh nothing.
pub const CONVERTED_FROM: usize = 1 << 16;

/// The tensor that holds the row scales of an eight-bit one.
pub fn scales_of(name: &str) -> String {
    format!("{name}_scale")
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Matrix,
    Vector,
    Table,
    UnscaledTable,
}

/// One tensor of a weight.
#[derive(Debug, Default)]
struct Part {
    values: Option<Values>,
    /// Whether the file has row scales for it.
    scaled: bool,
    scales: Option<Vec<f32>>,
}

impl Part {
    fn is_complete(&self) -> bool {
        self.values.is_some() && (!self.scaled || self.scales.is_some())
    }
}

/// A weight of the model: what it is made of, and what has arrived.
struct Slot<P: Pack> {
    kind: Kind,
    /// Of one part: `[rows, inputs]`, or `[width]`.
    shape: Vec<usize>,
    names: Vec<String>,
    parts: Vec<Part>,
    packed: Option<Packed<P>>,
}

enum Packed<P: Pack> {
    Matrix(P::Matrix),
    Vector(P::Vector),
    Table(P::Table),
}

/// Where a tensor goes.
#[derive(Debug, Clone, Copy)]
struct Target {
    slot: usize,
    part: usize,
    /// The row scales of the part, not its values.
    scales: bool,
}

/// What is known of the tensors so far; of sharded ones no shape, and the stored form only with
/// their file.
type Known = HashMap<String, Stored>;

#[derive(Default)]
struct Stored {
    shape: Option<Vec<usize>>,
    dtype: Option<Dtype>,
}

/// Receives the tensors of one or more files and builds a blueprint's model from them.
pub struct Loader<'a, P: Pack, B: Blueprint> {
    file: &'a str,
    pack: &'a P,
    blueprint: &'a B,
    /// The form of large weights; none keeps each as it is stored.
    dtype: Option<Dtype>,
    known: Known,
    declared: bool,
    slots: Vec<Slot<P>>,
    targets: HashMap<String, Vec<Target>>,
}

impl<'a, P: Pack, B: Blueprint> Loader<'a, P, B> {
    /// A loader for the tensors of `file`.
    pub fn new(file: &'a str, pack: &'a P, blueprint: &'a B, dtype: Option<Dtype>) -> Self {
        Self {
            file,
            pack,
            blueprint,
            dtype,
            known: Known::new(),
            declared: false,
            slots: Vec::new(),
            targets: HashMap::new(),
        }
    }

    /// A loader for tensors spread over several files, whose names the index `file` gives.
    pub fn sharded(
        file: &'a str,
        names: impl IntoIterator<Item = String>,
        pack: &'a P,
        blueprint: &'a B,
        dtype: Option<Dtype>,
    ) -> Result<Self> {
        let mut loader = Self::new(file, pack, blueprint, dtype);
        loader.known = names.into_iter().map(|name| (name, Stored::default())).collect();
        loader.declare()?;
        Ok(loader)
    }

    fn declare(&mut self) -> Result<()> {
        let mut declare = Declare { file: self.file, known: &self.known, slots: Vec::new(), targets: HashMap::new() };
        self.blueprint.build(&mut declare)?;
        (self.slots, self.targets) = (declare.slots, declare.targets);
        self.declared = true;
        Ok(())
    }

    /// Builds the model, once every tensor has arrived.
    pub fn finish(self) -> Result<B::Model<P>>
    where
        P: Sized,
    {
        self.blueprint.build(&mut Take { file: self.file, known: &self.known, slots: self.slots.into_iter() })
    }
}

impl<P: Pack, B: Blueprint> Sink for Loader<'_, P, B> {
    fn begin(&mut self, tensors: &[TensorInfo]) -> Result<()> {
        if !self.declared {
            let stored = |info: &TensorInfo| Stored { shape: Some(info.shape.clone()), dtype: None };
            self.known = tensors.iter().map(|info| (info.name.clone(), stored(info))).collect();
            self.declare()?;
        }
        // What the model asks for first is what an error should name.
        let mut wanted: Vec<(&TensorInfo, Target)> = tensors
            .iter()
            .flat_map(|info| self.targets.get(&info.name).into_iter().flatten().map(move |&target| (info, target)))
            .collect();
        wanted.sort_unstable_by_key(|(_, target)| (target.slot, target.part));
        for (info, target) in wanted {
            self.slots[target.slot].check_shape(self.file, info, target.scales)?;
        }
        for info in tensors {
            if let Some(stored) = self.known.get_mut(&info.name) {
                stored.dtype = info.dtype;
            }
        }
        Ok(())
    }

    fn wants(&self, name: &str) -> Option<Dtype> {
        let target = self.targets.get(name)?.first()?;
        let slot = &self.slots[target.slot];
        let stored = self.known.get(name).and_then(|stored| stored.dtype);
        let converted = !target.scales && slot.is_large();
        Some(if converted { self.dtype.or(stored).unwrap_or(Dtype::F32) } else { Dtype::F32 })
    }

    fn tensor(&mut self, name: &str, values: Values) -> Result<()> {
        let Some(targets) = self.targets.get(name) else {
            return Ok(());
        };
        let mut values = Some(values);
        for (use_, target) in targets.iter().enumerate() {
            // The last use takes the values, earlier ones (tied weights) a copy.
            let last = use_ + 1 == targets.len();
            let Some(values) = (if last { values.take() } else { values.clone() }) else {
                break;
            };
            let slot = &mut self.slots[target.slot];
            let part = &mut slot.parts[target.part];
            let is_here = if target.scales { part.scales.is_some() } else { part.values.is_some() };
            if slot.packed.is_some() || is_here {
                return Err(Error::new(Code::InvalidWeights, name, "duplicate: it came before, from another file"));
            }
            match target.scales {
                true => part.scales = Some(values.into_f32(1)),
                false => part.values = Some(values),
            }
            if slot.packed.is_none() && slot.parts.iter().all(Part::is_complete) {
                slot.packed = Some(slot.pack(self.file, self.pack, self.dtype)?);
            }
        }
        Ok(())
    }
}

impl<P: Pack> Slot<P> {
    fn is_large(&self) -> bool {
        self.kind != Kind::Vector && self.shape.iter().product::<usize>() >= CONVERTED_FROM
    }

    /// Values of a row; of a vector, one.
    fn width(&self) -> usize {
        self.shape.get(1).copied().unwrap_or(1)
    }

    fn check_shape(&self, file: &str, info: &TensorInfo, scales: bool) -> Result<()> {
        let rows = &self.shape[..1];
        let column = [self.shape[0], 1];
        let fits = match scales {
            true => info.shape == rows || info.shape == column,
            false => info.shape == self.shape,
        };
        if fits {
            return Ok(());
        }
        let asked = if scales { rows } else { &self.shape };
        let message = format!("{file} has shape {:?}, the configuration asks for {asked:?}", info.shape);
        Err(Error::new(Code::WrongShape, &info.name, message))
    }

    fn pack(&mut self, file: &str, pack: &P, dtype: Option<Dtype>) -> Result<Packed<P>> {
        let (count, width, large) = (self.parts.len(), self.width(), self.is_large());
        // Parts that are stored in different forms meet in the one that holds them all.
        let mut forms = self.parts.iter().filter_map(|part| part.values.as_ref().map(Values::dtype));
        let stored = forms.next().filter(|&first| forms.all(|form| form == first)).unwrap_or(Dtype::F32);
        let wanted = if large { dtype.unwrap_or(stored) } else { Dtype::F32 };
        let mut whole: Option<Values> = None;
        for (part, name) in self.parts.iter_mut().zip(&self.names) {
            let mut values = part.values.take().unwrap_or(Values::F32(Vec::new()));
            if part.scales.is_some() && values.dtype() != Dtype::Int8 {
                let message = format!("scales: {file} has {} for rows that are not of eight bits", scales_of(name));
                return Err(Error::new(Code::InvalidWeights, name, message));
            }
            if let Values::Int8 { values: rows, scales } = &mut values
                && scales.is_empty()
            {
                *scales = match (part.scales.take(), self.kind) {
                    (Some(scales), _) => scales,
                    (None, Kind::UnscaledTable) => vec![1.0; rows.len() / width.max(1)],
                    (None, _) => {
                        let message = format!("scales: {file} has no {} for its eight-bit rows", scales_of(name));
                        return Err(Error::new(Code::InvalidWeights, name, message));
                    }
                };
            }
            let values = values.converted(name, wanted, width)?;
            match &mut whole {
                Some(whole) => whole.append(values)?,
                None => whole = Some(values),
            }
        }
        let values = whole.unwrap_or(Values::F32(Vec::new()));
        Ok(match (self.kind, self.shape.as_slice()) {
            (Kind::Matrix, &[rows, inputs]) => Packed::Matrix(pack.matrix(rows * count, inputs, values)?),
            (Kind::Table | Kind::UnscaledTable, &[rows, width]) => Packed::Table(pack.table(rows, width, values)?),
            _ => Packed::Vector(pack.vector(values.into_f32(1))?),
        })
    }
}

/// The first run: writes down what the model is made of.
struct Declare<'a, P: Pack> {
    file: &'a str,
    known: &'a Known,
    slots: Vec<Slot<P>>,
    targets: HashMap<String, Vec<Target>>,
}

/// The form of weights during the first run: none.
struct Nothing;

impl Weights for Nothing {
    type Matrix = ();
    type Vector = ();
    type Table = ();
}

impl<P: Pack> Declare<'_, P> {
    fn slot(&mut self, kind: Kind, names: &[String], shape: &[usize]) -> Result<()> {
        let slot = self.slots.len();
        let mut parts = Vec::with_capacity(names.len());
        for (part, name) in names.iter().enumerate() {
            if !self.known.contains_key(name) {
                return Err(Error::new(Code::MissingTensor, name, format!("{} has no such tensor", self.file)));
            }
            self.targets.entry(name.clone()).or_default().push(Target { slot, part, scales: false });
            let scales = scales_of(name);
            let scaled = kind != Kind::Vector && self.known.contains_key(&scales);
            if scaled {
                self.targets.entry(scales).or_default().push(Target { slot, part, scales: true });
            }
            parts.push(Part { scaled, ..Part::default() });
        }
        self.slots.push(Slot { kind, shape: shape.to_vec(), names: names.to_vec(), parts, packed: None });
        Ok(())
    }
}

impl<P: Pack> Source for Declare<'_, P> {
    type Weights = Nothing;

    fn has(&self, name: &str) -> bool {
        self.known.contains_key(name)
    }

    fn shape(&self, name: &str) -> Option<&[usize]> {
        self.known.get(name)?.shape.as_deref()
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

    fn unscaled_table(&mut self, name: &str, shape: [usize; 2]) -> Result<()> {
        self.slot(Kind::UnscaledTable, &[name.to_owned()], &shape)
    }
}

/// The second run: gives the packed weights out in the order of the first.
struct Take<'a, P: Pack> {
    file: &'a str,
    known: &'a Known,
    slots: std::vec::IntoIter<Slot<P>>,
}

impl<P: Pack> Take<'_, P> {
    fn next(&mut self, name: &str) -> Result<Packed<P>> {
        self.slots
            .next()
            .and_then(|slot| slot.packed)
            .ok_or_else(|| Error::new(Code::MissingTensor, name, format!("{} ended before it", self.file)))
    }
}

fn out_of_order(name: &str) -> Error {
    Error::new(Code::Executor, name, "the blueprint asked for its weights in another order")
}

impl<P: Pack> Source for Take<'_, P> {
    type Weights = P;

    fn has(&self, name: &str) -> bool {
        self.known.contains_key(name)
    }

    fn shape(&self, name: &str) -> Option<&[usize]> {
        self.known.get(name)?.shape.as_deref()
    }

    fn matrix(&mut self, names: &[String], _: [usize; 2]) -> Result<P::Matrix> {
        match self.next(&names[0])? {
            Packed::Matrix(matrix) => Ok(matrix),
            _ => Err(out_of_order(&names[0])),
        }
    }

    fn vector(&mut self, names: &[String], _: usize) -> Result<P::Vector> {
        match self.next(&names[0])? {
            Packed::Vector(vector) => Ok(vector),
            _ => Err(out_of_order(&names[0])),
        }
    }

    fn table(&mut self, name: &str, _: [usize; 2]) -> Result<P::Table> {
        match self.next(name)? {
            Packed::Table(table) => Ok(table),
            _ => Err(out_of_order(name)),
        }
    }

    fn unscaled_table(&mut self, name: &str, shape: [usize; 2]) -> Result<P::Table> {
        self.table(name, shape)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::host::{Host, Table};

    struct Stacked;

    impl Blueprint for Stacked {
        type Model<W: Weights> = W::Matrix;

        fn build<S: Source>(&self, source: &mut S) -> Result<<S::Weights as Weights>::Matrix> {
            source.matrix(&["q".to_owned(), "k".to_owned()], [WIDTH, WIDTH])
        }
    }

    const WIDTH: usize = 256;

    fn load(parts: [(Dtype, Option<f32>); 2], dtype: Option<Dtype>) -> Result<Table> {
        let info = |name: &str, shape: &[usize], dtype| TensorInfo {
            name: name.to_owned(),
            shape: shape.to_vec(),
            dtype: Some(dtype),
        };
        let names = ["q", "k"].into_iter().zip(parts);
        let mut infos = Vec::new();
        for (name, (dtype, scale)) in names.clone() {
            infos.push(info(name, &[WIDTH, WIDTH], dtype));
            if scale.is_some() {
                infos.push(info(&scales_of(name), &[WIDTH], Dtype::F32));
            }
        }
        let mut loader = Loader::new("file", &Host, &Stacked, dtype);
        loader.begin(&infos)?;
        for (name, (dtype, scale)) in names {
            let count = WIDTH * WIDTH;
            let values = match dtype {
                Dtype::Int8 => Values::Int8 { values: vec![2; count], scales: Vec::new() },
                dtype => Values::F32(vec![2.0; count]).converted(name, dtype, WIDTH)?,
            };
            loader.tensor(name, values)?;
            if let Some(scale) = scale {
                loader.tensor(&scales_of(name), Values::F32(vec![scale; WIDTH]))?;
            }
        }
        loader.finish()
    }

    fn first_and_last(table: &Table) -> [f32; 2] {
        let mut row = vec![0.0; WIDTH];
        [0, 2 * WIDTH - 1].map(|index| {
            table.read(index, &mut row);
            row[0]
        })
    }

    #[test]
    fn stacked_parts_keep_their_own_scales_and_meet_in_one_form() {
        use Dtype::{F16, F32, Int8};
        let cases = [
            ([(Int8, Some(0.5)), (Int8, Some(3.0))], None, Int8, [1.0, 6.0]),
            ([(Int8, Some(0.5)), (Int8, Some(3.0))], Some(F32), F32, [1.0, 6.0]),
            ([(F16, None), (F16, None)], None, F16, [2.0, 2.0]),
            ([(F16, None), (F32, None)], None, F32, [2.0, 2.0]),
            ([(Int8, Some(0.5)), (F16, None)], None, F32, [1.0, 2.0]),
            ([(F32, None), (F16, None)], Some(Int8), Int8, [2.0, 2.0]),
        ];
        for (parts, dtype, form, want) in cases {
            let table = load(parts, dtype).expect("valid");
            assert_eq!(table.values.dtype(), form, "{parts:?}");
            for (got, want) in first_and_last(&table).into_iter().zip(want) {
                assert!((got - want).abs() < 1e-6, "{parts:?}: {got} is not {want}");
            }
        }
        let error = load([(Int8, Some(0.5)), (Int8, None)], None).expect_err("refused");
        assert!(error.message().starts_with("scales: "), "{error}");
    }
}
