//! Requests by `fetch`.

use js_sys::{Array, Function, Promise, Reflect, Uint8Array, futures::JsFuture};
use wasm_bindgen::{JsCast, JsValue};
use web_sys::{AbortController, Headers, RequestInit, RequestRedirect, Response};

use super::{
    super::{Body, Http, HttpRequest, HttpResponse},
    files::WebBody,
};
use crate::error::{Code, Error, Result};

/// Where errors name no file.
const AT: &str = "request";

/// A client that calls a function which takes what `fetch` takes.
pub struct Client {
    fetch: Function,
}

impl Client {
    /// `fetch`, or what stands in for it.
    pub fn new(fetch: Function) -> Self {
        Self { fetch }
    }
}

/// Ends a request when nobody waits for it any longer; one that has ended it leaves alone.
struct Abort(AbortController);

impl Drop for Abort {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Http for Client {
    async fn send(&self, request: HttpRequest) -> Result<HttpResponse> {
        let abort = Abort(AbortController::new().map_err(|error| failed(&error))?);
        let response = self.fetched(&request, &abort.0).await?;
        let mut answer = HttpResponse { status: response.status(), headers: headers(&response), body: Vec::new() };
        let Some(stream) = response.body() else {
            return Ok(answer);
        };
        // Of a function that stands in for fetch; what is asked of either would throw.
        let is_stream = Reflect::get(&stream, &"getReader".into()).is_ok_and(|get| get.is_function());
        if !is_stream || response.body_used() || stream.locked() {
            return Err(foreign("it gave a Response whose body cannot be read, or was read already"));
        }
        let mut body = WebBody::stream(AT, &stream, None, abort.0.signal())?;
        while let Some(chunk) = body.chunk().await? {
            if !answer.push(chunk, request.max_body)? {
                break;
            }
        }
        Ok(answer)
    }
}

impl Client {
    async fn fetched(&self, request: &HttpRequest, abort: &AbortController) -> Result<Response> {
        let headers = Headers::new().map_err(|error| failed(&error))?;
        for (name, value) in &request.headers {
            headers.set(name, value).map_err(|error| failed(&error))?;
        }
        let init = RequestInit::new();
        init.set_method("POST");
        init.set_headers(&headers);
        init.set_body(&Uint8Array::from(request.body.as_slice()));
        init.set_signal(Some(&abort.signal()));
        // Followed, a redirect would carry the key with it.
        init.set_redirect(RequestRedirect::Manual);
        let promise = self
            .fetch
            .call2(&JsValue::UNDEFINED, &request.url.as_str().into(), &init)
            .map_err(|error| rejected(&error))?;
        let response = JsFuture::from(Promise::resolve(&promise)).await.map_err(|error| rejected(&error))?;
        // By what it has: another library's or another window's is as good.
        let is_response = Reflect::get(&response, &"status".into()).is_ok_and(|status| status.as_f64().is_some());
        let has_headers = Reflect::get(&response, &"headers".into()).is_ok_and(|headers| headers.is_object());
        if is_response && has_headers { Ok(response.unchecked_into()) } else { Err(foreign("it gave no Response")) }
    }
}

fn foreign(message: &str) -> Error {
    Error::new(Code::InvalidOption, "fetch", format!("the function that stands in for fetch: {message}"))
}

/// What a page may see of them: of another origin those that it exposes.
fn headers(response: &Response) -> Vec<(String, String)> {
    let pairs = js_sys::try_iter(&response.headers()).ok().flatten();
    let pair = |pair: JsValue| {
        let pair: Array = pair.dyn_into().ok()?;
        Some((pair.get(0).as_string()?.to_ascii_lowercase(), pair.get(1).as_string()?))
    };
    pairs.into_iter().flatten().filter_map(|entry| pair(entry.ok()?)).collect()
}

fn message(error: &JsValue) -> Option<String> {
    Reflect::get(error, &"message".into()).ok()?.as_string().filter(|message| !message.is_empty())
}

fn failed(error: &JsValue) -> Error {
    Error::new(Code::Network, AT, message(error).unwrap_or_else(|| "the request could not be made".to_owned()))
}

/// Whether a browser decides what is let in: a page's thread, or its worker's.
fn is_page() -> bool {
    ["document", "WorkerGlobalScope"].iter().any(|&name| Reflect::has(&js_sys::global(), &name.into()).unwrap_or(false))
}

/// Node says why as the cause. A browser does not, so that a page learns nothing of other origins: it may be that there is no such
/// host, and that the server lets no pages in.
fn rejected(error: &JsValue) -> Error {
    let said = message(error).unwrap_or_else(|| "fetch failed".to_owned());
    let cause = Reflect::get(error, &"cause".into()).ok().filter(JsValue::is_object);
    let why = match cause {
        Some(cause) => message(&cause).unwrap_or_else(|| "it gives no reason".to_owned()),
        None if is_page() => {
            "there is no answer; possibly the provider lets no pages in (CORS): set baseUrl to a proxy, as \
            docs/providers.md has it"
                .to_owned()
        }
        None => "there is no answer".to_owned(),
    };
    Error::new(Code::Network, AT, format!("{said}: {why}"))
}
