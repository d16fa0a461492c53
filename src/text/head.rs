//! The beginning of a long text: as much as the first tokens depend on.
//!
//! A tokenizer needs some 200 bytes of memory for each byte of a text, and a model reads a few
//! hundred tokens of it. So a long text is tokenized from its beginning in growing heads, until
//! enough tokens lie so far from the end of the head that what follows cannot change them.

use std::borrow::Cow;

/// How many bytes before the end of a head may depend on what comes after it.
///
/// What joins characters there reaches no farther: added tokens, composed characters, white space,
/// words, and the pieces of a word. Of a word that is longer itself, WordPiece makes one unknown
/// token (see [`head`]). A Unigram model's best pieces up to some place depend only on what is
/// before it, and where two ends differ their pieces meet again within a few pieces. BPE joins the
/// pair of least rank first, so that a change travels only along pairs of falling rank.
pub const MARGIN: usize = 4096;

/// Most bytes of a text that are tokenized at once: where a whole text must be tokenized, longer
/// ones are refused.
pub const MOST: usize = 2 << 20;

/// Most letters of a word, and most spaces between two, that a head keeps where it makes no
/// difference.
const LONGEST_RUN: usize = 4096;

/// How many bytes to begin with for so many tokens: eight each, which is twice what most texts have.
pub fn first_length(tokens: usize) -> usize {
    tokens.saturating_mul(8).clamp(4 << 10, MOST - MARGIN) + MARGIN
}

/// The beginning of a text, of about so many bytes, and whether it is all of it.
///
/// With `shorten`, words of ASCII letters and digits are cut to 4,096 of them, and so are runs of
/// spaces: for a tokenizer that makes one unknown token of each long word, and none of spaces.
pub fn head(text: &str, length: usize, shorten: bool) -> (Cow<'_, str>, bool) {
    if text.len() <= length {
        return (Cow::Borrowed(text), true);
    }
    // The crate is to compile with Rust 1.90, which has no `floor_char_boundary`.
    let end = (0..=length).rev().find(|&end| text.is_char_boundary(end)).unwrap_or(0);
    if !shorten || !has_long_run(&text[..end]) {
        return (Cow::Borrowed(&text[..end]), false);
    }
    let mut head = String::with_capacity(length);
    let (mut run, mut kind) = (0, None);
    for letter in text.chars() {
        let of = run_kind(letter);
        run = if of.is_some() && of == kind { run + 1 } else { 1 };
        kind = of;
        if kind.is_none() || run <= LONGEST_RUN {
            if head.len() + letter.len_utf8() > length {
                return (Cow::Owned(head), false);
            }
            head.push(letter);
        }
    }
    (Cow::Owned(head), true)
}

/// Of which kind of run a character may be part: a word, or the space between two.
fn run_kind(letter: char) -> Option<bool> {
    match letter {
        _ if letter.is_ascii_alphanumeric() => Some(true),
        ' ' | '\t' | '\n' | '\r' => Some(false),
        _ => None,
    }
}

fn has_long_run(text: &str) -> bool {
    let same = |a: &u8, b: &u8| {
        let kind = run_kind(char::from(*a));
        kind.is_some() && kind == run_kind(char::from(*b))
    };
    text.as_bytes().chunk_by(same).any(|run| run.len() > LONGEST_RUN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_end_between_characters_and_shorten_words_that_are_unknown() {
        assert_eq!(head("äöü", 6, true), (Cow::Borrowed("äöü"), true));
        assert_eq!(head("äöü", 5, true), (Cow::Borrowed("äö"), false));
        let long = format!("a {} b. {}", "x".repeat(10_000), "y ".repeat(10_000));
        assert_eq!(head(&long, 9_000, false), (Cow::Borrowed(&long[..9_000]), false));
        let (shortened, whole) = head(&long, 9_000, true);
        assert!(shortened.starts_with(&format!("a {} b. y y", "x".repeat(LONGEST_RUN))) && !whole);
        assert_eq!(shortened.len(), 9_000);
        let spaces = format!("a{}b", " ".repeat(20_000));
        assert_eq!(head(&spaces, 9_000, true), (Cow::Owned(format!("a{}b", " ".repeat(LONGEST_RUN))), true));
        assert_eq!(head(&"x".repeat(1 << 20), 9_000, true), (Cow::Owned("x".repeat(LONGEST_RUN)), true));
    }
}
