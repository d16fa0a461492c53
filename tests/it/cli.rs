//! The native program, as a program.

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    path::PathBuf,
    process::{Command, Output, Stdio},
};

use wick_embed::{
    RerankOptions, Reranker,
    platform::native::{Directory, block_on},
};

use crate::common::{Dense as _, encode, minilm, path};

fn wick(arguments: &[&str], input: &str) -> Output {
    let mut child = child(env!("CARGO_BIN_EXE_wick"), arguments).spawn().expect("the program starts");
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

/// A fixture's folder.
fn fixture(name: &str) -> String {
    path(&format!("tests/fixtures/{name}")).display().to_string()
}

/// A place in the folder that the program runs in.
fn place(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name)
}

/// What is there beside a place, from runs that did not end.
fn left_beside(name: &str) -> Vec<String> {
    let folder = fs::read_dir(env!("CARGO_TARGET_TMPDIR")).expect("a folder");
    let names = folder.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned());
    names.filter(|other| other.starts_with(&format!("{name}."))).collect()
}

/// Removes what an earlier run of these tests, or one that was stopped, left at a place.
fn clear(name: &str) {
    let _ = fs::remove_file(place(name));
    left_beside(name).iter().for_each(|other| fs::remove_file(place(other)).expect("removed"));
}

