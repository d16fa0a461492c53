//! `wick serve`: local models behind the HTTP APIs of OpenAI and of text-embeddings-inference.
//!
//! [`batch`] gathers what many clients ask at once and knows no HTTP; [`engines`] are the models as it sees them; [`openai`] and [`tei`]
//! read requests and write answers; [`failure`] is the one table from reasons to statuses. Here is what all paths have in common: limits,
//! the key, CORS, and a stop that loses nothing. It lies in the library and not in the program because none of it is about arguments.

pub mod batch;
pub mod body;
pub mod engines;
pub mod failure;
pub mod metrics;
pub mod openai;
pub mod tei;
mod writing;

use std::{
    io,
    net::{IpAddr, TcpListener},
    sync::{Arc, atomic::Ordering::Relaxed},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use axum::{
    Router,
    body::Body,
    extract::{Request, State},
    http::{HeaderMap, HeaderValue, Method, Uri, header},
    middleware::{self, Next},
    response::Response,
    routing::{get, post},
};
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::graceful::GracefulShutdown,
    service::TowerToHyperService,
};
use serde::de::DeserializeOwned;
use subtle::ConstantTimeEq;
use tokio::sync::{Semaphore, SemaphorePermit};
use tower_http::cors::{AllowHeaders, AllowOrigin, CorsLayer};

use crate::{
    embedder::Embedder,
    error::{Code, Error, Result},
    ops::BATCH_TOKENS,
    rerank::Reranker,
};
use batch::{Engine, Queue};
use failure::{Failure, Form, Reason};
use metrics::Metrics;
use writing::Writing;

/// How long a client may take for a request's head, and between two requests.
const HEAD: Duration = Duration::from_secs(30);

/// How long to wait before accepting again where that failed: as a rule too many files are open.
const ACCEPT_AGAIN: Duration = Duration::from_millis(50);

/// What a server lets in.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Bytes of a request's body.
    pub max_body_bytes: usize,
    /// Texts of a request.
    pub max_texts: usize,
    /// Texts that wait or are computed, of all requests to one model.
    pub max_queued_texts: usize,
    /// Requests under way.
    pub max_requests: usize,
    /// How long a request may take, from its head to its answer.
    pub timeout: Duration,
    /// Whether texts that are too long are cut where the request says nothing of it.
    pub auto_truncate: bool,
}

impl Default for Limits {
    /// As many texts as OpenAI takes in a request; at most 1 GB of bodies at once.
    fn default() -> Self {
        Self {
            max_body_bytes: 8 << 20,
            max_texts: 2048,
            max_queued_texts: 8192,
            max_requests: 128,
            timeout: Duration::from_secs(60),
            auto_truncate: false,
        }
    }
}

/// Who may ask. Not to be printed: it holds the key.
#[derive(Clone, Default)]
pub struct Access {
    /// Origins of pages that may read answers; `*` stands for all.
    pub origins: Vec<String>,
    /// What a client must send as `Authorization: Bearer`.
    pub key: Option<String>,
    /// Further names by which a server on this machine alone may be called (`Host`), beside its own addresses and `localhost`.
    pub hosts: Vec<String>,
}

/// A model with the names that requests know it by.
pub struct Served<E: Engine> {
    names: Vec<String>,
    queue: Queue<E>,
}

impl<E: Engine> Served<E> {
    /// Loads a model on a thread of its own. The first name is the one that answers bear.
    pub fn load(
        names: Vec<String>,
        limits: &Limits,
        load: impl FnOnce() -> Result<E> + Send + 'static,
    ) -> Result<Self> {
        Ok(Self {
            names,
            queue: Queue::start(
                load,
                limits.max_queued_texts.min(Semaphore::MAX_PERMITS),
                BATCH_TOKENS,
                limits.timeout,
            )?,
        })
    }

    fn name(&self) -> &str {
        self.names.first().map_or("", String::as_str)
    }
}

/// What was done, when a server stops.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Summary {
    pub requests: usize,
    pub texts: usize,
    /// Calls of a model that they took.
    pub calls: usize,
}

/// Models, ready to be asked.
pub struct Server {
    embedder: Option<Served<Embedder>>,
    reranker: Option<Served<Reranker>>,
    limits: Limits,
    key: Option<String>,
    cors: Option<CorsLayer>,
    /// How weights are held, in a word.
    dtype: String,
    /// Seconds since 1970.
    started: u64,
    /// One for each request that may be under way.
    places: Semaphore,
    /// Units of bodies that are being read, of [`body::UNIT`] bytes.
    reading: Semaphore,
    hosts: Vec<String>,
    metrics: Metrics,
}

