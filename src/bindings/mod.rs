//! The surface for JavaScript: convert, call, convert back. `pkg/src/engine.ts` and `pkg/src/remote.ts` are its only users, and
//! `pkg/src/protocol.ts` describes what goes in and comes out.
//!
//! Of it a module has the part that its features name, `local` or `remote`: who asks a provider needs no engine.

#[cfg(feature = "local")]
mod local;
#[cfg(feature = "remote")]
mod remote;
mod rows;

use std::sync::Mutex;

use js_sys::{Array, Function, JsString};
use serde::Serialize;
use wasm_bindgen::{JsCast, JsValue, prelude::wasm_bindgen};
use web_sys::{AbortSignal, console};

use crate::{Code, Error, ProviderError, Result, Watch};

/// An error as JavaScript sees it; `pkg/src/errors.ts` makes a `WickError` of it.
#[derive(Serialize)]
struct Failure<'a> {
    code: &'a str,
    at: &'a str,
    message: String,
    provider: Option<ProviderFailure<'a>>,
}

/// What a remote provider said.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ProviderFailure<'a> {
    name: &'a str,
    status: Option<u16>,
    code: Option<&'a str>,
    r#type: Option<&'a str>,
    param: Option<&'a str>,
    retryable: bool,
    request_id: Option<&'a str>,
    retry_after_ms: Option<f64>,
}

impl<'a> ProviderFailure<'a> {
    fn new(details: &'a ProviderError) -> Self {
        Self {
            name: &details.provider,
            status: details.status,
            code: details.code.as_deref(),
            r#type: details.kind.as_deref(),
            param: details.param.as_deref(),
            retryable: details.retryable,
            request_id: details.request_id.as_deref(),
            retry_after_ms: details.retry_after.map(|wait| wait.as_secs_f64() * 1e3),
        }
    }
}

impl From<Error> for JsValue {
    fn from(error: Error) -> Self {
        let failure = Failure {
            code: error.code().as_str(),
            at: error.at(),
            message: error.to_string(),
            provider: error.provider().map(ProviderFailure::new),
        };
        serde_wasm_bindgen::to_value(&failure).unwrap_or_else(|_| JsValue::from_str(failure.code))
    }
}

/// An answer as a plain object.
fn answer<T: Serialize>(value: &T) -> Result<JsValue> {
    serde_wasm_bindgen::to_value(value).map_err(|error| Error::new(Code::Executor, "answer", error.to_string()))
}

fn options<T: serde::de::DeserializeOwned>(at: &str, value: &JsValue) -> Result<T> {
    serde_wasm_bindgen::from_value(value.clone())
        .map_err(|error| Error::new(Code::InvalidOption, at, error.to_string()))
}

/// A string. A lone surrogate has no UTF-8 form, so it is refused rather than replaced.
fn text(at: impl Fn() -> String, value: JsValue) -> Result<String> {
    let invalid = |message| Error::new(Code::InvalidText, at(), message);
    let text: JsString = value.dyn_into().map_err(|_| invalid("not a string"))?;
    if !text.is_valid_utf16() {
        return Err(invalid("it holds a lone surrogate"));
    }
    Ok(String::from(&text))
}

/// Most UTF-16 units of all strings of a call. In UTF-8 they may be three times as many bytes, and a
/// module has 4 GB.
const MOST_UNITS: f64 = 268_435_456.0;

/// The strings of an array.
fn texts(values: &Array) -> Result<Vec<String>> {
    let length = |value: JsValue| value.dyn_ref::<JsString>().map_or(0.0, |text| f64::from(text.length()));
    if values.iter().map(length).sum::<f64>() > MOST_UNITS {
        let message = format!("longer than {MOST_UNITS} UTF-16 units in all; encode fewer at once");
        return Err(Error::new(Code::InvalidText, "texts", message));
    }
    values.iter().enumerate().map(|(index, value)| text(|| format!("text {index}"), value)).collect()
}

/// Tells a JavaScript function, and asks an `AbortSignal`.
struct Caller {
    progress: Option<Function>,
    signal: Option<AbortSignal>,
}

impl Caller {
    fn tell(&self, done: f64, total: Option<f64>, file: Option<&str>) {
        if let Some(progress) = &self.progress {
            // A listener that throws must not end the call it listens to.
            let _ = progress.call3(&JsValue::UNDEFINED, &done.into(), &total.into(), &file.into());
        }
    }
}

impl Watch for Caller {
    fn loaded(&self, loaded: u64, total: Option<u64>, file: &str) {
        self.tell(loaded as f64, total.map(|total| total as f64), Some(file));
    }

    fn warned(&self, message: &str) {
        console::warn_1(&format!("wick-embed: {message}").into());
    }

    fn encoded(&self, done: usize, total: usize) {
        self.tell(done as f64, Some(total as f64), None);
    }

    fn cancelled(&self) -> bool {
        self.signal.as_ref().is_some_and(AbortSignal::aborted)
    }
}

/// What the first panic said, in whichever thread: those after it are its consequences.
static PANIC: Mutex<String> = Mutex::new(String::new());

/// Keeps a panic's message: all that JavaScript sees of one is a trap.
#[wasm_bindgen(start)]
fn start() {
    std::panic::set_hook(Box::new(|info| {
        let message = info.to_string();
        // Nobody waits for a lock here: its owner may be about to trap.
        if let Ok(mut first) = PANIC.try_lock()
            && first.is_empty()
        {
            *first = message;
        }
    }));
}

/// What the first panic said.
#[wasm_bindgen(js_name = panicMessage)]
pub fn panic_message() -> String {
    PANIC.try_lock().map(|message| message.clone()).unwrap_or_default()
}
