//! What a client is told that gets no vectors: one table from reasons to statuses, in OpenAI's form and in TEI's.
//!
//! Must agree with `ErrorResponse` of both published descriptions (`tests/web/serve-schemas.json`). TEI answers with few types for
//! many reasons, so that its own clients can read them; what happened stands in the message.

use axum::{
    body::Body,
    http::{HeaderValue, StatusCode, header},
    response::Response,
};
use serde::Serialize;

use crate::error::{Code, Error};

/// Why there is no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// The body is not JSON of the form that is documented, or a value cannot be honoured.
    Invalid,
    /// There is no text, or an empty one.
    Empty,
    /// More texts than a request may have.
    TooManyTexts,
    /// A text has more tokens than the model takes, and may not be cut.
    TooLong,
    /// More bytes than a request may have.
    TooManyBytes,
    /// The body is not said to be JSON. Another page's form could send it unasked otherwise.
    NotJson,
    /// No key, or a wrong one.
    Key,
    /// The `Host` is not this machine's: as a rule a page whose name was pointed here.
    Host,
    NoSuchPath,
    NoSuchMethod,
    /// The request names a model that is not served.
    NoSuchModel,
    /// No model that is served gives this.
    NotGiven,
    /// Not done in the time that a request has.
    Timeout,
    /// Too much is waiting already.
    Busy,
    /// A model is gone: said of the server, not to a request.
    Unhealthy,
    /// The model failed.
    Model(Code),
}

/// A reason in words.
#[derive(Debug, Clone)]
pub struct Failure {
    pub reason: Reason,
    pub message: String,
    /// The field of the request that is to blame.
    pub param: Option<String>,
}

/// Whose form an answer has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    OpenAi,
    Tei,
}

impl Form {
    /// The form of a path, whether there is such a path or not.
    pub fn of(path: &str) -> Self {
        if path == "/v1" || path.starts_with("/v1/") { Form::OpenAi } else { Form::Tei }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let param = (error.code() == Code::InvalidOption).then(|| error.at().to_owned());
        Self { reason: Reason::Model(error.code()), message: error.to_string(), param }
    }
}

impl Failure {
    pub fn new(reason: Reason, message: impl Into<String>) -> Self {
        Self { reason, message: message.into(), param: None }
    }

    pub fn at(mut self, param: &str) -> Self {
        self.param = Some(param.to_owned());
        self
    }

    /// The model's thread is gone.
    pub fn crashed() -> Self {
        Self::new(Reason::Model(Code::Crashed), "the model is gone; the server must be started again")
    }

    /// Status, and OpenAI's type and code.
    fn openai(&self) -> (StatusCode, &'static str, Option<&'static str>) {
        const REQUEST: &str = "invalid_request_error";
        match self.reason {
            Reason::Invalid | Reason::Empty | Reason::TooManyTexts => (StatusCode::BAD_REQUEST, REQUEST, None),
            Reason::TooLong => (StatusCode::BAD_REQUEST, REQUEST, Some("context_length_exceeded")),
            Reason::TooManyBytes => (StatusCode::PAYLOAD_TOO_LARGE, REQUEST, Some("request_too_large")),
            Reason::NotJson => (StatusCode::UNSUPPORTED_MEDIA_TYPE, REQUEST, None),
            Reason::Key => (StatusCode::UNAUTHORIZED, REQUEST, Some("invalid_api_key")),
            Reason::Host => (StatusCode::FORBIDDEN, REQUEST, Some("host_not_allowed")),
            Reason::NoSuchPath => (StatusCode::NOT_FOUND, REQUEST, Some("unknown_url")),
            Reason::NoSuchMethod => (StatusCode::METHOD_NOT_ALLOWED, REQUEST, None),
            Reason::NoSuchModel | Reason::NotGiven => (StatusCode::NOT_FOUND, REQUEST, Some("model_not_found")),
            Reason::Timeout => (StatusCode::REQUEST_TIMEOUT, "server_error", Some("timeout")),
            Reason::Busy => (StatusCode::TOO_MANY_REQUESTS, "requests", Some("rate_limit_exceeded")),
            Reason::Unhealthy => (StatusCode::SERVICE_UNAVAILABLE, "server_error", None),
            Reason::Model(code) => match code {
                Code::InvalidText | Code::InvalidOption | Code::InvalidTokenizer => {
                    (StatusCode::BAD_REQUEST, REQUEST, Some(code.as_str()))
                }
                _ => (StatusCode::INTERNAL_SERVER_ERROR, "server_error", Some(code.as_str())),
            },
        }
    }

    /// Status, and TEI's type.
    fn tei(&self) -> (StatusCode, &'static str) {
        match self.reason {
            Reason::Invalid => (StatusCode::UNPROCESSABLE_ENTITY, "Validation"),
            Reason::Empty => (StatusCode::BAD_REQUEST, "Empty"),
            Reason::TooManyTexts | Reason::TooLong | Reason::TooManyBytes => {
                (StatusCode::PAYLOAD_TOO_LARGE, "Validation")
            }
            Reason::NotGiven => (StatusCode::FAILED_DEPENDENCY, "Backend"),
            Reason::Busy | Reason::Timeout => (self.openai().0, "Overloaded"),
            Reason::Unhealthy => (StatusCode::SERVICE_UNAVAILABLE, "Unhealthy"),
            Reason::NotJson
            | Reason::Key
            | Reason::Host
            | Reason::NoSuchPath
            | Reason::NoSuchMethod
            | Reason::NoSuchModel => (self.openai().0, "Validation"),
            Reason::Model(code) => match code {
                Code::InvalidText | Code::InvalidTokenizer => (StatusCode::UNPROCESSABLE_ENTITY, "Tokenizer"),
                Code::InvalidOption => (StatusCode::UNPROCESSABLE_ENTITY, "Validation"),
                _ => (StatusCode::FAILED_DEPENDENCY, "Backend"),
            },
        }
    }

    pub fn response(&self, form: Form) -> Response {
        #[derive(Serialize)]
        struct OpenAi<'a> {
            error: Detail<'a>,
        }
        #[derive(Serialize)]
        struct Detail<'a> {
            message: &'a str,
            r#type: &'static str,
            param: Option<&'a str>,
            code: Option<&'static str>,
        }
        #[derive(Serialize)]
        struct Tei<'a> {
            error: &'a str,
            error_type: &'static str,
        }
        let message = self.message.as_str();
        let mut response = match form {
            Form::OpenAi => {
                let (status, r#type, code) = self.openai();
                json(status, &OpenAi { error: Detail { message, r#type, param: self.param.as_deref(), code } })
            }
            Form::Tei => {
                let (status, error_type) = self.tei();
                json(status, &Tei { error: message, error_type })
            }
        };
        let headers = response.headers_mut();
        match self.reason {
            Reason::Busy => drop(headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"))),
            Reason::Key => drop(headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"))),
            _ => {}
        }
        response
    }
}

/// A value as an answer.
pub fn json(status: StatusCode, value: &impl Serialize) -> Response {
    let (status, body) = match serde_json::to_vec(value) {
        Ok(body) => (status, body),
        // Nothing that is written here is a map with keys that are no strings.
        Err(_) => (StatusCode::INTERNAL_SERVER_ERROR, b"{}".to_vec()),
    };
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}