impl Server {
    pub fn new(
        embedder: Option<Served<Embedder>>,
        reranker: Option<Served<Reranker>>,
        mut limits: Limits,
        access: Access,
        dtype: &str,
    ) -> Result<Self> {
        // A request that never fits would be tried again for ever.
        limits.max_texts = limits.max_texts.min(limits.max_queued_texts);
        if access.key.as_deref() == Some("") {
            return Err(Error::new(Code::InvalidOption, "key", "it is empty"));
        }
        let started = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        Ok(Self {
            embedder,
            reranker,
            key: access.key,
            cors: cors(&access.origins)?,
            dtype: dtype.to_owned(),
            started,
            places: Semaphore::new(limits.max_requests.min(Semaphore::MAX_PERMITS)),
            reading: Semaphore::new(
                (limits.max_body_bytes / body::UNIT + 1)
                    .saturating_mul(limits.max_requests)
                    .min(Semaphore::MAX_PERMITS),
            ),
            hosts: access.hosts,
            metrics: Metrics::default(),
            limits,
        })
    }

    /// Answers until the process is told to stop (SIGINT, SIGTERM), then finishes what is under way; told again, it does not.
    pub fn run(self, listener: TcpListener) -> Result<Summary> {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(failed)?;
        let server = Arc::new(self);
        runtime.block_on(serve(server.clone(), listener)).map_err(failed)?;
        // What is left has been given its time.
        runtime.shutdown_background();
        Ok(server.summary())
    }

    fn summary(&self) -> Summary {
        let embedder = self.embedder.as_ref().map(|served| &served.queue.counts);
        let counts = embedder.into_iter().chain(self.reranker.as_ref().map(|served| &served.queue.counts));
        let zero = Summary { requests: 0, texts: 0, calls: 0 };
        counts.fold(zero, |sum, counts| Summary {
            requests: sum.requests + counts.requests.load(Relaxed),
            texts: sum.texts + counts.texts.load(Relaxed),
            calls: sum.calls + counts.calls.load(Relaxed),
        })
    }

    /// Reads a body, and then takes one of the places of requests under way, so that a client that sends slowly holds none.
    async fn read<T: DeserializeOwned>(&self, request: Request) -> Result<(T, SemaphorePermit<'_>), Failure> {
        let body = body::read(request, self.limits.max_body_bytes, &self.reading).await?;
        let busy = |_| Failure::new(Reason::Busy, "too many requests are under way; try again later");
        Ok((body, self.places.try_acquire().map_err(busy)?))
    }

    /// Whether this machine may be called so. A page that had its own name pointed here would be of the same origin, and could read answers.
    fn is_called(&self, host: &str) -> bool {
        let name = match host.rsplit_once(':') {
            Some((name, port)) if port.bytes().all(|digit| digit.is_ascii_digit()) => name,
            _ => host,
        };
        let address = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name);
        address.parse::<IpAddr>().is_ok()
            || name.eq_ignore_ascii_case("localhost")
            || self.hosts.iter().any(|host| host.eq_ignore_ascii_case(name))
    }

    /// Whether a request has the key, if one is asked for.
    fn knows(&self, headers: &HeaderMap) -> bool {
        let Some(key) = &self.key else { return true };
        let given = headers.get(header::AUTHORIZATION).map(HeaderValue::as_bytes).unwrap_or_default();
        let (scheme, given) = given.split_at(given.len().min("Bearer ".len()));
        // The time that this takes depends on the given key's length and nothing else.
        scheme.eq_ignore_ascii_case(b"Bearer ") && bool::from(given.ct_eq(key.as_bytes()))
    }
}

#[expect(clippy::needless_pass_by_value, reason = "as map_err passes it")]
fn failed(error: io::Error) -> Error {
    Error::new(Code::Io, "server", error.to_string())
}

