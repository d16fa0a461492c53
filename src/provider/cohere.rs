//! Cohere.
//!
//! Must agree with `/v2/embed` and `/v2/rerank` of <https://github.com/cohere-ai/cohere-developer-experience>
//! (`cohere-openapi.yaml`).

use std::collections::BTreeMap;

use serde::Deserialize;

use super::{
    Ask, Auth, Endpoint, Fields, Limits, Model, Outgoing, Reply, ReplyRows, Spec, Truncate,
    answer::{Numbers, invalid, parse},
    as_it_comes, invalid_option, list,
    options::{Field, RemoteOptions},
};
use crate::{
    call::{OutputDtype, Role},
    error::Result,
    platform::HttpResponse,
};

pub(super) const SPEC: Spec = Spec {
    name: "cohere",
    base_url: |_| Some("https://api.cohere.com"),
    auth: Auth::Bearer,
    models: &[
        Model { name: "embed-v4.0", dimensions: 1536 },
        Model { name: "embed-english-v3.0", dimensions: 1024 },
        Model { name: "embed-multilingual-v3.0", dimensions: 1024 },
        Model { name: "embed-english-light-v3.0", dimensions: 384 },
        Model { name: "embed-multilingual-light-v3.0", dimensions: 384 },
    ],
    dense: Some(Endpoint {
        honours: &[Field::Dimensions, Field::OutputDtype, Field::EncodingFormat, Field::Truncate, Field::Task],
        limits: |_| Limits::new(96, usize::MAX),
        request: embed_request,
        response: embedded,
        normalize: as_it_comes,
    }),
    sparse: None,
    rerank: Some(Endpoint {
        honours: &[Field::Top],
        // What <https://docs.cohere.com/reference/rerank> recommends.
        limits: |_| Limits::new(1000, usize::MAX),
        request: rerank_request,
        response: list::ranks,
        normalize: as_it_comes,
    }),
};

/// The type that is asked for, which is also the name that it has in the answer.
fn embedding_type(options: &RemoteOptions) -> Result<&'static str> {
    match (options.is_base64(), options.dtype()) {
        (true, OutputDtype::Float) => Ok("base64"),
        (true, _) => Err(invalid_option("encodingFormat", "cohere's base64 is of floats only")),
        (false, dtype) => Ok(dtype.as_str()),
    }
}

fn embed_request(ask: &Ask) -> Result<Outgoing> {
    let options = ask.options;
    let input_type = match (ask.role, &options.task) {
        (Role::Query, _) => "search_query",
        (Role::Document, _) => "search_document",
        (Role::Plain, Some(task)) => task,
        (Role::Plain, None) => {
            return Err(invalid_option(
                "task",
                "cohere must know what texts are for: encode them as queries or as documents, or set a task",
            ));
        }
    };
    let truncate = options.truncate.map(|truncate| match truncate {
        Truncate::None => "NONE",
        Truncate::Start => "START",
        Truncate::End => "END",
    });
    Fields::of_model(options)
        .with("texts", ask.texts)
        .with("input_type", input_type)
        .with("embedding_types", vec![embedding_type(options)?])
        .maybe("output_dimension", options.dimensions)
        .maybe("truncate", truncate)
        .sent_to("/v2/embed", ask)
}

#[derive(Deserialize)]
struct Embedded {
    /// By type; in the order of the texts.
    embeddings: BTreeMap<String, Vec<Numbers>>,
    meta: Option<Meta>,
}

#[derive(Deserialize)]
struct Meta {
    billed_units: Option<BilledUnits>,
}

#[derive(Deserialize)]
struct BilledUnits {
    input_tokens: Option<f64>,
}

fn embedded(ask: &Ask, response: &HttpResponse) -> Result<Reply> {
    let Embedded { mut embeddings, meta } = parse(&response.body)?;
    let kind = embedding_type(ask.options)?;
    let rows = embeddings.remove(kind).ok_or_else(|| invalid(format!("the answer has no {kind} embeddings")))?;
    let tokens = meta.and_then(|meta| meta.billed_units?.input_tokens);
    Ok(Reply { rows: ReplyRows::Dense(rows.into_iter().map(|row| (None, row)).collect()), tokens })
}

