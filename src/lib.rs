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

mod batches;
#[cfg(all(target_arch = "wasm32", any(feature = "local", feature = "remote")))]
mod bindings;
pub mod bm25;
// Both write folders, which only a program on a disk does; `serve`, below, is one too.
#[cfg(feature = "cli")]
pub mod convert;
#[cfg(feature = "cli")]
pub mod distill;
pub mod embedder;
pub mod encoder;
pub mod error;
#[cfg(feature = "webgpu")]
#[cfg_attr(target_arch = "wasm32", allow(clippy::arc_with_non_send_sync, reason = "natively it is both"))]
pub mod gpu;
pub mod head;
pub mod hub;
#[allow(unsafe_code, reason = "the one place for instructions and shared memory; each use says why it is sound")]
#[allow(clippy::needless_range_loop, reason = "tiles index several arrays by one count, and shapes are many arguments")]
#[allow(clippy::too_many_arguments, reason = "as above")]
pub mod kernels;
pub mod load;
pub mod model;
#[cfg_attr(target_arch = "wasm32", allow(clippy::arc_with_non_send_sync, reason = "as above"))]
pub mod ops;
pub mod platform;
pub mod provider;
pub mod remote;
pub mod rerank;
pub mod score;
#[cfg(feature = "cli")]
pub mod serve;
pub mod sparse;
pub mod text;
mod transformer;
pub mod weights;

pub use bm25::Bm25;
pub use embedder::{Embedder, EncodeOptions, LoadOptions, Output, Token, Usage};
pub use error::{Code, Error, ProviderError, Result};
pub use head::{OutputDtype, OutputKind, QuantizedValues, QuantizedVectors, Vectors};
pub use load::Watch;
pub use ops::Device;
pub use provider::{Key, Provider, RemoteOptions};
pub use remote::{RemoteEmbedder, RemoteReranker};
pub use rerank::{Ranked, RerankOptions, Reranker};
pub use sparse::SparseVector;
pub use text::{Role, RolePrompts};
pub use weights::Dtype;
