//! Every kernel against the scalar oracle, on one table of cases. They run where there is a GPU or a program that stands in for one (lavapipe).

use std::{collections::BTreeMap, ops::Range, slice, sync::OnceLock};

use half::f16;

use super::*;
use crate::{
    kernels::reference::{self, ACTIVATIONS, noise},
    platform::native::block_on,
};

/// Rows, inputs, outputs: below, at and beyond the edges of every tile, and some of MiniLM's.
const SHAPES: [(usize, usize, usize); 14] = [
    (1, 1, 1),
    (1, 7, 3),
    (2, 32, 40),
    (3, 5, 31),
    (15, 16, 32),
    (16, 33, 33),
    (17, 64, 65),
    (8, 12, 200),
    (63, 48, 63),
    (64, 20, 129),
    (65, 96, 24),
    (130, 31, 50),
    (10, 384, 1152),
    (70, 1536, 384),
];

/// The GPU that all tests share; without one they say so and end, or with `WICK_TEST_GPU=1` fail.
pub fn gpu() -> Option<Gpu> {
    static DEVICE: OnceLock<Option<Arc<Device>>> = OnceLock::new();
    let device = DEVICE.get_or_init(|| match block_on(Device::open()) {
        Ok(device) => Some(device),
        Err(error) if std::env::var("WICK_TEST_GPU").is_ok_and(|wanted| wanted == "1") => {
            panic!("WICK_TEST_GPU=1 asks for a GPU, but there is none: {error}")
        }
        Err(error) => {
            println!("skipped: {error}");
            None
        }
    });
    device.clone().map(Gpu::on)
}

fn close(what: &str, got: &[f32], want: &[f64], tolerance: f64) {
    assert_eq!(got.len(), want.len(), "{what}");
    for (at, (&got, &want)) in got.iter().zip(want).enumerate() {
        let fine = (f64::from(got) - want).abs() <= tolerance * want.abs().max(1.0);
        assert!(fine, "{what}: value {at} is {got}, not {want}");
    }
}

fn same_bits(what: &str, left: &[f32], right: &[f32]) {
    let differs = left.iter().zip(right).position(|(left, right)| left.to_bits() != right.to_bits());
    assert!(left.len() == right.len() && differs.is_none(), "{what}: value {differs:?} has other bits");
}

fn read(gpu: &Gpu, x: &Tensor) -> Vec<f32> {
    block_on(gpu.read(x)).expect("a working GPU")
}

fn with_tile(gpu: &Gpu, tile: Tile) -> Gpu {
    Gpu { tile: Some(tile), ..gpu.clone() }
}

/// Weights in a form, and as the numbers that it holds.
fn in_form(w: &[f32], inputs: usize, form: Form) -> (Values, Vec<f32>) {
    let values = match form {
        Form::F32 => Values::F32(w.to_vec()),
        Form::F16 => Values::F16(w.iter().copied().map(f16::from_f32).collect()),
        Form::Int8 => {
            let scale = |row: &[f32]| row.iter().fold(0.0f32, |most, w| most.max(w.abs())) / 127.0;
            let scales: Vec<f32> = w.chunks_exact(inputs).map(scale).collect();
            let rounded = w.iter().enumerate().map(|(at, w)| (w / scales[at / inputs]).round() as i8);
            Values::Int8 { values: rounded.collect(), scales }
        }
    };
    (values.clone(), values.into_f32(inputs))
}

fn map(gpu: &Gpu, values: Values, outputs: usize, inputs: usize, bias: Option<&[f32]>) -> Linear<Gpu> {
    let weight = gpu.matrix(outputs, inputs, values).expect("memory");
    Linear { weight, bias: bias.map(|bias| gpu.vector(bias.to_vec()).expect("memory")) }
}

#[test]
fn opening_tries_every_operation() {
    let Some(shared) = gpu() else { return };
    let gpu = block_on(Gpu::open()).expect("the GPU computes what the processor does");
    assert!(gpu.device().was_tried(false) && !shared.device().name().is_empty());
    println!("{}: a clock: {}, binds {} bytes", gpu.device().name(), gpu.device().has_clock(), gpu.limit);
}

