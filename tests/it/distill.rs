//! Static models made of encoders.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
};

use crate::common::{Dense as _, cosine, difference, encode, json, path, read};
use serde_json::Value;
use wick_embed::{
    Code, Dtype, Embedder, Error, LoadOptions, Role, Watch,
    distill::{DistillOptions, Distilled, Weighting, distill},
    platform::native::{Directory, block_on},
};

const TINY: &str = "tests/fixtures/bert-tiny";

/// A place below the tests' own folder where nothing is.
fn fresh(name: &str) -> PathBuf {
    let place = Path::new(env!("CARGO_TARGET_TMPDIR")).join("distill").join(name);
    let _ = fs::remove_dir_all(&place);
    place
}

fn load(folder: &Path) -> Result<Embedder, Error> {
    block_on(Embedder::load(&Directory::new(folder), &LoadOptions::default(), &()))
}

fn tiny(name: &str, options: &DistillOptions) -> (PathBuf, Result<Distilled, Error>) {
    let place = fresh(name);
    let made = distill(&path(TINY), &place, options, &());
    (place, made)
}

fn options(dimensions: usize, weighting: Weighting, dtype: Dtype) -> DistillOptions {
    DistillOptions { dimensions, weighting, dtype, ..DistillOptions::default() }
}

fn parsed(folder: &Path, file: &str) -> Value {
    serde_json::from_slice(&fs::read(folder.join(file)).expect("written")).expect("JSON")
}

#[test]
fn the_folder_is_model2vecs() {
    let (folder, made) = tiny("format", &options(8, Weighting::Sif(1e-3), Dtype::F32));
    // 99 entries without [CLS], [SEP], [MASK] and two reserved ones.
    let made = made.expect("a model");
    assert_eq!(made.tokens, 94);
    assert!(made.share > 0.2 && made.share < 1.0, "{made:?}");
    let config = parsed(&folder, "config.json");
    for (key, value) in [
        ("model_type", Value::from("model2vec")),
        ("normalize", true.into()),
        ("apply_pca", 8.into()),
        ("hidden_dim", 8.into()),
        ("sif_coefficient", 1e-3.into()),
        ("embedding_dtype", "float32".into()),
        ("tokenizer_name", "bert-tiny".into()),
    ] {
        assert_eq!(config[key], value, "{key}");
    }
    let tokenizer = parsed(&folder, "tokenizer.json");
    assert_eq!(tokenizer["model"]["vocab"].as_object().expect("a vocabulary").len(), 94);
    let mut names: Vec<_> = fs::read_dir(&folder).expect("there").flatten().map(|entry| entry.file_name()).collect();
    names.sort();
    assert_eq!(names, ["config.json", "model.safetensors", "modules.json", "tokenizer.json"]);

    let embedder = load(&folder).expect("it loads");
    assert_eq!((embedder.dimensions(), embedder.max_tokens()), (8, 512));
    let tokens = embedder.tokenize("the [CLS] wick", Role::Plain).expect("valid");
    let texts: Vec<&str> = tokens.iter().map(|token| token.text.as_str()).collect();
    assert!(!texts.contains(&"[CLS]") && texts.contains(&"wick"), "{texts:?}");
}

/// With all components and no weights a vector is only turned: distances between entries are those of the encoder's own means.
#[test]
fn an_entry_is_the_mean_of_its_hidden_states() {
    let (folder, made) = tiny("turned", &options(32, Weighting::None, Dtype::F32));
    assert!((made.expect("a model").share - 1.0).abs() < 1e-9);
    let raw = LoadOptions { normalize: Some(false), ..LoadOptions::default() };
    let loaded = |folder: &Path| block_on(Embedder::load(&Directory::new(folder), &raw, &())).expect("it loads");
    let words = ["weather", "lovely", "stadium", "wick"];
    let made = encode(&loaded(&folder), &words);
    let own = encode(&loaded(&path(TINY)), &words);
    let distance = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| (a - b).powi(2)).sum::<f32>().sqrt();
    for (index, other) in [(0, 1), (0, 2), (1, 3), (2, 3)] {
        let made = distance(made.vectors().row(index), made.vectors().row(other));
        let own = distance(own.vectors().row(index), own.vectors().row(other));
        assert!((made - own).abs() < 1e-4, "{} and {}: {made} is not {own}", words[index], words[other]);
    }
}

#[test]
fn every_form_gives_nearly_the_same_vectors_and_every_time() {
    let texts = ["the weather is lovely today", "he drove to the stadium"];
    let made = |name: &str, dtype| {
        let (folder, made) = tiny(name, &options(16, Weighting::Sif(1e-4), dtype));
        made.expect("a model");
        let vectors = encode(&load(&folder).expect("it loads"), &texts).vectors().clone();
        (fs::read(folder.join("model.safetensors")).expect("written"), vectors)
    };
    let (bytes, exact) = made("f32", Dtype::F32);
    assert!(bytes == made("f32-again", Dtype::F32).0);
    for (name, dtype, size, floor) in [("f16", Dtype::F16, 2, 0.99999), ("int8", Dtype::Int8, 1, 0.999)] {
        let (bytes, vectors) = made(name, dtype);
        assert!(bytes.len() < 94 * 16 * size + 400, "{name}: {} bytes", bytes.len());
        for (got, want) in vectors.rows().zip(exact.rows()) {
            assert!(cosine(got, want) > floor, "{name}: {}", cosine(got, want));
            assert!(difference(got, want) < 0.03, "{name}");
        }
    }
}

