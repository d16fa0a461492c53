//! A second opinion: BERT's forward as candle-transformers has it, which shares no code with ours from the file to the hidden
//! states and the vocabulary's logits. What it shares is the tokenizer, and what the model's files say of pooling and prompts.
//!
//! It is there to check our executors with, on the models that it can compute: `bert` with mean or first-token pooling, and
//! SPLADE on `bert`. It reads all weights into memory at once, and takes one text at a time.

use std::collections::HashMap;

use candle_core::{DType, Device, Tensor};
use candle_nn::VarBuilder;
use candle_transformers::models::bert::{BertForMaskedLM, BertModel, Config};
use serde_json::{Map, Value};

use crate::{
    call::{OutputKind, normalize},
    error::{Code, Error, Result},
    load::{CONFIG, Request, Session, WEIGHTS},
    ops::Pooling,
    platform::Files,
    sparse::SparseVector,
    text::Batch,
    transformer::{Rows, TransformerPlan},
};

/// A model that candle-transformers computes.
pub struct SecondOpinion {
    network: Network,
}

enum Network {
    Dense { model: BertModel, pooling: Pooling, width: usize, dimensions: usize, normalize: bool },
    Splade { model: BertForMaskedLM, logarithms: usize, vocabulary: usize },
}

impl SecondOpinion {
    /// Reads the weights, of a model that is described by `config.json` and by `plan`. [`Code::UnsupportedModel`] if
    /// candle-transformers' BERT does not compute what the plan asks for.
    pub async fn load<F: Files>(
        session: &mut Session<'_, F>,
        config: &[u8],
        plan: TransformerPlan<'_>,
        request: &Request,
    ) -> Result<Self> {
        let config = configuration(config)?;
        let file = request.weights.as_deref().unwrap_or(WEIGHTS);
        if request.dtype.is_some() {
            return Err(Error::new(Code::InvalidOption, "dtype", "candle-transformers computes in f32 alone"));
        }
        let weights = match file.ends_with(".safetensors") {
            true => session.small(file).await?,
            false => None,
        };
        let weights = weights.ok_or_else(|| unsupported("weights other than one file of safetensors"))?;
        let tensors = tensors(file, &weights)?;
        let parameters = VarBuilder::from_tensors(tensors, DType::F32, &Device::Cpu);
        let asked = |kind| plan.asked.is_none_or(|outputs| outputs.contains(&kind));
        let network = match plan.dense {
            // A model with both would need two passes; there is none of BERT's kind.
            None if plan.is_splade && asked(OutputKind::Sparse) => Network::Splade {
                model: BertForMaskedLM::load(parameters, &config)?,
                logarithms: plan.logarithms,
                vocabulary: plan.tokenizer.id_bound() as usize,
            },
            Some(dense) if !plan.is_splade && dense.stages.is_empty() => Network::Dense {
                model: BertModel::load(parameters, &config)?,
                pooling: match dense.pooling[..] {
                    [pooling @ (Pooling::Mean | Pooling::Cls)] => pooling,
                    _ => return Err(unsupported(&format!("pooling {:?}", dense.pooling))),
                },
                width: dense.width,
                dimensions: dense.dimensions.unwrap_or(dense.width).min(dense.width),
                normalize: plan.normalize.unwrap_or(dense.normalize),
            },
            _ => return Err(unsupported("stages other than one pooling, or SPLADE")),
        };
        Ok(Self { network })
    }

    /// What it gives.
    pub fn outputs(&self) -> Vec<OutputKind> {
        match self.network {
            Network::Dense { .. } => vec![OutputKind::Dense],
            Network::Splade { .. } => vec![OutputKind::Sparse],
        }
    }

    /// Components of a dense vector, if it gives one.
    pub fn dimensions(&self) -> Option<usize> {
        match self.network {
            Network::Dense { dimensions, .. } => Some(dimensions),
            Network::Splade { .. } => None,
        }
    }

    /// How dense vectors are pooled.
    pub fn pooling(&self) -> &[Pooling] {
        match &self.network {
            Network::Dense { pooling, .. } => std::slice::from_ref(pooling),
            Network::Splade { .. } => &[],
        }
    }

