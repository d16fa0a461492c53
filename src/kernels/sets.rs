//! Instruction sets: the kernels of each, as function pointers, and the choice between them.

use super::{
    Activation,
    attention::{self, Head},
    lanes::{Int8, Lanes},
    math,
    matmul_f32::{F32Product, F32Tiles},
    matmul_int8::{self, Int8Product, Int8Tiles, Quantized},
    norm::{self, Norm},
    tiles::{self, Block},
};

/// The kernels of an instruction set. Each may be called only where the processor has it; see the functions for what else they ask.
#[derive(Debug)]
pub struct Set {
    pub name: &'static str,
    /// Rows of a tile.
    pub tall: usize,
    /// Columns of a panel of f32, and of eight bits.
    pub columns: usize,
    pub int8_columns: usize,
    /// Inputs that a step of the eight-bit product takes, and the size of each.
    pub int8_group: usize,
    pub activation_bytes: usize,
    pub f32: unsafe fn(&F32Product, &Block),
    pub int8: unsafe fn(&Int8Product, &Block),
    pub quantize: unsafe fn(*const f32, usize, *mut u8, usize) -> Quantized,
    pub widen: unsafe fn(*const u16, *mut f32, usize),
    pub attend: unsafe fn(&Head, *mut f32),
    pub norm: unsafe fn(*const f32, *const f32, *mut f32, &Norm),
    pub activate: unsafe fn(*mut f32, usize, Activation),
}

/// Widens f16, given in their bits, of which none may be infinite or NaN.
///
/// # Safety
/// `from` must be readable and `to` writable for `count` values.
#[inline(always)]
unsafe fn widen(from: *const u16, to: *mut f32, count: usize) {
    // The exponents' biases differ by 112; the multiplication also makes subnormal values right.
    const SCALE: f32 = f32::from_bits((127 + 112) << 23);
    for at in 0..count {
        // SAFETY: the caller's promise.
        unsafe {
            let bits = u32::from(*from.add(at));
            let magnitude = f32::from_bits((bits & 0x7fff) << 13) * SCALE;
            *to.add(at) = f32::from_bits(magnitude.to_bits() | (bits & 0x8000) << 16);
        }
    }
}