#[test]
fn a_gpu_that_computes_something_else_is_refused() {
    let Some(gpu) = gpu() else { return };
    let want = block_on(outputs(&Cpu::new(Pool::new(1)), true)).expect("no GPU");
    block_on(probe::compare(&gpu, &want, true)).expect("it is right");
    for (part, what) in ["pooled", "words"].into_iter().enumerate() {
        let mut other = want.clone();
        other[part].iter_mut().step_by(7).for_each(|value| *value = -*value);
        let error = block_on(probe::compare(&gpu, &other, true)).expect_err("refused");
        assert!(error.code() == Code::NoDevice && error.message().contains("wrong values"), "{error}");
        assert!(error.message().contains(what), "{error}");
    }
}

#[test]
fn linear_maps_in_every_form_and_tile() {
    let Some(gpu) = gpu() else { return };
    for (case, &(rows, inputs, outputs)) in SHAPES.iter().enumerate() {
        let seed = case as u32;
        let (x, w, b) = (noise(seed, rows * inputs), noise(seed + 50, outputs * inputs), noise(seed + 99, outputs));
        let activation = ACTIVATIONS[case % ACTIVATIONS.len()];
        let bias = (case % 3 != 0).then_some(b.as_slice());
        for form in Form::ALL {
            let what = format!("{rows} x {inputs} x {outputs} {activation:?} in {form:?}");
            let (values, w) = in_form(&w, inputs, form);
            let want = reference::linear(&x, &w, bias, inputs, activation);
            let linear = map(&gpu, values, outputs, inputs, bias);
            let computed = |gpu: &Gpu| {
                let [large, small] = Tile::ALL.map(|tile| {
                    let gpu = with_tile(gpu, tile);
                    let x = gpu.tensor(rows, inputs, &x).expect("memory");
                    read(&gpu, &gpu.linear(&x, &linear, activation).expect("recorded"))
                });
                same_bits(&what, &large, &small);
                large
            };
            let single = computed(&in_single(&gpu));
            close(&what, &single, &want, 2e-6 * (inputs as f64).sqrt());
            if gpu.is_half(form) {
                let half = computed(&gpu);
                close(&what, &half, &want, 4e-3 * (inputs as f64).sqrt());
                assert!(inputs < 4 || single != half, "{what}: not in half precision");
            }
        }
    }
    block_on(gpu.ready()).expect("every matrix arrived");
}

/// Without products in half precision.
fn in_single(gpu: &Gpu) -> Gpu {
    let gpu = Gpu { kept: Arc::default(), ..gpu.clone() };
    lock(&gpu.kept).is_too_large = true;
    gpu
}

#[test]
fn activations_too_large_for_half_precision_are_computed_in_single() {
    let Some(gpu) = gpu().filter(|gpu| gpu.device().has_half()) else { return };
    let gpu = Gpu { kept: Arc::default(), ..gpu };
    let linear = map(&gpu, Values::F16(vec![f16::ONE; 64]), 8, 8, None);
    let x = gpu.tensor(1, 8, &[70_000.0; 8]).expect("memory");
    let product = || read(&gpu, &gpu.linear(&x, &linear, Activation::None).expect("recorded"));
    assert!(product().iter().all(|value| !value.is_finite()));
    let error = Error::new(Code::NotFinite, "text 0", "infinite");
    assert!(!block_on(gpu.recover(&Error::new(Code::DeviceLost, "webgpu", "gone"))));
    assert!(block_on(gpu.recover(&error)));
    assert_eq!(product(), [560_000.0; 8]);
    assert!(!block_on(gpu.recover(&error)), "the next is the model's own fault");
}

#[test]
fn functions_keep_their_stated_error() {
    let Some(gpu) = gpu() else { return };
    let mut points: Vec<f32> = (-40_000..=40_000).map(|at| at as f32 * 3e-3).collect();
    points.extend([1e-30, -1e-30, 88.8, -88.8, 1e4, -1e4, 3e18, -3e18]);
    let linear = map(&gpu, Values::F32(vec![1.0]), 1, 1, None);
    for activation in ACTIVATIONS {
        let x = gpu.tensor(points.len(), 1, &points).expect("memory");
        let got = read(&gpu, &gpu.linear(&x, &linear, activation).expect("recorded"));
        let mut worst = 0.0f64;
        for (&x, &got) in points.iter().zip(&got) {
            let want = reference::activate(f64::from(x), activation);
            let error = (f64::from(got) - want).abs() / f64::from(x.abs()).max(1.0);
            assert!(error <= 5e-7, "{activation:?}({x}) is {got}, not {want}");
            worst = worst.max(error);
        }
        println!("{activation:?}: {worst:.1e}");
        let x = gpu.tensor(5, 1, &[f32::NAN; 5]).expect("memory");
        let got = read(&gpu, &gpu.linear(&x, &linear, activation).expect("recorded"));
        assert!(got.iter().all(|y| y.is_nan()), "{activation:?}(NaN): {got:?}");
    }
}

