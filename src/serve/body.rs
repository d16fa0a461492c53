//! The body of a request: bytes, then JSON of the form that is wanted.

use std::fmt;

use axum::{body::Body, extract::Request, http::header};
use futures_util::StreamExt;
use serde::{
    Deserialize, Deserializer,
    de::{DeserializeOwned, Error, SeqAccess, Visitor},
};

use super::failure::{Failure, Reason};

/// How much more than what is allowed is read, and dropped, before it is refused: a client that is still writing does not see an answer.
const DRAINED: usize = 4;

/// Reads a body of at most `most` bytes as JSON.
pub async fn read<T: DeserializeOwned>(request: Request, most: usize) -> Result<T, Failure> {
    let kind = request.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default().trim();
    if !kind.eq_ignore_ascii_case("application/json") {
        let message = format!("the content type is {kind:?}, and not application/json");
        return Err(Failure::new(Reason::NotJson, message));
    }
    let length = request.headers().get(header::CONTENT_LENGTH);
    let length = length.and_then(|value| value.to_str().ok()?.parse::<usize>().ok()).unwrap_or(0);
    let too_large = || Failure::new(Reason::TooManyBytes, format!("the body has more than {most} bytes"));
    if length > most.saturating_mul(DRAINED) {
        return Err(too_large());
    }
    let bytes = bytes(request.into_body(), most).await?.ok_or_else(too_large)?;
    serde_json::from_slice(&bytes).map_err(|error| Failure::new(Reason::Invalid, format!("the body: {error}")))
}

/// The bytes of a body, or nothing if there are too many.
async fn bytes(body: Body, most: usize) -> Result<Option<Vec<u8>>, Failure> {
    let (mut bytes, mut length) = (Vec::new(), 0usize);
    let mut chunks = body.into_data_stream();
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk.map_err(|error| Failure::new(Reason::Invalid, format!("the body: {error}")))?;
        length = length.saturating_add(chunk.len());
        if length <= most {
            bytes.extend_from_slice(&chunk);
        } else {
            bytes = Vec::new();
        }
        if length > most.saturating_mul(DRAINED) {
            break;
        }
    }
    Ok((length <= most).then_some(bytes))
}

/// A text, or several.
#[derive(Debug, PartialEq, Eq)]
pub struct Texts(pub Vec<String>);

impl Texts {
    /// Refuses what no model is asked: nothing, and too much.
    pub fn checked(self, most: usize, param: &str) -> Result<Vec<String>, Failure> {
        let Self(texts) = self;
        check_count(texts.len(), most, param)?;
        match texts.iter().position(String::is_empty) {
            None => Ok(texts),
            Some(index) => Err(Failure::new(Reason::Empty, format!("{param}: text {index} is empty")).at(param)),
        }
    }
}

/// Refuses no texts, and too many.
pub fn check_count(count: usize, most: usize, param: &str) -> Result<(), Failure> {
    let failure = match count {
        0 => Failure::new(Reason::Empty, format!("{param}: there is no text")),
        _ if count > most => {
            Failure::new(Reason::TooManyTexts, format!("{param}: {count} texts are more than the {most} of a request"))
        }
        _ => return Ok(()),
    };
    Err(failure.at(param))
}

/// Why numbers are not taken: a client's tokens are another tokenizer's, of OpenAI's models as a rule.
const TOKENS: &str = "token ids are not taken, send texts";

impl<'de> Deserialize<'de> for Texts {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct OneOrMore;
        impl<'de> Visitor<'de> for OneOrMore {
            type Value = Texts;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string or an array of strings")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Texts, E> {
                Ok(Texts(vec![text.to_owned()]))
            }

            fn visit_string<E: Error>(self, text: String) -> Result<Texts, E> {
                Ok(Texts(vec![text]))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Texts, A::Error> {
                let mut texts = Vec::new();
                while let Some(Text(text)) = items.next_element()? {
                    texts.push(text);
                }
                Ok(Texts(texts))
            }
        }
        deserializer.deserialize_any(OneOrMore)
    }
}

struct Text(String);

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct One;
        impl<'de> Visitor<'de> for One {
            type Value = Text;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Text, E> {
                Ok(Text(text.to_owned()))
            }

            fn visit_string<E: Error>(self, text: String) -> Result<Text, E> {
                Ok(Text(text))
            }

            fn visit_u64<E: Error>(self, _: u64) -> Result<Text, E> {
                Err(E::custom(TOKENS))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, _: A) -> Result<Text, A::Error> {
                Err(A::Error::custom(TOKENS))
            }
        }
        deserializer.deserialize_any(One)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_one_or_more_strings() {
        let read = |json| serde_json::from_str::<Texts>(json).map_err(|error| error.to_string());
        assert_eq!(read(r#""a\u00e9""#), Ok(Texts(vec!["aé".to_owned()])));
        assert_eq!(read(r#"["a", ""]"#), Ok(Texts(vec!["a".to_owned(), String::new()])));
        for (json, wanted) in [
            ("[1, 2]", TOKENS),
            ("[[1], [2]]", TOKENS),
            ("[null]", "expected a string"),
            ("7", "a string or an array of strings"),
            (r#""\ud800""#, "hex escape"),
        ] {
            let error = read(json).expect_err(json);
            assert!(error.contains(wanted), "{json}: {error}");
        }
    }

    #[test]
    fn texts_are_counted_and_none_is_empty() {
        let reason = |texts: &[&str]| {
            let texts = Texts(texts.iter().map(|text| (*text).to_owned()).collect());
            texts.checked(2, "input").map_err(|failure| failure.reason)
        };
        assert_eq!(reason(&["a", "b"]).map(|texts| texts.len()), Ok(2));
        assert_eq!(reason(&[]), Err(Reason::Empty));
        assert_eq!(reason(&["a", ""]), Err(Reason::Empty));
        assert_eq!(reason(&["a", "b", "c"]), Err(Reason::TooManyTexts));
    }
}
