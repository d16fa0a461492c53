//! The batches of a call: how large, in which order, and when to stop. Embedders, rerankers and distillation alike.

use crate::{
    call::{Watch, check},
    error::Result,
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
    fn consider(&self, _: &Effort) -> impl Future<Output = ()> {
        async {}
    }

    /// What the caller is to hear of.
    fn warnings(&self) -> Vec<String> {
        Vec::new()
    }
}

/// The batches of a call that are still to be computed: of texts that have a token, longest first.
pub struct Batches<'a> {
    queue: Queue<'a>,
    lengths: &'a [usize],
    clock: Clock,
    pacer: Pacer,
    tokens: usize,
    texts: usize,
}

impl<'a> Batches<'a> {
    /// Of texts of so many tokens.
    pub fn new(lengths: &'a [usize]) -> Self {
        let queue = Queue::new(lengths);
        let tokens = queue.tokens();
        Self { queue, lengths, clock: Clock::start(), pacer: Pacer::new(), tokens, texts: 0 }
    }

    /// The indices of the next one's texts, once the last one is computed; none at the end. Stops where the caller asked to.
    pub async fn next(&mut self, model: &impl Computes, watch: &dyn Watch) -> Result<Option<Vec<usize>>> {
        loop {
            if self.texts > 0 {
                model.warnings().iter().for_each(|warning| watch.warned(warning));
                watch.encoded(self.texts, self.lengths.len());
                self.pacer.breathe().await;
            }
            check(watch)?;
            let left = self.queue.tokens();
            model.consider(&Effort { seconds: self.clock.seconds(), done: self.tokens - left, left }).await;
            let Limits { tokens, texts } = model.limits();
            let Some(indices) = self.queue.take(tokens, texts) else { return Ok(None) };
            self.texts += indices.len();
            // A text without a single token has nothing to compute.
            let filled: Vec<usize> = indices.iter().copied().filter(|&index| self.lengths[index] > 0).collect();
            if !filled.is_empty() {
                return Ok(Some(filled));
            }
        }
    }
}
