//! BM25 against pymilvus's values (`golden/bm25_golden.json`, `golden/bm25_params.json`: outputs of `milvus_model`
//! 0.2.12) and NLTK's stems (`golden/nltk_stems.json`: NLTK 3.10.4).

use crate::common::{json, read};
use serde_json::{Value, json};
use wick_embed::{
    Bm25, Code, SparseVector,
    bm25::{Analyzer, FLOOR, Language, Options},
};

const NEAR: f64 = 1e-6;

fn texts(value: &Value) -> Vec<&str> {
    value.as_array().expect("texts").iter().map(|text| text.as_str().expect("a text")).collect()
}

fn fit(corpus: &[&str]) -> Bm25 {
    Bm25::fit(corpus, Options::default()).expect("a corpus")
}

fn assert_row(row: &SparseVector, expected: &Value, what: &str) {
    let expected: Vec<(u32, f64)> = serde_json::from_value(expected.clone()).expect("pairs");
    let indices: Vec<u32> = expected.iter().map(|(index, _)| *index).collect();
    assert_eq!(row.indices, indices, "{what}");
    for (value, (_, expected)) in row.values.iter().zip(expected) {
        assert!((f64::from(*value) - expected).abs() < NEAR, "{what}: {value} for {expected}");
    }
}

/// A saved form with one key replaced, or taken away by null.
fn saved_with(key: &str, value: &Value) -> Vec<u8> {
    let mut saved = json("tests/golden/bm25_params.json");
    let keys = saved.as_object_mut().expect("an object");
    assert!(keys.remove(key).is_some(), "{key} is no key");
    if !value.is_null() {
        keys.insert(key.to_owned(), value.clone());
    }
    saved.to_string().into_bytes()
}

#[test]
fn tokens_are_those_of_the_reference() {
    let golden = json("tests/golden/bm25_golden.json");
    let english = Analyzer::default();
    for (text, tokens) in golden["tokens"].as_object().expect("texts") {
        assert_eq!(json!(english.tokens(text)), *tokens, "{text}");
    }
    for (language, cases) in golden["analyzers"].as_object().expect("languages") {
        let analyzer: Analyzer = serde_json::from_value(json!({"kind": "nltk", "language": language})).expect(language);
        for case in cases.as_array().expect("cases") {
            let text = case[0].as_str().expect("a text");
            assert_eq!(json!(analyzer.tokens(text)), case[2], "{language}: {text}");
        }
    }
}

#[test]
fn vectors_are_those_of_the_reference() {
    let golden = json("tests/golden/bm25_golden.json");
    let corpus = texts(&golden["corpus"]);
    let bm25 = fit(&corpus);
    assert_eq!(json!(bm25.dimensions()), golden["dim"]);
    for (texts_key, rows_key) in [("corpus", "corpus_rows"), ("docs5", "docs5_rows")] {
        for (at, text) in texts(&golden[texts_key]).iter().enumerate() {
            assert_row(&bm25.encode_document(text), &golden[rows_key][at], text);
        }
    }
    for (at, text) in texts(&golden["queries"]).iter().enumerate() {
        assert_row(&bm25.encode_query(text), &golden["query_rows"][at], text);
    }
    let query = "Where was Turing born?";
    assert_row(&bm25.encode_query(query), &golden["where_was_turing_born"][0], query);
}

#[test]
fn repeats_add_up_in_queries_and_saturate_in_documents() {
    let bm25 = fit(&["alpha beta", "gamma delta", "epsilon zeta"]);
    let idf = f64::from(bm25.encode_query("gamma").values[0]);
    let twice = bm25.encode_query("gamma unknown gamma");
    assert!((f64::from(twice.values[0]) - 2.0 * idf).abs() < NEAR);
    // tf 2, length 3 with the unknown word, mean length 2.
    let document = bm25.encode_document("gamma unknown gamma");
    let expected = 2.0 * 2.5 / (2.0 + 1.5 * (0.25 + 0.75 * 1.5));
    assert_eq!(document.indices, [2]);
    assert!((f64::from(document.values[0]) - expected).abs() < NEAR);
    assert!(bm25.encode_document("").is_empty() && bm25.encode_query("unknown").is_empty());
}

#[test]
fn the_saved_form_is_that_of_the_reference() {
    let golden = json("tests/golden/bm25_golden.json");
    let bm25 = fit(&texts(&golden["corpus"]));
    let saved: Value = serde_json::from_str(&bm25.save()).expect("JSON");
    let expected = json("tests/golden/bm25_params.json");
    let keys = |value: &Value| value.as_object().expect("an object").keys().cloned().collect::<Vec<_>>();
    assert_eq!(keys(&saved), keys(&expected));
    for (key, expected) in expected.as_object().expect("an object") {
        if key != "idf_value" {
            assert_eq!(saved[key], *expected, "{key}");
        }
    }
    let idf = |value: &Value| serde_json::from_value::<Vec<f64>>(value["idf_value"].clone()).expect("numbers");
    assert_eq!(idf(&saved).len(), idf(&expected).len());
    for (value, expected) in idf(&saved).iter().zip(idf(&expected)) {
        // Logarithms may differ in the last bit.
        assert!((value - expected).abs() < 1e-15, "{value} for {expected}");
    }
}

