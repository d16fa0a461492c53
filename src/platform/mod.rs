//! What the surroundings give: files as streams of bytes, requests, time, a breath between batches, and a memory for what was measured.
//!
//! [`Files`] and [`Http`] are the contracts; [`native`] reads folders, `web` reads addresses, blobs and byte arrays in a page, a
//! worker or Node. Everything above works the same on each.

mod http;
#[cfg(not(target_arch = "wasm32"))]
pub mod native;
#[cfg(target_arch = "wasm32")]
pub mod web;
#[cfg(feature = "local")]
mod whole;

pub use http::{Http, HttpRequest, HttpResponse};
#[cfg(not(target_arch = "wasm32"))]
use native as surroundings;
#[cfg(target_arch = "wasm32")]
use web as surroundings;

pub use surroundings::KeyFunction;
#[cfg(feature = "local")]
pub(crate) use surroundings::{Clock, Pacer};
pub(crate) use surroundings::{now, random, sleep};
#[cfg(feature = "webgpu")]
pub(crate) use surroundings::{remember, remembered, side_by_side};
#[cfg(feature = "local")]
pub(crate) use whole::whole;

use std::collections::HashMap;

use crate::error::Result;

/// [`Sync`] natively, and everything in a page, whose one thread shares nothing.
#[cfg(not(target_arch = "wasm32"))]
pub trait Shared: Sync {}
#[cfg(not(target_arch = "wasm32"))]
impl<T: Sync + ?Sized> Shared for T {}
#[cfg(target_arch = "wasm32")]
pub trait Shared {}
#[cfg(target_arch = "wasm32")]
impl<T: ?Sized> Shared for T {}

/// How many bytes a body gives at a time, at most: they are memory beside the weights.
const CHUNK: usize = 1 << 18;

/// A model's files by name, wherever they lie.
pub trait Files {
    /// An opened file.
    type Body: Body;

    /// The name of the model, where the source knows one: some prompts are known by it alone.
    fn name(&self) -> Option<String> {
        None
    }

    /// Opens a file of which only the head will be read.
    fn peek(&self, file: &str) -> impl Future<Output = Result<Option<Self::Body>>> {
        self.open(file)
    }

    /// Opens a file such as `1_Pooling/config.json`; `None` when there is no such file.
    fn open(&self, file: &str) -> impl Future<Output = Result<Option<Self::Body>>>;
}

/// The bytes of one file, in order.
pub trait Body {
    /// How many bytes there are, when that is known.
    fn length(&self) -> Option<u64>;

    /// The next bytes; `None` at the end.
    fn chunk(&mut self) -> impl Future<Output = Result<Option<&[u8]>>>;
}

/// Files that are in memory already.
impl<S: std::hash::BuildHasher> Files for HashMap<String, std::sync::Arc<[u8]>, S> {
    type Body = Bytes;

    async fn open(&self, file: &str) -> Result<Option<Bytes>> {
        Ok(self.get(file).map(|bytes| Bytes { bytes: bytes.clone(), read: 0 }))
    }
}

/// A body in memory.
#[derive(Debug, Clone)]
pub struct Bytes {
    bytes: std::sync::Arc<[u8]>,
    read: usize,
}

impl Body for Bytes {
    fn length(&self) -> Option<u64> {
        Some(self.bytes.len() as u64)
    }

    async fn chunk(&mut self) -> Result<Option<&[u8]>> {
        let start = self.read;
        self.read = (start + CHUNK).min(self.bytes.len());
        Ok((start < self.read).then(|| &self.bytes[start..self.read]))
    }
}