/// Compiles all kernels for a pair of lane types, with tiles of so many rows and panels of two vectors.
macro_rules! set {
    ($name:ident, $title:literal, $lanes:ty, $int8:ty, $tall:literal, $(#[$feature:meta])?) => {
        mod $name {
            use super::*;

            const TALL: usize = $tall;
            const VECTORS: usize = 2;
            type L = $lanes;
            type I = $int8;

            $(#[$feature])?
            unsafe fn f32(product: &F32Product, block: &Block) {
                // SAFETY: the caller's promise, and so below.
                unsafe {
                    tiles::run::<_, TALL>(&F32Tiles::<L, VECTORS, false>(product, std::marker::PhantomData), block)
                }
            }

            $(#[$feature])?
            unsafe fn int8(product: &Int8Product, block: &Block) {
                unsafe { tiles::run::<_, TALL>(&Int8Tiles::<I, VECTORS>(product, std::marker::PhantomData), block) }
            }

            $(#[$feature])?
            unsafe fn quantize(x: *const f32, count: usize, to: *mut u8, padded: usize) -> Quantized {
                unsafe { matmul_int8::quantize::<I>(x, count, to.cast(), padded) }
            }

            $(#[$feature])?
            unsafe fn widen(from: *const u16, to: *mut f32, count: usize) {
                unsafe { super::widen(from, to, count) }
            }

            $(#[$feature])?
            unsafe fn attend(head: &Head, room: *mut f32) {
                unsafe { attention::attend::<L, TALL, VECTORS>(head, room) }
            }

            $(#[$feature])?
            unsafe fn norm(x: *const f32, residual: *const f32, y: *mut f32, norm: &Norm) {
                unsafe { norm::row::<L>(x, residual, y, norm) }
            }

            $(#[$feature])?
            unsafe fn activate(x: *mut f32, count: usize, activation: Activation) {
                unsafe { math::activate::<L>(x, count, activation) }
            }

            pub static SET: Set = Set {
                name: $title,
                tall: TALL,
                columns: VECTORS * L::COUNT,
                int8_columns: VECTORS * <I as Int8>::Lanes::COUNT,
                int8_group: I::GROUP,
                activation_bytes: size_of::<<I as Int8>::Activation>(),
                f32,
                int8,
                quantize,
                widen,
                attend,
                norm,
                activate,
            };
        }
    };
}

#[cfg(target_arch = "aarch64")]
use super::lanes::neon::{Neon, NeonInt8};
#[cfg(all(target_arch = "wasm32", target_feature = "relaxed-simd"))]
use super::lanes::wasm::RelaxedDot;
#[cfg(target_arch = "wasm32")]
use super::lanes::wasm::{PairDot, Simd128};
#[cfg(target_arch = "x86_64")]
use super::lanes::x86::{Avx2, Avx2Int8, Avx512, Avx512Int8};

#[cfg(not(target_arch = "wasm32"))]
use super::lanes::portable::{Portable, PortableInt8};

#[cfg(not(target_arch = "wasm32"))]
set!(portable, "portable", Portable, PortableInt8, 4,);
#[cfg(target_arch = "x86_64")]
set!(avx2, "avx2", Avx2, Avx2Int8, 6, #[target_feature(enable = "avx2,fma")]);
#[cfg(target_arch = "x86_64")]
set!(avx512, "avx512", Avx512, Avx512Int8, 12, #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,avx2,fma")]);
#[cfg(target_arch = "aarch64")]
set!(neon, "neon", Neon, NeonInt8, 8,);
#[cfg(target_arch = "wasm32")]
set!(simd128, "simd128", Simd128, PairDot, 4,);
#[cfg(all(target_arch = "wasm32", target_feature = "relaxed-simd"))]
set!(relaxed, "relaxed-simd", Simd128, RelaxedDot, 4,);

/// The sets that this build and this processor have, best first.
#[allow(clippy::vec_init_then_push, reason = "which of them are pushed depends on the target")]
pub fn available() -> Vec<&'static Set> {
    let mut sets = Vec::new();
    #[cfg(target_arch = "x86_64")]
    {
        let avx2 = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma");
        if avx2
            && is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512vl")
            && is_x86_feature_detected!("avx512vnni")
        {
            sets.push(&avx512::SET);
        }
        if avx2 {
            sets.push(&avx2::SET);
        }
    }
    #[cfg(target_arch = "aarch64")]
    sets.push(&neon::SET);
    #[cfg(all(target_arch = "wasm32", target_feature = "relaxed-simd"))]
    if relaxed_dot_is_exact() {
        sets.push(&relaxed::SET);
    }
    #[cfg(target_arch = "wasm32")]
    sets.push(&simd128::SET);
    #[cfg(not(target_arch = "wasm32"))]
    sets.push(&portable::SET);
    sets
}

/// The best set.
pub fn best() -> &'static Set {
    static BEST: std::sync::OnceLock<&'static Set> = std::sync::OnceLock::new();
    BEST.get_or_init(|| available()[0])
}

/// Whether the relaxed dot product is what it is here relied on to be: exact as long as the second operand has seven bits. The
/// standard says so; engines were seen that were wrong.
#[cfg(all(target_arch = "wasm32", target_feature = "relaxed-simd"))]
fn relaxed_dot_is_exact() -> bool {
    let weights: [i8; 16] = [127, 127, 127, 127, -127, -127, -127, -127, 1, -2, 3, -4, -127, 127, 126, -1];
    let activations = [127u8, 127, 127, 126];
    // SAFETY: this build has the instruction, and the arrays are as long as it reads.
    unsafe {
        let zero = RelaxedDot::start(0, [0; 4].as_ptr());
        let sums =
            RelaxedDot::dot(zero, RelaxedDot::weights(weights.as_ptr()), RelaxedDot::activations(activations.as_ptr()));
        let mut got = [0.0; 4];
        RelaxedDot::to_f32(sums).store(got.as_mut_ptr());
        weights.chunks_exact(4).zip(got).all(|(weights, got)| {
            let pairs = weights.iter().zip(activations);
            got == pairs.map(|(&weight, activation)| f32::from(weight) * f32::from(activation)).sum::<f32>()
        })
    }
}
