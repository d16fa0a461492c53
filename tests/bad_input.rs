//! Broken models and bad texts: each gets its code, none a panic, and what comes after works.

mod common;

use common::{Dense as _, Memory, encode, load, tiny};
use serde_json::{Value, json};
use wick_embed::{Code, Device, Embedder, LoadOptions, Role, Watch, platform::native::block_on};

/// The tiny model with one file changed.
fn with(file: &str, change: impl FnOnce(Vec<u8>) -> Vec<u8>) -> Memory {
    let mut files = tiny();
    let bytes = files.remove(file).map(|bytes| bytes.to_vec()).unwrap_or_default();
    files.insert(file.to_owned(), change(bytes).into());
    files
}

fn with_config(key: &str, value: Value) -> Memory {
    with("config.json", |bytes| {
        let mut config: Value = serde_json::from_slice(&bytes).expect("config");
        config[key] = value;
        config.to_string().into_bytes()
    })
}

fn with_tokenizer(change: impl FnOnce(&mut Value)) -> Memory {
    with("tokenizer.json", |bytes| {
        let mut tokenizer = serde_json::from_slice(&bytes).expect("tokenizer");
        change(&mut tokenizer);
        tokenizer.to_string().into_bytes()
    })
}

/// The weights with their header changed and the data left as it is.
fn with_header(change: impl FnOnce(&mut Value)) -> Memory {
    with("model.safetensors", |bytes| {
        let length = u64::from_le_bytes(bytes[..8].try_into().expect("eight bytes")) as usize;
        let mut header: Value = serde_json::from_slice(&bytes[8..8 + length]).expect("header");
        change(&mut header);
        let header = header.to_string().into_bytes();
        [&(header.len() as u64).to_le_bytes(), header.as_slice(), &bytes[8 + length..]].concat()
    })
}

#[test]
fn every_broken_model_gets_its_code() {
    let html = || b"<!DOCTYPE html><title>Not found</title>".to_vec();
    let without = |file: &str| {
        let mut files = tiny();
        files.remove(file);
        files
    };
    let nan = |mut bytes: Vec<u8>| {
        let end = bytes.len();
        bytes[end - 4..].copy_from_slice(&f32::NAN.to_le_bytes());
        bytes
    };
    let cases: Vec<(Code, &str, Memory)> = vec![
        (Code::MissingFile, "config.json", without("config.json")),
        (Code::MissingFile, "tokenizer.json", without("tokenizer.json")),
        (Code::MissingFile, "model.safetensors", without("model.safetensors")),
        (Code::MissingFile, "config.json", Memory::new()),
        (Code::InvalidJson, "config.json", with("config.json", |_| html())),
        (Code::InvalidJson, "modules.json", with("modules.json", |_| html())),
        (Code::InvalidJson, "config.json", with("config.json", |bytes| bytes[..40].to_vec())),
        (Code::InvalidJson, "config.json", with("config.json", |_| vec![0xff; 9])),
        (Code::InvalidConfig, "config.json", with("config.json", |_| b"[]".to_vec())),
        (Code::InvalidConfig, "config.json", with_config("hidden_size", Value::Null)),
        (Code::InvalidConfig, "config.json", with_config("num_hidden_layers", (-2).into())),
        (Code::InvalidConfig, "config.json", with_config("num_attention_heads", 5.into())),
        (Code::InvalidConfig, "config.json", with_config("layer_norm_eps", "small".into())),
        (Code::UnsupportedModel, "config.json", with_config("model_type", "gpt2".into())),
        (Code::UnsupportedModel, "config.json", with_config("hidden_act", "mish".into())),
        (Code::UnsupportedModel, "config.json", with_config("position_embedding_type", "relative_key".into())),
        (Code::WrongShape, "embeddings.word_embeddings.weight", with_config("vocab_size", 100.into())),
        (Code::InvalidTokenizer, "tokenizer.json", with("tokenizer.json", |_| html())),
        (
            Code::InvalidTokenizer,
            "tokenizer.json",
            with("tokenizer.json", |bytes| {
                let mut tokenizer: Value = serde_json::from_slice(&bytes).expect("tokenizer");
                tokenizer["model"]["vocab"]["beyond"] = 99.into();
                tokenizer.to_string().into_bytes()
            }),
        ),
        (
            Code::InvalidTokenizer,
            "tokenizer.json",
            with_tokenizer(|t| t["post_processor"]["single"][1]["Sequence"]["id"] = "B".into()),
        ),
        (
            Code::InvalidTokenizer,
            "tokenizer.json",
            with_tokenizer(|t| t["post_processor"]["special_tokens"] = json!({})),
        ),
        (
            Code::InvalidTokenizer,
            "tokenizer.json",
            with_tokenizer(|t| {
                t["pre_tokenizer"] = json!({"type": "FixedLength", "length": 0});
            }),
        ),
        (
            Code::InvalidTokenizer,
            "tokenizer.json",
            with_tokenizer(|t| {
                t["normalizer"] = json!({"type": "Precompiled", "precompiled_charsmap": "AAAAAA=="});
            }),
        ),
        (Code::InvalidTokenizer, "tokenizer.json", with_tokenizer(|t| t["model"]["vocab"]["huge"] = u32::MAX.into())),
        (
            Code::InvalidConfig,
            "modules.json",
            with("modules.json", |_| {
                br#"[{"path": "../../etc", "type": "sentence_transformers.models.Pooling"}]"#.to_vec()
            }),
        ),
        (
            Code::MissingFile,
            "1_Pooling/config.json",
            with("modules.json", |_| {
                br#"[{"path": "1_Pooling", "type": "sentence_transformers.models.Pooling"}]"#.to_vec()
            }),
        ),
        (Code::InvalidWeights, "model.safetensors", with("model.safetensors", |_| html())),
        (
            Code::InvalidWeights,
            "model.safetensors",
            with("model.safetensors", |bytes| bytes[..bytes.len() - 1].to_vec()),
        ),
        (Code::InvalidWeights, "model.safetensors", with("model.safetensors", |bytes| [bytes, vec![0]].concat())),
        (Code::InvalidWeights, "model.safetensors", with("model.safetensors", |_| Vec::new())),
        (
            Code::InvalidWeights,
            "model.safetensors",
            with_header(|header| {
                // The second tensor now lies over the first.
                header["embeddings.LayerNorm.weight"]["data_offsets"] =
                    header["embeddings.LayerNorm.bias"]["data_offsets"].clone();
            }),
        ),
        (
            Code::MissingTensor,
            "encoder.layer.1.output.dense.weight",
            with_header(|header| {
                let tensors = header.as_object_mut().expect("an object");
                let tensor = tensors.remove("encoder.layer.1.output.dense.weight").expect("a tensor");
                tensors.insert("renamed".to_owned(), tensor);
            }),
        ),
        (
            Code::WrongShape,
            "encoder.layer.0.intermediate.dense.weight",
            with_header(|header| {
                header["encoder.layer.0.intermediate.dense.weight"]["shape"] = json!([32, 40]);
            }),
        ),
        (Code::NotFinite, "", with("model.safetensors", nan)),
    ];
    for (code, at, files) in cases {
        let error = load(&files).err().unwrap_or_else(|| panic!("{code} at {at}: it loaded"));
        assert_eq!(error.code(), code, "{error}");
        assert!(error.at().contains(at), "{error} is not at {at}");
    }
    let embedder = load(&tiny()).expect("the unbroken model");
    assert_eq!(encode(&embedder, &["the weather is lovely today"]).vectors().width, 32);
}

