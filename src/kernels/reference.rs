//! What the kernels compute, in plain f64: the oracle of their tests.

use std::ops::Range;

use super::{Activation, Half, NormKind, Pooling};

/// Every activation.
pub const ACTIVATIONS: [Activation; 9] = [
    Activation::None,
    Activation::Gelu,
    Activation::GeluTanh,
    Activation::Relu,
    Activation::Silu,
    Activation::Tanh,
    Activation::Sigmoid,
    Activation::LeakyRelu,
    Activation::Mish,
];

/// Numbers of about normal size, the same ones for the same seed.
pub fn noise(seed: u32, count: usize) -> Vec<f32> {
    let mut state = seed.wrapping_mul(2_654_435_761).wrapping_add(12345);
    let mut uniform = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1 << 24) as f32 - 0.5
    };
    (0..count).map(|_| (uniform() + uniform() + uniform()) * 2.0).collect()
}

/// The error function, by its series up to 3 and its continued fraction beyond.
pub fn erf(x: f64) -> f64 {
    let root = std::f64::consts::PI.sqrt();
    if x.abs() < 3.0 {
        let mut term = x;
        let mut sum = x;
        for n in 1..100 {
            term *= -x * x / f64::from(n);
            sum += term / f64::from(2 * n + 1);
        }
        return 2.0 / root * sum;
    }
    let tail = (1..60).rev().fold(0.0, |below, n| f64::from(n) / 2.0 / (x.abs() + below));
    x.signum() * (1.0 - (-x * x).exp() / root / (x.abs() + tail))
}

pub fn activate(x: f64, activation: Activation) -> f64 {
    match activation {
        Activation::None => x,
        Activation::Gelu => x / 2.0 * (1.0 + erf(x / 2f64.sqrt())),
        Activation::GeluTanh => {
            x / 2.0 * (1.0 + ((2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x.powi(3))).tanh())
        }
        Activation::Relu => x.max(0.0),
        Activation::Silu => x / (1.0 + (-x).exp()),
        Activation::Tanh => x.tanh(),
        Activation::Sigmoid => 1.0 / (1.0 + (-x).exp()),
        Activation::LeakyRelu => x.max(x / 100.0),
        Activation::Mish => x * x.exp().ln_1p().tanh(),
    }
}

/// `activation(x Wᵀ + b)`.
pub fn linear(x: &[f32], w: &[f32], b: Option<&[f32]>, inputs: usize, activation: Activation) -> Vec<f64> {
    let outputs = w.len() / inputs;
    let dot = |x: &[f32], w: &[f32]| x.iter().zip(w).map(|(x, w)| f64::from(*x) * f64::from(*w)).sum::<f64>();
    let row = |x: &[f32]| -> Vec<f64> {
        let bias = |column: usize| b.map_or(0.0, |b| f64::from(b[column]));
        (0..outputs)
            .map(|column| activate(dot(x, &w[column * inputs..][..inputs]) + bias(column), activation))
            .collect()
    };
    x.chunks_exact(inputs).flat_map(row).collect()
}

/// The product of the halves of `linear`.
pub fn gated(y: &[f64], width: usize, activation: Activation, activated: Half) -> Vec<f64> {
    let row = |row: &[f64]| -> Vec<f64> {
        let (first, second) = row.split_at(width);
        let pairs = first.iter().zip(second);
        match activated {
            Half::First => pairs.map(|(a, b)| activate(*a, activation) * b).collect(),
            Half::Second => pairs.map(|(a, b)| a * activate(*b, activation)).collect(),
        }
    };
    y.chunks_exact(2 * width).flat_map(row).collect()
}

