//! A model's files, from addresses, blobs and byte arrays.
//!
//! `fetch` is handed in: `pkg/src/requests.ts` adds headers, limits the time until an answer, and
//! reads `file:` addresses in Node. What came from an address is kept in the Cache API where there
//! is one, under these rules:
//!
//! - A kept file is used after the server said that it has not changed; not even that is asked where
//!   the address names a commit. Requests pass the browser's HTTP cache by (`no-cache`): it may
//!   answer for weeks without asking.
//! - Where the server cannot be reached, or is out of order, what is kept counts.
//! - A load takes all files from one version: it does not combine kept files that nobody vouched
//!   for with files that it fetched, nor files of two commits.
//! - What was fetched with the caller's own headers (a token) is not given to a load before the
//!   server has let that load in, too.

use std::{cell::RefCell, collections::HashMap, pin::pin, time::Duration};

use futures_util::future::{Either, select};
use js_sys::{Array, Function, Promise, Reflect, Uint8Array, futures::JsFuture};
use wasm_bindgen::{JsCast, JsValue};
use web_sys::{
    AbortController, AbortSignal, Blob, Cache, CacheQueryOptions, ReadableStream, ReadableStreamDefaultReader,
    RequestCache, RequestInit, Response, ResponseInit,
};

use super::{
    super::{Body, CHUNK, Files},
    executor,
    kept::{Verdict, Version, is_absent},
    open_cache, sleep,
};
use crate::{
    error::{Code, Error, Result},
    hub::Location,
};

/// How long a body may send nothing.
const STALL: Duration = Duration::from_secs(60);

/// Marks a kept answer to a request that had headers of the caller's own.
const OWN_HEADERS: &str = "x-wick-own-headers";

/// The header by which Hugging Face's hub names the commit of an answer.
const COMMIT: &str = "x-repo-commit";

/// Where a model's files are.
pub enum Source {
    /// In one folder on a server.
    Location(Location),
    /// Anywhere: each file is an address, a `Blob`, an `ArrayBuffer` or a `Uint8Array`.
    Map(HashMap<String, JsValue>),
}

/// What a load does with files of earlier loads, and with its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Caching {
    /// Uses and keeps none.
    Off,
    /// Uses what is still right, and keeps the rest.
    On,
    /// Fetches all, and keeps it in place of what there is.
    Reload,
}

/// How files are fetched.
pub struct WebFiles {
    source: Source,
    fetch: Function,
    abort: AbortController,
    caching: Caching,
    /// Whether `fetch` sends headers of the caller's own.
    own_headers: bool,
    cache: Option<Cache>,
    /// Addresses that this load stored or read, to be forgotten if the model turns out to be broken.
    touched: RefCell<Vec<String>>,
    /// Writes to the cache that are under way; none of them is ever rejected.
    stores: RefCell<Vec<Promise>>,
    history: RefCell<History>,
}

/// Of which versions the files are that a load has opened.
#[derive(Default)]
struct History {
    /// An address that was fetched.
    fetched: Option<String>,
    /// An address whose kept file was taken although the server did not answer.
    unasked: Option<String>,
    /// Whether some kept file was out of date.
    changed: bool,
    /// Kept files that the server vouched for.
    vouched: Vec<(String, Version)>,
    /// The hub's commit, and an address that has it.
    commit: Option<(String, String)>,
}

impl WebFiles {
    /// Opens the cache, if it is to be used and there is one. `abort` ends every request of this
    /// load; it must belong to this load alone.
    pub async fn new(
        source: Source,
        fetch: Function,
        abort: AbortController,
        caching: Caching,
        own_headers: bool,
    ) -> Self {
        let cache = match caching {
            Caching::Off => None,
            Caching::On | Caching::Reload => open_cache().await,
        };
        let (touched, stores, history) = Default::default();
        Self { source, fetch, abort, caching, own_headers, cache, touched, stores, history }
    }

