//! PyTorch's naming below a prefix: a module's `weight` and `bias`.

use crate::{
    encoder::Lookup,
    error::Result,
    ops::{Linear, Norm, NormKind, Weights},
    weights::Source,
};

/// A source whose names all start alike.
pub struct Names<'a, S> {
    pub source: &'a mut S,
    prefix: &'static str,
}

impl<'a, S: Source> Names<'a, S> {
    /// The names below the first prefix under which `probe` exists. Checkpoints saved from a model with a task head have their
    /// encoder below one; without a match there is none, and what is missing is named without it.
    pub fn below(source: &'a mut S, prefixes: &[&'static str], probe: &str) -> Self {
        let prefix = prefixes.iter().copied().find(|prefix| source.has(&format!("{prefix}{probe}")));
        Self { source, prefix: prefix.unwrap_or("") }
    }

    fn all(&self, modules: &[String], field: &str) -> Vec<String> {
        modules.iter().map(|module| format!("{}{module}.{field}", self.prefix)).collect()
    }

    /// Whether a module has a tensor of this name.
    pub fn has(&self, module: &str, field: &str) -> bool {
        self.source.has(&format!("{}{module}.{field}", self.prefix))
    }

    pub fn lookup(&mut self, module: &str, rows: usize, width: usize) -> Result<Lookup<S::Weights>> {
        Ok(Lookup { table: self.source.table(&format!("{}{module}.weight", self.prefix), [rows, width])?, rows })
    }

    pub fn vector(&mut self, module: &str, field: &str, width: usize) -> Result<<S::Weights as Weights>::Vector> {
        self.source.vector(&[format!("{}{module}.{field}", self.prefix)], width)
    }

    /// One linear map from the stacked rows of several, each `[outputs, inputs]`.
    pub fn linear(&mut self, modules: &[String], shape: [usize; 2], bias: bool) -> Result<Linear<S::Weights>> {
        Ok(Linear {
            weight: self.source.matrix(&self.all(modules, "weight"), shape)?,
            bias: bias.then(|| self.source.vector(&self.all(modules, "bias"), shape[0])).transpose()?,
        })
    }

    /// A layer norm with gain and bias.
    pub fn norm(&mut self, module: &str, width: usize, epsilon: f64) -> Result<Norm<S::Weights>> {
        let module = [module.to_owned()];
        // Checkpoints converted from TensorFlow keep its names: gamma and beta.
        let (gain, bias) = match self.source.has(&self.all(&module, "gamma")[0]) {
            true => ("gamma", "beta"),
            false => ("weight", "bias"),
        };
        Ok(Norm {
            kind: NormKind::Layer,
            gain: self.source.vector(&self.all(&module, gain), width)?,
            bias: Some(self.source.vector(&self.all(&module, bias), width)?),
            epsilon,
        })
    }

    /// A norm with a gain alone.
    pub fn gain_norm(&mut self, kind: NormKind, module: &str, width: usize, epsilon: f64) -> Result<Norm<S::Weights>> {
        let gain = self.source.vector(&self.all(&[module.to_owned()], "weight"), width)?;
        Ok(Norm { kind, gain, bias: None, epsilon })
    }
}