#[test]
fn options_that_the_model_cannot_honour_are_refused() {
    let options = |max_tokens, dimensions| LoadOptions { max_tokens, dimensions, ..LoadOptions::default() };
    for bad in [
        options(Some(65), None),
        options(Some(2), None),
        options(Some(0), None),
        options(None, Some(0)),
        options(None, Some(33)),
    ] {
        let error = block_on(Embedder::load(&tiny(), &bad, &())).err().expect("refused");
        assert_eq!(error.code(), Code::InvalidOption, "{bad:?}: {error}");
    }
    let cuda = LoadOptions { device: Device::Cuda, ..LoadOptions::default() };
    let error = block_on(Embedder::load(&tiny(), &cuda, &())).err().expect("there is none in this build");
    assert_eq!(error.code(), Code::InvalidOption, "{error}");
    assert!(block_on(Embedder::load(&tiny(), &options(Some(64), Some(32)), &())).is_ok());
}

#[test]
fn odd_texts_have_vectors() {
    let embedder = load(&tiny()).expect("valid");
    let texts = [
        "",
        " ",
        "\0",
        "\u{feff}",
        "\u{200b}\u{200d}",
        "👩‍👩‍👧‍👦",
        "e\u{301}\u{301}\u{301}",
        "\u{10ffff}",
        "ﷺ",
        "[CLS] [SEP] [PAD]",
    ];
    let output = encode(&embedder, &texts);
    for (text, row) in texts.iter().zip(output.vectors().rows()) {
        assert!(row.iter().all(|value| value.is_finite()), "{text:?}");
        assert!(row.iter().any(|&value| value != 0.0), "{text:?}");
    }
    assert_eq!(output.vectors().row(0), output.vectors().row(1), "white space is no text");
}

#[test]
fn a_cancelled_load_says_so() {
    struct Stop;
    impl Watch for Stop {
        fn cancelled(&self) -> bool {
            true
        }
    }
    let error = block_on(Embedder::load(&tiny(), &LoadOptions::default(), &Stop)).err().expect("cancelled");
    assert_eq!(error.code(), Code::Aborted);
    let embedder = load(&tiny()).expect("valid");
    let error = block_on(embedder.encode(&["a"], Role::Plain, &Stop)).expect_err("cancelled");
    assert_eq!(error.code(), Code::Aborted);
}

