//! Results as JavaScript sees them: a few buffers, that a worker can hand over without copying.

use js_sys::{Float32Array, Int8Array, Uint8Array, Uint32Array};
use serde::{Deserialize, Serialize};
use wasm_bindgen::JsValue;

use super::{answer, options};
use crate::{EncodeOptions, Output, OutputKind, QuantizedValues, QuantizedVectors, Result, SparseVector, Vectors};

pub(super) fn numbers(values: impl IntoIterator<Item = usize>) -> Uint32Array {
    // A page has 32 bits, and so have its indices.
    let values: Vec<u32> = values.into_iter().map(|value| value as u32).collect();
    Uint32Array::from(values.as_slice())
}

/// Where each row ends, when rows lie one after the other.
pub(super) fn ends(lengths: impl IntoIterator<Item = usize>) -> Uint32Array {
    numbers(lengths.into_iter().scan(0, |end, length| {
        *end += length;
        Some(*end)
    }))
}

/// Equally wide vectors, one after the other.
#[derive(Serialize)]
pub(super) struct DenseRows {
    #[serde(with = "serde_wasm_bindgen::preserve")]
    values: Float32Array,
    width: usize,
}

impl DenseRows {
    pub(super) fn new(vectors: &Vectors) -> Self {
        Self { values: Float32Array::from(vectors.values.as_slice()), width: vectors.width }
    }
}

/// Equally wide vectors of small integers or of bits, one after the other.
#[derive(Serialize)]
pub(super) struct QuantizedRows {
    /// `Int8Array` or `Uint8Array`.
    #[serde(with = "serde_wasm_bindgen::preserve")]
    values: JsValue,
    width: usize,
    dtype: &'static str,
}

impl QuantizedRows {
    pub(super) fn new(vectors: &QuantizedVectors) -> Self {
        let values = match &vectors.values {
            QuantizedValues::Int8(values) | QuantizedValues::Binary(values) => {
                Int8Array::from(values.as_slice()).into()
            }
            QuantizedValues::Uint8(values) | QuantizedValues::Ubinary(values) => {
                Uint8Array::from(values.as_slice()).into()
            }
        };
        Self { values, width: vectors.width, dtype: vectors.dtype().as_str() }
    }
}

/// Sparse vectors, one after the other.
#[derive(Serialize)]
pub(super) struct SparseRows {
    #[serde(with = "serde_wasm_bindgen::preserve")]
    indices: Uint32Array,
    #[serde(with = "serde_wasm_bindgen::preserve")]
    values: Float32Array,
    #[serde(with = "serde_wasm_bindgen::preserve")]
    ends: Uint32Array,
}

impl SparseRows {
    pub(super) fn new(rows: &[SparseVector]) -> Self {
        let indices: Vec<u32> = rows.iter().flat_map(|row| row.indices.iter().copied()).collect();
        let values: Vec<f32> = rows.iter().flat_map(|row| row.values.iter().copied()).collect();
        Self {
            indices: Uint32Array::from(indices.as_slice()),
            values: Float32Array::from(values.as_slice()),
            ends: ends(rows.iter().map(SparseVector::len)),
        }
    }
}

/// The token vectors of several texts, one after the other; `ends` counts tokens.
#[derive(Serialize)]
pub(super) struct TokenRows {
    #[serde(with = "serde_wasm_bindgen::preserve")]
    values: Float32Array,
    width: usize,
    #[serde(with = "serde_wasm_bindgen::preserve")]
    ends: Uint32Array,
}

impl TokenRows {
    pub(super) fn new(rows: &[Vectors]) -> Self {
        let count = rows.iter().map(|row| row.values.len()).sum::<usize>();
        let values = Float32Array::new_with_length(count as u32);
        let mut start = 0;
        for row in rows {
            let end = start + row.values.len() as u32;
            values.subarray(start, end).copy_from(&row.values);
            start = end;
        }
        let width = rows.first().map_or(1, |row| row.width);
        Self { values, width, ends: ends(rows.iter().map(|row| row.rows().len())) }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Encode {
    role: String,
    prompt: Option<String>,
    outputs: Option<Vec<OutputKind>>,
    top_k: Option<usize>,
}

impl Encode {
    pub(super) fn read(encode_options: &JsValue) -> Result<EncodeOptions> {
        let Self { role, prompt, outputs, top_k } = options("options", encode_options)?;
        Ok(EncodeOptions { role: role.parse()?, prompt, outputs, top_k, ..EncodeOptions::default() })
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Encoded<'a> {
    /// What computed the last batch; none of a provider.
    device: Option<&'a str>,
    dense: Option<DenseRows>,
    sparse: Option<SparseRows>,
    quantized: Option<QuantizedRows>,
    token_vectors: Option<TokenRows>,
    tokens: usize,
    #[serde(with = "serde_wasm_bindgen::preserve")]
    truncated: Uint32Array,
}

impl<'a> Encoded<'a> {
    pub(super) fn answer(output: Output, device: Option<&'a str>) -> Result<JsValue> {
        answer(&Self {
            device,
            dense: output.dense.as_ref().map(DenseRows::new),
            sparse: output.sparse.as_deref().map(SparseRows::new),
            quantized: output.quantized.as_ref().map(QuantizedRows::new),
            token_vectors: output.tokens.as_deref().map(TokenRows::new),
            tokens: output.usage.tokens,
            truncated: numbers(output.usage.truncated),
        })
    }
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
