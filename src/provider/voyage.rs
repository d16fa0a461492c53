//! Voyage AI.
//!
//! Must agree with `/embeddings` and `/rerank` of <https://github.com/voyage-ai/voyage-openapi>, and where that is older than the
//! models, with <https://docs.voyageai.com/docs/embeddings> and the client <https://github.com/voyage-ai/voyageai-python>.

use super::{
    Ask, Auth, Endpoint, Fields, Limits, Model, Outgoing, Spec, as_it_comes, list,
    options::{Field, RemoteOptions},
};
use crate::{call::Role, error::Result};

pub(super) const SPEC: Spec = Spec {
    name: "voyage",
    // As its client has it: keys of MongoDB's Atlas are for another host.
    base_url: |key| match key.starts_with("al-") {
        true => Some("https://ai.mongodb.com/v1"),
        false => Some("https://api.voyageai.com/v1"),
    },
    auth: Auth::Bearer,
    models: &[
        Model { name: "voyage-4-large", dimensions: 1024 },
        Model { name: "voyage-4", dimensions: 1024 },
        Model { name: "voyage-4-lite", dimensions: 1024 },
        Model { name: "voyage-3.5", dimensions: 1024 },
        Model { name: "voyage-3.5-lite", dimensions: 1024 },
        Model { name: "voyage-3-large", dimensions: 1024 },
        Model { name: "voyage-code-3", dimensions: 1024 },
        Model { name: "voyage-finance-2", dimensions: 1024 },
        Model { name: "voyage-law-2", dimensions: 1024 },
    ],
    dense: Some(Endpoint {
        honours: &[Field::Dimensions, Field::OutputDtype, Field::EncodingFormat, Field::Truncate],
        limits: |options| Limits::new(1000, tokens(options)),
        request: embed_request,
        response: list::embeddings,
        normalize: as_it_comes,
    }),
    sparse: None,
    rerank: Some(Endpoint {
        honours: &[Field::Truncate, Field::Top],
        limits: |options| Limits::new(1000, rerank_tokens(options)),
        request: rerank_request,
        response: list::ranks,
        normalize: as_it_comes,
    }),
};

/// Tokens of a request, by model (the documentation, "token limits").
fn tokens(options: &RemoteOptions) -> usize {
    match options.model.as_str() {
        "voyage-4-lite" | "voyage-3.5-lite" => 1_000_000,
        "voyage-4" | "voyage-3.5" | "voyage-2" => 320_000,
        _ => 120_000,
    }
}

/// Tokens of the documents, and the query's once for each of them. What the description has for the oldest model and for others;
/// newer ones have more, and smaller requests give the same scores.
fn rerank_tokens(options: &RemoteOptions) -> usize {
    if options.model == "rerank-1" { 100_000 } else { 300_000 }
}

fn embed_request(ask: &Ask) -> Result<Outgoing> {
    let options = ask.options;
    let input_type = match ask.role {
        Role::Plain => None,
        Role::Query => Some("query"),
        Role::Document => Some("document"),
    };
    Fields::of_model(options)
        .with("input", ask.texts)
        .maybe("input_type", input_type)
        .maybe("truncation", options.truncates()?)
        .maybe("output_dimension", options.dimensions)
        .maybe("output_dtype", options.dtype_field())
        // Numbers are what there is without the field.
        .maybe("encoding_format", options.is_base64().then_some("base64"))
        .sent_to("/embeddings", ask)
}

fn rerank_request(ask: &Ask) -> Result<Outgoing> {
    Fields::of_model(ask.options)
        .with("query", ask.query)
        .with("documents", ask.texts)
        .maybe("top_k", ask.top)
        .maybe("truncation", ask.options.truncates()?)
        .sent_to("/rerank", ask)
}

#[cfg(test)]
mod tests {
    use super::super::{EncodingFormat, Provider, Truncate, tests::*};
    use super::*;
    use crate::call::{OutputDtype, QuantizedValues};

    fn options() -> RemoteOptions {
        RemoteOptions::new(Provider::Voyage, "voyage-4")
    }

    #[test]
    fn the_request_holds_what_was_asked_for() {
        let body = r#"{"model": "voyage-4", "input": ["a"]}"#;
        assert_eq!(embed(&options(), Plain, &["a"]).expect("valid").body, json(body));
        let mut options = options();
        options.dimensions = Some(256);
        options.output_dtype = Some(OutputDtype::Int8);
        options.encoding_format = Some(EncodingFormat::Base64);
        options.truncate = Some(Truncate::None);
        let body = r#"{"model": "voyage-4", "input": ["a"], "input_type": "document", "truncation": false,
            "output_dimension": 256, "output_dtype": "int8", "encoding_format": "base64"}"#;
        let request = embed(&options, Document, &["a"]).expect("valid");
        assert_eq!((request.path.as_str(), request.body), ("/embeddings", json(body)));
        options.truncate = Some(Truncate::Start);
        assert_eq!(refused(&options), "truncate");
    }

    #[test]
    fn base64_is_of_the_types_own_bytes() {
        let mut options = options();
        options.output_dtype = Some(OutputDtype::Int8);
        options.dimensions = Some(3);
        let answer = r#"{"object": "list", "data": [{"object": "embedding", "embedding": "gAB/", "index": 0}],
            "model": "voyage-4", "usage": {"total_tokens": 10}}"#;
        let (vectors, tokens) = quantized(&options, 1, answer).expect("valid");
        assert_eq!((vectors.values, tokens), (QuantizedValues::Int8(vec![-128, 0, 127]), Some(10.0)));
    }

    #[test]
    fn ranks_are_read() {
        let options = RemoteOptions::new(Provider::Voyage, "rerank-2.5");
        let body = r#"{"model": "rerank-2.5", "query": "q", "documents": ["a", "b"]}"#;
        let request = rerank(&options, "q", &["a", "b"], None).expect("valid");
        assert_eq!((request.path.as_str(), request.body), ("/rerank", json(body)));
        // The description's example.
        let answer = r#"{"object":"list","data":[{"relevance_score":0.4375,"index":0},{"relevance_score":0.421875,"index":1}],
            "model":"rerank-lite-1","usage":{"total_tokens":26}}"#;
        assert_eq!(scores(&options, 2, None, answer).expect("valid"), [(0, 0.4375), (1, 0.421875)]);
    }

    #[test]
    fn a_key_of_atlas_is_for_another_host() {
        assert_eq!((SPEC.base_url)("al-x"), Some("https://ai.mongodb.com/v1"));
        assert_eq!((SPEC.base_url)("pa-x"), Some("https://api.voyageai.com/v1"));
    }
}
