//! What a GPU must compute as the processor does before a model is loaded onto it.
//!
//! One small network that has every operation runs on both. It proves that the driver compiles these kernels rightly, in one or two shapes of each; it does
//! not prove that memory holds or that every size is right. Weights are tried apart when they have arrived ([`super::Gpu`]), and every
//! result is looked at for what is no number.

use std::sync::Arc;

use super::{Gpu, Tile};
use crate::{
    error::{Code, Error, Result},
    ops::{Activation, Attention, Half, Linear, Norm, NormKind, Ops, Pooling, Relative, Span},
    weights::Values,
};

/// The lowest cosine between a GPU's result and the processor's; measured are 0.999_999_9 and more.
const LOWEST: f64 = 0.999_99;

const WIDTH: usize = 64;
const TOKENS: usize = 70;
const WORDS: usize = 150;

/// Numbers between -1 and 1, the same ones for the same seed.
pub fn noise(seed: u32, count: usize) -> Vec<f32> {
    let mut state = seed.wrapping_mul(2_654_435_761).wrapping_add(12345);
    let mut uniform = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1 << 23) as f32 - 1.0
    };
    (0..count).map(|_| uniform()).collect()
}

/// A linear map whose outputs are about as large as its inputs.
fn linear<O: Ops>(ops: &O, seed: u32, outputs: usize, inputs: usize) -> Result<Linear<O>> {
    let scale = (3.0 / inputs as f32).sqrt();
    let values = noise(seed, outputs * inputs).iter().map(|value| value * scale).collect();
    let weight = ops.matrix(outputs, inputs, Values::F32(values))?;
    Ok(Linear { weight, bias: Some(ops.vector(noise(seed + 1, outputs))?) })
}

fn norm<O: Ops>(ops: &O, seed: u32, kind: NormKind) -> Result<Norm<O>> {
    let gain = noise(seed, WIDTH).iter().map(|value| 1.0 + 0.3 * value).collect();
    Ok(Norm { kind, gain: ops.vector(gain)?, bias: Some(ops.vector(noise(seed + 1, WIDTH))?), epsilon: 1e-5 })
}

/// What the network gives on an executor: a vector for each text, and with `has_words` one over the words.
pub async fn outputs<O: Ops>(ops: &O, has_words: bool) -> Result<[Vec<f32>; 2]> {
    let spans: [Span; 3] = [0..1, 1..20, 20..TOKENS];
    let table = |seed: u32, rows: usize| ops.table(rows, WIDTH, Values::F32(noise(seed, rows * WIDTH)));
    let (words, places) = (table(1, WORDS)?, table(2, TOKENS)?);
    let ids: Vec<u32> = (0..TOKENS as u32).map(|at| at * 37 % WORDS as u32).collect();
    let positions: Vec<u32> = (0..TOKENS as u32).collect();
    let x = ops.gather(&[(&words, ids.as_slice()), (&places, positions.as_slice())])?;
    let x = ops.add_norm(x, None, &norm(ops, 3, NormKind::Layer)?)?;

    let full = Attention::full(2, WIDTH / 2);
    // Not by powers, which a compiler may round in another way for each executor.
    let frequencies: Arc<[f32]> = (0..WIDTH / 4).map(|at| 1.0 / (1.0 + at as f32)).collect();
    let local = Attention { rotary: Some(frequencies), window: Some(9), ..full.clone() };
    let relative = Relative { table: ops.table(5, 2, Values::F32(noise(5, 10)))?, buckets: vec![0, 1, 2, 3, 4] };
    let qkv = ops.linear(&x, &linear(ops, 7, 3 * WIDTH, WIDTH)?, Activation::None)?;
    let context = ops.attention(&qkv, &spans, &local, None)?;
    let x = ops.add_norm(context, Some(&x), &norm(ops, 11, NormKind::Rms)?)?;
    // Enough columns for a large tile.
    let wide = ops.linear(&x, &linear(ops, 13, 2048, WIDTH)?, Activation::Gelu)?;
    let inner = ops.linear(&wide, &linear(ops, 17, WIDTH, 2048)?, Activation::Tanh)?;
    let x = ops.add(inner, &x)?;

    let y = ops.norm(&x, &norm(ops, 19, NormKind::Layer)?)?;
    let qkv = ops.linear(&y, &linear(ops, 23, 3 * WIDTH, WIDTH)?, Activation::None)?;
    let x = ops.add(ops.attention(&qkv, &spans, &full, Some(&relative))?, &x)?;
    let gated = ops.gated(&x, &linear(ops, 29, 2 * WIDTH, WIDTH)?, Activation::Silu, Half::Second)?;
    let x = ops.add(gated, &x)?;
    let poolings = [Pooling::Cls, Pooling::Max, Pooling::Mean, Pooling::MeanSqrtLen, Pooling::WeightedMean];
    let pooled = ops.pool(&x, &spans, &[poolings.as_slice(), &[Pooling::LastToken]].concat())?;
    let mut largest = vec![0.0; if has_words { spans.len() * WORDS } else { 0 }];
    if has_words {
        let logits = ops.vocab_max(&x, &words, Some(&ops.vector(noise(31, WORDS))?), &spans)?;
        let rows = ops.read_entries(&logits, WORDS).await?;
        for (row, entries) in largest.chunks_exact_mut(WORDS).zip(rows) {
            entries.into_iter().for_each(|(index, value)| row[index as usize] = value);
        }
    }
    Ok([ops.read(&pooled).await?, largest])
}

/// Of the angle between two vectors.
pub fn cosine(a: &[f32], b: &[f32]) -> f64 {
    let dot = |a: &[f32], b: &[f32]| -> f64 { a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum() };
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
}

/// The error for a GPU that computes something else.
pub fn refused(gpu: &Gpu, message: &str) -> Error {
    let message = format!("{} computes wrong values: {message}", gpu.device().name());
    Error::new(Code::NoDevice, "webgpu", message)
}

/// Runs the network, and refuses the GPU if it is off what the processor gives.
pub async fn compare(gpu: &Gpu, want: &[Vec<f32>; 2], has_words: bool) -> Result<()> {
    let parts = if has_words { 2 } else { 1 };
    // As large batches are cut, and as small ones.
    for tile in [None, Some(Tile::Small)] {
        let got = outputs(&Gpu { tile, ..gpu.clone() }, has_words).await?;
        for ((got, want), what) in got.iter().zip(want).zip(["pooled", "words"]).take(parts) {
            let cosine = cosine(got, want);
            if got.len() != want.len() || cosine.is_nan() || cosine < LOWEST {
                return Err(refused(
                    gpu,
                    &format!("{what} in tiles {tile:?} at a cosine of {cosine:.6} to the processor's"),
                ));
            }
        }
    }
    gpu.try_matrices().await?;
    // These were the network's own.
    gpu.take_profile();
    Ok(())
}
