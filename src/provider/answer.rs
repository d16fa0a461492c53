//! Values out of answers, none of which is trusted: how many there are, how long, whether they are numbers, and in which order.

use std::fmt;

use serde::{
    Deserialize, Deserializer,
    de::{DeserializeOwned, Error as _, SeqAccess, Visitor},
};

use super::{ReplyRows, driver::Rows};
use crate::{
    base64,
    call::{OutputDtype, QuantizedValues, QuantizedVectors, Vectors, normalize},
    error::{Code, Error, Result},
    sparse::SparseVector,
};

/// Characters of an unreadable answer that a message repeats.
const EXCERPT: usize = 120;

/// A vector as it was written.
pub(super) enum Numbers {
    /// Of JSON numbers: whatever they are, integers up to 255 among them are exact.
    List(Vec<f32>),
    Base64(String),
}

impl<'de> Deserialize<'de> for Numbers {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;
        impl<'de> Visitor<'de> for Either {
            type Value = Numbers;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of numbers, or their base64")
            }

            fn visit_str<E>(self, text: &str) -> Result<Numbers, E> {
                Ok(Numbers::Base64(text.to_owned()))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Numbers, A::Error> {
                let mut values = Vec::new();
                while let Some(value) = list.next_element::<f64>()? {
                    if !(value as f32).is_finite() {
                        return Err(A::Error::custom("a number that is not finite"));
                    }
                    values.push(value as f32);
                }
                Ok(Numbers::List(values))
            }
        }
        deserializer.deserialize_any(Either)
    }
}

/// Reads a body as JSON of this form.
pub(super) fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T> {
    serde_json::from_slice(body).map_err(|error| match error.is_data() {
        true => invalid(format!("the answer is not what is documented: {error}")),
        false => invalid(format!("the answer is no JSON ({error}): {}", excerpt(body))),
    })
}

/// The beginning of a body, fit for a message.
pub(super) fn excerpt(body: &[u8]) -> String {
    let text = String::from_utf8_lossy(body);
    let plain = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let mut text: String = plain.chars().filter(|character| !character.is_control()).collect();
    // Not cut yet: half of a secret could not be found any more.
    if text.is_empty() {
        text.push_str("it is empty");
    }
    text
}

/// Cuts a message that repeats an answer.
pub(super) fn shorten(text: &mut String) {
    // Room for a sentence of ours and an excerpt.
    if let Some((end, _)) = text.char_indices().nth(4 * EXCERPT) {
        text.truncate(end);
        text.push_str("...");
    }
}

pub(super) fn invalid(message: impl Into<String>) -> Error {
    Error::new(Code::InvalidResponse, "", message)
}

/// What rows must be.
#[derive(Debug, Clone, Copy)]
pub(super) struct Expected {
    /// Inputs of the request.
    pub inputs: usize,
    /// Scores that are to come, where it is scores: fewer than inputs if only the best were asked for.
    pub scores: usize,
    pub dtype: OutputDtype,
    /// Values of each vector, where that is known.
    pub width: Option<usize>,
    pub normalize: bool,
}

/// Rows in the order of their inputs, each with its values.
pub(super) fn checked(rows: ReplyRows, expected: Expected) -> Result<Rows> {
    match rows {
        ReplyRows::Dense(rows) => dense(ordered(rows, expected.inputs)?, expected),
        ReplyRows::Sparse(rows) => {
            count(rows.len(), expected.inputs, "vectors")?;
            rows.into_iter().map(sparse).collect::<Result<_>>().map(Rows::Sparse)
        }
        ReplyRows::Scores(scores) => {
            count(scores.len(), expected.scores, "scores")?;
            let mut seen = vec![false; expected.inputs];
            for &(index, score) in &scores {
                mark(&mut seen, index)?;
                if !score.is_finite() {
                    return Err(invalid(format!("the score of document {index} is not finite")));
                }
            }
            Ok(Rows::Scores(scores))
        }
    }
}

fn count(come: usize, asked: usize, what: &str) -> Result<()> {
    match come == asked {
        true => Ok(()),
        false => Err(invalid(format!("the answer has {come} {what} for {asked} inputs"))),
    }
}

fn mark(seen: &mut [bool], index: usize) -> Result<()> {
    match seen.get_mut(index) {
        None => Err(invalid(format!("the answer has index {index} of {} inputs", seen.len()))),
        Some(true) => Err(invalid(format!("the answer has index {index} twice"))),
        Some(seen) => {
            *seen = true;
            Ok(())
        }
    }
}

