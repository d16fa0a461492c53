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
pub struct RerankerEngine {
    reranker: Rc<Reranker>,
    kept: Option<Promise>,
}

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
        access: JsValue,
        progress: Option<Function>,
        abort: AbortController,
    ) -> Promise {
        promise(async move {
            let load_options: RerankOptions = options("options", &load_options)?;
            let call = async |files: &WebFiles, caller: &Caller| Reranker::load(files, &load_options, caller).await;
            let (reranker, kept) = load(&from, &access, progress, abort, call).await?;
            Ok(Self { reranker: Rc::new(reranker), kept })
        })
    }

    /// Resolves when the model's files are kept; undefined if nothing is being written.
    #[wasm_bindgen(getter, unchecked_return_type = "Promise<unknown> | undefined")]
    pub fn kept(&self) -> Option<Promise> {
        self.kept.clone()
    }

    /// What the model is.
    pub fn describe(&self) -> Result<JsValue, JsValue> {
        Ok(answer(&Loaded { device: name(self.reranker.device()), max_tokens: self.reranker.max_tokens() })?)
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
        let reranker = self.reranker.clone();
        promise(async move {
            let query = text(|| "query".to_owned(), query)?;
            let caller = Caller { progress, signal };
            let ranked = reranker.rerank(&query, &texts(&documents)?, top_k, &caller).await?;
            Ok(Ranked::answer(&ranked, Some(name(reranker.device())))?)
        })
    }
}
