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
//! assert_eq!(output.dense.row(0).len(), embedder.dimensions());
//! # Ok(())
//! # }
//! ```

#[cfg(target_arch = "wasm32")]
mod bindings;
pub mod bm25;
pub mod embedder;
pub mod encoder;
pub mod error;
pub mod head;
pub mod hub;
pub mod model;
pub mod ops;
pub mod platform;
pub mod sparse;
pub mod text;
pub mod weights;

pub use bm25::Bm25;
pub use embedder::{Embedder, LoadOptions, Output, Token, Usage, Vectors, Watch};
pub use error::{Code, Error, Result};
pub use ops::Device;
pub use sparse::SparseVector;
pub use text::Role;
