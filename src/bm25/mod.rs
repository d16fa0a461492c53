//! BM25: sparse vectors from the statistics of a corpus, without a model.
//!
//! A document's vector holds the saturated term frequencies, a query's the inverse document frequencies; their inner
//! product is the BM25 score. Formulas, vocabulary order and the saved form are those of pymilvus's
//! `BM25EmbeddingFunction`, with one difference: an inverse document frequency is never below [`FLOOR`].

mod analyzer;
mod stopwords;
mod treebank;

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

pub use analyzer::{Analyzer, Language};

use crate::{
    error::{Code, Error, Result},
    sparse::SparseVector,
};

/// The least inverse document frequency.
///
/// A term of half the documents or more has one of zero or below. The reference then takes `epsilon` times the mean of
/// all terms, which in a small or uniform corpus is itself below zero; databases refuse such vectors, and a match would
/// lower the score. Terms above zero in the reference keep their value to within this floor.
pub const FLOOR: f64 = 1e-6;

/// The largest `k1` and `epsilon`, and the largest inverse document frequency that is read: far beyond use, and small
/// enough that no weight overflows.
const LARGEST: f64 = 1e6;

/// Parameters of a fit.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Options {
    pub analyzer: Analyzer,
    /// Where the term frequency saturates.
    pub k1: f64,
    /// How much a document's length counts, 0 to 1.
    pub b: f64,
    /// What share of the mean a negative inverse document frequency is replaced with.
    pub epsilon: f64,
}

impl Default for Options {
    fn default() -> Self {
        Self { analyzer: Analyzer::default(), k1: 1.5, b: 0.75, epsilon: 0.25 }
    }
}

/// The numbers of the formula, each within its bounds.
#[derive(Debug, Clone, Copy)]
struct Parameters {
    k1: f64,
    b: f64,
    epsilon: f64,
}

impl Parameters {
    fn new(k1: f64, b: f64, epsilon: f64, code: Code) -> Result<Self> {
        for (name, value, largest) in [("k1", k1, LARGEST), ("b", b, 1.0), ("epsilon", epsilon, LARGEST)] {
            if !(0.0..=largest).contains(&value) {
                return Err(Error::new(code, name, format!("{value} is not between 0 and {largest}")));
            }
        }
        Ok(Self { k1, b, epsilon })
    }
}

/// The statistics of a corpus. A term's index is its rank by first appearance.
#[derive(Debug, Clone)]
pub struct Bm25 {
    analyzer: Analyzer,
    parameters: Parameters,
    /// Documents, the empty ones included.
    documents: u64,
    mean_length: f64,
    vocabulary: Vocabulary,
    /// Inverse document frequencies by index, at least [`FLOOR`].
    idf: Vec<f64>,
}

/// Terms and their indices; the strings exist once.
#[derive(Debug, Clone, Default)]
struct Vocabulary {
    terms: Vec<Arc<str>>,
    indices: HashMap<Arc<str>, u32>,
}

impl Vocabulary {
    /// The index of a term and whether it is new, or `None` if indices have run out.
    fn insert(&mut self, term: &str) -> Option<(u32, bool)> {
        if let Some(&index) = self.indices.get(term) {
            return Some((index, false));
        }
        // The last number is kept free: databases take indices below it.
        let index = u32::try_from(self.terms.len()).ok().filter(|&index| index < u32::MAX)?;
        let term: Arc<str> = term.into();
        self.terms.push(term.clone());
        self.indices.insert(term, index);
        Some((index, true))
    }
}

/// The saved form, version 1, in the order of pymilvus.
#[derive(Serialize)]
struct Saved<'a> {
    version: &'a str,
    corpus_size: u64,
    avgdl: f64,
    idf_word: Vec<&'a str>,
    idf_value: &'a [f64],
    k1: f64,
    b: f64,
    epsilon: f64,
}

/// The saved form with values unread, so that an error can name its key.
#[derive(Deserialize)]
struct Unread<'a> {
    #[serde(borrow)]
    version: &'a RawValue,
    #[serde(borrow)]
    corpus_size: &'a RawValue,
    #[serde(borrow)]
    avgdl: &'a RawValue,
    #[serde(borrow)]
    idf_word: &'a RawValue,
    #[serde(borrow)]
    idf_value: &'a RawValue,
    #[serde(borrow)]
    k1: &'a RawValue,
    #[serde(borrow)]
    b: &'a RawValue,
    #[serde(borrow)]
    epsilon: &'a RawValue,
}

const VERSION: &str = "v1";

impl Bm25 {
    /// Counts the terms of a corpus.
    pub fn fit<T: AsRef<str>>(corpus: &[T], options: Options) -> Result<Self> {
        let Options { analyzer, k1, b, epsilon } = options;
        let parameters = Parameters::new(k1, b, epsilon, Code::InvalidOption)?;
        let mut vocabulary = Vocabulary::default();
        // By index: how many documents hold the term, and the last of them.
        let mut holders: Vec<(u64, usize)> = Vec::new();
        let mut length = 0_u64;
        for (document, text) in corpus.iter().enumerate() {
            for token in analyzer.tokens(text.as_ref()) {
                let (index, new) = vocabulary
                    .insert(&token)
                    .ok_or_else(|| Error::new(Code::InvalidText, "corpus", "more different terms than indices"))?;
                if new {
                    holders.push((1, document));
                } else {
                    let (count, last) = &mut holders[index as usize];
                    *count += u64::from(*last != document);
                    *last = document;
                }
                length += 1;
            }
        }
        if length == 0 {
            let message = if corpus.is_empty() { "there is no document" } else { "no document holds a term" };
            return Err(Error::new(Code::InvalidText, "corpus", message));
        }
        let documents = corpus.len() as f64;
        let mut idf: Vec<f64> = holders
            .iter()
            .map(|&(count, _)| (documents - count as f64 + 0.5).ln() - (count as f64 + 0.5).ln())
            .collect();
        let substitute = parameters.epsilon * idf.iter().sum::<f64>() / idf.len() as f64;
        for value in &mut idf {
            *value = if *value < 0.0 { substitute } else { *value }.max(FLOOR);
        }
        let mean_length = length as f64 / documents;
        Ok(Self { analyzer, parameters, documents: corpus.len() as u64, mean_length, vocabulary, idf })
    }

