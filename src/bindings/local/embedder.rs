//! A loaded embedder.

use std::rc::Rc;

use js_sys::{Array, Function, Promise, Uint32Array};
use serde::Serialize;
use wasm_bindgen::{JsValue, prelude::wasm_bindgen};
use web_sys::{AbortController, AbortSignal};

use super::{
    super::{
        answer,
        rows::{Encode, Encoded},
        texts,
    },
    Caller, load, name, options, strings,
};
use crate::{
    Embedder, LoadOptions, OutputKind, Result, Role,
    platform::web::{WebFiles, executor::promise},
};

#[wasm_bindgen]
pub struct EmbedderEngine {
    embedder: Rc<Embedder>,
    kept: Option<Promise>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Loaded<'a> {
    device: &'a str,
    dimensions: usize,
    max_tokens: usize,
    outputs: &'a [OutputKind],
}

#[wasm_bindgen]
impl EmbedderEngine {
    /// Loads a model. `access` is how files are reached, `{ fetch, ownHeaders, cache }`; `abort`
    /// stops the load, and is used to end its requests when it fails.
    #[wasm_bindgen(unchecked_return_type = "Promise<EmbedderEngine>")]
    pub fn load(
        from: JsValue,
        load_options: JsValue,
        access: JsValue,
        progress: Option<Function>,
        abort: AbortController,
    ) -> Promise {
        promise(async move {
            let load_options: LoadOptions = options("options", &load_options)?;
            let call = async |files: &WebFiles, caller: &Caller| Embedder::load(files, &load_options, caller).await;
            let (embedder, kept) = load(&from, &access, progress, abort, call).await?;
            Ok(Self { embedder: Rc::new(embedder), kept })
        })
    }

    /// Resolves when the model's files are kept; undefined if nothing is being written.
    #[wasm_bindgen(getter, unchecked_return_type = "Promise<unknown> | undefined")]
    pub fn kept(&self) -> Option<Promise> {
        self.kept.clone()
    }

    /// What the model is.
    pub fn describe(&self) -> Result<JsValue, JsValue> {
        Ok(answer(&Loaded {
            device: name(self.embedder.device()),
            dimensions: self.embedder.dimensions(),
            max_tokens: self.embedder.max_tokens(),
            outputs: self.embedder.outputs(),
        })?)
    }

    /// Encodes an array of strings.
    pub fn encode(
        &self,
        values: Array,
        encode_options: JsValue,
        progress: Option<Function>,
        signal: Option<AbortSignal>,
    ) -> Promise {
        let embedder = self.embedder.clone();
        promise(async move {
            let encode_options = Encode::read(&encode_options)?;
            let caller = Caller { progress, signal };
            let output = embedder.encode(&texts(&values)?, encode_options, &caller).await?;
            Ok(Encoded::answer(output, Some(name(embedder.device())))?)
        })
    }

    /// `[ids, strings]` of each text.
    pub fn tokenize(&self, values: &Array, role: &str) -> Result<Array, JsValue> {
        let role: Role = role.parse()?;
        let result = Array::new();
        for text in texts(values)? {
            let tokens = self.embedder.tokenize(&text, role)?;
            let ids: Vec<u32> = tokens.iter().map(|token| token.id).collect();
            let strings = strings(tokens.into_iter().map(|token| token.text));
            result.push(&Array::of2(&Uint32Array::from(ids.as_slice()).into(), &strings));
        }
        Ok(result)
    }

    /// The vocabulary's string of each index.
    pub fn decode(&self, indices: &[u32]) -> Array {
        strings(self.embedder.decode(indices))
    }
}
