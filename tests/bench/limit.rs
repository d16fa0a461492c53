//! What one thread does at most in WebAssembly: the products of all-MiniLM-L6-v2 and nothing else.
//!
//! The shape that V8 computes fastest on x86: a tile of 4 rows and 8 columns, whose weights lie packed in the nearest cache. A benchmark beside which an
//! encoder is put, and no part of one; so it shares no code with the crate.
//!
//!     rustc --edition 2024 -O -C strip=symbols --crate-type cdylib --target wasm32-unknown-unknown -C target-feature=+simd128,+relaxed-simd limit.rs

use std::arch::wasm32::*;

const ROWS: usize = 128;
const INPUTS: usize = 384;
const COLUMNS: usize = 1536;
const TALL: usize = 4;
const WIDE: usize = 8;

struct Product<T, S> {
    x: Vec<T>,
    /// `[columns / WIDE][inputs / group][WIDE][group]`
    weights: Vec<T>,
    y: Vec<S>,
}

impl<T: Clone, S: Clone> Product<T, S> {
    fn new(value: T, sum: S) -> Self {
        Self { x: vec![value.clone(); ROWS * INPUTS], weights: vec![value; INPUTS * COLUMNS], y: vec![sum; ROWS * COLUMNS] }
    }

    /// So many tiles, one after the other and from the front again.
    fn tiles(&mut self, count: usize, tile: unsafe fn(*const T, *const T, *mut S)) {
        for at in 0..count {
            let (panel, row) = (at / (ROWS / TALL) % (COLUMNS / WIDE), at % (ROWS / TALL) * TALL);
            // SAFETY: the tile lies within the product.
            unsafe {
                tile(
                    self.x.as_ptr().add(row * INPUTS),
                    self.weights.as_ptr().add(panel * WIDE * INPUTS),
                    self.y.as_mut_ptr().add(row * COLUMNS + panel * WIDE),
                );
            }
        }
    }
}

/// # Safety
/// `x` must be readable for the tile's rows, `weights` for its panel; `y` must be writable for the tile.
#[inline(never)]
unsafe fn tile_f32(x: *const f32, mut weights: *const f32, y: *mut f32) {
    let mut sums = [[f32x4_splat(0.0); 2]; TALL];
    // SAFETY: the caller's promise.
    unsafe {
        let mut from: [*const f32; TALL] = std::array::from_fn(|row| x.add(row * INPUTS));
        for _ in 0..INPUTS {
            let loaded = [v128_load(weights.cast()), v128_load(weights.add(4).cast())];
            for row in 0..TALL {
                let value = v128_load32_splat(from[row].cast());
                from[row] = from[row].add(1);
                for at in 0..2 {
                    sums[row][at] = f32x4_relaxed_madd(value, loaded[at], sums[row][at]);
                }
            }
            weights = weights.add(WIDE);
        }
        for row in 0..TALL {
            for at in 0..2 {
                v128_store(y.add(row * COLUMNS + at * 4).cast(), sums[row][at]);
            }
        }
    }
}

/// # Safety
/// As for [`tile_f32`].
#[inline(never)]
unsafe fn tile_int8(x: *const i8, mut weights: *const i8, y: *mut i32) {
    let mut sums = [[i32x4_splat(0); 2]; TALL];
    // SAFETY: the caller's promise.
    unsafe {
        let mut from: [*const i8; TALL] = std::array::from_fn(|row| x.add(row * INPUTS));
        for _ in 0..INPUTS / 4 {
            let loaded = [v128_load(weights.cast()), v128_load(weights.add(16).cast())];
            for row in 0..TALL {
                let values = v128_load32_splat(from[row].cast());
                from[row] = from[row].add(4);
                for at in 0..2 {
                    sums[row][at] = i32x4_relaxed_dot_i8x16_i7x16_add(loaded[at], values, sums[row][at]);
                }
            }
            weights = weights.add(4 * WIDE);
        }
        for row in 0..TALL {
            for at in 0..2 {
                v128_store(y.add(row * COLUMNS + at * 4).cast(), sums[row][at]);
            }
        }
    }
}

thread_local! {
    static F32: std::cell::RefCell<Product<f32, f32>> = Product::new(0.01, 0.0).into();
    static INT8: std::cell::RefCell<Product<i8, i32>> = Product::new(3, 0).into();
}

/// Operations (a product and a sum are two) of a tile.
#[unsafe(no_mangle)]
pub extern "C" fn operations() -> u32 {
    (2 * TALL * WIDE * INPUTS) as u32
}

#[unsafe(no_mangle)]
pub extern "C" fn f32(tiles: u32) {
    F32.with_borrow_mut(|product| product.tiles(tiles as usize, tile_f32));
}

#[unsafe(no_mangle)]
pub extern "C" fn int8(tiles: u32) {
    INT8.with_borrow_mut(|product| product.tiles(tiles as usize, tile_int8));
}