/// Headers for pages of these origins. OpenAI's client sends a dozen headers of its own, so that none is refused by name.
fn cors(origins: &[String]) -> Result<Option<CorsLayer>> {
    let allowed = match origins {
        [] => return Ok(None),
        _ if origins.iter().any(|origin| origin == "*") => AllowOrigin::any(),
        _ => AllowOrigin::list(origins.iter().map(|origin| read_origin(origin)).collect::<Result<Vec<_>>>()?),
    };
    let layer = CorsLayer::new()
        .allow_origin(allowed)
        .allow_methods([Method::GET, Method::POST])
        .allow_headers(AllowHeaders::mirror_request())
        .expose_headers([header::RETRY_AFTER, tei::COMPUTE_TOKENS])
        // A page from elsewhere may ask this machine.
        .allow_private_network(true)
        .max_age(Duration::from_secs(3600));
    Ok(Some(layer))
}

/// An origin as browsers send it; anything else would never be equal to one.
fn read_origin(origin: &str) -> Result<HeaderValue> {
    let is_one = origin == "null"
        || origin
            .split_once("://")
            .is_some_and(|(scheme, host)| !scheme.is_empty() && !host.is_empty() && !host.contains('/'));
    let value = HeaderValue::from_str(origin).ok().filter(|_| is_one);
    value.ok_or_else(|| {
        let message =
            format!("{origin:?} is no origin, such as https://example.org or http://localhost:8080, without a path");
        Error::new(Code::InvalidOption, "cors-allow-origin", message)
    })
}

/// `is_local`: whether only this machine can connect and no key is asked for.
fn router(server: &Arc<Server>, is_local: bool) -> Router {
    let router = Router::new()
        .route("/v1/embeddings", post(openai::embeddings))
        .route("/v1/models", get(openai::models))
        .route("/v1/models/{*id}", get(openai::model))
        .route("/", post(tei::root))
        .route("/embed", post(tei::embed))
        .route("/embed_sparse", post(tei::embed_sparse))
        .route("/rerank", post(tei::rerank))
        .route("/info", get(tei::info))
        .fallback(async |uri: Uri| {
            Failure::new(Reason::NoSuchPath, "there is no such path").response(Form::of(uri.path()))
        })
        .method_not_allowed_fallback(async |uri: Uri| {
            Failure::new(Reason::NoSuchMethod, "the path has another method").response(Form::of(uri.path()))
        })
        .route("/metrics", get(metrics))
        .layer(middleware::from_fn_with_state((server.clone(), is_local), guard))
        // Asked by machines that have no key, and just when there is much to do.
        .route("/health", get(tei::health))
        .with_state(server.clone());
    match &server.cors {
        // Around everything, so that a page can read errors too.
        Some(layer) => router.layer(layer.clone()),
        None => router,
    }
}

/// What an answer took, for the log.
#[derive(Debug, Clone, Copy)]
pub struct Work {
    pub texts: usize,
    pub tokens: usize,
}

/// What every request passes: host, key, time. Counts and logs its answer; no text and no key is logged, and no query of an address.
async fn guard(State((server, is_local)): State<(Arc<Server>, bool)>, request: Request, next: Next) -> Response {
    let (method, path, start) = (request.method().clone(), request.uri().path().to_owned(), Instant::now());
    let response = admitted(&server, is_local, request, next).await;
    let (status, after) = (response.status().as_u16(), start.elapsed());
    server.metrics.answered(status, after);
    let Work { texts, tokens } = response.extensions().get().copied().unwrap_or(Work { texts: 0, tokens: 0 });
    tracing::info!(%method, path, status, ms = after.as_millis() as u64, texts, tokens, "request");
    response
}

async fn admitted(server: &Server, is_local: bool, request: Request, next: Next) -> Response {
    let form = Form::of(request.uri().path());
    let limit = server.limits.timeout;
    let host = request.headers().get(header::HOST).map(|host| host.to_str().unwrap_or_default());
    let failure = if is_local && host.is_some_and(|host| !server.is_called(host)) {
        Failure::new(Reason::Host, "the Host is not this machine's; --allowed-host lets in others")
    } else if !server.knows(request.headers()) {
        Failure::new(Reason::Key, "the key is missing or wrong")
    } else {
        match tokio::time::timeout(limit, next.run(request)).await {
            Ok(response) => return response,
            Err(_) => Failure::new(Reason::Timeout, format!("it took more than {} s", limit.as_secs_f64())),
        }
    };
    failure.response(form)
}

/// What was done so far, for Prometheus.
async fn metrics(State(server): State<Arc<Server>>) -> Response {
    let embedder = server.embedder.as_ref().map(|served| ("embedder", &*served.queue.counts));
    let reranker = server.reranker.as_ref().map(|served| ("reranker", &*served.queue.counts));
    let mut response = Response::new(Body::from(server.metrics.text(embedder.into_iter().chain(reranker))));
    let kind = HeaderValue::from_static("text/plain; version=0.0.4");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}

