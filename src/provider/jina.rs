//! Jina AI.
//!
//! There is no published description to check against; must agree with <https://jina.ai/embeddings>, <https://jina.ai/reranker> and
//! <https://api.jina.ai/redoc>.

use super::{
    Ask, Auth, Endpoint, Fields, Limits, Model, Outgoing, Spec, as_it_comes, invalid_option, list, options::Field,
};
use crate::{
    call::{OutputDtype, Role},
    error::Result,
};

pub(super) const SPEC: Spec = Spec {
    name: "jina",
    base_url: |_| Some("https://api.jina.ai/v1"),
    auth: Auth::Bearer,
    models: &[
        Model { name: "jina-embeddings-v5-text-small", dimensions: 1024 },
        Model { name: "jina-embeddings-v5-text-nano", dimensions: 768 },
        Model { name: "jina-embeddings-v4", dimensions: 2048 },
        Model { name: "jina-embeddings-v3", dimensions: 1024 },
        Model { name: "jina-clip-v2", dimensions: 1024 },
    ],
    dense: Some(Endpoint {
        honours: &[
            Field::Dimensions,
            Field::OutputDtype,
            Field::EncodingFormat,
            Field::Truncate,
            Field::Task,
            Field::LateChunking,
            Field::Normalize,
        ],
        limits: |options| Limits {
            whole: options.late_chunking == Some(true),
            // Not documented; a request this large is answered in seconds.
            ..Limits::new(512, usize::MAX)
        },
        request: embed_request,
        response: list::embeddings,
        normalize: as_it_comes,
    }),
    sparse: None,
    rerank: Some(Endpoint {
        honours: &[Field::Top],
        limits: |options| Limits {
            // It reads all documents at once (<https://arxiv.org/abs/2509.25085>), so that scores of two requests do not compare.
            whole: options.model == "jina-reranker-v3",
            ..Limits::new(512, usize::MAX)
        },
        request: rerank_request,
        response: list::ranks,
        normalize: as_it_comes,
    }),
};

fn embed_request(ask: &Ask) -> Result<Outgoing> {
    let options = ask.options;
    // Models before the third have no tasks.
    let has_tasks = !options.model.starts_with("jina-embeddings-v2") && options.model != "jina-clip-v1";
    let task = match ask.role {
        Role::Query if has_tasks => Some("retrieval.query"),
        Role::Document if has_tasks => Some("retrieval.passage"),
        _ => options.task.as_deref(),
    };
    let embedding_type = match (options.is_base64(), options.dtype()) {
        (false, OutputDtype::Float) => {
            (options.output_dtype.is_some() || options.encoding_format.is_some()).then_some("float")
        }
        (true, OutputDtype::Float) => Some("base64"),
        (false, dtype @ (OutputDtype::Binary | OutputDtype::Ubinary)) => Some(dtype.as_str()),
        _ => return Err(invalid_option("outputDtype", "jina has float, binary and ubinary; base64 is of floats")),
    };
    Fields::of_model(options)
        .with("input", ask.texts)
        .maybe("task", task)
        .maybe("dimensions", options.dimensions)
        .maybe("embedding_type", embedding_type)
        .maybe("late_chunking", options.late_chunking)
        .maybe("truncate", options.truncates()?)
        .maybe("normalized", options.normalize)
        .sent_to("/embeddings", ask)
}

fn rerank_request(ask: &Ask) -> Result<Outgoing> {
    Fields::of_model(ask.options)
        .with("query", ask.query)
        .with("documents", ask.texts)
        .maybe("top_n", ask.top)
        // They are here already.
        .with("return_documents", false)
        .sent_to("/rerank", ask)
}

#[cfg(test)]
mod tests {
    use super::super::{EncodingFormat, Provider, RemoteOptions, Truncate, tests::*};
    use super::*;
    use crate::call::QuantizedValues;

    fn options() -> RemoteOptions {
        RemoteOptions::new(Provider::Jina, "jina-embeddings-v3")
    }

    #[test]
    fn the_request_holds_what_was_asked_for() {
        let body = r#"{"model": "jina-embeddings-v3", "input": ["a"], "task": "retrieval.query"}"#;
        assert_eq!(embed(&options(), Query, &["a"]).expect("valid").body, json(body));
        let mut options = options();
        options.dimensions = Some(256);
        options.encoding_format = Some(EncodingFormat::Base64);
        options.late_chunking = Some(true);
        options.truncate = Some(Truncate::End);
        options.normalize = Some(true);
        options.task = Some("text-matching".to_owned());
        let body = r#"{"model": "jina-embeddings-v3", "input": ["a"], "task": "text-matching", "dimensions": 256,
            "embedding_type": "base64", "late_chunking": true, "truncate": true, "normalized": true}"#;
        let request = embed(&options, Plain, &["a"]).expect("valid");
        assert_eq!((request.path.as_str(), request.body), ("/embeddings", json(body)));
        options.output_dtype = Some(OutputDtype::Int8);
        assert_eq!(refused(&options), "outputDtype");
    }

    #[test]
    fn models_without_tasks_are_not_sent_any() {
        let old = RemoteOptions::new(Provider::Jina, "jina-embeddings-v2-base-en");
        let body = r#"{"model": "jina-embeddings-v2-base-en", "input": ["a"]}"#;
        assert_eq!(embed(&old, Query, &["a"]).expect("valid").body, json(body));
    }

    #[test]
    fn what_is_read_together_is_not_split() {
        let limits = |options: &RemoteOptions| SPEC.dense.as_ref().map(|endpoint| (endpoint.limits)(options).whole);
        let mut options = options();
        assert_eq!(limits(&options), Some(false));
        options.late_chunking = Some(true);
        assert_eq!(limits(&options), Some(true));
        let whole = |model| {
            SPEC.rerank.as_ref().map(|endpoint| (endpoint.limits)(&RemoteOptions::new(Provider::Jina, model)).whole)
        };
        assert_eq!(whole("jina-reranker-v3"), Some(true));
        assert_eq!(whole("jina-reranker-v2-base-multilingual"), Some(false));
    }

    #[test]
    fn the_documented_answer_is_read() {
        let mut options = options();
        options.output_dtype = Some(OutputDtype::Ubinary);
        options.dimensions = Some(16);
        let answer = r#"{"model": "jina-embeddings-v3", "object": "list", "usage": {"total_tokens": 6, "prompt_tokens": 6},
            "data": [{"object": "embedding", "index": 0, "embedding": [255, 1]}]}"#;
        assert_eq!(quantized(&options, 1, answer).expect("valid").0.values, QuantizedValues::Ubinary(vec![255, 1]));
    }

    #[test]
    fn ranks_are_read() {
        let options = RemoteOptions::new(Provider::Jina, "jina-reranker-v2-base-multilingual");
        let body = r#"{"model": "jina-reranker-v2-base-multilingual", "query": "q", "documents": ["a"], "top_n": 1,
            "return_documents": false}"#;
        assert_eq!(rerank(&options, "q", &["a"], Some(1)).expect("valid").body, json(body));
        let answer = r#"{"model": "m", "usage": {"total_tokens": 9},
            "results": [{"index": 0, "relevance_score": 0.5, "document": {"text": "a"}}]}"#;
        assert_eq!(scores(&options, 1, None, answer).expect("valid"), [(0, 0.5)]);
    }
}
