//! Files from addresses, blobs and byte arrays, requests, and time, in a page, a worker or Node.
//!
//! `fetch` is handed in, so that a caller can add headers, and Node can read `file:` addresses. What came from an
//! address is kept in the Cache API where there is one.

mod client;
pub(crate) mod executor;
#[cfg(feature = "local")]
mod pace;

pub use client::Client;
#[cfg(feature = "local")]
pub(crate) use pace::{Clock, Pacer};

#[cfg(not(target_feature = "simd128"))]
compile_error!("the engine is built with SIMD: RUSTFLAGS must not replace the flags of .cargo/config.toml");

use std::{cell::RefCell, collections::HashMap, rc::Rc, time::Duration};

use futures_util::future::LocalBoxFuture;
use js_sys::{Function, Promise, Reflect, Uint8Array, futures::JsFuture};
use wasm_bindgen::{JsCast, JsValue, prelude::wasm_bindgen};
use web_sys::{
    AbortController, AbortSignal, Blob, Cache, CacheQueryOptions, CacheStorage, ReadableStream,
    ReadableStreamDefaultReader, RequestInit, Response,
};

use super::{Body, CHUNK, Files};
use crate::{
    error::{Code, Error, Result},
    hub::Location,
};

/// The name of this package's cache.
const CACHE: &str = "wick-embed";

/// Where a model's files are.
pub enum Source {
    /// In one folder on a server.
    Location(Location),
    /// Anywhere: each file is an address, a `Blob`, an `ArrayBuffer` or a `Uint8Array`.
    Map(HashMap<String, JsValue>),
}

/// How files are fetched.
pub struct WebFiles {
    source: Source,
    fetch: Function,
    abort: AbortController,
    cache: Option<Cache>,
    /// Addresses that this load stored or read, to be forgotten if the model turns out to be broken.
    touched: RefCell<Vec<String>>,
    /// Writes to the cache that are under way.
    stores: RefCell<Vec<Promise>>,
}

impl WebFiles {
    /// Opens the cache, unless `cache` is false or there is none (Node, insecure pages, some private windows). `abort` ends
    /// every request of this load; it must belong to this load alone.
    pub async fn new(source: Source, fetch: Function, abort: AbortController, cache: bool) -> Self {
        let cache = match cache {
            true => open_cache().await,
            false => None,
        };
        Self { source, fetch, abort, cache, touched: RefCell::default(), stores: RefCell::default() }
    }

    /// After a load that failed: ends what is still under way, and drops what this load kept or used if `code` says that a
    /// file itself was to blame, so that what is broken or missing is not found so again.
    pub async fn give_up(&self, code: Code) {
        self.abort.abort();
        let broken = matches!(
            code,
            Code::MissingFile // or its absence would be kept
                | Code::InvalidJson
                | Code::InvalidConfig
                | Code::InvalidTokenizer
                | Code::InvalidWeights
                | Code::MissingTensor
                | Code::WrongShape
                | Code::NotFinite
        );
        let stores = self.stores.take();
        if let (Some(cache), true) = (&self.cache, broken) {
            // A write that ends after the deletion would bring the file back.
            for store in stores {
                let _ = JsFuture::from(store).await;
            }
            for url in self.touched.take() {
                let _ = JsFuture::from(cache.delete_with_str(&url)).await;
            }
        }
    }

    async fn fetched(&self, url: &str, method: &str) -> Result<Response> {
        let init = RequestInit::new();
        init.set_method(method);
        init.set_signal(Some(&self.abort.signal()));
        let promise =
            self.fetch.call2(&JsValue::UNDEFINED, &url.into(), &init).map_err(|error| self.failed(url, &error))?;
        let response = JsFuture::from(Promise::resolve(&promise)).await;
        response.and_then(JsCast::dyn_into).map_err(|error| self.failed(url, &error))
    }

    fn failed(&self, at: &str, error: &JsValue) -> Error {
        failure(&self.abort.signal(), at, error)
    }

    async fn address(&self, url: &str, pinned: bool, keep: bool) -> Result<Option<WebBody>> {
        let response = match self.kept(url, pinned).await? {
            Some(response) => response,
            None => self.fetched(url, "GET").await?,
        };
        let absent = matches!(response.status(), 404 | 410);
        if !absent && !response.ok() {
            let message = format!("the server answered {} {}", response.status(), response.status_text());
            return Err(Error::new(Code::Http, url, message));
        }
        if keep {
            self.keep(url, &response);
        }
        if absent { Ok(None) } else { self.body(url, &response).map(Some) }
    }

    /// Keeps a copy of an answer while it is read; also of one that says that there is no such file, so that a model can
    /// be loaded without a network. A cache that is full is no failure: the model is in memory.
    fn keep(&self, url: &str, response: &Response) {
        let (Some(cache), true) = (&self.cache, url.starts_with("http")) else {
            return;
        };
        // What came from the cache is there already.
        if self.touched.borrow().iter().any(|touched| touched == url) {
            return;
        }
        if let Ok(copy) = response.clone() {
            self.touched.borrow_mut().push(url.to_owned());
            let store = JsFuture::from(cache.put_with_str(url, &copy));
            self.stores.borrow_mut().push(executor::promise(async move {
                let _ = store.await;
                Ok(JsValue::UNDEFINED)
            }));
        }
    }

