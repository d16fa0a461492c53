//! The body of a request: bytes, then JSON of the form that is wanted.

use std::fmt;

use axum::{
    body::Body,
    extract::Request,
    http::{HeaderValue, header},
};
use futures_util::StreamExt;
use serde::{
    Deserialize, Deserializer,
    de::{DeserializeOwned, Error, SeqAccess, Visitor},
};

use tokio::sync::Semaphore;

use super::failure::{Failure, Reason};

/// How much more than what is allowed is read, and dropped, before it is refused: a client that is still writing does not see an answer.
const DRAINED: usize = 4;

/// What of a body takes a unit of the room that all bodies share while they are read.
pub const UNIT: usize = 64 << 10;

/// Reads a body of at most `most` bytes as JSON.
pub async fn read<T: DeserializeOwned>(request: Request, most: usize, room: &Semaphore) -> Result<T, Failure> {
    let kind = request.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default().trim();
    if !kind.eq_ignore_ascii_case("application/json") {
        let message = format!("the content type is {kind:?}, and not application/json");
        return Err(Failure::new(Reason::NotJson, message));
    }
    let encoding = request.headers().get(header::CONTENT_ENCODING).map(HeaderValue::as_bytes);
    if encoding.is_some_and(|encoding| !encoding.eq_ignore_ascii_case(b"identity")) {
        return Err(Failure::new(Reason::NotJson, "bodies with a content-encoding are not read; send plain JSON"));
    }
    let length = request.headers().get(header::CONTENT_LENGTH);
    let length = length.and_then(|value| value.to_str().ok()?.parse::<usize>().ok()).unwrap_or(0);
    let too_large = || Failure::new(Reason::TooManyBytes, format!("the body has more than {most} bytes"));
    if length > most.saturating_mul(DRAINED) {
        return Err(too_large());
    }
    let bytes = bytes(request.into_body(), most, room).await?.ok_or_else(too_large)?;
    // Some editors and clients put a mark before it, which JSON has no place for.
    let json = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&bytes);
    let refused = |error: serde_json::Error| Failure::new(Reason::Invalid, format!("the body: {error}"));
    // serde takes an array for an object's fields in order.
    if json.trim_ascii_start().first() == Some(&b'[') {
        return Err(Failure::new(Reason::Invalid, "the body: it is an array, and not an object"));
    }
    serde_json::from_slice(json).map_err(refused)
}

/// A whole number, or none. Some clients write each number with a point.
pub fn whole<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<usize>, D::Error> {
    let Some(number) = Option::<serde_json::Number>::deserialize(deserializer)? else { return Ok(None) };
    let whole = number.as_u64().or_else(|| {
        let value =
            number.as_f64().filter(|value| value.fract() == 0.0 && (0.0..=f64::from(u32::MAX)).contains(value))?;
        Some(value as u64)
    });
    let whole = whole.and_then(|whole| usize::try_from(whole).ok());
    whole.map(Some).ok_or_else(|| D::Error::custom(format!("{number} is no whole number")))
}

/// The bytes of a body, or nothing if there are too many.
async fn bytes(body: Body, most: usize, room: &Semaphore) -> Result<Option<Vec<u8>>, Failure> {
    let (mut bytes, mut length) = (Vec::new(), 0usize);
    let mut taken = Vec::new();
    let mut chunks = body.into_data_stream();
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk.map_err(|error| Failure::new(Reason::Invalid, format!("the body: {error}")))?;
        length = length.saturating_add(chunk.len());
        if length <= most {
            while taken.len() < length / UNIT {
                let busy = |_| Failure::new(Reason::Busy, "too many bodies are being read; try again later");
                taken.push(room.try_acquire().map_err(busy)?);
            }
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
