use std::{
    sync::{Mutex, mpsc},
    time::Duration,
};

use super::*;
use crate::platform::native::block_on;

/// Gives each text its first id, and writes down what it was called with. A text of id 13 cannot be computed.
struct Fake {
    /// A call waits for a word from here.
    gate: mpsc::Receiver<()>,
    calls: Arc<Mutex<Vec<Vec<u32>>>>,
    seconds: Arc<AtomicUsize>,
}

impl Engine for Fake {
    /// Texts by their ids, each of so many tokens; and an option.
    type Request = (Vec<(u32, usize)>, char);
    type Options = char;
    type Row = u32;
    type About = ();

    fn about(&self) {}

    fn cost((texts, _): &Self::Request, index: usize) -> usize {
        texts[index].1
    }

    fn options(&self, (_, option): &Self::Request) -> Result<char, Failure> {
        match option {
            'x' => Err(Failure::new(Reason::Invalid, "as asked for")),
            _ => Ok(*option),
        }
    }

    /// The text of id 99 may not be computed.
    fn prepare(&self, (texts, _): &mut Self::Request, index: usize) -> Result<Encoded, Failure> {
        let (id, tokens) = texts[index];
        match id {
            99 => Err(Failure::new(Reason::TooLong, "as asked for")),
            _ => Ok(Encoded { ids: vec![id; tokens], type_ids: Vec::new(), unpooled: 0, truncated: false }),
        }
    }

    /// A call takes a second, all else no time.
    fn now(&self) -> Duration {
        Duration::from_secs(self.seconds.load(Relaxed) as u64)
    }

    fn run(&self, texts: &[Encoded], _: &char) -> Result<Vec<u32>, Failure> {
        self.gate.recv().expect("the test waits");
        self.seconds.fetch_add(1, Relaxed);
        let ids: Vec<u32> = texts.iter().map(|text| text.ids[0]).collect();
        self.calls.lock().expect("no panic").push(ids.clone());
        match ids.contains(&13) {
            true => Err(Failure::new(Reason::Model(Code::NotFinite), "13")),
            false => Ok(ids),
        }
    }
}

struct Test {
    queue: Arc<Queue<Fake>>,
    gate: mpsc::Sender<()>,
    calls: Arc<Mutex<Vec<Vec<u32>>>>,
}

type Waiting = thread::JoinHandle<Result<Answer<u32>, Failure>>;

impl Test {
    /// At most 100 texts wait; a call has 10 tokens.
    fn new() -> Self {
        Self::with(100, Duration::from_secs(1000))
    }

    fn with(most: usize, patience: Duration) -> Self {
        let (gate, opened) = mpsc::channel();
        let calls = Arc::new(Mutex::new(Vec::new()));
        let seconds = Arc::default();
        let fake = Fake { gate: opened, calls: calls.clone(), seconds };
        let queue = Arc::new(Queue::start(move || Ok(fake), most, 10, patience).expect("it starts"));
        Self { queue, gate, calls }
    }

    /// Submits texts of `tokens` tokens each and returns when they are in the queue.
    fn submit(&self, ids: &[u32], tokens: usize, option: char) -> Waiting {
        let (queue, before) = (self.queue.clone(), self.queue.room.available_permits());
        let texts: Vec<_> = ids.iter().map(|&id| (id, tokens)).collect();
        let count = texts.len();
        let waiting = thread::spawn(move || block_on(queue.submit((texts, option), count)));
        while self.queue.room.available_permits() + count > before {
            thread::sleep(Duration::from_millis(1));
        }
        // Between the permit and the channel there is nothing to see.
        thread::sleep(Duration::from_millis(20));
        waiting
    }

    /// Lets so many calls through and says what they had, beginning with the one that is under way.
    fn calls(&self, count: usize) -> Vec<Vec<u32>> {
        (0..count).for_each(|_| self.gate.send(()).expect("it waits"));
        while self.calls.lock().expect("no panic").len() < count {
            thread::sleep(Duration::from_millis(1));
        }
        std::mem::take(&mut *self.calls.lock().expect("no panic"))
    }
}

fn rows(waiting: Waiting) -> Vec<u32> {
    waiting.join().expect("no panic").expect("an answer").rows
}

#[test]
fn what_arrives_during_a_call_makes_up_the_next_one() {
    let test = Test::new();
    let first = test.submit(&[1], 2, 'a');
    let others: Vec<_> = (2..6).map(|id| test.submit(&[id], 2, 'a')).collect();
    assert_eq!(test.calls(2), [vec![1], vec![2, 3, 4, 5]]);
    let answer = first.join().expect("no panic").expect("an answer");
    assert_eq!((answer.rows, answer.tokens), (vec![1], 2));
    assert_eq!(others.into_iter().map(rows).collect::<Vec<_>>(), [[2], [3], [4], [5]]);
    let Counts { requests, texts, calls } = &*test.queue.counts;
    assert_eq!([requests, texts, calls].map(|count| count.load(Relaxed)), [5, 5, 2]);
    assert_eq!(test.queue.room.available_permits(), 100);
}

