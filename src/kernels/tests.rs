//! Every instruction set that this machine has against the oracle, on one table of cases.

use std::ops::Range;

use super::{
    Activation, Distances, Half, Heads, Kernels, Norm, NormKind, Pooling, Words, math,
    matmul_int8::OUTLIERS,
    pool,
    pool::Pool,
    reference::{self, ACTIVATIONS, noise},
    sets,
};

/// Rows, inputs, outputs: below, at and beyond every tile's and panel's edge, and the shapes of MiniLM.
const SHAPES: [(usize, usize, usize); 15] = [
    (1, 1, 1),
    (1, 7, 3),
    (2, 32, 40),
    (3, 5, 31),
    (4, 16, 32),
    (5, 33, 33),
    (7, 64, 65),
    (8, 12, 200),
    (11, 48, 64),
    (13, 20, 129),
    (61, 96, 24),
    (130, 31, 50),
    (10, 384, 1152),
    (70, 1536, 384),
    (9, 197, 40),
];

/// Every set, with one thread and with several.
fn all() -> Vec<Kernels> {
    let pools = [Pool::new(1), Pool::new(3)];
    let with = |set| pools.iter().map(move |pool| Kernels { set, pool: pool.clone() });
    sets::available().into_iter().flat_map(with).collect()
}

fn close(what: &str, kernels: &Kernels, got: &[f32], want: &[f64], tolerance: f64) {
    assert_eq!(got.len(), want.len(), "{what}");
    for (at, (&got, &want)) in got.iter().zip(want).enumerate() {
        let fine = (f64::from(got) - want).abs() <= tolerance * want.abs().max(1.0);
        assert!(fine, "{what} on {}: value {at} is {got}, not {want}", kernels.name());
    }
}

/// `count` values of `what` on each set.
fn on_lanes(kernels: &Kernels, x: &[f32], activation: Activation) -> Vec<f32> {
    let mut y = x.to_vec();
    // SAFETY: the set is one of those that this machine has.
    unsafe { (kernels.set.activate)(y.as_mut_ptr(), y.len(), activation) };
    y
}

#[test]
fn functions_keep_their_stated_error() {
    let points: Vec<f32> = (-400_000..=400_000).map(|at| at as f32 * 3e-4).collect();
    for kernels in all() {
        for activation in ACTIVATIONS {
            let got = on_lanes(&kernels, &points, activation);
            for (&x, &got) in points.iter().zip(&got) {
                let want = reference::activate(f64::from(x), activation);
                let allowed = match activation {
                    Activation::None | Activation::Relu => 0.0,
                    Activation::Tanh | Activation::Sigmoid => 2e-7,
                    _ => 3e-7 * f64::from(x.abs()) + 1e-30,
                };
                let error = (f64::from(got) - want).abs();
                assert!(error <= allowed, "{activation:?}({x}) on {} is {got}, not {want}", kernels.name());
            }
            // Nor do extremes give what is not a number, unless they are none themselves.
            let extremes = [f32::MAX, f32::MIN, 1e-45, -1e-45, 0.0, -0.0, 88.8, -88.8, 1e4, -1e4];
            let got = on_lanes(&kernels, &extremes, activation);
            assert!(got.iter().all(|y| y.is_finite()), "{activation:?} on {}: {got:?}", kernels.name());
            let got = on_lanes(&kernels, &[f32::NAN; 7], activation);
            assert!(got.iter().all(|y| y.is_nan()), "{activation:?}(NaN) on {}: {got:?}", kernels.name());
        }
    }
    // The exponentials by themselves, on the lanes that are everywhere.
    use super::lanes::{Lanes, portable::Portable};
    let one = |function: fn(Portable) -> Portable, x: f32| {
        let mut values = [0.0; 4];
        // SAFETY: these lanes need no instructions; the array has as many values.
        unsafe { function(Portable::splat(x)).store(values.as_mut_ptr()) };
        f64::from(values[0])
    };
    for &x in &points {
        let got = one(math::exp, x);
        let want = if x < -87.0 { 0.0 } else { f64::from(x.min(88.0)).exp() };
        assert!((got - want).abs() <= 2e-7 * want, "exp({x}) is {got}, not {want}");
        let got = one(math::exp2, x);
        let want = f64::from(x.max(-126.0)).exp2();
        assert!((got - want).abs() <= 2e-7 * want, "2^{x} is {got}, not {want}");
    }
}

