//! Remote providers: inputs to a request, an answer to a result, one file for each.
//!
//! Nothing here has a network: a provider's file says what a request holds and reads what came back. [`driver`] does for all of them
//! what is alike: batches, concurrency, order, retries. It sends through [`crate::platform::Http`].
//!
//! A provider's file names the documents that it must agree with.

mod answer;
mod batches;
mod cohere;
mod driver;
mod failure;
mod gemini;
mod jina;
mod key;
mod list;
mod mistral;
mod nomic;
mod openai;
mod options;
mod tei;
mod voyage;

#[cfg(test)]
mod tests;

pub use driver::{Call, Driver, Gathered, Rows, refuse_empty};
pub use key::{Headers, Key};
pub use options::{EncodingFormat, RemoteOptions, Truncate};

use options::Field;
use serde_json::{Map, Value};

use crate::{
    call::{OutputKind, Role},
    error::{Code, Error, Result},
    platform::HttpResponse,
};

/// Whose protocol is spoken. Others speak it, too: [`Provider::OpenAi`] serves whoever is compatible with it, by `base_url`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Provider {
    OpenAi,
    Cohere,
    Voyage,
    Jina,
    Mistral,
    Gemini,
    Nomic,
    /// text-embeddings-inference.
    Tei,
}

/// A model that a provider documents.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Model {
    pub name: &'static str,
    /// Components of its vectors, unless others are asked for.
    pub dimensions: usize,
}

impl Provider {
    /// All, in the order of the documentation.
    pub const ALL: [Provider; 8] = [
        Provider::OpenAi,
        Provider::Cohere,
        Provider::Voyage,
        Provider::Jina,
        Provider::Mistral,
        Provider::Gemini,
        Provider::Nomic,
        Provider::Tei,
    ];

    /// The name that options use.
    pub fn as_str(self) -> &'static str {
        self.spec().name
    }

    /// Models whose dimensions are known. Any other name works, too.
    pub fn models(self) -> &'static [Model] {
        self.spec().models
    }

    fn spec(self) -> &'static Spec {
        match self {
            Provider::OpenAi => &openai::SPEC,
            Provider::Cohere => &cohere::SPEC,
            Provider::Voyage => &voyage::SPEC,
            Provider::Jina => &jina::SPEC,
            Provider::Mistral => &mistral::SPEC,
            Provider::Gemini => &gemini::SPEC,
            Provider::Nomic => &nomic::SPEC,
            Provider::Tei => &tei::SPEC,
        }
    }
}

impl std::str::FromStr for Provider {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        let known = Self::ALL.into_iter().find(|provider| provider.as_str() == name);
        known.ok_or_else(|| invalid_option("provider", format!("{name:?} is none of {}", names())))
    }
}

fn names() -> String {
    Provider::ALL.map(Provider::as_str).join(", ")
}

/// What a provider's file gives.
struct Spec {
    name: &'static str,
    /// Where it is; who runs a server of their own names it. A key may decide.
    base_url: fn(key: &str) -> Option<&'static str>,
    auth: Auth,
    models: &'static [Model],
    dense: Option<Endpoint>,
    sparse: Option<Endpoint>,
    rerank: Option<Endpoint>,
}

/// How a key is sent. Never in an address.
enum Auth {
    Bearer,
    Header(&'static str),
}

/// One address of a provider's.
struct Endpoint {
    /// Options that it has a field for; others are refused.
    honours: &'static [Field],
    limits: fn(&RemoteOptions) -> Limits,
    request: fn(&Ask) -> Result<Outgoing>,
    response: fn(&Ask, &HttpResponse) -> Result<Reply>,
    /// Whether vectors are to be divided by their norm here, because the provider does not.
    normalize: fn(&RemoteOptions) -> bool,
}

/// What a request may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Limits {
    inputs: usize,
    /// Of all inputs together.
    tokens: usize,
    /// Whether a result depends on what else is in the request, so that it cannot be split.
    whole: bool,
}

impl Limits {
    const fn new(inputs: usize, tokens: usize) -> Self {
        Self { inputs, tokens, whole: false }
    }
}

/// What is asked for in one request.
struct Ask<'a> {
    options: &'a RemoteOptions,
    role: Role,
    /// Whether a prompt of the caller's stands before each text.
    prompted: bool,
    texts: &'a [String],
    /// Of a reranker.
    query: &'a str,
    /// How many of the documents are wanted, best first; at most as many as there are.
    top: Option<usize>,
}

/// A request without key and headers.
struct Outgoing {
    /// Below the base address.
    path: String,
    body: Value,
}

/// An answer that was read and not yet checked.
struct Reply {
    rows: ReplyRows,
    tokens: Option<f64>,
}

/// One per input: with its index, where the answer has one.
enum ReplyRows {
    Dense(Vec<(Option<usize>, answer::Numbers)>),
    Sparse(Vec<Vec<(u32, f32)>>),
    Scores(Vec<(usize, f32)>),
}

/// A JSON object that fields are put into.
struct Fields(Map<String, Value>);

impl Fields {
    fn new() -> Self {
        Self(Map::new())
    }

    /// Of an API that has the model's name in the body.
    fn of_model(options: &RemoteOptions) -> Self {
        Self::new().with("model", options.model.as_str())
    }

    fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.0.insert(name.to_owned(), value.into());
        self
    }

    fn maybe<V: Into<Value>>(self, name: &str, value: Option<V>) -> Self {
        match value {
            Some(value) => self.with(name, value),
            None => self,
        }
    }

    /// With the caller's own fields, which are not ours: [`RemoteOptions::check`] saw to that.
    fn extended(mut self, options: &RemoteOptions) -> Value {
        for (name, value) in &options.extra {
            self.0.entry(name.as_str()).or_insert_with(|| value.clone());
        }
        Value::Object(self.0)
    }

    fn sent_to(self, path: &str, ask: &Ask) -> Result<Outgoing> {
        Ok(Outgoing { path: path.to_owned(), body: self.extended(ask.options) })
    }
}

impl Spec {
    fn endpoint(&self, kind: OutputKind) -> Result<&Endpoint> {
        let endpoint = match kind {
            OutputKind::Dense => &self.dense,
            OutputKind::Sparse => &self.sparse,
            OutputKind::Tokens => &None,
        };
        let message = || format!("{} has no address for {kind:?} vectors that is known here", self.name);
        endpoint.as_ref().ok_or_else(|| invalid_option("outputs", message()))
    }
}

fn invalid_option(at: &str, message: impl Into<String>) -> Error {
    Error::new(Code::InvalidOption, at, message)
}

/// For endpoints whose provider normalises as it should.
fn as_it_comes(_: &RemoteOptions) -> bool {
    false
}
