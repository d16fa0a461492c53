//! `wick serve`, as a program that is asked over HTTP. What its answers look like, `tests/web/serve.test.mjs` checks against published
//! descriptions; here it is what they hold, and what happens when something is wrong.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{Shutdown, SocketAddr, TcpStream},
    process::{Child, ChildStderr, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use crate::common::{Dense as _, encode, minilm, minilm_with, path};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use serde_json::{Value, json};
use wick_embed::{
    Embedder, EncodeOptions, LoadOptions, OutputKind, Provider, RemoteOptions, RerankOptions, Reranker, Role,
    platform::native::{Client, Directory, block_on},
};

const MINILM: &str = "build/models/all-MiniLM-L6-v2";
const RERANKER: &str = "tests/fixtures/rerank-bert";
const SPLADE: &str = "tests/fixtures/splade-bert";
const TINY: &str = "tests/fixtures/bert-tiny";
const TEXTS: [&str; 3] = ["The weather is lovely today.", "It's so sunny outside!", "Zürich 東京"];

/// A server, ended with the test.
struct Wick {
    child: Child,
    address: SocketAddr,
    errors: BufReader<ChildStderr>,
}

fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_wick"));
    // Nobody reads a log here, and a pipe that is full would stop the server.
    command.arg("serve").args(["--port", "0", "--quiet"]).args(arguments).current_dir(env!("CARGO_MANIFEST_DIR"));
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    command
}

impl Wick {
    fn start(arguments: &[&str]) -> Self {
        Self::from(&mut command(arguments))
    }

    fn from(command: &mut Command) -> Self {
        let mut child = command.spawn().expect("the program starts");
        let mut errors = BufReader::new(child.stderr.take().expect("a pipe"));
        let mut line = String::new();
        errors.read_line(&mut line).expect("UTF-8");
        let address = line.trim_end().strip_prefix("wick: listening at http://");
        let address = address.unwrap_or_else(|| panic!("it says {line:?}")).parse().expect("an address");
        Self { child, address, errors }
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).expect("it listens");
        stream.set_read_timeout(Some(Duration::from_secs(120))).expect("a timeout");
        stream
    }

    /// Sends a head and a body as they are, and reads until the server closes.
    fn send(&self, head: &str, body: &[u8]) -> Answer {
        let mut stream = self.connect();
        stream.write_all(head.as_bytes()).expect("written");
        // It may have answered before all was read.
        let _ = stream.write_all(body);
        Answer::read(stream)
    }

    fn request(&self, method: &str, path: &str, headers: &str, body: &[u8]) -> Answer {
        let length = body.len();
        let head = format!(
            "{method} {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-length: {length}\r\n{headers}\r\n"
        );
        self.send(&head, body)
    }

    fn get(&self, path: &str) -> Answer {
        self.request("GET", path, "", b"")
    }

    fn post(&self, path: &str, body: impl AsRef<[u8]>) -> Answer {
        self.request("POST", path, "content-type: application/json\r\n", body.as_ref())
    }

    /// Sends a request and does not wait for its answer.
    fn begin(&self, path: &str, body: &Value) -> TcpStream {
        let (mut stream, body) = (self.connect(), body.to_string());
        let length = body.len();
        let head = format!(
            "POST {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n"
        );
        stream.write_all((head + &body).as_bytes()).expect("written");
        stream
    }

    /// A request's JSON answer, which must be a success.
    fn ask(&self, path: &str, body: &Value) -> Value {
        let answer = self.post(path, body.to_string());
        assert_eq!(answer.status, 200, "{}", answer.text());
        answer.json()
    }

    fn signal(&self, name: &str) {
        let status = Command::new("sh").args(["-c", &format!("kill -{name} {}", self.child.id())]).status();
        assert!(status.expect("a shell").success());
    }

    /// Waits for its end and reads its last words: requests, texts, calls.
    fn ended(mut self) -> [usize; 3] {
        let mut said = String::new();
        self.errors.read_to_string(&mut said).expect("UTF-8");
        assert!(self.child.wait().expect("it ends").success(), "{said}");
        let words = said.trim_end().strip_prefix("wick: stopped; ").unwrap_or_else(|| panic!("it says {said:?}"));
        let numbers: Vec<usize> = words.split(' ').filter_map(|word| word.parse().ok()).collect();
        numbers.try_into().expect("three numbers")
    }

    fn stop(self) -> [usize; 3] {
        self.signal("TERM");
        self.ended()
    }
}

