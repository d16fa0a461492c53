//! Texts of many requests, encoded together: those that arrive while the model is busy make up its next call.
//!
//! A model lives on a thread of its own and is fed through a channel; nothing here knows HTTP. Texts are tokenized in slices between
//! calls, so that a large request holds nobody up for longer than a slice and a call, and one that is refused costs no call. The oldest
//! request has half of each second call, and what is left goes to those with the fewest texts left: work is finished and not
//! spread over requests that all run out of time together. What cannot be done in time at the measured rate is refused at once. Since a
//! text's result does not depend on its neighbours (`embedder.rs`), nobody sees who shared a call.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::{
        Arc, LazyLock,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use super::failure::{Failure, Reason};
use crate::{
    error::{Code, Error, Result},
    text::Encoded,
};

/// A model, as a queue sees it.
pub trait Engine: 'static {
    /// What a request brings.
    type Request: Send + 'static;
    /// What is the same for all texts of a call.
    type Options: PartialEq;
    /// What a text is given.
    type Row: Send + 'static;
    /// What is told of the model once it is loaded.
    type About: Send;

    fn about(&self) -> Self::About;

    /// What a text costs before it is known, in any unit: its bytes as a rule.
    fn cost(request: &Self::Request, index: usize) -> usize;

    /// Checks a request, before its texts are tokenized.
    fn options(&self, request: &Self::Request) -> Result<Self::Options, Failure>;

    /// One of a request's texts, ready to be computed.
    fn prepare(&self, request: &mut Self::Request, index: usize) -> Result<Encoded, Failure>;

    /// A row for each text, in their order.
    fn run(&self, texts: &[Encoded], options: &Self::Options) -> Result<Vec<Self::Row>, Failure>;

    /// The time, since any beginning.
    fn now(&self) -> Duration {
        static START: LazyLock<Instant> = LazyLock::new(Instant::now);
        START.elapsed()
    }
}

/// What is tokenized between two calls, as [`Engine::cost`] counts it, or one text.
const SLICE: usize = 64 << 10;

/// The part of its time that a request may be expected to wait when it is let in.
const EXPECTED: f64 = 0.8;

/// The answer to a request.
#[derive(Debug)]
pub struct Answer<R> {
    /// One for each text, in order.
    pub rows: Vec<R>,
    /// Tokens that went through the model.
    pub tokens: usize,
}

/// What a queue has done so far.
#[derive(Debug, Default)]
pub struct Counts {
    pub requests: AtomicUsize,
    pub texts: AtomicUsize,
    pub calls: AtomicUsize,
}

/// The way to a model. Dropped, the model's thread ends when it has answered what is waiting.
pub struct Queue<E: Engine> {
    sender: mpsc::Sender<Job<E>>,
    /// Texts that may still be let in.
    room: Arc<Semaphore>,
    pub about: E::About,
    pub counts: Arc<Counts>,
    alive: Arc<AtomicBool>,
    load: Arc<Load>,
    /// How long a request waits.
    patience: Duration,
}

/// How much is waiting, and how fast it is done; both as [`Engine::cost`] counts.
#[derive(Default)]
struct Load {
    waiting: AtomicUsize,
    /// In a second; zero until it is known.
    rate: AtomicUsize,
}

/// What a request adds to what is waiting, for as long as somebody waits for it.
struct Waiting<'a> {
    cost: usize,
    load: &'a Load,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.load.waiting.fetch_sub(self.cost, Relaxed);
    }
}

struct Job<E: Engine> {
    request: E::Request,
    count: usize,
    cost: usize,
    /// Closed when nobody waits any more.
    reply: Reply<E>,
    place: OwnedSemaphorePermit,
}

type Reply<E> = oneshot::Sender<Result<Answer<<E as Engine>::Row>, Failure>>;

impl<E: Engine> Queue<E> {
    /// Loads a model on a thread of its own and waits until that is done. At most `most` texts wait, and no more than can be done in `patience`;
    /// a call has `budget` tokens, or one text.
    pub fn start(
        load: impl FnOnce() -> Result<E> + Send + 'static,
        most: usize,
        budget: usize,
        patience: Duration,
    ) -> Result<Self> {
        let (sender, inbox) = mpsc::channel();
        let (loaded, about) = mpsc::channel();
        let counts = Arc::new(Counts::default());
        let alive = Arc::new(AtomicBool::new(true));
        let shared = Arc::new(Load::default());
        let work = {
            let (counts, alive, shared) = (counts.clone(), Alive(alive.clone()), shared.clone());
            move || match load() {
                Err(error) => drop(loaded.send(Err(error))),
                Ok(engine) => {
                    if loaded.send(Ok(engine.about())).is_ok() {
                        let open = BTreeMap::new();
                        let worker = Worker { engine, budget, open, arrived: 0, turn: 0, counts, alive, load: shared };
                        worker.work(&inbox);
                    }
                }
            }
        };
        let failed = |error: std::io::Error| Error::new(Code::Executor, "model", error.to_string());
        thread::Builder::new().name("model".to_owned()).spawn(work).map_err(failed)?;
        let gone = || Error::new(Code::Crashed, "model", "its thread ended while it was loaded");
        let about = about.recv().map_err(|_| gone())??;
        Ok(Self { sender, room: Arc::new(Semaphore::new(most)), about, counts, alive, load: shared, patience })
    }

