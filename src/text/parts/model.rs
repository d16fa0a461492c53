//! The vocabulary, and how a word is made of its pieces.

use std::fmt;

use serde::{
    Deserialize,
    de::{Deserializer, SeqAccess, Visitor},
};
use serde_json::value::RawValue;
use tokenizers::{
    ModelWrapper,
    models::{
        bpe::{BpeBuilder, Vocab},
        unigram::Unigram,
        wordlevel::WordLevelBuilder,
        wordpiece::WordPieceBuilder,
    },
};

use super::refused;
use crate::{error::Result, text::tokenizer::invalid};

/// What a model says of words that it does not have.
pub enum Unknown {
    Token(String),
    Id(u32),
}

#[derive(Deserialize)]
struct Model<'a> {
    #[serde(rename = "type")]
    kind: Option<&'a str>,
    #[serde(borrow)]
    vocab: &'a RawValue,
    unk_token: Option<String>,
    unk_id: Option<u32>,
    merges: Option<Vec<Merge>>,
    continuing_subword_prefix: Option<String>,
    end_of_word_suffix: Option<String>,
    max_input_chars_per_word: Option<usize>,
    dropout: Option<f32>,
    fuse_unk: Option<bool>,
    byte_fallback: Option<bool>,
    ignore_merges: Option<bool>,
}

/// `["a", "b"]`, or in older files `"a b"`, and there none at all in a line that names a version.
struct Merge(Option<(String, String)>);

impl<'de> Deserialize<'de> for Merge {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        struct Either;
        impl<'de> Visitor<'de> for Either {
            type Value = Merge;

            fn expecting(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
                formatter.write_str("two pieces")
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> std::result::Result<Merge, E> {
                if text.starts_with("#version") {
                    return Ok(Merge(None));
                }
                let pieces = text.split_once(' ').filter(|(_, second)| !second.contains(' '));
                let (first, second) =
                    pieces.ok_or_else(|| E::invalid_value(serde::de::Unexpected::Str(text), &self))?;
                Ok(Merge(Some((first.to_owned(), second.to_owned()))))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut pieces: A) -> std::result::Result<Merge, A::Error> {
                match (pieces.next_element()?, pieces.next_element()?) {
                    (Some(first), Some(second)) => Ok(Merge(Some((first, second)))),
                    _ => Err(serde::de::Error::invalid_length(1, &self)),
                }
            }
        }
        deserializer.deserialize_any(Either)
    }
}

/// Reads the model, and what it says of unknown words.
pub fn read(json: &[u8]) -> Result<(ModelWrapper, Option<Unknown>)> {
    let model: Model = serde_json::from_slice(json).map_err(refused)?;
    let unknown = model.unk_id.map(Unknown::Id).or_else(|| model.unk_token.clone().map(Unknown::Token));
    let built = match model.kind.unwrap_or_else(|| model.inferred()) {
        "BPE" => model.bpe(),
        "WordPiece" => model.word_piece(),
        "WordLevel" => model.word_level(),
        "Unigram" => model.unigram(),
        other => Err(invalid(format!("its model {other:?} is of no known type"))),
    };
    Ok((built?, unknown))
}

impl Model<'_> {
    /// The type of a model in older files, which do not say it.
    fn inferred(&self) -> &'static str {
        match self {
            _ if self.vocab.get().starts_with('[') => "Unigram",
            Model { merges: Some(_), .. } => "BPE",
            Model { continuing_subword_prefix: Some(_), max_input_chars_per_word: Some(_), .. } => "WordPiece",
            _ => "WordLevel",
        }
    }

    fn pieces<'a, T: Deserialize<'a>>(&'a self) -> Result<T> {
        serde_json::from_slice(self.vocab.get().as_bytes()).map_err(refused)
    }

    fn bpe(self) -> Result<ModelWrapper> {
        let vocab: Vocab = self.pieces()?;
        let merges: Vec<_> = needed(self.merges, "merges")?.into_iter().filter_map(|Merge(pieces)| pieces).collect();
        // The crate copies a merge's whole into a buffer as long as the longest piece, and cuts its
        // second half at the prefix without looking: what is not in the vocabulary panics there
        // (<https://github.com/huggingface/tokenizers/issues/2094>).
        let prefix = self.continuing_subword_prefix.as_deref().map_or(0, str::len);
        for (first, second) in &merges {
            let whole = second.get(prefix..).map(|second| format!("{first}{second}"));
            if !whole.is_some_and(|whole| vocab.contains_key(&whole)) {
                return Err(invalid(format!("its merge {:?} gives no piece of the vocabulary", (first, second))));
            }
        }
        let mut builder = BpeBuilder::new()
            .vocab_and_merges(vocab, merges)
            .fuse_unk(self.fuse_unk.unwrap_or(false))
            .byte_fallback(self.byte_fallback.unwrap_or(false))
            .ignore_merges(self.ignore_merges.unwrap_or(false));
        if let Some(dropout) = self.dropout {
            builder = builder.dropout(dropout);
        }
        if let Some(token) = self.unk_token {
            builder = builder.unk_token(token);
        }
        if let Some(prefix) = self.continuing_subword_prefix {
            builder = builder.continuing_subword_prefix(prefix);
        }
        if let Some(suffix) = self.end_of_word_suffix {
            builder = builder.end_of_word_suffix(suffix);
        }
        builder.build().map(Into::into).map_err(refused)
    }

    fn word_piece(self) -> Result<ModelWrapper> {
        let builder = WordPieceBuilder::new()
            .vocab(self.pieces::<Vocab>()?)
            .unk_token(needed(self.unk_token, "unk_token")?)
            .continuing_subword_prefix(needed(self.continuing_subword_prefix, "continuing_subword_prefix")?)
            .max_input_chars_per_word(needed(self.max_input_chars_per_word, "max_input_chars_per_word")?);
        builder.build().map(Into::into).map_err(refused)
    }

    fn word_level(self) -> Result<ModelWrapper> {
        let builder =
            WordLevelBuilder::new().vocab(self.pieces::<Vocab>()?).unk_token(needed(self.unk_token, "unk_token")?);
        builder.build().map(Into::into).map_err(refused)
    }

    fn unigram(self) -> Result<ModelWrapper> {
        let unknown = self.unk_id.map(|id| id as usize);
        Unigram::from(self.pieces()?, unknown, self.byte_fallback.unwrap_or(false)).map(Into::into).map_err(refused)
    }
}

fn needed<T>(setting: Option<T>, name: &str) -> Result<T> {
    setting.ok_or_else(|| invalid(format!("its model has no {name:?}")))
}