#[test]
fn gated_maps_in_one_part_and_in_several() {
    let Some(gpu) = gpu() else { return };
    // The least that a part may have is 64 outputs.
    let split = Gpu { limit: 64 * 32 * 4, ..in_single(&gpu) };
    for (case, (rows, inputs, width)) in
        [(3, 16, 5), (9, 24, 64), (65, 32, 96), (1, 8, 128), (70, 16, 42)].into_iter().enumerate()
    {
        let seed = case as u32;
        let (x, w, b) = (noise(seed, rows * inputs), noise(seed + 5, 2 * width * inputs), noise(seed + 9, 2 * width));
        for (activation, half) in
            [(Activation::Gelu, Half::First), (Activation::Silu, Half::Second), (Activation::None, Half::First)]
        {
            for form in Form::ALL {
                let (values, w) = in_form(&w, inputs, form);
                let both = reference::linear(&x, &w, Some(&b), inputs, Activation::None);
                let want = reference::gated(&both, width, activation, half);
                // Both factors are off by what half precision leaves.
                let slack = |gpu: &Gpu| if gpu.is_half(form) { 4e3 } else { 1.0 };
                let gated = |gpu: &Gpu| {
                    let linear = map(gpu, values.clone(), 2 * width, inputs, Some(&b));
                    let x = gpu.tensor(rows, inputs, &x).expect("memory");
                    let y = gpu.gated(&x, &linear, activation, half).expect("recorded");
                    // What fills a row's last group must be zero for the map that follows.
                    let ones = map(gpu, Values::F32(vec![1.0; width]), 1, width, None);
                    let sums = read(gpu, &gpu.linear(&y, &ones, Activation::None).expect("recorded"));
                    let rows: Vec<f64> = want.chunks_exact(width).map(|row| row.iter().sum()).collect();
                    close("sums of gated rows", &sums, &rows, 2e-4 * slack(gpu));
                    (linear.weight.parts.len(), read(gpu, &y))
                };
                let what = format!("gated {rows} x {inputs} x {width} {half:?} in {form:?}");
                for tile in Tile::ALL {
                    close(&what, &gated(&with_tile(&gpu, tile)).1, &want, 2e-5 * slack(&gpu));
                }
                let (parts, got) = gated(&split);
                close(&format!("{what}, {parts} parts"), &got, &want, 2e-5);
                assert!(parts > 1 || 2 * width * inputs.div_ceil(4) * form.bytes_of_four() <= split.limit as usize);
            }
        }
    }
}

#[test]
fn a_row_does_not_depend_on_the_rows_beside_it() {
    let Some(gpu) = gpu() else { return };
    for (inputs, outputs) in [(384, 1152), (1536, 384), (30, 7)] {
        let (x, w, b) = (noise(1, 200 * inputs), noise(2, outputs * inputs), noise(3, outputs));
        let linear = map(&gpu, Values::F32(w), outputs, inputs, Some(&b));
        let product = |x: &[f32]| {
            let x = gpu.tensor(x.len() / inputs, inputs, x).expect("memory");
            read(&gpu, &gpu.linear(&x, &linear, Activation::Gelu).expect("recorded"))
        };
        let whole = product(&x);
        for count in [1, 5, 17, 129] {
            let part = product(&x[3 * inputs..][..count * inputs]);
            same_bits(&format!("{count} rows of {inputs}"), &part, &whole[3 * outputs..][..count * outputs]);
        }
    }
}