impl Drop for Wick {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

struct Answer {
    status: u16,
    head: String,
    body: Vec<u8>,
}

impl Answer {
    fn read(mut stream: TcpStream) -> Self {
        let mut bytes = Vec::new();
        // The server may close with something unread.
        let _ = stream.read_to_end(&mut bytes);
        let end = bytes.windows(4).position(|window| window == b"\r\n\r\n").unwrap_or_else(|| {
            panic!("no answer but {:?}", String::from_utf8_lossy(&bytes));
        });
        let head = String::from_utf8_lossy(&bytes[..end]).to_lowercase();
        let status = head.split(' ').nth(1).expect("a status").parse().expect("a number");
        Self { status, head, body: bytes[end + 4..].to_vec() }
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    fn json(&self) -> Value {
        assert_eq!(self.header("content-type"), Some("application/json"), "{}", self.head);
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }

    /// Checks an error in OpenAI's form.
    fn is_openai(&self, status: u16, code: Option<&str>, param: Option<&str>, words: &str) {
        assert_eq!(self.status, status, "{}", self.text());
        let error = &self.json()["error"];
        assert_eq!((&error["code"], &error["param"]), (&json!(code), &json!(param)), "{error}");
        assert!(
            error["type"].is_string() && error["message"].as_str().is_some_and(|text| text.contains(words)),
            "{error}"
        );
    }

    /// Checks an error in TEI's form.
    fn is_tei(&self, status: u16, error_type: &str, words: &str) {
        assert_eq!(self.status, status, "{}", self.text());
        let error = self.json();
        assert_eq!(error["error_type"], error_type, "{error}");
        assert!(error["error"].as_str().is_some_and(|text| text.contains(words)), "{error}");
    }
}

fn floats(value: &Value) -> Vec<f32> {
    serde_json::from_value(value.clone()).expect("numbers")
}

fn rows(value: &Value) -> Vec<Vec<f32>> {
    serde_json::from_value(value.clone()).expect("rows of numbers")
}

fn embeddings(answer: &Value) -> Vec<Vec<f32>> {
    let data = answer["data"].as_array().expect("a list").iter().enumerate();
    data.map(|(index, item)| {
        assert_eq!(item["index"], index);
        floats(&item["embedding"])
    })
    .collect()
}

fn vectors(embedder: &Embedder, texts: &[&str], options: EncodeOptions) -> Vec<Vec<f32>> {
    let output = block_on(embedder.encode(texts, options, &())).expect("valid texts");
    output.vectors().rows().map(<[f32]>::to_vec).collect()
}

fn local(relative: &str) -> Embedder {
    block_on(Embedder::load(&Directory::new(path(relative)), &LoadOptions::default(), &())).expect("it loads")
}

/// A text that keeps the model busy.
fn long() -> String {
    "word ".repeat(250)
}

#[test]
fn openai_gives_the_librarys_own_vectors() {
    let wick = Wick::start(&["--model", MINILM]);
    let library = minilm();
    let expected = vectors(&library, &TEXTS, EncodeOptions::default());
    let answer = wick.ask("/v1/embeddings", &json!({"input": TEXTS, "model": "all-MiniLM-L6-v2", "user": "me"}));
    assert_eq!(embeddings(&answer), expected);
    assert_eq!((&answer["object"], &answer["model"]), (&json!("list"), &json!("all-MiniLM-L6-v2")));
    let tokens = encode(&library, &TEXTS).usage.tokens;
    assert_eq!(answer["usage"], json!({"prompt_tokens": tokens, "total_tokens": tokens}));

    let one = wick.ask("/v1/embeddings", &json!({"input": TEXTS[2], "encoding_format": "float"}));
    assert_eq!(embeddings(&one), expected[2..]);

    let answer = wick.ask("/v1/embeddings", &json!({"input": TEXTS, "encoding_format": "base64"}));
    for (item, expected) in answer["data"].as_array().expect("a list").iter().zip(&expected) {
        let bytes = BASE64_STANDARD.decode(item["embedding"].as_str().expect("a string")).expect("base64");
        let values: Vec<f32> = bytes.as_chunks().0.iter().map(|value| f32::from_le_bytes(*value)).collect();
        assert_eq!(&values, expected);
    }

    let answer = wick.ask("/v1/embeddings", &json!({"input": TEXTS, "dimensions": 100}));
    let cut = minilm_with(&LoadOptions { dimensions: Some(100), ..LoadOptions::default() });
    let expected = vectors(&cut, &TEXTS, EncodeOptions::default());
    assert_eq!(embeddings(&answer), expected);
    let length: f32 = expected[0].iter().map(|value| value * value).sum();
    assert!((length - 1.0).abs() < 1e-5, "it is normalised again: {length}");
}

#[test]
fn tei_gives_them_too() {
    let wick = Wick::start(&["--model", MINILM]);
    let expected = vectors(&minilm(), &TEXTS, EncodeOptions::default());
    assert_eq!(rows(&wick.ask("/embed", &json!({"inputs": TEXTS}))), expected);
    let null = json!({"inputs": TEXTS[0], "truncate": null, "prompt_name": null, "dimensions": null, "truncation_direction": "right"});
    assert_eq!(rows(&wick.ask("/embed", &null)), expected[..1]);
    let raw = minilm_with(&LoadOptions { normalize: Some(false), dimensions: Some(9), ..LoadOptions::default() });
    let raw = vectors(&raw, &TEXTS, EncodeOptions::default());
    assert!(raw[0].iter().zip(&expected[0]).all(|(raw, unit)| raw != unit));
    assert_eq!(rows(&wick.ask("/embed", &json!({"inputs": TEXTS, "normalize": false, "dimensions": 9}))), raw);
}

/// By each of its APIs: what was encoded there is what is encoded here.
#[test]
fn wicks_own_client_gets_what_the_library_gives() {
    let wick = Wick::start(&["--model", MINILM, "--reranker", RERANKER]);
    let splade = Wick::start(&["--model", SPLADE]);
    let options = |provider, server: &Wick, place: &str| {
        let mut options =
            RemoteOptions::new(provider, if provider == Provider::OpenAi { "all-MiniLM-L6-v2" } else { "" });
        options.base_url = Some(format!("http://{}{place}", server.address));
        options
    };
    let expected = encode(&minilm(), &TEXTS);
    for options in [options(Provider::OpenAi, &wick, "/v1"), options(Provider::Tei, &wick, "")] {
        let remote = Embedder::remote(Client::new(), options).expect("valid options");
        let output = block_on(remote.encode(&TEXTS, Role::Plain, &())).expect("an answer");
        assert_eq!(output.vectors().values, expected.vectors().values);
        assert_eq!(output.usage.tokens, expected.usage.tokens);
    }
    let mut sparse = options(Provider::Tei, &splade, "");
    sparse.outputs = Some(vec![OutputKind::Sparse]);
    let remote = Embedder::remote(Client::new(), sparse).expect("valid options");
    let output = block_on(remote.encode(&TEXTS, Role::Plain, &())).expect("an answer");
    assert_eq!(output.sparse, encode(&local(SPLADE), &TEXTS).sparse);

    let files = Directory::new(path(RERANKER));
    let normalized = RerankOptions { normalize: Some(true), ..RerankOptions::default() };
    let reranker = block_on(Reranker::load(&files, &normalized, &())).expect("valid files");
    let remote = Reranker::remote(Client::new(), options(Provider::Tei, &wick, "")).expect("valid options");
    let ranked = block_on(remote.rerank("sun", &TEXTS, Some(2), &())).expect("an answer");
    assert_eq!(ranked, block_on(reranker.rerank("sun", &TEXTS, Some(2), &())).expect("scores"));
}

#[test]
fn prompts_are_put_before_texts_by_their_name() {
    let model = "tests/fixtures/t5-gated";
    let wick = Wick::start(&["--model", model]);
    let options =
        EncodeOptions { prompt: Some("query: ".to_owned()), normalize: Some(true), ..EncodeOptions::default() };
    let expected = vectors(&local(model), &["hi"], options);
    let answer = rows(&wick.ask("/embed", &json!({"inputs": "hi", "prompt_name": "query"})));
    assert_eq!(answer, expected);
    assert_ne!(answer, rows(&wick.ask("/embed", &json!({"inputs": "hi"}))));
    wick.post("/embed", r#"{"inputs": "hi", "prompt_name": "song"}"#).is_tei(422, "Validation", "no prompt \"song\"");
}

#[test]
fn sparse_vectors_are_the_librarys_own() {
    let model = "tests/fixtures/splade-bert";
    let wick = Wick::start(&["--model", model]);
    let output = encode(&local(model), &TEXTS);
    let expected: Vec<Value> = output
        .sparse
        .expect("sparse vectors")
        .iter()
        .map(|row| row.iter().map(|(index, value)| json!({"index": index, "value": value})).collect())
        .collect();
    assert!(expected.iter().all(|row| row.as_array().is_some_and(|row| !row.is_empty())));
    // Numbers of f32, as both sides write them.
    let read = |value: &Value| -> Vec<(u64, f32)> {
        value
            .as_array()
            .expect("a row")
            .iter()
            .map(|entry| (entry["index"].as_u64().expect("an index"), floats(&json!([entry["value"]]))[0]))
            .collect()
    };
    let answer = wick.ask("/embed_sparse", &json!({"inputs": TEXTS}));
    let answer = answer.as_array().expect("rows");
    assert_eq!(answer.iter().map(read).collect::<Vec<_>>(), expected.iter().map(read).collect::<Vec<_>>());
    assert_eq!(wick.get("/info").json()["model_type"], json!({"embedding": {"pooling": "splade"}}));
    // What it does not give.
    wick.post("/embed", r#"{"inputs": "a"}"#).is_tei(424, "Backend", "no model that gives dense vectors");
    wick.post("/v1/embeddings", r#"{"input": "a"}"#).is_openai(
        404,
        Some("model_not_found"),
        Some("model"),
        "no dense vectors",
    );
    wick.post("/rerank", r#"{"query": "a", "texts": ["b"]}"#).is_tei(424, "Backend", "no reranker");
}

#[test]
fn one_model_gives_dense_and_sparse_vectors_at_once() {
    let model = "tests/fixtures/bge-m3";
    let wick = Wick::start(&["--model", model]);
    let library = local(model);
    let options =
        EncodeOptions { outputs: Some(vec![OutputKind::Dense]), normalize: Some(true), ..EncodeOptions::default() };
    let expected = vectors(&library, &TEXTS, options);
    let sparse: Vec<usize> =
        encode(&library, &TEXTS).sparse.expect("sparse").iter().map(wick_embed::SparseVector::len).collect();
    thread::scope(|scope| {
        for index in 0..24 {
            let (wick, expected, sparse) = (&wick, &expected, &sparse);
            scope.spawn(move || {
                let text = TEXTS[index % 3];
                if index % 2 == 0 {
                    assert_eq!(rows(&wick.ask("/embed", &json!({"inputs": text})))[0], expected[index % 3]);
                } else {
                    let answer = wick.ask("/embed_sparse", &json!({"inputs": text}));
                    assert_eq!(answer[0].as_array().map(Vec::len), Some(sparse[index % 3]));
                }
            });
        }
    });
    assert_eq!(wick.stop()[..2], [24, 24]);
}

#[test]
fn reranking_is_the_librarys_own() {
    let model = "tests/fixtures/rerank-bert";
    let wick = Wick::start(&["--reranker", model]);
    let (query, documents) = ("What is a panda?", ["hi", "a bear is an animal", "hi", "Alan Turing"]);
    for normalize in [false, true] {
        let options = RerankOptions { normalize: Some(normalize), ..RerankOptions::default() };
        let library = block_on(Reranker::load(&Directory::new(path(model)), &options, &())).expect("it loads");
        let expected = block_on(library.rerank(query, &documents, None, &())).expect("valid texts");
        let body = json!({"query": query, "texts": documents, "raw_scores": !normalize, "return_text": normalize});
        let answer = wick.ask("/rerank", &body);
        let answer = answer.as_array().expect("ranks");
        assert_eq!(answer.len(), expected.len());
        for (rank, expected) in answer.iter().zip(&expected) {
            assert_eq!((&rank["index"], floats(&json!([rank["score"]]))[0]), (&json!(expected.index), expected.score));
            let text = normalize.then(|| documents[expected.index]);
            assert_eq!(rank.get("text"), text.map(Value::from).as_ref());
        }
    }
    let info = wick.get("/info").json();
    assert_eq!(
        (&info["model_id"], &info["model_type"]["reranker"]["id2label"]),
        (&json!("rerank-bert"), &json!({"0": "LABEL_0"}))
    );
    assert_eq!(wick.get("/v1/models").json()["data"][0]["id"], "rerank-bert");
    wick.post("/rerank", r#"{"query": "a", "texts": []}"#).is_tei(400, "Empty", "no text");
    wick.post("/rerank", r#"{"query": "", "texts": ["a"]}"#).is_tei(400, "Empty", "query");
    wick.post("/rerank", r#"{"query": "a", "texts": [1]}"#).is_tei(422, "Validation", "expected a string");
    wick.post("/rerank", r#"{"texts": ["a"]}"#).is_tei(422, "Validation", "query");
    let body = json!({"query": "a", "texts": ["b", long()]});
    wick.post("/rerank", body.to_string()).is_tei(413, "Validation", "text 1");
    wick.ask("/rerank", &json!({"query": "a", "texts": ["b", long()], "truncate": true}));
    wick.post("/embed", r#"{"inputs": "a"}"#).is_tei(424, "Backend", "dense");
    wick.post("/v1/embeddings", r#"{"input": "a"}"#).is_openai(404, Some("model_not_found"), None, "no embedder");
    wick.post("/embed_sparse", r#"{"inputs": "a"}"#).is_tei(424, "Backend", "sparse");
}

#[test]
fn it_says_what_it_serves() {
    let arguments = [
        "--model",
        TINY,
        "--reranker",
        "tests/fixtures/rerank-bert",
        "--served-name",
        "mine",
        "--served-name",
        "text-embedding-3-small",
    ];
    let wick = Wick::start(
        &[&arguments[..], &["--dtype", "f32", "--max-texts", "7", "--max-requests", "9", "--auto-truncate"]].concat(),
    );
    let models = wick.get("/v1/models").json();
    let ids: Vec<&Value> = models["data"].as_array().expect("a list").iter().map(|model| &model["id"]).collect();
    assert_eq!(ids, ["mine", "text-embedding-3-small", "rerank-bert"]);
    assert_eq!(wick.get("/v1/models/mine").json()["object"], "model");
    wick.get("/v1/models/yours").is_openai(404, Some("model_not_found"), Some("model"), "yours");
    let answer = wick.ask("/v1/embeddings", &json!({"input": "a", "model": "text-embedding-3-small"}));
    assert_eq!(answer["model"], "mine");
    wick.post("/v1/embeddings", r#"{"input": "a", "model": "bert-tiny"}"#).is_openai(
        404,
        Some("model_not_found"),
        Some("model"),
        "mine",
    );
    let info = wick.get("/info").json();
    let limits =
        ["max_client_batch_size", "max_concurrent_requests", "auto_truncate", "model_dtype"].map(|name| &info[name]);
    assert_eq!(limits, [&json!(7), &json!(9), &json!(true), &json!("f32")]);
    let health = wick.get("/health");
    assert_eq!((health.status, health.body.len()), (200, 0));
    let metrics = wick.get("/metrics").text();
    for line in ["wick_model_texts_total{model=\"embedder\"} 1", "wick_responses_total{status=\"404\"} 2"] {
        assert!(metrics.lines().any(|other| other == line), "{metrics}");
    }
}

#[test]
fn what_is_wrong_with_a_request_is_said_in_the_apis_own_form() {
    let wick = Wick::start(&["--model", TINY, "--max-texts", "3"]);
    let dimensions = local(TINY).dimensions();
    let too_wide = dimensions + 1;
    let long = long();
    // What is wrong; how OpenAI's API says it, and TEI's: status, code or type, and words of the message.
    type Case<'a> = (String, (u16, Option<&'a str>, Option<&'a str>), (u16, &'a str), &'a str);
    let cases: [Case; 15] = [
        ("".into(), (400, None, None), (422, "Validation"), "the body: EOF"),
        ("{".into(), (400, None, None), (422, "Validation"), "the body: EOF"),
        ("[]".into(), (400, None, None), (422, "Validation"), "the body"),
        ("{}".into(), (400, None, None), (422, "Validation"), "missing field"),
        (r#"{"INPUT": null}"#.into(), (400, None, None), (422, "Validation"), "a string or an array of strings"),
        (r#"{"INPUT": {"a": 1}}"#.into(), (400, None, None), (422, "Validation"), "a string or an array of strings"),
        (r#"{"INPUT": [1, 2]}"#.into(), (400, None, None), (422, "Validation"), "token ids"),
        (r#"{"INPUT": [[1], [2]]}"#.into(), (400, None, None), (422, "Validation"), "token ids"),
        (r#"{"INPUT": "\ud800"}"#.into(), (400, None, None), (422, "Validation"), "hex escape"),
        (format!("{{\"INPUT\": {}", "[".repeat(100_000)), (400, None, None), (422, "Validation"), "token ids"),
        (format!("{{\"x\": {}", "[".repeat(100_000)), (400, None, None), (422, "Validation"), "the body"),
        (r#"{"INPUT": []}"#.into(), (400, None, Some("INPUT")), (400, "Empty"), "no text"),
        (r#"{"INPUT": ["a", ""]}"#.into(), (400, None, Some("INPUT")), (400, "Empty"), "text 1 is empty"),
        (r#"{"INPUT": ["a", "b", "c", "d"]}"#.into(), (400, None, Some("INPUT")), (413, "Validation"), "4 texts"),
        (
            json!({"INPUT": ["a", long]}).to_string(),
            (400, Some("context_length_exceeded"), Some("input")),
            (413, "Validation"),
            "text 1 has more than",
        ),
    ];
    for (body, (status, code, param), (tei_status, error_type), words) in cases {
        let param = param.map(|_| "input");
        wick.post("/v1/embeddings", body.replace("INPUT", "input")).is_openai(status, code, param, words);
        for path in
            ["/embed", "/embed_sparse"].into_iter().take(if tei_status == 400 || tei_status == 413 { 1 } else { 2 })
        {
            wick.post(path, body.replace("INPUT", "inputs")).is_tei(tei_status, error_type, words);
        }
    }
    for (value, code) in [
        (json!(0), Some("invalid_option")),
        (json!(too_wide), Some("invalid_option")),
        (json!(-1), None),
        (json!("3"), None),
    ] {
        let param = code.map(|_| "dimensions");
        wick.post("/v1/embeddings", json!({"input": "a", "dimensions": value}).to_string())
            .is_openai(400, code, param, "");
        wick.post("/embed", json!({"inputs": "a", "dimensions": value}).to_string()).is_tei(422, "Validation", "");
    }
    wick.post("/v1/embeddings", r#"{"input": "a", "encoding_format": "int8"}"#).is_openai(400, None, None, "int8");
    wick.post("/embed", r#"{"inputs": "a", "truncation_direction": "Left"}"#).is_tei(422, "Validation", "end only");
    wick.post("/v1/embeddings", [b'"', 0xff, b'"']).is_openai(400, None, None, "the body");

    wick.get("/v1/nothing").is_openai(404, Some("unknown_url"), None, "no such path");
    wick.get("/nothing").is_tei(404, "Validation", "no such path");
    wick.get("/v1/embeddings").is_openai(405, None, None, "another method");
    wick.get("/embed").is_tei(405, "Validation", "another method");
    for headers in ["", "content-type: text/plain\r\n", "content-type: application/jsonp\r\n"] {
        wick.request("POST", "/v1/embeddings", headers, b"{}").is_openai(415, None, None, "application/json");
        wick.request("POST", "/embed", headers, b"{}").is_tei(415, "Validation", "application/json");
    }
    let headers = "content-type: Application/JSON; charset=utf-8\r\n";
    assert_eq!(wick.request("POST", "/embed", headers, br#"{"inputs": "a"}"#).status, 200);
    // Whatever was sent, it is as it was, and none of it reached the model but the last one.
    assert_eq!(wick.stop(), [1, 1, 1]);
}

#[test]
fn texts_that_are_too_long_are_cut_where_that_is_asked_for() {
    let text = long();
    let expected = vectors(&local(TINY), &[&text], EncodeOptions { normalize: Some(true), ..EncodeOptions::default() });
    let wick = Wick::start(&["--model", TINY]);
    assert_eq!(rows(&wick.ask("/embed", &json!({"inputs": text, "truncate": true}))), expected);
    wick.post("/embed", json!({"inputs": text, "truncate": false}).to_string()).is_tei(
        413,
        "Validation",
        "not to be cut",
    );
    let wick = Wick::start(&["--model", TINY, "--auto-truncate"]);
    assert_eq!(rows(&wick.ask("/embed", &json!({"inputs": text}))), expected);
    wick.ask("/v1/embeddings", &json!({"input": text}));
    wick.post("/embed", json!({"inputs": text, "truncate": false}).to_string()).is_tei(
        413,
        "Validation",
        "not to be cut",
    );
}

#[test]
fn a_body_that_is_too_large_is_refused_and_the_client_sees_why() {
    let wick = Wick::start(&["--model", TINY, "--max-body-bytes", "100000"]);
    let fits = json!({"inputs": "a", "x": "y".repeat(90_000)}).to_string();
    assert_eq!(wick.post("/embed", &fits).status, 200);
    for size in [110_000, 390_000] {
        let body = json!({"inputs": "a", "input": "a", "x": "y".repeat(size)}).to_string();
        wick.post("/embed", &body).is_tei(413, "Validation", "100000 bytes");
        wick.post("/v1/embeddings", &body).is_openai(413, Some("request_too_large"), None, "100000 bytes");
        // Without a length it is counted.
        let head = "POST /embed HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n";
        let chunks: Vec<u8> = body
            .as_bytes()
            .chunks(8000)
            .flat_map(|chunk| [format!("{:x}\r\n", chunk.len()).as_bytes(), chunk, b"\r\n"].concat())
            .collect();
        wick.send(head, &[&chunks[..], b"0\r\n\r\n"].concat()).is_tei(413, "Validation", "100000 bytes");
    }
    // Nobody waits for what is said to be endless.
    let head = "POST /embed HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-type: application/json\r\ncontent-length: 99999999999\r\n\r\n";
    wick.send(head, b"").is_tei(413, "Validation", "100000 bytes");
    assert_eq!(wick.stop(), [1, 1, 1]);
}

#[test]
fn what_is_no_http_ends_its_connection_alone() {
    let wick = Wick::start(&["--model", TINY]);
    for bytes in [
        &b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"[..],
        b"GET\r\n\r\n",
        b"POST /embed HTTP/1.1\r\ncontent-length: -1\r\n\r\n",
        b"\r\n\r\n\0",
    ] {
        let mut stream = wick.connect();
        stream.write_all(bytes).expect("written");
        stream.shutdown(Shutdown::Write).expect("closed");
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        let answer = String::from_utf8_lossy(&answer);
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 400"), "{answer}");
    }
    wick.ask("/embed", &json!({"inputs": "a"}));
}

#[test]
fn a_key_is_asked_for_where_there_is_one() {
    let wick =
        Wick::from(command(&["--model", TINY, "--api-key-env", "WICK_TEST_KEY"]).env("WICK_TEST_KEY", "geheim-7"));
    let body = br#"{"inputs": "a", "input": "a"}"#;
    let post =
        |path, headers: &str| wick.request("POST", path, &format!("content-type: application/json\r\n{headers}"), body);
    for headers in [
        "",
        "authorization: Bearer geheim-8\r\n",
        "authorization: Bearer\r\n",
        "authorization: Basic geheim-7\r\n",
        "api-key: geheim-7\r\n",
    ] {
        post("/v1/embeddings", headers).is_openai(401, Some("invalid_api_key"), None, "key");
        let answer = post("/embed", headers);
        answer.is_tei(401, "Validation", "key");
        assert_eq!(answer.header("www-authenticate"), Some("bearer"));
        assert!(!answer.text().contains("geheim"));
    }
    for path in ["/info", "/v1/models", "/nothing"] {
        assert_eq!(wick.get(path).status, 401, "{path}");
    }
    for path in ["/embed", "/v1/embeddings"] {
        assert_eq!(post(path, "authorization: Bearer geheim-7\r\n").status, 200);
    }
    assert_eq!(wick.get("/health").status, 200);
    assert_eq!(wick.stop(), [2, 2, 2]);
}

#[test]
fn a_line_for_each_request_has_neither_texts_nor_keys() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_wick"));
    command.args(["serve", "--port", "0", "--model", TINY, "--api-key-env", "WICK_TEST_KEY"]);
    command.current_dir(env!("CARGO_MANIFEST_DIR")).env("WICK_TEST_KEY", "geheim-7");
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut wick = Wick::from(&mut command);
    let headers = "content-type: application/json\r\nauthorization: Bearer geheim-7\r\n";
    let body = json!({"input": ["verborgen", "verborgen a"]}).to_string();
    assert_eq!(wick.request("POST", "/v1/embeddings?user=verborgen", headers, body.as_bytes()).status, 200);
    assert_eq!(wick.request("POST", "/embed", headers, br#"{"inputs": "verborgen"}"#).status, 200);
    assert_eq!(wick.post("/embed", r#"{"inputs": "verborgen"}"#).status, 401);
    let mut lines = Vec::new();
    for _ in 0..3 {
        let mut line = String::new();
        wick.errors.read_line(&mut line).expect("a line");
        lines.push(line);
    }
    for (line, expected) in lines.iter().zip([
        ["method=POST path=\"/v1/embeddings\" status=200 ms=", " texts=2 tokens="],
        ["method=POST path=\"/embed\" status=200 ms=", " texts=1 tokens="],
        ["method=POST path=\"/embed\" status=401 ms=", " texts=0 tokens=0"],
    ]) {
        assert!(expected.iter().all(|part| line.contains(part)), "{line}");
        assert!(!line.contains("verborgen") && !line.contains("geheim"), "{line}");
    }
    assert_eq!(wick.stop(), [2, 3, 2]);
}

#[test]
fn pages_may_ask_from_origins_that_are_named() {
    let preflight = |wick: &Wick, origin: &str| {
        let headers = format!(
            "origin: {origin}\r\naccess-control-request-method: POST\r\naccess-control-request-private-network: true\r\naccess-control-request-headers: authorization,content-type,x-stainless-lang\r\n"
        );
        wick.request("OPTIONS", "/v1/embeddings", &headers, b"")
    };
    let allowed = |answer: &Answer| answer.header("access-control-allow-origin").map(str::to_owned);
    let origins = ["--cors-allow-origin", "http://localhost:5173", "--cors-allow-origin", "https://example.org"];
    let wick = Wick::from(
        command(&["--model", TINY, "--api-key-env", "WICK_TEST_KEY"]).args(origins).env("WICK_TEST_KEY", "k"),
    );
    for origin in ["http://localhost:5173", "https://example.org"] {
        let answer = preflight(&wick, origin);
        assert_eq!((answer.status, allowed(&answer).as_deref()), (200, Some(origin)), "{}", answer.head);
        assert_eq!(answer.header("access-control-allow-headers"), Some("authorization,content-type,x-stainless-lang"));
        assert_eq!(answer.header("access-control-allow-methods"), Some("get,post"));
        assert_eq!(answer.header("access-control-allow-private-network"), Some("true"));
        // An error, too, can be read.
        let answer = wick.request("GET", "/v1/models", &format!("origin: {origin}\r\n"), b"");
        assert_eq!((answer.status, allowed(&answer).as_deref()), (401, Some(origin)));
        assert_eq!(answer.header("access-control-expose-headers"), Some("retry-after,x-compute-tokens"));
        assert!(answer.head.contains("vary: origin"), "{}", answer.head);
    }
    for origin in ["https://example.com", "http://localhost:5174", "null"] {
        assert_eq!(allowed(&preflight(&wick, origin)), None, "{origin}");
    }
    let wick = Wick::start(&["--model", TINY, "--cors-allow-origin", "*"]);
    assert_eq!(allowed(&preflight(&wick, "https://any.example")).as_deref(), Some("*"));
    let wick = Wick::start(&["--model", TINY]);
    let answer = preflight(&wick, "https://example.org");
    assert_eq!((answer.status, allowed(&answer)), (405, None));
}

#[test]
fn many_clients_share_calls_and_get_the_vectors_of_a_text_alone() {
    let wick = Wick::start(&["--model", MINILM]);
    let library = minilm();
    let texts: Vec<String> =
        (0..160).map(|index| format!("{} {index}", "a few words more ".repeat(index % 13))).collect();
    let expected: Vec<Vec<f32>> =
        texts.iter().map(|text| vectors(&library, &[text], EncodeOptions::default()).remove(0)).collect();
    thread::scope(|scope| {
        for (texts, expected) in texts.chunks(5).zip(expected.chunks(5)) {
            let wick = &wick;
            scope.spawn(move || {
                for (text, expected) in texts.iter().zip(expected) {
                    assert_eq!(&embeddings(&wick.ask("/v1/embeddings", &json!({"input": text})))[0], expected);
                }
            });
        }
    });
    let [requests, texts, calls] = wick.stop();
    assert_eq!((requests, texts), (160, 160));
    assert!(calls < 80, "{calls} calls");
}

#[test]
fn a_large_request_does_not_keep_a_small_one_waiting() {
    let wick = Wick::start(&["--model", MINILM]);
    let start = Instant::now();
    let large = wick.begin("/v1/embeddings", &json!({"input": vec![long(); 100]}));
    thread::sleep(Duration::from_millis(100));
    wick.ask("/v1/embeddings", &json!({"input": "a"}));
    let small = start.elapsed();
    assert_eq!(Answer::read(large).status, 200);
    let whole = start.elapsed();
    assert!(small * 2 < whole, "{small:?} of {whole:?}");
}

#[test]
fn what_does_not_fit_is_refused_at_once() {
    let wick = Wick::start(&["--model", MINILM, "--max-queued-texts", "100", "--max-requests", "2"]);
    let large = wick.begin("/embed", &json!({"inputs": vec![long(); 95]}));
    thread::sleep(Duration::from_millis(100));
    let six = vec!["a"; 6];
    let answer = wick.post("/embed", json!({"inputs": six}).to_string());
    answer.is_tei(429, "Overloaded", "too many texts");
    assert_eq!(answer.header("retry-after"), Some("1"));
    let answer = wick.post("/v1/embeddings", json!({"input": six}).to_string());
    answer.is_openai(429, Some("rate_limit_exceeded"), None, "too many texts");
    assert_eq!(answer.header("retry-after"), Some("1"));
    let fits = wick.begin("/embed", &json!({"inputs": vec![long(); 5]}));
    thread::sleep(Duration::from_millis(50));
    // Now two requests are under way.
    wick.post("/embed", r#"{"inputs": "a"}"#).is_tei(429, "Overloaded", "too many requests");
    assert_eq!(wick.get("/health").status, 200);
    for under_way in [large, fits] {
        assert_eq!(Answer::read(under_way).status, 200);
    }
    wick.ask("/embed", &json!({"inputs": six}));
}

#[test]
fn what_takes_too_long_ends() {
    let wick = Wick::start(&["--model", MINILM, "--timeout", "1"]);
    let start = Instant::now();
    let large = json!({"inputs": vec![long(); 500], "input": vec![long(); 500]});
    wick.post("/embed", large.to_string()).is_tei(408, "Overloaded", "more than 1 s");
    wick.post("/v1/embeddings", large.to_string()).is_openai(408, Some("timeout"), None, "more than 1 s");
    // A body that never ends.
    let head = "POST /embed HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\r\n";
    wick.send(head, b"{").is_tei(408, "Overloaded", "more than 1 s");
    assert!(start.elapsed() < Duration::from_secs(6), "{:?}", start.elapsed());
    // Nothing of it is left to be computed.
    wick.ask("/embed", &json!({"inputs": "a"}));
    let [_, texts, _] = wick.stop();
    assert!(texts < 600, "{texts} texts");
}

#[test]
fn a_client_that_hangs_up_takes_its_work_along() {
    let wick = Wick::start(&["--model", MINILM, "--max-queued-texts", "1000"]);
    let few = json!({"inputs": ["a", "b"]}).to_string();
    let large = wick.begin("/embed", &json!({"inputs": vec![long(); 999]}));
    thread::sleep(Duration::from_millis(200));
    wick.post("/embed", &few).is_tei(429, "Overloaded", "too many texts");
    drop(large);
    // Its places are free again before its texts can have been computed.
    let start = Instant::now();
    while wick.post("/embed", &few).status != 200 {
        assert!(start.elapsed() < Duration::from_secs(30), "it still waits for {:?}", start.elapsed());
        thread::sleep(Duration::from_millis(20));
    }
    let [requests, texts, _] = wick.stop();
    // The large one counts from when all of it is tokenized.
    assert!(requests <= 2 && texts < 900, "{texts} of 1001 texts were computed");
}

#[test]
fn told_to_stop_it_finishes_and_lets_nobody_in() {
    for signal in ["TERM", "INT"] {
        let wick = Wick::start(&["--model", MINILM]);
        let mut idle = wick.connect();
        let under_way = wick.begin("/embed", &json!({"inputs": vec![long(); 60]}));
        thread::sleep(Duration::from_millis(300));
        wick.signal(signal);
        while TcpStream::connect(wick.address).is_ok() {
            thread::sleep(Duration::from_millis(1));
        }
        let answer = Answer::read(under_way);
        assert_eq!((answer.status, answer.json().as_array().map(Vec::len)), (200, Some(60)));
        let mut rest = Vec::new();
        assert!(idle.read_to_end(&mut rest).is_ok() && rest.is_empty(), "a connection without a request is closed");
        let [requests, texts, calls] = wick.ended();
        assert_eq!((requests, texts), (1, 60));
        assert!(calls >= 15, "{calls}");
    }
}

#[test]
fn told_twice_it_does_not_finish() {
    let mut wick = Wick::start(&["--model", MINILM]);
    let _under_way = wick.begin("/embed", &json!({"inputs": vec![long(); 2000]}));
    thread::sleep(Duration::from_millis(300));
    let start = Instant::now();
    wick.signal("TERM");
    thread::sleep(Duration::from_millis(100));
    assert!(wick.child.try_wait().expect("a child").is_none(), "it finishes what is under way");
    wick.signal("TERM");
    wick.ended();
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
}

#[test]
fn what_cannot_be_served_is_said_and_the_program_ends() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = taken.local_addr().expect("an address").port().to_string();
    let cases: [(&[&str], &str); 8] = [
        (&["--model", "no/such/folder"], "[missing_file]"),
        (&["--reranker", TINY], "["),
        (&["--model", TINY, "--cors-allow-origin", "example.org/"], "[invalid_option]"),
        (&["--model", TINY, "--api-key-env", "WICK_TEST_NO_SUCH_KEY"], "is not set [invalid_option]"),
        (&["--model", TINY, "--host", "no such host"], "[io]"),
        (&["--model", TINY, "--port", &port], "[io]"),
        (&["--model", TINY, "--max-texts", "0"], "--max-texts"),
        (&[], "--reranker"),
    ];
    for (arguments, expected) in cases {
        let mut command = Command::new(env!("CARGO_BIN_EXE_wick"));
        let port = if arguments.contains(&"--port") { &[][..] } else { &["--port", "0"] };
        let output = command
            .arg("serve")
            .args(port)
            .args(arguments)
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .output()
            .expect("it runs");
        let message = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && message.contains(expected), "{arguments:?}: {message}");
    }
}

#[test]
fn a_page_cannot_point_its_own_name_here() {
    let body = br#"{"inputs": "a"}"#;
    let post = |wick: &Wick, host: &str| {
        let length = body.len();
        let head = format!(
            "POST /embed HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n"
        );
        wick.send(&head, body)
    };
    let wick = Wick::start(&["--model", TINY, "--allowed-host", "box.example"]);
    for host in ["localhost:80", "127.0.0.1", "[::1]:8080", "box.example"] {
        assert_eq!(post(&wick, host).status, 200, "{host}");
    }
    post(&wick, "evil.example").is_tei(403, "Validation", "--allowed-host");
    // The key keeps pages out, and behind a proxy names are what they are.
    let wick = Wick::from(command(&["--model", TINY, "--api-key-env", "WICK_TEST_KEY"]).env("WICK_TEST_KEY", "k"));
    post(&wick, "evil.example").is_tei(401, "Validation", "key");
}

#[test]
fn odd_forms_that_clients_send_are_taken_or_refused_by_name() {
    let wick = Wick::start(&["--model", TINY]);
    let plain = wick.ask("/v1/embeddings", &json!({"input": "a"}));
    let nulls = json!({"input": "a", "encoding_format": null, "dimensions": null, "user": null, "model": null});
    assert_eq!(wick.ask("/v1/embeddings", &nulls), plain);
    let marked = wick.post("/v1/embeddings", b"\xef\xbb\xbf{\"input\": \"a\"}");
    assert_eq!((marked.status, marked.json()), (200, plain));
    let cut = wick.ask("/v1/embeddings", &json!({"input": "a", "dimensions": 4}));
    assert_eq!(wick.ask("/v1/embeddings", &json!({"input": "a", "dimensions": 4.0})), cut);
    wick.post("/v1/embeddings", r#"{"input": "a", "dimensions": 4.5}"#).is_openai(400, None, None, "whole number");
    wick.post("/v1/embeddings", r#"["a", null, "float", null]"#).is_openai(400, None, None, "not an object");
    wick.post("/embed", r#" ["a", false, true, null, null, null]"#).is_tei(422, "Validation", "not an object");
    assert_eq!(wick.ask("/", &json!({"inputs": "a"})), wick.ask("/embed", &json!({"inputs": "a"})));
    let headers = "content-type: application/json\r\ncontent-encoding: gzip\r\n";
    wick.request("POST", "/embed", headers, b"\x1f\x8b").is_tei(415, "Validation", "content-encoding");
    wick.get("/v1/models/%ff").is_openai(404, Some("model_not_found"), Some("model"), "UTF-8");
}

/// 20 connections that send one byte of a body leave the two places to others.
#[test]
fn who_sends_slowly_takes_no_place() {
    let wick = Wick::start(&["--model", TINY, "--max-requests", "2"]);
    let slow: Vec<TcpStream> = (0..20)
        .map(|_| {
            let mut stream = wick.connect();
            let head = "POST /embed HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: 15\r\n\r\n{";
            stream.write_all(head.as_bytes()).expect("written");
            stream
        })
        .collect();
    wick.ask("/embed", &json!({"inputs": "a"}));
    drop(slow);
}

#[test]
fn a_text_as_large_as_a_body_is_refused_or_cut() {
    let wick = Wick::start(&["--model", TINY]);
    for text in ["a ".repeat(2 << 20), ".".repeat(4 << 20)] {
        wick.post("/embed", json!({"inputs": text}).to_string()).is_tei(413, "Validation", "text 0 has more than");
        let cut = wick.ask("/embed", &json!({"inputs": text, "truncate": true}));
        assert_eq!(cut, wick.ask("/embed", &json!({"inputs": text[..5000], "truncate": true})));
    }
    // A word of more letters than BERT's tokenizer looks at is one unknown token, however long it is.
    let unknown = |letters| wick.ask("/embed", &json!({"inputs": "a".repeat(letters)}));
    assert_eq!(unknown(4 << 20), unknown(200));
    // Of a text that makes hardly any tokens more would have to be read than is.
    let odd = json!({"inputs": "\u{200b}".repeat(1 << 20)}).to_string();
    wick.post("/embed", odd).is_tei(422, "Tokenizer", "tokenized at once");
}
