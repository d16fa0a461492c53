//! Weights in panels, as tiles read them.

use std::fmt;

use super::{Aligned, Kernels, Number, sets::Set};

/// A `[outputs, inputs]` weight, packed for one instruction set.
pub struct Matrix {
    pub outputs: usize,
    pub inputs: usize,
    pub(super) form: Form,
    pub(super) set: &'static Set,
}

/// Panels of f32 and f16 are `[inputs][columns]`; see `matmul_int8` for the others.
pub(super) enum Form {
    F32(Aligned<f32>),
    F16(Aligned<u16>),
    Int8 {
        values: Aligned<i8>,
        /// Of each output channel the sum of its weights, and their scale.
        sums: Aligned<i32>,
        scales: Aligned<f32>,
        /// Inputs, filled up to whole groups.
        padded: usize,
    },
}

impl fmt::Debug for Matrix {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let form = match self.form {
            Form::F32(_) => "f32",
            Form::F16(_) => "f16",
            Form::Int8 { .. } => "int8",
        };
        write!(formatter, "Matrix([{}, {}] {form} for {})", self.outputs, self.inputs, self.set.name)
    }
}

/// Row-major values as they were before they were packed; f16 in their bits.
pub enum Unpacked {
    F32(Vec<f32>),
    F16(Vec<u16>),
    Int8 { values: Vec<i8>, scales: Vec<f32> },
}

impl Matrix {
    /// What was packed, bit for bit.
    pub fn unpacked(&self) -> Unpacked {
        let &Self { outputs, inputs, set, .. } = self;
        match &self.form {
            Form::F32(packed) => Unpacked::F32(unpack(packed, outputs, inputs, set.columns, 1)),
            Form::F16(packed) => Unpacked::F16(unpack(packed, outputs, inputs, set.columns, 1)),
            Form::Int8 { values, scales, .. } => Unpacked::Int8 {
                values: unpack(values, outputs, inputs, set.int8_columns, set.int8_group),
                scales: scales[..outputs].to_vec(),
            },
        }
    }
}

/// Packing; `None` where there is no memory.
impl Kernels {
    /// Packs row-major values.
    pub fn matrix_f32(&self, outputs: usize, inputs: usize, values: &[f32]) -> Option<Matrix> {
        let form = Form::F32(panels(values, outputs, inputs, self.set.columns, 1)?);
        Some(Matrix { outputs, inputs, form, set: self.set })
    }

    /// Packs row-major f16 in their bits.
    pub fn matrix_f16(&self, outputs: usize, inputs: usize, values: impl Iterator<Item = u16>) -> Option<Matrix> {
        let values: Vec<u16> = values.collect();
        let form = Form::F16(panels(&values, outputs, inputs, self.set.columns, 1)?);
        Some(Matrix { outputs, inputs, form, set: self.set })
    }

    /// Packs row-major values of eight bits with a scale per row.
    pub fn matrix_int8(&self, outputs: usize, inputs: usize, values: &[i8], scales: &[f32]) -> Option<Matrix> {
        assert!(scales.len() == outputs, "one scale per output channel");
        let (columns, group) = (self.set.int8_columns, self.set.int8_group);
        let packed = panels(values, outputs, inputs, columns, group)?;
        let mut sums = Aligned::<i32>::zeros(outputs.next_multiple_of(columns))?;
        for (sum, row) in sums.iter_mut().zip(values.chunks_exact(inputs.max(1))) {
            *sum = row.iter().map(|&value| i32::from(value)).sum();
        }
        let mut padded_scales = Aligned::<f32>::zeros(outputs.next_multiple_of(columns))?;
        padded_scales[..outputs].copy_from_slice(scales);
        let padded = inputs.next_multiple_of(group);
        let form = Form::Int8 { values: packed, sums, scales: padded_scales, padded };
        Some(Matrix { outputs, inputs, form, set: self.set })
    }
}

/// Row-major rows as panels, in memory of their own.
fn panels<T: Number>(values: &[T], outputs: usize, inputs: usize, columns: usize, group: usize) -> Option<Aligned<T>> {
    let mut packed = Aligned::zeros(outputs.next_multiple_of(columns) * inputs.next_multiple_of(group))?;
    pack(values, outputs, inputs, columns, group, &mut packed);
    Some(packed)
}

/// The reverse of [`pack`].
fn unpack<T: Number>(packed: &[T], outputs: usize, inputs: usize, columns: usize, group: usize) -> Vec<T> {
    let padded = inputs.next_multiple_of(group);
    let mut values = vec![T::default(); outputs * inputs];
    for (row, values) in values.chunks_exact_mut(inputs.max(1)).enumerate() {
        let panel = &packed[row / columns * columns * padded..][..columns * padded];
        let column = row % columns;
        for (at, values) in values.chunks_mut(group).enumerate() {
            values.copy_from_slice(&panel[(at * columns + column) * group..][..values.len()]);
        }
    }
    values
}

/// Row-major rows as `[panels][inputs / group][columns][group]`; what there is no value for is left as it is.
pub fn pack<T: Number>(values: &[T], outputs: usize, inputs: usize, columns: usize, group: usize, to: &mut [T]) {
    let padded = inputs.next_multiple_of(group);
    assert!(values.len() == outputs * inputs, "matrix: shape");
    assert!(to.len() == outputs.next_multiple_of(columns) * padded, "matrix: shape");
    for (row, values) in values.chunks_exact(inputs.max(1)).enumerate() {
        let panel = &mut to[row / columns * columns * padded..][..columns * padded];
        let column = row % columns;
        for (at, values) in values.chunks(group).enumerate() {
            panel[(at * columns + column) * group..][..values.len()].copy_from_slice(values);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::pool::Pool;

    #[test]
    fn what_was_packed_comes_back_bit_for_bit() {
        let kernels = Kernels::new(Pool::new(1));
        for (outputs, inputs) in [(1, 1), (3, 5), (17, 33), (40, 64), (65, 7)] {
            let numbers: Vec<f32> = (0..outputs * inputs).map(|at| (at as f32).sin()).collect();
            let matrix = kernels.matrix_f32(outputs, inputs, &numbers).expect("memory");
            assert!(matches!(matrix.unpacked(), Unpacked::F32(values) if values == numbers));
            let bits: Vec<u16> = (0..outputs * inputs).map(|at| at as u16).collect();
            let matrix = kernels.matrix_f16(outputs, inputs, bits.iter().copied()).expect("memory");
            assert!(matches!(matrix.unpacked(), Unpacked::F16(values) if values == bits));
            let bytes: Vec<i8> = (0..outputs * inputs).map(|at| (at % 255) as i8).collect();
            let steps: Vec<f32> = (0..outputs).map(|at| at as f32).collect();
            let matrix = kernels.matrix_int8(outputs, inputs, &bytes, &steps).expect("memory");
            let same =
                matches!(matrix.unpacked(), Unpacked::Int8 { values, scales } if values == bytes && scales == steps);
            assert!(same, "{outputs} x {inputs}");
        }
    }
}
