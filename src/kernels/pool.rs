//! Several threads on one piece of work.
//!
//! A process has one crew of helpers for all pools. Who finds it busy works alone, so that two models, or two callers of one, do not
//! crowd the processor; so does who calls from within a part. Natively helpers are started when a pool first wants them, and
//! sleep until the process ends. In a page they are workers that JavaScript starts (`pkg/src/helpers.ts`), on shared memory.

#[cfg(test)]
mod tests;

use std::{
    any::Any,
    hint,
    num::NonZeroUsize,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    ptr,
    sync::{
        Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicPtr, AtomicU32, AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

/// Most threads of a pool.
const MOST: usize = 256;

/// Most threads of a pool that was asked for no number: where there are more, most calls have too little work for them.
const MOST_UNASKED: usize = 16;

/// How often a thread looks for what it waits for before it sleeps: some 20 µs, longer than what lies between two products.
const LOOKS: usize = if cfg!(target_arch = "wasm32") { 20_000 } else { 1_000 };

/// How long a caller that waits for its helpers sleeps before it looks whether they still live.
const GLANCE: Duration = Duration::from_millis(20);

/// Threads that share pieces of work with the caller.
#[derive(Debug, Clone)]
pub struct Pool {
    threads: usize,
}

impl Default for Pool {
    /// The caller alone.
    fn default() -> Self {
        Self { threads: 1 }
    }
}

impl Pool {
    /// With so many threads, the caller's included; at least one, and fewer where no more can be started.
    pub fn new(threads: usize) -> Self {
        let helpers = threads.clamp(1, MOST) - 1;
        Self { threads: 1 + hire(helpers) }
    }

    /// With so many threads, or as many as the system says run at once, at most 16. In a page, where the system says nothing, one.
    pub fn with(threads: Option<NonZeroUsize>) -> Self {
        let unasked = || thread::available_parallelism().map_or(1, |threads| threads.get().min(MOST_UNASKED));
        Self::new(threads.map_or_else(unasked, NonZeroUsize::get))
    }

    /// How many threads take part, the caller's included.
    pub fn threads(&self) -> usize {
        self.threads
    }

    /// Calls `task` once with each number below `parts` and returns when all are done. Which thread takes which part is open, so a
    /// part may depend on nothing but its number. If one panics, so does the call, perhaps before parts that nobody had begun.
    pub fn run(&self, parts: usize, task: &(dyn Fn(usize) + Sync)) {
        let helpers = self.threads.min(parts).saturating_sub(1);
        let Some(turn) = (helpers > 0).then(Turn::take).flatten() else {
            return (0..parts).for_each(task);
        };
        let job = Job { task, parts, next: AtomicUsize::new(0), panic: Mutex::new(None) };
        turn.work(&job, helpers);
        drop(turn);
        if let Some(panic) = job.panic.into_inner().unwrap_or_else(PoisonError::into_inner) {
            resume_unwind(panic);
        }
    }
}

/// What is to be done. It lives on the stack of the caller, who waits until no helper is at it.
struct Job<'a> {
    task: &'a (dyn Fn(usize) + Sync),
    parts: usize,
    /// The first part that nobody has begun.
    next: AtomicUsize,
    /// What the first panic carried.
    panic: Mutex<Option<Box<dyn Any + Send>>>,
}

impl Job<'_> {
    /// Does parts until none is left to begin. Does not panic.
    fn work(&self) {
        loop {
            let part = self.next.fetch_add(1, Ordering::Relaxed);
            if part >= self.parts {
                return;
            }
            if let Err(panic) = catch_unwind(AssertUnwindSafe(|| (self.task)(part))) {
                self.next.store(self.parts, Ordering::Relaxed);
                lock(&self.panic).get_or_insert(panic);
            }
        }
    }
}

/// The helpers of this process, and the job they are at.
struct Crew {
    /// Whether some caller has it.
    taken: AtomicBool,
    job: AtomicPtr<Job<'static>>,
    /// How many helpers are at the job, and above them, in units of [`SEAT`], how many more it still takes. A job is let go of only
    /// at zero.
    gate: AtomicU32,
    /// Where helpers wait for a job.
    opened: Bell,
    /// Where the caller waits for its helpers.
    left: Bell,
}

const SEAT: u32 = 1 << 16;

static CREW: Crew = Crew {
    taken: AtomicBool::new(false),
    job: AtomicPtr::new(ptr::null_mut()),
    gate: AtomicU32::new(0),
    opened: Bell::new(),
    left: Bell::new(),
};

