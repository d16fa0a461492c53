//! A loaded reranker.

use std::rc::Rc;

use js_sys::{Array, Function, Promise};
use serde::Serialize;
use wasm_bindgen::{JsValue, prelude::wasm_bindgen};
use web_sys::{AbortController, AbortSignal};

use super::{
    super::{answer, rows::Ranked, text, texts},
    Caller, load, name, options,
};
use crate::{
    RerankOptions, Reranker, Result,
    platform::web::{WebFiles, executor::promise},
};

#[wasm_bindgen]
pub struct RerankerEngine(Rc<Reranker>);

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Loaded<'a> {
    device: &'a str,
    max_tokens: usize,
}

#[wasm_bindgen]
impl RerankerEngine {
    /// As [`EmbedderEngine::load`](super::embedder::EmbedderEngine::load).
    #[wasm_bindgen(unchecked_return_type = "Promise<RerankerEngine>")]
    pub fn load(
        from: JsValue,
        load_options: JsValue,
        cache: bool,
        fetch: Function,
        progress: Option<Function>,
        abort: AbortController,
    ) -> Promise {
        promise(async move {
            let load_options: RerankOptions = options("options", &load_options)?;
            let call = async |files: &WebFiles, caller: &Caller| Reranker::load(files, &load_options, caller).await;
            load(&from, cache, fetch, progress, abort, call).await.map(|reranker| Self(Rc::new(reranker)))
        })
    }

    /// What the model is.
    pub fn describe(&self) -> Result<JsValue, JsValue> {
        Ok(answer(&Loaded { device: name(self.0.device()), max_tokens: self.0.max_tokens() })?)
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
            let caller = Caller { progress, signal };
            let ranked = reranker.rerank(&query, &texts(&documents)?, top_k, &caller).await?;
            Ok(Ranked::answer(&ranked, Some(name(reranker.device())))?)
        })
    }
}
