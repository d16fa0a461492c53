//! What several tests need.
#![allow(dead_code, reason = "each test program uses its own part")]

use std::{collections::HashMap, path::PathBuf, sync::Arc};

use wick_embed::{
    Embedder, Error, LoadOptions, Output, Role, Vectors,
    platform::native::{Directory, block_on},
};

/// A path in the repository.
pub fn path(relative: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(relative)
}

pub fn read(relative: &str) -> Vec<u8> {
    std::fs::read(path(relative))
        .unwrap_or_else(|error| panic!("{relative}: {error}; `./build.sh setup` brings the data"))
}

pub fn json(relative: &str) -> serde_json::Value {
    serde_json::from_slice(&read(relative)).expect("a JSON file")
}

/// The real all-MiniLM-L6-v2.
pub fn minilm() -> Embedder {
    minilm_with(&LoadOptions::default())
}

pub fn minilm_with(options: &LoadOptions) -> Embedder {
    let directory = Directory::new(path("build/models/all-MiniLM-L6-v2"));
    block_on(Embedder::load(&directory, options, &())).expect("`./build.sh setup` brings the weights")
}

/// The GPU, whose device lives as long as this; without one a test says so and ends, or with `WICK_TEST_GPU=1` fails.
#[cfg(feature = "webgpu")]
#[allow(clippy::print_stdout, reason = "what a test says of itself")]
pub fn gpu() -> Option<wick_embed::ops::gpu::Gpu> {
    match block_on(wick_embed::ops::gpu::Gpu::open()) {
        Ok(gpu) => Some(gpu),
        Err(error) if std::env::var("WICK_TEST_GPU").is_ok_and(|wanted| wanted == "1") => {
            panic!("WICK_TEST_GPU=1 asks for a GPU: {error}")
        }
        Err(error) => {
            println!("skipped: {error}");
            None
        }
    }
}

pub fn encode<T: AsRef<str>>(embedder: &Embedder, texts: &[T]) -> Output {
    block_on(embedder.encode(texts, Role::Plain, &())).expect("valid texts")
}

/// The dense vectors of an output that has them.
pub trait Dense {
    fn vectors(&self) -> &Vectors;
}

impl Dense for Output {
    fn vectors(&self) -> &Vectors {
        self.dense.as_ref().expect("dense vectors")
    }
}

pub type Memory = HashMap<String, Arc<[u8]>>;

/// The files of the tiny random checkpoint, to be broken one at a time.
pub fn tiny() -> Memory {
    let file = |name: &str| (name.to_owned(), read(&format!("tests/fixtures/bert-tiny/{name}")).into());
    ["config.json", "tokenizer.json", "model.safetensors"].map(file).into()
}

pub fn load(files: &Memory) -> Result<Embedder, Error> {
    block_on(Embedder::load(files, &LoadOptions::default(), &()))
}

/// The files of a fixture.
pub fn fixture(name: &str) -> Memory {
    fn add(files: &mut Memory, folder: &std::path::Path, below: &str) {
        for entry in std::fs::read_dir(folder).expect("a fixture") {
            let entry = entry.expect("an entry").path();
            let name = format!("{below}{}", entry.file_name().and_then(|name| name.to_str()).expect("UTF-8"));
            match entry.is_dir() {
                true => add(files, &entry, &format!("{name}/")),
                false => drop(files.insert(name, std::fs::read(&entry).expect("readable").into())),
            }
        }
    }
    let mut files = Memory::new();
    add(&mut files, &path(&format!("tests/fixtures/{name}")), "");
    files
}

pub fn set(files: &mut Memory, file: &str, change: impl FnOnce(&mut serde_json::Value)) {
    let mut value: serde_json::Value = serde_json::from_slice(&files[file]).expect("JSON");
    change(&mut value);
    files.insert(file.to_owned(), value.to_string().into_bytes().into());
}

/// Component-wise largest difference.
pub fn difference(left: &[f32], right: &[f32]) -> f32 {
    assert_eq!(left.len(), right.len());
    left.iter().zip(right).map(|(left, right)| (left - right).abs()).fold(0.0, f32::max)
}

pub fn cosine(left: &[f32], right: &[f32]) -> f64 {
    let dot = |a: &[f32], b: &[f32]| -> f64 { a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum() };
    dot(left, right) / (dot(left, left) * dot(right, right)).sqrt()
}
