//! Stop words, one a line, from PostgreSQL's Snowball lists (src/backend/snowball/stopwords, PostgreSQL licence).
//!
//! They hold what NLTK's corpus of 2023 holds, which corrects and extends those lists: contractions in English,
//! `unsere` and `dass` in German, `ils` and `les` in French, `vosotros` in Spanish, `ser`, `estar`, `haver` and `é` in
//! Portuguese.

use super::Language;

/// The stop words of a language, or `None` where there is no list.
pub fn list(language: Language) -> Option<impl Iterator<Item = &'static str>> {
    let text = match language {
        Language::English => include_str!("stopwords/english.txt"),
        Language::French => include_str!("stopwords/french.txt"),
        Language::German => include_str!("stopwords/german.txt"),
        Language::Italian => include_str!("stopwords/italian.txt"),
        Language::Portuguese => include_str!("stopwords/portuguese.txt"),
        Language::Russian => include_str!("stopwords/russian.txt"),
        Language::Spanish => include_str!("stopwords/spanish.txt"),
        _ => return None,
    };
    Some(text.lines())
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn lists_are_as_long_as_nltks_and_lower_case() {
        let lengths = [
            (Language::English, 179),
            (Language::French, 157),
            (Language::German, 232),
            (Language::Italian, 279),
            (Language::Portuguese, 207),
            (Language::Russian, 151),
            (Language::Spanish, 313),
        ];
        for (language, length) in lengths {
            let words: Vec<&str> = list(language).expect("a list").collect();
            assert_eq!(words.len(), length, "{language:?}");
            assert_eq!(words.iter().collect::<HashSet<_>>().len(), length, "{language:?} has a word twice");
            assert!(words.iter().all(|word| !word.is_empty() && word.trim() == *word && word.to_lowercase() == *word));
        }
        assert!(list(Language::Dutch).is_none());
    }
}