/// By index, where there is one; an answer has all or none.
fn ordered(rows: Vec<(Option<usize>, Numbers)>, inputs: usize) -> Result<Vec<Numbers>> {
    count(rows.len(), inputs, "vectors")?;
    let indexed = rows.iter().filter(|(index, _)| index.is_some()).count();
    if indexed != 0 && indexed != rows.len() {
        return Err(invalid("some vectors of the answer have an index and some have none"));
    }
    let mut seen = vec![false; inputs];
    let mut placed = Vec::with_capacity(inputs);
    for (position, (index, numbers)) in rows.into_iter().enumerate() {
        let index = index.unwrap_or(position);
        mark(&mut seen, index)?;
        placed.push((index, numbers));
    }
    // As many as inputs, each within them and none twice: a permutation.
    placed.sort_unstable_by_key(|&(index, _)| index);
    Ok(placed.into_iter().map(|(_, numbers)| numbers).collect())
}

fn dense(rows: Vec<Numbers>, expected: Expected) -> Result<Rows> {
    let mut width = expected.width;
    let mut fits = |index: usize, come: usize| match *width.get_or_insert(come) {
        _ if come == 0 => Err(invalid(format!("vector {index} of the answer is empty"))),
        width if width == come => Ok(()),
        width => Err(invalid(format!("vector {index} of the answer has {come} values and not {width}"))),
    };
    let values = match expected.dtype {
        OutputDtype::Float => {
            let mut values = Vec::new();
            for (index, row) in rows.into_iter().enumerate() {
                let mut row = match row {
                    Numbers::List(row) => row,
                    Numbers::Base64(text) => floats(&text).map_err(|message| unreadable(index, message))?,
                };
                fits(index, row.len())?;
                if expected.normalize {
                    normalize(&mut row);
                }
                values.extend(row);
            }
            return Ok(Rows::Dense(Vectors { width: width.unwrap_or_default(), values }));
        }
        OutputDtype::Int8 => QuantizedValues::Int8(integers(rows, fits, |byte| byte as i8)?),
        OutputDtype::Binary => QuantizedValues::Binary(integers(rows, fits, |byte| byte as i8)?),
        OutputDtype::Uint8 => QuantizedValues::Uint8(integers(rows, fits, |byte| byte)?),
        OutputDtype::Ubinary => QuantizedValues::Ubinary(integers(rows, fits, |byte| byte)?),
    };
    Ok(Rows::Quantized(QuantizedVectors { width: width.unwrap_or_default(), values }))
}

fn unreadable(index: usize, message: &str) -> Error {
    invalid(format!("vector {index} of the answer {message}"))
}

/// The integers of all rows, from numbers or from the base64 of their bytes.
fn integers<T: TryFrom<i32>>(
    rows: Vec<Numbers>,
    mut fits: impl FnMut(usize, usize) -> Result<()>,
    of_byte: impl Fn(u8) -> T,
) -> Result<Vec<T>> {
    let mut values = Vec::new();
    for (index, row) in rows.into_iter().enumerate() {
        match row {
            Numbers::List(row) => {
                fits(index, row.len())?;
                for value in row {
                    // A cast saturates, so that what is too large for an i32 is too large for a byte as well.
                    let integer =
                        (value.fract() == 0.0).then_some(value as i32).and_then(|value| T::try_from(value).ok());
                    let message = "has a number that is not of the type that was asked for";
                    values.push(integer.ok_or_else(|| unreadable(index, message))?);
                }
            }
            Numbers::Base64(text) => {
                let bytes = base64::decode(&text).map_err(|message| unreadable(index, message))?;
                fits(index, bytes.len())?;
                values.extend(bytes.into_iter().map(&of_byte));
            }
        }
    }
    Ok(values)
}

fn floats(text: &str) -> Result<Vec<f32>, &'static str> {
    let bytes = base64::decode(text)?;
    let (words, rest) = bytes.as_chunks::<4>();
    if !rest.is_empty() {
        return Err("is not of whole floats");
    }
    let values: Vec<f32> = words.iter().map(|&word| f32::from_le_bytes(word)).collect();
    match values.iter().all(|value| value.is_finite()) {
        true => Ok(values),
        false => Err("has a number that is not finite"),
    }
}

