//! Answers that say what went wrong, in every form that there is, and whether to try again.

use std::time::Duration;

use serde_json::Value;

use super::answer::excerpt;
use crate::{
    error::{Code, Error, ProviderError},
    platform::HttpResponse,
};

/// Where providers put what their support asks for.
const REQUEST_IDS: [&str; 4] = ["x-request-id", "x-debug-trace-id", "mistral-correlation-id", "x-kong-request-id"];

/// The error of an answer that is no success. `now` is the time since 1970, for answers that name a date.
pub(super) fn refused(provider: &str, response: &HttpResponse, now: Duration) -> Error {
    let status = response.status;
    let json: Option<Value> = serde_json::from_slice(&response.body).ok();
    let body = json.as_ref().map(read).unwrap_or_default();
    // A redirect is followed by nobody, and 0 is what a page gets to see of one.
    let said = match (status, body.message) {
        (0 | 300..400, _) => "it redirects: name the address that it leads to".to_owned(),
        (_, Some(message)) => message,
        (_, None) => excerpt(&response.body),
    };
    let details = ProviderError {
        provider: provider.to_owned(),
        status: Some(status),
        retryable: is_retryable(provider, response, body.code.as_deref(), body.kind.as_deref()),
        retry_after: retry_after(response, now).or(body.retry_delay),
        code: body.code,
        kind: body.kind,
        param: body.param,
        request_id: request_id(response).or(body.id),
    };
    Error::new(Code::Http, provider, format!("the server answered {status}: {said}")).from_provider(details)
}

/// The details of a success that cannot be used.
pub(super) fn unreadable(provider: &str, response: &HttpResponse) -> ProviderError {
    let (provider, status) = (provider.to_owned(), Some(response.status));
    ProviderError { provider, status, request_id: request_id(response), ..ProviderError::default() }
}

fn request_id(response: &HttpResponse) -> Option<String> {
    REQUEST_IDS.iter().find_map(|name| response.header(name).map(str::to_owned))
}

/// Whether a smaller request may be taken: 413, or OpenAI's 400 for too many tokens at once (`max_tokens_per_request`, as in
/// <https://github.com/langchain-ai/langchain/issues/31227>).
pub(super) fn is_too_large(error: &Error) -> bool {
    let Some(details) = error.provider() else {
        return false;
    };
    details.status == Some(413) || details.code.as_deref() == Some("max_tokens_per_request")
}

fn is_retryable(provider: &str, response: &HttpResponse, code: Option<&str>, kind: Option<&str>) -> bool {
    // What a server says of its own answer counts, as in OpenAI's clients.
    match response.header("x-should-retry") {
        Some("true") => return true,
        Some("false") => return false,
        _ => {}
    }
    match response.status {
        // Money does not come by waiting.
        429 => ![code, kind].contains(&Some("insufficient_quota")),
        408 | 500 | 502..600 => true,
        409 => provider == "openai",
        _ => false,
    }
}

/// What a body says.
#[derive(Default)]
struct Body {
    message: Option<String>,
    code: Option<String>,
    kind: Option<String>,
    param: Option<String>,
    id: Option<String>,
    retry_delay: Option<Duration>,
}