    /// The kept answer for an address, if it is still what the server has. Without a network what is kept counts.
    async fn kept(&self, url: &str, pinned: bool) -> Result<Option<Response>> {
        let Some(cache) = &self.cache else {
            return Ok(None);
        };
        let options = CacheQueryOptions::new();
        options.set_ignore_vary(true);
        let found = JsFuture::from(cache.match_with_str_and_options(url, &options)).await;
        let Ok(response) = found.and_then(JsCast::dyn_into::<Response>) else {
            return Ok(None);
        };
        if !pinned {
            match self.fetched(url, "HEAD").await {
                Ok(head) if !same(&head, &response) => return Ok(None),
                Err(error) if error.code() == Code::Aborted => return Err(error),
                _ => {}
            }
        }
        self.touched.borrow_mut().push(url.to_owned());
        Ok(Some(response))
    }

    async fn opened(&self, file: &str, keep: bool) -> Result<Option<WebBody>> {
        match &self.source {
            Source::Location(location) => self.address(&location.url(file), location.is_pinned(), keep).await,
            Source::Map(files) => {
                let Some(value) = files.get(file) else {
                    return Ok(None);
                };
                if let Some(url) = value.as_string() {
                    self.address(&url, false, keep).await
                } else if let Some(blob) = value.dyn_ref::<Blob>() {
                    WebBody::stream(file, &blob.stream(), Some(blob.size() as u64), self.abort.signal()).map(Some)
                } else if value.is_instance_of::<js_sys::ArrayBuffer>() || value.is_instance_of::<Uint8Array>() {
                    Ok(Some(WebBody::bytes(file, Uint8Array::new(value))))
                } else {
                    Err(Error::new(
                        Code::InvalidOption,
                        file,
                        "a file is an address, a Blob, an ArrayBuffer or a Uint8Array",
                    ))
                }
            }
        }
    }

    fn body(&self, at: &str, response: &Response) -> Result<WebBody> {
        let header = |name| response.headers().get(name).ok().flatten();
        // With an encoding the length is that of the compressed bytes.
        let length = match header("content-encoding") {
            None => header("content-length").and_then(|length| length.parse().ok()),
            Some(_) => None,
        };
        let Some(stream) = response.body() else {
            return Ok(WebBody::bytes(at, Uint8Array::new_with_length(0)));
        };
        WebBody::stream(at, &stream, length, self.abort.signal())
    }
}

async fn open_cache() -> Option<Cache> {
    let caches = Reflect::get(&js_sys::global(), &"caches".into()).ok()?;
    let caches: CacheStorage = caches.dyn_into().ok()?;
    JsFuture::from(caches.open(CACHE)).await.ok()?.dyn_into().ok()
}

/// Whether a HEAD answer speaks of the bytes that were kept.
fn same(head: &Response, kept: &Response) -> bool {
    let differs = |name: &str| {
        let value = |response: &Response| response.headers().get(name).ok().flatten();
        match (value(head), value(kept)) {
            (Some(now), Some(then)) => now != then,
            _ => false,
        }
    };
    match head.status() {
        status if status == kept.status() && !head.ok() => true,
        404 | 410 => false,
        // A server that refuses HEAD (405, 501) says nothing about the file.
        _ if !head.ok() => true,
        _ => kept.ok() && !differs("etag") && !differs("last-modified") && !differs("content-length"),
    }
}

fn failure(signal: &AbortSignal, at: &str, error: &JsValue) -> Error {
    if signal.aborted() {
        return Error::new(Code::Aborted, at, "the caller asked to stop");
    }
    let reason = Reflect::get(error, &"message".into()).ok().and_then(|message| message.as_string());
    Error::new(Code::Network, at, reason.unwrap_or_else(|| format!("{error:?}")))
}

impl Files for WebFiles {
    type Body = WebBody;

    fn name(&self) -> Option<String> {
        match &self.source {
            Source::Location(location) => Some(location.name().to_owned()),
            Source::Map(_) => None,
        }
    }

    async fn open(&self, file: &str) -> Result<Option<WebBody>> {
        self.opened(file, true).await
    }

    async fn peek(&self, file: &str) -> Result<Option<WebBody>> {
        // What is cut off would be kept to its end, by a download of its own.
        self.opened(file, false).await
    }
}

/// An open file.
pub struct WebBody {
    at: String,
    length: Option<u64>,
    /// Where more comes from, with the signal that may end it.
    stream: Option<(ReadableStreamDefaultReader, AbortSignal)>,
    /// What has come and was not given out. A browser gives as much at a time as there is, megabytes if need be.
    come: Uint8Array,
    /// The last chunk, on this side of the boundary.
    buffer: Vec<u8>,
}

