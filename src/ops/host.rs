//! Weights that stay on the host: embeddings of every executor so far, and models that are nothing but a table.

use std::sync::Arc;

use super::{Pack, Weights};
use crate::{
    error::{Code, Error, Result},
    weights::Values,
};

/// An embedding in host memory.
#[derive(Debug, Clone)]
pub struct Table {
    /// Shared, where two executors read it.
    pub values: Arc<Values>,
    pub width: usize,
}

impl Table {
    /// Rows of the table.
    pub fn rows(&self) -> usize {
        self.values.len() / self.width.max(1)
    }

    /// Copies a row.
    pub fn read(&self, row: usize, out: &mut [f32]) {
        self.values.read_row(row, out);
    }
}

/// Rows and width of what [`gather`] gives.
pub fn gathered(lookups: &[(&Table, &[u32])]) -> Result<(usize, usize)> {
    match lookups.first() {
        Some((table, ids)) => Ok((ids.len(), table.width)),
        None => Err(Error::new(Code::Executor, "gather", "no table to look up")),
    }
}

/// Puts the sum over all lookups of the tables' rows into `sums`; `row` is room for one.
pub fn gather(lookups: &[(&Table, &[u32])], row: &mut [f32], sums: &mut [f32]) {
    let Some(((first, ids), rest)) = lookups.split_first() else { return };
    for (index, sum) in sums.chunks_exact_mut(first.width.max(1)).enumerate() {
        first.read(ids[index] as usize, sum);
        for (table, ids) in rest {
            table.read(ids[index] as usize, row);
            sum.iter_mut().zip(&*row).for_each(|(sum, value)| *sum += value);
        }
    }
}

/// Keeps weights as they are.
#[derive(Debug, Clone, Copy, Default)]
pub struct Host;

impl Weights for Host {
    type Matrix = Table;
    type Vector = Vec<f32>;
    type Table = Table;
}

impl Pack for Host {
    fn matrix(&self, _: usize, inputs: usize, values: Values) -> Result<Table> {
        Ok(Table { values: Arc::new(values), width: inputs })
    }

    fn vector(&self, values: Vec<f32>) -> Result<Vec<f32>> {
        Ok(values)
    }

    fn table(&self, _: usize, width: usize, values: Values) -> Result<Table> {
        Ok(Table { values: Arc::new(values), width })
    }
}
