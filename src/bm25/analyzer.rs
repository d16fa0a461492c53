//! From a text to the terms that BM25 counts.

use std::collections::HashSet;

use rust_stemmers::{Algorithm, Stemmer};
use serde::Deserialize;
use unicode_segmentation::UnicodeSegmentation;

use super::{stopwords, treebank};
use crate::error::{Code, Error, Result};

/// A language with a Snowball stemmer; in JSON its ISO 639-1 code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Deserialize)]
pub enum Language {
    #[serde(rename = "da")]
    Danish,
    #[serde(rename = "nl")]
    Dutch,
    #[serde(rename = "en")]
    English,
    #[serde(rename = "fi")]
    Finnish,
    #[serde(rename = "fr")]
    French,
    #[serde(rename = "de")]
    German,
    #[serde(rename = "hu")]
    Hungarian,
    #[serde(rename = "it")]
    Italian,
    #[serde(rename = "no")]
    Norwegian,
    #[serde(rename = "pt")]
    Portuguese,
    #[serde(rename = "ro")]
    Romanian,
    #[serde(rename = "ru")]
    Russian,
    /// `es`; also `sp`, as pymilvus calls it.
    #[serde(rename = "es", alias = "sp")]
    Spanish,
    #[serde(rename = "sv")]
    Swedish,
}

impl Language {
    fn stemmer(self) -> Stemmer {
        Stemmer::create(match self {
            Language::Danish => Algorithm::Danish,
            Language::Dutch => Algorithm::Dutch,
            Language::English => Algorithm::English,
            Language::Finnish => Algorithm::Finnish,
            Language::French => Algorithm::French,
            Language::German => Algorithm::German,
            Language::Hungarian => Algorithm::Hungarian,
            Language::Italian => Algorithm::Italian,
            Language::Norwegian => Algorithm::Norwegian,
            Language::Portuguese => Algorithm::Portuguese,
            Language::Romanian => Algorithm::Romanian,
            Language::Russian => Algorithm::Russian,
            Language::Spanish => Algorithm::Spanish,
            Language::Swedish => Algorithm::Swedish,
        })
    }
}

/// How a text becomes words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
enum Words {
    /// NLTK's `word_tokenize`, which has one set of rules for all languages.
    Nltk,
    /// The word boundaries of UAX 29.
    Unicode,
}

/// Words, lower case, without punctuation and stop words, stemmed.
///
/// In JSON `{"kind": "nltk", "language": "en"}`, which is the default, or `{"kind": "unicode"}` with or without a
/// language. A language brings its stemmer, and stop words if there is a list (en, de, fr, ru, it, pt, es).
/// `"stem": false` and `"stopWords": false` leave them out, `"stopWords": ["foo", ...]` replaces the list.
///
/// **`nltk`** gives the terms of pymilvus's analyzers, so that parameters fitted there can be used here: its words,
/// only tokens of *one* ASCII punctuation character dropped (`...` and the quotes `` `` `` and `''` stay terms), and
/// the two habits in which NLTK's stemmers leave Snowball's definition that real words meet: English `quantization` →
/// `quantize` and Italian `assenza` → `asst`. A few words of other languages keep Snowball's stem: about 6 in 100,000
/// in French (`indicatrices`), 15 in Portuguese (`semelhança`); German, Spanish and English (unless in the genitive,
/// which is cut off before) have no differences. Sentence ends are found by rule and not by NLTK's trained model.
///
/// **`unicode`** takes the words of UAX 29 that hold a letter or digit: better for anything but English.
#[derive(Debug, Clone, Deserialize)]
#[serde(try_from = "Description")]
pub struct Analyzer {
    words: Words,
    stop_words: HashSet<String>,
    stem: Option<Language>,
    /// NLTK's analyzers for Spanish also drop these.
    inverted_marks: bool,
}

/// An analyzer as JSON has it.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Description {
    kind: Words,
    language: Option<Language>,
    stop_words: Option<StopWords>,
    stem: Option<bool>,
}

#[derive(Deserialize)]
#[serde(untagged, expecting = "stopWords must be true, false or a list of words")]
enum StopWords {
    Switch(bool),
    List(Vec<String>),
}

impl TryFrom<Description> for Analyzer {
    type Error = Error;

