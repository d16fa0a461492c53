//! Elementary functions on lanes, with the error that the tests of this file hold them to.

use super::{Activation, lanes::Lanes};

/// `e^x` for x up to 88, beyond which it stays; 0 below -87. Relative error at most 2e-7.
///
/// The reduction to `2^n e^r` and the polynomial are those of the Cephes library (`expf`, S. L. Moshier).
#[inline(always)]
pub fn exp<L: Lanes>(x: L) -> L {
    let c = constants::<L>();
    let bounded = x.at_least(c(-87.0)).at_most(c(88.0));
    let n = (bounded * c(std::f32::consts::LOG2_E)).round();
    // ln 2 in two parts, of which the first times n is exact.
    let r = n.mul_add(c(2.121_944_4e-4), n.mul_add(c(-0.693_359_4), bounded));
    let p = c(1.987_569_1e-4)
        .mul_add(r, c(1.398_199_9e-3))
        .mul_add(r, c(8.333_452e-3))
        .mul_add(r, c(4.166_579_6e-2))
        .mul_add(r, c(1.666_666_5e-1))
        .mul_add(r, c(0.5));
    let e = p.mul_add(r * r, r) + c(1.0);
    (e * n.exp2_of_integer()).zero_below(x, c(-87.0))
}

/// `2^x` for x of -126 to 127, beyond which it stays. Relative error at most 2e-7.
///
/// The polynomial is the minimax one of its degree for -1/2 to 1/2.
#[inline(always)]
#[expect(clippy::approx_constant, reason = "a coefficient near ln 2, which it is not")]
pub fn exp2<L: Lanes>(x: L) -> L {
    let c = constants::<L>();
    let x = x.at_least(c(-126.0)).at_most(c(127.0));
    let n = x.round();
    let r = x - n;
    let p = c(1.326_472_7e-3)
        .mul_add(r, c(9.671_513e-3))
        .mul_add(r, c(5.550_733_6e-2))
        .mul_add(r, c(2.402_224_2e-1))
        .mul_add(r, c(6.931_47e-1))
        .mul_add(r, c(1.0));
    p * n.exp2_of_integer()
}

/// `x/2 (1 + erf(x/√2))`. Error at most 3e-7 times |x|.
///
/// `erf(z/√2)` is z times a quotient of polynomials of z², the best of their degree up to where erf is 1 in f32, beyond which it stays.
#[inline(always)]
pub fn gelu<L: Lanes>(x: L) -> L {
    let c = constants::<L>();
    let z = x.at_least(c(-5.586_143_5)).at_most(c(5.586_143_5));
    let s = z * z;
    let p = c(4.445_361e-8)
        .mul_add(s, c(1.271_027e-5))
        .mul_add(s, c(3.462_453_3e-4))
        .mul_add(s, c(9.405_768e-3))
        .mul_add(s, c(6.860_199e-2))
        .mul_add(s, c(7.978_844_6e-1));
    let q = c(1.182_490_5e-6)
        .mul_add(s, c(7.488_756e-5))
        .mul_add(s, c(1.908_837_8e-3))
        .mul_add(s, c(2.889_769e-2))
        .mul_add(s, c(2.526_455_8e-1))
        .mul_add(s, c(1.0));
    let half = x * c(0.5);
    half.mul_add(z * p / q, half)
}

/// The hyperbolic tangent. Absolute error at most 2e-7.
#[inline(always)]
pub fn tanh<L: Lanes>(x: L) -> L {
    let c = constants::<L>();
    c(1.0) - c(2.0) / (exp(x + x) + c(1.0))
}

/// The approximation of GELU by tanh, `x/2 (1 + tanh(√(2/π) (x + 0.044715 x³)))`. Error at most 3e-7 times |x|.
#[inline(always)]
pub fn gelu_tanh<L: Lanes>(x: L) -> L {
    let c = constants::<L>();
    // With 1 + tanh(y) = 2 / (1 + e^-2y).
    let y = x * (x * x).mul_add(c(0.044_715), c(1.0)) * c(2.0 * 0.797_884_6);
    x / (exp(c(0.0) - y) + c(1.0))
}

