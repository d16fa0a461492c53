//! Every provider through the public face, against a server that plays all of them: `tests/providers/server.mjs` validates each
//! request against the published descriptions, and its vectors come from the text and from what the request says that it is for.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    num::NonZeroUsize,
    process::{Child, Command, Stdio},
    sync::{
        OnceLock,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;
use wick_embed::{
    Code, Embedder, EncodeOptions, Error, Key, Output, OutputDtype, OutputKind, Provider, ProviderError,
    QuantizedValues, Ranked, RemoteEmbedder, RemoteOptions, Reranker, Result, Role, RolePrompts, Watch,
    platform::{
        Http, HttpRequest, HttpResponse,
        native::{Client, block_on},
    },
    provider::{EncodingFormat, Headers, Truncate},
};

const KEY: &str = "sk-test-0123456789";

// ---- the server --------------------------------------------------------------------------------------------------

/// Starts a program of Node's that prints its address. It ends when its standard input does, at the latest with this process.
fn start(program: &str, variables: &[(&str, &str)]) -> (Child, String) {
    let mut child = Command::new("node")
        .arg(crate::common::path(program))
        .envs(variables.iter().copied())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("node, which `./build.sh setup` brings");
    let mut url = String::new();
    BufReader::new(child.stdout.as_mut().expect("its output")).read_line(&mut url).expect("its address");
    assert!(url.starts_with("http"), "{program} did not start; `./build.sh setup` brings what it needs");
    (child, url.trim().to_owned())
}

fn server() -> &'static str {
    static SERVER: OnceLock<(Child, String)> = OnceLock::new();
    &SERVER.get_or_init(|| start("tests/providers/server.mjs", &[])).1
}

/// What the server saw of one test.
struct Place(String);

impl Place {
    fn new() -> Self {
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        Self(NUMBER.fetch_add(1, Ordering::Relaxed).to_string())
    }

    /// The address of a provider behind faults such as `~status=503*1`.
    fn url(&self, provider: Provider, faults: &str) -> String {
        format!("{}/~id={}{faults}/{}", server(), self.0, provider.as_str())
    }

    fn log(&self) -> Value {
        let host = server().trim_start_matches("http://");
        let mut stream = TcpStream::connect(host).expect("the server");
        write!(stream, "GET /log?id={} HTTP/1.0\r\nhost: {host}\r\n\r\n", self.0).expect("sent");
        let mut text = String::new();
        stream.read_to_string(&mut text).expect("an answer");
        serde_json::from_str(text.split_once("\r\n\r\n").expect("a body").1).expect("JSON")
    }

    fn requests(&self) -> Vec<Value> {
        self.log()["requests"].as_array().expect("requests").clone()
    }

    /// Inputs of each request, in no order.
    fn sizes(&self) -> Vec<usize> {
        let mut sizes: Vec<usize> = self.requests().iter().map(|request| inputs(&request["body"]).len()).collect();
        sizes.sort_unstable();
        sizes
    }
}

/// The texts of a request, under whatever name.
fn inputs(body: &Value) -> Vec<Value> {
    ["input", "texts", "inputs", "documents", "requests"]
        .into_iter()
        .find_map(|name| body[name].as_array())
        .expect("texts")
        .clone()
}

fn options(place: &Place, provider: Provider, model: &str, faults: &str) -> RemoteOptions {
    let mut options = RemoteOptions::new(provider, model);
    options.key = Some(Key::new(KEY).expect("a key"));
    options.base_url = Some(place.url(provider, faults));
    options
}

/// A model of each provider, whose vectors are short where it has a choice.
fn model(provider: Provider) -> &'static str {
    match provider {
        Provider::Tei => "",
        Provider::Gemini => "gemini-embedding-x",
        _ => "some-model",
    }
}

fn encode<T: AsRef<str>>(options: RemoteOptions, texts: &[T], call: impl Into<EncodeOptions>) -> Result<Output> {
    block_on(Embedder::remote(Client::new(), options)?.encode(texts, call, &()))
}

fn rerank<T: AsRef<str>>(options: RemoteOptions, documents: &[T], top_k: Option<usize>) -> Result<Vec<Ranked>> {
    block_on(Reranker::remote(Client::new(), options)?.rerank(QUERY, documents, top_k, &()))
}

fn details(error: &Error) -> ProviderError {
    error.provider().unwrap_or_else(|| panic!("{error:?} has no details")).clone()
}

fn size(count: usize) -> Option<NonZeroUsize> {
    NonZeroUsize::new(count)
}

// ---- the server's values -----------------------------------------------------------------------------------------

