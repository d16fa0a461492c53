//! Attention within one text, one head at a time, with a running softmax: scores exist for a tile of queries and a block of keys
//! only (<https://arxiv.org/abs/2205.14135>).

use std::{f32::consts::LOG2_E, marker::PhantomData, ptr};

use super::{
    Activation,
    lanes::Lanes,
    math,
    matmul_f32::{F32Product, F32Tiles},
    tiles::{self, Block, MOST_ROWS, Target},
};

/// Keys whose scores stand there at a time.
const KEYS: usize = 128;

/// Scores of keys that a query does not see; its power of two is below all that f32 adds to the one of the largest score.
const UNSEEN: f32 = f32::NEG_INFINITY;

/// One head of one text.
pub struct Head {
    /// The text's first query, key and value.
    pub q: *const f32,
    pub k: *const f32,
    pub v: *const f32,
    /// From one token to the next, in all three.
    pub stride: usize,
    pub length: usize,
    /// Of the head.
    pub width: usize,
    /// What scores are multiplied by.
    pub scale: f32,
    /// Cosines and sines of each position, `[positions, width / 2]`.
    pub rotary: Option<(*const f32, *const f32)>,
    /// How many tokens to either side a token sees.
    pub window: Option<usize>,
    /// What is added to a score by the distance of key from query: that of distance 0 stands here, others beside it. Readable for
    /// a panel's width beyond the last distance.
    pub bias: Option<*const f32>,
    pub y: Target,
}

/// How many values [`attend`] needs to work with.
pub fn room(length: usize, width: usize, rows: usize, columns: usize) -> usize {
    let padded = width.next_multiple_of(columns);
    length.next_multiple_of(rows) * width
        + length.next_multiple_of(columns) * width
        + length * padded
        + rows * KEYS.max(columns)
        + rows * padded
}

/// Computes a head.
///
/// # Safety
/// The processor must have the instructions of `L`, everything in `head` must be valid for its length and width, and `work` for
/// what [`room`] says.
#[inline(always)]
pub unsafe fn attend<L: Lanes, const TALL: usize, const VECTORS: usize>(head: &Head, work: *mut f32) {
    let columns = VECTORS * L::COUNT;
    let (length, width) = (head.length, head.width);
    let padded = width.next_multiple_of(columns);
    let score_stride = KEYS.max(columns);
    // SAFETY: the parts of the room that `room` counts.
    unsafe {
        let queries = work;
        let keys = queries.add(length.next_multiple_of(TALL) * width);
        let values = keys.add(length.next_multiple_of(columns) * width);
        let scores = values.add(length * padded);
        let sums = scores.add(TALL * score_stride);
        pack::<L>(head, queries, keys, values, TALL, columns);
        let whole = Block {
            rows: TALL,
            columns: 0,
            y: Target { start: sums, stride: padded },
            bias: ptr::null(),
            activation: Activation::None,
        };

        for first in (0..length).step_by(TALL) {
            let rows = TALL.min(length - first);
            let mut largest = [f32::NEG_INFINITY; MOST_ROWS];
            let mut total = [0.0f32; MOST_ROWS];
            let seen = |query: usize| match head.window {
                None => 0..length,
                Some(window) => query.saturating_sub(window)..length.min(query + window + 1),
            };
            let start = seen(first).start / columns * columns;
            let end = seen(first + rows - 1).end;
            for key in (start..end).step_by(KEYS) {
                let count = KEYS.min(end - key);
                let wide = count.next_multiple_of(columns);
                let products = F32Product {
                    inputs: width,
                    x: queries.add(first * width),
                    stride: width,
                    panels: keys.add(key * width),
                    panel_stride: width * columns,
                };
                let y = Target { start: scores, stride: score_stride };
                let products = F32Tiles::<L, VECTORS, false>(&products, PhantomData);
                tiles::run::<_, TALL>(&products, &Block { columns: wide, y, ..whole });
                for row in 0..rows {
                    let query = first + row;
                    let scores = scores.add(row * score_stride);
                    if let Some(bias) = head.bias {
                        add::<L>(scores, bias.offset(key as isize - query as isize), wide);
                    }
                    let seen = seen(query);
                    for unseen in key..seen.start.min(key + wide) {
                        *scores.add(unseen - key) = UNSEEN;
                    }
                    for unseen in seen.end.max(key)..key + wide {
                        *scores.add(unseen - key) = UNSEEN;
                    }
                    let before = largest[row];
                    largest[row] = before.max(largest_of::<L>(scores, wide));
                    // Nothing seen yet: zeros are subtracted, and minus infinity stays.
                    let base = if largest[row] == UNSEEN { 0.0 } else { largest[row] };
                    let fresh = powers::<L>(scores, wide, base);
                    if key == start {
                        total[row] = fresh;
                    } else {
                        let shrink = if before == UNSEEN { 0.0 } else { (before - base).exp2() };
                        total[row] = total[row] * shrink + fresh;
                        scale::<L>(sums.add(row * padded), sums.add(row * padded), padded, shrink);
                    }
                }
                let y = Target { start: sums, stride: padded };
                let context = Block { columns: padded, y, ..whole };
                let product = F32Product {
                    inputs: count,
                    x: scores,
                    stride: score_stride,
                    panels: values.add(key * columns),
                    panel_stride: length * columns,
                };
                if key == start {
                    tiles::run::<_, TALL>(&F32Tiles::<L, VECTORS, false>(&product, PhantomData), &context);
                } else {
                    tiles::run::<_, TALL>(&F32Tiles::<L, VECTORS, true>(&product, PhantomData), &context);
                }
            }
            for row in 0..rows {
                let y = head.y.start.add((first + row) * head.y.stride);
                scale::<L>(sums.add(row * padded), y, width, 1.0 / total[row]);
            }
        }
    }
}

