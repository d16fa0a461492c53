//! Weights as torch and llama.cpp's gguf package write them, and such files damaged.
#![allow(unsafe_code)] // the allocator below

#[path = "it/common.rs"]
mod common;

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
    collections::BTreeMap,
};

use common::{json, read};
use serde_json::{Value, json};
use wick_embed::{
    Code, Result,
    weights::{Dtype, Reader, Sink, TensorInfo, Values, gguf},
};

/// Has no more than a page has: what asks for more without being ready for a no ends the test
/// program. Counts what each thread holds, since tests run beside each other.
struct Page;

const MOST: usize = 256 << 20;

thread_local! {
    /// Bytes that this thread took and did not give back, and the most that this ever was.
    static HELD: Cell<isize> = const { Cell::new(0) };
    static PEAK: Cell<isize> = const { Cell::new(0) };
}

fn held(more: isize) {
    let held = HELD.get() + more;
    HELD.set(held);
    PEAK.set(PEAK.get().max(held));
}

unsafe impl GlobalAlloc for Page {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if layout.size() > MOST {
            return std::ptr::null_mut();
        }
        held(layout.size() as isize);
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        held(-(layout.size() as isize));
        unsafe { System.dealloc(pointer, layout) }
    }
}

/// What a call gives, and the most bytes that it held at a time.
fn measured<T>(call: impl FnOnce() -> T) -> (T, usize) {
    let before = HELD.get();
    PEAK.set(before);
    let result = call();
    (result, (PEAK.get() - before) as usize)
}

#[global_allocator]
static PAGE: Page = Page;

#[derive(Default)]
struct Collect {
    shapes: BTreeMap<String, Vec<usize>>,
    tensors: BTreeMap<String, Vec<f32>>,
    dtype: Option<Dtype>,
}

impl Sink for Collect {
    fn begin(&mut self, tensors: &[TensorInfo]) -> Result<()> {
        self.shapes = tensors.iter().map(|info| (info.name.clone(), info.shape.clone())).collect();
        Ok(())
    }

    fn wants(&self, _: &str) -> Option<Dtype> {
        Some(self.dtype.unwrap_or(Dtype::F32))
    }

    fn tensor(&mut self, name: &str, values: Values) -> Result<()> {
        let width = self.shapes[name].last().copied().unwrap_or(1);
        let values = match values {
            // Stored integers have no scales.
            Values::Int8 { values, scales } if scales.is_empty() => values.into_iter().map(f32::from).collect(),
            values => values.into_f32(width),
        };
        self.tensors.insert(name.to_owned(), values);
        Ok(())
    }
}

fn load(file: &str, bytes: &[u8], size: usize, dtype: Option<Dtype>) -> Result<Collect> {
    let mut sink = Collect { dtype, ..Collect::default() };
    let mut reader = Reader::new(file)?;
    for chunk in bytes.chunks(size) {
        reader.push(chunk, &mut sink)?;
    }
    reader.finish()?;
    Ok(sink)
}

fn fixture(file: &str) -> Vec<u8> {
    read(&format!("tests/fixtures/formats/{file}"))
}

/// A shape, a step, and every so manieth value.
type Sampled = (Vec<usize>, usize, Vec<f64>);

fn expected() -> BTreeMap<String, BTreeMap<String, Sampled>> {
    serde_json::from_value(json("tests/fixtures/formats/expect.json")).expect("the form that generate.py writes")
}

#[test]
fn files_hold_what_python_reads_in_them() {
    let expected = expected();
    assert_eq!(expected.len(), 10);
    for (file, tensors) in expected {
        let bytes = fixture(&file);
        for size in [1, 7, 1000, 1 << 20] {
            let sink = load(&file, &bytes, size, None).unwrap_or_else(|error| panic!("{error}"));
            assert_eq!(sink.tensors.len(), tensors.len(), "{file}");
            for (name, (shape, step, values)) in &tensors {
                let got = sink.tensors.get(name).unwrap_or_else(|| panic!("{file} has no {name}"));
                assert_eq!((&sink.shapes[name], got.len()), (shape, shape.iter().product()), "{file}: {name}");
                assert!(!values.is_empty() || got.is_empty());
                for (got, want) in got.iter().step_by(*step).zip(values) {
                    let most = if file.ends_with("gguf") { 1e-6 * want.abs() + 1e-9 } else { 0.0 };
                    let difference = (f64::from(*got) - f64::from(*want as f32)).abs();
                    assert!(difference <= most, "{file}: {name}: {got} is not {want}");
                }
            }
        }
    }
}

