//! The one forward: token ids to hidden states, for every transformer family.
//!
//! An [`Encoder`] is data; a family (`crate::model`) fills it from its own configuration and tensor names. All tokens of a
//! batch go through each linear map together, attention stays within a text.

use crate::{
    error::{Code, Error, Result},
    ops::{Activation, Attention, Half, Linear, Norm, Ops, Relative, Weights},
    text::Batch,
};

/// A transformer encoder.
pub struct Encoder<W: Weights> {
    pub embeddings: Embeddings<W>,
    /// Where every layer has its norms.
    pub order: NormOrder,
    pub layers: Vec<Layer<W>>,
    /// The norm after the last layer, in pre-norm encoders.
    pub final_norm: Option<Norm<W>>,
    /// Added to the attention scores of every layer.
    pub relative: Option<Relative<W>>,
}

/// Where the norms of a layer stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NormOrder {
    /// `x = norm(x + f(x))`.
    Post,
    /// `x = x + f(norm(x))`.
    Pre,
}

/// Word embeddings plus, where a family has them, position and segment embeddings; then a norm.
pub struct Embeddings<W: Weights> {
    pub words: Lookup<W>,
    pub positions: Option<Positions<W>>,
    pub types: Option<Lookup<W>>,
    pub norm: Option<Norm<W>>,
}

/// A table and its rows: an id at or above them is an error.
pub struct Lookup<W: Weights> {
    pub table: W::Table,
    pub rows: usize,
}

/// Learned position embeddings.
pub struct Positions<W: Weights> {
    pub lookup: Lookup<W>,
    /// In RoBERTa's numbering the id of the padding token: it is the position of padding tokens that stand in a text, and all
    /// others count up from the one after it. Without one, positions count from zero.
    pub padding: Option<u32>,
}

/// Attention, then a gated or plain MLP.
pub struct Layer<W: Weights> {
    /// Query, key and value side by side: `[3 heads head_width, width]`.
    pub qkv: Linear<W>,
    pub attention: Attention,
    pub attention_output: Linear<W>,
    /// The first layer of ModernBERT has none: its input is normalised already.
    pub attention_norm: Option<Norm<W>>,
    pub mlp: Mlp<W>,
    pub mlp_norm: Norm<W>,
}

/// `down(activation(up(x)))`, or with a gate `down(a ⊙ activation(b))` where `up` gives `a` and `b` side by side.
pub struct Mlp<W: Weights> {
    pub up: Linear<W>,
    pub activation: Activation,
    /// The half of `up`'s output that the activation is applied to; none for a plain MLP.
    pub gate: Option<Half>,
    pub down: Linear<W>,
}

impl<O: Ops> Encoder<O> {
    /// Hidden states `[tokens, width]` of a batch with at least one token.
    pub fn forward(&self, ops: &O, batch: &Batch) -> Result<O::Tensor> {
        let mut x = self.embeddings.forward(ops, batch)?;
        for layer in &self.layers {
            x = match self.order {
                NormOrder::Post => {
                    let attended = layer.attend(ops, &x, batch, self.relative.as_ref())?;
                    x = match &layer.attention_norm {
                        Some(norm) => ops.add_norm(attended, Some(&x), norm)?,
                        None => ops.add(attended, &x)?,
                    };
                    ops.add_norm(layer.mlp.forward(ops, &x)?, Some(&x), &layer.mlp_norm)?
                }
                NormOrder::Pre => {
                    let attended = match &layer.attention_norm {
                        Some(norm) => layer.attend(ops, &ops.norm(&x, norm)?, batch, self.relative.as_ref())?,
                        None => layer.attend(ops, &x, batch, self.relative.as_ref())?,
                    };
                    x = ops.add(attended, &x)?;
                    ops.add(layer.mlp.forward(ops, &ops.norm(&x, &layer.mlp_norm)?)?, &x)?
                }
            };
        }
        match &self.final_norm {
            Some(norm) => ops.norm(&x, norm),
            None => Ok(x),
        }
    }
}

impl<W: Weights> Embeddings<W> {
    /// Most tokens of a text.
    pub fn reach(&self) -> usize {
        self.positions.as_ref().map_or(usize::MAX, Positions::reach)
    }

    fn forward(&self, ops: &W, batch: &Batch) -> Result<W::Tensor>
    where
        W: Ops,
    {
        within("token", &batch.ids, self.words.rows)?;
        let mut lookups = vec![(&self.words.table, batch.ids.as_slice())];
        let positions;
        if let Some(learned) = &self.positions {
            positions = learned.of(batch);
            within("position", &positions, learned.lookup.rows)?;
            lookups.push((&learned.lookup.table, &positions));
        }
        if let Some(types) = &self.types {
            within("segment", &batch.type_ids, types.rows)?;
            lookups.push((&types.table, &batch.type_ids));
        }
        let summed = ops.gather(&lookups)?;
        match &self.norm {
            Some(norm) => ops.add_norm(summed, None, norm),
            None => Ok(summed),
        }
    }
}

impl<W: Weights> Positions<W> {
    fn reach(&self) -> usize {
        self.lookup.rows - self.padding.map_or(0, |padding| (padding as usize + 1).min(self.lookup.rows))
    }

    fn of(&self, batch: &Batch) -> Vec<u32> {
        let mut positions = Vec::with_capacity(batch.ids.len());
        for span in &batch.spans {
            match self.padding {
                None => positions.extend(0..span.len() as u32),
                Some(padding) => {
                    let mut last = padding;
                    positions.extend(batch.ids[span.clone()].iter().map(|&id| {
                        last += u32::from(id != padding);
                        if id == padding { padding } else { last }
                    }));
                }
            }
        }
        positions
    }
}

impl<O: Ops> Layer<O> {
    fn attend(&self, ops: &O, x: &O::Tensor, batch: &Batch, relative: Option<&Relative<O>>) -> Result<O::Tensor> {
        let qkv = ops.linear(x, &self.qkv, Activation::None)?;
        let context = ops.attention(&qkv, &batch.spans, &self.attention, relative)?;
        ops.linear(&context, &self.attention_output, Activation::None)
    }
}

impl<O: Ops> Mlp<O> {
    fn forward(&self, ops: &O, x: &O::Tensor) -> Result<O::Tensor> {
        let inner = match self.gate {
            Some(half) => ops.gated(x, &self.up, self.activation, half)?,
            None => ops.linear(x, &self.up, self.activation)?,
        };
        ops.linear(&inner, &self.down, Activation::None)
    }
}

/// Executors may read tables unchecked, so ids are checked here once.
fn within(what: &str, ids: &[u32], bound: usize) -> Result<()> {
    match ids.iter().find(|&&id| id as usize >= bound) {
        None => Ok(()),
        Some(id) => Err(Error::new(
            Code::InvalidConfig,
            "encoder",
            format!("{what} {id} lies outside its table of {bound} rows"),
        )),
    }
}