/// A sparse vector of an answer's pairs, in any order.
fn sparse(pairs: Vec<(u32, f32)>) -> Result<SparseVector> {
    if let Some((index, value)) = pairs.iter().find(|(_, value)| !value.is_finite() || *value < 0.0) {
        return Err(invalid(format!("the answer has weight {value} at index {index}")));
    }
    let mut indices: Vec<u32> = pairs.iter().map(|&(index, _)| index).collect();
    indices.sort_unstable();
    match indices.windows(2).find(|pair| pair[0] == pair[1]) {
        Some(pair) => Err(invalid(format!("the answer has index {} twice in one vector", pair[0]))),
        None => Ok(SparseVector::from_pairs(pairs)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floats_are_whole_and_finite() {
        // 1.0 and -2.5, little-endian.
        assert_eq!(floats("AACAPwAAIMA=").expect("floats"), [1.0, -2.5]);
        assert!(floats("AACAPwA=").is_err());
        assert!(floats("AADAfw==").is_err(), "NaN");
    }

    fn expected(inputs: usize, dtype: OutputDtype, width: Option<usize>) -> Expected {
        Expected { inputs, scores: inputs, dtype, width, normalize: false }
    }

    fn rows(json: &str) -> ReplyRows {
        let rows: Vec<Numbers> = serde_json::from_str(json).expect("rows");
        ReplyRows::Dense(rows.into_iter().map(|row| (None, row)).collect())
    }

    #[test]
    fn values_have_the_type_that_was_asked_for() {
        let quantized = |json, dtype| match checked(rows(json), expected(1, dtype, None)) {
            Ok(Rows::Quantized(vectors)) => Ok(vectors.values),
            Ok(_) => panic!("not quantized"),
            Err(error) => Err(error.code()),
        };
        let int8 = QuantizedValues::Int8(vec![-128, 0, 127]);
        assert_eq!(quantized("[[-128, 0, 127.0]]", OutputDtype::Int8), Ok(int8.clone()));
        assert_eq!(quantized(r#"["gAB/"]"#, OutputDtype::Int8), Ok(int8));
        assert_eq!(quantized("[[0, 255]]", OutputDtype::Ubinary), Ok(QuantizedValues::Ubinary(vec![0, 255])));
        assert_eq!(quantized(r#"["gH8="]"#, OutputDtype::Binary), Ok(QuantizedValues::Binary(vec![-128, 127])));
        for (json, dtype) in [
            ("[[128]]", OutputDtype::Int8),
            ("[[-1]]", OutputDtype::Uint8),
            ("[[0.5]]", OutputDtype::Uint8),
            ("[[256]]", OutputDtype::Ubinary),
            ("[[1e30]]", OutputDtype::Binary),
            ("[[]]", OutputDtype::Binary),
        ] {
            assert_eq!(quantized(json, dtype), Err(Code::InvalidResponse), "{json}");
        }
    }

    #[test]
    fn what_is_no_number_is_no_vector() {
        for json in ["[[1, null]]", "[[1, NaN]]", "[null]", "[[\"1\"]]", "[[1e999]]", "[[1e60]]", "[{}]", "[[true]]"] {
            assert_eq!(
                parse::<Vec<Numbers>>(json.as_bytes()).err().map(|error| error.code()),
                Some(Code::InvalidResponse),
                "{json}"
            );
        }
    }

    #[test]
    fn numbers_lengths_and_indices_are_checked() {
        let fails = |rows, inputs, width| checked(rows, expected(inputs, OutputDtype::Float, width)).is_err();
        assert!(!fails(rows("[[1, 2], [3, 4]]"), 2, Some(2)));
        assert!(fails(rows("[[1, 2], [3, 4]]"), 3, None));
        assert!(fails(rows("[[1, 2], [3, 4]]"), 1, None));
        assert!(fails(rows("[[1, 2], [3]]"), 2, None));
        assert!(fails(rows("[[1, 2], [3, 4]]"), 2, Some(3)));
        assert!(fails(rows("[[], []]"), 2, None));
        let indexed = |indices: &[Option<usize>]| {
            let row = |&index: &Option<usize>| (index, Numbers::List(vec![index.unwrap_or(9) as f32]));
            checked(
                ReplyRows::Dense(indices.iter().map(row).collect()),
                expected(indices.len(), OutputDtype::Float, None),
            )
        };
        let Ok(Rows::Dense(vectors)) = indexed(&[Some(2), Some(0), Some(1)]) else { panic!("valid") };
        assert_eq!(vectors.values, [0.0, 1.0, 2.0]);
        for indices in [[Some(0), Some(0)], [Some(0), Some(2)], [Some(0), None]] {
            assert!(indexed(&indices).is_err(), "{indices:?}");
        }
    }

    #[test]
    fn scores_and_weights_are_checked() {
        let scores = |scores: &[(usize, f32)], asked| {
            let expected = Expected { scores: asked, ..expected(3, OutputDtype::Float, None) };
            checked(ReplyRows::Scores(scores.to_vec()), expected).is_ok()
        };
        assert!(scores(&[(2, 0.5), (0, 0.1), (1, 0.0)], 3));
        assert!(scores(&[(2, 0.5)], 1));
        assert!(!scores(&[(2, 0.5)], 3));
        assert!(!scores(&[(2, 0.5), (2, 0.1)], 2));
        assert!(!scores(&[(3, 0.5)], 1));
        assert!(!scores(&[(0, f32::NAN)], 1));
        assert_eq!(sparse(vec![(7, 0.5), (2, 0.0), (3, 1.0)]).expect("valid").indices, [3, 7]);
        for bad in [vec![(1, 0.5), (1, 0.7)], vec![(1, -0.5)], vec![(1, f32::INFINITY)]] {
            assert!(sparse(bad).is_err());
        }
    }
}
