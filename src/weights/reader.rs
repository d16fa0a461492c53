//! A weights file of any format, by its name.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::{Sink, gguf, pickle, safetensors};
use crate::error::{Code, Error, Result};

/// A parser to push a file's bytes into.
pub enum Reader {
    Safetensors(safetensors::Reader),
    Pickle(pickle::Reader),
    Gguf(gguf::Reader),
}

impl Reader {
    /// The parser for a file, chosen by the end of its name.
    pub fn new(file: &str) -> Result<Self> {
        match file.rsplit('.').next().unwrap_or_default() {
            "safetensors" => Ok(Reader::Safetensors(safetensors::Reader::new(file))),
            "bin" | "pt" | "pth" => Ok(Reader::Pickle(pickle::Reader::new(file))),
            "gguf" => Ok(Reader::Gguf(gguf::Reader::new(file))),
            _ => {
                let message = "a weights file ends in .safetensors, .bin, .pt, .pth or .gguf";
                Err(Error::new(Code::InvalidOption, file, message))
            }
        }
    }

    /// Takes the next bytes of the file and gives each tensor that is complete to `sink`.
    pub fn push(&mut self, chunk: &[u8], sink: &mut dyn Sink) -> Result<()> {
        match self {
            Reader::Safetensors(reader) => reader.push(chunk, sink),
            Reader::Pickle(reader) => reader.push(chunk, sink),
            Reader::Gguf(reader) => reader.push(chunk, sink),
        }
    }

    /// Checks that the file was whole.
    pub fn finish(self) -> Result<()> {
        match self {
            Reader::Safetensors(reader) => reader.finish(),
            Reader::Pickle(reader) => reader.finish(),
            Reader::Gguf(reader) => reader.finish(),
        }
    }
}

/// The files of a sharded checkpoint, each with the names of its tensors, from `model.safetensors.index.json` or
/// `pytorch_model.bin.index.json`.
pub fn shards(file: &str, json: &[u8]) -> Result<BTreeMap<String, Vec<String>>> {
    #[derive(Deserialize)]
    struct Index {
        weight_map: BTreeMap<String, String>,
    }
    let index: Index =
        serde_json::from_slice(json).map_err(|error| Error::new(Code::InvalidJson, file, error.to_string()))?;
    let mut shards = BTreeMap::<String, Vec<String>>::new();
    for (name, shard) in index.weight_map {
        shards.entry(shard).or_default().push(name);
    }
    match shards.is_empty() {
        true => Err(Error::new(Code::InvalidConfig, file, "weight_map names no tensor")),
        false => Ok(shards),
    }
}
