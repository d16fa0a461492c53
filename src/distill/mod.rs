//! A static model from any encoder: every entry of its vocabulary through the encoder once, then fewer dimensions, then
//! weights. Encoding a text is then a look-up and a mean, and a page has the model at once.
//!
//! Follows Model2Vec's distillation (<https://github.com/MinishLab/model2vec>, version 0.10) and writes its format:
//!
//! - Left out are the entries that BERT reserved and all added tokens but the unknown one and the padding.
//! - An entry goes through the encoder as its id between the tokenizer's special tokens, and is the plain mean of the last hidden
//!   states of all these positions, whatever the model's own pooling is, and not normalised.
//! - Principal components with the sign of their largest value; then weights by rank, rare entries (late ones) counting more.
//!
//! It differs in this:
//!
//! - The special tokens are what the tokenizer really puts there. Model2Vec looks for one on each side and finds none in a
//!   sequence of processors.
//! - Components are computed in f64, and there must be as many as were asked for.
//! - Eight bits are rounded from f32 and not from f16, which now and then gives the neighbouring integer.
//! - Zipf weights are an option; their rank counts from one, so that no entry gets zero.

mod components;
mod vocabulary;

use std::{num::NonZeroUsize, path::Path};

use serde_json::{Value, json};

use crate::{
    batches::{Batches, Computes, Limits},
    call::{Watch, check, invalid_option},
    error::{Code, Error, Result},
    load::{
        AnyEngine, CONFIG, Engine, MODULES, Request, Session, TOKENIZER, TOKENIZER_CONFIG, WEIGHTS, architecture,
        missing,
    },
    model::Purpose,
    ops::{Device, Ops, Pooling, on_executor},
    platform::{
        Files,
        native::{Directory, NewFolder, block_on},
        whole,
    },
    text::{Batch, Encoded, Form},
    weights::{Collector, Dtype, Planned, Values, Writer},
};

/// How an entry counts in a text, by its rank in the vocabulary, which stands for how frequent it is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Weighting {
    /// Smooth inverse frequency, `a / (a + p)`, with probabilities by Zipf's law.
    Sif(f64),
    /// `ln(1 + rank)`.
    Zipf,
    /// All alike.
    None,
}

/// What is made.
#[derive(Debug, Clone)]
pub struct DistillOptions {
    /// Components of a vector.
    pub dimensions: usize,
    pub weighting: Weighting,
    /// The form of the table.
    pub dtype: Dtype,
    /// Where the encoder computes.
    pub device: Device,
    /// With how many threads, on the processor; by default as many as it runs at once.
    pub threads: Option<NonZeroUsize>,
}

impl Default for DistillOptions {
    fn default() -> Self {
        Self {
            dimensions: 256,
            weighting: Weighting::Sif(1e-4),
            dtype: Dtype::Int8,
            device: Device::default(),
            threads: None,
        }
    }
}

/// What was made.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Distilled {
    /// Entries of the new vocabulary.
    pub tokens: usize,
    /// How much of the variance of their vectors is kept.
    pub share: f64,
    /// Length of the new weights.
    pub bytes: u64,
}

/// Writes a static model made from the encoder in folder `model` to `output`, where nothing may be yet. A call that fails leaves
/// nothing there.
pub fn distill(model: &Path, output: &Path, options: &DistillOptions, watch: &dyn Watch) -> Result<Distilled> {
    if let Weighting::Sif(a) = options.weighting
        && !(a > 0.0 && a < 1.0)
    {
        return Err(invalid_option("sif", format!("{a} is not between 0 and 1")));
    }
    let folder = NewFolder::at(output)?;
    let json = read(model, TOKENIZER)?;
    let vocabulary = vocabulary::kept(&json, padding(model)?.as_deref())?;
    let (rows, width) = block_on(encode(model, &vocabulary.tokens, options, watch))?;

    let projected = components::project(&rows, width, options.dimensions);
    drop(rows);
    let mut values = projected.values;
    weigh(&mut values, options.dimensions, options.weighting);
    let shape = [vocabulary.tokens.len(), options.dimensions];
    let bytes = write_table(&folder, &values, shape, options.dtype)?;
    folder.write(TOKENIZER, vocabulary.tokenizer.to_string().as_bytes())?;
    folder.write(CONFIG, &pretty(&config(model, options)))?;
    folder.write(MODULES, &pretty(&modules()))?;
    check(watch)?;
    folder.finish()?;
    Ok(Distilled { tokens: vocabulary.tokens.len(), share: projected.share, bytes })
}

