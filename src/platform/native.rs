//! Folders on a disk, requests, time, and running a future to its end without a runtime.

#[cfg(feature = "remote")]
mod client;
#[cfg(feature = "local")]
mod pace;

#[cfg(feature = "remote")]
pub use client::Client;
#[cfg(feature = "local")]
pub(crate) use pace::{Clock, Pacer};

use std::{
    cmp::Ordering,
    collections::BinaryHeap,
    fs::{self, File},
    hash::{BuildHasher, RandomState},
    io::{ErrorKind, Read},
    path::{Path, PathBuf},
    pin::pin,
    sync::{
        Arc, LazyLock,
        mpsc::{self, Receiver, RecvTimeoutError, Sender},
    },
    task::{Context, Poll, Wake, Waker},
    thread::{self, Thread},
    time::{Duration, Instant, SystemTime},
};
#[cfg(feature = "webgpu")]
use std::{collections::BTreeMap, sync::Mutex};

use futures_util::future::{LocalBoxFuture, poll_fn};

use super::{Body, CHUNK, Files};
use crate::error::{Code, Error, Result};

/// A folder that holds a model's files.
#[derive(Debug, Clone)]
pub struct Directory {
    path: PathBuf,
}

impl Directory {
    /// Nothing is opened until a file is asked for.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }
}

impl Files for Directory {
    type Body = FileBody;

    fn name(&self) -> Option<String> {
        Some(self.path.file_name()?.to_str()?.to_owned())
    }

    async fn open(&self, file: &str) -> Result<Option<FileBody>> {
        let path = self.path.join(file);
        let failed = failed(&path);
        match File::open(&path) {
            Ok(file) => Ok(Some(FileBody {
                length: file.metadata().map_err(failed)?.len(),
                file,
                at: path.display().to_string(),
                buffer: Vec::new(),
            })),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(failed(error)),
        }
    }
}

/// An open file.
#[derive(Debug)]
pub struct FileBody {
    file: File,
    at: String,
    length: u64,
    buffer: Vec<u8>,
}

impl Body for FileBody {
    fn length(&self) -> Option<u64> {
        Some(self.length)
    }

    async fn chunk(&mut self) -> Result<Option<&[u8]>> {
        self.buffer.resize(CHUNK, 0);
        loop {
            match self.file.read(&mut self.buffer) {
                Ok(0) => return Ok(None),
                Ok(count) => return Ok(Some(&self.buffer[..count])),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(Error::new(Code::Io, &self.at, error.to_string())),
            }
        }
    }
}

/// A folder that appears whole or not at all: it is written beside its place and moved there at the end. Dropped before that, it
/// leaves nothing.
#[derive(Debug)]
pub struct NewFolder {
    place: PathBuf,
    work: PathBuf,
}

impl NewFolder {
    /// Refuses a place where something is already.
    pub fn at(place: impl Into<PathBuf>) -> Result<Self> {
        let place = place.into();
        let taken = |message: &str| Error::new(Code::InvalidOption, place.display().to_string(), message);
        match fs::read_dir(&place).map(Iterator::count) {
            Ok(0) => {}
            Ok(_) => return Err(taken("the folder has files already; name a new one")),
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(_) if place.exists() => return Err(taken("there is a file of this name; name a new folder")),
            Err(error) => return Err(failed(&place)(error)),
        }
        let Some(name) = place.file_name() else {
            return Err(taken("the path ends in no name"));
        };
        // Beside it, because only within one file system is moving a single step.
        let work = place.with_file_name(format!(".{}.{}", name.to_string_lossy(), std::process::id()));
        fs::create_dir_all(&work).map_err(failed(&work))?;
        Ok(Self { place, work })
    }

    /// Makes a file, and the folders above it.
    pub fn create(&self, file: &str) -> Result<File> {
        let path = self.path(file)?;
        File::create(&path).map_err(failed(&path))
    }

    /// Writes a file that is in memory.
    pub fn write(&self, file: &str, bytes: &[u8]) -> Result<()> {
        let path = self.path(file)?;
        fs::write(&path, bytes).map_err(failed(&path))
    }

    fn path(&self, file: &str) -> Result<PathBuf> {
        let path = self.work.join(file);
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).map_err(failed(folder))?;
        }
        Ok(path)
    }

    /// Puts the folder in its place.
    pub fn finish(self) -> Result<()> {
        // An empty folder may stand there, over which not every system moves another.
        match fs::remove_dir(&self.place) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(failed(&self.place)(error)),
            _ => {}
        }
        fs::rename(&self.work, &self.place).map_err(failed(&self.place))
    }
}

impl Drop for NewFolder {
    fn drop(&mut self) {
        // Once it was moved there is nothing left to remove.
        let _ = fs::remove_dir_all(&self.work);
    }
}

