//! Keys: held so that nothing prints them, and checked before they become a header.

use std::fmt;

use super::invalid_option;
use crate::{error::Result, platform::KeyFunction};

/// A provider's key: a string, or a function that is asked before each request, so that a key may expire.
#[derive(Clone)]
pub struct Key(Source);

#[derive(Clone)]
enum Source {
    Fixed(String),
    Function(KeyFunction),
}

impl Key {
    /// A key that stays. One that holds a blank, a line break or anything but visible ASCII is refused, without being repeated.
    pub fn new(key: impl Into<String>) -> Result<Self> {
        Ok(Self(Source::Fixed(checked(key.into())?)))
    }

    /// A key that is asked for; what is given is checked as in [`Key::new`].
    pub fn function(function: KeyFunction) -> Self {
        Self(Source::Function(function))
    }

    /// The key of this moment.
    pub(super) async fn get(&self) -> Result<String> {
        match &self.0 {
            Source::Fixed(key) => Ok(key.clone()),
            Source::Function(function) => checked(function().await?),
        }
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(hidden)")
    }
}

fn checked(key: String) -> Result<String> {
    match !key.is_empty() && key.bytes().all(|byte| byte.is_ascii_graphic()) {
        true => Ok(key),
        false => Err(invalid_option(
            "apiKey",
            "the key is empty, or holds a character that no key has: a blank, a line break, a letter beyond ASCII",
        )),
    }
}

/// Headers of the caller's, which may hold secrets, too.
#[derive(Clone, Default)]
pub struct Headers(Vec<(String, String)>);

impl Headers {
    /// Refuses what is no header. Names are compared without case; of equal ones the last stays.
    pub fn new<N: Into<String>, V: Into<String>>(headers: impl IntoIterator<Item = (N, V)>) -> Result<Self> {
        let mut list = Self::default();
        for (name, value) in headers {
            let (name, value) = (name.into().to_ascii_lowercase(), value.into());
            // <https://www.rfc-editor.org/rfc/rfc9110#section-5.6.2>
            let token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
            if name.is_empty() || !name.bytes().all(token) {
                return Err(invalid_option("headers", format!("{name:?} is no header's name")));
            }
            if !value.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' ') {
                return Err(invalid_option("headers", format!("the value of {name} is not visible ASCII")));
            }
            list.put(&name, value);
        }
        Ok(list)
    }

    /// Sets a header, whose name is in lower case.
    pub(super) fn put(&mut self, name: &str, value: String) {
        self.0.retain(|(other, _)| other != name);
        self.0.push((name.to_owned(), value));
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// Values that may be secret.
    pub(super) fn secrets(&self) -> impl Iterator<Item = &str> {
        let open = |name: &str| matches!(name, "accept" | "content-type" | "user-agent");
        self.iter().filter(move |(name, _)| !open(name)).map(|(_, value)| value)
    }

    pub(super) fn into_vec(self) -> Vec<(String, String)> {
        self.0
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.iter().any(|(other, _)| other == name)
    }
}

impl fmt::Debug for Headers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter().map(|(name, _)| name)).finish()
    }
}

impl<'de> serde::Deserialize<'de> for Headers {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let map = std::collections::BTreeMap::<String, String>::deserialize(deserializer)?;
        Headers::new(map).map_err(|error| serde::de::Error::custom(error.message()))
    }
}

/// Strings that must not be shown: as they are, in another case, percent-encoded in part or whole,
/// and in base64.
#[derive(Default)]
pub(super) struct Secrets(Vec<String>);

impl Secrets {
    /// Shorter ones are not looked for: they hide nothing, and are found in words.
    const SHORTEST: usize = 6;

    /// Bytes of a text that are looked through: messages are shorter, and a server may send any
    /// number.
    const LONGEST: usize = 1 << 16;

    pub(super) fn add(&mut self, secret: &str) {
        // `Bearer key`: a server may repeat the key alone.
        for part in std::iter::once(secret).chain(secret.split(' ')) {
            if part.len() >= Self::SHORTEST && !matches!(part, "Bearer" | "Basic") {
                self.0.push(part.to_owned());
                self.0.extend(in_base64(part));
            }
        }
    }

    /// Replaces secrets in the beginning of a text, which is all that is kept of it.
    pub(super) fn hide(&self, text: &mut String) {
        let mut shown = String::new();
        let mut rest = text.as_str();
        while let Some(next) = rest.chars().next().filter(|_| shown.len() < Self::LONGEST) {
            // Of one that holds another the whole is to go.
            let found = self.0.iter().filter_map(|secret| found(secret.as_bytes(), rest.as_bytes())).max();
            match found {
                Some(_) => shown.push_str("[hidden]"),
                None => shown.push(next),
            }
            rest = &rest[found.unwrap_or(next.len_utf8())..];
        }
        *text = shown;
    }
}

/// How many bytes at the start of `text` are the secret, or at its end what a cut left of it.
fn found(secret: &[u8], text: &[u8]) -> Option<usize> {
    let mut at = 0;
    for (known, &byte) in secret.iter().enumerate() {
        let encoded = text[at..].strip_prefix(b"%");
        let value = |digits: &[u8]| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok();
        at += match (text.get(at), encoded) {
            (None, _) => return (known >= Secrets::SHORTEST).then_some(at),
            (_, Some(&[high, low, ..])) if value(&[high, low]).is_some_and(|it| it.eq_ignore_ascii_case(&byte)) => 3,
            (_, Some([] | [_])) if known >= Secrets::SHORTEST => return Some(text.len()),
            (Some(here), _) if here.eq_ignore_ascii_case(&byte) => 1,
            _ => return None,
        };
    }
    Some(at)
}