#[test]
fn each_request_has_its_turn_whatever_its_size() {
    let test = Test::new();
    let large = test.submit(&[1, 2, 3, 4, 5, 6, 7, 8], 5, 'a');
    let small = test.submit(&[21], 5, 'a');
    let middle = test.submit(&[31, 32], 5, 'a');
    // The first call began before the others were there.
    assert_eq!(test.calls(2), [vec![1, 2], vec![3, 21]]);
    assert_eq!(rows(small), [21]);
    assert_eq!(test.calls(4), [vec![31, 32], vec![4, 5], vec![6, 7], vec![8]]);
    assert_eq!(rows(middle), [31, 32]);
    assert_eq!(rows(large), [1, 2, 3, 4, 5, 6, 7, 8]);
}

#[test]
fn a_text_larger_than_a_call_is_one() {
    let test = Test::new();
    let texts = test.submit(&[1, 2], 25, 'a');
    assert_eq!(test.calls(2), [[1], [2]]);
    assert_eq!(rows(texts), [1, 2]);
}

#[test]
fn requests_that_want_other_things_do_not_share_a_call_and_are_not_forgotten() {
    let test = Test::new();
    let first = test.submit(&[1], 1, 'a');
    let (a, b) = (test.submit(&[2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12], 2, 'a'), test.submit(&[20], 2, 'b'));
    let late = test.submit(&[40], 2, 'a');
    assert_eq!(test.calls(3), [vec![1], vec![2, 3, 40, 4, 5], vec![20]]);
    assert_eq!((rows(first), rows(b), rows(late)), (vec![1], vec![20], vec![40]));
    test.calls(2);
    assert_eq!(rows(a).len(), 11);
}

#[test]
fn a_failure_is_its_own_requests_alone() {
    let test = Test::new();
    let first = test.submit(&[1], 1, 'a');
    let (good, bad, other) =
        (test.submit(&[2, 3], 1, 'a'), test.submit(&[4, 13, 5], 1, 'a'), test.submit(&[6], 1, 'a'));
    assert_eq!(test.calls(5), [vec![1], vec![2, 3, 6, 4, 13, 5], vec![2, 3], vec![4, 13, 5], vec![6]]);
    let failure = bad.join().expect("no panic").expect_err("it cannot be computed");
    assert_eq!(failure.reason, Reason::Model(Code::NotFinite));
    assert_eq!((rows(first), rows(good), rows(other)), (vec![1], vec![2, 3], vec![6]));
    // Alone it is not tried again.
    let bad = test.submit(&[13], 1, 'a');
    assert_eq!(test.calls(1), [[13]]);
    assert!(bad.join().expect("no panic").is_err());
    assert_eq!(test.queue.room.available_permits(), 100);
}

#[test]
fn what_is_refused_before_it_is_computed_costs_no_call() {
    let test = Test::new();
    let refused = block_on(test.queue.submit((vec![(1, 1)], 'x'), 1)).expect_err("refused");
    assert_eq!(refused.reason, Reason::Invalid);
    let refused = block_on(test.queue.submit((vec![(1, 1), (99, 1)], 'a'), 2)).expect_err("refused");
    assert_eq!(refused.reason, Reason::TooLong);
    assert_eq!(test.queue.load.waiting.load(Relaxed), 0);
    assert_eq!(test.queue.counts.calls.load(Relaxed), 0);
}

#[test]
fn what_nobody_waits_for_is_dropped() {
    let test = Test::new();
    let first = test.submit(&[1], 1, 'a');
    {
        // Polled once, it is in the queue; then its client hangs up.
        let request = std::pin::pin!(test.queue.submit((vec![(2, 1), (3, 1)], 'a'), 2));
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        assert!(request.poll(&mut context).is_pending());
        assert_eq!(test.queue.room.available_permits(), 97);
    }
    let last = test.submit(&[4], 1, 'a');
    assert_eq!(test.calls(2), [[1], [4]]);
    assert_eq!((rows(first), rows(last)), (vec![1], vec![4]));
    assert_eq!(test.queue.room.available_permits(), 100);
}

#[test]
fn a_request_whose_client_hangs_up_is_not_finished() {
    let test = Test::new();
    let first = {
        let request = std::pin::pin!(test.queue.submit(((1..=30).map(|id| (id, 1)).collect(), 'a'), 30));
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        assert!(request.poll(&mut context).is_pending());
        test.calls(1)
    };
    let last = test.submit(&[50], 1, 'a');
    // At most one more call was begun before it was gone.
    let later: Vec<u32> = test.calls(2).concat();
    assert_eq!(first.concat().len(), 10);
    assert!(later.contains(&50) && !later.contains(&30), "{later:?}");
    assert_eq!(rows(last), [50]);
}

