//! Four lanes in plain Rust, for processors without a type of their own here. Compilers make vector instructions of it.

use std::ops::{Add, Div, Mul, Sub};

use super::{Int8, Lanes};

const COUNT: usize = 4;

#[derive(Debug, Clone, Copy)]
pub struct Portable([f32; COUNT]);

impl Portable {
    #[inline(always)]
    fn map(self, function: impl Fn(f32) -> f32) -> Self {
        Self(self.0.map(function))
    }

    #[inline(always)]
    fn zip(self, other: Self, function: impl Fn(f32, f32) -> f32) -> Self {
        Self(std::array::from_fn(|lane| function(self.0[lane], other.0[lane])))
    }
}

macro_rules! operator {
    ($($trait:ident $method:ident),+) => {
        $(impl $trait for Portable {
            type Output = Self;

            #[inline(always)]
            fn $method(self, other: Self) -> Self {
                self.zip(other, f32::$method)
            }
        })+
    };
}
operator!(Add add, Sub sub, Mul mul, Div div);

impl Lanes for Portable {
    const COUNT: usize = COUNT;

    #[inline(always)]
    unsafe fn splat(value: f32) -> Self {
        Self([value; COUNT])
    }

    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: readable for four values, as the caller promised.
        Self(unsafe { from.cast::<[f32; COUNT]>().read_unaligned() })
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: writable for four values, as the caller promised.
        unsafe { to.cast::<[f32; COUNT]>().write_unaligned(self.0) }
    }

    #[inline(always)]
    fn mul_add(self, factor: Self, term: Self) -> Self {
        self * factor + term
    }

    #[inline(always)]
    fn at_least(self, limit: Self) -> Self {
        self.zip(limit, |value, limit| if value < limit { limit } else { value })
    }

    #[inline(always)]
    fn at_most(self, limit: Self) -> Self {
        self.zip(limit, |value, limit| if value > limit { limit } else { value })
    }

    #[inline(always)]
    fn round(self) -> Self {
        self.map(f32::round_ties_even)
    }

    #[inline(always)]
    fn exp2_of_integer(self) -> Self {
        self.map(|value| f32::from_bits(((value as i32 + 127) << 23) as u32))
    }

    #[inline(always)]
    fn zero_below(self, tested: Self, limit: Self) -> Self {
        Self(std::array::from_fn(|lane| if tested.0[lane] < limit.0[lane] { 0.0 } else { self.0[lane] }))
    }

    #[inline(always)]
    fn sum(self) -> f32 {
        (self.0[0] + self.0[2]) + (self.0[1] + self.0[3])
    }

    #[inline(always)]
    fn largest(self) -> f32 {
        self.0.into_iter().fold(f32::NEG_INFINITY, f32::max)
    }
}

/// Eight-bit products, a group of four at a time.
#[derive(Debug, Clone, Copy)]
pub struct PortableInt8;

impl Int8 for PortableInt8 {
    type Lanes = Portable;
    type Sums = [i32; COUNT];
    type Weights = [[i8; 4]; COUNT];
    type Activations = [u8; 4];
    type Activation = u8;
    const GROUP: usize = 4;

    #[inline(always)]
    unsafe fn start(zero_point: i32, column_sums: *const i32) -> [i32; COUNT] {
        // SAFETY: readable for a value per lane, as the caller promised.
        unsafe { column_sums.cast::<[i32; COUNT]>().read_unaligned() }.map(|sum| -zero_point * sum)
    }

    #[inline(always)]
    unsafe fn weights(from: *const i8) -> Self::Weights {
        // SAFETY: readable for a group per lane, as the caller promised.
        unsafe { from.cast::<Self::Weights>().read_unaligned() }
    }

    #[inline(always)]
    unsafe fn activations(from: *const u8) -> [u8; 4] {
        // SAFETY: readable for a group, as the caller promised.
        unsafe { from.cast::<[u8; 4]>().read_unaligned() }
    }

    #[inline(always)]
    fn dot(sums: [i32; COUNT], weights: Self::Weights, activations: [u8; 4]) -> [i32; COUNT] {
        std::array::from_fn(|lane| {
            let products = weights[lane].into_iter().zip(activations);
            products.fold(sums[lane], |sum, (weight, activation)| sum + i32::from(weight) * i32::from(activation))
        })
    }

    #[inline(always)]
    fn to_f32(sums: [i32; COUNT]) -> Portable {
        Portable(sums.map(|sum| sum as f32))
    }

    #[inline(always)]
    unsafe fn store_activations(values: Portable, to: *mut u8) {
        let bytes = values.0.map(|value| value.round_ties_even().clamp(0.0, 127.0) as u8);
        // SAFETY: writable for a value per lane, as the caller promised.
        unsafe { to.cast::<[u8; COUNT]>().write_unaligned(bytes) }
    }
}
