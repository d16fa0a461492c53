//! Files from addresses, blobs and byte arrays, requests, and time, in a page, a worker or Node.

mod client;
pub(crate) mod executor;
mod files;
mod kept;
#[cfg(feature = "local")]
mod pace;

pub use client::Client;
pub use files::{Caching, Source, WebFiles};
#[cfg(feature = "local")]
pub(crate) use pace::{Clock, Pacer};

#[cfg(not(target_feature = "simd128"))]
compile_error!("the engine is built with SIMD: RUSTFLAGS must not replace the flags of .cargo/config.toml");

use std::{rc::Rc, time::Duration};

use futures_util::future::LocalBoxFuture;
use js_sys::{Function, Promise, Reflect, futures::JsFuture};
use wasm_bindgen::{JsCast, JsValue, prelude::wasm_bindgen};
#[cfg(feature = "webgpu")]
use web_sys::Response;
use web_sys::{Cache, CacheStorage};

use crate::error::Result;

/// The name of this package's cache.
const CACHE: &str = "wick-embed";

/// The cache, where there is one: Node, insecure pages and some private windows have none.
async fn open_cache() -> Option<Cache> {
    let caches = Reflect::get(&js_sys::global(), &"caches".into()).ok()?;
    let caches: CacheStorage = caches.dyn_into().ok()?;
    JsFuture::from(caches.open(CACHE)).await.ok()?.dyn_into().ok()
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
