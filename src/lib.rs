//! Text embeddings in the browser, and the same vectors on a server.
//!
//! A text travels one way: [`text`] makes strings a packed [`text::Batch`]; [`encoder`] runs the transformer that
//! [`model`] built from a model's files and [`weights`]; [`head`] makes hidden states vectors. Models and heads call nothing but
//! the fused operations of [`ops`], behind which the executors stand. [`Embedder`] is the whole of it.
//!
//! ```no_run
//! use wick_embed::{Embedder, LoadOptions, Role, platform::native::{Directory, block_on}};
//!
//! # fn main() -> wick_embed::Result<()> {
//! let files = Directory::new("all-MiniLM-L6-v2");
//! let embedder = block_on(Embedder::load(&files, &LoadOptions::default(), &()))?;
//! let output = block_on(embedder.encode(&["Born in Maida Vale, London"], Role::Plain, &()))?;
//! let vectors = output.dense.expect("it gives dense vectors");
//! assert_eq!(vectors.row(0).len(), embedder.dimensions());
//! # Ok(())
//! # }
//! ```

mod base64;
#[cfg(feature = "local")]
mod batches;
#[cfg(all(target_arch = "wasm32", any(feature = "local", feature = "remote")))]
mod bindings;
#[cfg(feature = "local")]
pub mod bm25;
pub mod call;
// Both write folders, which only a program on a disk does; `serve`, below, is one too.
#[cfg(feature = "cli")]
pub mod convert;
#[cfg(feature = "cli")]
pub mod distill;
#[cfg(feature = "local")]
pub mod embedder;
#[cfg(feature = "local")]
pub mod encoder;
pub mod error;
#[cfg(feature = "webgpu")]
#[cfg_attr(target_arch = "wasm32", allow(clippy::arc_with_non_send_sync, reason = "natively it is both"))]
pub mod gpu;
#[cfg(feature = "local")]
pub mod head;
pub mod hub;
#[cfg(feature = "local")]
#[allow(unsafe_code, reason = "the one place for instructions and shared memory; each use says why it is sound")]
#[allow(clippy::needless_range_loop, reason = "tiles index several arrays by one count, and shapes are many arguments")]
#[allow(clippy::too_many_arguments, reason = "as above")]
pub mod kernels;
#[cfg(feature = "local")]
pub mod load;
#[cfg(feature = "local")]
pub mod model;
#[cfg(feature = "local")]
#[cfg_attr(target_arch = "wasm32", allow(clippy::arc_with_non_send_sync, reason = "as above"))]
pub mod ops;
pub mod platform;
pub mod provider;
pub mod remote;
#[cfg(feature = "local")]
pub mod rerank;
pub mod score;
#[cfg(feature = "reference")]
mod second_opinion;
#[cfg(feature = "serve")]
pub mod serve;
pub mod sparse;
#[cfg(feature = "local")]
pub mod text;
#[cfg(feature = "local")]
mod transformer;
#[cfg(feature = "local")]
pub mod weights;

pub use call::{
    EncodeOptions, Output, OutputDtype, OutputKind, QuantizedValues, QuantizedVectors, Ranked, Role, RolePrompts,
    Usage, Vectors, Watch,
};
pub use error::{Code, Error, ProviderError, Result};
pub use provider::{Key, Provider, RemoteOptions};
pub use remote::{RemoteEmbedder, RemoteReranker};
pub use sparse::SparseVector;

#[cfg(feature = "local")]
pub use {
    bm25::Bm25,
    embedder::{Embedder, LoadOptions, Token},
    ops::Device,
    rerank::{RerankOptions, Reranker},
    weights::Dtype,
};
