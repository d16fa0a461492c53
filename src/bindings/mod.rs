//! The surface for JavaScript: convert, call, convert back. `pkg/src/engine.ts` is its only user, and `pkg/src/protocol.ts`
//! describes what goes in and comes out.

mod bm25;
mod embedder;
mod helpers;
// The page has no face for it yet, and its modules do without.
#[cfg(feature = "remote")]
mod remote;
mod reranker;

use std::{collections::HashMap, sync::Mutex};

use js_sys::{Array, Float32Array, Function, Int8Array, JsString, Object, Reflect, Uint8Array, Uint32Array};
use serde::{Deserialize, Serialize};
use wasm_bindgen::{JsCast, JsValue, prelude::wasm_bindgen};
use web_sys::{AbortController, AbortSignal, console};

use crate::{
    Code, Error, ProviderError, QuantizedValues, QuantizedVectors, Result, SparseVector, Vectors, Watch,
    hub::Location,
    platform::web::{Source, WebFiles},
};

/// A device in the words of `LoadOptions.device`.
fn device(is_gpu: bool) -> &'static str {
    if is_gpu { "webgpu" } else { "wasm" }
}

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

/// The strings of an array.
fn texts(values: &Array) -> Result<Vec<String>> {
    values.iter().enumerate().map(|(index, value)| text(|| format!("text {index}"), value)).collect()
}

fn strings(values: impl IntoIterator<Item = String>) -> Array {
    values.into_iter().map(JsValue::from).collect()
}

fn numbers(values: impl IntoIterator<Item = usize>) -> Uint32Array {
    // A page has 32 bits, and so have its indices.
    let values: Vec<u32> = values.into_iter().map(|value| value as u32).collect();
    Uint32Array::from(values.as_slice())
}

/// Where each row ends, when rows lie one after the other.
fn ends(lengths: impl IntoIterator<Item = usize>) -> Uint32Array {
    numbers(lengths.into_iter().scan(0, |end, length| {
        *end += length;
        Some(*end)
    }))
}

/// Equally wide vectors, one after the other.
#[derive(Serialize)]
struct DenseRows {
    #[serde(with = "serde_wasm_bindgen::preserve")]
    values: Float32Array,
    width: usize,
}

impl DenseRows {
    fn new(vectors: &Vectors) -> Self {
        Self { values: Float32Array::from(vectors.values.as_slice()), width: vectors.width }
    }
}

/// Equally wide vectors of small integers or of bits, one after the other.
#[derive(Serialize)]
struct QuantizedRows {
    /// `Int8Array` or `Uint8Array`.
    #[serde(with = "serde_wasm_bindgen::preserve")]
    values: JsValue,
    width: usize,
    dtype: &'static str,
}

impl QuantizedRows {
    fn new(vectors: &QuantizedVectors) -> Self {
        let values = match &vectors.values {
            QuantizedValues::Int8(values) | QuantizedValues::Binary(values) => {
                Int8Array::from(values.as_slice()).into()
            }
            QuantizedValues::Uint8(values) | QuantizedValues::Ubinary(values) => {
                Uint8Array::from(values.as_slice()).into()
            }
        };
        Self { values, width: vectors.width, dtype: vectors.dtype().as_str() }
    }
}

/// Sparse vectors, one after the other: few buffers, that a worker can hand over without copying.
#[derive(Serialize)]
struct SparseRows {
    #[serde(with = "serde_wasm_bindgen::preserve")]
    indices: Uint32Array,
    #[serde(with = "serde_wasm_bindgen::preserve")]
    values: Float32Array,
    #[serde(with = "serde_wasm_bindgen::preserve")]
    ends: Uint32Array,
}

impl SparseRows {
    fn new(rows: &[SparseVector]) -> Self {
        let indices: Vec<u32> = rows.iter().flat_map(|row| row.indices.iter().copied()).collect();
        let values: Vec<f32> = rows.iter().flat_map(|row| row.values.iter().copied()).collect();
        Self {
            indices: Uint32Array::from(indices.as_slice()),
            values: Float32Array::from(values.as_slice()),
            ends: ends(rows.iter().map(SparseVector::len)),
        }
    }
}

/// The token vectors of several texts, one after the other; `ends` counts tokens.
#[derive(Serialize)]
struct TokenRows {
    #[serde(with = "serde_wasm_bindgen::preserve")]
    values: Float32Array,
    width: usize,
    #[serde(with = "serde_wasm_bindgen::preserve")]
    ends: Uint32Array,
}

impl TokenRows {
    fn new(rows: &[Vectors]) -> Self {
        let count = rows.iter().map(|row| row.values.len()).sum::<usize>();
        let values = Float32Array::new_with_length(count as u32);
        let mut start = 0;
        for row in rows {
            let end = start + row.values.len() as u32;
            values.subarray(start, end).copy_from(&row.values);
            start = end;
        }
        let width = rows.first().map_or(1, |row| row.width);
        Self { values, width, ends: ends(rows.iter().map(|row| row.rows().len())) }
    }
}

/// Where a model is, as `pkg/src/protocol.ts` writes it.
#[derive(Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
enum SourceKind {
    Hub {
        name: String,
        revision: Option<String>,
        host: Option<String>,
    },
    Base {
        url: String,
    },
    /// With `files`, which is read apart: its values are not data.
    Files,
}

fn source(value: &JsValue) -> Result<Source> {
    let kind: SourceKind = options("source", value)?;
    Ok(match kind {
        SourceKind::Hub { name, revision, host } => {
            Source::Location(Location::hub(&name, revision.as_deref(), host.as_deref())?)
        }
        SourceKind::Base { url } => Source::Location(Location::base(&url)?),
        SourceKind::Files => {
            let files = Reflect::get(value, &"files".into()).unwrap_or(JsValue::UNDEFINED);
            let entries = Object::entries(files.unchecked_ref());
            let pair = |entry: JsValue| {
                let entry: Array = entry.unchecked_into();
                (entry.get(0).as_string().unwrap_or_default(), entry.get(1))
            };
            Source::Map(entries.iter().map(pair).collect::<HashMap<_, _>>())
        }
    })
}

/// Loads a model with `call`, and ends what is still under way when that fails.
async fn load<T>(
    from: &JsValue,
    cache: bool,
    fetch: Function,
    progress: Option<Function>,
    abort: AbortController,
    call: impl AsyncFnOnce(&WebFiles, &Caller) -> Result<T>,
) -> Result<T, JsValue> {
    let caller = Caller { progress, signal: Some(abort.signal()) };
    let files = WebFiles::new(source(from)?, fetch, abort, cache).await;
    match call(&files, &caller).await {
        Ok(model) => Ok(model),
        Err(error) => {
            files.give_up(error.code()).await;
            Err(error.into())
        }
    }
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
