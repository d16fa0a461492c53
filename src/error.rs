//! The one error type: a stable code, where it happened, and the cause underneath.
//!
//! Codes are the same words in Rust, in TypeScript (`pkg/src/errors.ts`) and in `docs/errors.md`; a test compares the
//! three. A code is never renamed.

use std::{fmt, sync::Arc, time::Duration};

/// What went wrong, as a word that programs may match on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Code {
    /// A text is not a string, or holds a lone surrogate.
    InvalidText,
    /// An option has a value that this model or build cannot honour.
    InvalidOption,
    /// A file that the model needs is not there (404, or absent from the map or folder).
    MissingFile,
    /// A server answered with a status other than success or 404.
    Http,
    /// No answer, or the connection broke before the last byte.
    Network,
    /// A provider did not answer in the time that it was given.
    Timeout,
    /// A provider's answer is not what it documents: no JSON, another number of vectors, another length, values that are no numbers.
    InvalidResponse,
    /// A file that should hold JSON does not.
    InvalidJson,
    /// A configuration lacks a value, or holds one that contradicts the rest.
    InvalidConfig,
    /// `tokenizer.json` cannot be used.
    InvalidTokenizer,
    /// A weights file breaks a rule of its format; the message names the rule.
    InvalidWeights,
    /// The weights file lacks a tensor that the architecture needs.
    MissingTensor,
    /// A tensor has another shape than the configuration says.
    WrongShape,
    /// A weight, or a computed vector, is NaN or infinite.
    NotFinite,
    /// The architecture or a stage of the pipeline is not supported.
    UnsupportedModel,
    /// The caller's signal asked to stop.
    Aborted,
    /// The embedder was disposed.
    Disposed,
    /// Memory ran out, the host's or a device's.
    OutOfMemory,
    /// A file of this machine could not be read or written.
    Io,
    /// The device that was asked for is not there, or computes wrong values.
    NoDevice,
    /// The GPU was lost; the model must be loaded again.
    DeviceLost,
    /// The executor (Candle or a device under it) failed.
    Executor,
    /// The engine trapped; the embedder must be loaded again.
    Crashed,
}

impl Code {
    /// Every code, in the order of the documentation.
    pub const ALL: [Code; 23] = [
        Code::InvalidText,
        Code::InvalidOption,
        Code::MissingFile,
        Code::Http,
        Code::Network,
        Code::Timeout,
        Code::InvalidResponse,
        Code::InvalidJson,
        Code::InvalidConfig,
        Code::InvalidTokenizer,
        Code::InvalidWeights,
        Code::MissingTensor,
        Code::WrongShape,
        Code::NotFinite,
        Code::UnsupportedModel,
        Code::Aborted,
        Code::Disposed,
        Code::OutOfMemory,
        Code::Io,
        Code::NoDevice,
        Code::DeviceLost,
        Code::Executor,
        Code::Crashed,
    ];

    /// The code as it is written in every language.
    pub const fn as_str(self) -> &'static str {
        match self {
            Code::InvalidText => "invalid_text",
            Code::InvalidOption => "invalid_option",
            Code::MissingFile => "missing_file",
            Code::Http => "http",
            Code::Network => "network",
            Code::Timeout => "timeout",
            Code::InvalidResponse => "invalid_response",
            Code::InvalidJson => "invalid_json",
            Code::InvalidConfig => "invalid_config",
            Code::InvalidTokenizer => "invalid_tokenizer",
            Code::InvalidWeights => "invalid_weights",
            Code::MissingTensor => "missing_tensor",
            Code::WrongShape => "wrong_shape",
            Code::NotFinite => "not_finite",
            Code::UnsupportedModel => "unsupported_model",
            Code::Aborted => "aborted",
            Code::Disposed => "disposed",
            Code::OutOfMemory => "out_of_memory",
            Code::Io => "io",
            Code::NoDevice => "no_device",
            Code::DeviceLost => "device_lost",
            Code::Executor => "executor",
            Code::Crashed => "crashed",
        }
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A failure: [`code`](Error::code), [`at`](Error::at) (a file, a tensor, a text's index) and the cause, if any.
#[derive(Debug, Clone)]
pub struct Error {
    code: Code,
    at: String,
    message: String,
    cause: Option<Arc<dyn std::error::Error + Send + Sync>>,
    provider: Option<Box<ProviderError>>,
}

/// What a remote provider's failure brings beside code, place and message. A key is in none of it.
#[derive(Debug, Clone, Default, PartialEq)]
#[non_exhaustive]
pub struct ProviderError {
    /// Which: `openai`, `tei`.
    pub provider: String,
    /// The status of the answer, where there was one.
    pub status: Option<u16>,
    /// The provider's own word or number for what went wrong.
    pub code: Option<String>,
    /// Its own kind of error.
    pub kind: Option<String>,
    /// The field of the request that it complains of.
    pub param: Option<String>,
    /// Whether the same request may succeed later.
    pub retryable: bool,
    /// What its support asks for.
    pub request_id: Option<String>,
    /// How long it asks to wait.
    pub retry_after: Option<Duration>,
}

/// `Result` with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// An error of `code` at a place, e.g. `Error::new(Code::MissingFile, "config.json", "not found")`.
    pub fn new(code: Code, at: impl Into<String>, message: impl Into<String>) -> Self {
        Self { code, at: at.into(), message: message.into(), cause: None, provider: None }
    }

    /// Adds what lay underneath.
    pub fn caused_by(mut self, cause: impl std::error::Error + Send + Sync + 'static) -> Self {
        self.cause = Some(Arc::new(cause));
        self
    }

    /// Adds what a remote provider said.
    pub fn from_provider(mut self, details: ProviderError) -> Self {
        self.provider = Some(Box::new(details));
        self
    }

    /// Another place.
    pub(crate) fn placed(mut self, at: impl Into<String>) -> Self {
        self.at = at.into();
        self
    }

    /// Every string that it holds, to take out of it what must not be shown. A cause cannot be changed, so it goes.
    pub(crate) fn redacted(mut self, redact: impl Fn(&mut String)) -> Self {
        self.cause = None;
        redact(&mut self.at);
        redact(&mut self.message);
        if let Some(details) = &mut self.provider {
            let ProviderError { code, kind, param, request_id, .. } = details.as_mut();
            [code, kind, param, request_id].into_iter().flatten().for_each(redact);
        }
        self
    }

    /// What a remote provider said, if this is its failure.
    pub fn provider(&self) -> Option<&ProviderError> {
        self.provider.as_deref()
    }

    /// The stable code.
    pub fn code(&self) -> Code {
        self.code
    }

    /// Where: a file name, a tensor name, `text 3`, an operation.
    pub fn at(&self) -> &str {
        &self.at
    }

    /// The sentence without the place.
    pub fn message(&self) -> &str {
        &self.message
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.at, self.message)?;
        if let Some(cause) = &self.cause {
            write!(f, " ({cause})")?;
        }
        Ok(())
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.cause.as_deref().map(|cause| cause as _)
    }
}