#[test]
fn linear_maps_in_every_form() {
    for kernels in all() {
        for (case, &(rows, inputs, outputs)) in SHAPES.iter().enumerate() {
            let seed = case as u32;
            let (x, w, b) = (noise(seed, rows * inputs), noise(seed + 50, outputs * inputs), noise(seed + 99, outputs));
            let activation = ACTIVATIONS[case % ACTIVATIONS.len()];
            let bias = (case % 3 != 0).then_some(b.as_slice());
            let what = format!("{rows} x {inputs} x {outputs} {activation:?}");
            let tolerance = 2e-6 * (inputs as f64).sqrt();
            let mut y = vec![f32::NAN; rows * outputs];

            let matrix = kernels.matrix_f32(outputs, inputs, &w).expect("memory");
            kernels.linear(&x, &matrix, bias, activation, &mut y);
            let want = reference::linear(&x, &w, bias, inputs, activation);
            close(&what, &kernels, &y, &want, tolerance);

            let halves: Vec<half::f16> = w.iter().map(|&w| half::f16::from_f32(w)).collect();
            let widened: Vec<f32> = halves.iter().map(|w| w.to_f32()).collect();
            let matrix = kernels.matrix_f16(outputs, inputs, halves.iter().map(|w| w.to_bits())).expect("memory");
            let wide = kernels.matrix_f32(outputs, inputs, &widened).expect("memory");
            let mut from_wide = y.clone();
            kernels.linear(&x, &matrix, bias, activation, &mut y);
            kernels.linear(&x, &wide, bias, activation, &mut from_wide);
            assert!(y == from_wide, "{what} in f16 on {}", kernels.name());

            let (values, scales) = eight_bits(&w, inputs);
            let matrix = kernels.matrix_int8(outputs, inputs, &values, &scales).expect("memory");
            y.fill(f32::NAN);
            let x = clear_of_borders(&x, inputs);
            kernels.linear(&x, &matrix, bias, activation, &mut y);
            let (x, w) = (seven_bits(&x, inputs), restored(&values, &scales, inputs));
            let want = reference::linear(&x, &w, bias, inputs, activation);
            // Outliers are a hundred times as large as what else is summed.
            close(&format!("{what} in int8"), &kernels, &y, &want, 10.0 * tolerance);
        }
    }
}

/// Rows rounded to eight bits, and their scales.
fn eight_bits(w: &[f32], inputs: usize) -> (Vec<i8>, Vec<f32>) {
    let scales: Vec<f32> =
        w.chunks_exact(inputs).map(|row| row.iter().fold(0.0f32, |most, w| most.max(w.abs())) / 127.0).collect();
    let values = w.iter().enumerate().map(|(at, w)| (w / scales[at / inputs]).round() as i8);
    (values.collect(), scales)
}

fn restored(values: &[i8], scales: &[f32], inputs: usize) -> Vec<f32> {
    values.iter().enumerate().map(|(at, &value)| f32::from(value) * scales[at / inputs]).collect()
}

/// Rows as the kernels round them: outliers not at all, the others to seven bits between the least and the largest of them, zero being
/// among them.
fn seven_bits(x: &[f32], inputs: usize) -> Vec<f32> {
    let row = |row: &[f32]| -> Vec<f32> {
        let mut order: Vec<usize> = (0..row.len()).collect();
        order.sort_by(|&a, &b| row[b].abs().total_cmp(&row[a].abs()).then(a.cmp(&b)));
        let (kept, rest) = order.split_at(row.len().min(OUTLIERS));
        let low = rest.iter().map(|&at| row[at]).fold(0.0, f32::min);
        let range = rest.iter().map(|&at| row[at]).fold(0.0, f32::max) - low;
        let inverse = if range > 0.0 { 127.0 / range } else { 0.0 };
        let zero = (-low * inverse).round_ties_even();
        let rounded = |x: f32| ((x * inverse + zero).round_ties_even().clamp(0.0, 127.0) - zero) * (range / 127.0);
        row.iter().enumerate().map(|(at, &x)| if kept.contains(&at) { x } else { rounded(x) }).collect()
    };
    x.chunks_exact(inputs).flat_map(row).collect()
}