    /// Computes a request of so many texts. Dropped before it is done, what is left of it is not computed.
    pub async fn submit(&self, request: E::Request, texts: usize) -> Result<Answer<E::Row>, Failure> {
        let wanted = u32::try_from(texts).unwrap_or(u32::MAX);
        let Ok(place) = self.room.clone().try_acquire_many_owned(wanted) else {
            return Err(Failure::new(Reason::Busy, "too many texts are waiting; try again later"));
        };
        let cost = (0..texts).map(|index| E::cost(&request, index)).sum();
        let waiting = self.load.waiting.fetch_add(cost, Relaxed);
        let _waiting = Waiting { cost, load: &self.load };
        let (rate, wanted) = (self.load.rate.load(Relaxed) as f64, (waiting + cost) as f64);
        // Alone it is tried, however large.
        if waiting > 0 && rate > 0.0 && wanted > rate * self.patience.as_secs_f64() * EXPECTED {
            return Err(Failure::new(Reason::Busy, "more is waiting than can be done in time; try again later"));
        }
        let (reply, answer) = oneshot::channel();
        self.sender.send(Job { request, count: texts, cost, reply, place }).map_err(|_| Failure::crashed())?;
        answer.await.unwrap_or_else(|_| Err(Failure::crashed()))
    }

    /// Whether the model can still compute.
    pub fn is_alive(&self) -> bool {
        self.alive.load(Relaxed)
    }
}

/// False once the thread has ended, by a panic too.
struct Alive(Arc<AtomicBool>);

impl Drop for Alive {
    fn drop(&mut self) {
        self.0.store(false, Relaxed);
    }
}

/// A request that has begun.
struct Open<E: Engine> {
    request: E::Request,
    options: E::Options,
    /// Those that are tokenized and that no call has taken yet.
    texts: VecDeque<Encoded>,
    /// How many are tokenized.
    prepared: usize,
    rows: Vec<E::Row>,
    count: usize,
    cost: usize,
    tokens: usize,
    reply: Reply<E>,
    /// Held until the request is done or dropped.
    place: OwnedSemaphorePermit,
}

impl<E: Engine> Open<E> {
    /// Whether calls may take its texts: all are tokenized, so that it is not refused any more.
    fn is_ready(&self) -> bool {
        self.prepared == self.count && !self.texts.is_empty()
    }
}

struct Worker<E: Engine> {
    engine: E,
    budget: usize,
    /// By their number, so the oldest first.
    open: BTreeMap<u64, Open<E>>,
    arrived: u64,
    /// Whose turn it is: the oldest request's, or the smallest one's.
    turn: usize,
    counts: Arc<Counts>,
    alive: Alive,
    load: Arc<Load>,
}

impl<E: Engine> Worker<E> {
    fn work(mut self, inbox: &mpsc::Receiver<Job<E>>) {
        loop {
            if self.open.is_empty() {
                match inbox.recv() {
                    Ok(job) => self.admit(job),
                    Err(_) => return,
                }
            }
            // At most as many as were let in, and nothing is computed for them yet.
            while let Ok(job) = inbox.try_recv() {
                self.admit(job);
            }
            self.forget_the_lost();
            self.turn += 1;
            let (before, done) = (self.engine.now(), self.counts.texts.load(Relaxed));
            self.prepare();
            let cost = self.call();
            if self.counts.texts.load(Relaxed) > done && cost > 0 {
                self.measured(cost, self.engine.now().saturating_sub(before));
            }
        }
    }

    fn admit(&mut self, Job { request, count, cost, reply, place }: Job<E>) {
        if reply.is_closed() {
            return;
        }
        let options = match self.engine.options(&request) {
            Ok(options) => options,
            Err(failure) => {
                drop(place);
                let _ = reply.send(Err(failure));
                return;
            }
        };
        let (texts, rows) = (VecDeque::with_capacity(count), Vec::with_capacity(count));
        let open = Open { request, options, texts, prepared: 0, rows, count, cost, tokens: 0, reply, place };
        self.open.insert(self.arrived, open);
        self.arrived += 1;
    }

    /// Tokenizes a slice: of the oldest request, or of the one with the fewest texts left.
    fn prepare(&mut self) {
        let mut left = SLICE;
        while left > 0 {
            let mut unready = self.open.iter().filter(|(_, open)| open.prepared < open.count);
            let next = match self.turn % 2 {
                0 => unready.next(),
                _ => unready.min_by_key(|(id, open)| (open.count - open.prepared, **id)),
            };
            let Some(id) = next.map(|(&id, _)| id) else { return };
            let Some(open) = self.open.get_mut(&id) else { return };
            left = left.saturating_sub(E::cost(&open.request, open.prepared).max(1));
            match self.engine.prepare(&mut open.request, open.prepared) {
                Ok(text) => {
                    open.tokens += text.ids.len();
                    open.texts.push_back(text);
                    open.prepared += 1;
                    if open.prepared == open.count {
                        self.counts.requests.fetch_add(1, Relaxed);
                    }
                }
                Err(failure) => self.finish(id, Err(failure)),
            }
        }
    }

