//! 128-bit lanes of WebAssembly: `simd128`, and what `relaxed-simd` adds.

use std::arch::wasm32::*;

use super::{Int8, Lanes, operators};

#[derive(Debug, Clone, Copy)]
pub struct Simd128(v128);

operators!(Simd128, Add add f32x4_add, Sub sub f32x4_sub, Mul mul f32x4_mul, Div div f32x4_div);

impl Lanes for Simd128 {
    const COUNT: usize = 4;

    #[inline(always)]
    unsafe fn splat(value: f32) -> Self {
        Self(f32x4_splat(value))
    }

    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: readable for four values, as the caller promised.
        Self(unsafe { v128_load(from.cast()) })
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: writable for four values, as the caller promised.
        unsafe { v128_store(to.cast(), self.0) }
    }

    #[cfg(target_feature = "relaxed-simd")]
    #[inline(always)]
    fn mul_add(self, factor: Self, term: Self) -> Self {
        Self(f32x4_relaxed_madd(self.0, factor.0, term.0))
    }

    #[cfg(not(target_feature = "relaxed-simd"))]
    #[inline(always)]
    fn mul_add(self, factor: Self, term: Self) -> Self {
        self * factor + term
    }

    #[inline(always)]
    fn at_least(self, limit: Self) -> Self {
        Self(f32x4_pmax(self.0, limit.0))
    }

    #[inline(always)]
    fn at_most(self, limit: Self) -> Self {
        Self(f32x4_pmin(self.0, limit.0))
    }

    #[inline(always)]
    fn round(self) -> Self {
        Self(f32x4_nearest(self.0))
    }

    #[inline(always)]
    fn exp2_of_integer(self) -> Self {
        Self(i32x4_shl(i32x4_add(truncated(self.0), i32x4_splat(127)), 23))
    }

    #[inline(always)]
    fn zero_below(self, tested: Self, limit: Self) -> Self {
        Self(v128_andnot(self.0, f32x4_lt(tested.0, limit.0)))
    }

    #[inline(always)]
    fn sum(self) -> f32 {
        let pairs = f32x4_add(self.0, i32x4_shuffle::<2, 3, 0, 1>(self.0, self.0));
        f32x4_extract_lane::<0>(pairs) + f32x4_extract_lane::<1>(pairs)
    }

    #[inline(always)]
    fn largest(self) -> f32 {
        let pairs = f32x4_pmax(self.0, i32x4_shuffle::<2, 3, 0, 1>(self.0, self.0));
        f32x4_extract_lane::<0>(pairs).max(f32x4_extract_lane::<1>(pairs))
    }
}

/// Integers of whole numbers within range, where the two conversions agree.
#[inline(always)]
fn truncated(values: v128) -> v128 {
    #[cfg(target_feature = "relaxed-simd")]
    return i32x4_relaxed_trunc_f32x4(values);
    #[cfg(not(target_feature = "relaxed-simd"))]
    return i32x4_trunc_sat_f32x4(values);
}

#[inline(always)]
unsafe fn start(zero_point: i32, column_sums: *const i32) -> v128 {
    // SAFETY: readable for four values, as the caller promised.
    i32x4_mul(i32x4_splat(-zero_point), unsafe { v128_load(column_sums.cast()) })
}

/// Whole numbers of 0 to 127.
#[inline(always)]
fn seven_bits(values: v128) -> v128 {
    truncated(f32x4_nearest(f32x4_pmin(f32x4_pmax(f32x4_splat(0.0), values), f32x4_splat(127.0))))
}

/// One instruction for four products per lane (VNNI on x86, `sdot` on ARM).
#[cfg(target_feature = "relaxed-simd")]
#[derive(Debug, Clone, Copy)]
pub struct RelaxedDot;

#[cfg(target_feature = "relaxed-simd")]
impl Int8 for RelaxedDot {
    type Lanes = Simd128;
    type Sums = v128;
    type Weights = v128;
    type Activations = v128;
    type Activation = u8;
    const GROUP: usize = 4;

    #[inline(always)]
    unsafe fn start(zero_point: i32, column_sums: *const i32) -> v128 {
        // SAFETY: the caller's promise.
        unsafe { start(zero_point, column_sums) }
    }

    #[inline(always)]
    unsafe fn weights(from: *const i8) -> v128 {
        // SAFETY: readable for four groups of four, as the caller promised.
        unsafe { v128_load(from.cast()) }
    }

    #[inline(always)]
    unsafe fn activations(from: *const u8) -> v128 {
        // SAFETY: readable for four values, as the caller promised.
        unsafe { v128_load32_splat(from.cast()) }
    }

    #[inline(always)]
    fn dot(sums: v128, weights: v128, activations: v128) -> v128 {
        i32x4_relaxed_dot_i8x16_i7x16_add(weights, activations, sums)
    }

    #[inline(always)]
    fn to_f32(sums: v128) -> Simd128 {
        Simd128(f32x4_convert_i32x4(sums))
    }

    #[inline(always)]
    unsafe fn store_activations(values: Simd128, to: *mut u8) {
        let values = seven_bits(values.0);
        let narrow = i16x8_narrow_i32x4(values, values);
        // SAFETY: writable for four values, as the caller promised.
        unsafe { v128_store32_lane::<0>(u8x16_narrow_i16x8(narrow, narrow), to.cast()) }
    }
}

/// Pairs of 16-bit products; weights are widened as they are loaded.
#[derive(Debug, Clone, Copy)]
pub struct PairDot;

impl Int8 for PairDot {
    type Lanes = Simd128;
    type Sums = v128;
    type Weights = v128;
    type Activations = v128;
    type Activation = i16;
    const GROUP: usize = 2;

    #[inline(always)]
    unsafe fn start(zero_point: i32, column_sums: *const i32) -> v128 {
        // SAFETY: the caller's promise.
        unsafe { start(zero_point, column_sums) }
    }

    #[inline(always)]
    unsafe fn weights(from: *const i8) -> v128 {
        // SAFETY: readable for four groups of two, as the caller promised.
        unsafe { i16x8_load_extend_i8x8(from) }
    }

    #[inline(always)]
    unsafe fn activations(from: *const i16) -> v128 {
        // SAFETY: readable for two values, as the caller promised.
        unsafe { v128_load32_splat(from.cast()) }
    }

    #[inline(always)]
    fn dot(sums: v128, weights: v128, activations: v128) -> v128 {
        i32x4_add(sums, i32x4_dot_i16x8(weights, activations))
    }

    #[inline(always)]
    fn to_f32(sums: v128) -> Simd128 {
        Simd128(f32x4_convert_i32x4(sums))
    }

    #[inline(always)]
    unsafe fn store_activations(values: Simd128, to: *mut i16) {
        let values = seven_bits(values.0);
        // SAFETY: writable for four values, as the caller promised.
        unsafe { v128_store64_lane::<0>(i16x8_narrow_i32x4(values, values), to.cast()) }
    }
}
