//! Inputs to requests: by number, and by an estimate of their tokens.

use std::ops::Range;

use super::Limits;

/// About how many tokens a text is, rather more than less: a tokenizer of the provider's is not here, and what is too large is refused.
/// English has four letters to a token, and code three; beyond ASCII (Chinese, Thai) a letter may be more than one.
pub(super) fn estimate(text: &str) -> usize {
    let letters = text.chars().count();
    let ascii = text.bytes().filter(u8::is_ascii).count();
    ascii.div_ceil(3) + ((letters - ascii) * 3).div_ceil(2)
}

/// Consecutive inputs for each request. `beside` is what each input costs beside its own tokens. An input that is larger than the
/// limit has a request of its own, and the provider decides.
pub(super) fn plan(texts: &[String], limits: Limits, beside: usize) -> Vec<Range<usize>> {
    let Limits { inputs, tokens: most, .. } = match limits.whole {
        true => Limits::new(usize::MAX, usize::MAX),
        false => limits,
    };
    let mut batches = Vec::new();
    let (mut start, mut tokens) = (0, 0usize);
    for (index, text) in texts.iter().enumerate() {
        let cost = estimate(text).saturating_add(beside);
        let full = index - start >= inputs || tokens.saturating_add(cost) > most;
        if full && index > start {
            batches.push(start..index);
            (start, tokens) = (index, 0);
        }
        tokens = tokens.saturating_add(cost);
    }
    if start < texts.len() {
        batches.push(start..texts.len());
    }
    batches
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(lengths: &[usize]) -> Vec<String> {
        lengths.iter().map(|&length| "a".repeat(length)).collect()
    }

    #[test]
    fn inputs_are_split_by_number_and_by_tokens() {
        let texts = texts(&[3, 3, 3, 30, 3, 90, 3]);
        assert_eq!(plan(&texts, Limits::new(3, usize::MAX), 0), [0..3, 3..6, 6..7]);
        assert_eq!(plan(&texts, Limits::new(99, 12), 0), [0..3, 3..5, 5..6, 6..7]);
        assert_eq!(plan(&texts[..3], Limits::new(99, 12), 5), [0..2, 2..3]);
        let whole = plan(&texts, Limits { whole: true, ..Limits::new(1, 1) }, 0);
        assert_eq!((whole.len(), whole[0].len()), (1, 7));
        assert!(plan(&[], Limits::new(3, 3), 0).is_empty());
    }

    #[test]
    fn the_estimate_errs_upwards() {
        // Tokens of OpenAI's cl100k_base.
        for (text, tokens) in [("The food was delicious and the waiter...", 8), ("你好，世界", 6), ("fn main() {}", 4)]
        {
            assert!((tokens..5 * tokens).contains(&estimate(text)), "{text}: {}", estimate(text));
        }
    }
}
