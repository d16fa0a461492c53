//! A converted model: as small as promised, and the same model.

use std::{
    fs,
    path::{Path, PathBuf},
};

use crate::common::{Dense as _, cosine, encode, minilm, path, read};
use wick_embed::{
    Code, Dtype, Embedder, Error, LoadOptions, Role, Watch,
    convert::{ConvertOptions, Converted, convert},
    platform::native::{Directory, block_on},
};

const MINILM: &str = "build/models/all-MiniLM-L6-v2";

/// A place below the tests' own folder where nothing is.
fn fresh(name: &str) -> PathBuf {
    let place = Path::new(env!("CARGO_TARGET_TMPDIR")).join("convert").join(name);
    let _ = fs::remove_dir_all(&place);
    place
}

fn options(dtype: Dtype) -> ConvertOptions {
    ConvertOptions { dtype, weights: None }
}

fn converted(model: impl AsRef<Path>, name: &str, dtype: Dtype) -> (PathBuf, Converted) {
    let place = fresh(name);
    let done = convert(model.as_ref(), &place, &options(dtype), &()).expect("a model");
    (place, done)
}

fn load(folder: &Path) -> Result<Embedder, Error> {
    block_on(Embedder::load(&Directory::new(folder), &LoadOptions::default(), &()))
}

fn weights(folder: &Path) -> Vec<u8> {
    fs::read(folder.join("model.safetensors")).expect("weights")
}

/// First sentences of STS-B.
fn sentences(count: usize) -> Vec<String> {
    let text = String::from_utf8(read("build/stsb-en-test.tsv")).expect("UTF-8");
    text.lines().skip(1).take(count).map(|line| line.split('\t').nth(1).expect("a sentence").to_owned()).collect()
}

#[test]
fn minilm_becomes_half_and_a_quarter_and_stays_itself() {
    let texts = sentences(200);
    let original = encode(&minilm(), &texts);
    for (name, dtype, size, floor) in [("f16", Dtype::F16, 0.501, 0.9995), ("int8", Dtype::Int8, 0.255, 0.995)] {
        let (folder, done) = converted(path(MINILM), name, dtype);
        let share = done.after as f64 / done.before as f64;
        assert_eq!(done.after, weights(&folder).len() as u64);
        assert!(share < size, "{name}: {share} of the original");
        let output = encode(&load(&folder).expect("it loads"), &texts);
        let cosines = original.vectors().rows().zip(output.vectors().rows()).map(|(a, b)| cosine(a, b));
        let lowest = cosines.fold(1.0, f64::min);
        println!("{name}: {share:.4} of the bytes, lowest cosine {lowest:.6}");
        assert!(lowest >= floor, "{name}: {lowest}");

        let (again, _) = converted(path(MINILM), &format!("{name}-again"), dtype);
        assert!(weights(&folder) == weights(&again), "{name}: the second time gave another file");
    }
    // Eight bits are not rounded a second time, and do not come back.
    let int8 = fresh("int8").with_file_name("int8-again");
    let (twice, _) = converted(&int8, "int8-twice", Dtype::Int8);
    assert!(weights(&int8) == weights(&twice));
    let error = convert(&int8, &fresh("int8-f16"), &options(Dtype::F16), &()).expect_err("refused");
    assert_eq!((error.code(), error.at()), (Code::InvalidOption, "dtype"));
    assert!(!fresh("int8-f16").exists());
}

#[test]
fn loading_in_a_form_and_converting_to_it_are_the_same() {
    let (folder, _) = converted(path(MINILM), "same", Dtype::Int8);
    let options = LoadOptions { dtype: Some(Dtype::Int8), ..LoadOptions::default() };
    let texts = ["The weather is lovely today.", "It's so sunny outside!"];
    let loaded = encode(&crate::common::minilm_with(&options), &texts);
    assert_eq!(encode(&load(&folder).expect("it loads"), &texts).vectors(), loaded.vectors());
}

#[test]
fn a_tiny_model_keeps_every_value() {
    for dtype in [Dtype::F32, Dtype::F16, Dtype::Int8] {
        let (folder, _) = converted(path("tests/fixtures/bert-tiny"), "tiny", dtype);
        let original = load(&path("tests/fixtures/bert-tiny")).expect("the fixture");
        let texts = ["the weather is lovely today", "wick burns"];
        let output = encode(&load(&folder).expect("it loads"), &texts);
        assert_eq!(output.vectors(), encode(&original, &texts).vectors(), "{dtype:?}");
    }
}