fn failed(path: &Path) -> impl Fn(std::io::Error) -> Error {
    let at = path.display().to_string();
    move |error| Error::new(Code::Io, &at, error.to_string())
}

/// What was measured on this machine, by this process: a library leaves no files behind.
#[cfg(feature = "webgpu")]
static MEASURED: Mutex<BTreeMap<String, String>> = Mutex::new(BTreeMap::new());

/// What was kept under a name.
#[cfg(feature = "webgpu")]
pub(crate) async fn remembered(name: &str) -> Option<String> {
    MEASURED.lock().ok()?.get(name).cloned()
}

/// Keeps a text under a name.
#[cfg(feature = "webgpu")]
pub(crate) async fn remember(name: &str, text: &str) {
    if let Ok(mut measured) = MEASURED.lock() {
        measured.insert(name.to_owned(), text.to_owned());
    }
}

/// Calls for each item, on a thread for each.
#[cfg(feature = "webgpu")]
pub(crate) fn side_by_side<T: Sync>(items: &[T], call: impl Fn(&T) + Sync) {
    match items {
        [item] => call(item),
        _ => thread::scope(|scope| {
            for item in items {
                // Where there are no more threads this one does it.
                if thread::Builder::new().spawn_scoped(scope, || call(item)).is_err() {
                    call(item);
                }
            }
        }),
    }
}

/// Gives a provider's key, as often as it is asked.
pub type KeyFunction = Arc<dyn Fn() -> LocalBoxFuture<'static, Result<String>> + Send + Sync>;

/// Time since 1970.
pub(crate) fn now() -> Duration {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
}

/// A number from 0 up to 1, good enough to keep callers from coming back in step.
pub(crate) fn random() -> f64 {
    // The standard library's hasher has a random key; 53 bits are what a double holds.
    let bits = BuildHasher::hash_one(&RandomState::new(), Instant::now());
    (bits >> 11) as f64 / (1u64 << 53) as f64
}

/// Waits without holding the thread.
pub(crate) async fn sleep(duration: Duration) {
    let Some(end) = Instant::now().checked_add(duration) else {
        return std::future::pending().await;
    };
    let mut told: Option<Waker> = None;
    poll_fn(move |context| {
        if Instant::now() >= end {
            return Poll::Ready(());
        }
        let waker = context.waker();
        if !told.as_ref().is_some_and(|told| told.will_wake(waker)) {
            told = Some(waker.clone());
            if ALARMS.send(Alarm { end, waker: waker.clone() }).is_err() {
                // There is no thread to wake this one.
                thread::sleep(end.saturating_duration_since(Instant::now()));
                return Poll::Ready(());
            }
        }
        Poll::Pending
    })
    .await;
}

/// Someone to be woken.
struct Alarm {
    end: Instant,
    waker: Waker,
}

/// In a heap whose top is the largest, the next alarm is the largest.
impl Ord for Alarm {
    fn cmp(&self, other: &Self) -> Ordering {
        other.end.cmp(&self.end)
    }
}

impl PartialOrd for Alarm {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Alarm {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Alarm {}

/// The one thread that waits for all; it is started by the first who sleeps. Where it cannot be, sending fails.
static ALARMS: LazyLock<Sender<Alarm>> = LazyLock::new(|| {
    let (sender, receiver) = mpsc::channel();
    // Without the thread the receiver is dropped.
    let _ = thread::Builder::new().name("wick-timer".to_owned()).spawn(move || keep_time(&receiver));
    sender
});

fn keep_time(receiver: &Receiver<Alarm>) {
    let mut alarms = BinaryHeap::<Alarm>::new();
    loop {
        let next = match alarms.peek() {
            Some(alarm) => receiver.recv_timeout(alarm.end.saturating_duration_since(Instant::now())),
            None => receiver.recv().map_err(|_| RecvTimeoutError::Disconnected),
        };
        match next {
            Ok(alarm) => alarms.push(alarm),
            Err(RecvTimeoutError::Timeout) => alarms.pop().into_iter().for_each(|alarm| alarm.waker.wake()),
            Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}

/// Runs a future to its end on this thread. On the processor the embedder's futures never wait.
pub fn block_on<F: Future>(future: F) -> F::Output {
    struct Unpark(Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(output) => return output,
            Poll::Pending => thread::park(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sleepers_wake_in_the_order_of_their_times() {
        let woken = std::cell::RefCell::new(Vec::new());
        let sleeper = |milliseconds| {
            let woken = &woken;
            async move {
                sleep(Duration::from_millis(milliseconds)).await;
                woken.borrow_mut().push(milliseconds);
            }
        };
        block_on(futures_util::future::join_all([30, 1, 60].map(sleeper)));
        assert_eq!(woken.into_inner(), [1, 30, 60]);
        assert!((0..100).map(|_| random()).all(|number| (0.0..1.0).contains(&number)));
        assert_ne!(random(), random());
    }
}
