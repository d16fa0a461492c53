//! Requests natively: a thread each, which ends with its request.

use std::{
    io::{ErrorKind, Read},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::{Poll, Waker},
    thread,
};

use futures_util::future::poll_fn;

use super::{
    super::{CHUNK, Http, HttpRequest, HttpResponse},
    now,
};
use crate::error::{Code, Error, Result};

/// A client with a pool of connections, which clones share. Proxies are as the environment names them (`HTTPS_PROXY`,
/// `NO_PROXY`); roots of trust are Mozilla's.
#[derive(Debug, Clone)]
pub struct Client {
    agent: ureq::Agent,
}

impl Client {
    /// Nothing is opened until a request is sent.
    pub fn new() -> Self {
        let config = ureq::Agent::config_builder()
            .http_status_as_error(false)
            // Followed, a redirect would carry the key with it.
            .max_redirects(0)
            .max_redirects_will_error(false)
            .user_agent(concat!("wick-embed/", env!("CARGO_PKG_VERSION")))
            .build();
        Self { agent: config.into() }
    }
}

impl Default for Client {
    fn default() -> Self {
        Self::new()
    }
}

/// What the thread leaves for the future, and who waits for it.
#[derive(Default)]
struct Shared {
    result: Option<Result<HttpResponse>>,
    waker: Option<Waker>,
}

/// Tells the thread that nobody waits any longer.
struct Left(Arc<AtomicBool>);

impl Drop for Left {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl Http for Client {
    async fn send(&self, request: HttpRequest) -> Result<HttpResponse> {
        let shared = Arc::new(Mutex::new(Shared::default()));
        let left = Left(Arc::default());
        let (agent, theirs, stop) = (self.agent.clone(), shared.clone(), left.0.clone());
        let work = move || {
            let result = exchange(&agent, &request, &stop);
            let mut shared = theirs.lock().unwrap_or_else(PoisonError::into_inner);
            shared.result = Some(result);
            if let Some(waker) = shared.waker.take() {
                waker.wake();
            }
        };
        let started = thread::Builder::new().name("wick-http".to_owned()).spawn(work);
        started.map_err(|error| Error::new(Code::Network, "request", format!("no thread for it: {error}")))?;
        poll_fn(move |context| {
            // Held by this future, so that dropping it is leaving.
            let _ = &left;
            let mut shared = shared.lock().unwrap_or_else(PoisonError::into_inner);
            match shared.result.take() {
                Some(result) => Poll::Ready(result),
                None => {
                    shared.waker = Some(context.waker().clone());
                    Poll::Pending
                }
            }
        })
        .await
    }
}

fn exchange(agent: &ureq::Agent, request: &HttpRequest, stop: &AtomicBool) -> Result<HttpResponse> {
    let end = now() + request.timeout;
    let mut builder = agent.post(&request.url);
    for (name, value) in &request.headers {
        builder = builder.header(name, value);
    }
    let builder = builder.config().timeout_global(Some(request.timeout)).build();
    let answer = builder.send(&request.body[..]).map_err(|error| failed(&error))?;
    let (parts, body) = answer.into_parts();
    // Not every header is text; none that is read here is anything else.
    let header = |(name, value): (&ureq::http::HeaderName, &ureq::http::HeaderValue)| {
        Some((name.as_str().to_owned(), value.to_str().ok()?.to_owned()))
    };
    let mut response = HttpResponse {
        status: parts.status.as_u16(),
        headers: parts.headers.iter().filter_map(header).collect(),
        body: Vec::new(),
    };
    let mut reader = body.into_reader();
    let mut chunk = vec![0; CHUNK];
    while !stop.load(Ordering::Relaxed) {
        if now() > end {
            return Err(Error::new(Code::Timeout, "request", "the answer took too long"));
        }
        match reader.read(&mut chunk) {
            Ok(0) => return Ok(response),
            Ok(count) if response.push(&chunk[..count], request.max_body)? => {}
            Ok(_) => return Ok(response),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(failed(&ureq::Error::from(error))),
        }
    }
    Err(Error::new(Code::Aborted, "request", "nobody waits for it"))
}

fn failed(error: &ureq::Error) -> Error {
    let code = if matches!(error, ureq::Error::Timeout(_)) { Code::Timeout } else { Code::Network };
    Error::new(code, "request", error.to_string())
}