#[test]
fn attention_of_every_kind() {
    let Some(gpu) = gpu() else { return };
    let mut spans: Vec<Range<usize>> = Vec::new();
    for length in [1, 2, 10, 33, 63, 64, 65, 150] {
        let start = spans.last().map_or(0, |span| span.end);
        spans.push(start..start + length);
    }
    let tokens = spans.last().expect("spans").end;
    for (heads, width) in [(2, 8), (3, 32), (1, 64), (5, 6), (1, 100)] {
        let qkv = noise(7, tokens * 3 * heads * width);
        let frequencies: Arc<[f32]> = (0..width / 2).map(|at| 0.5f32.powi(at as i32)).collect();
        // Distances beyond the reach are those at its end.
        let reach = 40;
        let slope = |head: usize, distance: isize| (head as f32 + 1.0) * (distance.clamp(-40, 40) as f32 * 0.37).sin();
        let table =
            (0..=2 * reach).flat_map(|at| (0..heads).map(move |head| slope(head, at as isize - reach as isize)));
        let table = gpu.table(2 * reach + 1, heads, Values::F32(table.collect())).expect("memory");
        let relative = Relative::<Gpu> { table, buckets: (0..=2 * reach as u32).collect() };
        for (rotary, window, bias) in [
            (false, None, false),
            (true, None, false),
            (false, None, true),
            (true, Some(5), false),
            (false, Some(70), true),
        ] {
            let scale = 1.0 / (width as f64).sqrt();
            let told = reference::Attention {
                heads,
                width,
                scale,
                rotary: rotary.then_some(&frequencies),
                window,
                bias: if bias { Some(&slope) } else { None },
            };
            let want = reference::attention(&qkv, &spans, &told);
            let attention =
                Attention { heads, head_width: width, scale, rotary: rotary.then(|| frequencies.clone()), window };
            let attend = |qkv: &[f32], spans: &[Span]| {
                let x = gpu.tensor(qkv.len() / (3 * heads * width), 3 * heads * width, qkv).expect("memory");
                let y = gpu.attention(&x, spans, &attention, bias.then_some(&relative)).expect("recorded");
                read(&gpu, &y)
            };
            let y = attend(&qkv, &spans);
            let what = format!("{heads} heads of {width}, rotary {rotary}, window {window:?}, bias {bias}");
            close(&what, &y, &want, 1e-5);
            let third = spans[6].clone();
            let inner = heads * width;
            let alone =
                attend(&qkv[third.start * 3 * inner..third.end * 3 * inner], slice::from_ref(&(0..third.len())));
            same_bits(&what, &alone, &y[third.start * inner..third.end * inner]);
        }
    }
    let wide = Attention::full(1, 129);
    let x = gpu.tensor(1, 3 * 129, &noise(1, 3 * 129)).expect("memory");
    let error = gpu.attention(&x, slice::from_ref(&(0..1)), &wide, None).err().expect("too wide");
    assert_eq!(error.code(), Code::UnsupportedModel);
}

#[test]
fn attention_keeps_large_scores_finite_and_tells_of_what_is_not() {
    let Some(gpu) = gpu() else { return };
    let attention = Attention { scale: 1.0, ..Attention::full(1, 8) };
    let mut qkv: Vec<f32> = noise(3, 200 * 24).iter().map(|x| x * 1e3).collect();
    let attend = |qkv: &[f32], spans: &[Span]| {
        let x = gpu.tensor(200, 24, qkv).expect("memory");
        read(&gpu, &gpu.attention(&x, spans, &attention, None).expect("recorded"))
    };
    assert!(attend(&qkv, slice::from_ref(&(0..200))).iter().all(|y| y.is_finite()));
    // Activations that are no numbers reach values before anything else.
    qkv[150 * 24 + 16..][..8].fill(f32::NAN);
    let y = attend(&qkv, &[0..100, 100..200]);
    assert!(y[..800].iter().all(|y| y.is_finite()), "the text beside it");
    assert!(y[800..].iter().all(|y| y.is_nan()), "the text itself");
}

