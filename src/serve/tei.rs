//! The API of text-embeddings-inference: `/embed`, `/embed_sparse`, `/rerank`, `/info` and `/health`.
//!
//! Must agree with its published description (`tests/web/serve-schemas.json` has what of it is used).

use std::{collections::BTreeMap, sync::Arc};

use axum::{
    body::Body,
    extract::{Request, State},
    http::{HeaderName, StatusCode},
    response::Response,
};
use serde::{Deserialize, Serialize};

use super::{
    Server, Work,
    batch::Answer,
    body::{self, Texts, check_count},
    engines::{Embed, Rerank, Row, Wanted},
    failure::{Failure, Form, Reason, json},
};
use crate::{
    call::{OutputKind, rank},
    ops::{BATCH_TOKENS, Pooling},
};

/// Tokens that were computed.
pub const COMPUTE_TOKENS: HeaderName = HeaderName::from_static("x-compute-tokens");

#[derive(Deserialize)]
struct EmbedRequest {
    inputs: Texts,
    #[serde(default = "yes")]
    normalize: bool,
    truncate: Option<bool>,
    truncation_direction: Option<Direction>,
    prompt_name: Option<String>,
    #[serde(default, deserialize_with = "body::whole")]
    dimensions: Option<usize>,
}

#[derive(Deserialize)]
struct EmbedSparseRequest {
    inputs: Texts,
    truncate: Option<bool>,
    truncation_direction: Option<Direction>,
    prompt_name: Option<String>,
}

#[derive(Deserialize)]
struct RerankRequest {
    query: String,
    texts: Vec<String>,
    #[serde(default)]
    raw_scores: bool,
    #[serde(default)]
    return_text: bool,
    truncate: Option<bool>,
    truncation_direction: Option<Direction>,
}

fn yes() -> bool {
    true
}

/// Which end of a text is cut off.
#[derive(Clone, Copy, PartialEq, Eq, Deserialize)]
enum Direction {
    #[serde(alias = "left")]
    Left,
    // The description names it in small letters as the default.
    #[serde(alias = "right")]
    Right,
}

#[derive(Serialize)]
struct SparseValue {
    index: u32,
    value: f32,
}

#[derive(Serialize)]
struct Rank {
    index: usize,
    score: f32,
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<String>,
}

#[derive(Serialize)]
struct Info<'a> {
    model_id: &'a str,
    served_model_name: &'a str,
    model_sha: Option<&'static str>,
    model_dtype: &'a str,
    model_type: ModelType,
    max_input_length: usize,
    max_batch_tokens: usize,
    max_client_batch_size: usize,
    max_concurrent_requests: usize,
    auto_truncate: bool,
    tokenization_workers: usize,
    version: &'static str,
}

