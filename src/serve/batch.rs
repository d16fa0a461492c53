//! Texts of many requests, encoded together: those that arrive while the model is busy make up its next call.
//!
//! A model lives on a thread of its own and is fed through a channel; nothing here knows HTTP. A call takes one text of each waiting
//! request in turn until it holds as many tokens as the embedder computes at once, so that a request of two thousand texts does not keep one
//! of a single text waiting for longer than a call. Since a text's result does not depend on its neighbours (`embedder.rs`), nobody sees who
//! shared a call.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
        mpsc,
    },
    thread,
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

    /// The texts of a request, ready to be computed.
    fn prepare(&self, request: Self::Request) -> Result<(Vec<Encoded>, Self::Options), Failure>;

    /// A row for each text, in their order.
    fn run(&self, texts: &[Encoded], options: &Self::Options) -> Result<Vec<Self::Row>, Failure>;
}

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
}

struct Job<E: Engine> {
    request: E::Request,
    /// Closed when nobody waits any more.
    reply: Reply<E>,
    place: OwnedSemaphorePermit,
}

type Reply<E> = oneshot::Sender<Result<Answer<<E as Engine>::Row>, Failure>>;

impl<E: Engine> Queue<E> {
    /// Loads a model on a thread of its own and waits until that is done. At most `most` texts wait; a call has `budget` tokens, or one text.
    pub fn start(load: impl FnOnce() -> Result<E> + Send + 'static, most: usize, budget: usize) -> Result<Self> {
        let (sender, inbox) = mpsc::channel();
        let (loaded, about) = mpsc::channel();
        let counts = Arc::new(Counts::default());
        let alive = Arc::new(AtomicBool::new(true));
        let work = {
            let (counts, alive) = (counts.clone(), Alive(alive.clone()));
            move || match load() {
                Err(error) => drop(loaded.send(Err(error))),
                Ok(engine) => {
                    if loaded.send(Ok(engine.about())).is_ok() {
                        let (open, turns) = (BTreeMap::new(), VecDeque::new());
                        Worker { engine, budget, open, turns, arrived: 0, counts, alive }.work(&inbox);
                    }
                }
            }
        };
        let failed = |error: std::io::Error| Error::new(Code::Executor, "model", error.to_string());
        thread::Builder::new().name("model".to_owned()).spawn(work).map_err(failed)?;
        let gone = || Error::new(Code::Crashed, "model", "its thread ended while it was loaded");
        let about = about.recv().map_err(|_| gone())??;
        Ok(Self { sender, room: Arc::new(Semaphore::new(most)), about, counts, alive })
    }

    /// Computes a request of so many texts. Dropped before it is done, what is left of it is not computed.
    pub async fn submit(&self, request: E::Request, texts: usize) -> Result<Answer<E::Row>, Failure> {
        let wanted = u32::try_from(texts).unwrap_or(u32::MAX);
        let Ok(place) = self.room.clone().try_acquire_many_owned(wanted) else {
            return Err(Failure::new(Reason::Busy, "too many texts are waiting; try again later"));
        };
        let (reply, answer) = oneshot::channel();
        self.sender.send(Job { request, reply, place }).map_err(|_| Failure::crashed())?;
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
    options: E::Options,
    /// Those that no call has taken yet.
    texts: VecDeque<Encoded>,
    rows: Vec<E::Row>,
    count: usize,
    tokens: usize,
    reply: Reply<E>,
    /// Held until the request is done or dropped.
    place: OwnedSemaphorePermit,
}

struct Worker<E: Engine> {
    engine: E,
    budget: usize,
    /// By their number.
    open: BTreeMap<u64, Open<E>>,
    /// Those with texts left, in the order in which they have their turn.
    turns: VecDeque<u64>,
    arrived: u64,
    counts: Arc<Counts>,
    alive: Alive,
}

impl<E: Engine> Worker<E> {
    fn work(mut self, inbox: &mpsc::Receiver<Job<E>>) {
        loop {
            if self.turns.is_empty() {
                match inbox.recv() {
                    Ok(job) => self.admit(job),
                    Err(_) => return,
                }
            }
            while let Ok(job) = inbox.try_recv() {
                self.admit(job);
            }
            self.forget_the_lost();
            self.call();
        }
    }

    fn admit(&mut self, Job { request, reply, place }: Job<E>) {
        if reply.is_closed() {
            return;
        }
        let (texts, options) = match self.engine.prepare(request) {
            Ok(prepared) => prepared,
            Err(failure) => {
                drop(place);
                let _ = reply.send(Err(failure));
                return;
            }
        };
        self.counts.requests.fetch_add(1, Relaxed);
        let (id, count) = (self.arrived, texts.len());
        self.arrived += 1;
        let tokens = texts.iter().map(|text| text.ids.len()).sum();
        let open = Open { options, texts: texts.into(), rows: Vec::with_capacity(count), count, tokens, reply, place };
        self.open.insert(id, open);
        self.turns.push_back(id);
    }

    /// Drops requests whose clients hung up.
    fn forget_the_lost(&mut self) {
        self.open.retain(|_, open| !open.reply.is_closed());
        self.turns.retain(|id| self.open.contains_key(id));
    }

    /// Makes up a call and computes it.
    fn call(&mut self) {
        let (ids, texts) = self.next_texts();
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
    }

    /// The texts of the next call, each with its request: one of each request in turn, of those that want the same as the first.
    fn next_texts(&mut self) -> (Vec<u64>, Vec<Encoded>) {
        let (mut ids, mut texts, mut tokens) = (Vec::new(), Vec::new(), 0);
        let mut others = Vec::new();
        let lead = self.turns.front().copied();
        while let (Some(lead), Some(id)) = (lead, self.turns.pop_front()) {
            if id != lead
                && self.open.get(&id).map(|open| &open.options) != self.open.get(&lead).map(|open| &open.options)
            {
                others.push(id);
                continue;
            }
            let Some(text) = self.open.get_mut(&id).and_then(|open| open.texts.pop_front()) else { continue };
            // A text without tokens costs something, too.
            tokens += text.ids.len().max(1);
            if tokens > self.budget && !texts.is_empty() {
                if let Some(open) = self.open.get_mut(&id) {
                    open.texts.push_front(text);
                }
                self.turns.push_front(id);
                break;
            }
            ids.push(id);
            texts.push(text);
            if self.open.get(&id).is_some_and(|open| !open.texts.is_empty()) {
                self.turns.push_back(id);
            }
        }
        // They have waited, and come first now.
        for id in others.into_iter().rev() {
            self.turns.push_front(id);
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
        self.turns.retain(|waiting| *waiting != id);
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