#[test]
fn norms_with_and_without_residual() {
    let Some(gpu) = gpu() else { return };
    for (rows, width) in [(1, 1), (3, 7), (2, 16), (5, 33), (90, 384), (2, 1030)] {
        let x: Vec<f32> = noise(1, rows * width).iter().map(|x| x * 3.0 + 100.0).collect();
        let (residual, gain, bias) = (noise(2, rows * width), noise(3, width), noise(4, width));
        let sums: Vec<f32> = x.iter().zip(&residual).map(|(x, y)| x + y).collect();
        let tensor = |values: &[f32]| gpu.tensor(rows, width, values).expect("memory");
        for kind in [NormKind::Layer, NormKind::Rms] {
            for bias in [None, Some(&bias)] {
                let what = format!("{kind:?} of {rows} x {width}");
                let vector = |values: &[f32]| gpu.vector(values.to_vec()).expect("memory");
                let norm =
                    Norm::<Gpu> { kind, gain: vector(&gain), bias: bias.map(|bias| vector(bias)), epsilon: 1e-6 };
                let bias = bias.map(Vec::as_slice);
                let want = reference::norm(&sums, kind, &gain, bias, 1e-6);
                let plain = read(&gpu, &gpu.norm(&tensor(&x), &norm).expect("recorded"));
                close(&what, &plain, &reference::norm(&x, kind, &gain, bias, 1e-6), 1e-4);
                let both = gpu.add_norm(tensor(&x), Some(&tensor(&residual)), &norm).expect("recorded");
                close(&what, &read(&gpu, &both), &want, 1e-4);
                // A sum that a norm computes on its way, and that is read as well.
                let sum = gpu.add(tensor(&x), &tensor(&residual)).expect("recorded");
                let on_its_way = gpu.norm(&sum, &norm).expect("recorded");
                same_bits(&what, &read(&gpu, &on_its_way), &read(&gpu, &both));
                same_bits(&what, &read(&gpu, &sum), &sums);
                let sum = gpu.add(tensor(&x), &tensor(&residual)).expect("recorded");
                same_bits(&what, &read(&gpu, &sum), &sums);
                let twice = gpu.add_norm(sum, Some(&tensor(&residual)), &norm).expect("recorded");
                let twice_sums: Vec<f32> = sums.iter().zip(&residual).map(|(x, y)| x + y).collect();
                close(&what, &read(&gpu, &twice), &reference::norm(&twice_sums, kind, &gain, bias, 1e-6), 1e-4);
            }
        }
    }
}

#[test]
fn the_largest_product_of_each_word() {
    let Some(gpu) = gpu() else { return };
    let spans = [0..1, 1..4, 4..70, 70..135];
    for (width, count) in [(8, 5), (20, 130), (48, 64), (33, 200)] {
        let (x, words, bias) = (noise(1, 135 * width), noise(2, count * width), noise(3, count));
        for form in Form::ALL {
            let (values, words) = in_form(&words, width, form);
            for bias in [None, Some(&bias)] {
                let logits = reference::linear(&x, &words, bias.map(Vec::as_slice), width, Activation::None);
                let most = |span: &Range<usize>, word: usize| {
                    span.clone().map(|token| logits[token * count + word]).fold(f64::NEG_INFINITY, f64::max)
                };
                let want: Vec<f64> =
                    spans.iter().flat_map(|span| (0..count).map(move |word| most(span, word))).collect();
                let one_text: Vec<f64> = want[3 * count..].to_vec();
                let split = Gpu { limit: (64 * width.div_ceil(4) * form.bytes_of_four()) as u64, ..gpu.clone() };
                let [large, small] = Tile::ALL.map(|tile| with_tile(&gpu, tile));
                for gpu in [&large, &small, &split] {
                    let table = gpu.table(count, width, values.clone()).expect("memory");
                    let bias = bias.map(|bias| gpu.vector(bias.clone()).expect("memory"));
                    let tensor = gpu.tensor(135, width, &x).expect("memory");
                    let y = gpu.vocab_max(&tensor, &table, bias.as_ref(), &spans).expect("recorded");
                    let y = read(gpu, &y);
                    let parts = table.words.get().expect("packed").parts.len();
                    close(&format!("{count} words of {width} in {form:?}, {parts} parts"), &y, &want, 2e-5);
                    let tensor = gpu.tensor(65, width, &x[70 * width..]).expect("memory");
                    let alone = read(
                        gpu,
                        &gpu.vocab_max(&tensor, &table, bias.as_ref(), slice::from_ref(&(0..65))).expect("recorded"),
                    );
                    close("a text alone", &alone, &one_text, 2e-5);
                    same_bits("a text alone", &alone, &y[3 * count..]);
                    assert!(count <= 64 || gpu.limit > 1 << 16 || parts > 1, "{parts} parts");
                }
            }
        }
    }
}