#[test]
fn other_forms_are_near() {
    for file in ["views.zip.pt", "bert.mixed.gguf", "xlmr.gguf"] {
        let bytes = fixture(file);
        let exact = load(file, &bytes, 1000, None).expect("a valid file");
        for (dtype, step) in [(Dtype::F16, 1e-3), (Dtype::Int8, 5e-3)] {
            let sink = load(file, &bytes, 1000, Some(dtype)).expect("a valid file");
            for (name, values) in &sink.tensors {
                let most = exact.tensors[name].iter().fold(0.0, |most: f32, value| most.max(value.abs()));
                for (got, want) in values.iter().zip(&exact.tensors[name]) {
                    assert!((got - want).abs() <= step * most, "{file}: {name}: {got} is not {want}");
                }
            }
        }
    }
}

#[test]
fn what_would_run_is_refused_by_its_name() {
    for (file, rule, name) in [
        ("system.bin", "global: ", "posix.system"),
        ("eval.bin", "global: ", "builtin"),
        ("bytes.bin", "dtype: ", "ByteStorage"),
    ] {
        for size in [1, 7, 1 << 20] {
            let error = load(file, &fixture(file), size, None).err().expect("refused");
            assert_eq!(error.code(), Code::InvalidWeights);
            assert!(error.message().starts_with(rule) && error.message().contains(name), "{error}");
        }
    }
}

#[test]
fn a_file_that_ends_too_early_is_truncated() {
    for file in expected().into_keys() {
        let bytes = fixture(&file);
        // The zeros behind a GGUF file's last tensor may be missing.
        let least = bytes.len() - if file.ends_with("gguf") { 32 } else { 1 };
        for end in (0..=least).filter(|end| least - end < 600 || end % 97 == 0) {
            let error = load(&file, &bytes[..end], 4096, None).err().unwrap_or_else(|| panic!("{file} to {end}"));
            assert!(error.message().starts_with("truncated"), "{file} to {end}: {error}");
        }
    }
}

/// Numbers that look random and are the same every time.
fn random(state: &mut u64) -> usize {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    (*state >> 16) as usize
}

#[test]
fn damaged_files_are_errors_or_other_numbers() {
    let mut state = 0x9e37_79b9_7f4a_7c15;
    for file in
        ["kinds.zip.bin", "kinds.legacy.bin", "views.zip.pt", "nested.pth", "protocol4.bin", "xlmr.gguf", "nomic.gguf"]
    {
        let bytes = fixture(file);
        // What describes, not what is described.
        let describing = bytes.len().min(2500) - 30;
        let mut refused = 0;
        for _ in 0..3000 {
            let mut damaged = bytes.clone();
            for _ in 0..1 + random(&mut state) % 3 {
                let at = random(&mut state) % describing;
                match random(&mut state) % 4 {
                    0 => damaged[at] = random(&mut state) as u8,
                    1 => damaged[at] ^= 1 << (random(&mut state) % 8),
                    2 => damaged[at] = 0xff,
                    _ => drop(damaged.drain(at..(at + random(&mut state) % 9).min(describing))),
                }
            }
            let size = 1 + random(&mut state) % 5000;
            refused += usize::from(load(file, &damaged, size, None).is_err());
            if file.ends_with("gguf") {
                let mut describer = gguf::Describer::new(file);
                if damaged.chunks(size).try_for_each(|chunk| describer.push(chunk).map(|_| ())).is_ok() {
                    drop(describer.finish());
                }
            }
        }
        println!("{file}: {refused} of 3000 refused");
        assert!(refused > 300, "{file}: only {refused} were refused");
    }
}

fn described(file: &str) -> gguf::Described {
    let bytes = fixture(file);
    let mut found = None;
    for size in [1, 7, 1 << 20] {
        let mut describer = gguf::Describer::new(file);
        let all: Vec<_> = bytes.chunks(size).filter_map(|chunk| describer.push(chunk).expect("a valid file")).collect();
        assert_eq!(all.len(), 1);
        describer.finish().expect("described");
        let this = all.into_iter().next();
        assert!(found.is_none() || found == this);
        found = this;
    }
    let mut describer = gguf::Describer::new(file);
    assert_eq!(describer.push(&bytes[..100]).expect("no fault yet"), None);
    assert!(describer.finish().expect_err("too early").message().starts_with("truncated"));
    found.expect("a description")
}

fn has(config: &Value, wanted: &Value) {
    for (key, value) in wanted.as_object().expect("an object") {
        assert_eq!(&config[key], value, "{key}");
    }
}

/// The tokenizer that a file describes.
fn made(described: &gguf::Described) -> Value {
    serde_json::from_str(described.tokenizer.as_deref().expect("a tokenizer")).expect("JSON")
}

