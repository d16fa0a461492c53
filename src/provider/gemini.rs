//! Gemini's API (not Vertex AI's, which is another).
//!
//! Must agree with <https://ai.google.dev/api/embeddings> (`batchEmbedContents`) and <https://ai.google.dev/gemini-api/docs/embeddings>.

use serde::Deserialize;
use serde_json::Value;

use super::{
    Ask, Auth, Endpoint, Fields, Limits, Model, Outgoing, Reply, ReplyRows, Spec,
    answer::{Numbers, parse},
    invalid_option,
    options::{Field, RemoteOptions},
};
use crate::{call::Role, error::Result, platform::HttpResponse};

pub(super) const SPEC: Spec = Spec {
    name: "gemini",
    base_url: |_| Some("https://generativelanguage.googleapis.com"),
    // Not by `?key=`, which would stand in logs.
    auth: Auth::Header("x-goog-api-key"),
    models: &[
        Model { name: "gemini-embedding-001", dimensions: 3072 },
        Model { name: "gemini-embedding-2", dimensions: 3072 },
        Model { name: "text-embedding-004", dimensions: 768 },
    ],
    dense: Some(Endpoint {
        honours: &[Field::Dimensions, Field::Task, Field::Title],
        limits: |_| Limits::new(100, usize::MAX),
        request,
        response,
        // The first model's shortened vectors are left as they were cut.
        normalize: |options| options.dimensions.is_some() && !has_prompts(options),
    }),
    sparse: None,
    rerank: None,
};

/// The second model has no field for what a text is for: it reads that in the text.
fn has_prompts(options: &RemoteOptions) -> bool {
    model(options).starts_with("gemini-embedding-2")
}

fn model(options: &RemoteOptions) -> &str {
    options.model.strip_prefix("models/").unwrap_or(&options.model)
}

fn request(ask: &Ask) -> Result<Outgoing> {
    let options = ask.options;
    let model = model(options);
    // It becomes part of the address.
    if !model.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte)) {
        return Err(invalid_option("model", format!("{model:?} is no name of a model")));
    }
    let (role, task, title) = (ask.role, options.task.as_deref(), options.title.as_deref());
    let task_type = match role {
        Role::Query => Some("RETRIEVAL_QUERY"),
        Role::Document => Some("RETRIEVAL_DOCUMENT"),
        Role::Plain => task,
    };
    let entry = |text: &String| {
        let entry = Fields::new().with("model", format!("models/{model}"));
        let entry = match has_prompts(options) {
            true => {
                let text = match role {
                    _ if ask.prompted => text.clone(),
                    Role::Query => format!("task: search result | query: {text}"),
                    Role::Document => format!("title: {} | text: {text}", title.unwrap_or("none")),
                    Role::Plain => task.map_or_else(|| text.clone(), |task| format!("task: {task} | query: {text}")),
                };
                entry.with("content", content(&text))
            }
            // A title is for documents only.
            false => entry
                .with("content", content(text))
                .maybe("taskType", task_type)
                .maybe("title", title.filter(|_| task_type == Some("RETRIEVAL_DOCUMENT"))),
        };
        entry.maybe("outputDimensionality", options.dimensions).extended(options)
    };
    let requests: Vec<Value> = ask.texts.iter().map(entry).collect();
    let body = serde_json::json!({ "requests": requests });
    Ok(Outgoing { path: format!("/v1beta/models/{model}:batchEmbedContents"), body })
}

fn content(text: &str) -> Value {
    serde_json::json!({ "parts": [{ "text": text }] })
}

#[derive(Deserialize)]
struct Embedded {
    /// In the order of the requests.
    embeddings: Vec<Embedding>,
    #[serde(rename = "usageMetadata")]
    usage: Option<Usage>,
}

#[derive(Deserialize)]
struct Embedding {
    values: Numbers,
}

#[derive(Deserialize)]
struct Usage {
    #[serde(rename = "promptTokenCount")]
    prompt_token_count: Option<f64>,
}