fn hash(text: &str) -> u32 {
    text.bytes().fold(0x811c_9dc5, |state, byte| (state ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}

fn scaled(values: &[f64]) -> Vec<f32> {
    let norm = values.iter().map(|value| value * value).sum::<f64>().sqrt();
    values.iter().map(|value| (value / norm) as f32).collect()
}

fn unit(text: &str, dimensions: usize) -> Vec<f32> {
    let mut state = hash(text).max(1);
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        f64::from(state) / 4_294_967_296.0 * 2.0 - 1.0
    };
    let values: Vec<f64> = (0..dimensions).map(|_| next()).collect();
    scaled(&values)
}

/// The vector of a text that is encoded for something, of a model that has `native` dimensions, cut to fewer and normalised.
fn vector(kind: &str, text: &str, native: usize, dimensions: usize) -> Vec<f32> {
    let whole = unit(&format!("{kind}\n{text}"), native);
    if dimensions == native {
        return whole;
    }
    scaled(&whole[..dimensions].iter().map(|&value| f64::from(value)).collect::<Vec<_>>())
}

fn expect(output: &Output, texts: &[impl AsRef<str>], kind: &str, native: usize, dimensions: usize) {
    let vectors = output.dense.as_ref().expect("dense vectors");
    assert_eq!((vectors.rows().len(), vectors.width), (texts.len(), dimensions));
    for (row, text) in vectors.rows().zip(texts) {
        let expected = vector(kind, text.as_ref(), native, dimensions);
        assert!(crate::common::difference(row, &expected) < 1e-6, "{}", text.as_ref());
    }
}

const TEXTS: [&str; 3] = ["The weather is lovely today.", "It's so sunny outside!", "Grüße aus 東京 🚀"];
const QUERY: &str = "how is the weather?";

// ---- what is asked for -------------------------------------------------------------------------------------------

#[test]
fn every_provider_is_told_what_texts_are_for() {
    use Provider::{Cohere, Gemini, Jina, Mistral, Nomic, OpenAi, Tei, Voyage};
    let cases: &[(Provider, &str, usize, [&str; 3])] = &[
        (OpenAi, "text-embedding-3-small", 1536, ["", "", ""]),
        (OpenAi, "text-embedding-ada-002", 1536, ["", "", ""]),
        (Mistral, "mistral-embed", 1024, ["", "", ""]),
        (Cohere, "embed-v4.0", 1536, ["classification", "search_query", "search_document"]),
        (Cohere, "embed-english-v3.0", 1024, ["classification", "search_query", "search_document"]),
        (Voyage, "voyage-4", 1024, ["", "query", "document"]),
        (Jina, "jina-embeddings-v3", 1024, ["classification", "retrieval.query", "retrieval.passage"]),
        (Nomic, "nomic-embed-text-v1.5", 768, ["classification", "search_query", "search_document"]),
        (Gemini, "gemini-embedding-001", 3072, ["CLASSIFICATION", "RETRIEVAL_QUERY", "RETRIEVAL_DOCUMENT"]),
        (Tei, "", 16, ["", "", ""]),
    ];
    let place = Place::new();
    for &(provider, model, native, kinds) in cases {
        let mut options = options(&place, provider, model, "");
        if !kinds[0].is_empty() {
            options.task = Some(kinds[0].to_owned());
        }
        let embedder = Embedder::remote(Client::new(), options).expect("valid options");
        for (role, kind) in [Role::Plain, Role::Query, Role::Document].into_iter().zip(kinds) {
            let output =
                block_on(embedder.encode(&TEXTS, role, &())).unwrap_or_else(|error| panic!("{model}: {error}"));
            expect(&output, &TEXTS, kind, native, native);
            let counted = if provider == Gemini { 0 } else { TEXTS.iter().map(|text| text.len().div_ceil(4)).sum() };
            assert_eq!(output.usage.tokens, counted, "{provider:?}");
        }
        assert_eq!(embedder.dimensions(), Some(native));
    }
    for request in place.requests() {
        assert_eq!(request["status"], 200, "{request}");
        let header = if request["provider"] == "gemini" { "x-goog-api-key" } else { "authorization" };
        assert!(request["headers"][header].as_str().expect("a key").ends_with(KEY));
        assert!(!request["url"].as_str().expect("an address").contains(KEY));
    }
}

#[test]
fn the_second_gemini_reads_in_texts_what_they_are_for() {
    let place = Place::new();
    let mut options = options(&place, Provider::Gemini, "gemini-embedding-2", "");
    options.title = Some("Weather".to_owned());
    let embedder = Embedder::remote(Client::new(), options).expect("valid options");
    let cases = [
        (EncodeOptions::from(Role::Plain), ""),
        (Role::Query.into(), "task: search result | query: "),
        (Role::Document.into(), "title: Weather | text: "),
        (
            EncodeOptions {
                role: Role::Query,
                prompt: Some("task: clustering | query: ".to_owned()),
                ..EncodeOptions::default()
            },
            "task: clustering | query: ",
        ),
    ];
    for (call, prefix) in cases {
        let output = block_on(embedder.encode(&TEXTS, call, &())).expect("valid");
        expect(&output, &TEXTS.map(|text| format!("{prefix}{text}")), "", 3072, 3072);
    }
    // One's own prompts stand in their place.
    let mut prompted = embedder.options().clone();
    prompted.prompts = Some(RolePrompts { query: "query: ".to_owned(), document: String::new() });
    for (role, prefix) in [(Role::Query, "query: "), (Role::Document, "title: Weather | text: ")] {
        let output = encode(prompted.clone(), &TEXTS, role).expect("valid");
        expect(&output, &TEXTS.map(|text| format!("{prefix}{text}")), "", 3072, 3072);
    }
}

#[test]
fn fewer_dimensions_are_asked_for_and_have_unit_length() {
    let cases = [
        (Provider::OpenAi, "text-embedding-3-small", 1536, ""),
        (Provider::Cohere, "embed-v4.0", 1536, "search_document"),
        (Provider::Voyage, "voyage-4", 1024, "document"),
        (Provider::Jina, "jina-embeddings-v3", 1024, "retrieval.passage"),
        (Provider::Mistral, "codestral-embed", 1536, ""),
        (Provider::Nomic, "nomic-embed-text-v1.5", 768, "search_document"),
        // Comes as it was cut, and is normalised here.
        (Provider::Gemini, "gemini-embedding-001", 3072, "RETRIEVAL_DOCUMENT"),
        (Provider::Tei, "", 16, ""),
    ];
    let place = Place::new();
    for (provider, model, native, kind) in cases {
        let dimensions = native / 2;
        let mut options = options(&place, provider, model, "");
        options.dimensions = Some(dimensions);
        // It leaves vectors as they are unless it is asked.
        options.normalize = (provider == Provider::Jina).then_some(true);
        let output = encode(options, &TEXTS, Role::Document).unwrap_or_else(|error| panic!("{model}: {error}"));
        expect(&output, &TEXTS, kind, native, dimensions);
    }
    let mut options = options(&place, Provider::Gemini, "gemini-embedding-001", "");
    (options.dimensions, options.normalize) = (Some(768), Some(false));
    let vectors = encode(options, &TEXTS, Role::Plain).expect("valid").dense.expect("vectors");
    let norm: f32 = vectors.row(0).iter().map(|value| value * value).sum();
    assert!(norm < 0.9, "as Gemini gives it: {norm}");
}

#[test]
fn every_field_reaches_the_provider() {
    let place = Place::new();
    let fields = |json: &str| serde_json::from_str(json).expect("an object");
    let check = |mut options: RemoteOptions, change: &dyn Fn(&mut RemoteOptions), expected: &str| {
        change(&mut options);
        encode(options, &["a"], Role::Document).expect("valid");
        let body = place.requests().last().expect("a request")["body"].clone();
        let expected: Value = serde_json::from_str(expected).expect("JSON");
        assert_eq!(body, expected);
    };
    check(
        options(&place, Provider::OpenAi, "m", ""),
        &|options| (options.dimensions, options.extra) = (Some(8), fields(r#"{"user": "u"}"#)),
        r#"{"model": "m", "input": ["a"], "encoding_format": "base64", "dimensions": 8, "user": "u"}"#,
    );
    check(
        options(&place, Provider::Cohere, "m", ""),
        &|options| {
            (options.dimensions, options.truncate) = (Some(8), Some(Truncate::Start));
            options.extra = fields(r#"{"priority": 7, "max_tokens": 64}"#);
        },
        r#"{"model": "m", "texts": ["a"], "input_type": "search_document", "embedding_types": ["float"], "output_dimension": 8,
            "truncate": "START", "priority": 7, "max_tokens": 64}"#,
    );
    check(
        options(&place, Provider::Voyage, "m", ""),
        &|options| {
            (options.dimensions, options.truncate) = (Some(8), Some(Truncate::None));
            (options.output_dtype, options.encoding_format) =
                (Some(OutputDtype::Ubinary), Some(EncodingFormat::Base64));
        },
        r#"{"model": "m", "input": ["a"], "input_type": "document", "output_dimension": 8, "truncation": false,
            "output_dtype": "ubinary", "encoding_format": "base64"}"#,
    );
    check(
        options(&place, Provider::Jina, "m", ""),
        &|options| {
            (options.dimensions, options.truncate, options.normalize) = (Some(8), Some(Truncate::End), Some(true));
            (options.late_chunking, options.encoding_format) = (Some(true), Some(EncodingFormat::Base64));
        },
        r#"{"model": "m", "input": ["a"], "task": "retrieval.passage", "dimensions": 8, "truncate": true, "normalized": true,
            "late_chunking": true, "embedding_type": "base64"}"#,
    );
    check(
        options(&place, Provider::Mistral, "m", ""),
        &|options| {
            (options.dimensions, options.output_dtype) = (Some(8), Some(OutputDtype::Float));
            (options.encoding_format, options.extra) =
                (Some(EncodingFormat::Base64), fields(r#"{"metadata": {"a": "b"}}"#));
        },
        r#"{"model": "m", "input": ["a"], "output_dimension": 8, "output_dtype": "float", "encoding_format": "base64",
            "metadata": {"a": "b"}}"#,
    );
    check(
        options(&place, Provider::Nomic, "nomic-embed-text-v1.5", ""),
        &|options| (options.dimensions, options.truncate) = (Some(64), Some(Truncate::None)),
        r#"{"model": "nomic-embed-text-v1.5", "texts": ["a"], "task_type": "search_document", "dimensionality": 64,
            "long_text_mode": "mean"}"#,
    );
    check(
        options(&place, Provider::Gemini, "m", ""),
        &|options| (options.dimensions, options.title) = (Some(8), Some("t".to_owned())),
        r#"{"requests": [{"model": "models/m", "content": {"parts": [{"text": "a"}]}, "taskType": "RETRIEVAL_DOCUMENT",
            "title": "t", "outputDimensionality": 8}]}"#,
    );
    check(
        options(&place, Provider::Tei, "", ""),
        &|options| {
            (options.dimensions, options.normalize, options.truncate) = (Some(8), Some(true), Some(Truncate::Start));
            options.extra = fields(r#"{"prompt_name": "query"}"#);
        },
        r#"{"inputs": ["a"], "dimensions": 8, "normalize": true, "truncate": true, "truncation_direction": "Left",
            "prompt_name": "query"}"#,
    );
}