/// Rows whose values all lie near the middle of a step of their seven bits, so that it does not matter how the steps are rounded: they go
/// from -2.5 to 5.4375 in steps of a sixteenth.
fn clear_of_borders(x: &[f32], inputs: usize) -> Vec<f32> {
    let mut x: Vec<f32> =
        x.iter().map(|x| ((x * 16.0).round() + 0.125 * x.signum()).clamp(-40.0, 87.0) / 16.0).collect();
    for row in x.chunks_exact_mut(inputs).filter(|row| row.len() > 3) {
        // The outliers, one of them among the last values, and the two ends of the range.
        (row[1], row[inputs - 1]) = (70.3, -123.4);
        (row[0], row[inputs - 2]) = (-2.5, 87.0 / 16.0);
    }
    x
}

#[test]
fn gated_maps() {
    for kernels in all() {
        for (case, (rows, inputs, width)) in
            [(3, 16, 5), (9, 24, 64), (65, 32, 96), (1, 8, 128)].into_iter().enumerate()
        {
            let seed = case as u32;
            let (x, w, b) =
                (noise(seed, rows * inputs), noise(seed + 5, 2 * width * inputs), noise(seed + 9, 2 * width));
            let matrix = kernels.matrix_f32(2 * width, inputs, &w).expect("memory");
            let both = reference::linear(&x, &w, Some(&b), inputs, Activation::None);
            for (activation, half) in
                [(Activation::Gelu, Half::First), (Activation::Silu, Half::Second), (Activation::None, Half::First)]
            {
                let mut y = vec![f32::NAN; rows * width];
                kernels.gated(&x, &matrix, Some(&b), activation, half, &mut y);
                let want = reference::gated(&both, width, activation, half);
                close(&format!("gated {rows} x {inputs} x {width} {half:?}"), &kernels, &y, &want, 2e-5);
            }
        }
    }
}

#[test]
fn a_row_does_not_depend_on_the_rows_beside_it() {
    for kernels in all() {
        for (inputs, outputs) in [(384, 1152), (1536, 384), (32, 40), (30, 7)] {
            let (x, w, b) = (noise(1, 300 * inputs), noise(2, outputs * inputs), noise(3, outputs));
            let (values, scales) = eight_bits(&w, inputs);
            let forms = [
                kernels.matrix_f32(outputs, inputs, &w).expect("memory"),
                kernels.matrix_int8(outputs, inputs, &values, &scales).expect("memory"),
            ];
            for matrix in forms {
                let product = |x: &[f32]| {
                    let mut y = vec![f32::NAN; x.len() / inputs * outputs];
                    kernels.linear(x, &matrix, Some(&b), Activation::Gelu, &mut y);
                    y
                };
                let whole = product(&x);
                for count in [1, 2, 3, 5, 8, 11, 17, 64, 129] {
                    let part = product(&x[3 * inputs..][..count * inputs]);
                    assert!(part == whole[3 * outputs..][..count * outputs], "{count} rows of {matrix:?}");
                }
            }
        }
    }
}

