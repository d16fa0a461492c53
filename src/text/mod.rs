//! Strings to token ids to packed batches.
//!
//! Nothing here knows a model: [`tokenizer`] reads `tokenizer.json`, [`prompts`] holds the prefixes a model asks for, and
//! [`Batch`] lays texts end to end with one span per text. There is no padding to read by mistake.

mod parts;
pub mod prompts;
pub mod tokenizer;

use std::ops::Range;

pub use prompts::{Prompts, Role, RolePrompts};
pub use tokenizer::{Encoded, Form, PairLimit, Tokenizer};

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

/// Cuts texts into batches of similar length: indices sorted by length, longest first, each batch holding at most `budget` tokens,
/// and `most` texts, or a single text. The longest comes first so that memory reaches its peak at once and not at the end.
pub fn plan(lengths: &[usize], budget: usize, most: usize) -> Vec<Vec<usize>> {
    let mut order: Vec<usize> = (0..lengths.len()).collect();
    order.sort_by_key(|&index| std::cmp::Reverse(lengths[index]));
    let mut batches: Vec<Vec<usize>> = Vec::new();
    let mut tokens = 0;
    for index in order {
        match batches.last_mut() {
            Some(batch) if tokens + lengths[index] <= budget && batch.len() < most => batch.push(index),
            _ => {
                batches.push(vec![index]);
                tokens = 0;
            }
        }
        tokens += lengths[index];
    }
    batches
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_holds_every_text_once_and_keeps_the_budget() {
        let lengths = [3, 50, 7, 0, 12, 12, 1, 9];
        let batches = plan(&lengths, 20, 3);
        let mut seen: Vec<usize> = batches.iter().flatten().copied().collect();
        seen.sort_unstable();
        assert_eq!(seen, (0..lengths.len()).collect::<Vec<_>>());
        for batch in &batches {
            let tokens: usize = batch.iter().map(|&index| lengths[index]).sum();
            assert!(batch.len() <= 3, "{batch:?}");
            assert!(tokens <= 20 || batch.len() == 1, "{batch:?} holds {tokens} tokens");
        }
        assert_eq!(batches[0], [1]);
        assert!(plan(&[], 20, 3).is_empty());
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
