//! Several threads on one piece of work.

/// Threads that share pieces of work with the caller.
#[derive(Debug, Clone, Default)]
pub struct Pool;

impl Pool {
    pub fn new(_threads: usize) -> Self {
        Self
    }

    /// With so many threads, or as many as the processor runs at once.
    pub fn with(threads: Option<std::num::NonZeroUsize>) -> Self {
        Self::new(threads.map_or(1, std::num::NonZeroUsize::get))
    }

    /// How many threads take part, the caller's included.
    pub fn threads(&self) -> usize {
        1
    }

    /// Calls `task` once with each number below `parts` and returns when all are done. Which thread takes which part is open, so a
    /// part may depend on nothing but its number.
    pub fn run(&self, parts: usize, task: &(dyn Fn(usize) + Sync)) {
        (0..parts).for_each(task);
    }
}
