//! 128-bit lanes of 64-bit ARM.

use std::arch::aarch64::*;

use super::{Int8, Lanes, operators};

#[derive(Debug, Clone, Copy)]
pub struct Neon(float32x4_t);

operators!(Neon, Add add vaddq_f32, Sub sub vsubq_f32, Mul mul vmulq_f32, Div div vdivq_f32);

// SAFETY of the calls below: every 64-bit ARM processor has NEON; pointers are the caller's promise.
#[allow(unused_unsafe, reason = "NEON is always there")]
impl Lanes for Neon {
    const COUNT: usize = 4;

    #[inline(always)]
    unsafe fn splat(value: f32) -> Self {
        Self(unsafe { vdupq_n_f32(value) })
    }

    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        Self(unsafe { vld1q_f32(from) })
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        unsafe { vst1q_f32(to, self.0) }
    }

    #[inline(always)]
    fn mul_add(self, factor: Self, term: Self) -> Self {
        Self(unsafe { vfmaq_f32(term.0, self.0, factor.0) })
    }

    #[inline(always)]
    fn at_least(self, limit: Self) -> Self {
        Self(unsafe { vmaxq_f32(self.0, limit.0) })
    }

    #[inline(always)]
    fn at_most(self, limit: Self) -> Self {
        Self(unsafe { vminq_f32(self.0, limit.0) })
    }

    #[inline(always)]
    fn round(self) -> Self {
        Self(unsafe { vrndnq_f32(self.0) })
    }

    #[inline(always)]
    fn exp2_of_integer(self) -> Self {
        unsafe {
            let exponents = vaddq_s32(vcvtq_s32_f32(self.0), vdupq_n_s32(127));
            Self(vreinterpretq_f32_s32(vshlq_n_s32::<23>(exponents)))
        }
    }

    #[inline(always)]
    fn zero_below(self, tested: Self, limit: Self) -> Self {
        unsafe {
            let below = vcltq_f32(tested.0, limit.0);
            Self(vreinterpretq_f32_u32(vbicq_u32(vreinterpretq_u32_f32(self.0), below)))
        }
    }

    #[inline(always)]
    fn sum(self) -> f32 {
        unsafe { vaddvq_f32(self.0) }
    }

    #[inline(always)]
    fn largest(self) -> f32 {
        unsafe { vmaxvq_f32(self.0) }
    }
}

/// Pairwise sums in 16 bits, which seven-bit activations cannot overflow, then in 32.
#[derive(Debug, Clone, Copy)]
pub struct NeonInt8;

// SAFETY of the calls below: as above.
#[allow(unused_unsafe, reason = "NEON is always there")]
impl Int8 for NeonInt8 {
    type Lanes = Neon;
    type Sums = int32x4_t;
    type Weights = int8x16_t;
    type Activations = int8x16_t;
    type Activation = u8;
    const GROUP: usize = 4;

    #[inline(always)]
    unsafe fn start(zero_point: i32, column_sums: *const i32) -> int32x4_t {
        unsafe { vmulq_n_s32(vld1q_s32(column_sums), -zero_point) }
    }

    #[inline(always)]
    unsafe fn weights(from: *const i8) -> int8x16_t {
        unsafe { vld1q_s8(from) }
    }

    #[inline(always)]
    unsafe fn activations(from: *const u8) -> int8x16_t {
        unsafe { vreinterpretq_s8_s32(vdupq_n_s32(from.cast::<i32>().read_unaligned())) }
    }

    #[inline(always)]
    fn dot(sums: int32x4_t, weights: int8x16_t, activations: int8x16_t) -> int32x4_t {
        unsafe {
            let low = vmull_s8(vget_low_s8(weights), vget_low_s8(activations));
            let high = vmull_high_s8(weights, activations);
            vpadalq_s16(sums, vpaddq_s16(low, high))
        }
    }

    #[inline(always)]
    fn to_f32(sums: int32x4_t) -> Neon {
        Neon(unsafe { vcvtq_f32_s32(sums) })
    }

    #[inline(always)]
    unsafe fn store_activations(values: Neon, to: *mut u8) {
        unsafe {
            let bounded = vminq_f32(vmaxq_f32(values.0, vdupq_n_f32(0.0)), vdupq_n_f32(127.0));
            let words = vmovn_u32(vcvtnq_u32_f32(bounded));
            let bytes = vmovn_u16(vcombine_u16(words, words));
            to.cast::<u32>().write_unaligned(vget_lane_u32::<0>(vreinterpret_u32_u8(bytes)));
        }
    }
}
