//! The processor's inner loops.

pub mod pool;