fn read(model: &Path, file: &str) -> Result<Vec<u8>> {
    block_on(async {
        let body = Directory::new(model).open(file).await?.ok_or_else(|| missing(file))?;
        whole(file, body, |_| Ok(())).await
    })
}

/// The padding token by `tokenizer_config.json`: a string, or an object around one.
fn padding(model: &Path) -> Result<Option<String>> {
    if !model.join(TOKENIZER_CONFIG).is_file() {
        return Ok(None);
    }
    let config: Value = serde_json::from_slice(&read(model, TOKENIZER_CONFIG)?)
        .map_err(|error| Error::new(Code::InvalidJson, TOKENIZER_CONFIG, error.to_string()))?;
    let token = &config["pad_token"];
    Ok(token.as_str().or(token["content"].as_str()).map(str::to_owned))
}

/// The vectors of all entries, one after the other, and their width.
async fn encode(
    model: &Path,
    tokens: &[(String, u32)],
    options: &DistillOptions,
    watch: &dyn Watch,
) -> Result<(Vec<f32>, usize)> {
    let request = Request { device: options.device, threads: options.threads, ..Request::default() };
    let files = Directory::new(model);
    let mut session = Session::open(&files, watch, &request, &[]).await?;
    let config = session.small(CONFIG).await?;
    let architecture = architecture(config.as_deref())?;
    let width = architecture.width;
    if !(1..=width).contains(&options.dimensions) {
        let message = format!("{} is not between 1 and {width}", options.dimensions);
        return Err(invalid_option("dimensions", message));
    }
    let tokenizer = session.tokenizer(&architecture, &request, Form::Text, None).await?;
    let entries: Vec<Encoded> =
        tokens.iter().map(|(token, id)| tokenizer.encode_entry(*id, token)).collect::<Result<_>>()?;
    let engine = session.any_engine(&architecture, Purpose::Embed, &request).await?;
    let rows = on_executor!(AnyEngine, &engine, engine => means(engine, width, &entries, watch).await?);
    match rows.iter().position(|value| !value.is_finite()) {
        None => Ok((rows, width)),
        Some(at) => Err(Error::new(Code::NotFinite, &tokens[at / width].0, "its vector is not finite")),
    }
}

/// The mean hidden state of each entry, one after the other.
async fn means<O: Ops>(engine: &Engine<O>, width: usize, entries: &[Encoded], watch: &dyn Watch) -> Result<Vec<f32>> {
    let lengths: Vec<usize> = entries.iter().map(|entry| entry.ids.len()).collect();
    let mut rows = vec![0.0; entries.len() * width];
    let mut batches = Batches::new(&lengths);
    while let Some(indices) = batches.next(engine, watch).await? {
        let batch = Batch::pack(indices.iter().map(|&index| &entries[index]));
        let pooled = engine.ops.pool(&engine.hidden(&batch)?, &batch.spans, &[Pooling::Mean])?;
        for (index, row) in indices.iter().zip(engine.ops.read(&pooled).await?.chunks_exact(width)) {
            rows[index * width..][..width].copy_from_slice(row);
        }
    }
    Ok(rows)
}

impl<O: Ops> Computes for Engine<O> {
    fn limits(&self) -> Limits {
        Limits { tokens: self.ops.batch_tokens(), texts: usize::MAX }
    }
}

/// Scales each row by what its rank says.
fn weigh(rows: &mut [f32], width: usize, weighting: Weighting) {
    let count = rows.len() / width;
    let inverse = |index: usize| 1.0 / (index as f64 + 2.0);
    let total: f64 = (0..count).map(inverse).sum();
    for (index, row) in rows.chunks_exact_mut(width).enumerate() {
        let weight = match weighting {
            Weighting::Sif(a) => a / (a + inverse(index) / total),
            Weighting::Zipf => (index as f64 + 2.0).ln(),
            Weighting::None => 1.0,
        };
        row.iter_mut().for_each(|value| *value = (f64::from(*value) * weight) as f32);
    }
}

