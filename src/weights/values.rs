//! A tensor's values on the host, in the form in which the model holds them.

use half::f16;

use crate::error::{Code, Error, Result};

/// How a model's large weights are held. Small ones (biases, norms, heads) are always f32.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Dtype {
    F32,
    F16,
    /// Eight bits with one scale per row: a weight is `value * scale[row]`, where a row is an output channel or a token.
    Int8,
}

impl Dtype {
    /// The name that options use.
    pub const fn as_str(self) -> &'static str {
        match self {
            Dtype::F32 => "f32",
            Dtype::F16 => "f16",
            Dtype::Int8 => "int8",
        }
    }
}

impl std::str::FromStr for Dtype {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        [Dtype::F32, Dtype::F16, Dtype::Int8]
            .into_iter()
            .find(|dtype| dtype.as_str() == name)
            .ok_or_else(|| Error::new(Code::InvalidOption, "dtype", format!("{name:?} is none of f32, f16, int8")))
    }
}

/// Row-major values.
#[derive(Debug, Clone, PartialEq)]
pub enum Values {
    F32(Vec<f32>),
    F16(Vec<f16>),
    /// `scales` has one entry per row.
    Int8 {
        values: Vec<i8>,
        scales: Vec<f32>,
    },
}

impl Values {
    /// How the values are held.
    pub fn dtype(&self) -> Dtype {
        match self {
            Values::F32(_) => Dtype::F32,
            Values::F16(_) => Dtype::F16,
            Values::Int8 { .. } => Dtype::Int8,
        }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        match self {
            Values::F32(values) => values.len(),
            Values::F16(values) => values.len(),
            Values::Int8 { values, .. } => values.len(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Writes row `index` of rows of `out.len()` values.
    pub fn read_row(&self, index: usize, out: &mut [f32]) {
        let range = index * out.len()..(index + 1) * out.len();
        match self {
            Values::F32(values) => out.copy_from_slice(&values[range]),
            Values::F16(values) => out.iter_mut().zip(&values[range]).for_each(|(out, value)| *out = value.to_f32()),
            Values::Int8 { values, scales } => {
                let scale = scales[index];
                out.iter_mut().zip(&values[range]).for_each(|(out, &value)| *out = f32::from(value) * scale);
            }
        }
    }

    /// The values of all rows of `width` as f32.
    pub fn into_f32(self, width: usize) -> Vec<f32> {
        match self {
            Values::F32(values) => values,
            other => {
                let mut all = vec![0.0; other.len()];
                all.chunks_exact_mut(width.max(1)).enumerate().for_each(|(index, row)| other.read_row(index, row));
                all
            }
        }
    }

    /// The same rows held as `dtype`.
    pub fn converted(self, name: &str, dtype: Dtype, width: usize) -> Result<Self> {
        if self.dtype() == dtype {
            return Ok(self);
        }
        let mut collector = Collector::new(name, dtype, width, self.len() as u64)?;
        let mut row = vec![0.0; width];
        for index in 0..self.len() / width.max(1) {
            self.read_row(index, &mut row);
            collector.push(&row)?;
        }
        Ok(collector.finish())
    }

    /// Puts the rows of `other`, held in the same form, below these.
    pub fn append(&mut self, other: Values) -> Result<()> {
        match (self, other) {
            (Values::F32(values), Values::F32(other)) => values.extend(other),
            (Values::F16(values), Values::F16(other)) => values.extend(other),
            (Values::Int8 { values, scales }, Values::Int8 { values: other, scales: more }) => {
                values.extend(other);
                scales.extend(more);
            }
            _ => return Err(Error::new(Code::Executor, "weights", "stacked parts are held in different forms")),
        }
        Ok(())
    }
}

/// Takes a tensor's values as they arrive and keeps them in the form wanted, so that a large tensor never stands there
/// in f32 first.
pub struct Collector {
    name: String,
    width: usize,
    /// The row under way, where rows are converted whole.
    row: Vec<f32>,
    values: Values,
    count: usize,
}

impl Collector {
    /// For `count` values in rows of `width`; asks for the memory at once.
    pub fn new(name: &str, dtype: Dtype, width: usize, count: u64) -> Result<Self> {
        let refused = || Error::new(Code::OutOfMemory, name, format!("no memory for {count} values"));
        let count = usize::try_from(count).map_err(|_| refused())?;
        fn reserved<T>(count: usize) -> Option<Vec<T>> {
            let mut values = Vec::new();
            values.try_reserve_exact(count).ok().map(|()| values)
        }
        let values = match dtype {
            Dtype::F32 => reserved(count).map(Values::F32),
            Dtype::F16 => reserved(count).map(Values::F16),
            Dtype::Int8 => reserved(count)
                .zip(reserved(count / width.max(1)))
                .map(|(values, scales)| Values::Int8 { values, scales }),
        };
        let values = values.ok_or_else(refused)?;
        Ok(Self { name: name.to_owned(), width, row: Vec::new(), values, count: 0 })
    }

    /// Takes the next values, each of which must be finite.
    pub fn push(&mut self, values: &[f32]) -> Result<()> {
        if let Some(index) = values.iter().position(|value| !value.is_finite()) {
            return Err(Error::new(
                Code::NotFinite,
                &self.name,
                format!("value {} is {}", self.count + index, values[index]),
            ));
        }
        self.count += values.len();
        match &mut self.values {
            Values::F32(kept) => kept.extend_from_slice(values),
            Values::F16(kept) => {
                let start = kept.len();
                kept.extend(values.iter().map(|&value| f16::from_f32(value)));
                if let Some(index) = kept[start..].iter().position(|value| !value.is_finite()) {
                    let message = format!("value {} is {}, too large for f16", start + index, values[index]);
                    return Err(Error::new(Code::NotFinite, &self.name, message));
                }
            }
            Values::Int8 { values: kept, scales } => {
                let mut rest = values;
                while !rest.is_empty() {
                    let taken;
                    (taken, rest) = rest.split_at((self.width - self.row.len()).min(rest.len()));
                    self.row.extend_from_slice(taken);
                    if self.row.len() == self.width {
                        scales.push(quantize_row(&self.row, kept));
                        self.row.clear();
                    }
                }
            }
        }
        Ok(())
    }

    /// Takes integers that are to be scaled later, and kept as they are until then.
    pub fn push_i8(&mut self, values: impl Iterator<Item = i8>) {
        if let Values::Int8 { values: kept, .. } = &mut self.values {
            kept.extend(values);
        }
    }

    /// The values, once all were pushed.
    pub fn finish(self) -> Values {
        self.values
    }
}

/// Rounds a row to eight bits symmetrically (-127 to 127) and gives its scale. The largest error is half a scale.
fn quantize_row(row: &[f32], into: &mut Vec<i8>) -> f32 {
    let largest = row.iter().fold(0.0, |largest: f32, value| largest.max(value.abs()));
    let scale = largest / 127.0;
    let inverse = if scale > 0.0 { 1.0 / scale } else { 0.0 };
    // A subnormal scale has an infinite inverse; `as` saturates, and such a row is zero for every purpose.
    into.extend(row.iter().map(|value| (value * inverse).round().clamp(-127.0, 127.0) as i8));
    scale
}

#[cfg(test)]
mod tests {
    use super::*;

    fn collected(dtype: Dtype, width: usize, chunks: &[&[f32]]) -> Result<Values> {
        let count = chunks.iter().map(|chunk| chunk.len() as u64).sum();
        let mut collector = Collector::new("w", dtype, width, count)?;
        chunks.iter().try_for_each(|chunk| collector.push(chunk))?;
        Ok(collector.finish())
    }

    #[test]
    fn any_chunking_gives_the_same_rows_within_the_step_of_the_form() {
        let values = [1.0, -2.0, 0.5, 0.0, 0.0, 0.0, 1e-3, 3e-3, -2.5e-3];
        for (dtype, step) in [(Dtype::F32, 0.0), (Dtype::F16, 1.0 / 2048.0), (Dtype::Int8, 0.5 / 127.0)] {
            let whole = collected(dtype, 3, &[&values]).expect("finite");
            let parts = collected(dtype, 3, &[&values[..1], &values[1..5], &values[5..]]).expect("finite");
            assert_eq!(whole, parts);
            let mut row = [0.0; 3];
            for (index, wanted) in values.chunks(3).enumerate() {
                whole.read_row(index, &mut row);
                let largest = wanted.iter().fold(0.0, |most: f32, value| most.max(value.abs()));
                for (got, want) in row.iter().zip(wanted) {
                    assert!((got - want).abs() <= step * largest * 1.001, "{dtype:?}: {got} is not {want}");
                }
            }
            assert_eq!(whole.into_f32(3).len(), values.len());
        }
    }

    #[test]
    fn what_a_form_cannot_hold_is_refused() {
        for (dtype, value) in [(Dtype::F32, f32::NAN), (Dtype::Int8, f32::INFINITY), (Dtype::F16, 1e5)] {
            assert_eq!(collected(dtype, 1, &[&[1.0, value]]).expect_err("refused").code(), Code::NotFinite);
        }
        let error = Collector::new("w", Dtype::Int8, 1, u64::MAX / 2).err().expect("refused");
        assert_eq!(error.code(), Code::OutOfMemory);
    }

    #[test]
    fn a_row_of_subnormal_values_stays_finite() {
        let values = collected(Dtype::Int8, 2, &[&[1e-44, -1e-45]]).expect("finite");
        assert!(values.into_f32(2).iter().all(|value| value.is_finite()));
    }
}
