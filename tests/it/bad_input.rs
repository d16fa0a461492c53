//! Broken models and bad texts: each gets its code, none a panic, and what comes after works.

use crate::common::{Dense as _, Memory, encode, fixture, load, set, tiny};
use serde_json::{Value, json};
use wick_embed::{Code, Device, Embedder, EncodeOptions, LoadOptions, Role, Watch, platform::native::block_on};

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
        (Code::UnsupportedModel, "config.json", with_config("hidden_act", "quick_gelu".into())),
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
            Code::InvalidTokenizer,
            "tokenizer.json",
            with_tokenizer(|t| {
                t["model"] = json!({"type": "BPE", "vocab": {"a": 0, "b": 1, "ab": 2}, "merges": ["ab b"]});
            }),
        ),
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
    let embedder = block_on(Embedder::load(&tiny(), &options(Some(64), Some(32)), &())).expect("valid");
    let none = EncodeOptions { top_k: Some(0), ..EncodeOptions::default() };
    assert_eq!(block_on(embedder.encode(&["a"], none, &())).expect_err("refused").code(), Code::InvalidOption);
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
    use std::sync::Mutex;
    #[derive(Default)]
    struct Log(Mutex<Vec<(u64, Option<u64>)>>);
    impl Watch for Log {
        fn loaded(&self, loaded: u64, total: Option<u64>, _: &str) {
            self.0.lock().expect("sound").push((loaded, total));
        }
    }
    let log = Log::default();
    let files = tiny();
    block_on(Embedder::load(&files, &LoadOptions::default(), &log)).expect("valid");
    let steps = log.0.into_inner().expect("sound");
    let total: usize = files.values().map(|bytes| bytes.len()).sum();
    assert_eq!(steps.last(), Some(&(total as u64, Some(total as u64))));
    assert!(steps.is_sorted());
}