fn child(program: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new(program);
    command.args(arguments).current_dir(env!("CARGO_TARGET_TMPDIR"));
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Each is told while standard input is open and empty: a program that asked for a text would wait
/// for ever.
#[test]
fn what_can_be_known_is_refused_before_the_first_text() {
    let (bert, splade) = (fixture("bert-tiny"), fixture("splade-bert"));
    clear("early.npy");
    fs::write(place("bad-third.jsonl"), "\"a\"\n\n{\"text\": 5}\n\"b\"\n").expect("written");
    let cases: [(&[&str], &str); 12] = [
        (&["encode", "--model", &bert, "--output", "no/such/x.jsonl"], "no/such/x.jsonl: "),
        (&["encode", "--model", &bert, "--output", "."], ".: it is a folder [io]"),
        (&["encode", "--model", &splade, "--output", "early.npy"], "which this model gives none of [invalid_option]"),
        (&["encode", "--model", &bert, "--top-k", "0"], "--top-k: it must be at least 1 [invalid_option]"),
        (&["encode", "--model", &bert, "--top-k", "3"], "--top-k: the model gives no sparse vectors"),
        (&["encode", "--model", &splade, "--dimensions", "7"], "--dimensions: the model gives no dense vectors"),
        (&["encode", "--model", &splade, "--normalize", "true"], "--normalize: the model gives no dense vectors"),
        (&["encode", "--model", &bert, "--field", "body"], "--field: lines have no fields"),
        (&["encode", "--model", &bert, "--input", "bad-third.jsonl"], "bad-third.jsonl:3: field \"text\" is 5"),
        (&["rerank", "--model", &bert, "--query", "a", "--output", "no/such/x.jsonl"], "no/such/x.jsonl: "),
        (&["rerank", "--model", &bert, "--query", "a"], "[missing_tensor]"),
        (
            &["distill", "--model", &bert, "--output", "none", "--weighting", "zipf", "--sif", "1"],
            "--sif: it is the coefficient",
        ),
    ];
    for (arguments, expected) in cases {
        let mut child = child(env!("CARGO_BIN_EXE_wick"), arguments).spawn().expect("the program starts");
        let held = child.stdin.take();
        let status = child.wait().expect("it ends");
        let mut message = String::new();
        child.stderr.take().expect("a pipe").read_to_string(&mut message).expect("UTF-8");
        assert!(status.code() == Some(1) && message.contains(expected), "{arguments:?}: {status}, {message}");
        drop(held);
    }
    assert_eq!(left_beside("early.npy"), [] as [String; 0]);
    assert!(!place("early.npy").exists());
    assert_eq!(wick(&["encode", "--no-such-option"], "").status.code(), Some(2));
}

#[test]
fn input_is_read_as_it_is_written_on_any_system() {
    let model = fixture("bert-tiny");
    let rows = |format: &str, input: &str| {
        let output = wick(&["encode", "--model", &model, "--input-format", format], input);
        assert!(output.status.success(), "{input:?}: {}", String::from_utf8_lossy(&output.stderr));
        jsonl(&output.stdout)
    };
    let expected = rows("lines", "is\nthe weather");
    assert_eq!(expected.len(), 2);
    for input in ["is\nthe weather\n", "is\r\nthe weather\r\n", "\u{feff}is\nthe weather"] {
        assert_eq!(rows("lines", input), expected, "{input:?}");
    }
    // A line is a row, also an empty one.
    assert_eq!(rows("lines", "is\n\nthe weather\n").len(), 3);
    for input in [
        "\u{feff}{\"text\":\"is\"}\n\"the weather\"",
        "\u{feff}\"is\"\r\n\r\n{\"other\": [[[]]], \"text\": \"the weather\"}\r\n",
        "\n  \n\"is\"\n\t\n  {\"text\": \"the\\u0020weather\"}  \n\n\n",
    ] {
        assert_eq!(rows("jsonl", input), expected, "{input:?}");
    }
    assert_eq!(rows("jsonl", "\n\u{20}\n").len(), 0);
}

#[test]
fn a_line_that_cannot_be_read_is_named() {
    let model = fixture("bert-tiny");
    let cases: [(&str, &[u8], &str); 10] = [
        ("lines", b"a\nb\n\xe9t\xe9\n", ":3: it is no UTF-8 from byte 1 of the line on"),
        ("jsonl", b"\"a\"\n\"caf\xc3\"", ":2: it is no UTF-8 from byte 5 of the line on"),
        ("jsonl", b"\"a\"\n\n\"b\"\n{\"text\": }", ":4: expected value (column 10)"),
        ("jsonl", b"\"\\ud800\"", ":1: \\ud800 is a lone surrogate"),
        ("jsonl", b"{\"text\": \"a\\\\\\uDFFFb\"}", ":1: field \"text\": \\uDFFF is a lone surrogate"),
        ("jsonl", b"\"\\ud83d\\ude00\"\n\"\\ud83d\\ud83d\\ude00\"", ":2: \\ud83d is a lone surrogate"),
        ("jsonl", b"[1]", ":1: it is neither a string nor an object"),
        ("jsonl", b"{\"body\": \"a\"}", ":1: there is no field \"text\""),
        ("jsonl", b"{\"text\": {\"a\": 1}}", ":1: field \"text\" is {\"a\": 1}, not a string"),
        ("jsonl", b"\"a\" b", ":1: trailing characters (column 5)"),
    ];
    for (format, input, expected) in cases {
        let mut child = child(env!("CARGO_BIN_EXE_wick"), &["encode", "--model", &model, "--input-format", format])
            .spawn()
            .expect("the program starts");
        child.stdin.take().expect("a pipe").write_all(input).expect("it reads");
        let output = child.wait_with_output().expect("it ends");
        let message = String::from_utf8_lossy(&output.stderr);
        assert!(message.contains(&format!("standard input{expected}")), "{message}");
        assert!(output.status.code() == Some(1) && message.contains("[invalid_text]"), "{message}");
    }
}

/// More than a part, so that rows come before the input ends; and a reader who leaves ends the
/// program quietly.
#[test]
fn rows_come_while_texts_are_read_and_stop_when_nobody_reads() {
    let model = fixture("bert-tiny");
    for leaves in [false, true] {
        let mut child =
            child(env!("CARGO_BIN_EXE_wick"), &["encode", "--model", &model]).spawn().expect("the program starts");
        let mut texts = child.stdin.take().expect("a pipe");
        texts.write_all("is\n".repeat(5000).as_bytes()).expect("it reads");
        let mut rows = BufReader::new(child.stdout.take().expect("a pipe"));
        let mut first = String::new();
        rows.read_line(&mut first).expect("a row");
        assert_eq!(jsonl(first.as_bytes())[0].len(), 32);
        if leaves {
            drop(rows);
            drop(texts);
        } else {
            drop(texts);
            assert_eq!(rows.lines().count(), 4999);
        }
        let output = child.wait_with_output().expect("it ends");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    }
}

#[test]
fn npy_counts_its_rows_at_the_end() {
    let model = fixture("bert-tiny");
    for (name, texts, count) in [("none.npy", "", 0), ("some.npy", "is\nthe\nis", 3)] {
        let output = wick(&["encode", "--model", &model, "--output", name], texts);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let bytes = fs::read(place(name)).expect("written");
        let length = 10 + usize::from(u16::from_le_bytes([bytes[8], bytes[9]]));
        let header = String::from_utf8_lossy(&bytes[10..length]);
        assert!(header.contains(&format!("'shape': ({count}, 32), ")), "{header}");
        assert_eq!(bytes.len(), length + count * 32 * 4);
        assert_eq!(left_beside(name), [] as [String; 0]);
    }
}

#[cfg(target_os = "linux")]
#[test]
fn what_cannot_be_written_fails_and_what_was_there_stays() {
    let model = fixture("bert-tiny");
    let texts = "is\n".repeat(100);
    ["kept.jsonl", "kept.npy"].into_iter().for_each(clear);
    fs::write(place("kept.jsonl"), "before").expect("written");
    // A limit on the size of files stands for a full disk.
    let limited = "ulimit -f 1; trap '' XFSZ; exec \"$0\" \"$@\"";
    let closed = "exec \"$0\" \"$@\" >&-";
    let full = "exec \"$0\" \"$@\" >/dev/full";
    let run = |script: &str, output: Option<&str>| {
        let program = ["-c", script, env!("CARGO_BIN_EXE_wick"), "encode", "--model", &model];
        let arguments: Vec<&str> =
            program.into_iter().chain(output.iter().flat_map(|&path| ["--output", path])).collect();
        let mut child = child("sh", &arguments).spawn().expect("a shell");
        let _ = child.stdin.take().expect("a pipe").write_all(texts.as_bytes());
        let output = child.wait_with_output().expect("it ends");
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    for (script, output, place) in [
        (limited, Some("kept.jsonl"), "kept.jsonl"),
        (limited, Some("kept.npy"), "kept.npy"),
        (full, None, "standard output"),
        (closed, None, "standard output"),
        ("exec \"$0\" \"$@\"", Some("/dev/full"), "/dev/full"),
    ] {
        let (code, message) = run(script, output);
        assert!(code == Some(1) && message.starts_with(&format!("wick: {place}: ")), "{script}: {code:?}, {message}");
        assert!(message.ends_with("[io]\n"), "{message}");
    }
    assert_eq!(fs::read_to_string(place("kept.jsonl")).expect("it is there"), "before");
    assert!(!place("kept.npy").exists());
    assert_eq!([left_beside("kept.jsonl"), left_beside("kept.npy")].concat(), [] as [String; 0]);
    for output in [Some("/dev/null"), None] {
        assert_eq!(run("exec \"$0\" \"$@\" >/dev/null", output), (Some(0), String::new()));
    }
    // What is replaced keeps its permissions, and a link to it stays one.
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(place("kept.jsonl"), fs::Permissions::from_mode(0o640)).expect("set");
    let link = place("link.jsonl");
    let _ = fs::remove_file(&link);
    std::os::unix::fs::symlink("kept.jsonl", &link).expect("a link");
    assert_eq!(run("exec \"$0\" \"$@\"", Some("link.jsonl")), (Some(0), String::new()));
    assert!(fs::symlink_metadata(&link).expect("it is there").is_symlink());
    assert_eq!(fs::metadata(place("kept.jsonl")).expect("it is there").permissions().mode() & 0o777, 0o640);
    assert_eq!(jsonl(&fs::read(&link).expect("readable")).len(), 100);
}

#[cfg(unix)]
#[test]
fn a_program_that_is_stopped_leaves_what_was_at_the_place() {
    fs::write(place("stopped.jsonl"), "before").expect("written");
    let arguments = ["encode", "--model", &fixture("bert-tiny"), "--output", "stopped.jsonl"];
    let mut child = child(env!("CARGO_BIN_EXE_wick"), &arguments).spawn().expect("the program starts");
    let mut texts = child.stdin.take().expect("a pipe");
    texts.write_all("is\n".repeat(5000).as_bytes()).expect("it reads");
    // The first part is written, and the program waits for the rest of the second.
    let part = place(&format!("stopped.jsonl.{}.part", child.id()));
    while fs::metadata(&part).map_or(0, |found| found.len()) == 0 {
        assert_eq!(child.try_wait().expect("a child"), None, "it ended by itself");
        std::thread::yield_now();
    }
    let sent = Command::new("kill").args(["-INT", &child.id().to_string()]).status().expect("kill");
    assert!(sent.success() && !child.wait().expect("it ends").success());
    assert_eq!(fs::read_to_string(place("stopped.jsonl")).expect("it is there"), "before");
    fs::remove_file(part).expect("it was left, by its name");
}

#[test]
fn rerank_gives_the_librarys_scores() {
    let model = fixture("rerank-bert");
    let (query, documents) = ("the weather", ["is", "the weather is lovely today", "", "sunny outside"]);
    let reranker = block_on(Reranker::load(&Directory::new(&model), &RerankOptions::default(), &())).expect("it loads");
    let expected = block_on(reranker.rerank(query, &documents, None, &())).expect("scores");
    let scores = |more: &[&str]| -> Vec<(usize, f32)> {
        let arguments = [&["rerank", "--model", &model, "--query", query], more].concat();
        let output = wick(&arguments, &documents.join("\n"));
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let text = String::from_utf8(output.stdout).expect("UTF-8");
        let lines = text.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).expect("JSON"));
        let score = |line: serde_json::Value| {
            (line["index"].as_u64().expect("a number") as usize, line["score"].as_f64().expect("a number") as f32)
        };
        lines.map(score).collect()
    };
    let ranked: Vec<(usize, f32)> = expected.iter().map(|ranked| (ranked.index, ranked.score)).collect();
    assert_eq!(scores(&["--top-k", "9"]), ranked);
    assert_eq!(scores(&["--top-k", "2"]), ranked[..2]);
    let mut ordered = ranked;
    ordered.sort_by_key(|&(index, _)| index);
    assert_eq!(scores(&[]), ordered);
    let logits = scores(&["--normalize", "false"]);
    let logistic = |logit: f32| (1.0 / (1.0 + (-f64::from(logit)).exp())) as f32;
    let normalized = scores(&["--normalize", "true"]);
    assert!(logits.iter().zip(&normalized).all(|(logit, score)| (logistic(logit.1) - score.1).abs() < 1e-6));
}
