//! Token vectors of a text to one vector. A pass over memory, which compilers vectorise well enough.

use super::Pooling;

/// Pools the rows of a text, each as wide as `out`; zeros without rows.
pub fn pool(rows: &[f32], pooling: Pooling, out: &mut [f32]) {
    let width = out.len().max(1);
    let count = rows.len() / width;
    let rows = rows.chunks_exact(width);
    out.fill(0.0);
    match pooling {
        _ if count == 0 => {}
        Pooling::Cls => rows.take(1).for_each(|row| out.copy_from_slice(row)),
        Pooling::LastToken => rows.skip(count - 1).for_each(|row| out.copy_from_slice(row)),
        Pooling::Max => {
            out.fill(f32::NEG_INFINITY);
            // Written so that NaN stays.
            rows.for_each(|row| {
                each(out, row, |most, value| if value <= most || most.is_nan() { most } else { value });
            });
        }
        Pooling::Mean => {
            rows.for_each(|row| each(out, row, |sum, value| sum + value));
            out.iter_mut().for_each(|sum| *sum /= count as f32);
        }
        Pooling::MeanSqrtLen => {
            rows.for_each(|row| each(out, row, |sum, value| sum + value));
            out.iter_mut().for_each(|sum| *sum /= (count as f32).sqrt());
        }
        Pooling::WeightedMean => {
            for (position, row) in rows.enumerate() {
                let weight = (position + 1) as f32;
                each(out, row, |sum, value| sum + weight * value);
            }
            let total = (count as f64) * (count as f64 + 1.0) / 2.0;
            out.iter_mut().for_each(|sum| *sum = (f64::from(*sum) / total) as f32);
        }
    }
}

fn each(out: &mut [f32], row: &[f32], merge: impl Fn(f32, f32) -> f32) {
    out.iter_mut().zip(row).for_each(|(out, &value)| *out = merge(*out, value));
}