    /// After a load that went well: whether all files are of one version, where one of them
    /// changed while they were read.
    pub async fn confirm(&self) -> Result<()> {
        let History { changed, vouched, .. } = self.history.take();
        for (url, version) in vouched.into_iter().filter(|_| changed) {
            if let Ok(head) = self.fetched(&url, "HEAD", RequestCache::NoCache).await
                && version.judge(&Version::of(&head)) == Verdict::Changed
            {
                return Err(mixed(&url, "the model changed on the server while it was loaded; load it again"));
            }
        }
        Ok(())
    }

    /// Resolves when everything is kept that is to be; none if nothing is.
    pub fn keeping(&self) -> Option<Promise> {
        let stores = self.stores.take();
        (!stores.is_empty()).then(|| Promise::all(&stores.into_iter().collect::<Array>()))
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
        // Those of files that had arrived whole: the engine may end after this. And one that ends after the deletion would bring a
        // broken file back.
        for store in self.stores.take() {
            let _ = JsFuture::from(store).await;
        }
        if let (Some(cache), true) = (&self.cache, broken) {
            for url in self.touched.take() {
                let _ = JsFuture::from(cache.delete_with_str(&url)).await;
            }
        }
    }

    async fn fetched(&self, url: &str, method: &str, cache: RequestCache) -> Result<Response> {
        let init = RequestInit::new();
        init.set_method(method);
        init.set_cache(cache);
        init.set_signal(Some(&self.abort.signal()));
        let promise =
            self.fetch.call2(&JsValue::UNDEFINED, &url.into(), &init).map_err(|error| self.failed(url, &error))?;
        let response = JsFuture::from(Promise::resolve(&promise)).await;
        response.and_then(JsCast::dyn_into).map_err(|error| self.failed(url, &error))
    }

    fn failed(&self, at: &str, error: &JsValue) -> Error {
        failure(&self.abort.signal(), at, error)
    }

    /// Refuses an answer of another commit than that of an earlier answer.
    fn is_of_one_commit(&self, url: &str, response: &Response) -> Result<()> {
        let (Source::Location(_), Some(commit)) = (&self.source, response.headers().get(COMMIT).ok().flatten()) else {
            return Ok(());
        };
        let mut history = self.history.borrow_mut();
        let (first, _) = history.commit.get_or_insert_with(|| (commit.clone(), url.to_owned()));
        if *first == commit {
            return Ok(());
        }
        Err(mixed(url, "the model changed on the server while it was loaded; load it again"))
    }

    /// Refuses to combine what was fetched with what was kept and nobody vouched for.
    fn is_of_one_version(&self) -> Result<()> {
        let history = self.history.borrow();
        let (Some(fetched), Some(unasked)) = (&history.fetched, &history.unasked) else {
            return Ok(());
        };
        let message = format!(
            "the server did not say whether this kept file is still right, and {fetched} had to be fetched, which may \
             be of another version; load again, or with cache: \"reload\""
        );
        Err(mixed(unasked, &message))
    }

    async fn address(&self, url: &str, pinned: bool, keep: bool) -> Result<Option<WebBody>> {
        let kept = match self.caching {
            Caching::On => self.kept(url, pinned).await?,
            Caching::Off | Caching::Reload => None,
        };
        let response = match kept {
            Some(response) => response,
            None => self.get(url, pinned).await?,
        };
        self.is_of_one_version()?;
        let absent = is_absent(response.status());
        if !absent && !response.ok() {
            let message = format!("the server answered {} {}", response.status(), response.status_text());
            return Err(Error::new(Code::Http, url, message));
        }
        if keep {
            self.keep(url, &response);
        }
        // Servers of single-page applications answer what they do not have with their index page.
        let is_page =
            response.headers().get("content-type").ok().flatten().is_some_and(|kind| kind.starts_with("text/html"));
        if absent || is_page { Ok(None) } else { self.body(url, &response).map(Some) }
    }

    async fn get(&self, url: &str, pinned: bool) -> Result<Response> {
        let response = self.fetched(url, "GET", self.request_cache(pinned)).await?;
        self.is_of_one_commit(url, &response)?;
        self.history.borrow_mut().fetched.get_or_insert_with(|| url.to_owned());
        Ok(response)
    }