#[test]
fn every_dtype_is_decoded() {
    use OutputDtype::{Binary, Float, Int8, Ubinary, Uint8};
    let place = Place::new();
    let cases = [
        (Provider::Cohere, "embed-v4.0", "search_query", 1536, vec![Int8, Uint8, Binary, Ubinary], vec![Float]),
        (
            Provider::Voyage,
            "voyage-4",
            "query",
            1024,
            vec![Int8, Uint8, Binary, Ubinary],
            vec![Float, Int8, Uint8, Binary, Ubinary],
        ),
        (Provider::Mistral, "codestral-embed", "", 1536, vec![Int8, Uint8, Binary, Ubinary], vec![Float]),
        (Provider::Jina, "jina-embeddings-v3", "retrieval.query", 1024, vec![Binary, Ubinary], vec![Float]),
        (Provider::OpenAi, "text-embedding-3-large", "", 3072, vec![], vec![Float]),
    ];
    for (provider, model, kind, native, as_numbers, as_base64) in cases {
        let encodings = [(EncodingFormat::Float, as_numbers), (EncodingFormat::Base64, as_base64)];
        for (encoding, dtype) in
            encodings.into_iter().flat_map(|(encoding, all)| all.into_iter().map(move |one| (encoding, one)))
        {
            let mut options = options(&place, provider, model, "");
            if provider != Provider::OpenAi {
                options.output_dtype = Some(dtype);
            }
            // Cohere and Jina have one field for both.
            if encoding == EncodingFormat::Base64 {
                options.encoding_format = Some(encoding);
            }
            let output =
                encode(options, &TEXTS, Role::Query).unwrap_or_else(|error| panic!("{model} {dtype:?}: {error}"));
            if dtype == Float {
                expect(&output, &TEXTS, kind, native, native);
                continue;
            }
            assert_eq!(output.dense, None);
            let vectors = output.quantized.expect("quantized vectors");
            assert_eq!((vectors.dtype(), vectors.dimensions(), vectors.len()), (dtype, native, TEXTS.len()));
            let floats: Vec<f32> = TEXTS.iter().flat_map(|text| vector(kind, text, native, native)).collect();
            let packed: Vec<u8> = floats
                .chunks(8)
                .map(|bits| bits.iter().fold(0, |byte, &value| byte << 1 | u8::from(value >= 0.0)))
                .collect();
            let expected = match dtype {
                Int8 => QuantizedValues::Int8(
                    floats.iter().map(|&value| (f64::from(value) * 127.0).floor() as i8).collect(),
                ),
                Uint8 => QuantizedValues::Uint8(
                    floats.iter().map(|&value| ((f64::from(value) + 1.0) / 2.0 * 255.0).floor() as u8).collect(),
                ),
                Binary => QuantizedValues::Binary(packed.iter().map(|&byte| (i16::from(byte) - 128) as i8).collect()),
                _ => QuantizedValues::Ubinary(packed.clone()),
            };
            assert_eq!(vectors.values, expected, "{model} {dtype:?} {encoding:?}");
            if matches!(dtype, Binary | Ubinary) {
                assert_eq!(vectors.bits(1).expect("bits"), packed[native / 8..native / 4]);
            }
        }
    }
}

