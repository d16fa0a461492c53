//! Products of f32. Panels are `[inputs][columns]`.

use std::marker::PhantomData;

use super::{
    lanes::Lanes,
    tiles::{Product, Target},
};

/// Rows of `inputs` values times panels.
pub struct F32Product {
    pub inputs: usize,
    pub x: *const f32,
    /// From one row to the next.
    pub stride: usize,
    /// The first of the panels.
    pub panels: *const f32,
    /// From one panel to the next; the inputs times a panel's width, or more.
    pub panel_stride: usize,
}

/// The product in lanes. With `ADD` the sums start from what is in their place, and not from the bias.
pub struct F32Tiles<'a, L, const VECTORS: usize, const ADD: bool>(pub &'a F32Product, pub PhantomData<L>);

impl<L: Lanes, const VECTORS: usize, const ADD: bool> Product for F32Tiles<'_, L, VECTORS, ADD> {
    type Lanes = L;
    const VECTORS: usize = VECTORS;

    /// V8 keeps a tile's sums in registers only where the loop stands in a function of its own; natively it is inlined into one
    /// that has the instruction set.
    #[cfg_attr(target_arch = "wasm32", inline(never))]
    #[cfg_attr(not(target_arch = "wasm32"), inline(always))]
    unsafe fn tile<const ROWS: usize, const PANELS: usize>(
        &self,
        row: usize,
        panel: usize,
        y: Target,
        bias: *const f32,
    ) {
        let product = self.0;
        let columns = VECTORS * L::COUNT;
        // SAFETY: all places lie within what the caller promised.
        unsafe {
            let mut sums = [[[L::splat(0.0); VECTORS]; PANELS]; ROWS];
            for (row, sums) in sums.iter_mut().enumerate() {
                for (panel, sums) in sums.iter_mut().enumerate() {
                    for (vector, sum) in sums.iter_mut().enumerate() {
                        let at = panel * columns + vector * L::COUNT;
                        if ADD {
                            *sum = L::load(y.start.add(row * y.stride + at));
                        } else if !bias.is_null() {
                            *sum = L::load(bias.add(at));
                        }
                    }
                }
            }
            let panel_stride = product.panel_stride;
            let mut weights = product.panels.add(panel * panel_stride);
            let mut from: [*const f32; ROWS] = std::array::from_fn(|at| product.x.add((row + at) * product.stride));
            for _ in 0..product.inputs {
                let mut loaded = [[L::splat(0.0); VECTORS]; PANELS];
                for (panel, loaded) in loaded.iter_mut().enumerate() {
                    for (vector, loaded) in loaded.iter_mut().enumerate() {
                        *loaded = L::load(weights.add(panel * panel_stride + vector * L::COUNT));
                    }
                }
                for row in 0..ROWS {
                    let value = L::splat(*from[row]);
                    from[row] = from[row].add(1);
                    for panel in 0..PANELS {
                        for vector in 0..VECTORS {
                            sums[row][panel][vector] = value.mul_add(loaded[panel][vector], sums[row][panel][vector]);
                        }
                    }
                }
                weights = weights.add(columns);
            }
            for (row, sums) in sums.iter().enumerate() {
                for (panel, sums) in sums.iter().enumerate() {
                    for (vector, sum) in sums.iter().enumerate() {
                        sum.store(y.start.add(row * y.stride + panel * columns + vector * L::COUNT));
                    }
                }
            }
        }
    }
}
