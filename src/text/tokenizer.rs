//! `tokenizer.json` to token ids.
//!
//! The file's own truncation and padding are overridden: all-MiniLM-L6-v2's cuts at 128 and pads to 128, while its
//! `sentence_bert_config.json` says 256.

use tokenizers::{TruncationDirection, TruncationParams, TruncationStrategy};

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

/// A tokenizer with this model's length limit.
#[derive(Debug, Clone)]
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    lower_case: bool,
}

impl Tokenizer {
    /// Reads `tokenizer.json`. `max_tokens` counts special tokens; `lower_case` is `do_lower_case` of `sentence_bert_config.json`.
    pub fn from_bytes(json: &[u8], max_tokens: usize, lower_case: bool) -> Result<Self> {
        let invalid = |error: tokenizers::Error| Error::new(Code::InvalidTokenizer, FILE, error.to_string());
        let mut inner = tokenizers::Tokenizer::from_bytes(json).map_err(invalid)?;
        let special = inner.get_post_processor().map_or(0, |processor| {
            use tokenizers::PostProcessor;
            processor.added_tokens(false)
        });
        if max_tokens <= special {
            return Err(Error::new(
                Code::InvalidOption,
                "maxTokens",
                format!("{max_tokens} leaves no room beside {special} special tokens"),
            ));
        }
        inner.with_padding(None);
        inner
            .with_truncation(Some(TruncationParams {
                max_length: max_tokens,
                strategy: TruncationStrategy::LongestFirst,
                stride: 0,
                direction: TruncationDirection::Right,
            }))
            .map_err(invalid)?;
        Ok(Self { inner, lower_case })
    }

    /// One more than the largest id this tokenizer can give.
    pub fn id_bound(&self) -> usize {
        let largest = self.inner.get_vocab(true).into_values().max();
        largest.map_or(0, |id| id as usize + 1)
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
        // sentence-transformers strips each text before it tokenizes.
        let text = text.trim();
        let lowered;
        let text = if self.lower_case {
            lowered = text.to_lowercase();
            lowered.as_str()
        } else {
            text
        };
        // The fast form leaves out offsets into the text, which nothing here reads.
        let encoding = self
            .inner
            .encode_fast(text, true)
            .map_err(|error| Error::new(Code::InvalidTokenizer, FILE, error.to_string()))?;
        Ok(Encoded {
            ids: encoding.get_ids().to_vec(),
            type_ids: encoding.get_type_ids().to_vec(),
            unpooled: 0,
            truncated: !encoding.get_overflowing().is_empty(),
        })
    }

    /// The vocabulary's string for an id.
    pub fn token(&self, id: u32) -> Option<String> {
        self.inner.id_to_token(id)
    }
}