    fn try_from(description: Description) -> Result<Self> {
        let invalid = |at, message: String| Err(Error::new(Code::InvalidOption, at, message));
        let mut analyzer = match (description.kind, description.language) {
            (Words::Nltk, language) => Self::nltk(language.unwrap_or(Language::English)),
            (Words::Unicode, language) => Self::unicode(language),
        };
        match description.stop_words {
            None => {}
            Some(StopWords::Switch(false)) => analyzer.stop_words.clear(),
            Some(StopWords::Switch(true)) if analyzer.stop_words.is_empty() => {
                return invalid("analyzer.stopWords", "there is no list for this language; give the words".to_owned());
            }
            Some(StopWords::Switch(true)) => {}
            Some(StopWords::List(words)) => analyzer = analyzer.with_stop_words(words),
        }
        match description.stem {
            Some(true) if analyzer.stem.is_none() => invalid("analyzer.stem", "stemming needs a language".to_owned()),
            Some(false) => Ok(analyzer.without_stemmer()),
            _ => Ok(analyzer),
        }
    }
}

impl Default for Analyzer {
    fn default() -> Self {
        Self::nltk(Language::English)
    }
}

impl Analyzer {
    /// The terms of pymilvus and NLTK.
    pub fn nltk(language: Language) -> Self {
        Self { inverted_marks: language == Language::Spanish, ..Self::new(Words::Nltk, Some(language)) }
    }

    /// The words of UAX 29, with the stop words and the stemmer of a language.
    pub fn unicode(language: Option<Language>) -> Self {
        Self::new(Words::Unicode, language)
    }

    fn new(words: Words, stem: Option<Language>) -> Self {
        let stop_words = stem.and_then(stopwords::list).into_iter().flatten().map(str::to_owned).collect();
        Self { words, stop_words, stem, inverted_marks: false }
    }

    /// Other stop words, compared in lower case and before stemming.
    pub fn with_stop_words(mut self, words: impl IntoIterator<Item = impl AsRef<str>>) -> Self {
        self.stop_words = words.into_iter().map(|word| word.as_ref().to_lowercase()).collect();
        self
    }

    /// Words as they are.
    pub fn without_stemmer(mut self) -> Self {
        self.stem = None;
        self
    }

    /// The terms of a text, in its order, as often as they occur.
    pub fn tokens(&self, text: &str) -> Vec<String> {
        let words: Vec<String> = match self.words {
            Words::Nltk => treebank::words(text).iter().map(|word| word.to_lowercase()).collect(),
            Words::Unicode => text.unicode_words().map(str::to_lowercase).collect(),
        };
        // The reference drops stop words before punctuation in German and after it elsewhere, which comes to the same.
        let kept = words.into_iter().filter(|word| !self.is_punctuation(word) && !self.stop_words.contains(word));
        match self.stem {
            None => kept.collect(),
            Some(language) => {
                let stemmer = language.stemmer();
                let nltk = self.words == Words::Nltk;
                let stems = kept.map(|word| stem(&stemmer, word, nltk.then_some(language)));
                stems.filter(|stem| !stem.is_empty()).collect()
            }
        }
    }

    fn is_punctuation(&self, word: &str) -> bool {
        let mut characters = word.chars();
        match (characters.next(), characters.next()) {
            (Some('¡' | '¿'), None) => self.inverted_marks,
            (Some(character), None) => character.is_ascii_punctuation(),
            _ => false,
        }
    }
}

/// The longest word that is stemmed, in bytes. Some stemmers take quadratic time, and what is longer is no word.
const LONGEST: usize = 256;

/// The Snowball stem, or NLTK's for a language of its analyzers.
fn stem(stemmer: &Stemmer, word: String, nltk: Option<Language>) -> String {
    if word.len() > LONGEST {
        return word;
    }
    let mut stem = stemmer.stem(&word).into_owned();
    match nltk {
        Some(Language::English) if keeps_e(&word, &stem) => stem.push('e'),
        Some(Language::Italian) => {
            let base = word.strip_suffix("enza").or_else(|| word.strip_suffix("enze"));
            // NLTK puts `te` and not `ente` in the place of the suffix.
            if let Some(base) = base.filter(|base| stem.strip_suffix("ent") == Some(base)) {
                stem = format!("{base}t");
            }
        }
        _ => {}
    }
    stem
}

