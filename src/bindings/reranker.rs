//! A loaded reranker.

use js_sys::{Array, Float32Array, Function, Uint32Array};
use serde::Serialize;
use wasm_bindgen::{JsValue, prelude::wasm_bindgen};
use web_sys::{AbortController, AbortSignal};

use super::{Caller, answer, device, load, numbers, options, text, texts};
use crate::{RerankOptions, Reranker, Result};

#[wasm_bindgen]
pub struct RerankerEngine(Reranker);

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Loaded<'a> {
    device: &'a str,
    max_tokens: usize,
}

/// Documents in their order: which, and its score.
#[derive(Serialize)]
pub(super) struct Ranked<'a> {
    /// What computed the last batch; none of a provider.
    device: Option<&'a str>,
    #[serde(with = "serde_wasm_bindgen::preserve")]
    indices: Uint32Array,
    #[serde(with = "serde_wasm_bindgen::preserve")]
    scores: Float32Array,
}

impl<'a> Ranked<'a> {
    pub(super) fn answer(ranked: &[crate::Ranked], device: Option<&'a str>) -> Result<JsValue> {
        let scores: Vec<f32> = ranked.iter().map(|document| document.score).collect();
        answer(&Self {
            device,
            indices: numbers(ranked.iter().map(|document| document.index)),
            scores: Float32Array::from(scores.as_slice()),
        })
    }
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