/// `x / (1 + e^-x)`. Error at most 3e-7 times |x|.
#[inline(always)]
pub fn silu<L: Lanes>(x: L) -> L {
    let c = constants::<L>();
    x / (exp(c(0.0) - x) + c(1.0))
}

#[inline(always)]
pub fn relu<L: Lanes>(x: L) -> L {
    x.at_least(constants::<L>()(0.0))
}

/// `1 / (1 + e^-x)`. Absolute error at most 2e-7.
#[inline(always)]
pub fn sigmoid<L: Lanes>(x: L) -> L {
    let c = constants::<L>();
    c(1.0) / (exp(c(0.0) - x) + c(1.0))
}

#[inline(always)]
pub fn leaky_relu<L: Lanes>(x: L) -> L {
    x.at_least(x * constants::<L>()(0.01))
}

/// `x tanh(ln(1 + e^x))`. Error at most 3e-7 times |x|.
#[inline(always)]
pub fn mish<L: Lanes>(x: L) -> L {
    let c = constants::<L>();
    // tanh(ln(1 + e)) = n / (n + 2) with n = e (e + 2); beyond 30 it is 1 in f32.
    let e = exp(x.at_most(c(30.0)));
    let n = e * (e + c(2.0));
    x * (n / (n + c(2.0)))
}

/// Applies an activation in place.
///
/// # Safety
/// The processor must have the instructions of `L`; `x` must be valid for `count` values.
#[inline(always)]
pub unsafe fn activate<L: Lanes>(x: *mut f32, count: usize, activation: Activation) {
    // SAFETY: the caller's promise.
    unsafe {
        match activation {
            Activation::None => {}
            Activation::Gelu => map::<L, Gelu>(x, count),
            Activation::GeluTanh => map::<L, GeluTanh>(x, count),
            Activation::Relu => map::<L, Relu>(x, count),
            Activation::Silu => map::<L, Silu>(x, count),
            Activation::Tanh => map::<L, Tanh>(x, count),
            Activation::Sigmoid => map::<L, Sigmoid>(x, count),
            Activation::LeakyRelu => map::<L, LeakyRelu>(x, count),
            Activation::Mish => map::<L, Mish>(x, count),
        }
    }
}

/// A function of one value. A type and not a closure: closures are not sure to be inlined into the code that has the instruction set,
/// and each instruction is then a call.
trait Function {
    fn of<L: Lanes>(x: L) -> L;
}

macro_rules! functions {
    ($($name:ident $function:ident),+) => {
        $(struct $name;

        impl Function for $name {
            #[inline(always)]
            fn of<L: Lanes>(x: L) -> L {
                $function(x)
            }
        })+
    };
}
functions!(
    Gelu gelu, GeluTanh gelu_tanh, Relu relu, Silu silu, Tanh tanh, Sigmoid sigmoid, LeakyRelu leaky_relu, Mish mish
);

/// Applies a function in place.
///
/// # Safety
/// The processor must have the instructions of `L`; `x` must be valid for `count` values.
#[cfg_attr(target_arch = "wasm32", inline(never))]
#[cfg_attr(not(target_arch = "wasm32"), inline(always))]
unsafe fn map<L: Lanes, F: Function>(x: *mut f32, count: usize) {
    let whole = count - count % L::COUNT;
    // SAFETY: the caller's promise.
    unsafe {
        for at in (0..whole).step_by(L::COUNT) {
            F::of(L::load(x.add(at))).store(x.add(at));
        }
        if whole < count {
            let rest = L::load_first(x.add(whole), count - whole, 0.0);
            F::of(rest).store_first(x.add(whole), count - whole);
        }
    }
}

/// Makes constants of a type that is in use.
#[inline(always)]
fn constants<L: Lanes>() -> impl Fn(f32) -> L {
    // SAFETY: every caller holds a value of the type, which exists only where its instructions do.
    |value| unsafe { L::splat(value) }
}
