//! Vectors of f32 as the processor has them. Kernels are written once over [`Lanes`] and compiled for each implementation.
//!
//! A value of a lane type proves that its instructions may be used: it comes into being only through the `unsafe` constructors,
//! which kernels call where the instruction set was found.

use std::ops::{Add, Div, Mul, Sub};

#[cfg(target_arch = "aarch64")]
pub mod neon;
#[cfg(not(target_arch = "wasm32"))]
pub mod portable;
#[cfg(target_arch = "wasm32")]
pub mod wasm;
#[cfg(target_arch = "x86_64")]
pub mod x86;

/// A vector of f32.
pub trait Lanes: Copy + Add<Output = Self> + Sub<Output = Self> + Mul<Output = Self> + Div<Output = Self> {
    /// How many values it has.
    const COUNT: usize;

    /// # Safety
    /// The processor must have the instructions of this type.
    unsafe fn splat(value: f32) -> Self;

    /// # Safety
    /// The processor must have the instructions of this type; `from` must be readable for [`Lanes::COUNT`] values.
    unsafe fn load(from: *const f32) -> Self;

    /// # Safety
    /// `to` must be writable for [`Lanes::COUNT`] values.
    unsafe fn store(self, to: *mut f32);

    /// `self * factor + term`, rounded once where that is not slower than twice.
    fn mul_add(self, factor: Self, term: Self) -> Self;

    /// The larger one, and `self` where it is NaN.
    fn at_least(self, limit: Self) -> Self;

    /// The smaller one, and `self` where it is NaN.
    fn at_most(self, limit: Self) -> Self;

    /// The nearest integer, ties to the even one.
    fn round(self) -> Self;

    /// Two to the power of `self`, which must be an integer from -126 to 127.
    fn exp2_of_integer(self) -> Self;

    /// `self`, but zero where `tested` lies below `limit`.
    fn zero_below(self, tested: Self, limit: Self) -> Self;

    fn sum(self) -> f32;

    fn largest(self) -> f32;

    /// The first `count` values of what lies at `from`, then `fill`.
    ///
    /// # Safety
    /// The processor must have the instructions of this type; `from` must be readable for `count` values.
    #[inline(always)]
    unsafe fn load_first(from: *const f32, count: usize, fill: f32) -> Self {
        let mut values = [fill; MOST_LANES];
        // SAFETY: `count` is below the lanes, which are no more than the room.
        unsafe {
            std::ptr::copy_nonoverlapping(from, values.as_mut_ptr(), count);
            Self::load(values.as_ptr())
        }
    }

    /// Stores the first `count` values.
    ///
    /// # Safety
    /// `to` must be writable for `count` values, which must be fewer than the lanes.
    #[inline(always)]
    unsafe fn store_first(self, to: *mut f32, count: usize) {
        let mut values = [0.0; MOST_LANES];
        // SAFETY: as above.
        unsafe {
            self.store(values.as_mut_ptr());
            std::ptr::copy_nonoverlapping(values.as_ptr(), to, count);
        }
    }
}

/// The lanes of the widest type.
pub const MOST_LANES: usize = 16;

/// Inputs of the widest step of eight-bit products.
pub const MOST_GROUP: usize = 4;

/// Products of eight-bit weights (-127 to 127) with seven-bit activations (0 to 127), summed exactly in 32 bits. Seven bits because
/// no instruction set's pairwise sums overflow or saturate then, so that all of them give the same integers.
pub trait Int8: Copy {
    /// The type that sums are converted to; it has as many lanes.
    type Lanes: Lanes;
    /// 32-bit sums, one per output channel.
    type Sums: Copy;
    /// The weights of as many channels, [`Int8::GROUP`] of each side by side.
    type Weights: Copy;
    /// A group of activations, repeated for every channel.
    type Activations: Copy;
    /// How an activation lies in memory.
    type Activation: Copy + Default + From<u8>;
    /// How many neighbouring inputs one step takes, at most [`MOST_GROUP`].
    const GROUP: usize;

    /// Sums that start at `-zero_point * column_sum`.
    ///
    /// # Safety
    /// The processor must have the instructions; `column_sums` must be readable for a value per lane.
    unsafe fn start(zero_point: i32, column_sums: *const i32) -> Self::Sums;

    /// # Safety
    /// The processor must have the instructions; `from` must be readable for a group per lane.
    unsafe fn weights(from: *const i8) -> Self::Weights;

    /// # Safety
    /// The processor must have the instructions; `from` must be readable for a group.
    unsafe fn activations(from: *const Self::Activation) -> Self::Activations;

    fn dot(sums: Self::Sums, weights: Self::Weights, activations: Self::Activations) -> Self::Sums;

    fn to_f32(sums: Self::Sums) -> Self::Lanes;

    /// Rounds values to the nearest integer, clamps them to 0 to 127 and stores them. NaN becomes any of these.
    ///
    /// # Safety
    /// `to` must be writable for a value per lane.
    unsafe fn store_activations(values: Self::Lanes, to: *mut Self::Activation);
}

/// Implements the four operators with intrinsics of two arguments.
macro_rules! operators {
    ($lanes:ident, $($trait:ident $method:ident $intrinsic:path),+) => {
        $(impl std::ops::$trait for $lanes {
            type Output = Self;

            #[inline(always)]
            #[allow(unused_unsafe, reason = "some instruction sets are always there")]
            fn $method(self, other: Self) -> Self {
                // SAFETY: a value of this type exists only where its instructions do.
                Self(unsafe { $intrinsic(self.0, other.0) })
            }
        })+
    };
}
pub(crate) use operators;
