//! The batches of a call: how large, in which order, and when to stop. Embedders, rerankers and distillation alike.

use crate::{
    error::Result,
    load::{Watch, check},
    ops::Effort,
    platform::{Clock, Pacer},
    text::Queue,
};

/// How large a batch may be.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Tokens of a batch of several texts.
    pub tokens: usize,
    pub texts: usize,
}

/// What computes batches.
pub trait Computes {
    /// How large the next one may be.
    fn limits(&self) -> Limits;

    /// Told before each batch, so that what pays only in long calls can be made ready.
    async fn consider(&self, _: &Effort) {}

    /// What the caller is to hear of.
    fn warnings(&self) -> Vec<String> {
        Vec::new()
    }
}

/// Lets `compute` have the indices of all texts that have a token, a batch at a time, longest first. Stops between two batches.
pub async fn compute<W: Watch>(
    lengths: &[usize],
    model: &impl Computes,
    watch: &W,
    mut compute: impl AsyncFnMut(&[usize]) -> Result<()>,
) -> Result<()> {
    let mut pacer = Pacer::new();
    let mut queue = Queue::new(lengths);
    let (clock, total) = (Clock::start(), queue.tokens());
    let mut texts = 0;
    loop {
        check(watch)?;
        let left = queue.tokens();
        model.consider(&Effort { seconds: clock.seconds(), done: total - left, left }).await;
        let Limits { tokens, texts: most } = model.limits();
        let Some(indices) = queue.take(tokens, most) else { break };
        // A text without a single token has nothing to compute.
        let filled: Vec<usize> = indices.iter().copied().filter(|&index| lengths[index] > 0).collect();
        texts += indices.len();
        if !filled.is_empty() {
            let computed = compute(&filled).await;
            model.warnings().iter().for_each(|warning| watch.warned(warning));
            computed?;
        }
        watch.encoded(texts, lengths.len());
        pacer.breathe().await;
    }
    Ok(())
}
