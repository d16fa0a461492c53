//! The parts of `tokenizer.json`, read here and handed to the tokenizers crate one by one.
//!
//! The crate's own reader buffers each part in generic values and tries its types one after the other, for each of them and the
//! decoders too with code of its own: a tenth of the page's module, and for a vocabulary of 250,002 pieces several times its size in memory.
//! What is read comes out equal, which the tests below compare.

mod model;
mod normalizer;
mod post_processor;
mod pre_tokenizer;
#[cfg(test)]
mod tests;

use std::fmt;

use serde::{
    Deserialize, Deserializer,
    de::{Error as _, SeqAccess, Visitor},
};
use serde_json::{Map, Value, value::RawValue};
use tokenizers::{AddedToken, Tokenizer};

use super::tokenizer::{BertText, Settings, invalid};
use crate::error::{Error, Result};

/// What a file gives.
pub struct Parts {
    /// Without truncation, padding and decoder, which encoding never uses, or which are overridden.
    pub tokenizer: Tokenizer,
    /// The token for what the vocabulary has not.
    pub unknown: Option<u32>,
    /// How the file itself would cut texts.
    pub truncation: Option<Truncation>,
}

/// The length and the end at which a file cuts texts.
#[derive(Debug, Clone, Copy)]
pub struct Truncation {
    pub length: usize,
    pub at_beginning: bool,
}

#[derive(Deserialize)]
struct File<'a> {
    #[serde(borrow)]
    model: &'a RawValue,
    version: Option<&'a str>,
    #[serde(default)]
    added_tokens: AddedTokens,
    #[serde(borrow)]
    normalizer: Option<&'a RawValue>,
    #[serde(borrow)]
    pre_tokenizer: Option<&'a RawValue>,
    #[serde(borrow)]
    post_processor: Option<&'a RawValue>,
    #[serde(borrow)]
    truncation: Option<&'a RawValue>,
}

/// Most bytes of an added token, and of a part that becomes generic values, which take sixteen
/// times as many. The largest part is a table of 0.5 MB.
const MAX_ADDED: usize = 1 << 16;
const MAX_PART: usize = 4 << 20;

/// The added tokens, made one by one.
#[derive(Default)]
struct AddedTokens(Vec<AddedToken>);

impl<'de> Deserialize<'de> for AddedTokens {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct List;
        impl<'de> Visitor<'de> for List {
            type Value = AddedTokens;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of added tokens")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<AddedTokens, A::Error> {
                let mut tokens = Vec::new();
                while let Some(token) = list.next_element::<&RawValue>()? {
                    let token = value(token, MAX_ADDED).and_then(|token| added_token(&token));
                    tokens.push(token.map_err(|error| A::Error::custom(error.message()))?);
                }
                Ok(AddedTokens(tokens))
            }
        }
        deserializer.deserialize_seq(List)
    }
}

/// A part as generic values.
fn value(json: &RawValue, most: usize) -> Result<Value> {
    let json = json.get();
    match json.len() > most {
        true => Err(invalid(format!("one of its parts has {} bytes, more than {most}", json.len()))),
        false => serde_json::from_str(json).map_err(refused),
    }
}

/// Reads `tokenizer.json`, as far as the settings do not say otherwise.
pub fn read(json: &[u8], settings: &Settings) -> Result<Parts> {
    let file: File = serde_json::from_slice(json).map_err(refused)?;
    if let Some(version) = file.version.filter(|&version| version != "1.0") {
        return Err(invalid(format!("its version is {version:?}, and not 1.0")));
    }
    let (model, unknown) = model::read(file.model.get().as_bytes())?;
    let mut tokenizer = Tokenizer::new(model);
    // Before the added tokens, some of which are normalised when they are added.
    let part = |json: Option<&RawValue>| json.map(|json| value(json, MAX_PART)).transpose();
    let [mut normalizer, mut pre_tokenizer, post_processor] =
        [part(file.normalizer)?, part(file.pre_tokenizer)?, part(file.post_processor)?];
    if let (Some(normalizer), Some(bert)) = (&mut normalizer, settings.bert) {
        as_bert(normalizer, bert);
    }
    if let (Some(pre_tokenizer), Some(space)) = (&mut pre_tokenizer, settings.prefix_space)
        && pre_tokenizer["type"] == "ByteLevel"
    {
        pre_tokenizer["add_prefix_space"] = space.into();
    }
    tokenizer.with_normalizer(normalizer.as_ref().map(normalizer::read).transpose()?).map_err(refused)?;
    tokenizer.with_pre_tokenizer(pre_tokenizer.as_ref().map(pre_tokenizer::read).transpose()?);
    tokenizer.with_post_processor(post_processor.as_ref().map(post_processor::read).transpose()?);
    tokenizer.add_tokens(file.added_tokens.0).map_err(refused)?;
    let unknown = unknown.and_then(|unknown| match unknown {
        model::Unknown::Id(id) => Some(id),
        model::Unknown::Token(token) => tokenizer.token_to_id(&token),
    });
    Ok(Parts { tokenizer, unknown, truncation: part(file.truncation)?.as_ref().and_then(truncation) })
}

