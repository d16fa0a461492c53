//! `tokenizer.json` to token ids.
//!
//! The file's own truncation and padding are overridden: all-MiniLM-L6-v2's cuts at 128 and pads to 128, while its
//! `sentence_bert_config.json` says 256.

use std::{
    borrow::Cow,
    panic::{AssertUnwindSafe, catch_unwind},
};

use tokenizers::{
    Encoding, PostProcessor, TruncationDirection, TruncationParams, TruncationStrategy, truncate_encodings,
};

use super::parts::{self, Parts};
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
pub struct HalfPair(Encoding);

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
        let tokenizer = Self {
            inner,
            max_tokens,
            lower_case: settings.lower_case,
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
        let text = self.cased(text);
        let mut tokens = self.tokens(&text)?;
        let room = self.max_tokens.saturating_sub(self.special(false));
        let truncated = tokens.len() > room;
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
        // The fast form leaves out offsets into the text, which nothing here reads.
        guarded(|| self.inner.encode_fast(text, false))
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
        self.tokens(&self.cased(text)).map(HalfPair)
    }

    /// Joins a pair with the tokenizer's own form for pairs.
    pub fn encode_pair(&self, first: &HalfPair, second: &HalfPair, limit: PairLimit) -> Result<Encoded> {
        let (mut first, mut second) = (first.0.clone(), second.0.clone());
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
            }
            PairLimit::First(most) => {
                cut(&mut first, most.min(max_length), self.cut_from);
                cut(&mut second, max_length - first.len(), self.cut_from);
            }
        }
        let truncated = lengths != (first.len(), second.len());
        self.finished(first, Some(second), truncated)
    }

    /// Tokenizes without special tokens. With a median length of tokens also without unknown ones, and of not more characters
    /// than so many tokens of that length have, as Model2Vec does.
    pub fn encode_words(&self, text: &str, median: Option<usize>) -> Result<Encoded> {
        let characters = median.map_or(usize::MAX, |median| self.max_tokens.saturating_mul(median));
        let unknown = self.unknown.filter(|_| median.is_some());
        let head = text.char_indices().nth(characters).map_or(text, |(end, _)| &text[..end]);
        let encoding = self.tokens(head)?;
        let kept = encoding.len().min(self.max_tokens);
        let from = match self.cut_from {
            TruncationDirection::Left => encoding.len() - kept,
            TruncationDirection::Right => 0,
        };
        let ids =
            encoding.get_ids()[from..][..kept].iter().copied().filter(|&id| Some(id) != unknown).collect::<Vec<_>>();
        let truncated = head.len() < text.len() || kept < encoding.len();
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
