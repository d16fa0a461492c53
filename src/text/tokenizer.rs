//! `tokenizer.json` to token ids.
//!
//! The file's own truncation and padding are overridden: all-MiniLM-L6-v2's cuts at 128 and pads to 128, while its
//! `sentence_bert_config.json` says 256.

use std::{
    borrow::Cow,
    panic::{AssertUnwindSafe, catch_unwind},
};

use tokenizers::{
    Encoding, ModelWrapper, NormalizerWrapper, PostProcessor, PreTokenizerWrapper, TruncationDirection,
    TruncationParams, TruncationStrategy, truncate_encodings,
};

use super::{
    head::{self, head},
    parts::{self, Parts},
};
use crate::error::{Code, Error, Result};

const FILE: &str = "tokenizer.json";

/// The tokens of one text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Encoded {
    /// Token ids, special tokens included.
    pub ids: Vec<u32>,
    /// Segment ids.
    pub type_ids: Vec<u32>,
    /// How many leading tokens (a prompt) pooling must leave out.
    pub unpooled: usize,
    /// Whether the text was cut to the model's length.
    pub truncated: bool,
}

pub(super) fn invalid(message: impl Into<String>) -> Error {
    Error::new(Code::InvalidTokenizer, FILE, message)
}

/// Runs the tokenizers crate, which panics on some files and texts. In a page that is a trap, and ends the engine.
fn guarded<T>(run: impl FnOnce() -> tokenizers::Result<T>) -> Result<T> {
    caught(run)?.map_err(|error| invalid(error.to_string()))
}

fn caught<T>(run: impl FnOnce() -> T) -> Result<T> {
    catch_unwind(AssertUnwindSafe(run)).map_err(|_| invalid("the tokenizer panicked; its file is damaged"))
}

/// Keeps `length` tokens, and nothing of the rest.
fn cut(tokens: &mut Encoding, length: usize, from: TruncationDirection) {
    tokens.truncate(length, 0, from);
    tokens.take_overflowing();
}

/// Whether a tokenizer makes one unknown token of each long word, and none of spaces: BERT's, unless an added token may
/// stand inside a word.
fn long_words_are_unknown(tokenizer: &tokenizers::Tokenizer) -> bool {
    let (model, normalizer, splitter) =
        (tokenizer.get_model(), tokenizer.get_normalizer(), tokenizer.get_pre_tokenizer());
    matches!(model, ModelWrapper::WordPiece(model) if model.max_input_chars_per_word <= 1000)
        && matches!(normalizer, Some(NormalizerWrapper::BertNormalizer(_)))
        && matches!(splitter, Some(PreTokenizerWrapper::BertPreTokenizer(_)))
        && !tokenizer
            .get_added_vocabulary()
            .get_vocab()
            .keys()
            .any(|token| token.bytes().all(|byte| byte.is_ascii_alphanumeric()))
}

/// What a model's files say of its tokenizer outside `tokenizer.json`.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Whether texts are put into lower case before anything else: `do_lower_case` of `sentence_bert_config.json`.
    pub lower_case: bool,
    /// What transformers' class for BERT's tokenizer sets itself, whatever `tokenizer.json` says.
    pub bert: Option<BertText>,
    /// Whether a text that begins with a word gets a space in front; by default as `tokenizer.json` says.
    pub prefix_space: Option<bool>,
    /// Whether texts that are too long lose their beginning; by default as `tokenizer.json` says.
    pub cuts_beginning: Option<bool>,
    /// Whether white space at a text's end is dropped, as transformers' classes for SentencePiece tokenizers do, where the file
    /// would make a token of it: it puts the mark for a space in front of what follows, and nothing splits off a last one.
    pub trims_end: bool,
    /// Whether the model is given the segment of each token, and not zeros.
    pub segments: bool,
}

impl Default for Settings {
    fn default() -> Self {
        let (lower_case, trims_end, segments) = (false, false, true);
        Self { lower_case, bert: None, prefix_space: None, cuts_beginning: None, trims_end, segments }
    }
}

