//! What a model's small files say: small changes to fixtures that must be computed, refused, or told. Whole models with unusual
//! settings are fixtures of their own (`tests/fixtures/generate_settings.py`), and every key of every kind of file stands in
//! `src/model/keys.rs`, whose tests hold that it is handled as listed.

use std::sync::Mutex;

use crate::common::{Dense as _, Memory, encode, fixture, load, set, tiny};
use serde_json::{Value, json};
use wick_embed::{
    Code, Embedder, EncodeOptions, LoadOptions, RerankOptions, Reranker, Role, Watch, platform::native::block_on,
};

fn put(files: &mut Memory, file: &str, value: &Value) {
    files.insert(file.to_owned(), value.to_string().into_bytes().into());
}

fn scores(files: &Memory) -> wick_embed::Result<Vec<f32>> {
    let reranker = block_on(Reranker::load(files, &RerankOptions::default(), &()))?;
    let documents = ["hello world", "The weather is lovely today."];
    let mut ranked = block_on(reranker.rerank("when was it founded", &documents, None, &()))?;
    ranked.sort_by_key(|place| place.index);
    Ok(ranked.iter().map(|place| place.score).collect())
}

/// A change to a model's files.
type Change = fn(&mut Memory);

/// Models that are not damaged but of a kind that is not computed here: the message says which.
#[test]
fn what_is_not_supported_is_named() {
    const PROMPTS: &str = "config_sentence_transformers.json";
    let cases: &[(&str, &str, &str, Change)] = &[
        ("bert-tiny", "config.json", "HF_ColBERT", |f| {
            set(f, "config.json", |c| c["architectures"] = json!(["HF_ColBERT"]));
        }),
        ("bert-tiny", "config.json", "use_flash_attn", |f| {
            set(f, "config.json", |c| c["use_flash_attn"] = true.into());
        }),
        ("bert-tiny", "config.json", "pruned_heads", |f| {
            set(f, "config.json", |c| c["pruned_heads"] = json!({"0": [1]}));
        }),
        ("bert-tiny", "encoder.layers.0.mixer.Wqkv.weight", "flash attention", |f| {
            rename(f, "encoder.layer.0.output.dense.weight", "encoder.layers.0.mixer.Wqkv.weight");
        }),
        ("bert-tiny", "onnx/model.onnx", "ONNX", |f| {
            let weights = f.remove("model.safetensors").expect("weights");
            f.insert("onnx/model.onnx".to_owned(), weights);
        }),
        ("xlmr", "modules.json", "custom_st.Transformer", |f| {
            set(f, "modules.json", |m| m[0]["type"] = "custom_st.Transformer".into());
        }),
        ("xlmr", "modules.json", "Router", |f| {
            set(f, "modules.json", |m| m[0]["type"] = "sentence_transformers.models.Router".into());
        }),
        ("xlmr", "1_Pooling/config.json", "tokens_to_skip", |f| {
            set(f, "1_Pooling/config.json", |c| c["tokens_to_skip"] = json!([1]));
        }),
        ("xlmr", PROMPTS, "late interaction", |f| {
            put(f, PROMPTS, &json!({"model_type": "ColBERT", "query_length": 32}));
        }),
        ("xlmr", PROMPTS, "query_prefix", |f| put(f, PROMPTS, &json!({"query_prefix": "[Q] "}))),
        ("xlmr", "sentence_bert_config.json, model_args", "rotary_scaling_factor", |f| {
            set(f, "sentence_bert_config.json", |c| c["model_args"] = json!({"rotary_scaling_factor": 2}));
        }),
        ("modernbert", "sentence_bert_config.json", "fill-mask", |f| {
            set(f, "sentence_bert_config.json", |c| c["transformer_task"] = "fill-mask".into());
        }),
        ("modernbert", "2_Normalize/config.json", "token_embeddings", |f| {
            set(f, "2_Normalize/config.json", |c| c["module_input_name"] = "token_embeddings".into());
        }),
        ("stages", "5_Dense/config.json", "token_embeddings", |f| {
            set(f, "5_Dense/config.json", |c| c["module_input_name"] = "token_embeddings".into());
        }),
        ("vocabulary", "tokenizer.json", "vocab.txt", |f| {
            set(f, "0_Transformer/tokenizer_config.json", |c| c["tokenizer_class"] = "BertJapaneseTokenizer".into());
        }),
    ];
    for (name, at, named, change) in cases {
        let mut files = fixture(name);
        assert!(load(&files).is_ok(), "{name} as it is");
        change(&mut files);
        let error = load(&files).err().unwrap_or_else(|| panic!("{name}, {named}: it loaded"));
        let missing = *at == "tokenizer.json";
        let code = if missing { Code::MissingFile } else { Code::UnsupportedModel };
        assert_eq!(error.code(), code, "{name}: {error}");
        assert!(error.at().contains(at) && error.message().contains(named), "{name}: {error} does not name {named}");
    }
}