#[derive(Serialize)]
#[serde(rename_all = "lowercase")]
enum ModelType {
    Embedding { pooling: String },
    Reranker { id2label: BTreeMap<&'static str, &'static str>, label2id: BTreeMap<&'static str, usize> },
}

/// An answer, with the tokens that it took where the original says them, too.
fn counted(value: &impl Serialize, texts: usize, tokens: usize) -> Response {
    let mut response = json(StatusCode::OK, value);
    response.headers_mut().insert(COMPUTE_TOKENS, tokens.into());
    response.extensions_mut().insert(Work { texts, tokens });
    response
}

pub async fn embed(State(server): State<Arc<Server>>, request: Request) -> Response {
    dense(&server, request).await.unwrap_or_else(|failure| failure.response(Form::Tei))
}

async fn dense(server: &Server, request: Request) -> Result<Response, Failure> {
    let (EmbedRequest { inputs, normalize, truncate, truncation_direction, prompt_name, dimensions }, _place) =
        server.read(request).await?;
    let wanted = Wanted { output: OutputKind::Dense, dimensions, normalize: Some(normalize) };
    let answer = encode(server, inputs, truncate, truncation_direction, prompt_name, wanted).await?;
    let rows: Vec<Vec<f32>> = answer.rows.into_iter().map(|row| row.dense).collect();
    Ok(counted(&rows, rows.len(), answer.tokens))
}

/// What the model that is served gives first, at TEI's own root path.
pub async fn root(state: State<Arc<Server>>, request: Request) -> Response {
    match &state.embedder {
        Some(served) if served.queue.about.outputs.contains(&OutputKind::Dense) => embed(state, request).await,
        Some(_) => embed_sparse(state, request).await,
        None => rerank(state, request).await,
    }
}

pub async fn embed_sparse(State(server): State<Arc<Server>>, request: Request) -> Response {
    sparse(&server, request).await.unwrap_or_else(|failure| failure.response(Form::Tei))
}

async fn sparse(server: &Server, request: Request) -> Result<Response, Failure> {
    let (EmbedSparseRequest { inputs, truncate, truncation_direction, prompt_name }, _place) =
        server.read(request).await?;
    let wanted = Wanted { output: OutputKind::Sparse, dimensions: None, normalize: None };
    let answer = encode(server, inputs, truncate, truncation_direction, prompt_name, wanted).await?;
    let values = |row: Row| row.sparse.iter().map(|(index, value)| SparseValue { index, value }).collect();
    let rows: Vec<Vec<SparseValue>> = answer.rows.into_iter().map(values).collect();
    Ok(counted(&rows, rows.len(), answer.tokens))
}

async fn encode(
    server: &Server,
    inputs: Texts,
    truncate: Option<bool>,
    direction: Option<Direction>,
    prompt_name: Option<String>,
    wanted: Wanted,
) -> Result<Answer<Row>, Failure> {
    let truncate = may_cut(server, truncate, direction)?;
    let given = |about: &[OutputKind]| about.contains(&wanted.output);
    let Some(embedder) = server.embedder.as_ref().filter(|served| given(&served.queue.about.outputs)) else {
        let kind = if wanted.output == OutputKind::Sparse { "sparse" } else { "dense" };
        return Err(Failure::new(Reason::NotGiven, format!("no model that gives {kind} vectors is served")));
    };
    let texts = inputs.checked(server.limits.max_texts, "inputs")?;
    let count = texts.len();
    embedder.queue.submit(Embed { texts, prompt_name, truncate, wanted }, count).await
}

fn may_cut(server: &Server, truncate: Option<bool>, direction: Option<Direction>) -> Result<bool, Failure> {
    match direction {
        Some(Direction::Left) => {
            let message = "texts are cut at their end only: truncation_direction must be \"Right\"";
            Err(Failure::new(Reason::Invalid, message).at("truncation_direction"))
        }
        Some(Direction::Right) | None => Ok(truncate.unwrap_or(server.limits.auto_truncate)),
    }
}

pub async fn rerank(State(server): State<Arc<Server>>, request: Request) -> Response {
    score(&server, request).await.unwrap_or_else(|failure| failure.response(Form::Tei))
}

async fn score(server: &Server, request: Request) -> Result<Response, Failure> {
    let (RerankRequest { query, texts, raw_scores, return_text, truncate, truncation_direction }, _place) =
        server.read(request).await?;
    let truncate = may_cut(server, truncate, truncation_direction)?;
    let Some(reranker) = &server.reranker else {
        return Err(Failure::new(Reason::NotGiven, "no reranker is served"));
    };
    check_count(texts.len(), server.limits.max_texts, "texts")?;
    if query.is_empty() {
        return Err(Failure::new(Reason::Empty, "query: it is empty").at("query"));
    }
    let count = texts.len();
    let mut kept = if return_text { texts.clone() } else { Vec::new() };
    let request = Rerank { query, documents: texts, truncate, normalize: !raw_scores };
    let answer = reranker.queue.submit(request, count).await?;
    let ranks: Vec<Rank> = rank(answer.rows.into_iter().enumerate(), None)
        .into_iter()
        .map(|ranked| Rank {
            index: ranked.index,
            score: ranked.score,
            text: kept.get_mut(ranked.index).map(std::mem::take),
        })
        .collect();
    Ok(counted(&ranks, ranks.len(), answer.tokens))
}

/// The embedder, or without one the reranker: the description has room for one model.
pub async fn info(State(server): State<Arc<Server>>) -> Response {
    let embedder = server.embedder.as_ref().map(|served| {
        let about = &served.queue.about;
        let pooling = match about.pooling.first() {
            Some(Pooling::Cls) => "cls",
            Some(Pooling::Max) => "max",
            Some(Pooling::Mean) => "mean",
            Some(Pooling::MeanSqrtLen) => "mean_sqrt_len",
            Some(Pooling::WeightedMean) => "weighted_mean",
            Some(Pooling::LastToken) => "last_token",
            None if about.outputs.contains(&OutputKind::Dense) => "mean",
            None => "splade",
        };
        (served.name(), about.max_tokens, ModelType::Embedding { pooling: pooling.to_owned() })
    });
    let reranker = || {
        // What transformers calls a single label that has no name.
        let (id2label, label2id) = ([("0", "LABEL_0")].into(), [("LABEL_0", 0)].into());
        let served = server.reranker.as_ref()?;
        Some((served.name(), served.queue.about.max_tokens, ModelType::Reranker { id2label, label2id }))
    };
    let Some((name, max_input_length, model_type)) = embedder.or_else(reranker) else {
        return Failure::new(Reason::NotGiven, "no model is served").response(Form::Tei);
    };
    let limits = &server.limits;
    let info = Info {
        model_id: name,
        served_model_name: name,
        model_sha: None,
        model_dtype: &server.dtype,
        model_type,
        max_input_length,
        max_batch_tokens: BATCH_TOKENS,
        max_client_batch_size: limits.max_texts,
        max_concurrent_requests: limits.max_requests,
        auto_truncate: limits.auto_truncate,
        tokenization_workers: 1,
        version: env!("CARGO_PKG_VERSION"),
    };
    json(StatusCode::OK, &info)
}

/// Nothing, with a status that says whether all models can still compute.
pub async fn health(State(server): State<Arc<Server>>) -> Response {
    let embedder = server.embedder.as_ref().is_none_or(|served| served.queue.is_alive());
    let reranker = server.reranker.as_ref().is_none_or(|served| served.queue.is_alive());
    match embedder && reranker {
        true => Response::new(Body::empty()),
        false => Failure::new(Reason::Unhealthy, "a model is gone").response(Form::Tei),
    }
}
