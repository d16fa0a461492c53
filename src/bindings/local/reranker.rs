//! A loaded reranker.

use js_sys::{Array, Function};
use serde::Serialize;
use wasm_bindgen::{JsValue, prelude::wasm_bindgen};
use web_sys::{AbortController, AbortSignal};

use super::{
    super::{answer, rows::Ranked, text, texts},
    Caller, device, load, options,
};
use crate::{RerankOptions, Reranker, Result};

#[wasm_bindgen]
pub struct RerankerEngine(Reranker);

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Loaded<'a> {
    device: &'a str,
    max_tokens: usize,
}

#[wasm_bindgen]
impl RerankerEngine {
    /// As [`EmbedderEngine::load`](super::embedder::EmbedderEngine::load).
    pub async fn load(
        from: JsValue,
        load_options: JsValue,
        cache: bool,
        fetch: Function,
        progress: Option<Function>,
        abort: AbortController,
    ) -> Result<RerankerEngine, JsValue> {
        let load_options: RerankOptions = options("options", &load_options)?;
        let call = async |files: &_, caller: &_| Reranker::load(files, &load_options, caller).await;
        load(&from, cache, fetch, progress, abort, call).await.map(Self)
    }

    /// What the model is.
    pub fn describe(&self) -> Result<JsValue, JsValue> {
        Ok(answer(&Loaded { device: device(self.0.is_on_gpu()), max_tokens: self.0.max_tokens() })?)
    }

    /// Scores and orders an array of strings for a query.
    pub async fn rerank(
        &self,
        query: JsValue,
        documents: Array,
        top_k: Option<usize>,
        progress: Option<Function>,
        signal: Option<AbortSignal>,
    ) -> Result<JsValue, JsValue> {
        let query = text(|| "query".to_owned(), query)?;
        let caller = Caller { progress, signal };
        let ranked = self.0.rerank(&query, &texts(&documents)?, top_k, &caller).await?;
        Ok(Ranked::answer(&ranked, Some(device(self.0.is_on_gpu())))?)
    }
}