/// The tiny fixture in a folder of its own, to be changed.
fn copy_of_tiny(name: &str) -> PathBuf {
    let folder = fresh(name);
    fs::create_dir_all(&folder).expect("a folder");
    for file in ["config.json", "tokenizer.json", "model.safetensors"] {
        fs::write(folder.join(file), read(&format!("tests/fixtures/bert-tiny/{file}"))).expect("written");
    }
    folder
}

/// A safetensors file of f32 tensors.
fn safetensors(tensors: &[(&str, &[usize], &[f32])]) -> Vec<u8> {
    let mut header = serde_json::Map::new();
    let mut data = Vec::new();
    for (name, shape, values) in tensors {
        let start = data.len();
        data.extend(values.iter().flat_map(|value| value.to_le_bytes()));
        header.insert(
            (*name).to_owned(),
            serde_json::json!({"dtype": "F32", "shape": shape, "data_offsets": [start, data.len()]}),
        );
    }
    let header = serde_json::Value::Object(header).to_string();
    [&(header.len() as u64).to_le_bytes(), header.as_bytes(), &data].concat()
}

#[test]
fn shards_become_one_file_and_stages_go_along() {
    let folder = copy_of_tiny("sharded-source");
    let whole = load(&folder).expect("the fixture");
    // Two shards: one holds a tensor that no model asks for, the other all that the model has.
    fs::rename(folder.join("model.safetensors"), folder.join("a.safetensors")).expect("renamed");
    fs::write(folder.join("b.safetensors"), safetensors(&[("unused", &[2], &[1.0, 2.0])])).expect("written");
    let bytes = read("tests/fixtures/bert-tiny/model.safetensors");
    let length = u64::from_le_bytes(bytes[..8].try_into().expect("eight")) as usize;
    let header: serde_json::Value = serde_json::from_slice(&bytes[8..8 + length]).expect("JSON");
    let mut map: serde_json::Map<String, serde_json::Value> = header
        .as_object()
        .expect("an object")
        .keys()
        .filter(|name| *name != "__metadata__")
        .map(|name| (name.clone(), "a.safetensors".into()))
        .collect();
    map.insert("unused".to_owned(), "b.safetensors".into());
    let index = serde_json::json!({ "weight_map": map }).to_string();
    fs::write(folder.join("model.safetensors.index.json"), index).expect("written");
    let modules = r#"[{"path": "", "type": "sentence_transformers.models.Transformer"}, {"path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
                      {"path": "2_Dense", "type": "sentence_transformers.models.Dense"}]"#;
    let dense = r#"{"in_features": 32, "out_features": 1, "bias": false, "activation_function": "torch.nn.Identity"}"#;
    for (file, text) in [
        ("modules.json", modules),
        ("1_Pooling/config.json", r#"{"pooling_mode": "mean"}"#),
        ("2_Dense/config.json", dense),
        ("notes.txt", "not for the page"),
        ("LICENSE", "terms"),
    ] {
        fs::create_dir_all(folder.join(file).parent().expect("a folder")).expect("made");
        fs::write(folder.join(file), text).expect("written");
    }
    let ones = safetensors(&[("linear.weight", &[1, 32], &[1.0; 32])]);
    fs::write(folder.join("2_Dense/model.safetensors"), ones).expect("written");

    let (made, done) = converted(&folder, "sharded", Dtype::F16);
    let names: Vec<&str> = done.files.iter().map(|(file, _)| file.as_str()).collect();
    let wanted = [
        "model.safetensors",
        "2_Dense/model.safetensors",
        "1_Pooling/config.json",
        "2_Dense/config.json",
        "LICENSE",
        "config.json",
        "modules.json",
        "tokenizer.json",
    ];
    assert_eq!(names, wanted);
    for (file, length) in &done.files {
        assert_eq!(fs::metadata(made.join(file)).expect("it is there").len(), *length, "{file}");
    }
    let texts = ["the weather is lovely today"];
    let sum: f32 = encode(&whole, &texts).vectors().row(0).iter().sum();
    let got = encode(&load(&made).expect("it loads"), &texts).vectors().row(0).to_vec();
    assert!(got.len() == 1 && (got[0] - sum).abs() < 1e-4, "{got:?} is not {sum}");
}