fn word(value: &Value) -> Option<String> {
    match value {
        Value::String(word) => Some(word.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}

/// Reads `{error: {message, ...}}`, `{error: "text"}`, `{message}`, `{detail: "text"}`, `{detail: [{loc, msg, type}]}`, and a
/// `message` that is one of these again.
fn read(json: &Value) -> Body {
    let inner = match json {
        Value::Object(fields) => fields.get("error").filter(|error| error.is_object()).unwrap_or(json),
        // Google's servers wrap the object in a list when they were asked for a stream.
        Value::Array(list) if list.len() == 1 && list[0].is_object() => return read(&list[0]),
        _ => return Body { message: word(json), ..Body::default() },
    };
    let field = |name: &str| inner.get(name).and_then(word);
    let nested = || {
        let message = inner.get("message").filter(|message| message.is_object())?;
        // One step only: an answer may nest as deep as it likes.
        message.get("detail").and_then(detail).or_else(|| message.get("message").and_then(word))
    };
    let message =
        field("message").or_else(nested).or_else(|| field("error")).or_else(|| inner.get("detail").and_then(detail));
    let first = inner.get("detail").and_then(|detail| detail.get(0));
    let kind = field("type").or_else(|| field("error_type")).or_else(|| field("status"));
    let delays = inner.get("details").and_then(Value::as_array).into_iter().flatten();
    Body {
        message,
        code: field("code"),
        kind: kind.or_else(|| word(first?.get("type")?)),
        param: field("param").or_else(|| location(first?)),
        id: json.get("id").and_then(word),
        retry_delay: delays.filter_map(|detail| delay(detail.get("retryDelay")?.as_str()?)).next(),
    }
}

fn detail(detail: &Value) -> Option<String> {
    match detail {
        Value::Array(problems) => {
            let problem = |problem: &Value| {
                let message = problem.get("msg").and_then(word).or_else(|| word(problem))?;
                Some(location(problem).map_or_else(|| message.clone(), |place| format!("{place}: {message}")))
            };
            let problems: Vec<String> = problems.iter().filter_map(problem).collect();
            (!problems.is_empty()).then(|| problems.join("; "))
        }
        Value::Object(fields) => fields.get("message").or_else(|| fields.get("msg")).and_then(word),
        other => word(other),
    }
}

fn location(problem: &Value) -> Option<String> {
    let place: Vec<String> = problem.get("loc")?.as_array()?.iter().filter_map(word).collect();
    (!place.is_empty()).then(|| place.join("."))
}

/// A duration of protobuf's JSON: `12s`, `0.5s`.
fn delay(text: &str) -> Option<Duration> {
    seconds(text.strip_suffix('s')?)
}

fn seconds(text: &str) -> Option<Duration> {
    Duration::try_from_secs_f64(text.trim().parse().ok()?).ok()
}

/// How long the answer asks to wait: `retry-after-ms`, or `retry-after` in seconds or as a date.
fn retry_after(response: &HttpResponse, now: Duration) -> Option<Duration> {
    let milliseconds = response.header("retry-after-ms").and_then(seconds).map(|wait| wait / 1000);
    milliseconds.or_else(|| {
        let text = response.header("retry-after")?;
        seconds(text).or_else(|| Some(date(text)?.saturating_sub(now)))
    })
}

/// `Sun, 06 Nov 1994 08:49:37 GMT` (<https://www.rfc-editor.org/rfc/rfc9110#section-5.6.7>) as the time since 1970.
fn date(text: &str) -> Option<Duration> {
    const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let words: Vec<&str> = text.split_whitespace().collect();
    let &[_, day, month, year, clock, "GMT"] = &words[..] else {
        return None;
    };
    let number =
        |text: &str, range: std::ops::RangeInclusive<i64>| text.parse().ok().filter(|number| range.contains(number));
    let (day, year) = (number(day, 1..=31)?, number(year, 1970..=9999)?);
    let month = MONTHS.iter().position(|&name| name == month)? as i64;
    let mut clock = clock.split(':');
    let mut part = |most| number(clock.next()?, 0..=most);
    let (hour, minute, second) = (part(23)?, part(59)?, part(60)?);
    // Days since 1970 of the civil calendar, with years that begin in March (<https://howardhinnant.github.io/date_algorithms.html>).
    let (year, month) = if month < 2 { (year - 1, month + 10) } else { (year, month - 2) };
    let (era, of_era) = (year / 400, year % 400);
    let day_of_year = (153 * month + 2) / 5 + day - 1;
    let days = era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + day_of_year - 719_468;
    u64::try_from(days * 86_400 + hour * 3600 + minute * 60 + second).ok().map(Duration::from_secs)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: u16, headers: &[(&str, &str)], body: &str) -> HttpResponse {
        let headers = headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        HttpResponse { status, headers, body: body.as_bytes().to_vec() }
    }

    fn error(status: u16, headers: &[(&str, &str)], body: &str) -> (String, ProviderError) {
        let error = refused("openai", &answer(status, headers, body), Duration::from_secs(784_111_700));
        assert_eq!(error.code(), Code::Http);
        (error.message().to_owned(), error.provider().expect("details").clone())
    }

    #[test]
    fn every_form_of_a_body_is_read() {
        let (message, details) = error(
            401,
            &[("x-request-id", "req_1")],
            r#"{"error": {"message": "Incorrect", "type": "invalid_request_error", "param": null, "code": "invalid_api_key"}}"#,
        );
        assert_eq!(message, "the server answered 401: Incorrect");
        assert_eq!(details.code.as_deref(), Some("invalid_api_key"));
        assert_eq!(details.kind.as_deref(), Some("invalid_request_error"));
        assert_eq!((details.param, details.request_id.as_deref(), details.status), (None, Some("req_1"), Some(401)));
        let said = |body| error(400, &[], body).0.trim_start_matches("the server answered 400: ").to_owned();
        assert_eq!(said(r#"{"error": "Batch is empty", "error_type": "empty"}"#), "Batch is empty");
        assert_eq!(said(r#"{"message": "too long", "id": "x"}"#), "too long");
        assert_eq!(said(r#"{"detail": "no model"}"#), "no model");
        let body = r#"{"detail": [{"loc": ["body", "input", 0], "msg": "no string", "type": "string_type"}]}"#;
        assert_eq!(said(body), "body.input.0: no string");
        let details = error(422, &[], body).1;
        assert_eq!((details.kind.as_deref(), details.param.as_deref()), (Some("string_type"), Some("body.input.0")));
        assert_eq!(said(r#"{"object": "error", "message": {"detail": [{"loc": ["x"], "msg": "bad"}]}}"#), "x: bad");
        assert_eq!(said("<html>\n <b>Bad Gateway</b></html>"), "<html> <b>Bad Gateway</b></html>");
        assert_eq!(said(""), "it is empty");
        assert_eq!(said("\"text\""), "text");
        assert_eq!(said("[]"), "[]");
        assert_eq!(said("{\"error\": {}}"), "{\"error\": {}}");
        assert_eq!(error(307, &[], "").0, "the server answered 307: it redirects: name the address that it leads to");
        let id = error(400, &[], r#"{"message": "x", "id": "cohere-1"}"#).1.request_id;
        assert_eq!(id.as_deref(), Some("cohere-1"));
        let kind = error(429, &[], r#"{"error": "Model is overloaded", "error_type": "overloaded"}"#).1.kind;
        assert_eq!(kind.as_deref(), Some("overloaded"));
    }

    #[test]
    fn gemini_says_in_the_body_how_long_to_wait() {
        let body = r#"{"error": {"code": 429, "message": "quota", "status": "RESOURCE_EXHAUSTED", "details": [
            {"@type": "type.googleapis.com/google.rpc.QuotaFailure"},
            {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "12.5s"}]}}"#;
        let details = error(429, &[], body).1;
        assert_eq!((details.code.as_deref(), details.kind.as_deref()), (Some("429"), Some("RESOURCE_EXHAUSTED")));
        assert_eq!((details.retry_after, details.retryable), (Some(Duration::from_millis(12_500)), true));
    }

    #[test]
    fn waiting_times_are_read_in_every_form() {
        let wait = |headers: &[(&str, &str)]| error(429, headers, "{}").1.retry_after;
        assert_eq!(wait(&[]), None);
        assert_eq!(wait(&[("retry-after", "3")]), Some(Duration::from_secs(3)));
        assert_eq!(wait(&[("retry-after", "1.5")]), Some(Duration::from_millis(1500)));
        assert_eq!(wait(&[("retry-after", "9"), ("retry-after-ms", "250")]), Some(Duration::from_millis(250)));
        // 77 seconds after `now`, and long before it.
        assert_eq!(wait(&[("retry-after", "Sun, 06 Nov 1994 08:49:37 GMT")]), Some(Duration::from_secs(77)));
        assert_eq!(wait(&[("retry-after", "Thu, 01 Jan 1970 00:00:00 GMT")]), Some(Duration::ZERO));
        for bad in
            ["soon", "-1", "NaN", "1e400", "Sun, 06 Foo 1994 08:49:37 GMT", "Sun, 06 Nov 1994 99:49:37 GMT", "Sun, 06"]
        {
            assert_eq!(wait(&[("retry-after", bad)]), None, "{bad}");
        }
        assert_eq!(date("Thu, 29 Feb 2024 12:00:00 GMT"), Some(Duration::from_secs(1_709_208_000)));
    }

    #[test]
    fn what_may_pass_is_tried_again() {
        let retryable = |status, headers: &[(&str, &str)], body: &str| error(status, headers, body).1.retryable;
        for status in [408, 409, 429, 500, 502, 503, 504, 529] {
            assert!(retryable(status, &[], ""), "{status}");
        }
        for status in [307, 400, 401, 402, 403, 404, 413, 422, 424, 498, 501] {
            assert!(!retryable(status, &[], ""), "{status}");
        }
        assert!(!retryable(429, &[], r#"{"error": {"message": "m", "code": "insufficient_quota"}}"#));
        assert!(!retryable(500, &[("x-should-retry", "false")], ""));
        assert!(retryable(400, &[("x-should-retry", "true")], ""));
        let conflict = refused("cohere", &answer(409, &[], ""), Duration::ZERO);
        assert!(!conflict.provider().expect("details").retryable);
    }

    #[test]
    fn a_request_that_is_too_large_is_known() {
        assert!(is_too_large(&refused("tei", &answer(413, &[], ""), Duration::ZERO)));
        let body = r#"{"error": {"message": "Requested 453357 tokens, max 300000 tokens per request",
            "type": "max_tokens_per_request", "param": null, "code": "max_tokens_per_request"}}"#;
        assert!(is_too_large(&refused("openai", &answer(400, &[], body), Duration::ZERO)));
        assert!(!is_too_large(&refused("openai", &answer(400, &[], "{}"), Duration::ZERO)));
    }
}