/// Lays a head out for the products: queries in rows, scaled so that scores are logarithms of base two; keys in panels of tokens; values in
/// panels of components. Both of the former are rotated. What fills up tiles and panels is zero.
///
/// # Safety
/// As for [`attend`].
#[inline(always)]
unsafe fn pack<L: Lanes>(
    head: &Head,
    queries: *mut f32,
    keys: *mut f32,
    values: *mut f32,
    tall: usize,
    columns: usize,
) {
    let (length, width) = (head.length, head.width);
    let half = width / 2;
    let by = head.scale * LOG2_E;
    // SAFETY: tokens below the length, components below the width, places below what `room` counts.
    unsafe {
        for token in 0..length {
            let q = head.q.add(token * head.stride);
            let k = head.k.add(token * head.stride);
            let query = queries.add(token * width);
            let key = keys.add(token / columns * columns * width + token % columns);
            match head.rotary {
                None => {
                    scale::<L>(q, query, width, by);
                    for at in 0..width {
                        *key.add(at * columns) = *k.add(at);
                    }
                }
                Some((cosines, sines)) => {
                    for at in 0..half {
                        let (cosine, sine) = (*cosines.add(token * half + at), *sines.add(token * half + at));
                        let (first, second) = (*q.add(at), *q.add(at + half));
                        *query.add(at) = (first * cosine - second * sine) * by;
                        *query.add(at + half) = (second * cosine + first * sine) * by;
                        let (first, second) = (*k.add(at), *k.add(at + half));
                        *key.add(at * columns) = first * cosine - second * sine;
                        *key.add((at + half) * columns) = second * cosine + first * sine;
                    }
                }
            }
            let v = head.v.add(token * head.stride);
            for panel in 0..width.div_ceil(columns) {
                let to = values.add((panel * length + token) * columns);
                let there = columns.min(width - panel * columns);
                ptr::copy_nonoverlapping(v.add(panel * columns), to, there);
                ptr::write_bytes(to.add(there), 0, columns - there);
            }
        }
        ptr::write_bytes(queries.add(length * width), 0, (length.next_multiple_of(tall) - length) * width);
        for token in length..length.next_multiple_of(columns) {
            let key = keys.add(token / columns * columns * width + token % columns);
            for at in 0..width {
                *key.add(at * columns) = 0.0;
            }
        }
    }
}

/// Adds a bias to scores, which are logarithms of base two.
///
/// # Safety
/// Both must be valid for `count` values, a multiple of the lanes.
#[inline(always)]
unsafe fn add<L: Lanes>(x: *mut f32, y: *const f32, count: usize) {
    for at in (0..count).step_by(L::COUNT) {
        // SAFETY: the caller's promise.
        unsafe { L::load(y.add(at)).mul_add(L::splat(LOG2_E), L::load(x.add(at))).store(x.add(at)) }
    }
}

/// # Safety
/// `x` must be valid for `count` values, a multiple of the lanes.
#[inline(always)]
unsafe fn largest_of<L: Lanes>(x: *const f32, count: usize) -> f32 {
    // SAFETY: the caller's promise.
    unsafe {
        let mut largest = L::load(x);
        for at in (L::COUNT..count).step_by(L::COUNT) {
            largest = largest.at_least(L::load(x.add(at)));
        }
        largest.largest()
    }
}

/// Replaces each value by two to the power of its distance from `base`, and gives their sum.
///
/// # Safety
/// `x` must be valid for `count` values, a multiple of the lanes.
#[cfg_attr(target_arch = "wasm32", inline(never))]
#[cfg_attr(not(target_arch = "wasm32"), inline(always))]
unsafe fn powers<L: Lanes>(x: *mut f32, count: usize, base: f32) -> f32 {
    // SAFETY: the caller's promise.
    unsafe {
        let base = L::splat(base);
        let mut sum = L::splat(0.0);
        for at in (0..count).step_by(L::COUNT) {
            let value = math::exp2(L::load(x.add(at)) - base);
            value.store(x.add(at));
            sum = sum + value;
        }
        sum.sum()
    }
}

/// `y = x * factor`; the two may be the same.
///
/// # Safety
/// Both must be valid for `count` values.
#[inline(always)]
unsafe fn scale<L: Lanes>(x: *const f32, y: *mut f32, count: usize, factor: f32) {
    let whole = count - count % L::COUNT;
    // SAFETY: the caller's promise.
    unsafe {
        let by = L::splat(factor);
        for at in (0..whole).step_by(L::COUNT) {
            (L::load(x.add(at)) * by).store(y.add(at));
        }
        for at in whole..count {
            *y.add(at) = *x.add(at) * factor;
        }
    }
}
