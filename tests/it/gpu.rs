//! The GPU's executor on a real model, from text to vector. `tests/it/families.rs` has the other families, and the tests of the crate each kernel.

use std::collections::BTreeMap;

use crate::common::{Dense as _, cosine, difference, encode, gpu, json, minilm, minilm_with, path, read};
use wick_embed::{
    Code, Device, Dtype, Embedder, LoadOptions, OutputKind, Role,
    gpu::{Work, plan::Kernel, shaders::source},
    platform::native::{Directory, block_on},
};

fn on_gpu(options: LoadOptions) -> LoadOptions {
    LoadOptions { device: Device::WebGpu, ..options }
}

fn sentences(count: usize) -> Vec<String> {
    let table = String::from_utf8(read("build/stsb-en-test.tsv")).expect("UTF-8");
    let rows = table.lines().skip(1).flat_map(|line| line.split('\t').skip(1));
    rows.take(count).map(str::to_owned).collect()
}

/// In each form of weights. Eight-bit weights meet activations that are not rounded, so that the GPU is nearer to f32 than the processor. Few
/// sentences, because the program that stands in for a GPU where tests run computes some twenty tokens a second.
#[test]
fn sentences_have_the_processors_vectors() {
    let Some(_gpu) = gpu() else { return };
    let cases = [(Dtype::F32, 12, 0.999_999, 1e-5), (Dtype::F16, 3, 0.999_99, 1e-3), (Dtype::Int8, 3, 0.99, 0.1)];
    for (dtype, count, lowest, largest) in cases {
        let texts = sentences(count);
        let exact = encode(&minilm(), &texts);
        let options = LoadOptions { dtype: Some(dtype), ..LoadOptions::default() };
        let got = encode(&minilm_with(&on_gpu(options)), &texts);
        let pairs = exact.vectors().rows().zip(got.vectors().rows());
        let worst = pairs.map(|(a, b)| cosine(a, b)).fold(1.0, f64::min);
        let error = difference(&exact.vectors().values, &got.vectors().values);
        println!("{dtype:?}: lowest cosine {worst:.8}, largest difference {error:.1e}");
        assert!(worst >= lowest && error <= largest && error > 0.0, "{dtype:?}: {worst} {error:e}");
    }
}

#[test]
fn a_text_alone_in_a_batch_and_reordered_is_bit_equal() {
    let Some(_gpu) = gpu() else { return };
    let embedder = minilm_with(&on_gpu(LoadOptions::default()));
    let long = "a much longer text that goes on and on about nothing in particular ".repeat(6);
    let texts = ["", "Wick", "The weather is lovely today.", &long, "Wick"];
    let together = encode(&embedder, &texts);
    let mut reversed = texts;
    reversed.reverse();
    let backwards = encode(&embedder, &reversed);
    let bits = |row: &[f32]| row.iter().map(|value| value.to_bits()).collect::<Vec<_>>();
    for (index, text) in texts.iter().enumerate() {
        let alone = encode(&embedder, &[text]);
        assert_eq!(bits(together.vectors().row(index)), bits(alone.vectors().row(0)), "text {index} in a batch");
        let mirrored = backwards.vectors().row(texts.len() - 1 - index);
        assert_eq!(bits(mirrored), bits(alone.vectors().row(0)), "text {index} reordered");
    }
}

/// As long as models are trained for, with windows, rotations and a bias by distance: on small models.
#[test]
fn long_texts_have_the_processors_vectors() {
    let Some(_gpu) = gpu() else { return };
    for (name, tokens) in [("modernbert", 512), ("gte", 700), ("t5", 512)] {
        let files = Directory::new(path(&format!("tests/fixtures/{name}")));
        let options =
            LoadOptions { max_tokens: Some(tokens), outputs: Some(vec![OutputKind::Dense]), ..LoadOptions::default() };
        let load = |options: &LoadOptions| block_on(Embedder::load(&files, options, &())).expect("valid");
        let texts = ["far beyond the limit ".repeat(400), "a text".to_owned(), "about as long as others ".repeat(16)];
        let want = encode(&load(&options), &texts);
        let embedder = load(&on_gpu(options));
        let got = encode(&embedder, &texts);
        assert!(got.usage.truncated == [0] && got.usage.tokens > tokens + 20, "{name}: {:?}", got.usage);
        let error = difference(&want.vectors().values, &got.vectors().values);
        assert!(error < 1e-5, "{name}: {error:e}");
        let alone = encode(&embedder, &texts[2..]);
        assert_eq!(alone.vectors().row(0), got.vectors().row(2), "{name}");
    }
}

/// Leaves the text of every variant in `target/tmp/shaders.json`, which tests/web/gpu.test.mjs gives to a browser's compiler.
#[test]
fn shaders_are_written_down_for_the_browser() {
    let shaders: BTreeMap<String, String> =
        Kernel::all().into_iter().map(|kernel| (format!("{kernel:?}"), source(kernel))).collect();
    assert!(shaders.len() > 20 && shaders.values().all(|text| text.contains("@compute")));
    let folder = path("target/tmp");
    std::fs::create_dir_all(&folder).expect("a folder");
    std::fs::write(folder.join("shaders.json"), serde_json::to_string(&shaders).expect("JSON")).expect("written");
}

/// Seven kernels a layer: q, k and v; attention; its output; a norm that adds; the two maps of the MLP; a norm that adds.
#[test]
fn a_batch_is_one_submission_of_seven_kernels_a_layer() {
    let Some(_gpu) = gpu() else { return };
    let embedder = minilm_with(&on_gpu(LoadOptions::default()));
    let gpu = embedder.gpu().expect("loaded on it");
    gpu.take_profile();
    encode(&embedder, &["The weather is lovely today.", "It's so sunny outside!"]);
    let profile = gpu.take_profile();
    // The embedding's norm and the pooling.
    assert_eq!((profile.dispatches, profile.submissions), (6 * 7 + 2, 1));
    assert!(minilm().gpu().is_none());
}

