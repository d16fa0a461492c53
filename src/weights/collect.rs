//! What the readers' tests share: a sink that keeps every tensor.

use std::collections::BTreeMap;

use super::{Dtype, Reader, Sink, TensorInfo, Values};
use crate::error::Result;

/// Keeps everything but what is named `skip...`.
#[derive(Default)]
pub struct Collect {
    pub infos: Vec<TensorInfo>,
    pub tensors: BTreeMap<String, Vec<f32>>,
}

impl Sink for Collect {
    fn begin(&mut self, tensors: &[TensorInfo]) -> Result<()> {
        self.infos = tensors.to_vec();
        Ok(())
    }

    fn wants(&self, name: &str) -> Option<Dtype> {
        (!name.starts_with("skip")).then_some(Dtype::F32)
    }

    fn tensor(&mut self, name: &str, values: Values) -> Result<()> {
        assert!(self.tensors.insert(name.to_owned(), values.into_f32(1)).is_none(), "{name} came twice");
        Ok(())
    }
}

/// Reads a file of that name in chunks of `size`.
pub fn read(file: &str, bytes: &[u8], size: usize) -> Result<Collect> {
    let mut sink = Collect::default();
    let mut reader = Reader::new(file)?;
    for chunk in bytes.chunks(size) {
        reader.push(chunk, &mut sink)?;
    }
    reader.finish()?;
    Ok(sink)
}
