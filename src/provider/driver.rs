//! What is alike for all providers: inputs to requests, several at a time, sent again where that may help, and results in order.

use std::{cell::Cell, ops::Range, pin::pin, sync::OnceLock, time::Duration};

use futures_util::{
    StreamExt,
    future::{Either, select},
    stream,
};

use super::{
    Ask, Auth, Endpoint, Headers, Outgoing, RemoteOptions, Spec,
    answer::{self, Expected},
    batches, failure, invalid_option,
    key::Secrets,
    options::{Field, below},
};
use crate::{
    call::{OutputDtype, OutputKind, QuantizedValues, QuantizedVectors, Role, Vectors},
    error::{Code, Error, ProviderError, Result},
    platform::{Http, HttpRequest},
    sparse::SparseVector,
};

/// Most bytes of an answer: 2,048 vectors of 4,096 dimensions in JSON, with twenty characters for a number, fit.
const MAX_BODY: usize = 256 << 20;

/// The longest that a call waits because a server asks for it; beyond that it fails, and the caller decides.
const MAX_WAIT: Duration = Duration::from_secs(60);

/// The first wait where a server says nothing, and the longest: OpenAI's clients have the same. Each is shortened by chance by up to
/// a quarter.
const FIRST_WAIT: Duration = Duration::from_millis(500);
const LONGEST_BACKOFF: Duration = Duration::from_secs(8);

/// Sends what is asked of one provider.
pub struct Driver<H> {
    http: H,
    options: RemoteOptions,
    /// Values of a vector, as the first answer had them where nothing else says.
    width: OnceLock<usize>,
}

/// What is asked for.
#[derive(Debug, Clone, Copy)]
pub enum Call<'a> {
    /// Vectors of texts. `prompted` says that a prompt of the caller's stands before each already.
    Embed { kind: OutputKind, role: Role, prompted: bool },
    /// Scores of documents for a query, of the `top` best at most.
    Rerank { query: &'a str, top: Option<usize> },
}

/// Results of consecutive inputs.
#[derive(Debug, Clone, PartialEq)]
pub enum Rows {
    Dense(Vectors),
    Quantized(QuantizedVectors),
    Sparse(Vec<SparseVector>),
    /// Which document, and its score; in any order.
    Scores(Vec<(usize, f32)>),
}

/// The result of a call.
#[derive(Debug, Clone, PartialEq)]
pub struct Gathered {
    /// One for each input, in their order.
    pub rows: Rows,
    /// As the provider counts them, where it does.
    pub tokens: usize,
}

/// What the requests of one call have in common.
struct Shared<'a> {
    call: Call<'a>,
    endpoint: &'a Endpoint,
    texts: &'a [String],
    whole: bool,
    /// Before this time since 1970 the server wants no request.
    not_before: Cell<Duration>,
}

/// An answer's part of the result: where it begins, its rows, and its tokens.
type Part = (usize, Rows, f64);

impl<H: Http> Driver<H> {
    /// For vectors. Refuses what the provider cannot honour.
    pub fn embedder(http: H, options: RemoteOptions) -> Result<Self> {
        let spec = options.provider.spec();
        match options.outputs.as_deref() {
            Some([]) => return Err(invalid_option("outputs", "it is empty")),
            None => options.check(spec, &[(spec.endpoint(OutputKind::Dense)?, true)])?,
            Some(kinds) => {
                let endpoint = |&kind| Ok((spec.endpoint(kind)?, kind == OutputKind::Dense));
                options.check(spec, &kinds.iter().map(endpoint).collect::<Result<Vec<_>>>()?)?;
            }
        }
        Ok(Self { http, options, width: OnceLock::new() })
    }

    /// For scores.
    pub fn reranker(http: H, options: RemoteOptions) -> Result<Self> {
        let spec = options.provider.spec();
        options.check(spec, &[(rerank_endpoint(spec)?, false)])?;
        for (name, given) in [("outputs", options.outputs.is_some()), ("prompts", options.prompts.is_some())] {
            if given {
                return Err(invalid_option(name, "a reranker has none"));
            }
        }
        Ok(Self { http, options, width: OnceLock::new() })
    }

