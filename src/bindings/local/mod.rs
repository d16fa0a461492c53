//! Models that compute here.

mod bm25;
mod embedder;
mod helpers;
mod reranker;

use std::collections::HashMap;

use js_sys::{Array, Function, Object, Promise, Reflect};
use wasm_bindgen::{JsCast, JsValue};
use web_sys::AbortController;

use super::{Caller, options};
use crate::{
    Code, Device, Error, Result,
    hub::Location,
    platform::web::{Caching, Source, WebFiles},
};

/// A device in the words of `LoadOptions.device`.
fn name(device: Device) -> &'static str {
    match device {
        Device::WebGpu => "webgpu",
        Device::Reference => "reference",
        Device::CandleTransformers => "candle-transformers",
        _ => "wasm",
    }
}

fn strings(values: impl IntoIterator<Item = String>) -> Array {
    values.into_iter().map(JsValue::from).collect()
}

/// Where a model is, as `pkg/src/protocol.ts` writes it.
fn source(value: &JsValue) -> Result<Source> {
    let field = |name: &str| Reflect::get(value, &name.into()).unwrap_or(JsValue::UNDEFINED);
    let text = |name: &str| field(name).as_string();
    Ok(match text("kind").as_deref() {
        Some("hub") => {
            let (name, revision, host) = (text("name").unwrap_or_default(), text("revision"), text("host"));
            Source::Location(Location::hub(&name, revision.as_deref(), host.as_deref())?)
        }
        Some("base") => Source::Location(Location::base(&text("url").unwrap_or_default())?),
        // Its values are not data.
        Some("files") => {
            let entries = Object::entries(field("files").unchecked_ref());
            let pair = |entry: JsValue| {
                let entry: Array = entry.unchecked_into();
                (entry.get(0).as_string().unwrap_or_default(), entry.get(1))
            };
            Source::Map(entries.iter().map(pair).collect::<HashMap<_, _>>())
        }
        _ => return Err(Error::new(Code::InvalidOption, "source", "it is no source")),
    })
}

/// How a load reaches files, as `pkg/src/engine.ts` writes it: a function that takes an address and
/// a `RequestInit`, whether it sends headers of the caller's own, and what is done with the cache.
struct Access {
    fetch: Function,
    own_headers: bool,
    caching: Caching,
}

impl Access {
    fn read(value: &JsValue) -> Self {
        let field = |name: &str| Reflect::get(value, &name.into()).unwrap_or(JsValue::UNDEFINED);
        let caching = match field("cache") {
            mode if mode.as_string().is_some_and(|mode| mode == "reload") => Caching::Reload,
            mode if mode.is_falsy() => Caching::Off,
            _ => Caching::On,
        };
        Self { fetch: field("fetch").unchecked_into(), own_headers: field("ownHeaders").is_truthy(), caching }
    }
}

/// Loads a model with `call`, and ends what is still under way when that fails. Gives with it what
/// resolves when all its files are kept, if any are still being written.
async fn load<T>(
    from: &JsValue,
    access: &JsValue,
    progress: Option<Function>,
    abort: AbortController,
    call: impl AsyncFnOnce(&WebFiles, &Caller) -> Result<T>,
) -> Result<(T, Option<Promise>), JsValue> {
    let caller = Caller { progress, signal: Some(abort.signal()) };
    let Access { fetch, own_headers, caching } = Access::read(access);
    let files = WebFiles::new(source(from)?, fetch, abort, caching, own_headers).await;
    let loaded = match call(&files, &caller).await {
        Ok(model) => files.confirm().await.map(|()| model),
        Err(error) => Err(error),
    };
    match loaded {
        Ok(model) => Ok((model, files.keeping())),
        Err(error) => {
            files.give_up(error.code()).await;
            Err(error.into())
        }
    }
}
