//! What the providers' own tests share, and the driver's: with a network, a clock and a chance that are made up.

use std::{cell::RefCell, rc::Rc};

use futures_util::future::LocalBoxFuture;

pub(super) use crate::call::Role::{self, Document, Plain, Query};

use super::{answer::Expected, *};
use crate::{
    call::{QuantizedVectors, Vectors},
    error::ProviderError,
    platform::{Http, HttpRequest, native::block_on},
};
use std::time::Duration;

pub(super) fn json(text: &str) -> Value {
    serde_json::from_str(text).expect("JSON")
}

pub(super) fn fields(text: &str) -> Map<String, Value> {
    serde_json::from_str(text).expect("an object")
}

fn ask<'a>(options: &'a RemoteOptions, texts: &'a [String]) -> Ask<'a> {
    Ask { options, role: Document, prompted: false, texts, query: "", top: None }
}

fn owned(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|&text| text.to_owned()).collect()
}

pub(super) fn embed(options: &RemoteOptions, role: Role, texts: &[&str]) -> Result<Outgoing> {
    let texts = owned(texts);
    let endpoint = options.provider.spec().endpoint(OutputKind::Dense)?;
    (endpoint.request)(&Ask { role, ..ask(options, &texts) })
}

pub(super) fn rerank(options: &RemoteOptions, query: &str, texts: &[&str], top: Option<usize>) -> Result<Outgoing> {
    let texts = owned(texts);
    let endpoint = options.provider.spec().rerank.as_ref().expect("a reranker");
    (endpoint.request)(&Ask { query, top, ..ask(options, &texts) })
}

fn read(
    options: &RemoteOptions,
    endpoint: &Endpoint,
    inputs: usize,
    top: Option<usize>,
    body: &str,
) -> Result<(Rows, Option<f64>)> {
    let texts = vec!["x".to_owned(); inputs];
    let response = HttpResponse { status: 200, headers: Vec::new(), body: body.as_bytes().to_vec() };
    let reply = (endpoint.response)(&Ask { top, ..ask(options, &texts) }, &response)?;
    let dtype = options.dtype();
    let dimensions = options.dimensions.or(options.native_dimensions);
    let expected = Expected {
        inputs,
        scores: top.unwrap_or(inputs),
        dtype,
        width: dimensions.map(|dimensions| dimensions / dtype.dimensions_per_value()),
        normalize: options.normalize.unwrap_or((endpoint.normalize)(options)),
    };
    Ok((answer::checked(reply.rows, expected)?, reply.tokens))
}

pub(super) fn reply(
    options: &RemoteOptions,
    kind: OutputKind,
    inputs: usize,
    body: &str,
) -> Result<(Rows, Option<f64>)> {
    read(options, options.provider.spec().endpoint(kind)?, inputs, None, body)
}

pub(super) fn dense(options: &RemoteOptions, inputs: usize, body: &str) -> Result<(Vectors, Option<f64>)> {
    match reply(options, OutputKind::Dense, inputs, body)? {
        (Rows::Dense(vectors), tokens) => Ok((vectors, tokens)),
        other => panic!("{other:?}"),
    }
}

pub(super) fn quantized(options: &RemoteOptions, inputs: usize, body: &str) -> Result<(QuantizedVectors, Option<f64>)> {
    match reply(options, OutputKind::Dense, inputs, body)? {
        (Rows::Quantized(vectors), tokens) => Ok((vectors, tokens)),
        other => panic!("{other:?}"),
    }
}

pub(super) fn scores(
    options: &RemoteOptions,
    inputs: usize,
    top: Option<usize>,
    body: &str,
) -> Result<Vec<(usize, f32)>> {
    let endpoint = options.provider.spec().rerank.as_ref().expect("a reranker");
    match read(options, endpoint, inputs, top, body)? {
        (Rows::Scores(scores), _) => Ok(scores),
        other => panic!("{other:?}"),
    }
}

/// Where options are refused.
pub(super) fn refused(options: &RemoteOptions) -> String {
    let mut options = options.clone();
    options.key = Some(Key::new("sk-secret").expect("a key"));
    let error = Driver::embedder(Fake::default(), options).err().expect("an error");
    assert_eq!(error.code(), Code::InvalidOption);
    error.at().to_owned()
}

type Answerer = dyn Fn(usize, &HttpRequest) -> Result<HttpResponse>;