/// How BERT's tokenizer treats the characters of a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BertText {
    pub lower_case: bool,
    /// As `lower_case` where nothing is said.
    pub strip_accents: Option<bool>,
    /// Whether each Chinese character is a word.
    pub chinese: bool,
}

/// A tokenizer with this model's length limit.
#[derive(Debug, Clone)]
pub struct Tokenizer {
    /// Without a length limit of its own: texts are cut here, where it shows that they were.
    inner: tokenizers::Tokenizer,
    max_tokens: usize,
    lower_case: bool,
    /// Whether each word of more than a few thousand letters is one unknown token, and spaces are none.
    long_words_are_unknown: bool,
    trims_end: bool,
    /// The end at which a text that is too long is cut.
    cut_from: TruncationDirection,
    segments: bool,
    unknown: Option<u32>,
    id_bound: u64,
}

/// What a tokenizer is used for, which decides the special tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// Words alone, as Model2Vec reads them.
    Words,
    /// Words alone, as sentence-transformers' table of vectors reads them.
    Table,
    /// One text.
    Text,
    /// Two texts.
    Pair,
}

/// The tokens of one half of a pair.
#[derive(Debug, Clone)]
pub struct HalfPair {
    tokens: Encoding,
    /// All of the text, where these are its first tokens only.
    whole: Option<String>,
}

/// How a pair is cut to the length limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PairLimit {
    /// Token by token from whichever of the two is longer, as in transformers' `longest_first`.
    LongestFirst,
    /// The first to so many tokens of its own, then only the second, as FlagEmbedding does.
    First(usize),
}

impl Tokenizer {
    /// Reads `tokenizer.json`. `max_tokens` counts special tokens.
    pub fn from_bytes(json: &[u8], max_tokens: usize, settings: &Settings, form: Form) -> Result<Self> {
        let Parts { tokenizer: inner, unknown, truncation } = caught(|| parts::read(json, settings))??;
        let cuts_beginning = settings.cuts_beginning.unwrap_or_else(|| truncation.is_some_and(|cut| cut.at_beginning));
        // sentence-transformers' own tables are cut as the file says; all others by the model's limit.
        let max_tokens = match (form, truncation) {
            (Form::Table, Some(truncation)) => max_tokens.min(truncation.length),
            _ => max_tokens,
        };
        let largest = inner.get_vocab(true).into_values().max();
        let id_bound = largest.map_or(0, |id| u64::from(id) + 1);
        let long_words_are_unknown = long_words_are_unknown(&inner);
        let tokenizer = Self {
            inner,
            max_tokens,
            lower_case: settings.lower_case,
            long_words_are_unknown,
            trims_end: settings.trims_end,
            cut_from: if cuts_beginning { TruncationDirection::Left } else { TruncationDirection::Right },
            segments: settings.segments,
            unknown,
            id_bound,
        };
        let special = match form {
            Form::Words | Form::Table => 0,
            Form::Text | Form::Pair => tokenizer.special(form == Form::Pair),
        };
        if max_tokens <= special {
            let message = format!("{max_tokens} leaves no room beside {special} special tokens");
            return Err(Error::new(Code::InvalidOption, "maxTokens", message));
        }
        // A file that panics at the first text should do so here.
        tokenizer.encode_one("a text, to begin with")?;
        Ok(tokenizer)
    }

    /// Most tokens of a text, special tokens included.
    pub fn max_tokens(&self) -> usize {
        self.max_tokens
    }

    /// One more than the largest id this tokenizer can give.
    pub fn id_bound(&self) -> u64 {
        self.id_bound
    }

    /// Tokenizes `prompt` and `text` as one string. With `pool_prompt` false the prompt's tokens are marked as not pooled.
    pub fn encode(&self, prompt: &str, text: &str, pool_prompt: bool) -> Result<Encoded> {
        let mut encoded = self.encode_one(&format!("{prompt}{text}"))?;
        if !pool_prompt && !prompt.is_empty() {
            // sentence-transformers' rule: the prompt's own tokens with specials, less the closing one.
            encoded.unpooled = self.encode_one(prompt)?.ids.len().saturating_sub(1);
        }
        Ok(encoded)
    }

