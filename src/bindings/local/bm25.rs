//! The statistics of a corpus.

use js_sys::Array;
use serde::Serialize;
use wasm_bindgen::{JsValue, prelude::wasm_bindgen};

use super::{
    super::{answer, rows::SparseRows, texts},
    options, strings,
};
use crate::{
    Bm25, Result, Role, SparseVector,
    bm25::{Analyzer, Options},
};

#[wasm_bindgen]
pub struct Bm25Engine(Bm25);

#[derive(Serialize)]
struct Loaded {
    dimensions: usize,
}

#[wasm_bindgen]
impl Bm25Engine {
    /// Counts the terms of an array of strings.
    pub fn fit(corpus: &Array, fit_options: &JsValue) -> Result<Bm25Engine, JsValue> {
        let fit_options: Options = options("options", fit_options)?;
        Ok(Self(Bm25::fit(&texts(corpus)?, fit_options)?))
    }

    /// Reads what was saved, by this or by pymilvus; without an analyzer it is the default one.
    pub fn load(json: &[u8], analyzer: &JsValue) -> Result<Bm25Engine, JsValue> {
        let analyzer: Option<Analyzer> = options("analyzer", analyzer)?;
        Ok(Self(Bm25::from_json(json, analyzer.unwrap_or_default())?))
    }

    /// What it is.
    pub fn describe(&self) -> Result<JsValue, JsValue> {
        Ok(answer(&Loaded { dimensions: self.0.dimensions() })?)
    }

    /// Encodes an array of strings; what is no query is a document.
    pub fn encode(&self, values: &Array, role: &str) -> Result<JsValue, JsValue> {
        let encode = match role.parse()? {
            Role::Query => Bm25::encode_query,
            Role::Plain | Role::Document => Bm25::encode_document,
        };
        let rows: Vec<SparseVector> = texts(values)?.iter().map(|text| encode(&self.0, text)).collect();
        Ok(answer(&SparseRows::new(&rows))?)
    }

    /// The term of each index.
    pub fn decode(&self, indices: &[u32]) -> Array {
        strings(indices.iter().map(|&index| self.0.token(index).unwrap_or_default().to_owned()))
    }

    /// The statistics as JSON.
    pub fn save(&self) -> String {
        self.0.save()
    }
}