#[test]
fn what_was_saved_reads_as_it_was() {
    let golden = json("tests/golden/bm25_golden.json");
    let corpus = texts(&golden["corpus"]);
    let options = Options { k1: 1.2, b: 0.5, epsilon: 0.1, ..Options::default() };
    let bm25 = Bm25::fit(&corpus, options).expect("a corpus");
    let again = Bm25::from_json(bm25.save().as_bytes(), Analyzer::default()).expect("what was saved");
    assert_eq!(again.save(), bm25.save());
    for text in &corpus {
        assert_eq!(again.encode_document(text), bm25.encode_document(text));
        assert_eq!(again.encode_query(text), bm25.encode_query(text));
    }
    assert_eq!((bm25.token(0), bm25.token(20), bm25.token(21)), (Some("artifici"), Some("england"), None));
    let reference = read("tests/golden/bm25_params.json");
    let reference = Bm25::from_json(&reference, Analyzer::default()).expect("the reference's file");
    assert_row(
        &reference.encode_query(corpus[0]),
        &json!(fit(&corpus).encode_query(corpus[0]).iter().collect::<Vec<_>>()),
        "D0",
    );
}

#[test]
fn no_weight_is_zero_or_below() {
    let golden = json("tests/golden/bm25_golden.json");
    for case in ["negative", "uniform"] {
        let bm25 = fit(&texts(&golden[case]["corpus"]));
        let query = bm25.encode_query("apple banana cherry");
        let reference: Vec<(u32, f64)> = serde_json::from_value(golden[case]["q"][0].clone()).expect("pairs");
        assert!(reference.iter().any(|(_, value)| *value < 0.0), "{case} is no longer a case");
        let expected: Vec<(u32, f64)> = reference.iter().map(|&(index, value)| (index, value.max(FLOOR))).collect();
        assert_row(&query, &json!(expected), case);
        assert!(query.values.iter().all(|value| *value > 0.0));
    }
    // Half of the documents: the logarithm is zero, which the reference keeps.
    let half = fit(&["apple", "banana"]).encode_query("apple");
    assert_eq!(half.values, [FLOOR as f32]);
    // As the reference saved it.
    let values = json!([-0.08969278283058266, 0.5]);
    let saved = json!({"version": "v1", "corpus_size": 3, "avgdl": 2.0, "idf_word": ["appl", "cherri"], "idf_value": values,
                       "k1": 1.5, "b": 0.75, "epsilon": 0.25});
    let read = Bm25::from_json(saved.to_string().as_bytes(), Analyzer::default()).expect("negative values are read");
    assert_eq!(read.encode_query("apple cherry").values, [FLOOR as f32, 0.5]);
}

