//! One request and its answer: what remote providers need of the surroundings, and no more.

use std::{fmt, time::Duration};

use crate::error::{Code, Error, Result};

/// Most bytes of an answer that says what went wrong; what follows is not read.
const MAX_FAILURE: usize = 1 << 16;

/// A request; always a POST.
#[derive(Clone)]
pub struct HttpRequest {
    pub url: String,
    /// Names in lower case, each once.
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    /// A bound for clients that cannot be stopped from outside; who sends waits no longer than this anyway.
    pub timeout: Duration,
    /// Most bytes of an answer, after it was decompressed.
    pub max_body: usize,
}

/// Values of headers are secrets, and texts may be.
impl fmt::Debug for HttpRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.headers.iter().map(|(name, _)| name.as_str()).collect();
        write!(f, "POST {} {names:?}, {} bytes", self.url, self.body.len())
    }
}

/// An answer, whatever its status.
#[derive(Debug, Clone, Default)]
pub struct HttpResponse {
    pub status: u16,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl HttpResponse {
    /// The first header of this name, which is written in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(other, _)| other == name).map(|(_, value)| value.as_str())
    }

    /// Whether it is what was asked for.
    pub fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }

    /// Takes the next bytes of the body; `false` when no more of it are wanted. Of an answer that is no success the beginning
    /// serves; one that should hold the result is refused when it is larger than `max_body`.
    pub fn push(&mut self, bytes: &[u8], max_body: usize) -> Result<bool> {
        if self.is_success() {
            if bytes.len() > max_body.saturating_sub(self.body.len()) {
                let message = format!("the answer is larger than {max_body} bytes");
                return Err(Error::new(Code::InvalidResponse, "body", message));
            }
            if self.body.try_reserve(bytes.len()).is_err() {
                return Err(Error::new(Code::OutOfMemory, "body", "no memory for the answer"));
            }
            self.body.extend_from_slice(bytes);
            return Ok(true);
        }
        let room = MAX_FAILURE.saturating_sub(self.body.len());
        self.body.extend_from_slice(&bytes[..bytes.len().min(room)]);
        Ok(bytes.len() < room)
    }
}

/// A client, and with it the clock and the chance that retries need: tests bring their own.
///
/// Redirects are not to be followed: they would carry a key to wherever an answer points.
pub trait Http {
    /// Sends a request and reads the answer to its end. A future that is dropped ends the request. Fails with
    /// [`Code::Network`] when there is no whole answer.
    fn send(&self, request: HttpRequest) -> impl Future<Output = Result<HttpResponse>>;

    /// Waits.
    fn sleep(&self, duration: Duration) -> impl Future<Output = ()> {
        super::sleep(duration)
    }

    /// Time since 1970.
    fn now(&self) -> Duration {
        super::now()
    }

    /// A number from 0 up to, and without, 1.
    fn random(&self) -> f64 {
        super::random()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_is_bounded_and_a_failure_is_cut() {
        let mut response = HttpResponse { status: 200, ..HttpResponse::default() };
        assert!(response.push(&[1; 6], 10).expect("fits"));
        assert!(response.push(&[1; 4], 10).expect("fits"));
        assert_eq!(response.push(&[1; 1], 10).expect_err("too large").code(), Code::InvalidResponse);
        let mut response = HttpResponse { status: 500, ..HttpResponse::default() };
        assert!(response.push(&[1; 6], 10).expect("no bound"));
        assert!(!response.push(&vec![1; 2 * MAX_FAILURE], 10).expect("cut"));
        assert_eq!(response.body.len(), MAX_FAILURE);
    }

    #[test]
    fn a_request_does_not_print_what_it_carries() {
        let headers = vec![("authorization".to_owned(), "Bearer sk-secret".to_owned())];
        let (timeout, body) = (Duration::ZERO, b"private".to_vec());
        let request = HttpRequest { url: "https://example.com".to_owned(), headers, body, timeout, max_body: 0 };
        assert_eq!(format!("{request:?}"), "POST https://example.com [\"authorization\"], 7 bytes");
    }
}
