//! `wick rerank`: a query and texts in, scores out.

use std::{num::NonZeroUsize, path::PathBuf};

use wick_embed::{
    RerankOptions, Reranker, Result,
    platform::native::{Directory, block_on},
};

use crate::{
    Bars, Part,
    input::{Machine, Texts},
    output::Target,
};

/// Most texts that are scored in one call, and bytes after which no more join it.
const PART: (usize, usize) = (1024, 8 << 20);

#[derive(clap::Args)]
pub struct Rerank {
    /// The folder of a reranker, with config.json, tokenizer.json and model.safetensors.
    #[arg(long)]
    model: PathBuf,
    #[command(flatten)]
    machine: Machine,
    /// What texts are scored for.
    #[arg(long)]
    query: String,
    #[command(flatten)]
    texts: Texts,
    /// Where scores go, a line {"index": ..., "score": ...} for each text in the order of the
    /// input; standard output by default.
    #[arg(long)]
    output: Option<PathBuf>,
    /// Only this many texts, best first.
    #[arg(long)]
    top_k: Option<NonZeroUsize>,
    /// Cut the query after this many tokens, and then only texts; by default the longer of the two
    /// is cut.
    #[arg(long)]
    max_query_tokens: Option<usize>,
    /// Scores between 0 and 1 or not; by default as the model says.
    #[arg(long)]
    normalize: Option<bool>,
}

impl Rerank {
    pub fn run(self) -> Result<()> {
        let mut target = Target::open(self.output.as_deref())?;
        let count = self.texts.count()?;
        let mut texts = self.texts.open()?;
        let bars = Bars::new();
        let options = RerankOptions {
            max_query_tokens: self.max_query_tokens,
            normalize: self.normalize,
            ..self.machine.rerank_options()
        };
        let reranker = block_on(Reranker::load(&Directory::new(&self.model), &options, &bars))?;
        let (mut done, mut best) = (0, Vec::new());
        let mut is_read = true;
        while is_read {
            let some = texts.some(PART.0, PART.1)?;
            if some.is_empty() {
                break;
            }
            let part = Part { bars: &bars, before: done, total: count };
            let scores = block_on(reranker.score_prepared(&reranker.prepare(&self.query, &some)?, None, &part))?;
            let scored = (done..).zip(scores);
            done += some.len();
            match self.top_k {
                Some(most) => {
                    best.extend(scored);
                    best.sort_by(|(_, left), (_, right): &(usize, f32)| right.total_cmp(left));
                    best.truncate(most.get());
                }
                None => is_read = write(&mut target, scored)?,
            }
        }
        write(&mut target, best)?;
        target.finish()?;
        bars.bar.finish_and_clear();
        Ok(())
    }
}

fn write(target: &mut Target, scores: impl IntoIterator<Item = (usize, f32)>) -> Result<bool> {
    target.write(|target| {
        scores.into_iter().try_for_each(|(index, score)| {
            serde_json::to_writer(&mut *target, &serde_json::json!({ "index": index, "score": score }))?;
            target.write_all(b"\n")
        })
    })
}