#[test]
fn a_server_of_ones_own_gives_dense_and_sparse_vectors() {
    let place = Place::new();
    let mut options = options(&place, Provider::Tei, "", "");
    options.key = None;
    options.outputs = Some(vec![OutputKind::Dense, OutputKind::Sparse]);
    options.prompts = Some(RolePrompts { query: "query: ".to_owned(), document: String::new() });
    let embedder = Embedder::remote(Client::new(), options).expect("valid options");
    let texts: Vec<String> = (0..70).map(|number| format!("sun rain sun {number}")).collect();
    let output = block_on(embedder.encode(&texts, Role::Query, &())).expect("valid");
    let prompted: Vec<String> = texts.iter().map(|text| format!("query: {text}")).collect();
    expect(&output, &prompted, "", 16, 16);
    let sparse = output.sparse.expect("sparse vectors");
    for (row, text) in sparse.iter().zip(&prompted) {
        let mut expected = std::collections::BTreeMap::<u32, f32>::new();
        text.split(' ').for_each(|word| *expected.entry(hash(word) % 30_522).or_default() += 0.5);
        assert_eq!(row.iter().collect::<Vec<_>>(), expected.into_iter().collect::<Vec<_>>());
    }
    assert_eq!((sparse.len(), place.sizes()), (70, vec![6, 6, 32, 32, 32, 32]));
    // Its OpenAI side.
    let mut options = RemoteOptions::new(Provider::OpenAi, "tei");
    options.base_url = Some(format!("{}/v1", place.url(Provider::Tei, "")));
    let output = encode(options.clone(), &TEXTS, Role::Plain).expect("valid");
    expect(&output, &TEXTS, "", 16, 16);
    // Which takes fewer texts than OpenAI: they are halved until it does.
    let output = encode(options, &texts, Role::Plain).expect("valid");
    expect(&output, &texts, "", 16, 16);
    let mut top = RemoteOptions::new(Provider::Tei, "");
    (top.base_url, top.outputs) = (Some(place.url(Provider::Tei, "")), Some(vec![OutputKind::Sparse]));
    let call = EncodeOptions { top_k: Some(1), ..EncodeOptions::default() };
    let row = encode(top, &["sun rain sun"], call).expect("valid").sparse.expect("sparse vectors").remove(0);
    assert_eq!(row.iter().collect::<Vec<_>>(), [(hash("sun") % 30_522, 1.0)]);
}

// ---- rerankers ---------------------------------------------------------------------------------------------------

fn ranked(documents: &[String]) -> Vec<Ranked> {
    let score = |text: &String| (f64::from(hash(&format!("{QUERY}\n{text}"))) / 4_294_967_296.0) as f32;
    let mut ranked: Vec<Ranked> =
        documents.iter().enumerate().map(|(index, text)| Ranked { index, score: score(text) }).collect();
    ranked.sort_by(|a, b| b.score.total_cmp(&a.score).then(a.index.cmp(&b.index)));
    ranked
}

