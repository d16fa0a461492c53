//! Matrices as kernels read them, and a proof of each.

use std::ops::Range;

use super::probe::noise;
use crate::{gpu::plan::Form, weights::Values};

/// Values that are packed at a time.
const PIECE: usize = 1 << 20;

/// The form that values keep on the device.
pub fn form(values: &Values) -> Form {
    match values {
        Values::F32(_) => Form::F32,
        Values::F16(_) => Form::F16,
        Values::Int8 { .. } => Form::Int8,
    }
}

/// Some outputs of an `[outputs, inputs]` matrix by blocks of four inputs: `[blocks, outputs]` of four values each, so that threads beside each
/// other read what lies side by side. A last block is filled with zeros.
pub fn pieces(values: &Values, inputs: usize, outputs: Range<usize>) -> Box<dyn Iterator<Item = Vec<u8>> + '_> {
    match values {
        Values::F32(values) => blocks(values, inputs, outputs, f32::to_le_bytes),
        Values::F16(values) => blocks(values, inputs, outputs, half::f16::to_le_bytes),
        Values::Int8 { values, .. } => blocks(values, inputs, outputs, i8::to_le_bytes),
    }
}

fn blocks<T: Copy, const N: usize>(
    values: &[T],
    inputs: usize,
    outputs: Range<usize>,
    bytes: fn(T) -> [u8; N],
) -> Box<dyn Iterator<Item = Vec<u8>> + '_> {
    let step = (PIECE / outputs.len().max(1) / 4).max(1);
    let pieces = (0..inputs.div_ceil(4)).step_by(step).map(move |first| {
        let piece = first..(first + step).min(inputs.div_ceil(4));
        let mut packed = vec![0; piece.len() * outputs.len() * 4 * N];
        for (output, row) in values[outputs.start * inputs..outputs.end * inputs].chunks_exact(inputs).enumerate() {
            let columns = 4 * piece.start..(4 * piece.end).min(inputs);
            for (block, four) in row[columns].chunks(4).enumerate() {
                let at = (block * outputs.len() + output) * 4 * N;
                for (place, &value) in packed[at..at + 4 * N].chunks_exact_mut(N).zip(four) {
                    place.copy_from_slice(&bytes(value));
                }
            }
        }
        packed
    });
    Box::new(pieces)
}

/// Outputs of a matrix that are tried. All of a large one would take longer than packing it; these, from one end to the other, meet every
/// piece in which it was sent.
const TRIED: usize = 256;

/// How far a product may be off, as a share of the sum of its terms' sizes: for sums in another order, and in half precision.
pub const SINGLE: f32 = 1e-5;
pub const HALF: f32 = 2e-3;

/// A row, some of its products with a matrix, and the sums of their terms' sizes.
pub struct Proof {
    pub x: Vec<f32>,
    count: usize,
    tried: Vec<Tried>,
}

struct Tried {
    output: usize,
    product: f32,
    size: f32,
}

impl Proof {
    pub fn of(values: &Values, outputs: usize, inputs: usize) -> Self {
        let x = noise(1, inputs);
        let mut row = vec![0.0; inputs];
        let count = outputs.min(TRIED);
        let mut tried = Vec::with_capacity(count);
        for output in (0..count).map(|at| at * outputs / count) {
            values.read_row(output, &mut row);
            // Eight sums at a time, as a processor adds.
            let mut sums = [[0.0f32; 8]; 2];
            for (x, w) in x.chunks(8).zip(row.chunks(8)) {
                for (at, (x, w)) in x.iter().zip(w).enumerate() {
                    sums[0][at] += x * w;
                    sums[1][at] += (x * w).abs();
                }
            }
            let [product, size] = sums.map(|sums| sums.iter().sum::<f32>());
            tried.push(Tried { output, product, size });
        }
        Self { x, count: outputs, tried }
    }