/// A reranker of several stages, whose weights lack nothing, is not supported.
#[test]
fn rerankers_with_stages_are_named() {
    let mut files = fixture("rerank-saved");
    set(&mut files, "modules.json", |modules| {
        let pooling =
            json!({"path": "1_Pooling", "type": "sentence_transformers.sentence_transformer.modules.pooling.Pooling"});
        modules.as_array_mut().expect("stages").push(pooling);
    });
    let error = scores(&files).expect_err("not supported");
    assert_eq!((error.code(), error.at()), (Code::UnsupportedModel, "modules.json"), "{error}");
    assert!(error.message().contains("Pooling"), "{error}");
}

/// What `config_sentence_transformers.json` says counts for the model that saved it, and above `config.json`.
#[test]
fn a_rerankers_file_counts_above_its_configuration() {
    let saved = fixture("rerank-saved");
    let plain = scores(&saved).expect("valid");
    let with = |change: &dyn Fn(&mut Memory)| {
        let mut files = saved.clone();
        change(&mut files);
        scores(&files).expect("valid")
    };
    let old = |files: &mut Memory| {
        set(files, "config.json", |c| c["sentence_transformers"] = json!({"activation_fn": "torch.nn.Sigmoid"}));
    };
    assert_eq!(with(&old), plain);
    let file = "config_sentence_transformers.json";
    let sigmoid =
        with(&|files| set(files, file, |c| c["activation_fn"] = "torch.nn.modules.activation.Sigmoid".into()));
    assert!(sigmoid.iter().zip(&plain).all(|(score, logit)| (score - 1.0 / (1.0 + (-logit).exp())).abs() < 1e-6));
    let without = with(&|files| drop(files.remove(file)));
    assert_ne!(without, sigmoid, "the prompt");
    assert_eq!(with(&|files| set(files, file, |c| c["model_type"] = "SentenceTransformer".into())), without);
    assert_ne!(with(&|files| set(files, file, |c| c["default_prompt_name"] = Value::Null)), plain);
}

/// Segments are for models that are given them: by their tokenizer's configuration, and with a table of more than one row.
#[test]
fn segments_are_zero_where_the_model_is_not_given_them() {
    let with = |names: Value| {
        let mut files = fixture("rerank-saved");
        set(&mut files, "tokenizer_config.json", |config| config["model_input_names"] = names);
        scores(&files).expect("valid")
    };
    let without = with(json!(["input_ids", "attention_mask"]));
    let given = with(json!(["input_ids", "token_type_ids", "attention_mask"]));
    assert_ne!(given, without);
    assert_eq!(with(Value::Null), given, "BERT's class has them");
    let mut files = fixture("rerank-xlmr");
    let plain = scores(&files).expect("valid");
    set(&mut files, "tokenizer.json", |tokenizer| {
        let pair = tokenizer["post_processor"]["pair"].as_array_mut().expect("a template");
        pair.iter_mut().for_each(|piece| {
            let second = piece["Sequence"]["id"] == "B";
            let kind = if piece.get("Sequence").is_some() { "Sequence" } else { "SpecialToken" };
            piece[kind]["type_id"] = u32::from(second).into();
        });
    });
    assert_eq!(scores(&files).expect("valid"), plain);
}

#[test]
fn camembert_is_roberta_by_another_name() {
    let mut files = fixture("xlmr");
    let texts = ["hello", "Alan Turing was born in London."];
    let plain = encode(&load(&files).expect("valid"), &texts);
    set(&mut files, "config.json", |config| {
        config["model_type"] = "camembert".into();
        config["architectures"] = json!(["CamembertModel"]);
    });
    assert_eq!(encode(&load(&files).expect("valid"), &texts), plain);
}

