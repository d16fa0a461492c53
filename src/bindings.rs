//! The surface for JavaScript: convert, call, convert back. `pkg/src/engine.ts` is its only user.

use std::{cell::RefCell, collections::HashMap};

use js_sys::{Array, Float32Array, Function, JsString, Object, Reflect, Uint32Array};
use serde::{Deserialize, Serialize};
use wasm_bindgen::{JsCast, JsValue, prelude::wasm_bindgen};
use web_sys::{AbortController, AbortSignal};

use crate::{
    Code, Embedder, Error, LoadOptions, Result, Role, Watch,
    hub::Location,
    platform::web::{Source, WebFiles},
};

/// An error as JavaScript sees it; `pkg/src/errors.ts` makes a `WickError` of it.
#[derive(Serialize)]
struct Failure<'a> {
    code: &'a str,
    at: &'a str,
    message: String,
}

impl From<Error> for JsValue {
    fn from(error: Error) -> Self {
        let failure = Failure { code: error.code().as_str(), at: error.at(), message: error.to_string() };
        serde_wasm_bindgen::to_value(&failure).unwrap_or_else(|_| JsValue::from_str(failure.code))
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

fn options<T: serde::de::DeserializeOwned>(at: &str, value: &JsValue) -> Result<T> {
    serde_wasm_bindgen::from_value(value.clone())
        .map_err(|error| Error::new(Code::InvalidOption, at, error.to_string()))
}

/// The strings of an array. A lone surrogate has no UTF-8 form, so it is refused rather than replaced.
fn texts(values: &Array) -> Result<Vec<String>> {
    let text = |(index, value): (usize, JsValue)| {
        let invalid = |message| Error::new(Code::InvalidText, format!("text {index}"), message);
        let text: JsString = value.dyn_into().map_err(|_| invalid("not a string"))?;
        if !text.is_valid_utf16() {
            return Err(invalid("it holds a lone surrogate"));
        }
        Ok(String::from(&text))
    };
    values.iter().enumerate().map(text).collect()
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

    fn encoded(&self, done: usize, total: usize) {
        self.tell(done as f64, Some(total as f64), None);
    }

    fn cancelled(&self) -> bool {
        self.signal.as_ref().is_some_and(AbortSignal::aborted)
    }
}

/// A loaded model.
#[wasm_bindgen]
pub struct Engine {
    embedder: Embedder,
}

/// Vectors and usage of one call.
#[wasm_bindgen(getter_with_clone)]
pub struct Encoded {
    /// All vectors, one after the other.
    pub dense: Float32Array,
    pub tokens: usize,
    pub truncated: Uint32Array,
}

#[wasm_bindgen]
impl Engine {
    /// Loads a model. `cache` says whether files are kept; `fetch` takes an address and a `RequestInit`; `abort` stops the
    /// load, and is used to end its requests when it fails.
    pub async fn load(
        from: JsValue,
        load_options: JsValue,
        cache: bool,
        fetch: Function,
        progress: Option<Function>,
        abort: AbortController,
    ) -> Result<Engine, JsValue> {
        let load_options: LoadOptions = options("options", &load_options)?;
        let caller = Caller { progress, signal: Some(abort.signal()) };
        let files = WebFiles::new(source(&from)?, fetch, abort, cache).await;
        match Embedder::load(&files, &load_options, &caller).await {
            Ok(embedder) => Ok(Engine { embedder }),
            Err(error) => {
                files.give_up(error.code()).await;
                Err(error.into())
            }
        }
    }

    /// Encodes an array of strings.
    pub async fn encode(
        &self,
        values: Array,
        role: String,
        progress: Option<Function>,
        signal: Option<AbortSignal>,
    ) -> Result<Encoded, JsValue> {
        let role: Role = role.parse()?;
        let caller = Caller { progress, signal };
        let output = self.embedder.encode(&texts(&values)?, role, &caller).await?;
        let truncated: Vec<u32> = output.usage.truncated.iter().map(|&index| index as u32).collect();
        Ok(Encoded {
            dense: Float32Array::from(output.dense.values.as_slice()),
            tokens: output.usage.tokens,
            truncated: Uint32Array::from(truncated.as_slice()),
        })
    }

    /// `[ids, strings]` of each text.
    pub fn tokenize(&self, values: &Array, role: &str) -> Result<Array, JsValue> {
        let role: Role = role.parse()?;
        let result = Array::new();
        for text in texts(values)? {
            let tokens = self.embedder.tokenize(&text, role)?;
            let ids: Vec<u32> = tokens.iter().map(|token| token.id).collect();
            let strings: Array = tokens.iter().map(|token| JsValue::from_str(&token.text)).collect();
            result.push(&Array::of2(&Uint32Array::from(ids.as_slice()).into(), &strings));
        }
        Ok(result)
    }

    /// Where the model computes, in the words of `LoadOptions.device`.
    #[wasm_bindgen(getter)]
    pub fn device(&self) -> String {
        "wasm".to_owned()
    }

    #[wasm_bindgen(getter)]
    pub fn dimensions(&self) -> usize {
        self.embedder.dimensions()
    }

    #[wasm_bindgen(getter, js_name = maxTokens)]
    pub fn max_tokens(&self) -> usize {
        self.embedder.max_tokens()
    }
}

thread_local! {
    static LAST_PANIC: RefCell<String> = const { RefCell::new(String::new()) };
}

/// Keeps a panic's message: all that JavaScript sees of one is a trap.
#[wasm_bindgen(start)]
fn start() {
    std::panic::set_hook(Box::new(|info| LAST_PANIC.set(info.to_string())));
}

/// What the last panic said.
#[wasm_bindgen(js_name = lastPanic)]
pub fn last_panic() -> String {
    LAST_PANIC.with_borrow(String::clone)
}
