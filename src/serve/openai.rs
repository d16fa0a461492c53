//! OpenAI's API: `/v1/embeddings` and `/v1/models`.
//!
//! Must agree with OpenAI's published description (`tests/web/serve-schemas.json` has what of it is used). Unlike there, `model` may be
//! left out, as with text-embeddings-inference, and token ids are refused.

use std::sync::Arc;

use axum::{
    extract::{Path, Request, State, rejection::PathRejection},
    http::StatusCode,
    response::Response,
};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use serde::{Deserialize, Serialize};

use super::{
    Server, Work,
    body::{self, Texts},
    engines::{Embed, Wanted},
    failure::{Failure, Form, Reason, json},
};
use crate::call::OutputKind;

#[derive(Deserialize)]
struct CreateEmbedding {
    input: Texts,
    model: Option<String>,
    encoding_format: Option<EncodingFormat>,
    #[serde(default, deserialize_with = "body::whole")]
    dimensions: Option<usize>,
}

#[derive(Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum EncodingFormat {
    #[default]
    Float,
    Base64,
}

#[derive(Serialize)]
struct List<T> {
    object: &'static str,
    data: Vec<T>,
}

#[derive(Serialize)]
struct Embeddings<'a> {
    #[serde(flatten)]
    list: List<Embedding>,
    model: &'a str,
    usage: Usage,
}

#[derive(Serialize)]
struct Embedding {
    object: &'static str,
    index: usize,
    embedding: Values,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Values {
    Float(Vec<f32>),
    /// Little-endian.
    Base64(String),
}

#[derive(Serialize)]
struct Usage {
    prompt_tokens: usize,
    total_tokens: usize,
}

#[derive(Serialize)]
struct Model<'a> {
    id: &'a str,
    object: &'static str,
    created: u64,
    owned_by: &'static str,
}

pub async fn embeddings(State(server): State<Arc<Server>>, request: Request) -> Response {
    create(&server, request).await.unwrap_or_else(|failure| failure.response(Form::OpenAi))
}

async fn create(server: &Server, request: Request) -> Result<Response, Failure> {
    let (CreateEmbedding { input, model, encoding_format, dimensions }, _place) = server.read(request).await?;
    let Some(embedder) = &server.embedder else {
        return Err(Failure::new(Reason::NotGiven, "no embedder is served"));
    };
    if let Some(model) = model.filter(|model| !embedder.names.contains(model)) {
        let served = embedder.names.join(", ");
        let message = format!("there is no model {model:?}; this server's answers to {served} (--served-name)");
        return Err(Failure::new(Reason::NoSuchModel, message).at("model"));
    }
    let texts = input.checked(server.limits.max_texts, "input")?;
    let wanted = Wanted { output: OutputKind::Dense, dimensions, normalize: None };
    if !embedder.queue.about.outputs.contains(&wanted.output) {
        return Err(Failure::new(Reason::NotGiven, "the model gives no dense vectors").at("model"));
    }
    let count = texts.len();
    let request = Embed { texts, prompt_name: None, truncate: server.limits.auto_truncate, wanted };
    let answer = embedder.queue.submit(request, count).await?;
    let data = answer.rows.into_iter().enumerate().map(|(index, row)| Embedding {
        object: "embedding",
        index,
        embedding: match encoding_format.unwrap_or_default() {
            EncodingFormat::Float => Values::Float(row.dense),
            EncodingFormat::Base64 => {
                let bytes: Vec<u8> = row.dense.iter().flat_map(|value| value.to_le_bytes()).collect();
                Values::Base64(BASE64_STANDARD.encode(bytes))
            }
        },
    });
    let list = List { object: "list", data: data.collect() };
    let usage = Usage { prompt_tokens: answer.tokens, total_tokens: answer.tokens };
    let work = Work { texts: list.data.len(), tokens: answer.tokens };
    let mut response = json(StatusCode::OK, &Embeddings { list, model: embedder.name(), usage });
    response.extensions_mut().insert(work);
    Ok(response)
}

/// Every name that a request may use.
pub async fn models(State(server): State<Arc<Server>>) -> Response {
    json(StatusCode::OK, &List { object: "list", data: known(&server).collect() })
}

pub async fn model(State(server): State<Arc<Server>>, id: Result<Path<String>, PathRejection>) -> Response {
    let Ok(Path(id)) = id else {
        return Failure::new(Reason::NoSuchModel, "the name is no UTF-8").at("model").response(Form::OpenAi);
    };
    match known(&server).find(|model| model.id == id) {
        Some(model) => json(StatusCode::OK, &model),
        None => {
            let message = format!("there is no model {id:?}");
            Failure::new(Reason::NoSuchModel, message).at("model").response(Form::OpenAi)
        }
    }
}

fn known(server: &Server) -> impl Iterator<Item = Model<'_>> {
    let embedder = server.embedder.iter().flat_map(|served| &served.names);
    let names = embedder.chain(server.reranker.iter().flat_map(|served| &served.names));
    names.map(|id| Model { id, object: "model", created: server.started, owned_by: "wick" })
}
