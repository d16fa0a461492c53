//! Weights that stay on the host: embeddings of every executor so far, and models that are nothing but a table.

use super::{Pack, Weights};
use crate::{error::Result, weights::Values};

/// An embedding in host memory.
#[derive(Debug, Clone)]
pub struct Table {
    pub values: Values,
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
        Ok(Table { values, width: inputs })
    }

    fn vector(&self, values: Vec<f32>) -> Result<Vec<f32>> {
        Ok(values)
    }

    fn table(&self, _: usize, width: usize, values: Values) -> Result<Table> {
        Ok(Table { values, width })
    }
}