/// Thousands of small damages to each file: any may load or fail, none may panic (in a page that would end the engine).
#[test]
fn damaged_files_never_panic() {
    let mut files = tiny();
    files.insert("modules.json".into(), (*crate::common::read("build/models/all-MiniLM-L6-v2/modules.json")).into());
    let pooling = "1_Pooling/config.json";
    files.insert(pooling.into(), (*crate::common::read("build/models/all-MiniLM-L6-v2/1_Pooling/config.json")).into());
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

/// Renames a tensor in the header, so that it is missing.
fn lose(files: &mut Memory, file: &str, tensor: &str) {
    let bytes = &files[file];
    let name = format!("\"{tensor}\"");
    let at = bytes.windows(name.len()).position(|window| window == name.as_bytes()).expect("the tensor's name");
    let mut bytes = bytes.to_vec();
    bytes[at + 1] = b'~';
    files.insert(file.to_owned(), bytes.into());
}

/// A change to a model's files.
type Damage = fn(&mut Memory);

#[test]
fn every_broken_head_gets_its_code() {
    const WEIGHTS: &str = "model.safetensors";
    let cases: &[(Code, &str, &str, Damage)] = &[
        (Code::UnsupportedModel, "splade-bert", "config.json", |f| {
            set(f, "config.json", |c| c["tie_word_embeddings"] = false.into());
        }),
        (Code::UnsupportedModel, "splade-bert", "1_SpladePooling/config.json", |f| {
            set(f, "1_SpladePooling/config.json", |c| c["pooling_strategy"] = "sum".into());
        }),
        (Code::MissingFile, "splade-bert", "1_SpladePooling/config.json", |f| {
            drop(f.remove("1_SpladePooling/config.json"));
        }),
        (Code::MissingTensor, "splade-bert", "cls.predictions.bias", |f| lose(f, WEIGHTS, "cls.predictions.bias")),
        (Code::MissingTensor, "splade-distil", "vocab_projector.bias", |f| lose(f, WEIGHTS, "vocab_projector.bias")),
        (Code::WrongShape, "gte", "embeddings.word_embeddings", |f| {
            set(f, "config.json", |c| c["vocab_size"] = 7000.into());
        }),
        (Code::UnsupportedModel, "gte", "config.json", |f| {
            set(f, "config.json", |c| c["rope_scaling"] = json!({"type": "yarn", "factor": 2}));
        }),
        (Code::InvalidConfig, "gte", "config.json", |f| set(f, "config.json", |c| c["rope_theta"] = Value::Null)),
        (Code::UnsupportedModel, "nomic", "config.json", |f| set(f, "config.json", |c| c["prenorm"] = true.into())),
        (Code::InvalidConfig, "nomic", "config.json", |f| set(f, "config.json", |c| c["hidden_size"] = 48.into())),
        (Code::InvalidConfig, "nomic", "config.json", |f| set(f, "config.json", |c| c["n_inner"] = Value::Null)),
        (Code::MissingTensor, "nomic", "encoder.layers.1.mlp.fc12.weight", |f| {
            lose(f, WEIGHTS, "encoder.layers.1.mlp.fc12.weight");
        }),
        (Code::MissingFile, "nomic", "tokenizer.json", |f| drop(f.remove("tokenizer.json"))),
        (Code::InvalidTokenizer, "nomic", "tokenizer.json", |f| {
            set(f, "tokenizer.json", |t| t["model"]["type"] = "MorphemePiece".into());
        }),
        (Code::MissingFile, "nomic", WEIGHTS, |f| drop(f.remove(WEIGHTS))),
        (Code::UnsupportedModel, "modernbert", "modules.json", |f| {
            set(f, "modules.json", |m| m.as_array_mut().expect("stages").truncate(1));
        }),
        (Code::UnsupportedModel, "xlmr", "config.json", |f| {
            set(f, "config.json", |c| c["pad_token_id"] = u32::MAX.into());
        }),
        (Code::UnsupportedModel, "t5-gated", "config.json", |f| {
            set(f, "config.json", |c| c["d_kv"] = 65537.into());
        }),
        (Code::UnsupportedModel, "modernbert", "config.json", |f| {
            set(f, "config.json", |c| c["classifier_pooling"] = "max".into());
        }),
        // What would be made from a number alone, before any weight contradicts it.
        (Code::UnsupportedModel, "nomic", "config.json", |f| {
            set(f, "config.json", |c| c["n_embd"] = (1u64 << 40).into());
        }),
        (Code::UnsupportedModel, "modernbert", "config.json", |f| {
            set(f, "config.json", |c| c["num_hidden_layers"] = (1u64 << 31).into());
        }),
        (Code::UnsupportedModel, "t5-gated", "config.json", |f| {
            set(f, "config.json", |c| c["relative_attention_max_distance"] = (1u64 << 31).into());
        }),
    ];
    for (code, name, at, damage) in cases {
        let mut files = fixture(name);
        assert!(load(&files).is_ok(), "{name} without damage");
        damage(&mut files);
        let error = load(&files).err().unwrap_or_else(|| panic!("{name}, {code} at {at}: it loaded"));
        assert_eq!(error.code(), *code, "{name}: {error}");
        assert!(error.at().contains(at), "{name}: {error} is not at {at}");
    }
}

/// Eight-bit integers of a transformer's table mean nothing without their scales.
#[test]
fn an_eight_bit_table_needs_its_scales() {
    let files = with("model.safetensors", |bytes| {
        let length = u64::from_le_bytes(bytes[..8].try_into().expect("eight bytes")) as usize;
        let header: serde_json::Map<String, Value> = serde_json::from_slice(&bytes[8..8 + length]).expect("header");
        let (mut changed, mut data) = (serde_json::Map::new(), Vec::new());
        for (name, info) in header.iter().filter(|(name, _)| *name != "__metadata__") {
            let offset = |at: usize| info["data_offsets"][at].as_u64().expect("an offset") as usize + 8 + length;
            let (start, mut info) = (data.len(), info.clone());
            match name.as_str() {
                "embeddings.word_embeddings.weight" => {
                    data.resize(start + (offset(1) - offset(0)) / 4, 1u8);
                    info["dtype"] = "I8".into();
                }
                _ => data.extend_from_slice(&bytes[offset(0)..offset(1)]),
            }
            info["data_offsets"] = json!([start, data.len()]);
            changed.insert(name.clone(), info);
        }
        let header = serde_json::to_vec(&changed).expect("JSON");
        [&(header.len() as u64).to_le_bytes(), header.as_slice(), &data].concat()
    });
    let error = load(&files).err().expect("refused");
    assert_eq!(error.code(), Code::InvalidWeights, "{error}");
    assert!(error.message().starts_with("scales: "), "{error}");
}

/// A pair of XLM-R has four special tokens, a text two.
#[test]
fn a_rerankers_limit_leaves_room_beside_a_pairs_special_tokens() {
    use wick_embed::{RerankOptions, Reranker};
    let of = |max_tokens| {
        let options = RerankOptions { max_tokens: Some(max_tokens), ..RerankOptions::default() };
        block_on(Reranker::load(&fixture("rerank-xlmr"), &options, &())).err().map(|error| error.code())
    };
    assert_eq!((of(4), of(5)), (Some(Code::InvalidOption), None));
}

/// Prompts known by the model's name give way to the caller's, also to empty ones.
#[test]
fn a_caller_may_want_no_prompt() {
    use wick_embed::{RolePrompts, platform::native::Directory};
    let folder = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join("e5-small");
    std::fs::create_dir_all(&folder).expect("a folder");
    for (name, bytes) in tiny() {
        std::fs::write(folder.join(name), bytes).expect("written");
    }
    let tokens = |prompts| {
        let options = LoadOptions { prompts, ..LoadOptions::default() };
        let embedder = block_on(Embedder::load(&Directory::new(&folder), &options, &())).expect("valid");
        embedder.tokenize("is", Role::Query).expect("valid").len()
    };
    assert_eq!(tokens(Some(RolePrompts::default())), 3);
    assert!(tokens(None) > 3, "the prompt of E5");
}

#[test]
fn an_unknown_architecture_is_named_with_what_is_supported() {
    let error = load(&with_config("model_type", "deberta-v2".into())).err().expect("refused");
    assert!(error.message().contains("\"deberta-v2\""), "{error}");
    for family in wick_embed::model::SUPPORTED {
        assert!(error.message().contains(family), "{error} does not name {family}");
    }
}

#[test]
fn outputs_that_a_model_does_not_give_are_refused() {
    use wick_embed::OutputKind::{Dense, Sparse, Tokens};
    let cases: [(&str, &[wick_embed::OutputKind]); 4] =
        [("nomic", &[Sparse]), ("gte", &[Dense, Tokens]), ("splade-bert", &[Dense]), ("gte", &[])];
    for (name, outputs) in cases {
        let options = LoadOptions { outputs: Some(outputs.to_vec()), ..LoadOptions::default() };
        let error = block_on(Embedder::load(&fixture(name), &options, &())).err().expect("refused");
        assert_eq!((error.code(), error.at()), (Code::InvalidOption, "outputs"), "{name} {outputs:?}: {error}");
    }
    let options = LoadOptions { outputs: Some(vec![Sparse]), ..LoadOptions::default() };
    let embedder = block_on(Embedder::load(&fixture("gte"), &options, &())).expect("it gives them");
    let output = encode(&embedder, &["a"]);
    assert!(output.dense.is_none() && output.sparse.is_some() && embedder.outputs() == [Sparse]);
}

/// A checkpoint in several files, and what can be wrong with its index.
#[test]
fn shards_are_loaded_and_checked() {
    const INDEX: &str = "model.safetensors.index.json";
    let whole = tiny();
    let bytes = &whole["model.safetensors"];
    let length = u64::from_le_bytes(bytes[..8].try_into().expect("eight bytes")) as usize;
    let header: serde_json::Map<String, Value> = serde_json::from_slice(&bytes[8..8 + length]).expect("header");
    let mut shards = [(serde_json::Map::new(), Vec::new()), (serde_json::Map::new(), Vec::new())];
    let mut map = serde_json::Map::new();
    for (index, (name, info)) in header.iter().filter(|(name, _)| *name != "__metadata__").enumerate() {
        let (header, data) = &mut shards[index % 2];
        let offset = |at: usize| info["data_offsets"][at].as_u64().expect("an offset") as usize + 8 + length;
        let mut info = info.clone();
        info["data_offsets"] = json!([data.len(), data.len() + offset(1) - offset(0)]);
        data.extend_from_slice(&bytes[offset(0)..offset(1)]);
        header.insert(name.clone(), info);
        map.insert(name.clone(), format!("shard-{}.safetensors", index % 2).into());
    }
    let mut files = whole.clone();
    files.remove("model.safetensors");
    for (index, (header, data)) in shards.iter().enumerate() {
        let header = serde_json::to_vec(header).expect("JSON");
        let file = [&(header.len() as u64).to_le_bytes(), header.as_slice(), data].concat();
        files.insert(format!("shard-{index}.safetensors"), file.into());
    }
    let index = |files: &mut Memory, map: &serde_json::Map<String, Value>| {
        files.insert(INDEX.into(), json!({ "weight_map": map }).to_string().into_bytes().into());
    };
    index(&mut files, &map);
    let text = ["the weather is lovely today"];
    assert_eq!(encode(&load(&files).expect("valid"), &text), encode(&load(&whole).expect("valid"), &text));

    let broken = |change: &dyn Fn(&mut Memory, &mut serde_json::Map<String, Value>)| {
        let (mut files, mut map) = (files.clone(), map.clone());
        change(&mut files, &mut map);
        if files.contains_key(INDEX) && files[INDEX].first() == Some(&b'{') {
            index(&mut files, &map);
        }
        load(&files).err().expect("refused").code()
    };
    assert_eq!(broken(&|files, _| drop(files.remove("shard-1.safetensors"))), Code::MissingFile);
    assert_eq!(broken(&|_, map| drop(map.remove("embeddings.LayerNorm.weight"))), Code::MissingTensor);
    assert_eq!(
        broken(&|_, map| map.values_mut().for_each(|shard| *shard = "../x.safetensors".into())),
        Code::InvalidConfig
    );
    assert_eq!(
        broken(&|_, map| map.values_mut().for_each(|shard| *shard = "shard-0.safetensors".into())),
        Code::MissingTensor
    );
    assert_eq!(broken(&|files, _| drop(files.insert(INDEX.into(), b"<html>"[..].into()))), Code::InvalidJson);
    assert_eq!(broken(&|_, map| map.clear()), Code::InvalidConfig);
    // Another shard that has the same tensors.
    let twice = |files: &mut Memory, map: &mut serde_json::Map<String, Value>| {
        files.insert("shard-2.safetensors".into(), files["shard-0.safetensors"].clone());
        map.insert("other".into(), "shard-2.safetensors".into());
    };
    assert_eq!(broken(&twice), Code::InvalidWeights);
}
