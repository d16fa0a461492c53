//! text-embeddings-inference: its own addresses. Its `/v1/embeddings` is spoken to as OpenAI.
//!
//! Must agree with <https://github.com/huggingface/text-embeddings-inference> (`docs/openapi.json`, 1.9.3).

use serde::Deserialize;

use super::{
    Ask, Auth, Endpoint, Fields, Limits, Reply, ReplyRows, Spec, Truncate,
    answer::{Numbers, parse},
    as_it_comes, list,
    options::Field,
};
use crate::{error::Result, platform::HttpResponse};

/// What it takes unless it is started with another `--max-client-batch-size`.
const LIMITS: Limits = Limits::new(32, usize::MAX);

pub(super) const SPEC: Spec = Spec {
    name: "tei",
    base_url: |_| None,
    auth: Auth::Bearer,
    models: &[],
    dense: Some(Endpoint {
        honours: &[Field::Dimensions, Field::Truncate, Field::Normalize],
        limits: |_| LIMITS,
        request: |ask| {
            inputs(ask)
                .maybe("dimensions", ask.options.dimensions)
                .maybe("normalize", ask.options.normalize)
                .sent_to("/embed", ask)
        },
        response: embedded,
        normalize: as_it_comes,
    }),
    sparse: Some(Endpoint {
        honours: &[Field::Truncate],
        limits: |_| LIMITS,
        request: |ask| inputs(ask).sent_to("/embed_sparse", ask),
        response: sparse,
        normalize: as_it_comes,
    }),
    rerank: Some(Endpoint {
        honours: &[Field::Truncate],
        limits: |_| LIMITS,
        request: |ask| {
            // It has no field for how many are wanted.
            truncated(Fields::new().with("query", ask.query).with("texts", ask.texts), ask).sent_to("/rerank", ask)
        },
        response: ranked,
        normalize: as_it_comes,
    }),
};

fn inputs(ask: &Ask) -> Fields {
    truncated(Fields::new().with("inputs", ask.texts), ask)
}

fn truncated(fields: Fields, ask: &Ask) -> Fields {
    let direction = match ask.options.truncate {
        Some(Truncate::Start) => Some("Left"),
        Some(Truncate::End) => Some("Right"),
        _ => None,
    };
    fields
        .maybe("truncate", ask.options.truncate.map(|truncate| truncate != Truncate::None))
        .maybe("truncation_direction", direction)
}

/// Its own header, which a page sees only if the server exposes it.
fn tokens(response: &HttpResponse) -> Option<f64> {
    response.header("x-compute-tokens")?.parse().ok()
}

fn embedded(_: &Ask, response: &HttpResponse) -> Result<Reply> {
    let rows: Vec<Numbers> = parse(&response.body)?;
    Ok(Reply { rows: ReplyRows::Dense(rows.into_iter().map(|row| (None, row)).collect()), tokens: tokens(response) })
}

#[derive(Deserialize)]
struct Weight {
    index: u32,
    value: f32,
}

fn sparse(_: &Ask, response: &HttpResponse) -> Result<Reply> {
    let rows: Vec<Vec<Weight>> = parse(&response.body)?;
    let pairs = |row: Vec<Weight>| row.into_iter().map(|weight| (weight.index, weight.value)).collect();
    Ok(Reply { rows: ReplyRows::Sparse(rows.into_iter().map(pairs).collect()), tokens: tokens(response) })
}

fn ranked(_: &Ask, response: &HttpResponse) -> Result<Reply> {
    Ok(list::scores(parse(&response.body)?, tokens(response)))
}

#[cfg(test)]
mod tests {
    use super::super::{Provider, RemoteOptions, tests::*};
    use super::*;
    use crate::call::OutputKind;

    fn options() -> RemoteOptions {
        let mut options = RemoteOptions::new(Provider::Tei, "");
        options.base_url = Some("http://127.0.0.1:8080".to_owned());
        options
    }

    #[test]
    fn the_request_holds_what_was_asked_for() {
        let request = embed(&options(), Query, &["a"]).expect("valid");
        assert_eq!((request.path.as_str(), request.body), ("/embed", json(r#"{"inputs": ["a"]}"#)));
        let mut options = options();
        options.dimensions = Some(64);
        options.truncate = Some(Truncate::Start);
        options.normalize = Some(true);
        options.extra = fields(r#"{"prompt_name": "query"}"#);
        let body = r#"{"inputs": ["a"], "dimensions": 64, "truncate": true, "truncation_direction": "Left", "normalize": true,
            "prompt_name": "query"}"#;
        assert_eq!(embed(&options, Plain, &["a"]).expect("valid").body, json(body));
        options.truncate = Some(Truncate::None);
        let body = r#"{"query": "q", "texts": ["a"], "truncate": false, "prompt_name": "query"}"#;
        let request = rerank(&options, "q", &["a"], Some(1)).expect("valid");
        assert_eq!((request.path.as_str(), request.body), ("/rerank", json(body)));
    }

    #[test]
    fn the_documented_answers_are_read() {
        let (vectors, _) = dense(&options(), 2, "[[0.0, 1.0, 2.0], [1, 2, 3]]").expect("valid");
        assert_eq!((vectors.width, vectors.row(1)), (3, &[1.0, 2.0, 3.0][..]));
        let rows =
            reply(&options(), OutputKind::Sparse, 2, r#"[[{"index": 7, "value": 0.5}, {"index": 2, "value": 1}], []]"#);
        let Ok((super::super::Rows::Sparse(rows), _)) = rows else { panic!("valid") };
        assert_eq!(
            (rows[0].indices.as_slice(), rows[0].values.as_slice(), rows[1].len()),
            (&[2, 7][..], &[1.0, 0.5][..], 0)
        );
        let answer = r#"[{"index": 1, "score": 0.9}, {"index": 0, "score": 0.1, "text": "a"}]"#;
        assert_eq!(scores(&options(), 2, None, answer).expect("valid"), [(1, 0.9), (0, 0.1)]);
    }
}
