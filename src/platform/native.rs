//! Folders on a disk, and running a future to its end without a runtime.

use std::{
    fs::File,
    io::{ErrorKind, Read},
    path::PathBuf,
    pin::pin,
    sync::Arc,
    task::{Context, Poll, Wake, Waker},
    thread::{self, Thread},
};

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
        let failed = |error: std::io::Error| Error::new(Code::Io, path.display().to_string(), error.to_string());
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

/// Natively there is no event loop to let in.
pub(crate) struct Pacer;

impl Pacer {
    pub(crate) fn new() -> Self {
        Self
    }

    pub(crate) async fn breathe(&mut self) {}
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