/// Whether NLTK leaves the final `e` of an English stem that Snowball drops.
///
/// When a suffix is replaced by `ize` or `ate`, NLTK forgets the region R2 if it was shorter than the suffix, and so
/// does not find the `e` in it. `ize` and `ate` themselves would have been dropped from a longer one.
fn keeps_e(word: &str, stem: &str) -> bool {
    let ends = |suffixes: &[&str]| suffixes.iter().any(|suffix| word.ends_with(suffix));
    let base = if ends(&["ization", "izations", "izer", "izers"]) {
        stem.strip_suffix("iz")
    } else if ends(&["ationalism", "ationalisms", "ationality", "ationalities", "ationally"]) {
        stem.strip_suffix("at")
    } else {
        None
    };
    base.is_some_and(|base| !base.ends_with(['a', 'e', 'i', 'o', 'u', 'y']))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn analyzer(json: &str) -> Analyzer {
        serde_json::from_str(json).expect("an analyzer")
    }

    #[test]
    fn both_kinds_are_described_in_json() {
        let text = "The state-of-the-art dogs' 3.5 ¿Qué?";
        assert_eq!(analyzer(r#"{"kind": "nltk"}"#).tokens(text), ["state-of-the-art", "dog", "3.5", "¿qué"]);
        assert_eq!(analyzer(r#"{"kind": "nltk", "language": "sp"}"#).tokens("¡ hola !"), ["hol"]);
        assert_eq!(analyzer(r#"{"kind": "unicode"}"#).tokens("Größe, l'été…"), ["größe", "l'été"]);
        assert_eq!(
            analyzer(r#"{"kind": "unicode", "language": "en"}"#).tokens(text),
            ["state", "art", "dog", "3.5", "qué"]
        );
        let own = r#"{"kind": "unicode", "language": "en", "stem": false, "stopWords": ["DOGS"]}"#;
        assert_eq!(analyzer(own).tokens(text), ["the", "state", "of", "the", "art", "3.5", "qué"]);
        let all = r#"{"kind": "nltk", "language": "en", "stem": false, "stopWords": false}"#;
        assert_eq!(analyzer(all).tokens("The dogs."), ["the", "dogs"]);
    }

    #[test]
    fn what_a_description_asks_for_and_cannot_have_is_an_error() {
        for (json, word) in [
            (r#"{"kind": "jieba"}"#, "jieba"),
            (r#"{"kind": "nltk", "language": "xx"}"#, "xx"),
            (r#"{"kind": "unicode", "stem": true}"#, "needs a language"),
            (r#"{"kind": "unicode", "language": "nl", "stopWords": true}"#, "no list"),
            (r#"{"kind": "nltk", "stopWords": 3}"#, "stopWords"),
            (r#"{"kind": "nltk", "stopwords": false}"#, "stopwords"),
            ("{}", "kind"),
        ] {
            let error = serde_json::from_str::<Analyzer>(json).expect_err(json).to_string();
            assert!(error.contains(word), "{json}: {error}");
        }
    }

    #[test]
    fn every_language_has_a_stemmer_that_stands_any_text() {
        let codes = [
            "ar", "da", "nl", "en", "fi", "fr", "de", "el", "hu", "it", "no", "pt", "ro", "ru", "es", "sv", "ta", "tr",
        ];
        let text = "' '' '''s ''' ¿ ß İİ ǅ ﬁ 漢字かな 한국어 தமிழ் العَرَبِيَّة ψυχή 😀 e\u{301} a\u{200d}b y'y'y' ization enza \u{1c}x";
        for code in codes {
            for kind in ["nltk", "unicode"] {
                let tokens = analyzer(&format!(r#"{{"kind": "{kind}", "language": "{code}"}}"#)).tokens(text);
                assert!(tokens.iter().all(|token| !token.is_empty()), "{kind} {code}");
            }
        }
    }

    #[test]
    fn endless_words_take_no_quadratic_time() {
        let word = "ay".repeat(1_000_000);
        assert_eq!(Analyzer::default().tokens(&word), [word]);
    }
}