impl WebBody {
    fn stream(at: &str, stream: &ReadableStream, length: Option<u64>, signal: AbortSignal) -> Result<Self> {
        let reader = stream.get_reader().dyn_into().map_err(|error| failure(&signal, at, &error))?;
        let stream = Some((reader, signal));
        Ok(Self { at: at.to_owned(), length, stream, come: Uint8Array::new_with_length(0), buffer: Vec::new() })
    }

    fn bytes(at: &str, bytes: Uint8Array) -> Self {
        Self {
            at: at.to_owned(),
            length: Some(u64::from(bytes.length())),
            stream: None,
            come: bytes,
            buffer: Vec::new(),
        }
    }
}

impl Body for WebBody {
    fn length(&self) -> Option<u64> {
        self.length
    }

    async fn chunk(&mut self) -> Result<Option<&[u8]>> {
        // Streams may give empty chunks.
        while self.come.length() == 0 {
            let Some((reader, signal)) = &self.stream else { return Ok(None) };
            let failed = |error: JsValue| failure(signal, &self.at, &error);
            let result = JsFuture::from(reader.read()).await.map_err(failed)?;
            let value = Reflect::get(&result, &"value".into()).map_err(failed)?;
            // At the end there is none.
            if value.is_undefined() {
                return Ok(None);
            }
            self.come = match value.dyn_into() {
                Ok(chunk) => chunk,
                // Another window's array is none of ours, but as good.
                Err(value) if value.is_object() => Uint8Array::new(&value),
                Err(_) => return Err(Error::new(Code::Network, &self.at, "it does not come as bytes")),
            };
        }
        let chunk = self.come.subarray(0, CHUNK as u32);
        self.come = self.come.subarray(chunk.length(), self.come.length());
        self.buffer.resize(chunk.length() as usize, 0);
        chunk.copy_to(&mut self.buffer);
        Ok(Some(&self.buffer))
    }
}

impl Drop for WebBody {
    fn drop(&mut self) {
        // Ends the download of a body that was not read to its end; on one that was, this does nothing.
        if let Some((reader, _)) = &self.stream {
            let ended = reader.cancel();
            executor::spawn(async move {
                let _ = JsFuture::from(ended).await;
            });
        }
    }
}

/// Where in the cache a name is kept. No server has this address.
#[cfg(feature = "webgpu")]
fn measured(name: &str) -> String {
    format!("https://wick-embed.invalid/measured/{name}")
}

/// What was kept under a name, where there is a cache.
#[cfg(feature = "webgpu")]
pub(crate) async fn remembered(name: &str) -> Option<String> {
    let found = JsFuture::from(open_cache().await?.match_with_str(&measured(name))).await.ok()?;
    JsFuture::from(found.dyn_into::<Response>().ok()?.text().ok()?).await.ok()?.as_string()
}

/// Keeps a text under a name, where there is a cache.
#[cfg(feature = "webgpu")]
pub(crate) async fn remember(name: &str, text: &str) {
    if let (Some(cache), Ok(response)) = (open_cache().await, Response::new_with_opt_str(Some(text))) {
        // What cannot be kept is measured again.
        let _ = JsFuture::from(cache.put_with_str(&measured(name), &response)).await;
    }
}

/// Calls for each item, one after the other. What a browser is told to make, it makes side by side.
#[cfg(feature = "webgpu")]
pub(crate) fn side_by_side<T>(items: &[T], call: impl Fn(&T)) {
    items.iter().for_each(call);
}

/// Gives a provider's key, as often as it is asked.
pub type KeyFunction = Rc<dyn Fn() -> LocalBoxFuture<'static, Result<String>>>;

/// Time since 1970.
pub(crate) fn now() -> Duration {
    Duration::try_from_secs_f64(js_sys::Date::now() / 1e3).unwrap_or_default()
}

/// A number from 0 up to 1.
pub(crate) fn random() -> f64 {
    js_sys::Math::random()
}

#[wasm_bindgen]
extern "C" {
    /// Of the page, a worker or Node, which have them alike; Node's gives an object.
    #[wasm_bindgen(js_name = setTimeout)]
    fn set_timeout(callback: &Function, milliseconds: f64) -> JsValue;

    #[wasm_bindgen(js_name = clearTimeout)]
    fn clear_timeout(timer: &JsValue);
}

/// A timer that ends when nobody waits for it any longer: Node lives as long as one is set.
struct Timer(JsValue);

impl Drop for Timer {
    fn drop(&mut self) {
        clear_timeout(&self.0);
    }
}

/// Waits.
pub(crate) async fn sleep(duration: Duration) {
    // The longest that there is, 24 days.
    let milliseconds = (duration.as_secs_f64() * 1e3).min(f64::from(i32::MAX));
    let mut timer = None;
    let promise = Promise::new(&mut |resolve, _| timer = Some(Timer(set_timeout(&resolve, milliseconds))));
    let _ = JsFuture::from(promise).await;
    drop(timer);
}