    pub fn options(&self) -> &RemoteOptions {
        &self.options
    }

    /// Dimensions of a dense vector: as asked for, as documented, or as the first answer had them.
    pub fn dimensions(&self) -> Option<usize> {
        let learned = || Some(self.width.get()? * self.options.dtype().dimensions_per_value());
        self.options.known_dimensions().or_else(learned)
    }

    /// Does it. `progress` is told how many inputs are done. If one request fails for good, so does the call, and the others end;
    /// a call that is dropped ends them as well.
    pub async fn gather(&self, call: Call<'_>, texts: &[String], progress: impl Fn(usize)) -> Result<Gathered> {
        let spec = self.options.provider.spec();
        let endpoint = match call {
            Call::Embed { kind, .. } => spec.endpoint(kind)?,
            Call::Rerank { query, .. } => {
                refuse_empty(query, || "query".to_owned())?;
                rerank_endpoint(spec)?
            }
        };
        for (index, text) in texts.iter().enumerate() {
            refuse_empty(text, || format!("text {index}"))?;
        }
        let mut limits = (endpoint.limits)(&self.options);
        limits.inputs = self.options.batch_size.map_or(limits.inputs, Into::into);
        limits.tokens = self.options.batch_tokens.map_or(limits.tokens, Into::into);
        let beside = match call {
            Call::Embed { .. } => 0,
            Call::Rerank { query, .. } => batches::estimate(query),
        };
        let (whole, not_before) = (limits.whole, Cell::default());
        let shared = Shared { call, endpoint, texts, whole, not_before };
        let requests = batches::plan(texts, limits, beside).into_iter().map(|range| self.batch(&shared, range));
        let mut answers = pin!(stream::iter(requests).buffer_unordered(self.options.concurrency.get()));
        let (mut parts, mut done) = (Vec::new(), 0);
        while let Some(batch) = answers.next().await {
            let (inputs, batch) = batch?;
            parts.extend(batch);
            done += inputs;
            progress(done);
        }
        parts.sort_unstable_by_key(|&(start, ..)| start);
        let mut gathered = Gathered { rows: self.nothing(call), tokens: 0 };
        for (start, rows, tokens) in parts {
            gathered.rows.append(start, rows)?;
            // A cast saturates, and a provider may say anything.
            gathered.tokens = gathered.tokens.saturating_add(tokens as usize);
        }
        Ok(gathered)
    }

    /// The result for no inputs.
    fn nothing(&self, call: Call) -> Rows {
        let dtype = self.options.dtype();
        let values = match (call, dtype) {
            (Call::Rerank { .. }, _) => return Rows::Scores(Vec::new()),
            (Call::Embed { kind: OutputKind::Sparse, .. }, _) => return Rows::Sparse(Vec::new()),
            (_, OutputDtype::Float) => {
                return Rows::Dense(Vectors { width: self.dimensions().unwrap_or_default(), values: Vec::new() });
            }
            (_, OutputDtype::Int8) => QuantizedValues::Int8(Vec::new()),
            (_, OutputDtype::Uint8) => QuantizedValues::Uint8(Vec::new()),
            (_, OutputDtype::Binary) => QuantizedValues::Binary(Vec::new()),
            (_, OutputDtype::Ubinary) => QuantizedValues::Ubinary(Vec::new()),
        };
        let width = self.dimensions().unwrap_or_default() / dtype.dimensions_per_value();
        Rows::Quantized(QuantizedVectors { width, values })
    }

    /// Sends a batch, in halves where it is too large for the server.
    async fn batch(&self, shared: &Shared<'_>, range: Range<usize>) -> Result<(usize, Vec<Part>)> {
        let inputs = range.len();
        let mut pending = vec![range];
        let mut parts = Vec::new();
        while let Some(range) = pending.pop() {
            match self.persistent(shared, range.clone()).await {
                Ok((rows, tokens)) => parts.push((range.start, rows, tokens)),
                Err(error) if range.len() > 1 && !shared.whole && failure::is_too_large(&error) => {
                    let middle = range.start + range.len() / 2;
                    pending.extend([middle..range.end, range.start..middle]);
                }
                Err(error) => return Err(error),
            }
        }
        Ok((inputs, parts))
    }

