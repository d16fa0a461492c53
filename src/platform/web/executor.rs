//! Runs futures on this thread, as microtasks.
//!
//! wasm-bindgen's own executor serves several threads where a module has atomics: it waits by `Atomics.waitAsync`, or where an
//! engine lacks that (Firefox before 145) by a worker to which it posts the memory, which a page that is not isolated may not do.
//! All futures of this crate are woken by the thread that made them, so a queue and `queueMicrotask` are enough, everywhere.

use std::{
    cell::{Cell, OnceCell, RefCell},
    collections::{HashMap, VecDeque},
    mem,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Wake, Waker},
};

use futures_util::future::LocalBoxFuture;
use js_sys::{Function, Promise};
use wasm_bindgen::{JsCast, JsValue, prelude::*};

#[wasm_bindgen]
extern "C" {
    #[wasm_bindgen(js_name = queueMicrotask)]
    fn queue_microtask(callback: &Function);
}

thread_local! {
    /// Futures that are not complete, by the number of their task. A waker must be `Send`, so it cannot hold one itself.
    static FUTURES: RefCell<HashMap<u64, LocalBoxFuture<'static, ()>>> = RefCell::default();
    /// Tasks to be polled.
    static READY: RefCell<VecDeque<Arc<Task>>> = RefCell::default();
    static NEXT: Cell<u64> = const { Cell::new(0) };
    /// [`run`] for JavaScript.
    static RUN: OnceCell<Function> = const { OnceCell::new() };
}

struct Task {
    number: u64,
    /// Whether it is in the queue, where it need not be twice.
    queued: AtomicBool,
}

impl Wake for Task {
    fn wake(self: Arc<Self>) {
        if self.queued.swap(true, Ordering::Relaxed) {
            return;
        }
        let is_first = READY.with_borrow_mut(|ready| {
            ready.push_back(self);
            ready.len() == 1
        });
        if is_first {
            RUN.with(|callback| {
                queue_microtask(
                    callback.get_or_init(|| Closure::<dyn FnMut()>::new(run).into_js_value().unchecked_into()),
                );
            });
        }
    }
}

/// Polls the tasks that are ready. Those that become ready meanwhile get a microtask of their own. No borrow is held while a
/// future runs, since it may spawn and wake others.
fn run() {
    for task in READY.with_borrow_mut(mem::take) {
        task.queued.store(false, Ordering::Relaxed);
        // Woken once more after it completed, there is none.
        let Some(mut future) = FUTURES.with_borrow_mut(|futures| futures.remove(&task.number)) else {
            continue;
        };
        let number = task.number;
        if future.as_mut().poll(&mut Context::from_waker(&Waker::from(task))).is_pending() {
            FUTURES.with_borrow_mut(|futures| futures.insert(number, future));
        }
    }
}

/// Runs a future to its end, beginning with the next microtask.
pub fn spawn(future: impl Future<Output = ()> + 'static) {
    let number = NEXT.replace(NEXT.get() + 1);
    FUTURES.with_borrow_mut(|futures| futures.insert(number, Box::pin(future)));
    Arc::new(Task { number, queued: AtomicBool::new(false) }).wake();
}

/// A promise of a future's result; the future runs whether or not anyone waits.
pub fn promise<T: Into<JsValue>>(future: impl Future<Output = Result<T, JsValue>> + 'static) -> Promise {
    let mut future = Some(future);
    Promise::new(&mut |resolve: Function, reject: Function| {
        // JavaScript calls this once, at once.
        let Some(future) = future.take() else { return };
        spawn(async move {
            // The two functions of a promise do not throw.
            let _ = match future.await {
                Ok(value) => resolve.call1(&JsValue::UNDEFINED, &value.into()),
                Err(error) => reject.call1(&JsValue::UNDEFINED, &error),
            };
        });
    })
}