    /// Computes a batch, as [`Transformer::fill`](crate::transformer::Transformer::fill) does.
    pub fn fill(
        &self,
        rows: &mut Rows,
        batch: &Batch,
        indices: &[usize],
        top_k: Option<usize>,
        unit: Option<bool>,
    ) -> Result<()> {
        for (text, &index) in indices.iter().enumerate() {
            let (span, pooled) = (batch.spans[text].clone(), &batch.pooled[text]);
            // It cannot be asked for no tokens.
            if span.is_empty() {
                continue;
            }
            let tensor = |values: &[u32]| Tensor::new(values, &Device::Cpu)?.unsqueeze(0);
            let (ids, types) = (tensor(&batch.ids[span.clone()])?, tensor(&batch.type_ids[span.clone()])?);
            match &self.network {
                Network::Dense { model, pooling, width, normalize: own, .. } => {
                    let Some(dense) = &mut rows.dense else { continue };
                    let hidden = model.forward(&ids, &types, None)?.squeeze(0)?.to_vec2::<f32>()?;
                    let hidden = &hidden[pooled.start - span.start..pooled.end - span.start];
                    let mut row = pool(*pooling, hidden, *width);
                    row.truncate(dense.width);
                    if unit.unwrap_or(*own) {
                        normalize(&mut row);
                    }
                    dense.values[index * dense.width..][..dense.width].copy_from_slice(&row);
                }
                Network::Splade { model, logarithms, vocabulary } => {
                    let Some(sparse) = &mut rows.sparse else { continue };
                    let logits = model.forward(&ids, &types, None)?.squeeze(0)?;
                    let mut weights = logits.max(0)?.relu()?;
                    for _ in 0..*logarithms {
                        weights = (weights + 1.0)?.log()?;
                    }
                    let weights = weights.to_vec1::<f32>()?;
                    let entries = (0..).zip(weights).take(*vocabulary).filter(|&(_, weight)| weight > 0.0);
                    let mut row = SparseVector::from_pairs(entries);
                    row.keep_largest(top_k.unwrap_or(usize::MAX));
                    sparse[index] = row;
                }
            }
        }
        Ok(())
    }
}

/// The pooled row of a text; zeros where pooling reads no token.
fn pool(pooling: Pooling, hidden: &[Vec<f32>], width: usize) -> Vec<f32> {
    let (Some(first), count) = (hidden.first(), hidden.len() as f64) else {
        return vec![0.0; width];
    };
    match pooling {
        Pooling::Cls => first.clone(),
        _ => {
            (0..width).map(|at| (hidden.iter().map(|token| f64::from(token[at])).sum::<f64>() / count) as f32).collect()
        }
    }
}

/// The configuration as candle-transformers reads it, which has no defaults for some keys.
fn configuration(json: &[u8]) -> Result<Config> {
    let invalid = |error: serde_json::Error| Error::new(Code::InvalidConfig, CONFIG, error.to_string());
    let mut config: Map<String, Value> = serde_json::from_slice(json).map_err(invalid)?;
    if config.get("model_type").and_then(Value::as_str) != Some("bert") {
        return Err(unsupported("families other than bert"));
    }
    // They do nothing when a model is only read.
    for (key, value) in [("hidden_dropout_prob", 0.0), ("initializer_range", 0.02)] {
        config.entry(key).or_insert_with(|| value.into());
    }
    config.entry("pad_token_id").or_insert_with(|| 0.into());
    let activation = config.get("hidden_act").and_then(Value::as_str).map(str::to_owned);
    if let Some("gelu_new" | "gelu_pytorch_tanh") = activation.as_deref() {
        config.insert("hidden_act".to_owned(), "geluapproximate".into());
    }
    serde_json::from_value(Value::Object(config)).map_err(|error| unsupported(&format!("config.json: {error}")))
}

/// A file's tensors by the names that candle-transformers asks for.
fn tensors(file: &str, bytes: &[u8]) -> Result<HashMap<String, Tensor>> {
    let invalid = |error: candle_core::Error| Error::new(Code::InvalidWeights, file, error.to_string());
    let loaded = candle_core::safetensors::load_buffer(bytes, &Device::Cpu).map_err(invalid)?;
    let mut tensors = HashMap::with_capacity(loaded.len() + 2);
    for (name, tensor) in loaded {
        // The oldest checkpoints have the names of TensorFlow.
        let name = match (name.strip_suffix(".gamma"), name.strip_suffix(".beta")) {
            (Some(norm), _) => format!("{norm}.weight"),
            (_, Some(norm)) => format!("{norm}.bias"),
            _ => name,
        };
        tensors.insert(name, tensor.to_dtype(DType::F32).map_err(invalid)?);
    }
    // The decoder is the word embedding, and is not saved twice.
    for (wanted, stored) in [
        ("cls.predictions.decoder.weight", "bert.embeddings.word_embeddings.weight"),
        ("cls.predictions.decoder.bias", "cls.predictions.bias"),
    ] {
        if let (false, Some(tensor)) = (tensors.contains_key(wanted), tensors.get(stored)) {
            tensors.insert(wanted.to_owned(), tensor.clone());
        }
    }
    Ok(tensors)
}

fn unsupported(what: &str) -> Error {
    let message = format!("candle-transformers is asked for BERT alone here, not for {what}");
    Error::new(Code::UnsupportedModel, CONFIG, message)
}