    /// Compares a product from elsewhere; says what is wrong with it.
    pub fn check(&self, product: &[f32], tolerance: f32) -> Result<(), String> {
        let (count, inputs) = (self.count, self.x.len());
        if product.len() != count {
            return Err(format!("{} products of {count}", product.len()));
        }
        for &Tried { output, product: want, size } in &self.tried {
            let got = product[output];
            let error = (got - want).abs();
            if error.is_nan() || error > tolerance * size + f32::MIN_POSITIVE {
                return Err(format!("output {output} of a matrix of {count} x {inputs} is {got}, not {want}"));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use half::f16;

    use super::*;

    #[test]
    fn blocks_of_four_inputs_stand_by_output() {
        let values: Vec<f32> = (0..15).map(|value| value as f32).collect();
        let packed: Vec<u8> = pieces(&Values::F32(values), 5, 1..3).flatten().collect();
        let packed: Vec<f32> =
            packed.chunks_exact(4).map(|value| f32::from_le_bytes(value.try_into().expect("four"))).collect();
        let want = [5, 6, 7, 8, 10, 11, 12, 13, 9, 0, 0, 0, 14, 0, 0, 0].map(|value| value as f32);
        assert_eq!(packed, want);
        let values = Values::Int8 { values: vec![1, -2, 3, 4, 5, 6], scales: vec![1.0; 2] };
        let packed: Vec<u8> = pieces(&values, 3, 0..2).flatten().collect();
        assert_eq!(packed, [1, 254, 3, 0, 4, 5, 6, 0]);
        let values = Values::F16(vec![f16::ONE; 3]);
        let packed: Vec<u8> = pieces(&values, 3, 0..1).flatten().collect();
        assert_eq!(packed, [0, 60, 0, 60, 0, 60, 0, 0]);
    }

    #[test]
    fn a_large_matrix_comes_in_pieces_that_join() {
        let values: Vec<f32> = (0..(1 << 21) + 4096).map(|value| value as f32).collect();
        let values = Values::F32(values);
        let all: Vec<Vec<u8>> = pieces(&values, 4096, 0..513).collect();
        assert!(all.len() > 1 && all.iter().all(|piece| piece.len() <= 16 * PIECE), "{} pieces", all.len());
        let all = all.concat();
        let at = (1000 * 513 + 77) * 16;
        let first = f32::from_le_bytes(all[at..at + 4].try_into().expect("four"));
        assert_eq!(first, (77 * 4096 + 4000) as f32);
    }

    #[test]
    fn a_proof_finds_a_single_wrong_weight_and_any_lost_piece() {
        let products = |weights: &[f32]| -> Vec<f32> {
            let x = Proof::of(&Values::F32(weights.to_vec()), weights.len() / 128, 128).x;
            weights.chunks_exact(128).map(|row| row.iter().zip(&x).map(|(w, x)| w * x).sum()).collect()
        };
        let mut weights: Vec<f32> = (0..512).map(|at| (at as f32 * 0.37).sin()).collect();
        let proof = Proof::of(&Values::F32(weights.clone()), 4, 128);
        let product = products(&weights);
        assert_eq!(proof.check(&product, SINGLE), Ok(()));
        assert!(proof.check(&product[..3], SINGLE).is_err());
        weights[130] += 0.05;
        assert!(proof.check(&products(&weights), SINGLE).expect_err("wrong").starts_with("output 1 of"));
        assert!(proof.check(&[f32::NAN; 4], SINGLE).is_err());
        // Four inputs of each output, as a piece at its smallest has them.
        let mut weights: Vec<f32> = (0..128 * 1000).map(|at| (at as f32 * 0.37).sin()).collect();
        let proof = Proof::of(&Values::F32(weights.clone()), 1000, 128);
        assert!(proof.tried.len() == TRIED && proof.tried[TRIED - 1].output > 990);
        assert_eq!(proof.check(&products(&weights), SINGLE), Ok(()));
        weights.chunks_exact_mut(128).for_each(|row| row[60..64].fill(0.0));
        assert!(proof.check(&products(&weights), SINGLE).is_err());
    }
}
