//! Layer norm and RMS norm, with the residual in the same pass over a row.

use super::{NormKind, lanes::Lanes};

/// What happens to each row.
#[derive(Clone, Copy)]
pub struct Norm<'a> {
    pub kind: NormKind,
    pub gain: &'a [f32],
    pub bias: Option<&'a [f32]>,
    pub epsilon: f32,
}

/// `y = norm(x + residual)` of one row as wide as the gain; `y` may be `x`.
///
/// # Safety
/// The processor must have the instructions of `L`; all pointers must be valid for the width, `residual` may be null.
#[inline(always)]
pub unsafe fn row<L: Lanes>(x: *const f32, residual: *const f32, y: *mut f32, norm: &Norm) {
    let width = norm.gain.len();
    let whole = width - width % L::COUNT;
    let rest = width - whole;
    // SAFETY: the caller's promise; the bias is as long as the gain.
    unsafe {
        let zero = L::splat(0.0);
        let part = |from: *const f32| L::load_first(from.add(whole), rest, 0.0);
        let mut sum = zero;
        let at = |at: usize| match residual.is_null() {
            true => L::load(x.add(at)),
            false => L::load(x.add(at)) + L::load(residual.add(at)),
        };
        for column in (0..whole).step_by(L::COUNT) {
            let value = at(column);
            value.store(y.add(column));
            sum = sum + value;
        }
        if rest > 0 {
            let value = if residual.is_null() { part(x) } else { part(x) + part(residual) };
            value.store_first(y.add(whole), rest);
            sum = sum + value;
        }
        let mean = match norm.kind {
            NormKind::Layer => sum.sum() / width as f32,
            NormKind::Rms => 0.0,
        };
        let mean_lanes = L::splat(mean);
        let mut squares = zero;
        for column in (0..whole).step_by(L::COUNT) {
            let distance = L::load(y.add(column)) - mean_lanes;
            squares = distance.mul_add(distance, squares);
        }
        if rest > 0 {
            let distance = L::load_first(y.add(whole), rest, mean) - mean_lanes;
            squares = distance.mul_add(distance, squares);
        }
        let factor = L::splat(1.0 / (squares.sum() / width as f32 + norm.epsilon).sqrt());
        let gain = norm.gain.as_ptr();
        for column in (0..whole).step_by(L::COUNT) {
            let value = (L::load(y.add(column)) - mean_lanes) * factor;
            let gain = L::load(gain.add(column));
            match norm.bias {
                None => value * gain,
                Some(bias) => value.mul_add(gain, L::load(bias.as_ptr().add(column))),
            }
            .store(y.add(column));
        }
        if rest > 0 {
            let value = (part(y) - mean_lanes) * factor;
            let value = match norm.bias {
                None => value * part(gain),
                Some(bias) => value.mul_add(part(gain), part(bias.as_ptr())),
            };
            value.store_first(y.add(whole), rest);
        }
    }
}
