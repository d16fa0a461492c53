//! The one error type: a stable code, where it happened, and the cause underneath.
//!
//! Codes are the same words in Rust, in TypeScript (`pkg/src/errors.ts`) and in `docs/errors.md`; a test compares the
//! three. A code is never renamed.

use std::{fmt, sync::Arc};

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
    pub const ALL: [Code; 21] = [
        Code::InvalidText,
        Code::InvalidOption,
        Code::MissingFile,
        Code::Http,
        Code::Network,
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
}

/// `Result` with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// An error of `code` at a place, e.g. `Error::new(Code::MissingFile, "config.json", "not found")`.
    pub fn new(code: Code, at: impl Into<String>, message: impl Into<String>) -> Self {
        Self { code, at: at.into(), message: message.into(), cause: None }
    }

    /// Adds what lay underneath.
    pub fn caused_by(mut self, cause: impl std::error::Error + Send + Sync + 'static) -> Self {
        self.cause = Some(Arc::new(cause));
        self
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