    /// How the browser's HTTP cache is to be used.
    fn request_cache(&self, pinned: bool) -> RequestCache {
        match self.caching {
            Caching::Reload => RequestCache::Reload,
            _ if pinned => RequestCache::Default,
            Caching::On | Caching::Off => RequestCache::NoCache,
        }
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
        if let Ok(copy) = response.clone().and_then(|copy| self.marked(copy)) {
            self.touched.borrow_mut().push(url.to_owned());
            let store = JsFuture::from(cache.put_with_str(url, &copy));
            self.stores.borrow_mut().push(executor::promise(async move {
                let _ = store.await;
                Ok(JsValue::UNDEFINED)
            }));
        }
    }

    /// An answer with a mark if it was given to a request with headers of the caller's own.
    fn marked(&self, response: Response) -> Result<Response, JsValue> {
        if !self.own_headers {
            return Ok(response);
        }
        let headers = web_sys::Headers::new_with_headers(&response.headers())?;
        headers.set(OWN_HEADERS, "1")?;
        let init = ResponseInit::new();
        init.set_status(response.status());
        init.set_headers(&headers);
        Response::new_with_opt_readable_stream_and_init(response.body().as_ref(), &init)
    }

    /// The kept answer for an address, if it is still what the server has.
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
        let own = self.own_headers || response.headers().has(OWN_HEADERS).unwrap_or(false);
        if !pinned || own {
            let version = Version::of(&response);
            let (verdict, fresh) = self.asked(url, &version).await?;
            let mut history = self.history.borrow_mut();
            match verdict {
                Verdict::Same => history.vouched.push((url.to_owned(), version)),
                Verdict::Unavailable => {
                    history.unasked.get_or_insert_with(|| url.to_owned());
                }
                Verdict::Changed | Verdict::Silent => {
                    history.changed = true;
                    if fresh.is_some() {
                        history.fetched.get_or_insert_with(|| url.to_owned());
                    }
                    return Ok(fresh);
                }
            }
        }
        self.touched.borrow_mut().push(url.to_owned());
        Ok(Some(response))
    }

    /// Asks the server whether a kept file is still right. Where the answer to `HEAD` does not tell,
    /// that to `GET` may, and otherwise is what takes the place of the kept one.
    async fn asked(&self, url: &str, kept: &Version) -> Result<(Verdict, Option<Response>)> {
        let judged = |answer: Result<Response>| match answer {
            Ok(response) => {
                self.is_of_one_commit(url, &response)?;
                Ok((kept.judge(&Version::of(&response)), Some(response)))
            }
            Err(error) if error.code() == Code::Network => Ok((Verdict::Unavailable, None)),
            Err(error) => Err(error),
        };
        let (verdict, _) = judged(self.fetched(url, "HEAD", RequestCache::NoCache).await)?;
        if verdict != Verdict::Silent {
            return Ok((verdict, None));
        }
        let (verdict, response) = judged(self.fetched(url, "GET", RequestCache::NoCache).await)?;
        if matches!(verdict, Verdict::Changed | Verdict::Silent) {
            return Ok((verdict, response));
        }
        if let Some(body) = response.and_then(|response| response.body()) {
            // It is not needed, and would be downloaded to its end.
            let _ = JsFuture::from(body.cancel()).await;
        }
        Ok((verdict, None))
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

fn mixed(at: &str, message: &str) -> Error {
    Error::new(Code::Network, at, message)
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
    pub(super) fn stream(at: &str, stream: &ReadableStream, length: Option<u64>, signal: AbortSignal) -> Result<Self> {
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
            let result = match select(JsFuture::from(reader.read()), pin!(sleep(STALL))).await {
                Either::Left((result, _)) => result.map_err(failed)?,
                Either::Right(_) => {
                    let message = format!("the server sent nothing for {} s", STALL.as_secs());
                    return Err(Error::new(Code::Network, &self.at, message));
                }
            };
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