/// A helper's life.
pub fn help() -> ! {
    loop {
        CREW.opened.wait(None, || CREW.gate.load(Ordering::SeqCst) >= SEAT);
        let sit = |gate: u32| (gate >= SEAT).then(|| gate - SEAT + 1);
        if CREW.gate.fetch_update(Ordering::SeqCst, Ordering::SeqCst, sit).is_err() {
            continue;
        }
        // SAFETY: this thread is counted by the gate, and as long as it is the caller keeps the job.
        unsafe { &*CREW.job.load(Ordering::Relaxed) }.work();
        close();
        if CREW.gate.fetch_sub(1, Ordering::SeqCst) == 1 {
            CREW.left.ring(1);
        }
    }
}

/// No part is left to begin, so nobody else need come.
fn close() {
    CREW.gate.fetch_and(SEAT - 1, Ordering::SeqCst);
}

/// A caller's time with the crew.
struct Turn;

impl Turn {
    fn take() -> Option<Self> {
        // Made only if it is given: one that is dropped ends a turn.
        (!CREW.taken.swap(true, Ordering::Acquire)).then(|| Self)
    }

    fn work(&self, job: &Job, helpers: usize) {
        CREW.job.store(ptr::from_ref(job).cast_mut().cast(), Ordering::Relaxed);
        // At most `MOST`, which the gate can count.
        CREW.gate.store(helpers as u32 * SEAT, Ordering::SeqCst);
        CREW.opened.ring(helpers);
        job.work();
        close();
        CREW.left.wait(Some(GLANCE), || {
            lives();
            CREW.gate.load(Ordering::SeqCst) == 0
        });
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        CREW.taken.store(false, Ordering::Release);
    }
}

/// Where threads wait for a condition.
struct Bell {
    sleepers: AtomicUsize,
    lock: Mutex<()>,
    bell: Condvar,
}

impl Bell {
    const fn new() -> Self {
        Self { sleepers: AtomicUsize::new(0), lock: Mutex::new(()), bell: Condvar::new() }
    }

    /// Waits until the condition holds, awake for a while and then asleep. After each `glance` it is looked at unasked.
    fn wait(&self, glance: Option<Duration>, holds: impl Fn() -> bool) {
        for _ in 0..LOOKS {
            if holds() {
                return;
            }
            hint::spin_loop();
        }
        let mut guard = lock(&self.lock);
        // Counted before the last look: either it sees the condition, or who made it hold sees the sleeper.
        self.sleepers.fetch_add(1, Ordering::SeqCst);
        while !holds() {
            guard = match glance {
                None => self.bell.wait(guard).unwrap_or_else(PoisonError::into_inner),
                Some(glance) => self.bell.wait_timeout(guard, glance).unwrap_or_else(PoisonError::into_inner).0,
            };
        }
        self.sleepers.fetch_sub(1, Ordering::SeqCst);
    }

    /// Tells so many sleepers that the condition holds.
    fn ring(&self, most: usize) {
        let sleepers = self.sleepers.load(Ordering::SeqCst).min(most);
        if sleepers == 0 {
            return;
        }
        // Who has looked but does not sleep yet holds the lock.
        drop(lock(&self.lock));
        (0..sleepers).for_each(|_| self.bell.notify_one());
    }
}

/// What these locks guard is whole at every moment.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Sees to it that there are so many helpers, and gives how many there are of them.
#[cfg(not(target_arch = "wasm32"))]
fn hire(wanted: usize) -> usize {
    static HIRED: Mutex<usize> = Mutex::new(0);
    let mut hired = lock(&HIRED);
    while *hired < wanted && thread::Builder::new().name("wick".into()).spawn(|| help()).is_ok() {
        *hired += 1;
    }
    wanted.min(*hired)
}

/// JavaScript has started them.
#[cfg(all(target_arch = "wasm32", target_feature = "atomics"))]
fn hire(wanted: usize) -> usize {
    wanted
}

/// A module without shared memory has one thread.
#[cfg(all(target_arch = "wasm32", not(target_feature = "atomics")))]
fn hire(_wanted: usize) -> usize {
    0
}

/// Not zero once a helper trapped: it left its job without a word. Its worker's JavaScript writes here.
#[cfg(target_arch = "wasm32")]
pub static LOST: AtomicU32 = AtomicU32::new(0);

/// Panics if a helper was lost, whom the caller would wait for in vain.
#[cfg(target_arch = "wasm32")]
fn lives() {
    assert!(LOST.load(Ordering::Relaxed) == 0, "a thread was lost");
}

/// A panic in a helper is the caller's; nothing else ends one.
#[cfg(not(target_arch = "wasm32"))]
fn lives() {}
