//! Several threads on one piece of work.

/// Threads that share pieces of work with the caller.
#[derive(Debug, Clone, Default)]
pub struct Pool;

impl Pool {
    pub fn new(_threads: usize) -> Self {
        Self
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