    /// Takes what was done in which time into the rate.
    fn measured(&self, cost: usize, time: Duration) {
        let now = cost as f64 / time.as_secs_f64().max(1e-6);
        let before = self.load.rate.load(Relaxed) as f64;
        let rate = if before > 0.0 { 0.9 * before + 0.1 * now } else { now };
        self.load.rate.store((rate as usize).max(1), Relaxed);
    }

    /// Drops requests whose clients hung up.
    fn forget_the_lost(&mut self) {
        self.open.retain(|_, open| !open.reply.is_closed());
    }

    /// Makes up a call and computes it. Says what its texts cost, if they fill at least half of it: less does not show what the model can do.
    fn call(&mut self) -> usize {
        let (ids, texts) = self.next_texts();
        let cost = |id: &u64| self.open.get(id).map_or(0, |open| open.cost / open.count.max(1));
        let cost = ids.iter().map(cost).sum();
        let is_full = texts.iter().map(|text| text.ids.len()).sum::<usize>() >= self.budget / 2;
        if let Err(failure) = self.compute(&ids, &texts) {
            let requests: BTreeSet<u64> = ids.iter().copied().collect();
            for &request in &requests {
                let result = match requests.len() {
                    1 => Err(failure.clone()),
                    // One text may be to blame: each request by itself, so that the others have their rows.
                    _ => {
                        let own: Vec<Encoded> = ids
                            .iter()
                            .zip(&texts)
                            .filter(|(id, _)| **id == request)
                            .map(|(_, text)| text.clone())
                            .collect();
                        self.compute(&vec![request; own.len()], &own)
                    }
                };
                if result.is_err() {
                    self.finish(request, result);
                }
            }
        }
        let done: Vec<u64> =
            self.open.iter().filter(|(_, open)| open.rows.len() == open.count).map(|(id, _)| *id).collect();
        for id in done {
            self.finish(id, Ok(()));
        }
        if is_full { cost } else { 0 }
    }

    /// The texts of the next call, each with its request, of those that want the same as the first: in each second call up to
    /// half are the oldest one's; then come those with the fewest texts left.
    fn next_texts(&mut self) -> (Vec<u64>, Vec<Encoded>) {
        let (mut ids, mut texts, mut tokens) = (Vec::new(), Vec::new(), 0);
        let ready = self.open.iter().filter(|(_, open)| open.is_ready());
        let mut order: Vec<(usize, u64)> = ready.map(|(&id, open)| (open.texts.len(), id)).collect();
        let oldest = order.first().map(|&(_, id)| id);
        order.sort_unstable();
        let lead = if self.turn.is_multiple_of(2) { oldest } else { order.first().map(|&(_, id)| id) };
        let Some(lead) = lead else { return (ids, texts) };
        let half = if oldest == Some(lead) { self.budget / 2 } else { 0 };
        let turns = [(lead, half)].into_iter().chain(order.iter().map(|&(_, id)| (id, self.budget)));
        for (id, most) in turns {
            let wants = |id: u64| self.open.get(&id).map(|open| &open.options);
            if wants(id) != wants(lead) {
                continue;
            }
            while let Some(text) = self.open.get(&id).and_then(|open| open.texts.front()) {
                // A text without tokens costs something, too.
                let more = text.ids.len().max(1);
                if tokens + more > most && !(texts.is_empty() && id == lead) {
                    break;
                }
                tokens += more;
                ids.push(id);
                texts.extend(self.open.get_mut(&id).and_then(|open| open.texts.pop_front()));
            }
        }
        (ids, texts)
    }

    fn compute(&mut self, ids: &[u64], texts: &[Encoded]) -> Result<(), Failure> {
        let Some(first) = ids.first().and_then(|id| self.open.get(id)) else { return Ok(()) };
        self.counts.calls.fetch_add(1, Relaxed);
        let rows = self.engine.run(texts, &first.options);
        if let Err(Failure { reason: Reason::Model(Code::DeviceLost), .. }) = rows {
            self.alive.0.store(false, Relaxed);
        }
        for (id, row) in ids.iter().zip(rows?) {
            if let Some(open) = self.open.get_mut(id) {
                open.rows.push(row);
            }
        }
        self.counts.texts.fetch_add(texts.len(), Relaxed);
        Ok(())
    }

    fn finish(&mut self, id: u64, result: Result<(), Failure>) {
        if let Some(Open { rows, tokens, reply, place, .. }) = self.open.remove(&id) {
            // First, so that who has an answer finds the room that it took.
            drop(place);
            // Whoever hung up meanwhile is not told.
            let _ = reply.send(result.map(|()| Answer { rows, tokens }));
        }
    }
}

#[cfg(test)]
mod tests;
