//! The integration tests, as one program: each further one would be linked with all that the crate has, and would compile its
//! generic functions again. `tests/formats.rs` has an allocator of its own.

mod bad_input;
mod bm25;
#[cfg(feature = "cli")]
mod cli;
mod common;
#[cfg(feature = "cli")]
mod convert;
#[cfg(feature = "cli")]
mod distill;
mod families;
#[cfg(feature = "webgpu")]
mod gpu;
mod minilm;
mod oracle;
#[cfg(feature = "remote")]
mod providers;
#[cfg(feature = "remote")]
mod recorded;
#[cfg(all(feature = "serve", unix))]
mod serve;
mod settings;
mod structure;
