//! Remote providers. What goes in and comes out is as of local models; there is nothing to load.

use std::rc::Rc;

use js_sys::{Array, Function, Promise, futures::JsFuture};
use serde::Serialize;
use wasm_bindgen::{JsCast, JsValue, prelude::wasm_bindgen};
use web_sys::AbortSignal;

use super::{
    Caller, answer,
    rows::{Encode, Encoded, Ranked},
    text, texts,
};
use crate::{
    Code, Error, Key, OutputKind, RemoteEmbedder, RemoteOptions, RemoteReranker, Result,
    platform::{
        KeyFunction,
        web::{Client, executor::promise},
    },
};

#[wasm_bindgen]
pub struct RemoteEmbedderEngine(Rc<RemoteEmbedder<Client>>);

#[wasm_bindgen]
pub struct RemoteRerankerEngine(Rc<RemoteReranker<Client>>);

#[derive(Serialize)]
struct Described<'a> {
    provider: &'static str,
    model: &'a str,
    /// Absent as long as nothing says.
    dimensions: Option<usize>,
    outputs: &'a [OutputKind],
}

/// The options of [`RemoteOptions`] as JSON, for an object of a caller's may do anything when it is read; and the key beside them: a string, a
/// function that gives one or a promise of one, or nothing.
fn remote_options(json: &str, key: JsValue) -> Result<RemoteOptions> {
    let mut remote: RemoteOptions =
        serde_json::from_str(json).map_err(|error| Error::new(Code::InvalidOption, "options", error.to_string()))?;
    let invalid = |message| Error::new(Code::InvalidOption, "apiKey", message);
    remote.key = match key.dyn_into::<Function>() {
        Ok(function) => Some(Key::function(asking(function))),
        Err(key) if key.is_null() || key.is_undefined() => None,
        Err(key) => Some(Key::new(key.as_string().ok_or_else(|| invalid("it is neither a string nor a function"))?)?),
    };
    Ok(remote)
}

fn asking(function: Function) -> KeyFunction {
    Rc::new(move || {
        let given = function.call0(&JsValue::UNDEFINED);
        Box::pin(async move {
            // What it throws is not repeated: it may have the key in it.
            let failed = |_| Error::new(Code::InvalidOption, "apiKey", "the function that gives the key failed");
            let key = JsFuture::from(Promise::resolve(&given.map_err(failed)?)).await.map_err(failed)?;
            key.as_string().ok_or_else(|| Error::new(Code::InvalidOption, "apiKey", "the function gave no string"))
        })
    })
}

#[wasm_bindgen]
impl RemoteEmbedderEngine {
    /// Sends nothing. `fetch` takes an address and a `RequestInit`.
    pub fn open(json: &str, key: JsValue, fetch: Function) -> Result<RemoteEmbedderEngine, JsValue> {
        Ok(Self(Rc::new(RemoteEmbedder::new(Client::new(fetch), remote_options(json, key)?)?)))
    }

    /// What it is.
    pub fn describe(&self) -> Result<JsValue, JsValue> {
        let RemoteOptions { provider, model, .. } = self.0.options();
        let (dimensions, outputs) = (self.0.dimensions(), self.0.outputs());
        Ok(answer(&Described { provider: provider.as_str(), model, dimensions, outputs })?)
    }

    /// Encodes an array of strings.
    pub fn encode(
        &self,
        values: Array,
        encode_options: JsValue,
        progress: Option<Function>,
        signal: Option<AbortSignal>,
    ) -> Promise {
        let embedder = self.0.clone();
        promise(async move {
            let encode_options = Encode::read(&encode_options)?;
            let output = embedder.encode(&texts(&values)?, encode_options, &Caller { progress, signal }).await?;
            Ok(Encoded::answer(output, None)?)
        })
    }
}

#[wasm_bindgen]
impl RemoteRerankerEngine {
    /// As [`RemoteEmbedderEngine::open`].
    pub fn open(json: &str, key: JsValue, fetch: Function) -> Result<RemoteRerankerEngine, JsValue> {
        Ok(Self(Rc::new(RemoteReranker::new(Client::new(fetch), remote_options(json, key)?)?)))
    }

    /// What it is.
    pub fn describe(&self) -> Result<JsValue, JsValue> {
        let RemoteOptions { provider, model, .. } = self.0.options();
        Ok(answer(&Described { provider: provider.as_str(), model, dimensions: None, outputs: &[] })?)
    }

    /// Scores and orders an array of strings for a query.
    pub fn rerank(
        &self,
        query: JsValue,
        documents: Array,
        top_k: Option<usize>,
        progress: Option<Function>,
        signal: Option<AbortSignal>,
    ) -> Promise {
        let reranker = self.0.clone();
        promise(async move {
            let query = text(|| "query".to_owned(), query)?;
            let ranked = reranker.rerank(&query, &texts(&documents)?, top_k, &Caller { progress, signal }).await?;
            Ok(Ranked::answer(&ranked, None)?)
        })
    }
}
