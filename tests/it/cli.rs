//! The native program, as a program.

use std::{
    fs,
    io::Write,
    process::{Command, Output, Stdio},
};

use crate::common::{Dense as _, encode, minilm, path};

fn wick(arguments: &[&str], input: &str) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_wick"))
        .args(arguments)
        .current_dir(env!("CARGO_TARGET_TMPDIR"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program starts");
    // A program that refuses its arguments may end before it reads.
    let _ = child.stdin.take().expect("a pipe").write_all(input.as_bytes());
    child.wait_with_output().expect("it ends")
}

fn model() -> String {
    path("build/models/all-MiniLM-L6-v2").display().to_string()
}

const TEXTS: [&str; 3] = ["The weather is lovely today.", "It's so sunny outside!", "Zürich 東京"];

fn assert_is_library_output(rows: &[Vec<f32>]) {
    let expected = encode(&minilm(), &TEXTS);
    assert_eq!(rows.len(), TEXTS.len());
    for (row, expected) in rows.iter().zip(expected.vectors().rows()) {
        assert_eq!(row, expected);
    }
}

fn jsonl(bytes: &[u8]) -> Vec<Vec<f32>> {
    let text = std::str::from_utf8(bytes).expect("UTF-8");
    text.lines().map(|line| serde_json::from_str(line).expect("an array of numbers")).collect()
}

#[test]
fn lines_in_jsonl_out() {
    let output = wick(&["encode", "--model", &model()], &TEXTS.join("\n"));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_is_library_output(&jsonl(&output.stdout));
    assert!(output.stderr.is_empty(), "no progress bar where there is no terminal");
}

#[test]
fn jsonl_in_npy_out() {
    let folder = std::path::Path::new(env!("CARGO_TARGET_TMPDIR"));
    let lines = [
        serde_json::json!({"id": 1, "body": TEXTS[0]}).to_string(),
        serde_json::json!(TEXTS[1]).to_string(),
        serde_json::json!({"body": TEXTS[2]}).to_string(),
    ];
    fs::write(folder.join("texts.jsonl"), lines.join("\n")).expect("written");
    let arguments =
        ["encode", "--model", &model(), "--input", "texts.jsonl", "--field", "body", "--output", "vectors.npy"];
    let output = wick(&arguments, "");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let bytes = fs::read(folder.join("vectors.npy")).expect("written");
    assert_eq!(&bytes[..6], b"\x93NUMPY");
    // As NumPy writes it, padded to a multiple of 64 bytes.
    let length = usize::from(u16::from_le_bytes([bytes[8], bytes[9]]));
    let header = String::from_utf8_lossy(&bytes[10..10 + length]);
    assert_eq!(header.trim_end(), "{'descr': '<f4', 'fortran_order': False, 'shape': (3, 384), }");
    assert!(header.ends_with('\n') && (10 + length) % 64 == 0 && bytes.len() == 10 + length + 3 * 384 * 4);
    let values = &bytes[bytes.len() - 3 * 384 * 4..];
    let values: Vec<f32> =
        values.chunks_exact(4).map(|value| f32::from_le_bytes(value.try_into().expect("four"))).collect();
    assert_is_library_output(&values.chunks_exact(384).map(<[f32]>::to_vec).collect::<Vec<_>>());
}

/// With times and the work of each kernel.
#[cfg(feature = "webgpu")]
#[test]
fn encode_and_bench_on_a_gpu() {
    if crate::common::gpu().is_none() {
        return;
    }
    let output = wick(&["encode", "--model", &model(), "--device", "gpu"], &TEXTS.join("\n"));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let expected = encode(&minilm(), &TEXTS);
    for (row, expected) in jsonl(&output.stdout).iter().zip(expected.vectors().rows()) {
        assert!(crate::common::difference(row, expected) < 1e-5 && row != expected);
    }
    let arguments = ["bench", "--model", &model(), "--rounds", "1", "--device", "gpu"];
    let output = wick(&[&arguments[..], &["--json"]].concat(), &TEXTS.join("\n"));
    let measured: serde_json::Value = serde_json::from_slice(&output.stdout).expect("a line of JSON");
    let peak = measured["peak_gflops"].as_f64().expect("a peak");
    let linear = &measured["kernels"]["linear f32 16x64"];
    assert!(peak > 1.0 && linear["count"] == 24 && linear["gbytes"].as_f64() > Some(0.04), "{measured}");
    let (products, ms) = (linear["gproducts"].as_f64().expect("counted"), linear["ms"].as_f64().expect("timed"));
    assert!((linear["gflops"].as_f64().expect("a rate") * ms / (2e3 * products) - 1.0).abs() < 1e-6, "{measured}");
    let output = wick(&arguments, &TEXTS.join("\n"));
    let table = String::from_utf8_lossy(&output.stdout);
    assert!(table.contains("% of the peak") && table.contains("GB/s") && table.contains("peak in f32"), "{table}");
}

#[test]
fn failures_name_their_place_and_code() {
    let cases: [(&[&str], &str, &str); 5] = [
        (&["encode", "--model", "no/such/folder"], "a", "[missing_file]"),
        (&["encode", "--model", &model(), "--input-format", "jsonl"], "\"fine\"\n{\"other\": 1}", "standard input:2"),
        (&["encode", "--model", &model(), "--output-format", "npy"], "a", "[invalid_option]"),
        (&["encode", "--model", &model(), "--dimensions", "385"], "a", "[invalid_option]"),
        (&["bench", "--model", &model()], "", "[invalid_option]"),
    ];
    for (arguments, input, expected) in cases {
        let output = wick(arguments, input);
        let message = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && message.contains(expected), "{arguments:?}: {message}");
        assert!(output.stdout.is_empty());
    }
}

#[test]
fn empty_input_gives_empty_output() {
    let output = wick(&["encode", "--model", &model()], "");
    assert!(output.status.success() && output.stdout.is_empty());
}

#[test]
fn bench_counts_what_it_measures() {
    let output = wick(
        &["bench", "--model", &model(), "--batch", "1", "--rounds", "2", "--json"],
        "hello world\nand another text",
    );
    let measured: serde_json::Value = serde_json::from_slice(&output.stdout).expect("a line of JSON");
    // With [CLS] and [SEP].
    assert_eq!((&measured["texts"], &measured["tokens"]), (&2.into(), &9.into()));
    let (rate, ms) =
        (measured["tokens_per_s"].as_f64().expect("a rate"), measured["round_ms"].as_f64().expect("a time"));
    assert!((rate * ms / 9e3 - 1.0).abs() < 1e-9 && measured["call_ms"].as_f64() < Some(ms), "{measured}");
}