#[test]
fn entries_above_zero_are_read_alone() {
    let Some(gpu) = gpu() else { return };
    // Few of each row, all of it, none; more than is provided for in one; rows that are no multiple of four.
    for (width, share) in [(5, 0.5), (300, 0.1), (300, 1.0), (9001, 0.01), (9001, 0.0), (9001, 0.5)] {
        let rows = 3;
        let mut values: Vec<f32> =
            noise(7, rows * width).iter().map(|value| (value + 1.0) / 2.0 - 1.0 + share).collect();
        values[width - 1] = f32::MIN_POSITIVE;
        values[width..width + 5].copy_from_slice(&[0.0, -0.0, f32::NAN, f32::INFINITY, f32::NEG_INFINITY]);
        let x = gpu.tensor(rows, width, &values).expect("memory");
        gpu.take_profile();
        let got = block_on(gpu.read_entries(&x, width)).expect("a working GPU");
        let submissions = gpu.take_profile().submissions;
        let bits = |rows: Vec<Entries>| -> Vec<Vec<(u32, u32)>> {
            let bits = |row: Entries| -> BTreeMap<u32, u32> {
                row.into_iter().map(|(at, value)| (at, value.to_bits())).collect()
            };
            rows.into_iter().map(|row| bits(row).into_iter().collect()).collect()
        };
        let want = bits(crate::ops::entries(&values, width));
        let most = want.iter().map(Vec::len).max().unwrap_or(0);
        assert_eq!(bits(got), want, "{share} of {width}");
        assert!(want[1].iter().filter(|(at, _)| (2..5).contains(at)).count() == 3);
        assert_eq!(submissions, if most > plan::entries(width) { 2 } else { 1 }, "{most} of {width}");
    }
}

#[test]
fn what_is_no_number_stays_so_through_maxima() {
    let Some(gpu) = gpu() else { return };
    let mut x = noise(1, 40 * 8);
    x[25 * 8 + 3] = f32::NAN;
    let x = gpu.tensor(40, 8, &x).expect("memory");
    let spans = [0..20, 20..40];
    let pooled = read(&gpu, &gpu.pool(&x, &spans, &[Pooling::Max]).expect("recorded"));
    assert_eq!(pooled.iter().map(|y| y.is_nan()).collect::<Vec<_>>(), (0..16).map(|at| at == 11).collect::<Vec<_>>());
    let table = gpu.table(50, 8, Values::F32(noise(2, 50 * 8))).expect("memory");
    let largest = read(&gpu, &gpu.vocab_max(&x, &table, None, &spans).expect("recorded"));
    assert!(largest[..50].iter().all(|y| y.is_finite()) && largest[50..].iter().all(|y| y.is_nan()), "{largest:?}");
}

#[test]
fn poolings_are_their_formulas() {
    let Some(gpu) = gpu() else { return };
    let kinds =
        [Pooling::Cls, Pooling::Max, Pooling::Mean, Pooling::MeanSqrtLen, Pooling::WeightedMean, Pooling::LastToken];
    for width in [3, 5, 16, 70] {
        let spans = [0..1, 1..8, 8..8, 8..308];
        let x = noise(5, 308 * width);
        let rows = |span: &Range<usize>| &x[span.start * width..span.end * width];
        let row = |span: &Range<usize>| kinds.map(|kind| reference::pool(rows(span), width, kind)).concat();
        let want: Vec<f64> = spans.iter().flat_map(row).collect();
        let tensor = gpu.tensor(308, width, &x).expect("memory");
        close(
            &format!("width {width}"),
            &read(&gpu, &gpu.pool(&tensor, &spans, &kinds).expect("recorded")),
            &want,
            1e-5,
        );
        let cls = read(&gpu, &gpu.pool(&tensor, &spans[..2], &kinds[..1]).expect("recorded"));
        assert!(cls[..width] == x[..width] && cls[width..] == x[width..2 * width], "{cls:?}");
    }
}

