//! Model2Vec (<https://github.com/MinishLab/model2vec>): a table of vectors by token, and nothing else.

use crate::{
    error::{Code, Error, Result},
    ops::{Weights, host},
    weights::{Blueprint, Source},
};

/// Rows of a table, some shared by several tokens, each token with a weight.
pub struct StaticTable<W: Weights> {
    pub rows: W::Table,
    pub width: usize,
    count: usize,
    /// The row of each token, for tables with fewer rows than tokens.
    mapping: Option<W::Vector>,
    weights: Option<W::Vector>,
    /// How many tokens there are.
    tokens: usize,
}

/// Builds a [`StaticTable`], whose shapes only the file itself tells.
pub struct StaticPlan;

impl Blueprint for StaticPlan {
    type Model<W: Weights> = StaticTable<W>;

    fn build<S: Source>(&self, source: &mut S) -> Result<StaticTable<S::Weights>> {
        // Model2Vec's own name, then sentence-transformers'.
        let name = if source.has("embeddings") { "embeddings" } else { "embedding.weight" };
        let shape = source.shape(name);
        let &[count, width] = shape.unwrap_or(&[0, 0]) else {
            return Err(Error::new(Code::WrongShape, name, format!("the table has shape {shape:?}")));
        };
        if source.has(name) && (count == 0 || width == 0) {
            return Err(Error::new(Code::WrongShape, name, format!("the table has shape [{count}, {width}]")));
        }
        let rows = source.unscaled_table(name, [count, width])?;
        let mut tokens = count;
        let mut per_token = |name: &str| match source.shape(name) {
            None => Ok(None),
            Some(&[length]) => {
                tokens = length;
                source.vector(&[name.to_owned()], length).map(Some)
            }
            Some(other) => Err(Error::new(Code::WrongShape, name, format!("one value per token, not {other:?}"))),
        };
        let mapping = per_token("mapping")?;
        let weights = per_token("weights")?;
        Ok(StaticTable { rows, width, count, mapping, weights, tokens })
    }
}

impl StaticTable<host::Host> {
    /// Tokens that have a vector: ids below this.
    pub fn tokens(&self) -> usize {
        let lengths = [self.mapping.as_ref(), self.weights.as_ref()].into_iter().flatten().map(Vec::len);
        lengths.chain(self.mapping.is_none().then_some(self.count)).min().unwrap_or(self.tokens)
    }

    /// Checks that every token's row exists.
    pub fn check(&self) -> Result<()> {
        let outside = |&&row: &&f32| row < 0.0 || row >= self.count as f32 || row.fract() != 0.0;
        match self.mapping.iter().flatten().find(outside) {
            None => Ok(()),
            Some(row) => {
                let message = format!("row {row} lies outside the table of {}", self.count);
                Err(Error::new(Code::InvalidWeights, "mapping", message))
            }
        }
    }

    /// The mean of the tokens' weighted vectors, summed in f64; zeros without tokens. The denominator is the count of tokens.
    pub fn mean(&self, ids: &[u32]) -> Vec<f32> {
        let mut sums = vec![0.0f64; self.width];
        let mut row = vec![0.0; self.width];
        for &id in ids {
            let weight = f64::from(self.read(id, &mut row));
            sums.iter_mut().zip(&row).for_each(|(sum, &value)| *sum += weight * f64::from(value));
        }
        let count = ids.len().max(1) as f64;
        sums.into_iter().map(|sum| (sum / count) as f32).collect()
    }

    /// Copies the vector of a token, and gives its weight.
    pub fn read(&self, id: u32, row: &mut [f32]) -> f32 {
        let index = self.mapping.as_ref().map_or(id as usize, |mapping| mapping[id as usize] as usize);
        self.rows.read(index, row);
        self.weights.as_ref().map_or(1.0, |weights| weights[id as usize])
    }
}