#[test]
fn every_reranker_orders_documents_and_splits_long_lists() {
    let documents: Vec<String> = (0..1100).map(|number| format!("document {number}")).collect();
    let expected = ranked(&documents);
    let cases: &[(Provider, &str, &[usize])] = &[
        (Provider::Cohere, "rerank-v4.0-pro", &[100, 1000]),
        (Provider::Voyage, "rerank-2.5", &[100, 1000]),
        (Provider::Jina, "jina-reranker-v2-base-multilingual", &[76, 512, 512]),
        // Which reads all documents at once.
        (Provider::Jina, "jina-reranker-v3", &[1100]),
    ];
    for &(provider, model, sizes) in cases {
        for top_k in [None, Some(5), Some(5000)] {
            let place = Place::new();
            let found = rerank(options(&place, provider, model, ""), &documents, top_k).expect(model);
            assert_eq!(found, expected[..top_k.unwrap_or(1100).min(1100)], "{model}");
            assert_eq!(place.sizes(), sizes, "{model}");
        }
    }
    let place = Place::new();
    let mut options = options(&place, Provider::Tei, "", "");
    options.truncate = Some(Truncate::End);
    assert_eq!(rerank(options.clone(), &documents[..100], Some(7)).expect("valid"), ranked(&documents[..100])[..7]);
    assert_eq!(place.sizes(), [4, 32, 32, 32]);
    assert_eq!(rerank(options.clone(), &documents[..0], None).expect("nothing"), []);
    options.provider = Provider::OpenAi;
    assert_eq!(Reranker::remote(Client::new(), options).err().expect("has none").code(), Code::InvalidOption);
}

// ---- batches -----------------------------------------------------------------------------------------------------

#[test]
fn requests_hold_no_more_than_the_provider_takes() {
    let cases: &[(Provider, &[usize])] = &[
        (Provider::OpenAi, &[152, 2048]),
        (
            Provider::Cohere,
            &[88, 96, 96, 96, 96, 96, 96, 96, 96, 96, 96, 96, 96, 96, 96, 96, 96, 96, 96, 96, 96, 96, 96],
        ),
        (Provider::Voyage, &[200, 1000, 1000]),
        (Provider::Jina, &[152, 512, 512, 512, 512]),
        (Provider::Mistral, &[152, 256, 256, 256, 256, 256, 256, 256, 256]),
        (Provider::Gemini, &[100; 22]),
        (Provider::Nomic, &[10; 220]),
    ];
    let texts: Vec<String> = (0..2200).map(|number| number.to_string()).collect();
    for &(provider, sizes) in cases {
        let place = Place::new();
        let mut options = options(&place, provider, model(provider), "");
        options.task = matches!(provider, Provider::Cohere).then(|| "clustering".to_owned());
        let kind = options.task.clone().unwrap_or_default();
        let output = encode(options, &texts, Role::Plain).expect("valid");
        expect(&output, &texts, &kind, 16, 16);
        assert_eq!(place.sizes(), sizes, "{provider:?}");
        let most = place.log()["most"].as_u64().expect("a number");
        assert!((1..=4).contains(&most), "{most} at a time");
    }
    // So slowly that requests overlap if they may.
    let place = Place::new();
    let mut options = options(&place, Provider::OpenAi, "m", "/~slow=100");
    options.batch_size = size(100);
    encode(options, &texts, Role::Plain).expect("valid");
    assert_eq!(place.log()["most"], 4);
}

#[test]
fn long_texts_make_smaller_requests() {
    // 5,000 tokens each, as the server counts.
    let texts: Vec<String> = (0..100).map(|number| format!("{number:05}").repeat(4000)).collect();
    let place = Place::new();
    let mut options = options(&place, Provider::OpenAi, "m", "");
    expect(&encode(options.clone(), &texts, Role::Plain).expect("valid"), &texts, "", 16, 16);
    assert!(place.requests().iter().all(|request| request["status"] == 200), "none was too large");
    // If the estimate fails, the server says so, and the request is halved.
    options.batch_tokens = size(usize::MAX);
    expect(&encode(options, &texts, Role::Plain).expect("in halves"), &texts, "", 16, 16);
    let statuses: Vec<u64> = place.requests().iter().skip(3).filter_map(|request| request["status"].as_u64()).collect();
    assert!(statuses.contains(&400) && statuses.contains(&200), "{statuses:?}");
    // Mistral's limit is lower.
    let texts: Vec<String> = (0..20).map(|number| format!("{number:04}").repeat(2000)).collect();
    let place = Place::new();
    let output = encode(self::options(&place, Provider::Mistral, "m", ""), &texts, Role::Plain).expect("valid");
    expect(&output, &texts, "", 16, 16);
    assert!(place.sizes().len() > 3);
}

#[test]
fn late_chunking_is_never_split() {
    let place = Place::new();
    let texts: Vec<String> = (0..600).map(|number| format!("chunk {number}")).collect();
    let mut options = options(&place, Provider::Jina, "some-model", "");
    options.late_chunking = Some(true);
    options.batch_size = size(10);
    let output = encode(options.clone(), &texts, Role::Document).expect("valid");
    // What the whole document makes of each of its parts.
    expect(&output, &texts, &format!("retrieval.passage+{}", hash(&texts.join(" "))), 16, 16);
    assert_eq!(place.sizes(), [600]);
    options.base_url = Some(place.url(Provider::Jina, "/~most=500"));
    let error = encode(options, &texts, Role::Document).expect_err("too large");
    assert_eq!((details(&error).status, place.sizes()), (Some(413), vec![600, 600]));
}

#[test]
fn requests_that_are_too_large_are_halved() {
    for provider in Provider::ALL {
        let place = Place::new();
        let mut options = options(&place, provider, model(provider), "/~most=3");
        options.batch_size = size(9);
        let texts: Vec<String> = (0..10).map(|number| number.to_string()).collect();
        let kind = if provider == Provider::Cohere { "clustering" } else { "" };
        options.task = (!kind.is_empty()).then(|| kind.to_owned());
        expect(&encode(options.clone(), &texts, Role::Plain).expect("in halves"), &texts, kind, 16, 16);
        options.base_url = Some(place.url(provider, "/~most=0"));
        let error = encode(options, &texts[..2], Role::Plain).expect_err("even one is too large");
        assert_eq!((error.code(), details(&error).status), (Code::Http, Some(413)));
    }
}

// ---- faults ------------------------------------------------------------------------------------------------------