    /// The saturated frequency of each known term. Unknown terms count towards the length.
    pub fn encode_document(&self, text: &str) -> SparseVector {
        let Parameters { k1, b, .. } = self.parameters;
        let tokens = self.analyzer.tokens(text);
        let saturation = k1 * (1.0 - b + b * tokens.len() as f64 / self.mean_length);
        let mut counts: BTreeMap<u32, f64> = BTreeMap::new();
        for index in self.known(&tokens) {
            *counts.entry(index).or_default() += 1.0;
        }
        let weight = |count: f64| (count * (k1 + 1.0) / (count + saturation)) as f32;
        SparseVector::from_pairs(counts.into_iter().map(|(index, count)| (index, weight(count))))
    }

    /// The inverse document frequency of each known term, once per occurrence.
    pub fn encode_query(&self, text: &str) -> SparseVector {
        let mut sums: BTreeMap<u32, f64> = BTreeMap::new();
        for index in self.known(&self.analyzer.tokens(text)) {
            *sums.entry(index).or_default() += self.idf[index as usize];
        }
        SparseVector::from_pairs(sums.into_iter().map(|(index, sum)| (index, sum as f32)))
    }

    fn known(&self, tokens: &[String]) -> impl Iterator<Item = u32> {
        tokens.iter().filter_map(|token| self.vocabulary.indices.get(token.as_str()).copied())
    }

    /// The statistics as JSON that pymilvus reads too. The analyzer is not part of it.
    pub fn save(&self) -> String {
        let Parameters { k1, b, epsilon } = self.parameters;
        let saved = Saved {
            version: VERSION,
            corpus_size: self.documents,
            avgdl: self.mean_length,
            idf_word: self.vocabulary.terms.iter().map(AsRef::as_ref).collect(),
            idf_value: &self.idf,
            k1,
            b,
            epsilon,
        };
        serde_json::to_string(&saved).expect("strings and finite numbers are always JSON")
    }

    /// Reads what [`save`](Self::save) or pymilvus wrote. The analyzer must be the one of the fit.
    pub fn from_json(json: &[u8], analyzer: Analyzer) -> Result<Self> {
        let unread: Unread = serde_json::from_slice(json).map_err(|error| {
            let code = match error.classify() {
                serde_json::error::Category::Data => Code::InvalidConfig,
                _ => Code::InvalidJson,
            };
            Error::new(code, "BM25 parameters", error.to_string())
        })?;
        let version: &str = value("version", unread.version)?;
        if version != VERSION {
            return Err(invalid("version", format!("{version:?} is not {VERSION:?}")));
        }
        let number = |key, raw| value::<f64>(key, raw);
        let (k1, b, epsilon) = (number("k1", unread.k1)?, number("b", unread.b)?, number("epsilon", unread.epsilon)?);
        let parameters = Parameters::new(k1, b, epsilon, Code::InvalidConfig)?;
        let documents: u64 = value("corpus_size", unread.corpus_size)?;
        if documents == 0 || documents > 1 << 53 {
            return Err(invalid("corpus_size", format!("{documents} is not a number of documents")));
        }
        let mean_length = number("avgdl", unread.avgdl)?;
        let total = mean_length * documents as f64;
        // Rounding may leave the total of one token just below one.
        if !(0.999..=2f64.powi(53)).contains(&total) {
            return Err(invalid("avgdl", format!("{mean_length} is no mean length of {documents} documents")));
        }
        let mut idf: Vec<f64> = value("idf_value", unread.idf_value)?;
        let terms: Vec<String> = value("idf_word", unread.idf_word)?;
        if terms.is_empty() || terms.len() != idf.len() {
            let message = format!("{} words and {} values of idf_value", terms.len(), idf.len());
            return Err(invalid("idf_word", message));
        }
        let mut vocabulary = Vocabulary::default();
        for term in &terms {
            match vocabulary.insert(term) {
                Some((_, true)) => {}
                Some((index, false)) => {
                    return Err(invalid("idf_word", format!("{term:?} is there twice, first at {index}")));
                }
                None => return Err(invalid("idf_word", "more words than indices")),
            }
        }
        for (value, term) in idf.iter_mut().zip(&terms) {
            if value.abs() > LARGEST {
                return Err(invalid("idf_value", format!("{value} of {term:?} is no inverse document frequency")));
            }
            *value = value.max(FLOOR);
        }
        Ok(Self { analyzer, parameters, documents, mean_length, vocabulary, idf })
    }

    /// The term of an index.
    pub fn token(&self, index: u32) -> Option<&str> {
        self.vocabulary.terms.get(index as usize).map(AsRef::as_ref)
    }

    /// Terms of the vocabulary; every index is below.
    pub fn dimensions(&self) -> usize {
        self.vocabulary.terms.len()
    }
}

fn invalid(key: &str, message: impl Into<String>) -> Error {
    Error::new(Code::InvalidConfig, key, message)
}

/// Reads the value of a key.
fn value<'a, T: Deserialize<'a>>(key: &str, raw: &'a RawValue) -> Result<T> {
    serde_json::from_str(raw.get()).map_err(|error| invalid(key, error.to_string()))
}