/// A network that answers as it is told, and a clock that only sleepers move on. A sleep of the timeout's length is the timeout, and
/// never over.
#[derive(Clone)]
struct Fake {
    answer: Rc<Answerer>,
    log: Rc<RefCell<Log>>,
}

#[derive(Default)]
struct Log {
    now: Duration,
    requests: Vec<(Duration, HttpRequest)>,
    sleeps: Vec<Duration>,
}

impl Default for Fake {
    fn default() -> Self {
        Self::new(|_, _| panic!("no request is expected"))
    }
}

impl Fake {
    fn new(answer: impl Fn(usize, &HttpRequest) -> Result<HttpResponse> + 'static) -> Self {
        Self { answer: Rc::new(answer), log: Rc::default() }
    }

    /// Inputs of each request so far.
    fn inputs(&self) -> Vec<usize> {
        let count = |(_, request): &(Duration, HttpRequest)| texts(request).len();
        self.log.borrow().requests.iter().map(count).collect()
    }
}

impl Http for Fake {
    fn send(&self, request: HttpRequest) -> impl Future<Output = Result<HttpResponse>> {
        let number = {
            let mut log = self.log.borrow_mut();
            let now = log.now;
            log.requests.push((now, request.clone()));
            log.requests.len() - 1
        };
        let answer: LocalBoxFuture<'static, _> = Box::pin(std::future::ready((self.answer)(number, &request)));
        answer
    }

    async fn sleep(&self, duration: Duration) {
        if duration == TIMEOUT {
            return std::future::pending().await;
        }
        let end = self.now() + duration;
        self.log.borrow_mut().sleeps.push(duration);
        // Others begin meanwhile.
        let mut is_over = false;
        std::future::poll_fn(|context| {
            if std::mem::replace(&mut is_over, true) {
                return std::task::Poll::Ready(());
            }
            context.waker().wake_by_ref();
            std::task::Poll::Pending
        })
        .await;
        let mut log = self.log.borrow_mut();
        log.now = log.now.max(end);
    }

    fn now(&self) -> Duration {
        self.log.borrow().now
    }

    fn random(&self) -> f64 {
        1.0
    }
}

const TIMEOUT: Duration = Duration::from_secs(60);

fn texts(request: &HttpRequest) -> Vec<String> {
    let body: Value = serde_json::from_slice(&request.body).expect("JSON");
    serde_json::from_value(body["input"].clone()).expect("texts")
}

fn answer(status: u16, headers: &[(&str, &str)], body: impl Into<String>) -> Result<HttpResponse> {
    let headers = headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    Ok(HttpResponse { status, headers, body: body.into().into_bytes() })
}

