//! What Wick sends beside what the providers' own Python clients, and Milvus's, send for the same thing:
//! `tests/providers/recorded.json`, which `tests/providers/record.py` wrote. Every difference is in the table below, with its
//! reason; one that is not there fails, and so does one that is gone.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    future::pending,
    time::Duration,
};

use serde_json::{Map, Value, json};
use wick_embed::{
    Code, Embedder, Error, Key, Provider, RemoteOptions, Reranker, Result, Role,
    platform::{Http, HttpRequest, HttpResponse, native::block_on},
};

/// One reason, the differences that it explains, and the cases that have all of them.
struct Allowed {
    why: &'static str,
    /// Where, what theirs has there, and what ours has: JSON, or [`NOTHING`].
    differences: &'static [(&'static str, &'static str, &'static str)],
    cases: &'static [&'static str],
}

const NOTHING: &str = "nothing";

const ALLOWED: &[Allowed] = &[
    Allowed {
        why: "Milvus's class uses the client for Cohere's first API, whose fields are the same; Wick has the second",
        differences: &[("/url", r#""https://api.cohere.com/v1/embed""#, r#""https://api.cohere.com/v2/embed""#)],
        cases: &[
            "pymilvus cohere documents",
            "pymilvus cohere queries",
            "pymilvus cohere binary",
            "pymilvus cohere ubinary",
            "pymilvus cohere truncate",
        ],
    },
    Allowed {
        why: "null is what the client writes where nothing is asked",
        differences: &[("/body/truncate", "null", NOTHING)],
        cases: &[
            "pymilvus cohere documents",
            "pymilvus cohere queries",
            "pymilvus cohere binary",
            "pymilvus cohere ubinary",
        ],
    },
    Allowed {
        why: "Milvus's class wants the documents back by a field that the description does not have; in Wick they are at hand",
        differences: &[("/body/return_documents", "true", NOTHING)],
        cases: &["pymilvus cohere rerank"],
    },
    Allowed {
        why: "floats are the description's default; Wick always says what it reads",
        differences: &[("/body/embedding_types", NOTHING, r#"["float"]"#)],
        cases: &["cohere documents, no type of numbers"],
    },
    Allowed {
        why: "the client asks for base64 by default, and Wick where it is told to",
        differences: &[("/body/encoding_format", r#""base64""#, NOTHING)],
        cases: &[
            "voyageai documents",
            "voyageai queries",
            "voyageai texts",
            "pymilvus voyage documents",
            "pymilvus voyage queries",
        ],
    },
    Allowed {
        why: "the client says what the API does by default",
        differences: &[("/body/truncation", "true", NOTHING)],
        cases: &["voyageai documents", "voyageai queries", "voyageai texts", "voyageai rerank"],
    },
    Allowed {
        why: "null is what the client writes where nothing is asked",
        differences: &[("/body/output_dimension", "null", NOTHING)],
        cases: &[
            "voyageai documents",
            "voyageai queries",
            "voyageai texts",
            "voyageai documents alike",
            "voyageai float",
            "voyageai int8",
            "voyageai uint8",
            "voyageai binary",
            "voyageai ubinary",
            "voyageai truncate none",
        ],
    },
    Allowed {
        why: "null is what the client writes where nothing is asked",
        differences: &[("/body/output_dtype", "null", NOTHING)],
        cases: &[
            "voyageai documents",
            "voyageai queries",
            "voyageai texts",
            "voyageai documents alike",
            "voyageai dimensions",
            "voyageai truncate none",
            "pymilvus voyage documents",
            "pymilvus voyage queries",
            "pymilvus voyage dimensions",
            "pymilvus voyage truncate none",
        ],
    },
    Allowed {
        why: "null is what the client writes where nothing is asked",
        differences: &[("/body/input_type", "null", NOTHING)],
        cases: &["voyageai texts"],
    },
    Allowed {
        why: "null is what the client writes where nothing is asked",
        differences: &[("/body/top_k", "null", NOTHING)],
        cases: &["voyageai rerank", "voyageai rerank truncate none"],
    },
    Allowed {
        why: "null is what Milvus's class makes of it where nothing is asked",
        differences: &[("/body/truncation", "null", NOTHING)],
        cases: &[
            "pymilvus voyage documents",
            "pymilvus voyage queries",
            "pymilvus voyage dimensions",
            "pymilvus voyage binary",
            "pymilvus voyage ubinary",
        ],
    },
    Allowed {
        why: "Milvus's class says how many dimensions the model has by itself",
        differences: &[("/body/output_dimension", "1024", NOTHING)],
        cases: &["pymilvus voyage documents", "pymilvus voyage queries"],
    },
    Allowed {
        why: "Milvus's class says what is not wanted, which is the API's default",
        differences: &[("/body/late_chunking", "false", NOTHING)],
        cases: &["pymilvus jina documents", "pymilvus jina queries", "pymilvus jina task"],
    },
    Allowed {
        why: "Milvus's class reads the documents from the answer; in Wick they are at hand",
        differences: &[("/body/return_documents", NOTHING, "false")],
        cases: &["pymilvus jina rerank"],
    },
    Allowed {
        why: "who wrote a content matters in conversations; it is optional, and the user by default",
        differences: &[
            ("/body/requests/0/content/role", r#""user""#, NOTHING),
            ("/body/requests/1/content/role", r#""user""#, NOTHING),
        ],
        cases: &[
            "google-genai texts",
            "google-genai documents",
            "google-genai queries",
            "google-genai task",
            "google-genai title",
            "google-genai dimensions",
            "pymilvus gemini texts",
            "pymilvus gemini documents",
            "pymilvus gemini queries",
            "pymilvus gemini dimensions",
        ],
    },
    Allowed {
        why: "the same, where the request has one content",
        differences: &[("/body/requests/0/content/role", r#""user""#, NOTHING)],
        cases: &["google-genai second model, one text", "google-genai second model, texts"],
    },
    Allowed {
        why: "since 3.0 the client asks v1, where it asked v1beta before (as in Milvus's cases); Wick asks what the documentation \
            of embeddings names",
        differences: &[(
            "/url",
            r#""https://generativelanguage.googleapis.com/v1/models/gemini-embedding-001:batchEmbedContents""#,
            r#""https://generativelanguage.googleapis.com/v1beta/models/gemini-embedding-001:batchEmbedContents""#,
        )],
        cases: &[
            "google-genai texts",
            "google-genai documents",
            "google-genai queries",
            "google-genai task",
            "google-genai title",
            "google-genai dimensions",
        ],
    },
    Allowed {
        why: "the same, for the second model",
        differences: &[(
            "/url",
            r#""https://generativelanguage.googleapis.com/v1/models/gemini-embedding-2:batchEmbedContents""#,
            r#""https://generativelanguage.googleapis.com/v1beta/models/gemini-embedding-2:batchEmbedContents""#,
        )],
        cases: &["google-genai second model, one text", "google-genai second model, texts"],
    },
    Allowed {
        why: "to the client several strings are parts of one content, which gets one vector; in Wick each text gets its own",
        differences: &[
            ("/body/requests/0/content/parts/1", r#"{"text":"Grüße aus Köln 🚀"}"#, NOTHING),
            (
                "/body/requests/1",
                NOTHING,
                r#"{"content":{"parts":[{"text":"Grüße aus Köln 🚀"}]},"model":"models/gemini-embedding-2"}"#,
            ),
        ],
        cases: &["google-genai second model, texts"],
    },
    Allowed {
        why: "null is what the client writes where nothing is asked",
        differences: &[("/body/dimensionality", "null", NOTHING)],
        cases: &["nomic documents", "nomic queries", "nomic task", "nomic truncate end", "nomic truncate none"],
    },
    Allowed {
        why: "the client always says what becomes of long texts, by default that they are cut; Wick leaves it to the server \
            unless asked",
        differences: &[("/body/long_text_mode", r#""truncate""#, NOTHING)],
        cases: &[
            "nomic documents",
            "nomic queries",
            "nomic task",
            "pymilvus nomic documents",
            "pymilvus nomic queries",
        ],
    },
    Allowed {
        why: "Milvus's class says how many dimensions the model has by itself",
        differences: &[("/body/dimensionality", "768", NOTHING)],
        cases: &["pymilvus nomic documents", "pymilvus nomic queries"],
    },
    Allowed {
        why: "Milvus's class is mistaken: it encodes queries for whatever it was made for, by default as documents",
        differences: &[("/body/task_type", r#""search_document""#, r#""search_query""#)],
        cases: &["pymilvus nomic queries"],
    },
    Allowed {
        why: "Milvus's class speaks OpenAI's protocol without a model, which a server of one model does not need; Wick's `openai` \
            needs one, and asks for base64 as OpenAI's clients do",
        differences: &[("/body/model", NOTHING, r#""a-model""#), ("/body/encoding_format", NOTHING, r#""base64""#)],
        cases: &["pymilvus tei documents", "pymilvus tei queries"],
    },
    Allowed {
        why: "Milvus's class reads the documents from the answer; in Wick they are at hand",
        differences: &[("/body/return_text", "true", NOTHING)],
        cases: &["pymilvus tei rerank"],
    },
];

// ---- what Wick sends ---------------------------------------------------------------------------------------------

/// Keeps what is sent, and answers nothing.
#[derive(Default)]
struct Sent(RefCell<Vec<HttpRequest>>);

impl Http for &Sent {
    async fn send(&self, request: HttpRequest) -> Result<HttpResponse> {
        self.0.borrow_mut().push(request);
        Err(Error::new(Code::Network, "", "there is no network here"))
    }

    /// Time does not pass.
    async fn sleep(&self, _: Duration) {
        pending::<()>().await;
    }
}

/// Headers that matter: how the key is sent, and what the body is. `record.py` keeps the same.
const HEADERS: &[&str] = &["authorization", "x-goog-api-key", "content-type"];

/// The request for what a case asks, in the form of the recording.
fn ours(asked: &Value) -> Value {
    let mut options = asked["options"].clone();
    let key = options.as_object_mut().and_then(|options| options.remove("apiKey"));
    let mut options: RemoteOptions = serde_json::from_value(options).expect("Wick's options");
    options.key = key.map(|key| Key::new(key.as_str().expect("a key")).expect("a key"));
    options.max_retries = 0;
    let (sent, texts) =
        (Sent::default(), |name: &str| -> Vec<String> { serde_json::from_value(asked[name].clone()).expect("texts") });
    let error = match asked["query"].as_str() {
        Some(query) => {
            let top = asked["topK"].as_u64().map(|top| top as usize);
            let reranker = Reranker::remote(&sent, options).expect("options that it has");
            block_on(reranker.rerank(query, &texts("documents"), top, &())).err()
        }
        None => {
            let role: Role = asked["role"].as_str().expect("a role").parse().expect("a role");
            let embedder = Embedder::remote(&sent, options).expect("options that it has");
            block_on(embedder.encode(&texts("texts"), role, &())).err()
        }
    };
    assert_eq!(error.map(|error| error.code()), Some(Code::Network), "{asked}");
    let requests = sent.0.into_inner();
    let [request] = requests.as_slice() else { panic!("{} requests for {asked}", requests.len()) };
    let headers = request.headers.iter().filter(|(name, _)| HEADERS.contains(&name.as_str()));
    json!({
        "method": "POST",
        "url": request.url,
        "headers": headers.map(|(name, value)| (name.clone(), json!(value))).collect::<Map<_, _>>(),
        "body": serde_json::from_slice::<Value>(&request.body).expect("JSON"),
    })
}

// ---- differences -------------------------------------------------------------------------------------------------

/// By place, what either has there.
type Differences = BTreeMap<String, (String, String)>;

/// Objects field by field and lists item by item; everything else as it is.
fn compare(at: &str, theirs: Option<&Value>, ours: Option<&Value>, found: &mut Differences) {
    let written = |value: Option<&Value>| value.map_or_else(|| NOTHING.to_owned(), Value::to_string);
    match (theirs, ours) {
        (Some(Value::Object(theirs)), Some(Value::Object(ours))) => {
            for name in theirs.keys().chain(ours.keys()).collect::<BTreeSet<_>>() {
                compare(&format!("{at}/{name}"), theirs.get(name), ours.get(name), found);
            }
        }
        (Some(Value::Array(theirs)), Some(Value::Array(ours))) => {
            for index in 0..theirs.len().max(ours.len()) {
                compare(&format!("{at}/{index}"), theirs.get(index), ours.get(index), found);
            }
        }
        _ if theirs == ours => {}
        _ => {
            found.insert(at.to_owned(), (written(theirs), written(ours)));
        }
    }
}

fn recorded() -> Vec<Value> {
    let sets = crate::common::json("tests/providers/recorded.json");
    sets.as_object().expect("sets").values().flat_map(|cases| cases.as_array().expect("cases").clone()).collect()
}

fn name(case: &Value) -> &str {
    case["name"].as_str().expect("a name")
}

#[test]
fn wick_sends_what_the_official_clients_send() {
    let cases = recorded();
    let mut allowed: BTreeMap<&str, Differences> = cases.iter().map(|case| (name(case), BTreeMap::new())).collect();
    assert_eq!(allowed.len(), cases.len(), "names are unique");
    for Allowed { why, differences, cases } in ALLOWED {
        for (case, &(at, theirs, ours)) in cases.iter().flat_map(|case| differences.iter().map(move |it| (case, it))) {
            let of_case = allowed.get_mut(case).unwrap_or_else(|| panic!("{case:?} was not recorded ({why})"));
            let other = of_case.insert(at.to_owned(), (theirs.to_owned(), ours.to_owned()));
            assert!(other.is_none(), "{case}: {at} is listed twice");
        }
    }
    let mut wrong = Vec::new();
    for case in &cases {
        let (mut found, allowed) = (BTreeMap::new(), &allowed[name(case)]);
        let library = case["library"].as_str().expect("a library with its version");
        let theirs = json!({
            "method": case["method"], "url": case["url"], "headers": case["headers"], "body": case["body"],
        });
        compare("", Some(&theirs), Some(&ours(&case["asked"])), &mut found);
        let is_in = |other: &Differences, at: &str, values: &(String, String)| other.get(at) == Some(values);
        for (at, values) in found.iter().filter(|(at, values)| !is_in(allowed, at, values)) {
            let (theirs, ours) = values;
            wrong.push(format!("{} ({library}): {at} is {theirs}, ours {ours}", name(case)));
        }
        for (at, (theirs, ours)) in allowed.iter().filter(|(at, values)| !is_in(&found, at, values)) {
            wrong.push(format!("{}: {at} is listed as {theirs}, ours {ours}, and is not so", name(case)));
        }
    }
    assert!(wrong.is_empty(), "{} differences\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn every_provider_was_recorded_and_every_reranker() {
    let providers = |is_wanted: &dyn Fn(&Value) -> bool| -> BTreeSet<String> {
        let asked = recorded().into_iter().map(|mut case| case["asked"].take()).filter(is_wanted);
        asked.map(|asked| asked["options"]["provider"].as_str().expect("a provider").to_owned()).collect()
    };
    let all: BTreeSet<String> = Provider::ALL.map(|provider| provider.as_str().to_owned()).into();
    assert_eq!(providers(&|asked| asked["texts"].is_array()), all);
    assert_eq!(
        providers(&|asked| asked["query"].is_string()),
        ["cohere", "jina", "tei", "voyage"].map(str::to_owned).into()
    );
}

#[test]
fn a_difference_is_found_wherever_it_is() {
    let (theirs, ours) = (
        json!({"url": "a", "body": {"a": null, "b": [1, {"c": "x"}, 3], "d": 1, "same": [true]}}),
        json!({"url": "b", "body": {"b": [1, {"c": "y"}], "d": "1", "e": {}, "same": [true]}}),
    );
    let mut found = BTreeMap::new();
    compare("", Some(&theirs), Some(&ours), &mut found);
    let expected = [
        ("/url", r#""a""#, r#""b""#),
        ("/body/a", "null", NOTHING),
        ("/body/b/1/c", r#""x""#, r#""y""#),
        ("/body/b/2", "3", NOTHING),
        ("/body/d", "1", r#""1""#),
        ("/body/e", NOTHING, "{}"),
    ];
    let expected = expected.map(|(at, theirs, ours)| (at.to_owned(), (theirs.to_owned(), ours.to_owned())));
    assert_eq!(found, expected.into());
}