#[test]
fn more_than_may_wait_is_refused_at_once() {
    let test = Test::new();
    let waiting = test.submit(&[1; 60], 1, 'a');
    let refused = block_on(test.queue.submit((vec![(2, 1); 41], 'a'), 41)).expect_err("it is full");
    assert_eq!(refused.reason, Reason::Busy);
    let fits = test.submit(&[3; 40], 1, 'a');
    test.calls(10);
    assert_eq!((rows(waiting).len(), rows(fits).len()), (60, 40));
}

#[test]
fn a_thread_that_ends_leaves_nobody_waiting() {
    let test = Test::new();
    let waiting = test.submit(&[1], 1, 'a');
    let Test { queue, gate, .. } = test;
    assert!(queue.is_alive());
    // The fake panics without its gate.
    drop(gate);
    let failure = waiting.join().expect("no panic here").expect_err("its thread is gone");
    assert_eq!(failure.reason, Reason::Model(Code::Crashed));
    while queue.is_alive() {
        thread::sleep(Duration::from_millis(1));
    }
    assert!(block_on(queue.submit((vec![(1, 1)], 'a'), 1)).is_err());
}

#[test]
fn a_model_that_does_not_load_says_why() {
    let load = || -> Result<Fake> { Err(Error::new(Code::MissingFile, "config.json", "no")) };
    assert_eq!(Queue::start(load, 1, 1, Duration::MAX).err().map(|error| error.code()), Some(Code::MissingFile));
}

type Submitted<'a> = std::pin::Pin<Box<dyn Future<Output = Result<Answer<u32>, Failure>> + 'a>>;

/// Polls requests until each is in the queue, and keeps them.
fn begin<'a>(test: &'a Test, count: usize, request: impl Fn() -> Vec<(u32, usize)>) -> Vec<Submitted<'a>> {
    let begun = (0..count).map(|_| {
        let texts = request();
        let count = texts.len();
        Box::pin(test.queue.submit((texts, 'a'), count)) as Submitted
    });
    begun.collect()
}

/// Polls all and counts those that have their rows, and those that were refused; the rest still waits.
fn outcome(requests: &mut Vec<Submitted<'_>>) -> [usize; 2] {
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    let mut counts = [0; 2];
    requests.retain_mut(|request| match request.as_mut().poll(&mut context) {
        std::task::Poll::Ready(result) => {
            counts[usize::from(result.is_err())] += 1;
            false
        }
        std::task::Poll::Pending => true,
    });
    counts
}

/// Ten times what can be done in 20 seconds, 10 texts a second: of the 10 requests that fit at least 7 are answered in time.
#[test]
fn under_overload_most_of_what_fits_is_finished() {
    for rate_is_known in [false, true] {
        let test = Test::with(10_000, Duration::from_secs(20));
        let first = test.submit(&[1; 10], 1, 'a');
        if rate_is_known {
            test.calls(1);
            assert_eq!(rows(first).len(), 10);
            while test.queue.load.rate.load(Relaxed) == 0 {
                thread::yield_now();
            }
        }
        let mut requests = begin(&test, 100, || vec![(2, 1); 20]);
        let refused = outcome(&mut requests)[1];
        // Eight tenths of 200 texts are let in, once it is known how long they take.
        assert_eq!(refused, if rate_is_known { 92 } else { 0 });
        test.calls(if rate_is_known { 16 } else { 20 });
        // The last call is counted after it was written down, and before its rows are sent.
        while test.queue.counts.texts.load(Relaxed) < if rate_is_known { 170 } else { 200 } {
            thread::yield_now();
        }
        let mut done = 0;
        while done < 7 && !requests.is_empty() {
            done += outcome(&mut requests)[0];
        }
        assert!(done >= 7, "{done} requests were answered, with the rate known: {rate_is_known}");
    }
}

/// So a small request need not wait until all of a large one is tokenized, and one that is refused holds nobody up.
#[test]
fn a_large_request_is_tokenized_between_calls() {
    let test = Test::with(1000, Duration::from_secs(1_000_000));
    let first = test.submit(&[1], 1, 'a');
    // Four slices: a text costs a quarter of one.
    let large = test.submit(&[99; 1], 1, 'a');
    let half: Vec<u32> = (30..46).collect();
    let slow = test.submit(&half, SLICE / 4, 'a');
    let small = test.submit(&[7], 1, 'a');
    assert_eq!(test.calls(2), [[1], [7]]);
    assert_eq!((rows(first), rows(small)), (vec![1], vec![7]));
    assert!(large.join().expect("no panic").is_err());
    assert_eq!(test.calls(16).concat(), half);
    assert_eq!(rows(slow), half);
}