#[test]
fn progress_ends_at_the_total_and_never_falls() {
    use std::cell::RefCell;
    #[derive(Default)]
    struct Log(RefCell<Vec<(u64, Option<u64>)>>);
    impl Watch for Log {
        fn loaded(&self, loaded: u64, total: Option<u64>, _: &str) {
            self.0.borrow_mut().push((loaded, total));
        }
    }
    let log = Log::default();
    let files = tiny();
    block_on(Embedder::load(&files, &LoadOptions::default(), &log)).expect("valid");
    let steps = log.0.into_inner();
    let total: usize = files.values().map(|bytes| bytes.len()).sum();
    assert_eq!(steps.last(), Some(&(total as u64, Some(total as u64))));
    assert!(steps.is_sorted());
}

/// Thousands of small damages to each file: any may load or fail, none may panic (in a page that would end the engine).
#[test]
fn damaged_files_never_panic() {
    let mut files = tiny();
    files.insert("modules.json".into(), (*common::read("build/models/all-MiniLM-L6-v2/modules.json")).into());
    let pooling = "1_Pooling/config.json";
    files.insert(pooling.into(), (*common::read("build/models/all-MiniLM-L6-v2/1_Pooling/config.json")).into());
    assert!(load(&files).is_ok());

    let mut state = 0x2545_f491_u32;
    let mut random = |bound: usize| {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state as usize % bound
    };
    let mut outcomes = [0usize; 2];
    let mut panicked = Vec::new();
    for name in ["config.json", "tokenizer.json", "modules.json", pooling, "model.safetensors"] {
        let whole = files[name].to_vec();
        // Of the weights only the header has a structure to damage.
        let reach = whole.len().min(4096);
        for _ in 0..600 {
            let mut bytes = whole.clone();
            for _ in 0..=random(3) {
                let at = random(reach);
                match random(5) {
                    0 => bytes[at] = random(256) as u8,
                    1 => bytes[at] ^= 1 << random(8),
                    2 => bytes.truncate(at.max(1)),
                    // Another digit, where there is one: counts, shapes and offsets.
                    3 => bytes
                        .iter_mut()
                        .skip(at)
                        .find(|byte| byte.is_ascii_digit())
                        .into_iter()
                        .for_each(|byte| *byte = b'9'),
                    _ => drop(bytes.splice(at..at, b"99999999".iter().copied())),
                }
                if bytes.len() < reach {
                    break;
                }
            }
            let mut damaged = files.clone();
            damaged.insert(name.into(), bytes.clone().into());
            let outcome = std::panic::catch_unwind(|| {
                // What loads must also encode, or say why not.
                load(&damaged)
                    .and_then(|embedder| block_on(embedder.encode(&["the weather is lovely", "x"], Role::Plain, &())))
            });
            match outcome {
                Ok(result) => outcomes[usize::from(result.is_ok())] += 1,
                Err(_) => panicked.push((name, bytes)),
            }
        }
    }
    println!("{} failed, {} worked", outcomes[0], outcomes[1]);
    for (name, bytes) in &panicked {
        println!("{name} panicked: {}", String::from_utf8_lossy(&bytes[..bytes.len().min(4096)]));
    }
    assert!(panicked.is_empty(), "{} panics", panicked.len());
    assert!(outcomes.iter().all(|&count| count > 100), "{outcomes:?}");
}

/// A server moves an embedder between threads and awaits it on any of them.
#[test]
fn embedders_and_their_futures_are_send() {
    fn is_send_and_sync<T: Send + Sync>(_: &T) {}
    fn is_send<T: Send>(future: T) -> T {
        future
    }
    let (files, options) = (tiny(), LoadOptions::default());
    let embedder = block_on(is_send(Embedder::load(&files, &options, &()))).expect("valid");
    is_send_and_sync(&embedder);
    assert!(block_on(is_send(embedder.encode(&["a"], Role::Plain, &()))).is_ok());
}

#[test]
fn a_cut_is_reported_by_tokenizers_with_and_without_special_tokens() {
    let without = with_tokenizer(|tokenizer| tokenizer["post_processor"] = Value::Null);
    for (files, special) in [(tiny(), 2), (without, 0)] {
        let options = LoadOptions { max_tokens: Some(5 + special), ..LoadOptions::default() };
        let embedder = block_on(Embedder::load(&files, &options, &())).expect("valid");
        let output = encode(&embedder, &["is is is is is", "is is is is is is"]);
        assert_eq!(output.usage.tokens, 2 * (5 + special));
        assert_eq!(output.usage.truncated, [1]);
        // A text without a token has no direction.
        let empty = encode(&embedder, &["", "is"]);
        assert_eq!(empty.vectors().row(0).iter().all(|&value| value == 0.0), special == 0);
    }
}