fn response(_: &Ask, response: &HttpResponse) -> Result<Reply> {
    let Embedded { embeddings, usage } = parse(&response.body)?;
    let rows = embeddings.into_iter().map(|embedding| (None, embedding.values)).collect();
    Ok(Reply { rows: ReplyRows::Dense(rows), tokens: usage.and_then(|usage| usage.prompt_token_count) })
}

#[cfg(test)]
mod tests {
    use super::super::{Provider, tests::*};
    use super::*;

    fn texts(model: &str, role: Role, change: impl Fn(&mut RemoteOptions)) -> Value {
        let mut options = RemoteOptions::new(Provider::Gemini, model);
        change(&mut options);
        embed(&options, role, &["a"]).expect("valid").body["requests"][0].take()
    }

    #[test]
    fn the_first_model_has_fields_for_what_texts_are_for() {
        let options = RemoteOptions::new(Provider::Gemini, "models/gemini-embedding-001");
        let request = embed(&options, Query, &["a", "b"]).expect("valid");
        assert_eq!(request.path, "/v1beta/models/gemini-embedding-001:batchEmbedContents");
        let body = r#"{"requests": [
            {"model": "models/gemini-embedding-001", "content": {"parts": [{"text": "a"}]}, "taskType": "RETRIEVAL_QUERY"},
            {"model": "models/gemini-embedding-001", "content": {"parts": [{"text": "b"}]}, "taskType": "RETRIEVAL_QUERY"}]}"#;
        assert_eq!(request.body, json(body));
        let all = |options: &mut RemoteOptions| {
            (options.dimensions, options.title) = (Some(768), Some("t".to_owned()));
            options.task = Some("CLUSTERING".to_owned());
        };
        let entry = r#"{"model": "models/gemini-embedding-001", "content": {"parts": [{"text": "a"}]},
            "taskType": "RETRIEVAL_DOCUMENT", "title": "t", "outputDimensionality": 768}"#;
        assert_eq!(texts("gemini-embedding-001", Document, all), json(entry));
        let plain = texts("gemini-embedding-001", Plain, all);
        assert_eq!((&plain["taskType"], plain.get("title")), (&json("\"CLUSTERING\""), None));
    }

    #[test]
    fn the_second_model_reads_what_texts_are_for_in_them() {
        let text = |role, change: &dyn Fn(&mut RemoteOptions)| {
            let entry = texts("gemini-embedding-2", role, change);
            assert!(entry.get("taskType").is_none() && entry.get("title").is_none());
            entry["content"]["parts"][0]["text"].as_str().expect("a text").to_owned()
        };
        assert_eq!(text(Query, &|_| ()), "task: search result | query: a");
        assert_eq!(text(Document, &|_| ()), "title: none | text: a");
        assert_eq!(text(Document, &|options| options.title = Some("t".to_owned())), "title: t | text: a");
        assert_eq!(text(Plain, &|_| ()), "a");
        assert_eq!(text(Plain, &|options| options.task = Some("clustering".to_owned())), "task: clustering | query: a");
    }

    #[test]
    fn only_the_first_models_shortened_vectors_are_normalised_here() {
        let answer = r#"{"embeddings": [{"values": [3, 4]}], "usageMetadata": {"promptTokenCount": 2}}"#;
        let values = |model, dimensions, normalize| {
            let mut options = RemoteOptions::new(Provider::Gemini, model);
            (options.dimensions, options.normalize) = (dimensions, normalize);
            options.native_dimensions = Some(2);
            let (vectors, tokens) = dense(&options, 1, answer).expect("valid");
            assert_eq!(tokens, Some(2.0));
            vectors.values
        };
        assert_eq!(values("gemini-embedding-001", Some(2), None), [0.6, 0.8]);
        assert_eq!(values("gemini-embedding-001", Some(2), Some(false)), [3.0, 4.0]);
        assert_eq!(values("gemini-embedding-001", None, None), [3.0, 4.0]);
        assert_eq!(values("gemini-embedding-2", Some(2), None), [3.0, 4.0]);
        assert_eq!(values("gemini-embedding-2", None, Some(true)), [0.6, 0.8]);
    }

    #[test]
    fn a_models_name_cannot_change_the_address() {
        assert_eq!(refused(&RemoteOptions::new(Provider::Gemini, "x/../y?key=1")), "model");
    }
}
