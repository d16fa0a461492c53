//! How long a computation takes, and how long it may hold the event loop.

use js_sys::{Promise, Reflect, futures::JsFuture};
use wasm_bindgen::{JsCast, JsValue};
use web_sys::{MessageChannel, Performance};

/// Measures time.
pub(crate) struct Clock(f64);

impl Clock {
    pub(crate) fn start() -> Self {
        Self(Self::now())
    }

    /// Since it was started; in steps of 0.1 ms, or where other pages are not kept apart of this one 1 ms at most.
    pub(crate) fn seconds(&self) -> f64 {
        (Self::now() - self.0) / 1e3
    }

    /// Milliseconds.
    fn now() -> f64 {
        let performance = Reflect::get(&js_sys::global(), &"performance".into()).ok();
        match performance.and_then(|performance| performance.dyn_into::<Performance>().ok()) {
            Some(performance) => performance.now(),
            None => js_sys::Date::now(),
        }
    }
}

/// Lets the event loop in when a computation has held it for a while, so that a cancel can arrive.
pub(crate) struct Pacer {
    since: f64,
}

impl Pacer {
    /// How long the loop may be held, in milliseconds.
    const HOLD: f64 = 12.0;

    pub(crate) fn new() -> Self {
        Self { since: js_sys::Date::now() }
    }

    pub(crate) async fn breathe(&mut self) {
        if js_sys::Date::now() - self.since < Self::HOLD {
            return;
        }
        // A message to oneself, because timers are held back in hidden pages.
        if let Ok(channel) = MessageChannel::new() {
            let (here, there) = (channel.port1(), channel.port2());
            let message = Promise::new(&mut |resolve, _| here.set_onmessage(Some(&resolve)));
            if there.post_message(&JsValue::NULL).is_ok() {
                let _ = JsFuture::from(message).await;
            }
            // Node lives as long as a port is open.
            here.close();
        }
        self.since = js_sys::Date::now();
    }
}