    /// Sends a request until it succeeds, or fails in a way that does not pass, or has failed often enough.
    async fn persistent(&self, shared: &Shared<'_>, range: Range<usize>) -> Result<(Rows, f64)> {
        let mut failures = 0;
        loop {
            let early = shared.not_before.get().saturating_sub(self.http.now()).min(MAX_WAIT);
            if !early.is_zero() {
                self.http.sleep(early).await;
            }
            let (texts, timeout) = (&shared.texts[range.clone()], self.options.timeout);
            let attempt = pin!(self.attempt(shared, texts));
            let error = match select(attempt, pin!(self.http.sleep(timeout))).await {
                Either::Left((Ok(done), _)) => return Ok(done),
                Either::Left((Err(error), _)) => error,
                Either::Right(_) => {
                    self.unanswered(Error::new(Code::Timeout, "", format!("no answer within {timeout:?}")))
                }
            };
            let (retryable, asked) = error.provider().map_or((false, None), |it| (it.retryable, it.retry_after));
            if !retryable || failures >= self.options.max_retries || asked.is_some_and(|wait| wait > MAX_WAIT) {
                return Err(self.placed(error, range));
            }
            match asked {
                // The other requests of this call would only be refused as well.
                Some(wait) => shared.not_before.set(shared.not_before.get().max(self.http.now() + wait)),
                None => self.http.sleep(backoff(failures, self.http.random())).await,
            }
            failures += 1;
        }
    }

    /// Sends a request once. What its error says is without secrets.
    async fn attempt(&self, shared: &Shared<'_>, texts: &[String]) -> Result<(Rows, f64)> {
        let key = match &self.options.key {
            Some(key) => key.get().await?,
            None => String::new(),
        };
        let mut secrets = Secrets::default();
        secrets.add(&key);
        self.options.headers.secrets().for_each(|value| secrets.add(value));
        self.exchange(shared, texts, &key).await.map_err(|error| {
            error.redacted(|text| {
                secrets.hide(text);
                answer::shorten(text);
            })
        })
    }

    async fn exchange(&self, shared: &Shared<'_>, texts: &[String], key: &str) -> Result<(Rows, f64)> {
        let (options, spec, endpoint) = (&self.options, self.options.provider.spec(), shared.endpoint);
        let mut ask = Ask { options, role: Role::Plain, prompted: false, texts, query: "", top: None };
        match shared.call {
            Call::Embed { role, prompted, .. } => (ask.role, ask.prompted) = (role, prompted),
            Call::Rerank { query, top } => {
                // Providers refuse 0.
                let top = top.map(|top| top.clamp(1, texts.len())).filter(|_| endpoint.honours.contains(&Field::Top));
                (ask.query, ask.top) = (query, top);
            }
        }
        let request = self.request(spec, &(endpoint.request)(&ask)?, key)?;
        let response = match self.http.send(request).await {
            Ok(response) => response,
            Err(error) => return Err(self.unanswered(error)),
        };
        if !response.is_success() {
            return Err(failure::refused(spec.name, &response, self.http.now()));
        }
        let dtype = options.dtype();
        let known = options.known_dimensions().map(|dimensions| dimensions / dtype.dimensions_per_value());
        let expected = Expected {
            inputs: texts.len(),
            scores: ask.top.unwrap_or(texts.len()),
            dtype,
            width: known.or(self.width.get().copied()),
            normalize: options.normalize.unwrap_or((endpoint.normalize)(options)),
        };
        let read = (endpoint.response)(&ask, &response).and_then(|reply| {
            let rows = answer::checked(reply.rows, expected)?;
            self.learn(&rows)?;
            Ok((rows, reply.tokens.unwrap_or_default()))
        });
        read.map_err(|error| error.from_provider(failure::unreadable(spec.name, &response)))
    }