#[test]
fn attention_of_every_kind() {
    let lengths = [1, 2, 10, 33, 127, 128, 129, 300];
    let mut spans: Vec<Range<usize>> = Vec::new();
    for length in lengths {
        let start = spans.last().map_or(0, |span| span.end);
        spans.push(start..start + length);
    }
    let tokens = spans.last().expect("spans").end;
    for (heads, width) in [(2, 8), (3, 32), (1, 64), (2, 6)] {
        let qkv = noise(7, tokens * 3 * heads * width);
        let frequencies: Vec<f32> = (0..width / 2).map(|at| 0.5f32.powi(at as i32)).collect();
        let angles = |function: fn(f32) -> f32| -> Vec<f32> {
            let position = |position: usize| frequencies.iter().map(move |f| function(position as f32 * f));
            (0..300).flat_map(position).collect()
        };
        let (cosines, sines) = (angles(f32::cos), angles(f32::sin));
        let slope = |head: usize, distance: isize| (head as f32 + 1.0) * (distance as f32 * 0.37).sin();
        let reach = 299;
        let mut distances = vec![0.0; heads * Distances::stride(reach)];
        for head in 0..heads {
            for at in 0..=2 * reach {
                distances[head * Distances::stride(reach) + at] = slope(head, at as isize - reach as isize);
            }
        }
        for (rotary, window, bias) in [
            (false, None, false),
            (true, None, false),
            (false, None, true),
            (true, Some(5), false),
            (false, Some(140), true),
        ] {
            let scale = 1.0 / (width as f64).sqrt();
            let want = reference::attention(
                &qkv,
                &spans,
                &reference::Attention {
                    heads,
                    width,
                    scale,
                    rotary: rotary.then_some(&frequencies),
                    window,
                    bias: if bias { Some(&slope) } else { None },
                },
            );
            for kernels in all() {
                let mut y = vec![f32::NAN; tokens * heads * width];
                let attention = Heads {
                    count: heads,
                    width,
                    scale: scale as f32,
                    rotary: rotary.then_some((&cosines, &sines)),
                    window,
                    bias: bias.then_some(Distances { values: &distances, reach }),
                };
                kernels.attention(&qkv, &spans, &attention, &mut y);
                let what = format!("{heads} heads of {width}, rotary {rotary}, window {window:?}, bias {bias}");
                close(&what, &kernels, &y, &want, 1e-5);
                // A text alone is bit for bit what it is among others.
                let third = spans[3].clone();
                let mut alone = vec![f32::NAN; third.len() * heads * width];
                let rows = &qkv[third.start * 3 * heads * width..third.end * 3 * heads * width];
                kernels.attention(rows, std::slice::from_ref(&(0..third.len())), &attention, &mut alone);
                assert!(alone == y[third.start * heads * width..third.end * heads * width], "{what}");
            }
        }
    }
}

#[test]
fn attention_keeps_large_scores_finite_and_tells_of_what_is_not() {
    for kernels in all() {
        let heads = Heads { count: 1, width: 8, scale: 1.0, rotary: None, window: None, bias: None };
        let mut qkv: Vec<f32> = noise(3, 200 * 24).iter().map(|x| x * 1e3).collect();
        let mut y = vec![f32::NAN; 200 * 8];
        kernels.attention(&qkv, std::slice::from_ref(&(0..200)), &heads, &mut y);
        assert!(y.iter().all(|y| y.is_finite()), "{}", kernels.name());
        qkv[150 * 24 + 9] = f32::NAN;
        kernels.attention(&qkv, &[0..100, 100..200], &heads, &mut y);
        assert!(y[..800].iter().all(|y| y.is_finite()), "{}: the text beside it", kernels.name());
        assert!(y[800..].iter().all(|y| y.is_nan()), "{}: the text itself", kernels.name());
    }
}

#[test]
fn norms_with_and_without_residual() {
    for kernels in all() {
        for (rows, width) in [(1, 1), (3, 7), (2, 16), (5, 33), (90, 384)] {
            let x: Vec<f32> = noise(1, rows * width).iter().map(|x| x * 3.0 + 100.0).collect();
            let (residual, gain, bias) = (noise(2, rows * width), noise(3, width), noise(4, width));
            let sums: Vec<f32> = x.iter().zip(&residual).map(|(x, y)| x + y).collect();
            for kind in [NormKind::Layer, NormKind::Rms] {
                for bias in [None, Some(bias.as_slice())] {
                    let norm = Norm { kind, gain: &gain, bias, epsilon: 1e-6 };
                    let what = format!("{kind:?} of {rows} x {width}");
                    let mut y = vec![f32::NAN; x.len()];
                    kernels.norm(&x, &norm, &mut y);
                    close(&what, &kernels, &y, &reference::norm(&x, kind, &gain, bias, 1e-6), 1e-4);
                    y.copy_from_slice(&x);
                    kernels.add_norm(&mut y, Some(&residual), &norm);
                    close(&what, &kernels, &y, &reference::norm(&sums, kind, &gain, bias, 1e-6), 1e-4);
                }
            }
        }
    }
}

