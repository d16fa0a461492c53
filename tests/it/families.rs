//! Every family and head against the original Python programs: `tests/fixtures/*/expect.json`, text to result.

use std::{collections::BTreeMap, fs};

use crate::common::{Dense as _, Memory, difference, json, path, read};
use serde_json::Value;
use wick_embed::{
    Code, Device, Dtype, Embedder, EncodeOptions, LoadOptions, Output, RerankOptions, Reranker, Role, SparseVector,
    Watch,
    platform::{
        Files,
        native::{Directory, FileBody, block_on},
    },
    score,
};

/// What a fixture may differ by: dense and token vectors, sparse weights, scores.
const DENSE: f32 = 2e-5;
const SPARSE: f32 = 1e-4;
const SCORE: f32 = 1e-5;

fn floats(value: &Value) -> Vec<f32> {
    value.as_array().expect("an array").iter().map(|number| number.as_f64().expect("a number") as f32).collect()
}

fn strings(value: &Value) -> Vec<&str> {
    value.as_array().expect("an array").iter().map(|text| text.as_str().expect("a text")).collect()
}

/// The largest difference of two sparse vectors; an entry that only one has counts with its weight.
fn sparse_difference(left: &SparseVector, right: &SparseVector) -> f32 {
    let mut entries: BTreeMap<u32, f32> = left.iter().collect();
    for (index, value) in right.iter() {
        *entries.entry(index).or_default() -= value;
    }
    entries.into_values().fold(0.0, |worst, value| worst.max(value.abs()))
}

fn sparse(value: &Value) -> SparseVector {
    let indices = value["indices"].as_array().expect("indices").iter().filter_map(Value::as_u64);
    SparseVector::from_pairs(indices.map(|index| index as u32).zip(floats(&value["values"])))
}

/// Bits of everything that was given for text `index`.
fn bits(output: &Output, index: usize) -> Vec<u32> {
    let dense = output.dense.iter().flat_map(|rows| rows.row(index).to_vec());
    let sparse = output.sparse.iter().flat_map(|rows| rows[index].values.clone());
    let tokens = output.tokens.iter().flat_map(|rows| rows[index].values.clone());
    let indices = output.sparse.iter().flat_map(|rows| rows[index].indices.clone());
    dense.chain(sparse).chain(tokens).map(f32::to_bits).chain(indices).collect()
}

/// A folder whose model has another name than the folder.
struct Named(Directory, Option<String>);

impl Files for Named {
    type Body = FileBody;

    fn name(&self) -> Option<String> {
        self.1.clone()
    }

    async fn open(&self, file: &str) -> wick_embed::Result<Option<FileBody>> {
        self.0.open(file).await
    }
}

/// Hears what a load warns of, which for models as their libraries write them is nothing.
#[derive(Default)]
struct Warned(std::sync::Mutex<Vec<String>>);

impl Watch for Warned {
    fn warned(&self, message: &str) {
        self.0.lock().expect("sound").push(message.to_owned());
    }
}

struct Check {
    fixture: String,
    device: Device,
    /// The name of the original on the hub, where prompts are known by it.
    model: Option<String>,
    failures: Vec<String>,
    checked: usize,
}

impl Check {
    fn within(&mut self, what: &str, error: f32, tolerance: f32) {
        self.checked += 1;
        if error.is_nan() || error > tolerance {
            self.failures.push(format!("{} on {:?}: {what}: {error:e} > {tolerance:e}", self.fixture, self.device));
        }
    }

    fn files(&self, folder: &str) -> Named {
        Named(Directory::new(path(folder)), self.model.clone())
    }