#[test]
fn five_thousand_texts_come_in_order_through_every_fault() {
    let texts: Vec<String> = (0..5000).map(|number| format!("text {number}")).collect();
    let cases: &[(&str, usize, usize)] = &[
        // Faults, texts of a request, how many requests it takes.
        ("", 20, 250),
        ("/~retry-ms=5*1", 20, 500),
        ("/~retry=0*1/~retry-ms=20*1", 50, 300),
        ("/~retry-date=-5*1", 100, 100),
        ("/~status=429*1", 500, 20),
        ("/~status=500*1/~status=502*1", 1250, 12),
        ("/~reset*1/~half*1", 1250, 12),
        ("/~half=chunked*1", 1250, 8),
        ("/~status=503*1/~slow=100*1", 1250, 8),
        ("/~gzip", 500, 10),
        ("/~type/~shuffle", 500, 10),
        ("/~html=502*1", 1250, 8),
    ];
    for &(faults, batch, requests) in cases {
        let place = Place::new();
        let mut options = options(&place, Provider::OpenAi, "m", faults);
        options.batch_size = size(batch);
        let output = encode(options, &texts, Role::Plain).unwrap_or_else(|error| panic!("{faults}: {error}"));
        expect(&output, &texts, "", 16, 16);
        assert_eq!(place.requests().len(), requests, "{faults}");
        assert_eq!(output.usage.tokens, texts.iter().map(|text| text.len().div_ceil(4)).sum::<usize>());
    }
}

#[test]
fn every_provider_recovers_and_gives_up() {
    for provider in Provider::ALL {
        let place = Place::new();
        let mut options = options(&place, provider, model(provider), "/~retry-ms=5*2");
        if provider == Provider::Gemini {
            options.base_url = Some(place.url(provider, "/~retry-delay=0.005s*2"));
        }
        options.dimensions = Some(if provider == Provider::Nomic { 64 } else { 8 });
        if provider == Provider::Nomic {
            options.model = "nomic-embed-text-v1.5".to_owned();
        }
        let started = Instant::now();
        encode(options.clone(), &TEXTS, Role::Query).unwrap_or_else(|error| panic!("{provider:?}: {error}"));
        assert!(started.elapsed() < Duration::from_millis(1100), "waited longer than it was asked to");
        assert_eq!(place.requests().len(), 3, "{provider:?}");
        let place = Place::new();
        options.base_url = Some(place.url(provider, "/~retry-ms=5"));
        options.max_retries = 1;
        if provider == Provider::Gemini {
            options.base_url = Some(place.url(provider, "/~retry-delay=0.005s"));
        }
        let error = encode(options, &TEXTS, Role::Query).expect_err("always 429");
        let details = details(&error);
        assert_eq!(
            (details.status, details.retryable, details.provider.as_str()),
            (Some(429), true, provider.as_str())
        );
        assert_eq!((details.retry_after, place.requests().len()), (Some(Duration::from_millis(5)), 2), "{provider:?}");
        assert!(details.request_id.expect("an id").starts_with("req_"));
    }
}

#[test]
fn what_does_not_pass_is_not_tried_again() {
    let place = Place::new();
    for faults in [
        "/~status=400",
        "/~status=401",
        "/~status=403",
        "/~status=404",
        "/~status=422",
        "/~status=501",
        "/~quota",
        "/~redirect",
    ] {
        let before = place.requests().len();
        let error = encode(options(&place, Provider::OpenAi, "m", faults), &TEXTS, Role::Plain).expect_err(faults);
        assert_eq!((error.code(), details(&error).retryable), (Code::Http, false), "{faults}");
        assert_eq!(place.requests().len(), before + 1, "{faults}");
    }
    let started = Instant::now();
    let error =
        encode(options(&place, Provider::OpenAi, "m", "/~retry=3600"), &TEXTS, Role::Plain).expect_err("an hour");
    assert_eq!(details(&error).retry_after, Some(Duration::from_secs(3600)));
    assert!(started.elapsed() < Duration::from_secs(5));
}

#[test]
fn a_wrong_key_is_an_error_in_every_providers_words() {
    for provider in Provider::ALL {
        let place = Place::new();
        let mut options = options(&place, provider, model(provider), "");
        options.key = Some(Key::new("wrong-key-0123456789").expect("a key"));
        let error = encode(options, &TEXTS, Role::Query).expect_err("a wrong key");
        let details = details(&error);
        let status = if provider == Provider::Gemini { 400 } else { 401 };
        assert_eq!((error.code(), details.status), (Code::Http, Some(status)));
        assert_eq!(
            error.message(),
            format!("the server answered {status}: Incorrect API key provided"),
            "{provider:?}"
        );
        assert!(!format!("{error:?}").contains("wrong-key"));
    }
}

#[test]
fn a_key_is_in_no_error_even_if_the_server_repeats_it() {
    for provider in Provider::ALL {
        for fault in ["/~echo=400", "/~echo=500", "/~echo=200"] {
            let place = Place::new();
            let mut options = options(&place, provider, model(provider), fault);
            options.max_retries = 0;
            options.headers = Headers::new([("x-proxy-token", "proxy-secret-42")]).expect("valid");
            let shown = format!("{options:?}");
            let error = encode(options, &TEXTS, Role::Query).expect_err("an echo");
            let shown = format!("{shown} {error} {error:?} {:?}", error.provider());
            assert!(!shown.contains(KEY) && !shown.contains("proxy-secret"), "{provider:?}: {shown}");
            let request = place.requests().remove(0);
            assert_eq!(request["headers"]["x-proxy-token"], "proxy-secret-42");
            assert!(!request["url"].as_str().expect("an address").contains(KEY));
        }
    }
}