#[test]
fn the_largest_product_of_each_word() {
    let spans = [0..1, 1..4, 4..70];
    for kernels in all() {
        for (width, count) in [(8, 5), (20, 130), (48, 64)] {
            let (x, words, bias) = (noise(1, 70 * width), noise(2, count * width), noise(3, count));
            let most = |x: &[f32], words: &[f32], bias: Option<&[f32]>| -> Vec<f64> {
                let logits = reference::linear(x, words, bias, width, Activation::None);
                let largest = |span: &Range<usize>, word: usize| {
                    span.clone().map(|token| logits[token * count + word]).fold(f64::NEG_INFINITY, f64::max)
                };
                spans.iter().flat_map(|span| (0..count).map(move |word| largest(span, word))).collect()
            };
            let mut y = vec![f32::NAN; spans.len() * count];
            let read = |row: usize, out: &mut [f32]| out.copy_from_slice(&words[row * width..][..width]);
            for form in [Words::F32(&words), Words::Rows(&read)] {
                y.fill(f32::NAN);
                kernels.vocab_max(&x, width, form, count, Some(&bias), &spans, &mut y);
                close("vocab_max", &kernels, &y, &most(&x, &words, Some(&bias)), 2e-5);
            }

            let (values, scales) = eight_bits(&words, width);
            let in_bits = Words::Int8 { values: &values, scales: &scales };
            let x = clear_of_borders(&x, width);
            kernels.vocab_max(&x, width, in_bits, count, None, &spans, &mut y);
            let want = most(&seven_bits(&x, width), &restored(&values, &scales, width), None);
            close("vocab_max in int8", &kernels, &y, &want, 2e-5);
        }
    }
}

#[test]
fn poolings_are_their_formulas() {
    let kinds =
        [Pooling::Cls, Pooling::Max, Pooling::Mean, Pooling::MeanSqrtLen, Pooling::WeightedMean, Pooling::LastToken];
    for (rows, width) in [(0, 4), (1, 3), (7, 5), (300, 16)] {
        let x = noise(5, rows * width);
        for pooling in kinds {
            let mut y = vec![f32::NAN; width];
            pool(&x, pooling, &mut y);
            close(&format!("{pooling:?}"), &all()[0], &y, &reference::pool(&x, width, pooling), 1e-5);
        }
    }
}

#[test]
fn integers_at_their_limits_do_not_overflow() {
    for kernels in all() {
        let inputs = 4096;
        for sign in [1i8, -1] {
            let matrix = kernels.matrix_int8(3, inputs, &vec![127 * sign; 3 * inputs], &[1.0; 3]).expect("memory");
            let mut x = vec![1.0; 2 * inputs];
            x[0] = 0.0;
            let mut y = vec![0.0; 6];
            kernels.linear(&x, &matrix, None, Activation::None, &mut y);
            let row = |count: f32| f32::from(sign) * 127.0 * count;
            for (got, want) in
                y.iter().zip([row(4095.0), row(4095.0), row(4095.0), row(4096.0), row(4096.0), row(4096.0)])
            {
                assert!((got / want - 1.0).abs() < 1e-6, "{got} is not {want} on {}", kernels.name());
            }
        }
        // A row that is not finite says so.
        let matrix = kernels.matrix_int8(1, 5, &[1; 5], &[1.0]).expect("memory");
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            for at in 0..5 {
                let mut x = [1.0; 5];
                x[at] = bad;
                let mut y = [0.0];
                kernels.linear(&x, &matrix, None, Activation::None, &mut y);
                assert!(!y[0].is_finite(), "{bad} became {} on {}", y[0], kernels.name());
            }
        }
    }
}
