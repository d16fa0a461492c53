//! Connections whose clients do not read.

use std::{
    future::Future as _,
    io::{Error, ErrorKind, IoSlice, Result},
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Instant, Sleep, sleep},
};

/// A stream that fails when nothing could be written to it for a while, so that an answer that
/// nobody reads is dropped, and its connection with it.
pub struct Writing<S> {
    stream: S,
    patience: Duration,
    /// Ends the wait; begun with the first write that has to wait.
    end: Pin<Box<Sleep>>,
    waits: bool,
}

impl<S> Writing<S> {
    pub fn new(stream: S, patience: Duration) -> Self {
        Self { stream, patience, end: Box::pin(sleep(patience)), waits: false }
    }

    /// A write's result, or an error if writes have waited for too long.
    fn limited<T>(&mut self, context: &mut Context<'_>, result: Poll<Result<T>>) -> Poll<Result<T>> {
        if result.is_ready() {
            self.waits = false;
            return result;
        }
        if !self.waits {
            self.waits = true;
            self.end.as_mut().reset(Instant::now() + self.patience);
        }
        ready!(self.end.as_mut().poll(context));
        Poll::Ready(Err(Error::new(ErrorKind::TimedOut, "the client does not read")))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Writing<S> {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Writing<S> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<Result<usize>> {
        let this = self.get_mut();
        let result = Pin::new(&mut this.stream).poll_write(context, bytes);
        this.limited(context, result)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[IoSlice<'_>],
    ) -> Poll<Result<usize>> {
        let this = self.get_mut();
        let result = Pin::new(&mut this.stream).poll_write_vectored(context, bytes);
        this.limited(context, result)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<()>> {
        let this = self.get_mut();
        let result = Pin::new(&mut this.stream).poll_flush(context);
        this.limited(context, result)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<()>> {
        let this = self.get_mut();
        let result = Pin::new(&mut this.stream).poll_shutdown(context);
        this.limited(context, result)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};

    use super::*;

    fn block_on<F: Future>(future: F) -> F::Output {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
        runtime.block_on(future)
    }

    #[test]
    fn who_does_not_read_ends_the_connection() {
        block_on(async {
            let (server, _client) = duplex(16);
            let mut server = Writing::new(server, Duration::from_millis(20));
            let error = server.write_all(&[0; 1000]).await.expect_err("nobody reads");
            assert_eq!(error.kind(), ErrorKind::TimedOut);
        });
    }

    #[test]
    fn who_reads_has_all_of_it_however_long_the_whole_takes() {
        block_on(async {
            let (server, mut client) = duplex(16);
            let mut server = Writing::new(server, Duration::from_secs(5));
            let read = async {
                let mut bytes = Vec::new();
                while bytes.len() < 1000 {
                    tokio::task::yield_now().await;
                    let mut part = [0; 7];
                    let count = client.read(&mut part).await.expect("read");
                    bytes.extend_from_slice(&part[..count]);
                }
                bytes
            };
            let (written, read) = tokio::join!(server.write_all(&[7; 1000]), read);
            written.expect("written");
            assert_eq!(read, [7; 1000]);
        });
    }
}