/// transformers 5 builds the tokenizers of these classes anew, and splits at white space; sentence-transformers up to 5.2 stripped
/// texts. A file's own tokenizer is taken as it is.
#[test]
fn white_space_at_a_texts_end_is_no_token_of_a_sentencepiece_class() {
    let ids = |class: Value, text: &str| -> Vec<u32> {
        let mut files = fixture("xlmr");
        set(&mut files, "tokenizer_config.json", |config| config["tokenizer_class"] = class);
        let embedder = load(&files).expect("valid");
        embedder.tokenize(text, Role::Plain).expect("valid").iter().map(|token| token.id).collect()
    };
    for class in [json!("XLMRobertaTokenizer"), json!("XLMRobertaTokenizerFast"), Value::Null] {
        assert_eq!(ids(class.clone(), "a b \n"), ids(class.clone(), "a b"), "{class}");
        assert_eq!(ids(class.clone(), " \n"), ids(class, ""));
    }
    // The class may stand in config.json alone.
    let mut files = fixture("xlmr");
    set(&mut files, "tokenizer_config.json", |config| config["tokenizer_class"] = Value::Null);
    set(&mut files, "config.json", |config| config["tokenizer_class"] = "PreTrainedTokenizerFast".into());
    let count = |text: &str| load(&files).expect("valid").tokenize(text, Role::Plain).expect("valid").len();
    assert_eq!(count("a b \n"), count("a b") + 1);
    let own = || json!("PreTrainedTokenizerFast");
    assert_eq!(ids(own(), "a b \n").len(), ids(own(), "a b").len() + 1);
}

#[test]
fn a_sparse_model_keeps_as_many_weights_as_it_was_saved_with() {
    let mut files = fixture("splade-bert");
    let text = ["Where was Alan Turing born?"];
    let all = load(&files).expect("valid");
    let options = EncodeOptions { top_k: Some(3), ..EncodeOptions::default() };
    let three = block_on(all.encode(&text, options, &())).expect("valid");
    set(&mut files, "config_sentence_transformers.json", |config| config["max_active_dims"] = 3.into());
    let saved = load(&files).expect("valid");
    assert_eq!(encode(&saved, &text), three);
    let options = EncodeOptions { top_k: Some(5), ..EncodeOptions::default() };
    let five = block_on(saved.encode(&text, options, &())).expect("valid");
    assert_eq!(five.sparse.expect("sparse")[0].values.len(), 5);
}

#[test]
fn a_saved_width_gives_way_to_the_callers() {
    let files = fixture("stages");
    let dimensions = |dimensions| {
        let options = LoadOptions { dimensions, ..LoadOptions::default() };
        let embedder = block_on(Embedder::load(&files, &options, &())).expect("valid");
        assert_eq!(encode(&embedder, &["hello"]).vectors().width, embedder.dimensions());
        embedder.dimensions()
    };
    assert_eq!((dimensions(None), dimensions(Some(20)), dimensions(Some(4))), (10, 20, 4));
}

/// Keys that libraries may have added are told once, and nothing else is.
#[test]
fn unknown_keys_of_a_configuration_are_told() {
    #[derive(Default)]
    struct Told(Mutex<Vec<String>>);
    impl Watch for Told {
        fn warned(&self, message: &str) {
            self.0.lock().expect("sound").push(message.to_owned());
        }
    }
    let told = |files: &Memory| {
        let told = Told::default();
        block_on(Embedder::load(files, &LoadOptions::default(), &told)).expect("valid");
        told.0.into_inner().expect("sound")
    };
    let mut files = tiny();
    assert_eq!(told(&files), [""; 0]);
    set(&mut files, "config.json", |config| {
        config["alibi_slopes"] = 8.into();
        config["rope_fraction"] = 0.5.into();
        config["unset"] = Value::Null;
    });
    put(&mut files, "tokenizer_config.json", &json!({"own_rule": true, "tokenizer_class": "BertTokenizer"}));
    let told = told(&files);
    assert_eq!(told.len(), 2, "{told:?}");
    assert!(told[0].starts_with("config.json") && told[0].contains("alibi_slopes, rope_fraction"), "{told:?}");
    assert!(told[1].starts_with("tokenizer_config.json") && told[1].contains("own_rule"), "{told:?}");
}

/// Gives a tensor another name.
fn rename(files: &mut Memory, from: &str, to: &str) {
    let bytes = &files["model.safetensors"];
    let length = u64::from_le_bytes(bytes[..8].try_into().expect("eight bytes")) as usize;
    let mut header: Value = serde_json::from_slice(&bytes[8..8 + length]).expect("header");
    let info = header.as_object_mut().expect("an object").remove(from).expect("the tensor");
    header[to] = info;
    let header = header.to_string().into_bytes();
    let file = [&(header.len() as u64).to_le_bytes(), header.as_slice(), &bytes[8 + length..]].concat();
    files.insert("model.safetensors".to_owned(), file.into());
}