async fn serve(server: Arc<Server>, listener: TcpListener) -> io::Result<()> {
    listener.set_nonblocking(true)?;
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let mut stop = Stop::new()?;
    let is_local = server.key.is_none() && listener.local_addr()?.ip().is_loopback();
    let router = router(&server, is_local);
    let connections = GracefulShutdown::new();
    let mut http = http1::Builder::new();
    // axum's own loop has no clock, and would wait for heads forever.
    http.timer(TokioTimer::new()).header_read_timeout(HEAD);
    loop {
        let stream = tokio::select! {
            () = stop.told() => break,
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                Err(_) => {
                    tokio::time::sleep(ACCEPT_AGAIN).await;
                    continue;
                }
            },
        };
        // Answers are written whole.
        let _ = stream.set_nodelay(true);
        let stream = Writing::new(stream, server.limits.timeout);
        let connection = http.serve_connection(TokioIo::new(stream), TowerToHyperService::new(router.clone()));
        let connection = connections.watch(connection);
        // Whoever hung up has no use for an error.
        tokio::spawn(async move { drop(connection.await) });
    }
    // From here on nobody is let in.
    drop(listener);
    tokio::select! {
        () = connections.shutdown() => {}
        () = stop.told() => {}
        // No request takes longer.
        () = tokio::time::sleep(server.limits.timeout) => {}
    }
    Ok(())
}

/// How a process is told to stop.
#[cfg(unix)]
struct Stop {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
}

#[cfg(unix)]
impl Stop {
    fn new() -> io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self { interrupt: signal(SignalKind::interrupt())?, terminate: signal(SignalKind::terminate())? })
    }

    async fn told(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

#[cfg(not(unix))]
struct Stop;

#[cfg(not(unix))]
impl Stop {
    fn new() -> io::Result<Self> {
        Ok(Self)
    }

    async fn told(&mut self) {
        // Where the handler cannot be set, nothing stops the server but its end.
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(key: Option<&str>) -> Server {
        let access = Access { key: key.map(str::to_owned), ..Access::default() };
        Server::new(None, None, Limits::default(), access, "auto").expect("a server")
    }

    #[test]
    fn only_the_whole_key_is_let_in() {
        let server = server(Some("secret"));
        let given = |value: &str| {
            [(header::AUTHORIZATION, HeaderValue::from_str(value).expect("a header"))].into_iter().collect()
        };
        for value in ["Bearer secret", "bearer secret"] {
            assert!(server.knows(&given(value)), "{value}");
        }
        for value in
            ["", "Bearer", "Bearer ", "Bearer secre", "Bearer secret1", "Bearer Secret", "Basic secret", "secret"]
        {
            assert!(!server.knows(&given(value)), "{value}");
        }
        assert!(!server.knows(&HeaderMap::new()));
        assert!(self::server(None).knows(&HeaderMap::new()));
        let empty = Access { key: Some(String::new()), ..Access::default() };
        assert!(Server::new(None, None, Limits::default(), empty, "auto").is_err(), "an empty key protects nothing");
    }

    #[test]
    fn only_this_machines_names_are_its_host() {
        let access = Access { hosts: vec!["box.example".to_owned()], ..Access::default() };
        let server = Server::new(None, None, Limits::default(), access, "auto").expect("a server");
        for host in ["localhost", "LocalHost:8080", "127.0.0.1:1", "127.0.0.1", "[::1]", "[::1]:8080", "box.example:80"]
        {
            assert!(server.is_called(host), "{host}");
        }
        for host in ["", "evil.example", "evil.example:8080", "localhost.evil.example", "127.0.0.1.evil.example", "x:y"]
        {
            assert!(!server.is_called(host), "{host}");
        }
    }

    #[test]
    fn what_is_no_origin_is_refused() {
        for origin in ["https://example.org", "http://localhost:8080", "null", "*"] {
            assert!(cors(&[origin.to_owned()]).is_ok_and(|layer| layer.is_some()), "{origin}");
        }
        for origin in ["", "example.org", "https://example.org/", "https://", "http://a\n"] {
            assert!(cors(&[origin.to_owned()]).is_err(), "{origin}");
        }
    }
}