/// The right answer: a text's number is its vector. In reverse order, which an index allows.
fn right(request: &HttpRequest) -> Result<HttpResponse> {
    let item = |(index, text): (usize, &String)| format!(r#"{{"index": {index}, "embedding": [{text}, 1]}}"#);
    let items: Vec<String> = texts(request).iter().enumerate().map(item).rev().collect();
    answer(200, &[], format!(r#"{{"data": [{}], "usage": {{"total_tokens": {}}}}}"#, items.join(", "), items.len()))
}

fn options() -> RemoteOptions {
    let mut options = RemoteOptions::new(Provider::OpenAi, "some-model");
    options.key = Some(Key::new("sk-secret").expect("a key"));
    options
}

fn gather(fake: &Fake, options: RemoteOptions, texts: usize) -> Result<Gathered> {
    let driver = Driver::embedder(fake.clone(), options).expect("valid options");
    let texts: Vec<String> = (0..texts).map(|number| number.to_string()).collect();
    let call = Call::Embed { kind: OutputKind::Dense, role: Plain, prompted: false };
    block_on(driver.gather(call, &texts, |_| ()))
}

fn failure(fake: &Fake, options: RemoteOptions, texts: usize) -> (Error, ProviderError) {
    let error = gather(fake, options, texts).expect_err("an error");
    let details = error.provider().expect("details").clone();
    (error, details)
}

#[test]
fn inputs_are_split_and_results_come_in_order() {
    let fake = Fake::new(|_, request| right(request));
    let mut options = options();
    options.batch_size = std::num::NonZeroUsize::new(3);
    let gathered = gather(&fake, options, 8).expect("valid");
    let Rows::Dense(vectors) = gathered.rows else { panic!("dense") };
    let numbers: Vec<f32> = vectors.rows().map(|row| row[0]).collect();
    assert_eq!((numbers, gathered.tokens), ((0..8u8).map(f32::from).collect(), 8));
    assert_eq!(fake.inputs(), [3, 3, 2]);
}

#[test]
fn nothing_is_sent_for_nothing() {
    let Rows::Dense(vectors) = gather(&Fake::default(), options(), 0).expect("valid").rows else { panic!("dense") };
    assert_eq!(vectors.rows().len(), 0);
}

#[test]
fn a_failure_that_may_pass_is_tried_again_after_growing_waits() {
    let fake = Fake::new(|number, request| match number {
        0 => answer(500, &[], "oops"),
        1 => Err(Error::new(Code::Network, "x", "reset")),
        _ => right(request),
    });
    gather(&fake, options(), 1).expect("in the end");
    // Half a second and one, less the whole quarter.
    assert_eq!(fake.log.borrow().sleeps, [Duration::from_millis(375), Duration::from_millis(750)]);
    let fake = Fake::new(|_, _| answer(503, &[("x-request-id", "r1")], "busy"));
    let (error, details) = failure(&fake, options(), 2);
    assert_eq!((fake.inputs().len(), error.code(), error.at()), (3, Code::Http, "openai, texts 0 to 1"));
    assert_eq!((details.status, details.retryable, details.request_id.as_deref()), (Some(503), true, Some("r1")));
}

#[test]
fn a_server_that_says_when_to_come_back_is_obeyed_by_all_requests_of_the_call() {
    let fake = Fake::new(|number, request| match number {
        0 => answer(429, &[("retry-after", "7")], "{}"),
        _ => right(request),
    });
    let mut options = options();
    options.batch_size = std::num::NonZeroUsize::new(1);
    options.concurrency = std::num::NonZeroUsize::new(2).expect("two");
    gather(&fake, options.clone(), 3).expect("in the end");
    let times: Vec<u64> = fake.log.borrow().requests.iter().map(|(time, _)| time.as_secs()).collect();
    assert_eq!((times, fake.log.borrow().sleeps.len()), (vec![0, 7, 7, 7], 2));
    let fake = Fake::new(|_, _| answer(429, &[("retry-after", "3600")], "{}"));
    let (_, details) = failure(&fake, options, 1);
    assert_eq!(
        (fake.inputs().len(), details.retry_after, details.retryable),
        (1, Some(Duration::from_secs(3600)), true)
    );
}

#[test]
fn a_failure_that_does_not_pass_is_not_tried_again() {
    for status in [400, 401, 403, 404, 422, 307] {
        let fake = Fake::new(move |_, _| answer(status, &[], r#"{"error": {"message": "no"}}"#));
        let (_, details) = failure(&fake, options(), 1);
        assert_eq!((fake.inputs().len(), details.status, details.retryable), (1, Some(status), false));
    }
}

#[test]
fn what_is_too_large_is_halved() {
    let fake = Fake::new(|_, request| match texts(request).len() {
        0..3 => right(request),
        _ => answer(413, &[], "too large"),
    });
    let Rows::Dense(vectors) = gather(&fake, options(), 5).expect("in halves").rows else { panic!("dense") };
    assert_eq!(vectors.rows().map(|row| row[0]).collect::<Vec<_>>(), [0.0, 1.0, 2.0, 3.0, 4.0]);
    assert_eq!(fake.inputs(), [5, 2, 3, 1, 2]);
    let fake = Fake::new(|_, _| answer(413, &[], "too large"));
    let (error, details) = failure(&fake, options(), 2);
    assert_eq!((error.at(), details.status), ("openai, text 0", Some(413)));
}

#[test]
fn late_chunking_is_one_request_or_none() {
    let mut options = RemoteOptions::new(Provider::Jina, "jina-embeddings-v3");
    options.key = Some(Key::new("sk-secret").expect("a key"));
    options.late_chunking = Some(true);
    options.native_dimensions = Some(2);
    let fake = Fake::new(|_, request| right(request));
    gather(&fake, options.clone(), 700).expect("valid");
    assert_eq!(fake.inputs(), [700]);
    let fake = Fake::new(|_, _| answer(413, &[], "too large"));
    assert!(gather(&fake, options, 2).is_err());
    assert_eq!(fake.inputs(), [2]);
}

#[test]
fn an_answer_that_is_not_what_is_documented_is_an_error() {
    for body in [
        "<html>",
        "",
        "{}",
        r#"{"data": []}"#,
        r#"{"data": [{"index": 0, "embedding": [1, 2]}]}"#,
        r#"{"data": [{"index": 0, "embedding": [1, 2]}, {"index": 0, "embedding": [1, 2]}]}"#,
        r#"{"data": [{"index": 0, "embedding": [1, 2]}, {"index": 2, "embedding": [1, 2]}]}"#,
        r#"{"data": [{"index": 0, "embedding": [1, 2]}, {"embedding": [1, 2]}]}"#,
        r#"{"data": [{"index": 0, "embedding": [1, 2]}, {"index": 1, "embedding": [1]}]}"#,
        r#"{"data": [{"index": 0, "embedding": [1, null]}, {"index": 1, "embedding": [1, 2]}]}"#,
        r#"{"data": [{"index": 0, "embedding": [1, NaN]}, {"index": 1, "embedding": [1, 2]}]}"#,
        r#"{"data": [{"index": -1, "embedding": [1, 2]}, {"index": 1, "embedding": [1, 2]}]}"#,
    ] {
        let fake = Fake::new(move |_, _| answer(200, &[], body));
        let (error, details) = failure(&fake, options(), 2);
        assert_eq!((error.code(), fake.inputs().len()), (Code::InvalidResponse, 1), "{body}");
        assert_eq!((details.status, details.retryable), (Some(200), false), "{body}");
    }
}

#[test]
fn the_first_answer_decides_how_long_vectors_are() {
    let fake = Fake::new(|number, request| match number {
        0 => right(request),
        _ => answer(200, &[], r#"{"data": [{"index": 0, "embedding": [1, 2, 3]}]}"#),
    });
    let driver = Driver::embedder(fake, options()).expect("valid options");
    let call = Call::Embed { kind: OutputKind::Dense, role: Plain, prompted: false };
    assert_eq!(driver.dimensions(), None);
    block_on(driver.gather(call, &owned(&["1"]), |_| ())).expect("valid");
    assert_eq!(driver.dimensions(), Some(2));
    let error = block_on(driver.gather(call, &owned(&["1"]), |_| ())).expect_err("three values");
    assert_eq!(error.code(), Code::InvalidResponse);
}

#[test]
fn a_key_is_sent_in_a_header_and_shown_nowhere() {
    // A server that repeats everything it was sent.
    let echo = |status| {
        Fake::new(move |_, request: &HttpRequest| {
            let headers = format!("{:?}", request.headers);
            let body = serde_json::json!({ "error": { "message": headers, "code": "sk-secret", "type": headers, "param": headers } });
            answer(status, &[("x-request-id", "sk-secret"), ("retry-after", "100")], body.to_string())
        })
    };
    let mut options = options();
    options.headers = Headers::new([("x-token", "Basic dG9rZW4="), ("accept", "application/json")]).expect("valid");
    for status in [200, 401, 429] {
        let fake = echo(status);
        let (error, _) = failure(&fake, options.clone(), 1);
        let shown = format!("{error} {error:?} {options:?} {:?}", fake.log.borrow().requests);
        assert!(!shown.contains("secret") && !shown.contains("dG9rZW4"), "{shown}");
        let log = fake.log.borrow();
        let request = &log.requests[0].1;
        assert!(request.headers.contains(&("authorization".to_owned(), "Bearer sk-secret".to_owned())));
        assert!(!request.url.contains("secret"));
    }
    // Cut in half it could not be found.
    let long = Fake::new(|_, _| answer(200, &[], format!("{}sk-secret", "x".repeat(470))));
    let (error, _) = failure(&long, options.clone(), 1);
    assert!(!error.to_string().contains("sk-"), "{error}");
    // An answer that is cut inside of the key, and of which white space was most: the cut comes
    // into sight.
    let cut = Fake::new(|_, _| {
        let mut response = answer(500, &[], "")?;
        response.push(format!("{}sk-secret", " ".repeat((1 << 16) - 7)).as_bytes(), 0)?;
        assert!(response.body.ends_with(b"sk-secr"));
        Ok(response)
    });
    let (error, _) = failure(&cut, options.clone(), 1);
    assert!(error.message().ends_with("500: [hidden]"), "{error}");
    options.base_url = Some("https://a.b/sk-secret/v1".to_owned());
    let error = gather(&Fake::default(), options, 1).expect_err("the key is in the address");
    assert_eq!((error.code(), error.at()), (Code::InvalidOption, "baseUrl"));
}

#[test]
fn headers_of_the_caller_replace_ours() {
    let fake = Fake::new(|_, request| right(request));
    let mut options = options();
    options.base_url = Some("http://127.0.0.1:1/v1?api-version=1".to_owned());
    options.headers = Headers::new([("Authorization", "Custom x"), ("API-Key", "azure-key")]).expect("valid");
    gather(&fake, options, 1).expect("valid");
    let log = fake.log.borrow();
    let request = &log.requests[0].1;
    assert_eq!(request.url, "http://127.0.0.1:1/v1/embeddings?api-version=1");
    let mut headers = request.headers.clone();
    headers.sort();
    let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let expected = [
        pair("accept", "application/json"),
        pair("api-key", "azure-key"),
        pair("authorization", "Custom x"),
        pair("content-type", "application/json"),
    ];
    assert_eq!(headers, expected);
}

#[test]
fn a_key_that_is_a_function_is_asked_before_each_request() {
    let fake = Fake::new(|number, request| if number == 0 { answer(500, &[], "") } else { right(request) });
    let count = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let mut options = options();
    options.key = Some(Key::function(std::sync::Arc::new(move || {
        let number = count.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        Box::pin(async move { Ok(format!("sk-{number}-secret")) })
    })));
    gather(&fake, options.clone(), 1).expect("valid");
    let keys = |fake: &Fake| -> Vec<String> {
        let log = fake.log.borrow();
        let header = |(_, request): &(Duration, HttpRequest)| {
            let found = request.headers.iter().find(|(name, _)| name == "authorization").expect("a key");
            found.1.clone()
        };
        log.requests.iter().map(header).collect()
    };
    assert_eq!(keys(&fake), ["Bearer sk-0-secret", "Bearer sk-1-secret"]);
    options.key =
        Some(Key::function(std::sync::Arc::new(|| Box::pin(async { Err(Error::new(Code::Io, "vault", "closed")) }))));
    assert_eq!(gather(&Fake::default(), options, 1).expect_err("no key").code(), Code::Io);
}

#[test]
fn options_are_checked_when_the_embedder_is_made() {
    let at = |change: &dyn Fn(&mut RemoteOptions)| {
        let mut options = options();
        change(&mut options);
        Driver::embedder(Fake::default(), options).err().map(|error| error.at().to_owned())
    };
    assert_eq!(at(&|_| ()), None);
    assert_eq!(at(&|options| options.key = None).as_deref(), Some("apiKey"));
    assert_eq!(at(&|options| (options.key, options.base_url) = (None, Some("http://a".to_owned()))), None);
    assert_eq!(at(&|options| options.model.clear()).as_deref(), Some("model"));
    assert_eq!(at(&|options| options.base_url = Some("a".to_owned())).as_deref(), Some("baseUrl"));
    assert_eq!(at(&|options| options.provider = Provider::Tei).as_deref(), Some("baseUrl"));
    assert_eq!(at(&|options| options.dimensions = Some(0)).as_deref(), Some("dimensions"));
    assert_eq!(at(&|options| options.timeout = Duration::ZERO).as_deref(), Some("timeoutMs"));
    assert_eq!(at(&|options| options.outputs = Some(Vec::new())).as_deref(), Some("outputs"));
    assert_eq!(at(&|options| options.outputs = Some(vec![OutputKind::Sparse])).as_deref(), Some("outputs"));
    assert_eq!(
        at(&|options| options.output_dtype = Some(crate::call::OutputDtype::Int8)).as_deref(),
        Some("outputDtype")
    );
    assert_eq!(at(&|options| options.late_chunking = Some(false)).as_deref(), Some("lateChunking"));
    let error = Driver::reranker(Fake::default(), options()).err().expect("no reranker");
    assert_eq!(error.at(), "provider");
}

#[test]
fn empty_texts_are_refused_before_anything_is_sent() {
    let driver = Driver::embedder(Fake::default(), options()).expect("valid options");
    let call = Call::Embed { kind: OutputKind::Dense, role: Plain, prompted: false };
    let error = block_on(driver.gather(call, &owned(&["a", ""]), |_| ())).expect_err("an empty text");
    assert_eq!((error.code(), error.at()), (Code::InvalidText, "text 1"));
}

#[test]
fn names_are_read_and_told() {
    for provider in Provider::ALL {
        assert_eq!(provider.as_str().parse::<Provider>().expect("its name"), provider);
        let name = Value::String(provider.as_str().to_owned());
        assert_eq!(serde_json::from_value::<Provider>(name).expect("its name"), provider);
    }
    assert!("nobody".parse::<Provider>().is_err());
}