pub fn norm(x: &[f32], kind: NormKind, gain: &[f32], bias: Option<&[f32]>, epsilon: f64) -> Vec<f64> {
    let row = |row: &[f32]| -> Vec<f64> {
        let count = row.len() as f64;
        let mean = match kind {
            NormKind::Layer => row.iter().map(|&x| f64::from(x)).sum::<f64>() / count,
            NormKind::Rms => 0.0,
        };
        let square = row.iter().map(|&x| (f64::from(x) - mean).powi(2)).sum::<f64>() / count;
        let scaled = |(at, &x): (usize, &f32)| {
            (f64::from(x) - mean) / (square + epsilon).sqrt() * f64::from(gain[at])
                + bias.map_or(0.0, |bias| f64::from(bias[at]))
        };
        row.iter().enumerate().map(scaled).collect()
    };
    x.chunks_exact(gain.len()).flat_map(row).collect()
}

/// What attention is told, in the words of [`super::Heads`].
pub struct Attention<'a> {
    pub heads: usize,
    pub width: usize,
    pub scale: f64,
    /// Radians per position of each pair of components.
    pub rotary: Option<&'a [f32]>,
    pub window: Option<usize>,
    /// By head and distance of key from query.
    pub bias: Option<&'a dyn Fn(usize, isize) -> f32>,
}

pub fn attention(qkv: &[f32], spans: &[Range<usize>], attention: &Attention) -> Vec<f64> {
    let Attention { heads, width, .. } = *attention;
    let inner = heads * width;
    let mut y = vec![0.0; qkv.len() / 3];
    let part = |token: usize, which: usize, head: usize| -> Vec<f64> {
        let start = token * 3 * inner + which * inner + head * width;
        qkv[start..start + width].iter().map(|&x| f64::from(x)).collect()
    };
    let rotated = |x: Vec<f64>, position: usize| -> Vec<f64> {
        let Some(frequencies) = attention.rotary else { return x };
        let half = width / 2;
        let mut y = x.clone();
        for at in 0..half {
            let angle = f64::from(position as f32 * frequencies[at]);
            y[at] = x[at] * angle.cos() - x[at + half] * angle.sin();
            y[at + half] = x[at + half] * angle.cos() + x[at] * angle.sin();
        }
        y
    };
    for span in spans {
        for head in 0..heads {
            for query in 0..span.len() {
                let q = rotated(part(span.start + query, 0, head), query);
                let seen: Vec<usize> = (0..span.len())
                    .filter(|&key| attention.window.is_none_or(|window| key.abs_diff(query) <= window))
                    .collect();
                let score = |&key: &usize| {
                    let k = rotated(part(span.start + key, 1, head), key);
                    let bias = attention.bias.map_or(0.0, |bias| f64::from(bias(head, key as isize - query as isize)));
                    q.iter().zip(&k).map(|(q, k)| q * k).sum::<f64>() * attention.scale + bias
                };
                let scores: Vec<f64> = seen.iter().map(score).collect();
                let most = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                let total: f64 = scores.iter().map(|score| (score - most).exp()).sum();
                for (key, score) in seen.iter().zip(&scores) {
                    let weight = (score - most).exp() / total;
                    for (at, v) in part(span.start + key, 2, head).into_iter().enumerate() {
                        y[(span.start + query) * inner + head * width + at] += weight * v;
                    }
                }
            }
        }
    }
    y
}

pub fn pool(rows: &[f32], width: usize, pooling: Pooling) -> Vec<f64> {
    let count = rows.len() / width;
    let column = |at: usize| rows.iter().skip(at).step_by(width).map(|&x| f64::from(x));
    let value = |at: usize| match pooling {
        _ if count == 0 => 0.0,
        Pooling::Cls => column(at).next().expect("a row"),
        Pooling::LastToken => column(at).next_back().expect("a row"),
        Pooling::Max => column(at).fold(f64::NEG_INFINITY, f64::max),
        Pooling::Mean => column(at).sum::<f64>() / count as f64,
        Pooling::MeanSqrtLen => column(at).sum::<f64>() / (count as f64).sqrt(),
        Pooling::WeightedMean => {
            let weighted = column(at).zip(1..).map(|(x, weight)| x * f64::from(weight)).sum::<f64>();
            weighted / (1..=count).sum::<usize>() as f64
        }
    };
    (0..width).map(value).collect()
}