#[test]
fn a_wrong_weight_is_found_before_it_is_used() {
    let Some(gpu) = gpu() else { return };
    let values = Values::F32(noise(1, 40 * 20));
    gpu.matrix(40, 20, values.clone()).expect("memory");
    // Another proof is as good as other weights.
    lock(&gpu.kept).untried[0].1 = Proof::of(&Values::F32(noise(2, 40 * 20)), 40, 20);
    let error = block_on(gpu.ready()).expect_err("refused");
    assert_eq!(error.code(), Code::NoDevice, "{error}");
    assert!(error.message().contains("output 0 of a matrix of 40 x 20"), "{error}");
    gpu.matrix(40, 20, values).expect("memory");
    block_on(gpu.ready()).expect("the next is tried by itself");
}

#[test]
fn what_does_not_fit_is_refused_and_the_next_call_works() {
    let Some(gpu) = gpu() else { return };
    let error = gpu.slot(1 << 20, 1 << 20).expect_err("four terabytes");
    assert_eq!(error.code(), Code::OutOfMemory);
    let error = Gpu { limit: 100, ..gpu.clone() }.matrix(4, 4096, Values::F32(vec![0.0; 4 * 4096])).err();
    assert_eq!(error.expect("64 outputs do not fit").code(), Code::OutOfMemory);
    // Commands that the device refuses: a copy beyond the end of its target.
    let x = gpu.tensor(2, 3, &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]).expect("memory");
    let slot = gpu.value(&x).expect("stored");
    let far = Binding { offset: 1 << 30, ..x.part(&slot) };
    gpu.queue.record().copy(far, slot.buffer());
    let error = block_on(gpu.read(&x)).expect_err("refused");
    assert_eq!(error.code(), Code::Executor, "{error}");
    let x = gpu.tensor(2, 3, &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]).expect("memory");
    assert_eq!(read(&gpu, &x), [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
}

#[test]
fn a_lost_device_says_so_and_the_next_one_works() {
    if gpu().is_none() {
        return;
    }
    // A thread has a device of its own.
    let lose = std::thread::spawn(|| {
        let gpu = Gpu::on(block_on(Device::open()).expect("a GPU"));
        let x = gpu.tensor(1, 4, &[1.0; 4]).expect("memory");
        assert_eq!(read(&gpu, &x), [1.0; 4]);
        gpu.device().destroy();
        for _ in 0..2 {
            let x = gpu.tensor(1, 4, &[1.0; 4]).expect("recorded");
            assert_eq!(block_on(gpu.read(&x)).expect_err("lost").code(), Code::DeviceLost);
        }
        let next = Gpu::on(block_on(Device::open()).expect("a GPU"));
        let x = next.tensor(1, 4, &[2.0; 4]).expect("memory");
        assert_eq!(read(&next, &x), [2.0; 4]);
    });
    lose.join().expect("no panic");
}

#[test]
fn buffers_are_kept_and_small_numbers_are_not_overwritten() {
    let Some(gpu) = gpu() else { return };
    // More parameters than a chunk of uploads holds, in one submission.
    let ones = map(&gpu, Values::F32(vec![1.0; 16]), 4, 4, None);
    let mut x = gpu.tensor(1, 4, &[1.0, 0.0, 0.0, 0.0]).expect("memory");
    for _ in 0..6000 {
        x = gpu.linear(&x, &ones, Activation::Tanh).expect("recorded");
    }
    let y = read(&gpu, &x);
    // tanh(4 y) = y
    let fixed = f64::from(y[0]);
    assert!(((4.0 * fixed).tanh() - fixed).abs() < 1e-5 && y.iter().all(|value| *value == y[0]), "{y:?}");
    let profile = gpu.take_profile();
    assert_eq!((profile.dispatches, profile.submissions), (6000, 1));
    assert!(profile.kernels.is_empty());
    if gpu.device().has_clock() {
        gpu.set_timing(true);
        let x = gpu.tensor(1, 4, &[1.0; 4]).expect("memory");
        read(&gpu, &gpu.linear(&x, &ones, Activation::Tanh).expect("recorded"));
        let profile = gpu.take_profile();
        let time = profile.kernels["linear f32 16x64"];
        assert!(time.count == 1 && time.milliseconds >= 0.0 && time.milliseconds < 1e3, "{profile:?}");
    }
}