    fn encode_one(&self, text: &str) -> Result<Encoded> {
        let room = self.max_tokens.saturating_sub(self.special(false));
        let (mut tokens, more) = self.first_tokens(text, room)?;
        let truncated = more || tokens.len() > room;
        cut(&mut tokens, room, self.cut_from);
        self.finished(tokens, None, truncated)
    }

    /// A vocabulary entry as if it were the only token of a text: between the special tokens, which are known from the way the
    /// tokenizer finishes any text.
    pub fn encode_entry(&self, id: u32, token: &str) -> Result<Encoded> {
        let token = tokenizers::Token::new(id, token.to_owned(), (0, token.len()));
        self.finished(Encoding::from_tokens(vec![token], 0), None, false)
    }

    /// A text as the tokenizer is given it.
    fn cased<'a>(&self, text: &'a str) -> Cow<'a, str> {
        let text = if self.trims_end { text.trim_end() } else { text };
        if self.lower_case { Cow::Owned(text.to_lowercase()) } else { Cow::Borrowed(text) }
    }

    /// The tokens of a text without special ones.
    fn tokens(&self, text: &str) -> Result<Encoding> {
        if text.len() > head::MOST {
            let message = format!("of {} bytes; at most {} are tokenized at once", text.len(), head::MOST);
            return Err(Error::new(Code::InvalidText, "text", message));
        }
        // The fast form leaves out offsets into the text.
        guarded(|| self.inner.encode_fast(self.cased(text), false))
    }

    /// The tokens of a text without special ones, or so many of them and then whether there are
    /// more: of a long text only as much is tokenized as these depend on.
    fn first_tokens(&self, text: &str, wanted: usize) -> Result<(Encoding, bool)> {
        // Of a text that loses its beginning the last tokens are wanted, which depend on all before.
        if wanted > head::MOST || self.cut_from == TruncationDirection::Left {
            return self.tokens(text).map(|tokens| (tokens, false));
        }
        self.tokens_of_heads(text, wanted, head::first_length(wanted))
    }

    /// The same, from heads that begin with so many bytes.
    fn tokens_of_heads(&self, text: &str, wanted: usize, mut length: usize) -> Result<(Encoding, bool)> {
        loop {
            let (head, whole) = head(text, length, self.long_words_are_unknown);
            if whole {
                return self.tokens(&head).map(|tokens| (tokens, false));
            }
            let head = self.cased(&head);
            let mut tokens = guarded(|| self.inner.encode(&*head, false))?;
            let settled = head.len().saturating_sub(head::MARGIN);
            let count = tokens.get_offsets().iter().take_while(|(_, end)| *end <= settled).count();
            if count > wanted {
                cut(&mut tokens, wanted, TruncationDirection::Right);
                return Ok((tokens, true));
            }
            if length >= head::MOST {
                // Nearly nothing of it makes tokens.
                return self.tokens(text).map(|tokens| (tokens, false));
            }
            length = (length * 4).min(head::MOST);
        }
    }

    /// How many special tokens a text, or a pair, is given.
    fn special(&self, pair: bool) -> usize {
        self.inner.get_post_processor().map_or(0, |processor| processor.added_tokens(pair))
    }

    /// Adds the special tokens.
    fn finished(&self, tokens: Encoding, pair: Option<Encoding>, truncated: bool) -> Result<Encoded> {
        let encoding = guarded(|| self.inner.post_process(tokens, pair, true))?;
        Ok(Encoded {
            ids: encoding.get_ids().to_vec(),
            type_ids: if self.segments { encoding.get_type_ids().to_vec() } else { vec![0; encoding.len()] },
            unpooled: 0,
            truncated,
        })
    }

    /// Tokenizes one half of a pair.
    pub fn half_pair(&self, text: &str) -> Result<HalfPair> {
        let (tokens, more) = self.first_tokens(text, self.max_tokens)?;
        Ok(HalfPair { tokens, whole: more.then(|| text.to_owned()) })
    }

    /// Joins a pair with the tokenizer's own form for pairs.
    pub fn encode_pair(&self, first: &HalfPair, second: &HalfPair, limit: PairLimit) -> Result<Encoded> {
        let whole = (first.whole.is_some(), second.whole.is_some()) == (false, false);
        let (mut first, mut second) = match (&first.whole, &second.whole) {
            // Which of them is the longer decides.
            (Some(first), Some(second)) if limit == PairLimit::LongestFirst => {
                (self.tokens(first)?, self.tokens(second)?)
            }
            _ => (first.tokens.clone(), second.tokens.clone()),
        };
        let lengths = (first.len(), second.len());
        let max_length = self.max_tokens.saturating_sub(self.special(true));
        match limit {
            PairLimit::LongestFirst => {
                let rule = TruncationParams {
                    max_length,
                    strategy: TruncationStrategy::LongestFirst,
                    stride: 0,
                    direction: self.cut_from,
                };
                let (cut, cut_pair) = guarded(|| truncate_encodings(first, Some(second), &rule))?;
                (first, second) = (cut, cut_pair.unwrap_or_default());
                // The rest is kept in pieces, of which the special tokens would be added to each pair.
                first.take_overflowing();
                second.take_overflowing();
            }
            PairLimit::First(most) => {
                cut(&mut first, most.min(max_length), self.cut_from);
                cut(&mut second, max_length - first.len(), self.cut_from);
            }
        }
        let truncated = !whole || lengths != (first.len(), second.len());
        self.finished(first, Some(second), truncated)
    }

    /// Tokenizes without special tokens. With a median length of tokens also without unknown ones, and of not more characters
    /// than so many tokens of that length have, as Model2Vec does.
    pub fn encode_words(&self, text: &str, median: Option<usize>) -> Result<Encoded> {
        let characters = median.map_or(usize::MAX, |median| self.max_tokens.saturating_mul(median));
        let unknown = self.unknown.filter(|_| median.is_some());
        let head = text.char_indices().nth(characters).map_or(text, |(end, _)| &text[..end]);
        let (encoding, more) = self.first_tokens(head, self.max_tokens)?;
        let kept = encoding.len().min(self.max_tokens);
        let from = match self.cut_from {
            TruncationDirection::Left => encoding.len() - kept,
            TruncationDirection::Right => 0,
        };
        let ids =
            encoding.get_ids()[from..][..kept].iter().copied().filter(|&id| Some(id) != unknown).collect::<Vec<_>>();
        let truncated = more || head.len() < text.len() || kept < encoding.len();
        Ok(Encoded { type_ids: vec![0; ids.len()], ids, unpooled: 0, truncated })
    }

    /// The median length of the vocabulary's strings in characters, rounded down.
    pub fn median_length(&self) -> usize {
        let vocabulary = self.inner.get_vocab(true);
        let mut lengths: Vec<usize> = vocabulary.keys().map(|token| token.chars().count()).collect();
        lengths.sort_unstable();
        match lengths.len() {
            0 => 0,
            count => (lengths[(count - 1) / 2] + lengths[count / 2]) / 2,
        }
    }

    /// The ids of those of these strings that are in the vocabulary.
    pub fn ids_of(&self, tokens: &[&str]) -> Vec<u32> {
        tokens.iter().filter_map(|token| self.inner.token_to_id(token)).collect()
    }

    /// The vocabulary's string for an id.
    pub fn token(&self, id: u32) -> Option<String> {
        self.inner.id_to_token(id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Numbers that look random, the same in each run.
    struct Numbers(u64);

    impl Numbers {
        fn below(&mut self, bound: usize) -> usize {
            self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (self.0 >> 33) as usize % bound
        }

        fn text(&mut self, bytes: usize, parts: &[&str]) -> String {
            let mut text = String::new();
            while text.len() < bytes {
                text.push_str(parts[self.below(parts.len())]);
            }
            text
        }
    }

    #[test]
    fn the_first_tokens_of_a_long_text_are_those_of_all_of_it() {
        let letters: Vec<String> = ('a'..='z').map(String::from).collect();
        let letters: Vec<&str> = letters.iter().map(String::as_str).collect();
        let word = "x".repeat(9_000);
        let spaces = " ".repeat(9_000);
        let kinds: [&[&str]; 12] = [
            &["the ", "weather ", "is ", "lovely ", "today. ", "He drove to ", "Stadium\n", "1984, "],
            &letters,
            &["a", "b", "ab", "ba"],
            &["天", "气", "今天", "很好", "。", "ひらがな", "カタカナ", "한국어"],
            &["👩\u{200d}👧", "🏳\u{fe0f}\u{200d}🌈", "👍🏽", "e\u{301}", "\u{301}\u{302}"],
            &[" ", "  ", "\n", "\t", "\u{a0}", "\u{3000}", "a", " b"],
            &[".", "...", "!", "-", "_", "'s", "n't", "@"],
            &["\u{0}", "\u{200b}", "\u{feff}", "\u{fffd}", "ሀ", "ꙮ", "x"],
            &["[MASK]", "<mask>", "[SEP] ", " </s>", "<pad>", "<extra_id_0>", "mask"],
            &["ﷺ", "ΟΔΟΣ ", "ΣΣ", "İ", "ß", "ﬁ", "①", "ｱ"],
            &[&word, " and more. ", "words "],
            &[&spaces, "a word", "another, "],
        ];
        let mut numbers = Numbers(1);
        let mut seen = 0;
        for fixture in ["bert-tiny", "distilbert", "xlmr", "t5", "modernbert", "gte-en", "splade-bert"] {
            let path = format!("{}/tests/fixtures/{fixture}/tokenizer.json", env!("CARGO_MANIFEST_DIR"));
            let json = std::fs::read(&path).expect(&path);
            let tokenizer = Tokenizer::from_bytes(&json, 512, &Settings::default(), Form::Text).expect(&path);
            for (number, parts) in kinds.iter().enumerate() {
                let text = numbers.text(24_000, parts);
                let all = tokenizer.tokens(&text).expect("few enough bytes");
                for (wanted, length) in [(0, 0), (1, 8), (62, 90), (510, 600), (510, 1000)] {
                    let (first, more) =
                        tokenizer.tokens_of_heads(&text, wanted, head::MARGIN + length).expect("tokens");
                    let count = first.len().min(wanted);
                    assert!(more || first.len() == all.len() || first.get_ids() == all.get_ids(), "{fixture} {number}");
                    assert_eq!(first.get_ids()[..count], all.get_ids()[..count], "{fixture}, texts of kind {number}");
                    assert_eq!(more || first.len() > wanted, all.len() > wanted, "{fixture}, texts of kind {number}");
                    assert!(count == wanted || count == all.len(), "{fixture}, texts of kind {number}");
                    seen += usize::from(more);
                }
            }
        }
        assert!(seen > 200, "only {seen} texts were cut before they were tokenized");
    }

    #[test]
    fn a_text_of_any_length_is_tokens_or_an_error() {
        let path = format!("{}/tests/fixtures/bert-tiny/tokenizer.json", env!("CARGO_MANIFEST_DIR"));
        let json = std::fs::read(&path).expect(&path);
        let tokenizer = Tokenizer::from_bytes(&json, 64, &Settings::default(), Form::Text).expect(&path);
        for part in ["a ", ".", "x", " ", "天"] {
            let text = part.repeat((8 << 20) / part.len());
            let encoded = tokenizer.encode("", &text, true).expect(part);
            assert_eq!(
                (encoded.ids.len(), encoded.truncated),
                match part {
                    "x" => (3, false),
                    " " => (2, false),
                    _ => (64, true),
                }
            );
        }
        // Nothing of it is a token, which only shows when all of it was read.
        let error = tokenizer.encode("", &"\u{200b}".repeat(800_000), true).expect_err("too long");
        assert_eq!(error.code(), Code::InvalidText);
        let long = tokenizer.half_pair(&"a ".repeat(50_000)).expect("a half");
        let short = tokenizer.half_pair("b c").expect("a half");
        for (first, second, tokens) in [(&long, &short, 25), (&short, &long, 64), (&long, &long, 64)] {
            for (limit, tokens) in [(PairLimit::LongestFirst, 64), (PairLimit::First(20), tokens)] {
                let pair = tokenizer.encode_pair(first, second, limit).expect("a pair");
                assert_eq!((pair.ids.len(), pair.truncated), (tokens, true));
            }
        }
    }
}
