//! How long a computation takes.

use std::time::Instant;

/// Measures time.
pub(crate) struct Clock(Instant);

impl Clock {
    pub(crate) fn start() -> Self {
        Self(Instant::now())
    }

    /// Since it was started.
    pub(crate) fn seconds(&self) -> f64 {
        self.0.elapsed().as_secs_f64()
    }
}

/// Natively there is no event loop to let in.
pub(crate) struct Pacer;

impl Pacer {
    pub(crate) fn new() -> Self {
        Self
    }

    pub(crate) async fn breathe(&mut self) {}
}