fn rerank_request(ask: &Ask) -> Result<Outgoing> {
    Fields::of_model(ask.options)
        .with("query", ask.query)
        .with("documents", ask.texts)
        .maybe("top_n", ask.top)
        .sent_to("/v2/rerank", ask)
}

#[cfg(test)]
mod tests {
    use super::super::{EncodingFormat, Provider, tests::*};
    use super::*;
    use crate::call::QuantizedValues;

    fn options() -> RemoteOptions {
        RemoteOptions::new(Provider::Cohere, "embed-v4.0")
    }

    #[test]
    fn the_request_holds_what_was_asked_for() {
        let request = embed(&options(), Query, &["a"]).expect("valid");
        let body =
            r#"{"model": "embed-v4.0", "texts": ["a"], "input_type": "search_query", "embedding_types": ["float"]}"#;
        assert_eq!((request.path.as_str(), request.body), ("/v2/embed", json(body)));
        let mut options = options();
        options.dimensions = Some(256);
        options.output_dtype = Some(OutputDtype::Binary);
        options.truncate = Some(Truncate::Start);
        options.task = Some("clustering".to_owned());
        options.extra = fields(r#"{"priority": 3, "max_tokens": 99}"#);
        let body = r#"{"model": "embed-v4.0", "texts": ["a"], "input_type": "clustering", "embedding_types": ["binary"],
            "output_dimension": 256, "truncate": "START", "priority": 3, "max_tokens": 99}"#;
        assert_eq!(embed(&options, Plain, &["a"]).expect("valid").body, json(body));
    }

    #[test]
    fn it_must_know_what_texts_are_for() {
        let error = embed(&options(), Plain, &["a"]).err().expect("an error");
        assert_eq!(error.at(), "task");
    }

    #[test]
    fn only_floats_are_normalised() {
        let mut options = options();
        options.normalize = Some(true);
        options.output_dtype = Some(OutputDtype::Int8);
        assert_eq!(refused(&options), "normalize");
    }

    #[test]
    fn the_documented_answer_is_read_by_type() {
        let answer = r#"{"id": "x", "response_type": "embeddings_by_type", "texts": ["a"],
            "embeddings": {"float": [[0.5, 1]], "int8": [[1, -1]], "base64": ["AACAPwAAIMA="]},
            "meta": {"api_version": {"version": "2"}, "billed_units": {"input_tokens": 3}}}"#;
        let mut options = options();
        options.dimensions = Some(2);
        let (vectors, tokens) = dense(&options, 1, answer).expect("valid");
        assert_eq!((vectors.values, tokens), (vec![0.5, 1.0], Some(3.0)));
        options.encoding_format = Some(EncodingFormat::Base64);
        assert_eq!(dense(&options, 1, answer).expect("valid").0.values, [1.0, -2.5]);
        options.encoding_format = None;
        options.output_dtype = Some(OutputDtype::Int8);
        assert_eq!(quantized(&options, 1, answer).expect("valid").0.values, QuantizedValues::Int8(vec![1, -1]));
        options.output_dtype = Some(OutputDtype::Uint8);
        assert!(quantized(&options, 1, answer).is_err(), "there are none");
    }

    #[test]
    fn ranks_are_read() {
        let options = RemoteOptions::new(Provider::Cohere, "rerank-v4.0-pro");
        let request = rerank(&options, "q", &["a", "b"], Some(1)).expect("valid");
        let body = r#"{"model": "rerank-v4.0-pro", "query": "q", "documents": ["a", "b"], "top_n": 1}"#;
        assert_eq!((request.path.as_str(), request.body), ("/v2/rerank", json(body)));
        let answer = r#"{"id": "x", "results": [{"index": 1, "relevance_score": 0.75}], "meta": {"billed_units": {"search_units": 1}}}"#;
        assert_eq!(scores(&options, 2, Some(1), answer).expect("valid"), [(1, 0.75)]);
    }
}