/// Stops when the first entries were encoded.
struct Stop(AtomicBool);

impl Watch for Stop {
    fn encoded(&self, _: usize, _: usize) {
        self.0.store(true, Ordering::Relaxed);
    }

    fn cancelled(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

#[test]
fn what_cannot_be_made_is_refused_and_leaves_nothing() {
    let refused = |options: DistillOptions| {
        let (folder, made) = tiny("refused", &options);
        assert!(!folder.exists());
        (made.as_ref().expect_err("refused").code(), made.expect_err("refused").at().to_owned())
    };
    let wrong = |at: &str| (Code::InvalidOption, at.to_owned());
    assert_eq!(refused(options(33, Weighting::None, Dtype::F32)), wrong("dimensions"));
    assert_eq!(refused(options(0, Weighting::None, Dtype::F32)), wrong("dimensions"));
    assert_eq!(refused(options(8, Weighting::Sif(1.0), Dtype::F32)), wrong("sif"));
    assert_eq!(refused(options(8, Weighting::Sif(f64::NAN), Dtype::F32)), wrong("sif"));

    let place = fresh("stopped");
    let stop = Stop(false.into());
    let error = distill(&path(TINY), &place, &options(8, Weighting::None, Dtype::F32), &stop).expect_err("stopped");
    assert_eq!(error.code(), Code::Aborted);
    let (taken, made) = tiny("taken", &options(8, Weighting::None, Dtype::F32));
    made.expect("a model");
    let again = distill(&path(TINY), &taken, &options(8, Weighting::None, Dtype::F32), &()).expect_err("taken");
    assert_eq!(again.code(), Code::InvalidOption);
    let error = distill(&taken, &place, &options(8, Weighting::None, Dtype::F32), &()).expect_err("no encoder");
    assert_eq!(error.code(), Code::UnsupportedModel);
    let left: Vec<_> = fs::read_dir(place.parent().expect("a folder")).expect("there").flatten().collect();
    assert!(left.iter().all(|entry| !entry.file_name().to_string_lossy().contains("stopped")), "{left:?}");
}

fn ranks(values: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|&a, &b| values[a].total_cmp(&values[b]));
    let mut ranks = vec![0.0; values.len()];
    for tied in order.chunk_by(|&a, &b| values[a] == values[b]) {
        let first = order.iter().position(|&index| index == tied[0]).expect("its own");
        tied.iter().for_each(|&index| ranks[index] = first as f64 + (tied.len() as f64 - 1.0) / 2.0);
    }
    ranks
}

/// The model that `./build.sh distilled` makes of MiniLM and the demo offers.
#[test]
fn the_demos_model_keeps_what_model2vec_keeps() {
    let folder = path("build/models/minilm-static");
    let config = json("build/models/minilm-static/config.json");
    assert_eq!((config["hidden_dim"].as_u64(), config["embedding_dtype"].as_str()), (Some(256), Some("int8")));
    let bytes: u64 = ["model.safetensors", "tokenizer.json", "config.json", "modules.json"]
        .iter()
        .map(|file| fs::metadata(folder.join(file)).expect("`./build.sh distilled` makes it").len())
        .sum();
    assert!(bytes < 8_100_000, "{bytes} bytes");

    let embedder = load(&folder).expect("it loads");
    let text = String::from_utf8(read("build/stsb-en-test.tsv")).expect("UTF-8");
    let rows: Vec<Vec<&str>> = text.lines().skip(1).map(|line| line.split('\t').collect()).collect();
    let wanted: Vec<f64> = rows.iter().map(|row| row[0].parse().expect("a score")).collect();
    let column = |index: usize| encode(&embedder, &rows.iter().map(|row| row[index]).collect::<Vec<_>>());
    let (left, right) = (column(1), column(2));
    let got: Vec<f64> = left.vectors().rows().zip(right.vectors().rows()).map(|(a, b)| cosine(a, b)).collect();
    let (got, wanted) = (ranks(&got), ranks(&wanted));
    let mean = (got.len() as f64 - 1.0) / 2.0;
    let product = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| (a - mean) * (b - mean)).sum::<f64>();
    let spearman = product(&got, &wanted) / (product(&got, &got) * product(&wanted, &wanted)).sqrt();
    println!("{bytes} bytes, STS-B {:.3}", 100.0 * spearman);
    // Model2Vec 0.10 itself, from the same weights with the same settings in f16: 66.08.
    assert!(spearman > 0.6595, "STS-B {:.3}", 100.0 * spearman);
}