fn tokenizer(json: &Value) -> tokenizers::Tokenizer {
    tokenizers::Tokenizer::from_bytes(json.to_string()).expect("a tokenizer")
}

fn ids(tokenizer: &tokenizers::Tokenizer, text: &str, pair: Option<&str>) -> Vec<u32> {
    let encoding = match pair {
        None => tokenizer.encode(text, true),
        Some(pair) => tokenizer.encode((text, pair), true),
    };
    encoding.expect("ids").get_ids().to_vec()
}

#[test]
fn a_bert_file_describes_itself() {
    let described = described("bert.mixed.gguf");
    has(
        &described.config,
        &json!({
            "model_type": "bert", "architectures": ["BertModel"], "vocab_size": 99, "hidden_size": 32,
            "num_hidden_layers": 1, "num_attention_heads": 4, "intermediate_size": 64, "hidden_act": "gelu",
            "max_position_embeddings": 16, "type_vocab_size": 2, "layer_norm_eps": 1e-12,
        }),
    );
    assert_eq!(described.pooling, Some("cls"));
    let made = made(&described);
    assert_eq!(made["normalizer"]["lowercase"], true);
    let mut original = json("tests/fixtures/bert-tiny/tokenizer.json");
    assert_eq!(made["model"], original["model"]);
    assert_eq!(made["post_processor"], original["post_processor"]);
    (original["truncation"], original["padding"]) = (Value::Null, Value::Null);
    let (made, original) = (tokenizer(&made), tokenizer(&original));
    for text in [
        "The weather is lovely today.",
        "so SUNNY [MASK] outside",
        "Wick burns; burning!",
        "",
        "héllo wörld [unused95]",
    ] {
        assert_eq!(ids(&made, text, None), ids(&original, text, None), "{text}");
        assert_eq!(ids(&made, text, Some("a b")), ids(&original, text, Some("a b")), "{text}");
    }
}

#[test]
fn an_xlmr_file_describes_itself() {
    let described = described("xlmr.gguf");
    has(
        &described.config,
        &json!({
            "model_type": "xlm-roberta", "architectures": ["XLMRobertaModel"], "vocab_size": 11,
            "max_position_embeddings": 18, "type_vocab_size": 1, "pad_token_id": 1, "layer_norm_eps": 1e-5,
        }),
    );
    let made = made(&described);
    assert_eq!(made["model"]["unk_id"], 3);
    assert_eq!(made["model"]["vocab"][5], json!(["\u{2581}the", -3.25]));
    let made = tokenizer(&made);
    assert_eq!(ids(&made, "the  sunny", None), [0, 5, 6, 7, 2]);
    assert_eq!(ids(&made, "the", Some("sun")), [0, 5, 2, 2, 6, 2]);
    assert_eq!(ids(&made, "x</s>", None), [0, 4, 3, 2, 2]);
}

#[test]
fn a_nomic_file_describes_itself() {
    let described = described("nomic.gguf");
    has(
        &described.config,
        &json!({
            "model_type": "nomic_bert", "n_embd": 256, "n_layer": 1, "n_head": 4, "n_inner": 40, "n_positions": 2048,
            "rotary_emb_base": 1000.0, "rotary_emb_fraction": 1.0, "layer_norm_epsilon": 1e-12, "type_vocab_size": 2,
            "vocab_size": 99, "activation_function": "swiglu", "qkv_proj_bias": false,
        }),
    );
    assert_eq!(described.pooling, Some("mean"));
}

/// Wants nothing and keeps nothing.
struct Nothing;

impl Sink for Nothing {
    fn begin(&mut self, _: &[TensorInfo]) -> Result<()> {
        Ok(())
    }

    fn wants(&self, _: &str) -> Option<Dtype> {
        None
    }

    fn tensor(&mut self, _: &str, _: Values) -> Result<()> {
        Ok(())
    }
}

/// Bytes of the headers below: a fifth of the most that the format allows.
const LARGE: usize = 20_000_000;

/// A part that is repeated until a header is large.
fn large(start: &str, part: impl Fn(usize) -> String, end: &str) -> String {
    let mut text = start.to_owned();
    let mut count = 0;
    while text.len() < LARGE {
        text.push_str(&part(count));
        count += 1;
    }
    text + end
}

