//! Nomic Atlas.
//!
//! There is no published description; must agree with the client <https://github.com/nomic-ai/nomic> (`nomic/embed.py`). The server
//! puts the prefix of the task before texts.

use serde::Deserialize;

use super::{
    Ask, Auth, Endpoint, Fields, Limits, Model, Outgoing, Reply, ReplyRows, Spec,
    answer::{Numbers, parse},
    as_it_comes,
    list::Usage,
    options::Field,
};
use crate::{call::Role, error::Result, platform::HttpResponse};

pub(super) const SPEC: Spec = Spec {
    name: "nomic",
    base_url: |_| Some("https://api-atlas.nomic.ai"),
    auth: Auth::Bearer,
    models: &[
        Model { name: "nomic-embed-text-v1", dimensions: 768 },
        Model { name: "nomic-embed-text-v1.5", dimensions: 768 },
    ],
    dense: Some(Endpoint {
        honours: &[Field::Dimensions, Field::Task, Field::Truncate],
        // What its client sends at a time.
        limits: |_| Limits::new(10, usize::MAX),
        request,
        response,
        normalize: as_it_comes,
    }),
    sparse: None,
    rerank: None,
};

fn request(ask: &Ask) -> Result<Outgoing> {
    let task = match ask.role {
        Role::Query => Some("search_query"),
        Role::Document => Some("search_document"),
        Role::Plain => ask.options.task.as_deref(),
    };
    // Texts that are not cut are encoded in parts, whose mean is given.
    let mode = ask.options.truncates()?.map(|cut| if cut { "truncate" } else { "mean" });
    Fields::of_model(ask.options)
        .with("texts", ask.texts)
        .maybe("task_type", task)
        .maybe("dimensionality", ask.options.dimensions)
        .maybe("long_text_mode", mode)
        .sent_to("/v1/embedding/text", ask)
}

#[derive(Deserialize)]
struct Embedded {
    /// In the order of the texts.
    embeddings: Vec<Numbers>,
    usage: Option<Usage>,
}

fn response(_: &Ask, response: &HttpResponse) -> Result<Reply> {
    let Embedded { embeddings, usage } = parse(&response.body)?;
    let rows = embeddings.into_iter().map(|row| (None, row)).collect();
    Ok(Reply { rows: ReplyRows::Dense(rows), tokens: Usage::tokens(usage) })
}

#[cfg(test)]
mod tests {
    use super::super::{Provider, RemoteOptions, Truncate, tests::*};

    #[test]
    fn requests_and_answers_have_the_clients_form() {
        let mut options = RemoteOptions::new(Provider::Nomic, "nomic-embed-text-v1.5");
        let body = r#"{"model": "nomic-embed-text-v1.5", "texts": ["a"], "task_type": "search_query"}"#;
        let request = embed(&options, Query, &["a"]).expect("valid");
        assert_eq!((request.path.as_str(), request.body), ("/v1/embedding/text", json(body)));
        options.dimensions = Some(64);
        options.truncate = Some(Truncate::None);
        options.task = Some("clustering".to_owned());
        let body = r#"{"model": "nomic-embed-text-v1.5", "texts": ["a"], "task_type": "clustering", "dimensionality": 64,
            "long_text_mode": "mean"}"#;
        assert_eq!(embed(&options, Plain, &["a"]).expect("valid").body, json(body));
        options.dimensions = Some(2);
        let answer =
            r#"{"embeddings": [[0.5, 1], [2, 3]], "usage": {"prompt_tokens": 4, "total_tokens": 5}, "model": "m"}"#;
        let (vectors, tokens) = dense(&options, 2, answer).expect("valid");
        assert_eq!((vectors.values, tokens), (vec![0.5, 1.0, 2.0, 3.0], Some(5.0)));
    }
}
