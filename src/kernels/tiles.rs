//! How a matrix product is cut into tiles, whatever the numbers are.
//!
//! `y = activation(x Wᵀ + b)`: output channels stand in panels, packed so that a tile reads its weights front to back. A tile holds
//! its sums in registers over all inputs, which are added in order: a row's result does not depend on the rows beside it, nor
//! on the shape of the tile that it fell into.

use std::{ops::Range, ptr};

use super::{
    Activation,
    lanes::{Lanes, MOST_LANES},
    math,
};

/// Most output channels of a panel.
pub const MOST_COLUMNS: usize = 2 * MOST_LANES;

/// Most rows of a tile.
pub const MOST_ROWS: usize = 12;

/// How many panels are gone through before the rest of the rows, fewer than a tile's, are taken.
pub const GROUP: usize = 4;

/// Where a product goes.
#[derive(Clone, Copy)]
pub struct Target {
    pub start: *mut f32,
    /// From one row to the next.
    pub stride: usize,
}

/// Some rows times some neighbouring panels.
#[derive(Clone, Copy)]
pub struct Block {
    pub rows: usize,
    /// Output channels; the last panel may have more, which are not stored.
    pub columns: usize,
    pub y: Target,
    /// One per column, or null.
    pub bias: *const f32,
    pub activation: Activation,
}

/// The numbers of a product.
pub trait Product {
    /// The type of its results.
    type Lanes: Lanes;
    /// Vectors of a panel.
    const VECTORS: usize;

    /// Computes a tile.
    ///
    /// # Safety
    /// The processor must have the instructions. The product must be readable for `ROWS` rows from `row` on and all columns of `PANELS`
    /// panels from `panel` on, and so must the bias, unless it is null; `y` must be valid for the tile.
    unsafe fn tile<const ROWS: usize, const PANELS: usize>(
        &self,
        row: usize,
        panel: usize,
        y: Target,
        bias: *const f32,
    );
}

/// Columns of a panel.
const fn width<P: Product>() -> usize {
    P::VECTORS * P::Lanes::COUNT
}

/// Computes a block with tiles of `TALL` rows (at least 4) and as many fewer ones as the rest needs.
///
/// # Safety
/// The processor must have the instructions; the product must be readable for the block's rows and all columns of its panels, the bias for
/// its columns, and `y` must be valid for its rows and columns.
#[inline(always)]
pub unsafe fn run<P: Product, const TALL: usize>(product: &P, block: &Block) {
    let panels = block.columns.div_ceil(width::<P>());
    let tall = block.rows - block.rows % TALL;
    for start in (0..panels).step_by(GROUP) {
        let group = start..(start + GROUP).min(panels);
        // SAFETY: rows and panels lie within the block.
        unsafe {
            for panel in group.clone() {
                for row in (0..tall).step_by(TALL) {
                    finished::<P, TALL, 1>(product, block, row, panel);
                }
            }
            // Fewer rows take several panels at a time, so that there are always enough sums under way.
            let mut row = tall;
            if TALL > 8 && block.rows - row >= 8 {
                across::<P, 8, 1>(product, block, row, group.clone());
                row += 8;
            }
            if TALL > 4 && block.rows - row >= 4 {
                across::<P, 4, 1>(product, block, row, group.clone());
                row += 4;
            }
            if block.rows - row >= 2 {
                across::<P, 2, 2>(product, block, row, group.clone());
                row += 2;
            }
            if block.rows - row >= 1 {
                across::<P, 1, 4>(product, block, row, group);
            }
        }
    }
}

/// `ROWS` rows with all of some panels, `PANELS` at a time where as many are whole.
///
/// # Safety
/// As for [`run`], with rows and panels within the block.
#[inline(always)]
unsafe fn across<P: Product, const ROWS: usize, const PANELS: usize>(
    product: &P,
    block: &Block,
    row: usize,
    panels: Range<usize>,
) {
    let whole = panels.end.min(block.columns / width::<P>());
    let mut panel = panels.start;
    // SAFETY: the caller's promise.
    unsafe {
        while panel + PANELS <= whole {
            finished::<P, ROWS, PANELS>(product, block, row, panel);
            panel += PANELS;
        }
        for panel in panel..panels.end {
            finished::<P, ROWS, 1>(product, block, row, panel);
        }
    }
}

/// A tile with its bias and its activation.
///
/// # Safety
/// As for [`run`], with rows and panels within the block; with several panels all of them whole.
#[inline(always)]
unsafe fn finished<P: Product, const ROWS: usize, const PANELS: usize>(
    product: &P,
    block: &Block,
    row: usize,
    panel: usize,
) {
    let column = panel * width::<P>();
    let columns = (block.columns - column).min(PANELS * width::<P>());
    // SAFETY: the tile lies within the block, or where its panel has more columns than there are, in `room`.
    unsafe {
        let y = Target { start: block.y.start.add(row * block.y.stride + column), ..block.y };
        let bias = if block.bias.is_null() { ptr::null() } else { block.bias.add(column) };
        if columns == PANELS * width::<P>() {
            product.tile::<ROWS, PANELS>(row, panel, y, bias);
            activate::<P::Lanes>(y, ROWS, columns, block.activation);
            return;
        }
        let mut room = [0.0; MOST_ROWS * MOST_COLUMNS];
        let inner = Target { start: room.as_mut_ptr(), stride: width::<P>() };
        let mut whole_bias = [0.0; MOST_COLUMNS];
        if !bias.is_null() {
            ptr::copy_nonoverlapping(bias, whole_bias.as_mut_ptr(), columns);
        }
        product.tile::<ROWS, 1>(row, panel, inner, whole_bias.as_ptr());
        activate::<P::Lanes>(inner, ROWS, width::<P>(), block.activation);
        for row in 0..ROWS {
            ptr::copy_nonoverlapping(room.as_ptr().add(row * width::<P>()), y.start.add(row * y.stride), columns);
        }
    }
}

/// Applies an activation to a tile that was just stored, and lies in the nearest cache.
///
/// # Safety
/// `y` must be valid for `rows` rows of `columns` values.
#[inline(always)]
unsafe fn activate<L: Lanes>(y: Target, rows: usize, columns: usize, activation: Activation) {
    if activation != Activation::None {
        for row in 0..rows {
            // SAFETY: the row is one of the tile's.
            unsafe { math::activate::<L>(y.start.add(row * y.stride), columns, activation) }
        }
    }
}