#[test]
fn what_no_weight_is_is_left_out_and_named() {
    let folder = copy_of_tiny("with-a-mask");
    let bytes = weights(&folder);
    let (length, rest) = bytes.split_at(8);
    let (header, data) = rest.split_at(u64::from_le_bytes(length.try_into().expect("eight")) as usize);
    let mut header: serde_json::Value = serde_json::from_slice(header).expect("JSON");
    header["mask"] = serde_json::json!({"dtype": "BOOL", "shape": [3], "data_offsets": [data.len(), data.len() + 3]});
    let header = header.to_string();
    let file = [&(header.len() as u64).to_le_bytes(), header.as_bytes(), data, &[1, 0, 1]].concat();
    fs::write(folder.join("model.safetensors"), file).expect("written");
    let (made, done) = converted(&folder, "without-a-mask", Dtype::F32);
    assert_eq!(done.left_out, ["mask"]);
    assert!(load(&made).is_ok());
    let (_, whole) = converted(path("tests/fixtures/bert-tiny"), "whole", Dtype::F32);
    assert_eq!(whole.left_out, [] as [String; 0]);
}

/// Stops at the first byte.
struct Stop;

impl Watch for Stop {
    fn cancelled(&self) -> bool {
        true
    }
}

#[test]
fn what_fails_leaves_nothing_and_what_is_there_stays() {
    let place = fresh("failing").join("model");
    let leaves_nothing = || {
        let parent = place.parent().expect("a folder");
        let left: Vec<_> = fs::read_dir(parent).map(|entries| entries.flatten().collect()).unwrap_or_default();
        assert!(left.is_empty(), "{left:?}");
    };
    let code =
        |model: &Path, watch: &dyn Fn(&Path) -> Result<Converted, Error>| watch(model).expect_err("refused").code();
    let plain = |model: &Path| convert(model, &place, &options(Dtype::F16), &());

    assert_eq!(code(&path("no/such/folder"), &plain), Code::MissingFile);
    leaves_nothing();
    let stopped = |model: &Path| convert(model, &place, &options(Dtype::F16), &Stop);
    assert_eq!(code(&path(MINILM), &stopped), Code::Aborted);
    leaves_nothing();
    let truncated = copy_of_tiny("truncated");
    let bytes = weights(&truncated);
    fs::write(truncated.join("model.safetensors"), &bytes[..bytes.len() - 1]).expect("written");
    assert_eq!(code(&truncated, &plain), Code::InvalidWeights);
    leaves_nothing();

    // An empty folder is a place, one with files is not.
    fs::create_dir_all(&place).expect("made");
    plain(&path("tests/fixtures/bert-tiny")).expect("an empty folder may be there");
    let before = weights(&place);
    assert_eq!(code(&path("tests/fixtures/bert-tiny"), &plain), Code::InvalidOption);
    assert_eq!(weights(&place), before);
    let file = place.join("config.json");
    let error = convert(&path(MINILM), &file, &options(Dtype::F16), &()).expect_err("a file is no place");
    assert_eq!(error.code(), Code::InvalidOption);
}

/// Prompts that are known by a folder's name alone stay with the model in a folder of another name.
#[test]
fn prompts_known_by_name_are_written_down() {
    let named = fresh("nomic-embed-text-v1.5");
    fs::create_dir_all(named.join("1_Pooling")).expect("a folder");
    let files = ["config.json", "tokenizer.json", "model.safetensors", "modules.json", "1_Pooling/config.json"];
    for file in files.iter().chain(&["config_sentence_transformers.json"]) {
        fs::write(named.join(file), read(&format!("tests/fixtures/nomic/{file}"))).expect("written");
    }
    let (other, _) = converted(&named, "another-name", Dtype::F32);
    let tokens = |folder: &Path, role| load(folder).expect("it loads").tokenize("is", role).expect("valid");
    for role in [Role::Query, Role::Document] {
        assert_eq!(tokens(&other, role), tokens(&named, role), "{role:?}");
        assert!(tokens(&other, role).len() > tokens(&other, Role::Plain).len(), "{role:?}");
    }
    let kept = fs::read_to_string(other.join("config_sentence_transformers.json")).expect("written");
    assert!(kept.contains("__version__"), "what else stands there stays: {kept}");
}

/// What a GGUF file says of itself would be lost.
#[test]
fn a_gguf_file_is_not_converted() {
    let options = ConvertOptions { dtype: Dtype::F16, weights: Some("bert-f32.gguf".to_owned()) };
    let place = fresh("gguf");
    let error = convert(&path("tests/fixtures/gguf-bert"), &place, &options, &()).expect_err("refused");
    assert_eq!((error.code(), place.exists()), (Code::InvalidOption, false), "{error}");
}