#[test]
fn a_large_safetensors_header_costs_its_bytes_and_those_of_as_many_tensors_as_there_may_be() {
    let rest = r#""dtype":"F32","shape":[0],"data_offsets":[0,0]}"#;
    let tensor = |name: &str| format!(r#""{name}":{{{rest}"#);
    let named = |index: usize| tensor(&format!("{index:0>256}")) + ",";
    let same = |part: &'static str| move |_: usize| part.to_owned();
    let last = tensor("last") + "}";
    let cases = [
        ("names", large("{", named, &last), true),
        ("white space", large("{", same("        "), &last), true),
        ("metadata", large(r#"{"__metadata__":{"a":""#, same("\\n"), &format!("\"}},{last}")), true),
        ("metadata's names", large(r#"{"__metadata__":{"a"#, same("\\n"), &format!("\":\"\"}},{last}")), true),
        ("unknown field", large(r#"{"a":{"other":["#, same("0,"), &format!("0],{rest}}}")), true),
        ("numbers", large(r#"{"a":["#, same("0,"), "0]}"), false),
        ("sizes", large(r#"{"a":{"dtype":"F32","shape":["#, same("1,"), "1],\"data_offsets\":[0,4]}}"), false),
        ("short names", large("{", |index| tensor(&format!("{index:x}")) + ",", &last), false),
        ("one name", large("{\"", same("\\n"), &format!(r#"":{{{rest}}}"#)), false),
        ("a type", large(r#"{"a":{"dtype":""#, same("\\n"), r#"","shape":[0],"data_offsets":[0,0]}}"#), false),
        ("nesting", large(r#"{"a":{"other":"#, same("["), ""), false),
        ("nested metadata", large(r#"{"__metadata__":{"a":"#, same("["), ""), false),
    ];
    for (name, header, is_valid) in cases {
        let file = [&(header.len() as u64).to_le_bytes(), header.as_bytes()].concat();
        let (result, most) = measured(|| {
            let mut reader = Reader::new("model.safetensors")?;
            file.chunks(1 << 18).try_for_each(|chunk| reader.push(chunk, &mut Nothing))?;
            reader.finish()
        });
        println!("{name}: {:.2} times its bytes, {:?}", most as f64 / header.len() as f64, result.as_ref().err());
        assert_eq!(result.is_ok(), is_valid, "{name}: {result:?}");
        assert!(most < header.len() + (32 << 20), "{name}: {most} bytes for {}", header.len());
    }
}

#[test]
fn a_large_gguf_header_costs_a_few_times_its_bytes() {
    let text = |text: &str| [&(text.len() as u64).to_le_bytes(), text.as_bytes()].concat();
    let key = |name: &str, kind: u32, value: &[u8]| [&text(name), &kind.to_le_bytes()[..], value].concat();
    // Lists of `count` strings, under each of these names.
    let file = |names: &[&str], count: usize, piece: &dyn Fn(usize) -> String| {
        let pieces: Vec<u8> = (0..count).flat_map(|index| text(&piece(index))).collect();
        let list = [&8_u32.to_le_bytes()[..], &(count as u64).to_le_bytes(), &pieces].concat();
        let mut keys =
            vec![key("general.architecture", 8, &text("bert")), key("tokenizer.ggml.model", 8, &text("bert"))];
        keys.extend(names.iter().map(|name| key(name, 9, &list)));
        [&b"GGUF\x03\0\0\0"[..], &0_u64.to_le_bytes(), &(keys.len() as u64).to_le_bytes(), &keys.concat()].concat()
    };
    let special = ["[UNK]", "[CLS]", "[SEP]"];
    let piece = |index: usize| special.get(index).map_or_else(|| format!("{index:0>12}"), ToString::to_string);
    let tokens = &["tokenizer.ggml.tokens"][..];
    let cases = [
        // The configuration is missing, which is known when the tokenizer is made.
        ("pieces", file(tokens, 1 << 20, &piece), "", 4),
        ("empty pieces", file(tokens, LARGE / 8, &|_| String::new()), "count: ", 2),
        ("lists of no use", file(&["tokenizer.ggml.a", "tokenizer.ggml.b"], LARGE / 32, &piece), "", 2),
    ];
    for (name, file, rule, times) in cases {
        let (result, most) = measured(|| {
            let mut describer = gguf::Describer::new("model.gguf");
            file.chunks(1 << 18).try_for_each(|chunk| describer.push(chunk).map(|_| ()))
        });
        let error = result.expect_err("it holds no model");
        println!("{name}: {:.2} times its bytes, {error}", most as f64 / file.len() as f64);
        assert!(error.message().starts_with(rule), "{error}");
        assert!(most < file.len() * times, "{name}: {most} bytes for {}", file.len());
        let (result, most) = measured(|| {
            let mut reader = Reader::new("model.gguf")?;
            file.chunks(1 << 18).try_for_each(|chunk| reader.push(chunk, &mut Nothing))
        });
        assert!(result.is_ok() && most < 1 << 20, "{name}: {most} bytes, {result:?}");
    }
}
