// Elementary functions by the formulas of kernels/math.rs. The language's own exp and tanh may be off by a hundred units
// in the last place, and overflow on some drivers.
#import nan

// e^x for x up to 88, beyond which it stays; 0 below -87. Relative error at most 3e-7.
fn exponential(x: vec4<f32>) -> vec4<f32> {
    let bounded = clamp(x, vec4<f32>(-87.0), vec4<f32>(88.0));
    let n = round(bounded * 1.442695);
    // ln 2 in two parts, of which the first times n is exact.
    let r = fma(n, vec4<f32>(2.1219444e-4), fma(n, vec4<f32>(-0.6933594), bounded));
    var p = vec4<f32>(1.9875691e-4);
    p = fma(p, r, vec4<f32>(1.3981999e-3));
    p = fma(p, r, vec4<f32>(8.333452e-3));
    p = fma(p, r, vec4<f32>(4.1665796e-2));
    p = fma(p, r, vec4<f32>(1.6666665e-1));
    p = fma(p, r, vec4<f32>(0.5));
    let e = fma(p, r * r, r) + 1.0;
    let power = bitcast<vec4<f32>>((vec4<i32>(n) + 127) << vec4<u32>(23u));
    return select(e * power, vec4<f32>(), x < vec4<f32>(-87.0));
}

// 1 - erf(x) for x of at least 0: Abramowitz and Stegun 7.1.26. Absolute error at most 3e-7.
fn erfc_of_positive(x: vec4<f32>) -> vec4<f32> {
    let t = 1.0 / fma(x, vec4<f32>(0.3275911), vec4<f32>(1.0));
    var p = vec4<f32>(1.0614054);
    p = fma(p, t, vec4<f32>(-1.453152));
    p = fma(p, t, vec4<f32>(1.4214138));
    p = fma(p, t, vec4<f32>(-0.28449672));
    p = fma(p, t, vec4<f32>(0.2548296));
    return p * t * exponential(-x * x);
}

// The numbers are those of plan::activation. Errors are at most 5e-7 times the larger of 1 and |x|.
fn activated(x: vec4<f32>, activation: u32) -> vec4<f32> {
    switch activation {
        case 1u: { // x/2 (1 + erf(x/√2))
            let half = abs(x * 0.5);
            return (x * 0.5 + half) - half * erfc_of_positive(abs(x * 0.70710678));
        }
        case 2u: { // the same by tanh, with 1 + tanh(y) = 2 / (1 + e^-2y)
            let y = x * fma(x * x, vec4<f32>(0.044715), vec4<f32>(1.0)) * 1.5957692;
            return x / (exponential(-y) + 1.0);
        }
        case 3u: { // not max, which may drop a NaN
            return select(x, vec4<f32>(), x < vec4<f32>());
        }
        case 4u: {
            return x / (exponential(-x) + 1.0);
        }
        case 5u: {
            let y = 1.0 - 2.0 / (exponential(x + x) + 1.0);
            // The exponential bounds its argument, which may drop a NaN.
            return select(y, x, is_nan(x));
        }
        case 6u: {
            return select(1.0 / (exponential(-x) + 1.0), x, is_nan(x));
        }
        case 7u: {
            return select(x, x * 0.01, x < vec4<f32>());
        }
        case 8u: { // x tanh(ln(1 + e^x)), as kernels/math.rs
            let e = exponential(min(x, vec4<f32>(30.0)));
            let n = e * (e + 2.0);
            return x * (n / (n + 2.0));
        }
        default: {
            return x;
        }
    }
}