#[test]
fn answers_that_are_not_what_is_documented_are_errors() {
    let faults = [
        "html",
        "cut",
        "empty",
        "fewer",
        "more",
        "short",
        "nan",
        "null",
        "bad-gzip",
        "index=0",
        "index=7",
        "index=-1",
        "index=none",
    ];
    for provider in Provider::ALL {
        for fault in faults {
            // Where there are no indices there is no wrong one; a base64 has no NaN that this server could write.
            let has_index =
                matches!(provider, Provider::OpenAi | Provider::Voyage | Provider::Jina | Provider::Mistral);
            if fault.starts_with("index") && !has_index {
                continue;
            }
            let place = Place::new();
            // The second of two rows has index 1, so that the first one's is wrong when it is 1 as well.
            let fault = fault.replace("index=0", "index=1");
            let mut options = options(&place, provider, model(provider), &format!("/~{fault}"));
            options.max_retries = 0;
            if provider == Provider::OpenAi {
                options.encoding_format = Some(EncodingFormat::Float);
            }
            let error =
                encode(options, &TEXTS[..2], Role::Query).err().unwrap_or_else(|| panic!("{provider:?} {fault}"));
            let expected = if fault == "bad-gzip" { Code::Network } else { Code::InvalidResponse };
            assert_eq!(error.code(), expected, "{provider:?} {fault}: {error}");
            details(&error);
        }
    }
    for (provider, model) in
        [(Provider::Cohere, "m"), (Provider::Voyage, "m"), (Provider::Jina, "m"), (Provider::Tei, "")]
    {
        for fault in ["html", "fewer", "more", "nan", "null", "index=9", "index=-1", "index=none"] {
            let place = Place::new();
            let error = rerank(options(&place, provider, model, &format!("/~{fault}")), &TEXTS, None);
            assert_eq!(error.err().map(|error| error.code()), Some(Code::InvalidResponse), "{provider:?} {fault}");
        }
    }
}

#[test]
fn connections_that_break_are_network_errors() {
    for fault in ["reset", "half", "half=chunked", "bad-gzip"] {
        let place = Place::new();
        let mut options = options(&place, Provider::Voyage, "m", &format!("/~{fault}"));
        options.max_retries = 0;
        let error = encode(options, &TEXTS, Role::Query).expect_err(fault);
        assert_eq!((error.code(), details(&error).retryable), (Code::Network, true), "{fault}: {error}");
    }
    let mut options = RemoteOptions::new(Provider::OpenAi, "m");
    // Nobody listens there.
    (options.base_url, options.max_retries) = (Some("http://127.0.0.1:9".to_owned()), 0);
    assert_eq!(encode(options, &TEXTS, Role::Query).expect_err("nobody").code(), Code::Network);
}

/// The native client, with less patience for large answers.
struct Small(Client);

impl Http for Small {
    async fn send(&self, request: HttpRequest) -> Result<HttpResponse> {
        self.0.send(HttpRequest { max_body: 4 << 20, ..request }).await
    }
}

#[test]
fn an_answer_without_end_is_cut_off() {
    let place = Place::new();
    let embedder =
        Embedder::remote(Small(Client::new()), options(&place, Provider::OpenAi, "m", "/~endless")).expect("valid");
    let error = block_on(embedder.encode(&TEXTS, Role::Plain, &())).expect_err("too large");
    assert_eq!((error.code(), details(&error).retryable), (Code::InvalidResponse, false));
    assert_eq!(error.at(), "openai, texts 0 to 2");
}

/// Asks to stop once it is told to.
#[derive(Default)]
struct Stop(AtomicBool);