/// Gives a normalizer of BERT's kind the settings that the class for its tokenizer has.
fn as_bert(normalizer: &mut Value, bert: BertText) {
    if normalizer["type"] == "BertNormalizer" {
        normalizer["lowercase"] = bert.lower_case.into();
        normalizer["strip_accents"] = bert.strip_accents.into();
        normalizer["handle_chinese_chars"] = bert.chinese.into();
    }
}

fn truncation(truncation: &Value) -> Option<Truncation> {
    let length = usize::try_from(truncation["max_length"].as_u64()?).ok()?;
    Some(Truncation { length, at_beginning: truncation["direction"] == "Left" })
}

fn added_token(token: &Value) -> Result<AddedToken> {
    let token = Part::new("added token", token)?;
    token.number("id")?;
    Ok(AddedToken {
        content: token.text("content")?.to_owned(),
        single_word: token.flag("single_word")?,
        lstrip: token.flag("lstrip")?,
        rstrip: token.flag("rstrip")?,
        normalized: token.flag("normalized")?,
        special: token.flag("special")?,
    })
}

#[expect(clippy::needless_pass_by_value, reason = "as map_err passes it")]
fn refused(error: impl ToString) -> Error {
    invalid(error.to_string())
}

/// A part, or one of those that it is a sequence of: an object with settings.
#[derive(Clone, Copy)]
struct Part<'a> {
    name: &'static str,
    value: &'a Value,
    settings: &'a Map<String, Value>,
}

impl<'a> Part<'a> {
    fn new(name: &'static str, value: &'a Value) -> Result<Self> {
        let settings = value.as_object().ok_or_else(|| invalid(format!("its {name} is no object")))?;
        Ok(Self { name, value, settings })
    }

    /// Its type, where it names one.
    fn kind(self) -> &'a str {
        self.settings.get("type").and_then(Value::as_str).unwrap_or_default()
    }

    /// A setting, unless it is absent.
    fn given(self, setting: &str) -> Option<&'a Value> {
        self.settings.get(setting)
    }

    /// A setting that must be there, and of the form that is read.
    fn needs<T>(self, setting: &str, read: impl FnOnce(&'a Value) -> Option<T>) -> Result<T> {
        self.given(setting).and_then(read).ok_or_else(|| {
            invalid(format!("its {} {:?} has no {setting:?}, or one that cannot be read", self.name, self.kind()))
        })
    }

    fn flag(self, setting: &str) -> Result<bool> {
        self.needs(setting, Value::as_bool)
    }

    fn flag_or(self, setting: &str, default: bool) -> Result<bool> {
        if self.given(setting).is_some() { self.flag(setting) } else { Ok(default) }
    }

    /// A flag that may be null.
    fn optional_flag(self, setting: &str) -> Result<Option<bool>> {
        self.given(setting).filter(|value| !value.is_null()).map(|_| self.flag(setting)).transpose()
    }

    fn text(self, setting: &str) -> Result<&'a str> {
        self.needs(setting, Value::as_str)
    }

    fn character(self, setting: &str) -> Result<char> {
        self.needs(setting, |value| {
            let mut characters = value.as_str()?.chars();
            characters.next().filter(|_| characters.next().is_none())
        })
    }

    fn number(self, setting: &str) -> Result<u32> {
        self.needs(setting, number)
    }

    fn list(self, setting: &str) -> Result<&'a [Value]> {
        self.needs(setting, |value| value.as_array().map(Vec::as_slice))
    }

    /// What is searched for: `{"String": ...}` or `{"Regex": ...}`.
    fn pattern<P>(self, string: fn(String) -> P, regex: fn(String) -> P) -> Result<P> {
        self.needs("pattern", |value| {
            let mut ways = value.as_object()?.iter();
            let (way, text) = ways.next().filter(|_| ways.next().is_none())?;
            let way = match way.as_str() {
                "String" => string,
                "Regex" => regex,
                _ => return None,
            };
            text.as_str().map(|text| way(text.to_owned()))
        })
    }

    /// A part of a form that the tokenizers crate reads itself.
    fn as_it_is<T: Deserialize<'a>>(self) -> Result<T> {
        T::deserialize(self.value).map_err(|error| invalid(format!("its {}: {error}", self.name)))
    }

    /// Of no known type, or without its settings.
    fn unknown<T>(self) -> Result<T> {
        Err(invalid(format!("its {} {:?} is of no known type, or lacks settings", self.name, self.kind())))
    }
}

fn number(value: &Value) -> Option<u32> {
    value.as_u64().and_then(|number| u32::try_from(number).ok())
}