    /// Keeps the width of the first vectors, and holds those that come to it.
    fn learn(&self, rows: &Rows) -> Result<()> {
        let width = match rows {
            Rows::Dense(vectors) => vectors.width,
            Rows::Quantized(vectors) => vectors.width,
            Rows::Sparse(_) | Rows::Scores(_) => return Ok(()),
        };
        match *self.width.get_or_init(|| width) {
            known if known == width => Ok(()),
            known => Err(answer::invalid(format!("vectors of the answer have {width} values and not {known}"))),
        }
    }

    fn request(&self, spec: &Spec, outgoing: &Outgoing, key: &str) -> Result<HttpRequest> {
        let own = || (spec.base_url)(key).unwrap_or_default();
        let url = below(self.options.base_url.as_deref().unwrap_or_else(own), &outgoing.path);
        if !key.is_empty() && url.contains(key) {
            return Err(invalid_option("baseUrl", "it holds the key, which belongs in no address"));
        }
        let mut headers = Headers::default();
        headers.put("content-type", "application/json".to_owned());
        headers.put("accept", "application/json".to_owned());
        if !key.is_empty() {
            match spec.auth {
                Auth::Bearer => headers.put("authorization", format!("Bearer {key}")),
                Auth::Header(name) => headers.put(name, key.to_owned()),
            }
        }
        for (name, value) in self.options.headers.iter() {
            headers.put(name, value.to_owned());
        }
        let body = serde_json::to_vec(&outgoing.body)
            .map_err(|error| Error::new(Code::Executor, spec.name, error.to_string()))?;
        let headers = headers.into_vec();
        Ok(HttpRequest { url, headers, body, timeout: self.options.timeout, max_body: MAX_BODY })
    }

    /// A provider's error, with the inputs of its request as the place; others have one of their own.
    fn placed(&self, error: Error, range: Range<usize>) -> Error {
        let name = self.options.provider.as_str();
        match (error.provider().is_some(), range.len()) {
            (false, _) => error,
            (true, 1) => error.placed(format!("{name}, text {}", range.start)),
            (true, _) => error.placed(format!("{name}, texts {} to {}", range.start, range.end - 1)),
        }
    }

    /// An error without an answer. Where the network or time is to blame, it may pass.
    fn unanswered(&self, error: Error) -> Error {
        let provider = self.options.provider.as_str().to_owned();
        let retryable = matches!(error.code(), Code::Network | Code::Timeout);
        error.from_provider(ProviderError { provider, retryable, ..ProviderError::default() })
    }
}

impl Rows {
    /// Puts rows whose first input is `start` behind these.
    fn append(&mut self, start: usize, other: Rows) -> Result<()> {
        let fits = match (self, other) {
            (Rows::Dense(rows), Rows::Dense(more)) => {
                if rows.values.is_empty() {
                    rows.width = more.width;
                }
                let fits = rows.width == more.width;
                rows.values.extend(more.values);
                fits
            }
            (Rows::Quantized(rows), Rows::Quantized(more)) => {
                if rows.is_empty() {
                    rows.width = more.width;
                }
                rows.append(more)
            }
            (Rows::Sparse(rows), Rows::Sparse(more)) => {
                rows.extend(more);
                true
            }
            (Rows::Scores(rows), Rows::Scores(more)) => {
                rows.extend(more.into_iter().map(|(index, score)| (start + index, score)));
                true
            }
            _ => false,
        };
        match fits {
            true => Ok(()),
            false => Err(answer::invalid("answers of one call have vectors of several lengths")),
        }
    }
}

fn rerank_endpoint(spec: &Spec) -> Result<&Endpoint> {
    spec.rerank.as_ref().ok_or_else(|| invalid_option("provider", format!("{} has no reranker", spec.name)))
}

/// Providers refuse a request for one such text.
pub fn refuse_empty(text: &str, at: impl Fn() -> String) -> Result<()> {
    match text.is_empty() {
        true => Err(Error::new(Code::InvalidText, at(), "it is empty, which providers refuse")),
        false => Ok(()),
    }
}

/// The wait after so many failures, where the server says nothing.
fn backoff(failures: u32, random: f64) -> Duration {
    let wait = FIRST_WAIT.saturating_mul(2u32.saturating_pow(failures)).min(LONGEST_BACKOFF);
    wait.mul_f64(1.0 - 0.25 * random.clamp(0.0, 1.0))
}