impl Watch for Stop {
    fn cancelled(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

#[test]
fn a_call_is_cancelled_at_once_and_the_next_one_works() {
    let place = Place::new();
    let stop = Stop::default();
    let call = |faults: &str| {
        let mut options = options(&place, Provider::OpenAi, "m", faults);
        options.batch_size = size(1);
        Embedder::remote(Client::new(), options).expect("valid")
    };
    for faults in ["/~hang", "/~slow=10000", "/~retry=30"] {
        stop.0.store(false, Ordering::Relaxed);
        let embedder: RemoteEmbedder<Client> = call(faults);
        let started = Instant::now();
        let error = thread::scope(|scope| {
            scope.spawn(|| {
                thread::sleep(Duration::from_millis(300));
                stop.0.store(true, Ordering::Relaxed);
            });
            block_on(embedder.encode(&TEXTS, Role::Plain, &stop)).expect_err("cancelled")
        });
        assert_eq!(error.code(), Code::Aborted);
        assert!(started.elapsed() < Duration::from_secs(2), "{faults}: {:?}", started.elapsed());
    }
    stop.0.store(true, Ordering::Relaxed);
    let before = place.requests().len();
    let embedder = call("");
    assert_eq!(block_on(embedder.encode(&TEXTS, Role::Plain, &stop)).expect_err("at once").code(), Code::Aborted);
    assert_eq!(place.requests().len(), before, "nothing was sent");
    expect(&block_on(embedder.encode(&TEXTS, Role::Plain, &())).expect("the next call"), &TEXTS, "", 16, 16);
    // The thread that reads a slow answer notices that nobody waits for it.
    thread::sleep(Duration::from_millis(500));
    let abandoned = |request: &&Value| {
        request["url"].as_str().is_some_and(|url| url.contains("slow")) && request["abandoned"] == true
    };
    assert_eq!(place.requests().iter().filter(abandoned).count(), TEXTS.len());
}

#[test]
fn a_request_takes_no_longer_than_its_timeout() {
    for faults in ["/~hang", "/~slow=10000"] {
        let place = Place::new();
        let mut options = options(&place, Provider::Cohere, "m", faults);
        (options.timeout, options.max_retries) = (Duration::from_millis(300), 0);
        let started = Instant::now();
        let error = encode(options.clone(), &TEXTS, Role::Query).expect_err("too slow");
        assert_eq!((error.code(), details(&error).retryable), (Code::Timeout, true));
        assert!(started.elapsed() < Duration::from_secs(2));
        // A timeout is tried again as well.
        options.base_url = Some(place.url(Provider::Cohere, &format!("{faults}*1")));
        options.max_retries = 1;
        encode(options, &TEXTS, Role::Query).expect("the second time");
    }
}

#[test]
fn one_batch_of_many_that_fails_fails_the_call_and_the_next_one_works() {
    let place = Place::new();
    let texts: Vec<String> = (0..200).map(|number| format!("text {number};")).collect();
    let mut options = options(&place, Provider::OpenAi, "m", "/~has=text%2077;/~slow=40");
    options.batch_size = size(10);
    let embedder = Embedder::remote(Client::new(), options).expect("valid");
    let error = block_on(embedder.encode(&texts, Role::Plain, &())).expect_err("one is refused");
    assert_eq!((error.code(), error.at(), details(&error).status), (Code::Http, "openai, texts 70 to 79", Some(400)));
    assert!(place.requests().len() < 20, "the rest was sent all the same");
    let others = &texts[100..];
    expect(&block_on(embedder.encode(others, Role::Plain, &())).expect("the next call"), others, "", 16, 16);
}

#[test]
fn progress_is_told() {
    #[derive(Default)]
    struct Told(std::sync::Mutex<Vec<(usize, usize)>>);
    impl Watch for Told {
        fn encoded(&self, done: usize, total: usize) {
            self.0.lock().expect("sound").push((done, total));
        }
    }
    let (place, told) = (Place::new(), Told::default());
    let mut options = options(&place, Provider::Voyage, "m", "");
    (options.batch_size, options.concurrency) = (size(1), NonZeroUsize::MIN);
    block_on(Embedder::remote(Client::new(), options).expect("valid").encode(&TEXTS, Role::Plain, &told))
        .expect("valid");
    assert_eq!(told.0.into_inner().expect("sound"), [(1, 3), (2, 3), (3, 3)]);
    assert_eq!(place.log()["most"], 1);
}

#[test]
fn nothing_is_asked_for_no_texts_and_for_empty_ones() {
    let place = Place::new();
    for provider in Provider::ALL {
        let none: [&str; 0] = [];
        let output = encode(options(&place, provider, model(provider), ""), &none, Role::Query).expect("nothing");
        assert_eq!(output.dense.expect("vectors").rows().len(), 0);
        let error = encode(options(&place, provider, model(provider), ""), &["a", ""], Role::Query).expect_err("empty");
        assert_eq!((error.code(), error.at()), (Code::InvalidText, "text 1"));
        // Nor does a prompt fill it.
        let mut prompted = options(&place, provider, model(provider), "");
        prompted.prompts = Some(RolePrompts { query: "query: ".to_owned(), document: String::new() });
        let error = encode(prompted, &["a", ""], Role::Query).expect_err("empty");
        assert_eq!((error.code(), error.at()), (Code::InvalidText, "text 1"));
    }
    assert!(place.requests().is_empty());
}

// ---- the proxy of the documentation --------------------------------------------------------------------------------

#[test]
fn the_proxy_of_the_documentation_adds_the_key() {
    let place = Place::new();
    let upstream = place.url(Provider::Cohere, "");
    let variables = [
        ("UPSTREAM", upstream.as_str()),
        ("PATHS", "/v2/embed"),
        ("API_KEY", KEY),
        ("ORIGIN", "https://your.site"),
        ("PORT", "0"),
    ];
    let (mut proxy, url) = start("docs/proxy.mjs", &variables);
    let mut options = RemoteOptions::new(Provider::Cohere, "m");
    options.base_url = Some(url);
    options.max_retries = 0;
    let status =
        |options: &RemoteOptions| encode(options.clone(), &TEXTS, Role::Query).map_err(|error| details(&error).status);
    assert_eq!(status(&options).err(), Some(Some(403)), "from no page");
    options.headers = Headers::new([("origin", "https://your.site")]).expect("valid");
    let output = status(&options).expect("through the proxy");
    expect(&output, &TEXTS, "search_query", 16, 16);
    assert_eq!(place.requests()[0]["headers"]["authorization"], format!("Bearer {KEY}"));
    let documents = TEXTS.map(str::to_owned);
    let error = rerank(options.clone(), &documents, None).expect_err("a path that is not let through");
    assert_eq!(details(&error).status, Some(403));
    proxy.kill().expect("it runs");
    proxy.wait().expect("it ended");

    // Errors of a provider keep their status, and of their words only those that say what to do.
    for (provider, fault, path, status, code) in [
        (Provider::Cohere, "/~echo=401", "/v2/embed", 401, None),
        (Provider::OpenAi, "/~quota", "/embeddings", 429, Some("insufficient_quota")),
    ] {
        let upstream = place.url(provider, fault);
        let variables = [("UPSTREAM", upstream.as_str()), ("PATHS", path), variables[2], variables[3], variables[4]];
        let (mut proxy, url) = start("docs/proxy.mjs", &variables);
        let mut asked = RemoteOptions::new(provider, "m");
        (asked.base_url, asked.max_retries, asked.headers) = (Some(url), 0, options.headers.clone());
        let error = encode(asked, &TEXTS, Role::Query).expect_err(fault);
        let details = details(&error);
        assert_eq!((details.status, details.code.as_deref()), (Some(status), code), "{error}");
        assert!(error.message().contains("stay at the proxy") && !details.retryable, "{error}");
        proxy.kill().expect("it runs");
        proxy.wait().expect("it ended");
    }
}
