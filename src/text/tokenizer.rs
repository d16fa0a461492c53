//! `tokenizer.json` to token ids.
//!
//! The file's own truncation and padding are overridden: all-MiniLM-L6-v2's cuts at 128 and pads to 128, while its
//! `sentence_bert_config.json` says 256.

use std::{
    collections::BTreeMap,
    panic::{AssertUnwindSafe, catch_unwind},
};

use serde_json::{Value, value::RawValue};
use tokenizers::{PostProcessor, TruncationDirection, TruncationParams, TruncationStrategy};

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

/// Parts of `tokenizer.json` that encoding never uses, or that are overridden.
const UNUSED: [&str; 3] = ["decoder", "padding", "truncation"];

/// The parts of `tokenizer.json` that encoding uses, checked for what the tokenizers crate would panic on (found by damaging
/// files at random): its decoder is left out unread, a template may only name what there is, and pieces have a length.
fn used_parts(json: &[u8]) -> Result<Vec<u8>> {
    let parsing = |error: serde_json::Error| invalid(error.to_string());
    let mut parts: BTreeMap<&str, &RawValue> = serde_json::from_slice(json).map_err(parsing)?;
    parts.retain(|name, _| !UNUSED.contains(name));
    for (name, check) in
        [("post_processor", check_template as fn(&Value) -> Result<()>), ("pre_tokenizer", check_pieces)]
    {
        if let Some(part) = parts.get(name) {
            each_object(&serde_json::from_str(part.get()).map_err(parsing)?, &check)?;
        }
    }
    serde_json::to_vec(&parts).map_err(parsing)
}

/// Visits every object of a value; tokenizer parts may be nested in sequences.
fn each_object(value: &Value, check: &impl Fn(&Value) -> Result<()>) -> Result<()> {
    match value {
        Value::Object(fields) => {
            check(value)?;
            fields.values().try_for_each(|value| each_object(value, check))
        }
        Value::Array(values) => values.iter().try_for_each(|value| each_object(value, check)),
        _ => Ok(()),
    }
}

fn check_template(part: &Value) -> Result<()> {
    if part["type"] != "TemplateProcessing" {
        return Ok(());
    }
    let pieces = |name: &str| part[name].as_array().into_iter().flatten();
    for piece in pieces("single").chain(pieces("pair")) {
        let special = piece["SpecialToken"]["id"].as_str();
        if let Some(id) = special.filter(|&id| part["special_tokens"].get(id).is_none()) {
            return Err(invalid(format!("its template names {id:?}, which is none of its special tokens")));
        }
    }
    match pieces("single").any(|piece| piece["Sequence"]["id"] == "B") {
        true => Err(invalid("its template for one text names a second one")),
        false => Ok(()),
    }
}

fn check_pieces(part: &Value) -> Result<()> {
    match part["type"] == "FixedLength" && part["length"] == 0 {
        true => Err(invalid("its pieces have no length")),
        false => Ok(()),
    }
}

fn invalid(message: impl Into<String>) -> Error {
    Error::new(Code::InvalidTokenizer, FILE, message)
}

/// Runs the tokenizers crate, which panics on some files and texts. In a page that is a trap, and ends the engine.
fn guarded<T>(run: impl FnOnce() -> tokenizers::Result<T>) -> Result<T> {
    match catch_unwind(AssertUnwindSafe(run)) {
        Ok(result) => result.map_err(|error| invalid(error.to_string())),
        Err(_) => Err(invalid("the tokenizer panicked; its file is damaged")),
    }
}

/// A tokenizer with this model's length limit.
#[derive(Debug, Clone)]
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    max_tokens: usize,
    lower_case: bool,
}

impl Tokenizer {
    /// Reads `tokenizer.json`. `max_tokens` counts special tokens; `lower_case` is `do_lower_case` of `sentence_bert_config.json`.
    pub fn from_bytes(json: &[u8], max_tokens: usize, lower_case: bool) -> Result<Self> {
        let parts = used_parts(json)?;
        let mut inner = guarded(|| tokenizers::Tokenizer::from_bytes(parts))?;
        let special = inner.get_post_processor().map_or(0, |processor| processor.added_tokens(false));
        if max_tokens <= special {
            return Err(Error::new(
                Code::InvalidOption,
                "maxTokens",
                format!("{max_tokens} leaves no room beside {special} special tokens"),
            ));
        }
        // One token more than fits: what is cut shows. (Where nothing is added, the crate itself does not say that it cut.)
        let spare = usize::from(special == 0);
        guarded(|| {
            inner.with_truncation(Some(TruncationParams {
                max_length: max_tokens + spare,
                strategy: TruncationStrategy::LongestFirst,
                stride: 0,
                direction: TruncationDirection::Right,
            }))?;
            Ok(())
        })?;
        let tokenizer = Self { inner, max_tokens, lower_case };
        // A file that panics at the first text should do so here.
        tokenizer.encode_one("a text, to begin with")?;
        Ok(tokenizer)
    }

    /// One more than the largest id this tokenizer can give.
    pub fn id_bound(&self) -> u64 {
        let largest = self.inner.get_vocab(true).into_values().max();
        largest.map_or(0, |id| u64::from(id) + 1)
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
        let encoding = guarded(|| self.inner.encode_fast(text, true))?;
        let kept = encoding.len().min(self.max_tokens);
        Ok(Encoded {
            ids: encoding.get_ids()[..kept].to_vec(),
            type_ids: encoding.get_type_ids()[..kept].to_vec(),
            unpooled: 0,
            truncated: kept < encoding.len() || !encoding.get_overflowing().is_empty(),
        })
    }

    /// The vocabulary's string for an id.
    pub fn token(&self, id: u32) -> Option<String> {
        self.inner.id_to_token(id)
    }
}
