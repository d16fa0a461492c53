//! Each part and type beside the tokenizers crate's own reader: what it accepts is read equal, what it refuses is refused.

use std::{fs, path::Path};

use serde_json::{Value, json};
use tokenizers::Tokenizer;

use crate::text::Settings;

/// Words, marks, digits, scripts, spaces and a special token, for whatever cuts them.
const TEXT: &str =
    "Ünïcode's  hello_world\t[SEP] 3.14, «ça»…  汉字かなカナ한 - —!?\u{a0}e\u{301} ﬁ ½ \n  we'll <mask>🙂 end ";

fn file(changes: &Value) -> String {
    let mut file = json!({
        "version": "1.0", "truncation": null, "padding": null, "decoder": null,
        "added_tokens": [], "normalizer": null, "pre_tokenizer": null, "post_processor": null,
        "model": { "type": "WordLevel", "vocab": { "[UNK]": 0, "hello": 1, "end": 2 }, "unk_token": "[UNK]" },
    });
    for (name, value) in changes.as_object().expect("an object") {
        file[name] = value.clone();
    }
    file.to_string()
}

/// Reads a file in both ways, and compares what they are and what they make of a text. Whether it was accepted.
fn same(json: &str) -> bool {
    let ours = super::read(json.as_bytes(), &Settings::default()).map(|parts| parts.tokenizer);
    // The crate panics at some.
    let theirs = std::panic::catch_unwind(|| Tokenizer::from_bytes(json).ok()).ok().flatten();
    match (ours, theirs) {
        (Ok(ours), Some(theirs)) => {
            assert_eq!(ours.to_string(false).expect("JSON"), theirs.to_string(false).expect("JSON"), "{json}");
            for special in [false, true] {
                let encode = |tokenizer: &Tokenizer| {
                    let encoding = tokenizer.encode((TEXT, "hello"), special).expect("an encoding");
                    let tokens = encoding.get_tokens().to_vec();
                    (encoding.get_ids().to_vec(), encoding.get_type_ids().to_vec(), tokens)
                };
                assert_eq!(encode(&ours), encode(&theirs), "{json}");
            }
            true
        }
        (Err(_), None) => false,
        (ours, theirs) => panic!("{json}: ours {:?}, theirs accepts: {}", ours.err(), theirs.is_some()),
    }
}

fn accepted(name: &str, parts: &[Value]) {
    for part in parts {
        assert!(same(&file(&json!({ name: part }))), "{part}");
    }
}

/// Each also without one of its settings, and with one of another kind.
fn damaged(name: &str, parts: &[Value]) {
    for part in parts {
        for setting in part.as_object().expect("an object").keys() {
            let mut less = part.clone();
            less.as_object_mut().expect("an object").remove(setting);
            same(&file(&json!({ name: less })));
            for value in [json!(null), json!(17), json!("no such"), json!([]), json!({})] {
                let mut other = part.clone();
                other[setting] = value;
                same(&file(&json!({ name: other })));
            }
        }
    }
}

#[test]
fn fixtures() {
    let mut seen = 0;
    for folder in fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures")).expect("fixtures") {
        let Ok(json) = fs::read_to_string(folder.expect("an entry").path().join("tokenizer.json")) else { continue };
        let mut json: Value = serde_json::from_str(&json).expect("JSON");
        for unused in ["decoder", "padding", "truncation"] {
            json[unused] = Value::Null;
        }
        assert!(same(&json.to_string()));
        seen += 1;
    }
    assert!(seen > 20, "{seen}");
}

fn normalizers() -> Vec<Value> {
    let charsmap = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/t5/tokenizer.json"));
    let t5: Value = serde_json::from_str(&charsmap.expect("a fixture")).expect("JSON");
    let mut all = vec![
        json!({ "type": "BertNormalizer", "clean_text": true, "handle_chinese_chars": true, "strip_accents": null, "lowercase": true }),
        json!({ "type": "Bert", "clean_text": false, "handle_chinese_chars": false, "strip_accents": false, "lowercase": true }),
        json!({ "type": "Strip", "strip_left": true, "strip_right": false }),
        json!({ "strip_left": true, "strip_right": true }),
        json!({ "type": "Replace", "pattern": { "Regex": "\\s+(?!\\S)|o(?=r)" }, "content": "_" }),
        json!({ "type": "Replace", "pattern": { "String": "." }, "content": "" }),
        json!({ "pattern": { "String": "l" }, "content": "L" }),
        json!({ "type": "Prepend", "prepend": "▁" }),
        json!({ "type": "Sequence", "normalizers": [{ "type": "NFKD" }, { "type": "StripAccents" }] }),
        t5["normalizer"].clone(),
    ];
    let plain = ["StripAccents", "NFC", "NFD", "NFKC", "NFKD", "Lowercase", "Nmt", "ByteLevel"];
    all.extend(plain.map(|kind| json!({ "type": kind })));
    all
}