    fn case(&mut self, folder: &str, index: usize, case: &Value) {
        let mut options: LoadOptions = match case.get("options") {
            Some(options) => serde_json::from_value(options.clone()).expect("load options"),
            None => LoadOptions::default(),
        };
        options.device = self.device;
        options.weights = case["file"].as_str().map(str::to_owned);
        // sentence-transformers cuts what is normalised already unless it is asked to normalise again; we always do.
        let renormalize = options.dimensions.is_some() && options.normalize.is_none();
        // The name that SparseEncoder has for it.
        let top_k = case["options"]["maxActive"].as_u64().map(|count| count as usize);
        let warned = Warned::default();
        let embedder = match block_on(Embedder::load(&self.files(folder), &options, &warned)) {
            Ok(embedder) => embedder,
            Err(error) => return self.failures.push(format!("{}: case {index}: {error}", self.fixture)),
        };
        self.failures.extend(warned.0.into_inner().expect("sound"));
        let role: Role = case["role"].as_str().expect("a role").parse().expect("a role");
        let texts = strings(&case["texts"]);
        // For a document sentence-transformers means to fall back to the prompt "passage", but 6.2 always finds an empty
        // "document" first.
        let prompt = (self.fixture == "t5-gated" && role == Role::Document).then(String::new);
        let encode = |texts: &[&str]| {
            let options = EncodeOptions { role, top_k, prompt: prompt.clone(), ..EncodeOptions::default() };
            block_on(embedder.encode(texts, options, &())).expect("valid texts")
        };
        let output = encode(&texts);
        let mut backwards = texts.clone();
        backwards.reverse();
        let backwards = encode(&backwards);
        for (row, text) in texts.iter().enumerate() {
            let what = |kind: &str| format!("case {index} {role:?} {kind} of {text:?}");
            if let Some(ids) = case.get("ids") {
                let got: Vec<u64> = embedder.tokenize(text, role).expect("valid").iter().map(|t| t.id.into()).collect();
                let want: Vec<u64> = ids[row].as_array().expect("ids").iter().filter_map(Value::as_u64).collect();
                self.within(&what("ids"), f32::from(u8::from(got != want)), 0.0);
            }
            if let Some(dense) = case.get("dense") {
                let mut want = floats(&dense[row]);
                if renormalize {
                    let length = want.iter().map(|value| value * value).sum::<f32>().sqrt();
                    want.iter_mut().for_each(|value| *value /= length);
                }
                self.within(&what("dense"), difference(output.vectors().row(row), &want), DENSE);
            }
            if let Some(rows) = case.get("sparse") {
                let got = &output.sparse.as_ref().expect("sparse vectors")[row];
                assert!(got.indices.is_sorted() && got.values.iter().all(|&value| value > 0.0));
                self.within(&what("sparse"), sparse_difference(got, &sparse(&rows[row])), SPARSE);
            }
            if let Some(rows) = case.get("tokens") {
                let want: Vec<f32> = rows[row].as_array().expect("rows").iter().flat_map(floats).collect();
                let got = &output.tokens.as_ref().expect("token vectors")[row];
                self.within(&what("tokens"), difference(&got.values, &want), DENSE);
            }
            let alone = bits(&encode(&[text]), 0);
            self.within(&what("in a batch"), f32::from(u8::from(alone != bits(&output, row))), 0.0);
            let mirrored = bits(&backwards, texts.len() - 1 - row);
            self.within(&what("reordered"), f32::from(u8::from(alone != mirrored)), 0.0);
        }
    }

    fn rerank(&mut self, folder: &str, index: usize, case: &Value) {
        let mut options: RerankOptions = match case.get("options") {
            Some(options) => serde_json::from_value(options.clone()).expect("rerank options"),
            None => RerankOptions::default(),
        };
        options.device = self.device;
        let warned = Warned::default();
        let reranker = match block_on(Reranker::load(&self.files(folder), &options, &warned)) {
            Ok(reranker) => reranker,
            Err(error) => return self.failures.push(format!("{}: rerank {index}: {error}", self.fixture)),
        };
        self.failures.extend(warned.0.into_inner().expect("sound"));
        let (query, documents) = (case["query"].as_str().expect("a query"), strings(&case["documents"]));
        let ranked = block_on(reranker.rerank(query, &documents, None, &())).expect("valid texts");
        assert!(ranked.is_sorted_by(|a, b| a.score >= b.score));
        let want = floats(&case["scores"]);
        assert_eq!(ranked.len(), want.len());
        for place in &ranked {
            let error = (place.score - want[place.index]).abs();
            self.within(&format!("rerank {index} document {}", place.index), error, SCORE);
            let alone = block_on(reranker.rerank(query, &documents[place.index..=place.index], Some(1), &()));
            let alone = alone.expect("valid")[0].score.to_bits();
            self.within(&format!("rerank {index} alone"), f32::from(u8::from(alone != place.score.to_bits())), 0.0);
        }
        let best = block_on(reranker.rerank(query, &documents, Some(1), &())).expect("valid");
        assert_eq!(best, ranked[..documents.len().min(1)]);
    }
}