/// By hand: a token meets every weight once, and each kernel reads and writes its activations once.
#[test]
fn operations_and_bytes_of_a_batch_are_counted() {
    let Some(_gpu) = gpu() else { return };
    let embedder = minilm_with(&on_gpu(LoadOptions::default()));
    let gpu = embedder.gpu().expect("loaded on it");
    if !gpu.device().has_clock() {
        assert_ne!(std::env::var("WICK_TEST_GPU").as_deref(), Ok("1"), "the GPU has no clock");
        return;
    }
    gpu.set_timing(true);
    gpu.take_profile();
    let tokens = encode(&embedder, &["The weather is lovely today.", "It's so sunny outside!"]).usage.tokens as f64;
    let kernels = gpu.take_profile().kernels;
    let sum = |kernel: &str, of: fn(&Work) -> f64| -> f64 {
        kernels.iter().filter(|(name, _)| name.starts_with(kernel)).map(|(_, time)| of(&time.work)).sum()
    };
    let weights = 6.0 * (4.0 * 384.0 * 384.0 + 2.0 * 384.0 * 1536.0);
    assert_eq!(sum("linear", |work| work.products), weights * tokens);
    let activations = 6.0 * tokens * ((384.0 + 1152.0) + (384.0 + 384.0) + 2.0 * (384.0 + 1536.0));
    let share = sum("linear", |work| work.bytes) / (4.0 * (weights + activations));
    // Biases beside them.
    assert!((1.0..1.005).contains(&share), "{share}");
    let share = sum("norm", |work| work.bytes) / (4.0 * tokens * 384.0 * (2.0 + 12.0 * 3.0));
    assert!((1.0..1.3).contains(&share), "{share}");
}

/// Each in a submission of its own, and each text with the vector that it has alone.
#[test]
fn a_call_of_several_batches() {
    let Some(_gpu) = gpu() else { return };
    let files = Directory::new(path("tests/fixtures/bert-tiny"));
    let load = |options: &LoadOptions| block_on(Embedder::load(&files, options, &())).expect("valid");
    let texts: Vec<String> = (0..700).map(|index| format!("{} {index}", "a few words ".repeat(8))).collect();
    let want = encode(&load(&LoadOptions::default()), &texts);
    let embedder = load(&on_gpu(LoadOptions::default()));
    let gpu = embedder.gpu().expect("loaded on it");
    gpu.take_profile();
    let got = encode(&embedder, &texts);
    assert!(got.usage.tokens > 16_384, "{}", got.usage.tokens);
    assert!(gpu.take_profile().submissions > 1);
    assert!(difference(&got.vectors().values, &want.vectors().values) < 1e-5);
    assert_eq!(encode(&embedder, &texts[699..]).vectors().row(0), got.vectors().row(699));
}

#[test]
fn all_heads_of_a_batch_are_one_submission() {
    let Some(_gpu) = gpu() else { return };
    let files = Directory::new(path("tests/fixtures/bge-m3"));
    let embedder = block_on(Embedder::load(&files, &on_gpu(LoadOptions::default()), &())).expect("valid");
    let gpu = embedder.gpu().expect("loaded on it");
    gpu.take_profile();
    let output = encode(&embedder, &["a text", "and another"]);
    assert!(output.dense.is_some() && output.sparse.is_some() && output.tokens.is_some());
    assert_eq!(gpu.take_profile().submissions, 1);
}

/// Where norms stand before, they compute the sums that stand before them.
#[test]
fn encoders_with_norms_before_have_no_more() {
    let Some(_gpu) = gpu() else { return };
    for (name, key) in [("modernbert", "num_hidden_layers"), ("t5", "num_layers"), ("t5-gated", "num_layers")] {
        let folder = format!("tests/fixtures/{name}");
        let layers = json(&format!("{folder}/config.json"))[key].as_u64().expect("layers") as usize;
        let files = Directory::new(path(&folder));
        let options = on_gpu(LoadOptions { outputs: Some(vec![OutputKind::Dense]), ..LoadOptions::default() });
        let embedder = block_on(Embedder::load(&files, &options, &())).expect("valid");
        let gpu = embedder.gpu().expect("loaded on it");
        gpu.take_profile();
        encode(&embedder, &["a text", "and another"]);
        let profile = gpu.take_profile();
        // A norm before the first layer, one after the last, the pooling and a Dense stage.
        assert!((6 * layers..=7 * layers + 4).contains(&profile.dispatches), "{name}: {profile:?} for {layers} layers");
        assert_eq!(profile.submissions, 1, "{name}");
    }
}

#[test]
fn a_lost_gpu_is_an_error_of_its_own_and_the_model_can_be_loaded_again() {
    let Some(_gpu) = gpu() else { return };
    let embedder = minilm_with(&on_gpu(LoadOptions::default()));
    embedder.gpu().expect("loaded on it").device().destroy();
    for _ in 0..2 {
        let error = block_on(embedder.encode(&["a text"], Role::Plain, &())).expect_err("lost");
        assert_eq!(error.code(), Code::DeviceLost, "{error}");
    }
    let again = encode(&minilm_with(&on_gpu(LoadOptions::default())), &["a text"]);
    assert!(difference(again.vectors().row(0), encode(&minilm(), &["a text"]).vectors().row(0)) < 1e-5);
}