/// What base64 makes of a text inside of another: for each of the three places in a group where it
/// may begin, the digits that stand for nothing but the text, in both alphabets.
fn in_base64(text: &str) -> Vec<String> {
    let mut forms = Vec::new();
    for before in 0..3 {
        let whole = crate::base64::encode(&[&vec![0; before], text.as_bytes()].concat());
        let digits = &whole[(before * 8).div_ceil(6)..(before + text.len()) * 8 / 6];
        forms.push(digits.to_owned());
        if digits.contains(['+', '/']) {
            forms.push(digits.replace('+', "-").replace('/', "_"));
        }
    }
    forms
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{error::Code, platform::native::block_on};

    #[test]
    fn a_key_that_no_header_can_hold_is_refused_and_not_repeated() {
        for bad in ["", "sk-secret\n", "sk secret", "sk-\u{fc}", "sk-secret\r\nx-evil: 1", "\0"] {
            let error = Key::new(bad).expect_err(bad);
            assert_eq!((error.code(), error.at()), (Code::InvalidOption, "apiKey"));
            assert!(!error.to_string().contains("secret"), "{error}");
        }
        let key = Key::function(std::sync::Arc::new(|| Box::pin(async { Ok("sk-late\n".to_owned()) })));
        assert!(block_on(key.get()).is_err());
        let key = Key::new("sk-secret").expect("a key");
        assert_eq!(format!("{key:?}"), "Key(hidden)");
        assert_eq!(block_on(key.get()).expect("it"), "sk-secret");
    }

    #[test]
    fn headers_are_checked_and_their_values_not_printed() {
        let headers = Headers::new([("API-Key", "one"), ("api-key", "two")]).expect("valid");
        assert_eq!(headers.iter().collect::<Vec<_>>(), [("api-key", "two")]);
        assert_eq!(format!("{headers:?}"), "{\"api-key\"}");
        for (name, value) in [("", "x"), ("a b", "x"), ("a", "x\r\ny: z"), ("a:", "x"), ("a", "\u{e9}")] {
            assert!(Headers::new([(name, value)]).is_err(), "{name:?}");
        }
    }

    #[test]
    fn secrets_are_taken_out_of_texts() {
        let mut secrets = Secrets::default();
        secrets.add("Bearer abcdef");
        secrets.add("abcdefgh");
        let mut text = "no Bearer abcdefgh, Bearer abcdef or abcdef".to_owned();
        secrets.hide(&mut text);
        assert!(!text.contains("abcdef"), "{text}");
    }

    fn hidden(text: &str) -> String {
        let mut secrets = Secrets::default();
        secrets.add("sk-Very/Secret+0123");
        let mut text = text.to_owned();
        secrets.hide(&mut text);
        text
    }

    #[test]
    fn a_secret_is_found_in_every_form() {
        for form in [
            "SK-VERY/SECRET+0123",
            "sk-very/secret+0123",
            "sk-Very%2FSecret%2B0123",
            "sk-Very%2fSecret%2b0123",
            "%73%6B%2D%56%65%72%79%2F%53%65%63%72%65%74%2B%30%31%32%33",
        ] {
            assert_eq!(hidden(&format!("é {form}é")), "é [hidden]é", "{form}");
        }
        // Behind each number of bytes in a group of three, and in both alphabets.
        for before in ["", "k", "ke", "key=", "Bearer "] {
            for after in ["", "&a", "&more"] {
                let plain = format!("{before}sk-Very/Secret+0123{after}");
                let standard = crate::base64::encode(plain.as_bytes());
                for form in [standard.clone(), standard.replace('+', "-").replace('/', "_"), standard.replace('=', "")]
                {
                    let left = hidden(&format!("got {form} here"));
                    let (shown, bytes) =
                        (left.replace("[hidden]", "").len() - "got  here".len(), before.len() + after.len());
                    assert!(left.contains("[hidden]") && shown <= bytes * 4 / 3 + 8, "{form}: {left}");
                }
            }
        }
        for other in ["", "sk-Very", "sk-Very/Secret", "%", "100 %", "sk-Very/Secret+012x", "%7", "é"] {
            assert_eq!(hidden(&format!("{other} and more")), format!("{other} and more"));
        }
    }

    #[test]
    fn what_a_cut_leaves_of_a_secret_at_the_end_is_hidden() {
        let secret = "sk-Very/Secret+0123";
        for end in 0..=secret.len() {
            let left = hidden(&format!("got {}", &secret[..end]));
            let expected = if end < 6 { format!("got {}", &secret[..end]) } else { "got [hidden]".to_owned() };
            assert_eq!(left, expected);
        }
        for cut in ["sk-Very%2", "sk-Very%", "sk-Very%2FSec", "SK-VERY/SE"] {
            assert_eq!(hidden(&format!("got {cut}")), "got [hidden]");
        }
        let coded = crate::base64::encode(secret.as_bytes());
        assert_eq!(hidden(&format!("got {}", &coded[..12])), "got [hidden]");
    }
}
