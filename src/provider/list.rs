//! The answer that OpenAI began and others took over: `{data: [{embedding, index}], usage}`.

use serde::Deserialize;

use super::{
    Ask, Reply, ReplyRows,
    answer::{Numbers, parse},
};
use crate::{error::Result, platform::HttpResponse};

#[derive(Deserialize)]
struct List {
    data: Vec<Item>,
    usage: Option<Usage>,
}

#[derive(Deserialize)]
struct Item {
    index: Option<usize>,
    embedding: Numbers,
}

#[derive(Deserialize)]
pub(super) struct Usage {
    total_tokens: Option<f64>,
    prompt_tokens: Option<f64>,
}

impl Usage {
    pub(super) fn tokens(usage: Option<Self>) -> Option<f64> {
        usage.and_then(|usage| usage.total_tokens.or(usage.prompt_tokens))
    }
}

/// Reads it.
pub(super) fn embeddings(_: &Ask, response: &HttpResponse) -> Result<Reply> {
    let List { data, usage } = parse(&response.body)?;
    let rows = data.into_iter().map(|item| (item.index, item.embedding)).collect();
    Ok(Reply { rows: ReplyRows::Dense(rows), tokens: Usage::tokens(usage) })
}

/// A document's score, under the names that there are for it and its list.
#[derive(Deserialize)]
struct Ranks {
    #[serde(alias = "data")]
    results: Vec<Rank>,
    usage: Option<Usage>,
}

#[derive(Deserialize)]
pub(super) struct Rank {
    index: usize,
    #[serde(alias = "score")]
    relevance_score: f32,
}

/// Reads `{results: [{index, relevance_score}]}`, or with `data`.
pub(super) fn ranks(_: &Ask, response: &HttpResponse) -> Result<Reply> {
    let Ranks { results, usage } = parse(&response.body)?;
    Ok(scores(results, Usage::tokens(usage)))
}

pub(super) fn scores(ranks: Vec<Rank>, tokens: Option<f64>) -> Reply {
    Reply {
        rows: ReplyRows::Scores(ranks.into_iter().map(|rank| (rank.index, rank.relevance_score)).collect()),
        tokens,
    }
}