#[test]
fn a_corpus_without_terms_is_an_error() {
    for corpus in [&[][..], &[""], &["the", "?!", " "]] {
        let error = Bm25::fit(corpus, Options::default()).expect_err("nothing to count");
        assert_eq!((error.code(), error.at()), (Code::InvalidText, "corpus"));
    }
    // Beside others an empty document counts.
    let bm25 = fit(&["apple", ""]);
    assert!(bm25.save().contains(r#""corpus_size":2,"avgdl":0.5"#), "{}", bm25.save());
}

#[test]
fn options_have_bounds() {
    let set = |name: &str, value: f64| {
        let mut options = Options::default();
        *match name {
            "k1" => &mut options.k1,
            "b" => &mut options.b,
            _ => &mut options.epsilon,
        } = value;
        options
    };
    for (name, value) in
        [("k1", -0.1), ("k1", f64::NAN), ("k1", 1e300), ("b", -0.1), ("b", 1.1), ("epsilon", f64::INFINITY)]
    {
        let error = Bm25::fit(&["apple"], set(name, value)).expect_err(name);
        assert_eq!((error.code(), error.at()), (Code::InvalidOption, name));
    }
    for (name, value) in [("k1", 0.0), ("k1", 1e6), ("b", 0.0), ("b", 1.0), ("epsilon", 0.0)] {
        let bm25 = Bm25::fit(&["apple pie", "cherry"], set(name, value)).expect("within bounds");
        for vector in [bm25.encode_document("apple"), bm25.encode_query("apple")] {
            assert!(vector.len() == 1 && vector.values[0].is_finite());
        }
    }
    let options: Options = serde_json::from_str(r#"{"k1": 2, "analyzer": {"kind": "unicode"}}"#).expect("options");
    assert_eq!((options.k1, options.b, options.epsilon), (2.0, 0.75, 0.25));
    assert!(serde_json::from_str::<Options>(r#"{"K1": 2}"#).is_err());
}

#[test]
fn damaged_parameters_are_errors_that_name_the_key() {
    let duplicate = json!(vec!["artifici"; 21]);
    let cases: &[(&str, Value)] = &[
        ("version", json!("v2")),
        ("version", json!(1)),
        ("corpus_size", json!(0)),
        ("corpus_size", json!(-1)),
        ("corpus_size", json!(2.5)),
        ("corpus_size", json!(u64::MAX)),
        ("avgdl", json!(0.0)),
        ("avgdl", json!(-7.3)),
        ("avgdl", json!(1e-300)),
        ("avgdl", json!(1e300)),
        ("avgdl", json!("7")),
        ("idf_word", json!([])),
        ("idf_word", json!(["one"])),
        ("idf_word", duplicate),
        ("idf_word", json!({"a": 1})),
        ("idf_value", json!(vec![1e300; 21])),
        ("idf_value", json!(vec!["1"; 21])),
        ("k1", json!(-1.5)),
        ("k1", json!([1.5])),
        ("b", json!(1.5)),
        ("epsilon", json!(1e300)),
    ];
    let read = |json: &[u8]| Bm25::from_json(json, Analyzer::default());
    for (key, value) in cases {
        let error = read(&saved_with(key, value)).expect_err(key);
        assert_eq!((error.code(), error.at()), (Code::InvalidConfig, *key), "{value}: {error}");
    }
    for key in ["version", "corpus_size", "avgdl", "idf_word", "idf_value", "k1", "b", "epsilon"] {
        let error = read(&saved_with(key, &Value::Null)).expect_err(key);
        assert_eq!(error.code(), Code::InvalidConfig, "{error}");
        assert!(error.to_string().contains(key), "{error}");
    }
    let whole = saved_with("k1", &json!(1.5));
    for json in [&b""[..], b"nonsense", b"<!doctype html>", b"\xff\xfe", &whole[..whole.len() / 2], &[b'['; 100_000]] {
        let error = read(json).expect_err("no JSON");
        assert!(matches!(error.code(), Code::InvalidJson | Code::InvalidConfig), "{error}");
    }
    // What Python writes for infinity is no JSON.
    let infinity = String::from_utf8(whole).expect("UTF-8").replace("\"k1\":1.5", "\"k1\":Infinity");
    assert_eq!(read(infinity.as_bytes()).expect_err("no JSON").code(), Code::InvalidJson);
}

#[test]
fn stems_are_those_of_nltk() {
    let languages = [
        ("english", Language::English),
        ("german", Language::German),
        ("french", Language::French),
        ("russian", Language::Russian),
        ("spanish", Language::Spanish),
        ("italian", Language::Italian),
        ("portuguese", Language::Portuguese),
    ];
    let golden = json("tests/golden/nltk_stems.json");
    assert_eq!(golden.as_object().expect("languages").len(), languages.len());
    // What the words of the golden file do not show.
    let more = [
        ("english", "realization", "realize"),
        ("english", "ionizers", "ionize"),
        ("english", "tokenization", "token"),
        ("english", "irrationality", "irrate"),
        ("english", "nationally", "nation"),
        ("italian", "l'intelligenza", "l'intelligt"),
        ("italian", "esperienze", "esperit"),
    ];
    // Where the two kinds differ, because `unicode` keeps to Snowball's definition.
    let mut exceptions = Vec::new();
    for (name, language) in languages {
        let words = golden[name]
            .as_object()
            .expect("words")
            .iter()
            .map(|(word, stem)| (&**word, stem.as_str().expect("a stem")));
        let more = more.iter().filter(|(of, ..)| *of == name).map(|&(_, word, stem)| (word, stem));
        let nltk = Analyzer::nltk(language).with_stop_words([""; 0]);
        let snowball = Analyzer::unicode(Some(language)).with_stop_words([""; 0]);
        for (word, stem) in words.chain(more) {
            // The tokenizer cuts English contractions, so that no stem of a whole one exists.
            let one = |analyzer: &Analyzer| Some(analyzer.tokens(word)).filter(|tokens| tokens.len() == 1)?.pop();
            if let Some(found) = one(&nltk) {
                assert_eq!(found, stem, "{name}: {word}");
            }
            if let Some(found) = one(&snowball).filter(|found| found != stem) {
                exceptions.push(format!("{word} {found}"));
            }
        }
    }
    let expected = [
        "quantization quantiz",
        "realization realiz",
        "ionizers ioniz",
        "irrationality irrat",
        "l'intelligenza l'intelligent",
        "esperienze esperient",
    ];
    assert_eq!(exceptions, expected);
}
