//! Strings to token ids to packed batches.
//!
//! Nothing here knows a model: [`tokenizer`] reads `tokenizer.json`, [`prompts`] holds the prefixes a model asks for, and
//! [`Batch`] lays texts end to end with one span per text. There is no padding to read by mistake.

mod head;
mod parts;
pub mod prompts;
pub mod tokenizer;

use std::ops::Range;

pub use prompts::Prompts;
pub use tokenizer::{BertText, Encoded, Form, PairLimit, Settings, Tokenizer};

/// The tokens of several texts, end to end.
#[derive(Debug, Default, Clone)]
pub struct Batch {
    /// Token ids of all texts.
    pub ids: Vec<u32>,
    /// Segment ids, as long as `ids`.
    pub type_ids: Vec<u32>,
    /// The tokens of each text.
    pub spans: Vec<Range<usize>>,
    /// The tokens of each text that pooling reads: its span, or its span without the prompt.
    pub pooled: Vec<Range<usize>>,
}

impl Batch {
    /// Texts of a few ids that every vocabulary has, for warming up and measuring.
    pub fn even(texts: usize, length: usize) -> Self {
        let count = texts * length;
        let spans: Vec<_> = (0..texts).map(|text| text * length..(text + 1) * length).collect();
        Batch {
            ids: (0..count as u32).map(|at| at % 3).collect(),
            type_ids: vec![0; count],
            pooled: spans.clone(),
            spans,
        }
    }

    /// Packs texts in the order given.
    pub fn pack<'a>(texts: impl IntoIterator<Item = &'a Encoded>) -> Self {
        let mut batch = Batch::default();
        for text in texts {
            let start = batch.ids.len();
            batch.ids.extend_from_slice(&text.ids);
            batch.type_ids.extend_from_slice(&text.type_ids);
            let end = batch.ids.len();
            batch.spans.push(start..end);
            batch.pooled.push((start + text.unpooled).min(end)..end);
        }
        batch
    }
}

/// The texts of a call that are still to be computed, longest first, so that memory reaches its peak at once and not at the end.
pub struct Queue<'a> {
    lengths: &'a [usize],
    order: Vec<usize>,
    taken: usize,
    tokens: usize,
}

impl<'a> Queue<'a> {
    /// Texts of so many tokens.
    pub fn new(lengths: &'a [usize]) -> Self {
        let mut order: Vec<usize> = (0..lengths.len()).collect();
        order.sort_unstable_by_key(|&index| (std::cmp::Reverse(lengths[index]), index));
        Self { lengths, order, taken: 0, tokens: lengths.iter().sum() }
    }

    /// Tokens of all texts in it.
    pub fn tokens(&self) -> usize {
        self.tokens
    }

    /// The indices of the next texts, of similar length: at most `texts` texts of at most `tokens` tokens, or a single text.
    pub fn take(&mut self, tokens: usize, texts: usize) -> Option<&[usize]> {
        let rest = &self.order[self.taken..];
        let mut sum = 0;
        let fits = |&&index: &&usize| {
            sum += self.lengths[index];
            sum <= tokens
        };
        let count = rest.iter().take(texts).take_while(fits).count().max(1).min(rest.len());
        let taken = &rest[..count];
        self.tokens -= taken.iter().map(|&index| self.lengths[index]).sum::<usize>();
        self.taken += count;
        (count > 0).then_some(taken)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_queue_gives_every_text_once_and_keeps_the_budget() {
        let lengths = [3, 50, 7, 0, 12, 12, 1, 9];
        let mut queue = Queue::new(&lengths);
        let mut seen = Vec::new();
        assert_eq!(queue.take(20, 3), Some([1].as_slice()));
        seen.push(1);
        let mut left = 44;
        while let Some(batch) = queue.take(20, 3).map(<[usize]>::to_vec) {
            let tokens: usize = batch.iter().map(|&index| lengths[index]).sum();
            assert!(batch.len() <= 3 && tokens <= 20, "{batch:?} holds {tokens} tokens");
            left -= tokens;
            assert_eq!(queue.tokens(), left);
            seen.extend(batch);
        }
        seen.sort_unstable();
        assert_eq!(seen, (0..lengths.len()).collect::<Vec<_>>());
        assert_eq!(Queue::new(&[]).take(20, 3), None);
        let mut queue = Queue::new(&lengths);
        assert_eq!(queue.take(100, 9), Some([1, 4, 5, 7, 2, 0, 6, 3].as_slice()));
    }

    #[test]
    fn packing_leaves_the_prompt_out_of_pooling_only() {
        let text = |ids: &[u32], unpooled| Encoded {
            ids: ids.to_vec(),
            type_ids: vec![0; ids.len()],
            unpooled,
            truncated: false,
        };
        let batch = Batch::pack([&text(&[1, 2, 3], 2), &text(&[4, 5], 0), &text(&[6], 9)]);
        assert_eq!(batch.ids, [1, 2, 3, 4, 5, 6]);
        assert_eq!(batch.spans, [0..3, 3..5, 5..6]);
        assert_eq!(batch.pooled, [2..3, 3..5, 6..6]);
    }
}