#[test]
fn every_fixture_equals_the_original_program() {
    every_fixture(&[Device::Cpu, Device::Reference]);
}

#[cfg(feature = "webgpu")]
#[test]
fn every_fixture_equals_the_original_program_on_the_gpu() {
    // Kept open, so that models share its kernels.
    if let Some(_gpu) = crate::common::gpu() {
        every_fixture(&[Device::WebGpu]);
    }
}

#[allow(clippy::print_stdout, reason = "what a test says of itself")]
fn every_fixture(devices: &[Device]) {
    let mut failures = Vec::new();
    let mut fixtures = 0;
    let mut folders: Vec<_> = fs::read_dir(path("tests/fixtures")).expect("fixtures").flatten().collect();
    folders.sort_by_key(fs::DirEntry::file_name);
    for entry in folders {
        let name = entry.file_name().into_string().expect("UTF-8");
        let folder = format!("tests/fixtures/{name}");
        if !entry.path().join("expect.json").exists() {
            continue;
        }
        let expected = json(&format!("{folder}/expect.json"));
        let list = |key: &str| expected.get(key).and_then(Value::as_array).cloned().unwrap_or_default();
        let (cases, pairs) = (list("cases"), list("rerank"));
        if cases.is_empty() && pairs.is_empty() {
            continue; // of another form, with a test of its own
        }
        let model = expected["model"].as_str().map(str::to_owned);
        for &device in devices {
            let fixture = name.clone();
            let mut check = Check { fixture, device, model: model.clone(), failures: Vec::new(), checked: 0 };
            cases.iter().enumerate().for_each(|(index, case)| check.case(&folder, index, case));
            pairs.iter().enumerate().for_each(|(index, case)| check.rerank(&folder, index, case));
            let passed = check.checked - check.failures.len().min(check.checked);
            println!("{name} on {device:?}: {passed} of {} checks passed", check.checked);
            failures.append(&mut check.failures);
        }
        fixtures += 1;
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    assert!(fixtures >= 19, "only {fixtures} fixtures were found");
}

/// The scores of pairs that FlagEmbedding's own code gives, of every kind and mixed.
#[test]
fn hybrid_scores_equal_the_original_program() {
    let folder = "tests/fixtures/bge-m3";
    let expected = &json(&format!("{folder}/expect.json"))["scores"];
    let embedder = block_on(Embedder::load(&Directory::new(path(folder)), &LoadOptions::default(), &()));
    let embedder = embedder.expect("valid");
    for (index, pair) in expected["pairs"].as_array().expect("pairs").iter().enumerate() {
        let output = crate::common::encode(&embedder, &strings(pair));
        let dense = output.vectors();
        let product: f64 = dense.row(0).iter().zip(dense.row(1)).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum();
        let (sparse, tokens) = (output.sparse.expect("sparse"), output.tokens.expect("tokens"));
        let lexical = score::lexical(&sparse[0], &sparse[1]);
        let colbert = score::colbert(&tokens[0].values, &tokens[1].values, tokens[0].width);
        let parts = [product, lexical, colbert];
        let kinds = [
            ("dense", product),
            ("sparse", lexical),
            ("colbert", colbert),
            ("sparse+dense", score::hybrid(&parts, &[0.4, 0.2, 0.0])),
            ("colbert+sparse+dense", score::hybrid(&parts, &[0.4, 0.2, 0.4])),
        ];
        for (kind, got) in kinds {
            let error = (got - expected[kind][index].as_f64().expect("a score")).abs();
            assert!(error <= 2e-5, "pair {index} {kind}: {error:e}");
        }
    }
}

fn static_model(name: &str) -> Memory {
    let base = "tests/fixtures/model2vec";
    let mut files = Memory::new();
    files.insert("tokenizer.json".into(), read(&format!("{base}/tokenizer.json")).into());
    for entry in fs::read_dir(path(&format!("{base}/{name}"))).expect("a model") {
        let file = entry.expect("an entry").file_name().into_string().expect("UTF-8");
        files.insert(file.clone(), read(&format!("{base}/{name}/{file}")).into());
    }
    files
}

#[test]
fn static_models_equal_the_python_program() {
    let expected = json("tests/fixtures/model2vec/expect.json");
    let texts = strings(&expected["texts"]);
    for (name, rows) in expected["models"].as_object().expect("models") {
        let files = static_model(name);
        let embedder = block_on(Embedder::load(&files, &LoadOptions::default(), &())).expect("valid");
        let output = crate::common::encode(&embedder, &texts);
        for (index, text) in texts.iter().enumerate() {
            let want = floats(&rows[index]);
            let error = difference(output.vectors().row(index), &want);
            assert!(error <= DENSE, "{name}, {:?}: {error:e}", &text[..text.len().min(20)]);
        }
        let cut: Vec<usize> = (0..texts.len()).filter(|&index| texts[index].len() > 2000).collect();
        assert_eq!(output.usage.truncated, cut, "{name}");
        // The same files in the layout with a folder for the table. Without Model2Vec's configuration it would be another model.
        if !files.contains_key("config.json") {
            continue;
        }
        let mut nested = Memory::new();
        for (file, bytes) in &files {
            let below = ["model.safetensors", "tokenizer.json"].contains(&file.as_str());
            nested.insert(if below { format!("0_StaticEmbedding/{file}") } else { file.clone() }, bytes.clone());
        }
        let modules = r#"[{"path": "0_StaticEmbedding", "type": "sentence_transformers.models.StaticEmbedding"}]"#;
        nested.insert("modules.json".into(), modules.as_bytes().into());
        let nested = block_on(Embedder::load(&nested, &LoadOptions::default(), &())).expect("valid");
        assert_eq!(crate::common::encode(&nested, &texts).dense, output.dense, "{name}");
        // `StaticModel(vectors, tokenizer).save_pretrained` names no type, with a list of stages or without.
        let mut config: Value = serde_json::from_slice(&files["config.json"]).expect("JSON");
        config.as_object_mut().expect("an object").remove("model_type");
        config["embedding_dtype"] = "float32".into();
        let mut untyped = files.clone();
        untyped.insert("config.json".into(), config.to_string().into_bytes().into());
        let modules = r#"[{"path": ".", "type": "sentence_transformers.models.StaticEmbedding"}]"#;
        for modules in [None, Some(modules)] {
            untyped.extend(modules.map(|modules| ("modules.json".to_owned(), modules.as_bytes().into())));
            let untyped = block_on(Embedder::load(&untyped, &LoadOptions::default(), &())).expect("valid");
            assert_eq!(crate::common::encode(&untyped, &texts).dense, output.dense, "{name}");
        }
    }
}

/// A table that only `modules.json` names is computed as sentence-transformers does: unknown tokens count, nothing is cut.
#[test]
fn a_static_embedding_of_sentence_transformers_follows_its_rules() {
    let expected = json("tests/fixtures/model2vec/expect.json");
    let texts = strings(&expected["texts"]);
    let mut files = static_model("sentence-transformers");
    let modules = r#"[{"path": "", "type": "sentence_transformers.models.StaticEmbedding"}]"#;
    files.insert("modules.json".into(), modules.as_bytes().into());
    let embedder = block_on(Embedder::load(&files, &LoadOptions::default(), &())).expect("valid");
    let output = crate::common::encode(&embedder, &texts);
    assert!(output.usage.truncated.is_empty());
    for (index, text) in texts.iter().enumerate() {
        let want = floats(&expected["static_embedding"][index]);
        let error = difference(output.vectors().row(index), &want);
        // torch sums in f32: of a thousand equal rows it gives a mean that is 8e-5 off the row itself, which ours must be.
        let tolerance = if text.len() > 2000 { 2e-4 } else { DENSE };
        assert!(error <= tolerance, "{:?}: {error:e}", &text[..text.len().min(20)]);
    }
    let row = |text: &str| output.vectors().row(texts.iter().position(|other| *other == text).expect("a text"));
    assert_eq!(row("hello"), row(&"hello ".repeat(1000)));
}

#[test]
fn published_values_of_model2vec() {
    let embed = |model: &str, text: &str| {
        let embedder = block_on(Embedder::load(&static_model(model), &LoadOptions::default(), &())).expect("valid");
        crate::common::encode(&embedder, &[text]).vectors().row(0).to_vec()
    };
    // model2vec-rs' tests/fixtures/embeddings_*.json
    assert!(difference(&embed("float32", "hello world"), &[-0.393_454_7, -0.919_344]) < 1e-6);
    // NumPy sums 512 equal rows in f32, which is off by 4e-6; we sum in f64.
    assert!(difference(&embed("float32", &"hello ".repeat(1000)), &[-0.798_084_7, -0.602_545_4]) < 5e-6);
    let quantized = &embed("vocab-quantized", "hello")[..3];
    assert!(difference(quantized, &[-0.363_402_57, -0.172_806_23, 0.399_405_7]) < 1e-6);
}

#[test]
fn a_static_table_that_contradicts_itself_is_refused() {
    let broken = |change: &dyn Fn(&mut Memory)| {
        let mut files = static_model("vocab-quantized");
        change(&mut files);
        block_on(Embedder::load(&files, &LoadOptions::default(), &())).err().expect("refused").code()
    };
    // The last four bytes are a row of the mapping.
    let outside = |files: &mut Memory| {
        let mut weights = files["model.safetensors"].to_vec();
        let end = weights.len();
        weights[end - 4..].copy_from_slice(&128i32.to_le_bytes());
        files.insert("model.safetensors".into(), weights.into());
    };
    assert_eq!(broken(&outside), Code::InvalidWeights);
    let other = |files: &mut Memory| {
        drop(files.insert("tokenizer.json".into(), static_model("int8")["tokenizer.json"].clone()));
    };
    assert_eq!(broken(&other), Code::InvalidTokenizer);
}

/// Large weights in f16 and int8 stay near f32, whatever the family's shapes; small ones are not touched.
#[test]
fn other_forms_of_weights_stay_near() {
    let model = |dtype| {
        let options = LoadOptions { dtype: Some(dtype), ..LoadOptions::default() };
        crate::common::minilm_with(&options)
    };
    let texts = ["The weather is lovely today.", "It's so sunny outside!", "He drove to the stadium.", ""];
    let exact = crate::common::encode(&model(Dtype::F32), &texts);
    for (dtype, lowest) in [(Dtype::F16, 0.999_999), (Dtype::Int8, 0.995)] {
        let near = crate::common::encode(&model(dtype), &texts);
        for (a, b) in exact.vectors().rows().zip(near.vectors().rows()) {
            let cosine = crate::common::cosine(a, b);
            assert!(cosine >= lowest && a != b, "{dtype:?}: {cosine}");
        }
    }
    let options = EncodeOptions { outputs: Some(Vec::new()), ..EncodeOptions::default() };
    let error = block_on(model(Dtype::F32).encode(&texts, options, &())).expect_err("nothing is asked for");
    assert_eq!(error.code(), Code::InvalidOption);
}
