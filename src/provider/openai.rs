//! OpenAI, and whoever is compatible: Azure, vLLM, Ollama, text-embeddings-inference's `/v1`.
//!
//! Must agree with `createEmbedding` of <https://github.com/openai/openai-openapi> (2.3.0). As OpenAI's own clients do, it asks
//! for base64 unless it is told otherwise, and takes either.

use super::{Ask, Auth, Endpoint, Fields, Limits, Model, Outgoing, Spec, as_it_comes, list, options::Field};
use crate::error::Result;

pub(super) const SPEC: Spec = Spec {
    name: "openai",
    base_url: |_| Some("https://api.openai.com/v1"),
    auth: Auth::Bearer,
    models: &[
        Model { name: "text-embedding-3-small", dimensions: 1536 },
        Model { name: "text-embedding-3-large", dimensions: 3072 },
        Model { name: "text-embedding-ada-002", dimensions: 1536 },
    ],
    dense: Some(Endpoint {
        honours: &[Field::Dimensions, Field::EncodingFormat],
        // The description: 2048 entries, 300,000 tokens.
        limits: |_| Limits::new(2048, 300_000),
        request,
        response: list::embeddings,
        normalize: as_it_comes,
    }),
    sparse: None,
    rerank: None,
};

fn request(ask: &Ask) -> Result<Outgoing> {
    let format = match ask.options.encoding_format {
        None => "base64",
        Some(_) if ask.options.is_base64() => "base64",
        Some(_) => "float",
    };
    Fields::of_model(ask.options)
        .with("input", ask.texts)
        .with("encoding_format", format)
        .maybe("dimensions", ask.options.dimensions)
        .sent_to("/embeddings", ask)
}

#[cfg(test)]
mod tests {
    use super::super::{EncodingFormat, Provider, RemoteOptions, tests::*};

    fn options() -> RemoteOptions {
        RemoteOptions::new(Provider::OpenAi, "text-embedding-3-small")
    }

    #[test]
    fn the_request_holds_what_was_asked_for() {
        let request = embed(&options(), Plain, &["a", "b"]).expect("valid");
        assert_eq!(request.path, "/embeddings");
        let body = r#"{"model": "text-embedding-3-small", "input": ["a", "b"], "encoding_format": "base64"}"#;
        assert_eq!(request.body, json(body));
        let mut options = options();
        options.dimensions = Some(256);
        options.encoding_format = Some(EncodingFormat::Float);
        options.extra = fields(r#"{"user": "u"}"#);
        let request = embed(&options, Query, &["a"]).expect("valid");
        let body = r#"{"model": "text-embedding-3-small", "input": ["a"], "encoding_format": "float", "dimensions": 256,
            "user": "u"}"#;
        assert_eq!(request.body, json(body));
    }

    #[test]
    fn the_documented_answer_is_read_in_both_formats_and_by_index() {
        // The form of the description's example.
        let list = r#"{"object": "list", "model": "m", "usage": {"prompt_tokens": 8, "total_tokens": 8}, "data": [
            {"object": "embedding", "embedding": [0.5, -0.25], "index": 1},
            {"object": "embedding", "embedding": [1, -2.5], "index": 0}]}"#;
        let (vectors, tokens) = dense(&options(), 2, list).expect("valid");
        assert_eq!((vectors.values, tokens), (vec![1.0, -2.5, 0.5, -0.25], Some(8.0)));
        let list = r#"{"object": "list", "data": [{"object": "embedding", "embedding": "AACAPwAAIMA=", "index": 0}],
            "model": "m", "usage": {"prompt_tokens": 1, "total_tokens": 1}}"#;
        assert_eq!(dense(&options(), 1, list).expect("valid").0.values, [1.0, -2.5]);
        let twice = list.replace("}],", "}, {\"embedding\": [1, 2], \"index\": 0}],");
        assert!(dense(&options(), 2, &twice).is_err());
    }

    #[test]
    fn what_it_has_no_field_for_is_refused() {
        let mut other = options();
        other.truncate = Some(super::super::Truncate::End);
        assert_eq!(refused(&other), "truncate");
        let mut other = options();
        other.extra = fields(r#"{"input": "x"}"#);
        assert_eq!(refused(&other), "extra");
    }
}