#[test]
fn every_normalizer() {
    assert_eq!(normalizers().last().expect("one")["type"], "ByteLevel");
    accepted("normalizer", &normalizers());
    damaged("normalizer", &normalizers());
}

fn pre_tokenizers() -> Vec<Value> {
    let mut all = vec![
        json!({ "type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true }),
        json!({ "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": false, "use_regex": false }),
        json!({ "type": "CharDelimiterSplit", "delimiter": "é" }),
        json!({ "type": "Metaspace", "replacement": "▁", "add_prefix_space": true }),
        json!({ "type": "Metaspace", "replacement": "_", "prepend_scheme": "never", "split": false }),
        json!({ "type": "Metaspace", "replacement": "▁", "prepend_scheme": "first", "split": true }),
        json!({ "type": "Punctuation" }),
        json!({ "type": "Digits", "individual_digits": true }),
        json!({ "type": "Digits", "individual_digits": false }),
        json!({ "type": "FixedLength", "length": 3 }),
        json!({ "type": "FixedLength" }),
        json!({ "type": "Sequence", "pretokenizers": [{ "type": "WhitespaceSplit" }, { "type": "Punctuation" }] }),
        // Qwen's, which has most of what there is.
        json!({ "type": "Split", "behavior": "Isolated", "invert": false, "pattern": {
            "Regex": "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+" } }),
        json!({ "type": "Split", "behavior": "Removed", "invert": true, "pattern": { "Regex": "\\w+|[^\\w\\s]+" } }),
        json!({ "type": "Split", "behavior": "Contiguous", "invert": false, "pattern": { "String": "l" } }),
    ];
    for behavior in ["Removed", "Isolated", "MergedWithPrevious", "MergedWithNext", "Contiguous"] {
        all.push(json!({ "type": "Punctuation", "behavior": behavior }));
    }
    let plain = ["BertPreTokenizer", "Whitespace", "WhitespaceSplit", "UnicodeScripts"];
    all.extend(plain.map(|kind| json!({ "type": kind })));
    all
}

#[test]
fn every_pre_tokenizer() {
    accepted("pre_tokenizer", &pre_tokenizers());
    damaged("pre_tokenizer", &pre_tokenizers());
    // Of older files, and unused.
    accepted("pre_tokenizer", &[json!({ "type": "Metaspace", "replacement": "▁", "str_rep": "▁" })]);
    assert!(!same(&file(&json!({ "pre_tokenizer": { "type": "Delimiter", "delimiter": " " } }))));
}

fn post_processors() -> Vec<Value> {
    vec![
        json!({ "type": "BertProcessing", "sep": ["[SEP]", 102], "cls": ["[CLS]", 101] }),
        json!({ "type": "RobertaProcessing", "sep": ["</s>", 2], "cls": ["<s>", 0], "trim_offsets": true, "add_prefix_space": false }),
        json!({ "type": "ByteLevel", "add_prefix_space": true, "trim_offsets": false, "use_regex": true }),
        json!({
            "type": "TemplateProcessing",
            "single": [{ "SpecialToken": { "id": "[CLS]", "type_id": 0 } }, { "Sequence": { "id": "A", "type_id": 0 } }],
            "pair": [{ "Sequence": { "id": "A", "type_id": 0 } }, { "Sequence": { "id": "B", "type_id": 1 } }],
            "special_tokens": { "[CLS]": { "id": "[CLS]", "ids": [7], "tokens": ["[CLS]"] } },
        }),
        json!({ "type": "Sequence", "processors": [
            { "type": "ByteLevel", "add_prefix_space": true, "trim_offsets": false },
            { "type": "BertProcessing", "sep": ["[SEP]", 5], "cls": ["[CLS]", 4] },
        ] }),
    ]
}

#[test]
fn every_post_processor() {
    accepted("post_processor", &post_processors());
    let whole = post_processors().into_iter().filter(|part| part["type"] != "TemplateProcessing");
    damaged("post_processor", &whole.collect::<Vec<_>>());
}

fn models() -> Vec<Value> {
    let vocab = json!({ "<unk>": 0, "h": 1, "e": 2, "l": 3, "he": 4, "ll": 5, "hell": 6, "##l": 7, "o": 8 });
    let unigram = json!([["<unk>", 0.0], ["h", -1.5], ["e", -2], ["he", -2.25], ["l", -1e-3], ["<0xC3>", -9.0]]);
    vec![
        json!({ "type": "BPE", "vocab": vocab, "merges": [["h", "e"], ["l", "l"], ["he", "ll"]], "unk_token": "<unk>", "fuse_unk": true }),
        json!({ "type": "BPE", "vocab": vocab, "merges": ["#version: 0.2", "h e", "l l", "he ll"], "dropout": null, "unk_token": null,
                "continuing_subword_prefix": null, "end_of_word_suffix": null, "byte_fallback": false, "ignore_merges": true }),
        json!({ "vocab": vocab, "merges": ["h e"] }),
        json!({ "type": "WordPiece", "vocab": vocab, "unk_token": "<unk>", "continuing_subword_prefix": "##", "max_input_chars_per_word": 9 }),
        json!({ "vocab": vocab, "unk_token": "<unk>", "continuing_subword_prefix": "##", "max_input_chars_per_word": 100 }),
        json!({ "type": "WordLevel", "vocab": vocab, "unk_token": "<unk>" }),
        json!({ "vocab": vocab, "unk_token": "<unk>" }),
        json!({ "type": "Unigram", "vocab": unigram, "unk_id": 0, "byte_fallback": true }),
        json!({ "vocab": unigram, "unk_id": 0 }),
    ]
}

#[test]
fn every_model() {
    accepted("model", &models());
}

/// Merges at which the crate panics, or would read what is no UTF-8.
#[test]
fn merges_that_make_no_piece_are_refused() {
    let model = |merge: [&str; 2], prefix: &str| {
        let vocab = json!({ "a": 0, "b": 1, "ab": 2, "#b": 3, "é": 4, "ié": 5 });
        json!({ "model": { "type": "BPE", "vocab": vocab, "merges": [merge], "continuing_subword_prefix": prefix } })
    };
    assert!(same(&file(&model(["a", "#b"], "#"))));
    assert!(same(&file(&model(["a", "b"], ""))));
    for (merge, prefix) in [
        (["ab", "b"], ""),  // longer than any piece
        (["b", "a"], ""),   // as long as one
        (["a", "b"], "##"), // shorter than the prefix
        (["a", "é"], "#"),  // cut inside a character
        (["a", "c"], ""),   // of a piece that is none
    ] {
        let json = file(&model(merge, prefix));
        let error = super::read(json.as_bytes(), &Settings::default()).err().unwrap_or_else(|| panic!("{json}"));
        assert_eq!(error.code(), crate::error::Code::InvalidTokenizer);
    }
}

#[test]
fn added_tokens() {
    let token = |content: &str, id: u32, special: bool, word: bool| json!({ "id": id, "content": content, "single_word": word, "lstrip": special, "rstrip": word, "normalized": !special, "special": special });
    let added = json!([token("[SEP]", 3, true, false), token("hello", 1, false, true), token("<mask>", 4, true, true)]);
    for normalizer in normalizers() {
        assert!(same(&file(&json!({ "added_tokens": added, "normalizer": normalizer }))));
    }
    let tokens = added.as_array().expect("tokens");
    for setting in tokens[0].as_object().expect("an object").keys() {
        let mut less = tokens[0].clone();
        less.as_object_mut().expect("an object").remove(setting);
        assert!(!same(&file(&json!({ "added_tokens": [less] }))));
    }
}

/// Generic values take sixteen times the bytes of a list of numbers.
#[test]
fn what_is_larger_than_any_part_is_refused_without_being_read() {
    let numbers = "0,".repeat(super::MAX_PART);
    for part in ["added_tokens", "normalizer", "pre_tokenizer", "post_processor"] {
        let json = file(&json!({ part: "here" })).replace("\"here\"", &format!("[{numbers}0]"));
        let error = super::read(json.as_bytes(), &Settings::default()).err().expect("refused");
        assert!(error.message().contains("more than") || part == "added_tokens", "{part}: {error}");
    }
}

#[test]
fn versions() {
    assert!(same(&file(&json!({ "version": "1.0" }))));
    assert!(!same(&file(&json!({ "version": "2.0" }))));
    assert!(!same(r#"{"version": "1.0"}"#));
    assert!(!same("[]"));
}