fn write_table(folder: &NewFolder, values: &[f32], [rows, width]: [usize; 2], dtype: Dtype) -> Result<u64> {
    const TABLE: &str = "embeddings";
    let table = match dtype {
        Dtype::Int8 => eight_bits(values),
        _ => {
            let mut collector = Collector::new(TABLE, dtype, width, values.len() as u64)?;
            collector.push(values)?;
            collector.finish()
        }
    };
    let plan = vec![Planned { name: TABLE.to_owned(), shape: vec![rows, width], dtype }];
    let mut writer = Writer::new(folder.create(WEIGHTS)?, WEIGHTS, plan)?;
    writer.tensor(TABLE, &table)?;
    writer.finish()
}

/// Integers of one scale for the whole table, which is nowhere kept: normalising removes it.
fn eight_bits(values: &[f32]) -> Values {
    let largest = values.iter().fold(0.0, |largest: f32, value| largest.max(value.abs()));
    let inverse = if largest > 0.0 { 127.0 / largest } else { 0.0 };
    let values = values.iter().map(|value| (value * inverse).round_ties_even().clamp(-127.0, 127.0) as i8).collect();
    Values::Int8 { values, scales: Vec::new() }
}

fn config(model: &Path, options: &DistillOptions) -> Value {
    let (sif, zipf) = match options.weighting {
        Weighting::Sif(a) => (Some(a), false),
        Weighting::Zipf => (None, true),
        Weighting::None => (None, false),
    };
    let dtype = match options.dtype {
        Dtype::F32 => "float32",
        Dtype::F16 => "float16",
        Dtype::Int8 => "int8",
    };
    json!({
        "model_type": "model2vec",
        "architectures": ["StaticModel"],
        // The folder's name and not its path, which belongs to one machine.
        "tokenizer_name": model.file_name().map(|name| name.to_string_lossy()),
        "apply_pca": options.dimensions,
        "sif_coefficient": sif,
        "apply_zipf": zipf,
        "hidden_dim": options.dimensions,
        "seq_length": 1_000_000,
        "normalize": true,
        "pooling": "mean",
        "max_length": 512,
        "embedding_dtype": dtype,
    })
}

fn modules() -> Value {
    let module = |index: usize, path: &str, class: &str| {
        let kind = format!("sentence_transformers.models.{class}");
        json!({"idx": index, "name": index.to_string(), "path": path, "type": kind})
    };
    json!([module(0, ".", "StaticEmbedding"), module(1, "1_Normalize", "Normalize")])
}

fn pretty(value: &Value) -> Vec<u8> {
    format!("{value:#}\n").into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn eight_bits_have_one_scale() {
        let Values::Int8 { values, scales } = eight_bits(&[2.0, -1.0, 0.01, 0.0]) else { panic!("eight bits") };
        assert_eq!((values.as_slice(), scales.len()), ([127, -64, 1, 0].as_slice(), 0));
        assert_eq!(eight_bits(&[0.0]), Values::Int8 { values: vec![0], scales: vec![] });
    }

    #[test]
    fn weights_are_those_of_the_formulas() {
        let weighted = |weighting| {
            let mut rows = vec![1.0; 6];
            weigh(&mut rows, 2, weighting);
            [rows[0], rows[2], rows[5]]
        };
        // The probabilities of three ranks: 1/2, 1/3 and 1/4 of their sum, 13/12.
        let sif = [6.0, 4.0, 3.0].map(|part| 0.1 / (0.1 + part / 13.0));
        for (got, want) in weighted(Weighting::Sif(0.1)).into_iter().zip(sif) {
            assert!((f64::from(got) - want).abs() < 1e-6);
        }
        assert_eq!(weighted(Weighting::Zipf), [2f32.ln(), 3f32.ln(), 4f32.ln()]);
        assert_eq!(weighted(Weighting::None), [1.0; 3]);
    }
}
