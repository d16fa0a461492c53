//! Which entries of a vocabulary get a vector, and the `tokenizer.json` that gives out no other.

use std::collections::{HashMap, HashSet};

use serde_json::{Value, json};

use crate::{
    error::{Code, Error, Result},
    load::TOKENIZER,
};

/// The entries kept, and the tokenizer for them.
pub struct Vocabulary {
    /// In the order of their new ids, each with its old one.
    pub tokens: Vec<(String, u32)>,
    /// `tokenizer.json` with the new ids.
    pub tokenizer: Value,
}

/// Leaves out the entries that no text gives: those that BERT reserved, and added tokens other than the unknown one and `padding`
/// (the tokenizer's own, where it names one).
pub fn kept(json: &[u8], padding: Option<&str>) -> Result<Vocabulary> {
    let mut tokenizer: Value =
        serde_json::from_slice(json).map_err(|error| Error::new(Code::InvalidJson, TOKENIZER, error.to_string()))?;
    let mut entries = entries(&tokenizer["model"]["vocab"])?;
    let added: Vec<(String, u32)> =
        tokenizer["added_tokens"].as_array().into_iter().flatten().filter_map(added).collect();
    for (token, id) in &added {
        if !entries.iter().any(|(known, _)| known == token) {
            entries.push((token.clone(), *id));
        }
    }
    entries.sort_by_key(|(_, id)| *id);

    let model = &tokenizer["model"];
    let unknown = match (model["unk_token"].as_str(), model["unk_id"].as_u64()) {
        (Some(token), _) => Some(token.to_owned()),
        (None, Some(id)) => entries.iter().find(|(_, known)| u64::from(*known) == id).map(|(token, _)| token.clone()),
        (None, None) => None,
    };
    let padding = tokenizer["padding"]["pad_token"].as_str().or(padding).map(str::to_owned);
    let needed = |token: &str| [&unknown, &padding].into_iter().flatten().any(|needed| needed == token);
    let added: HashSet<&str> = added.iter().map(|(token, _)| token.as_str()).collect();
    let (tokens, removed): (Vec<_>, Vec<_>) = entries
        .into_iter()
        .partition(|(token, _)| !is_reserved(token) && (!added.contains(token.as_str()) || needed(token)));
    let removed: HashSet<String> = removed.into_iter().map(|(token, _)| token).collect();
    let ids: HashMap<&str, usize> = tokens.iter().enumerate().map(|(id, (token, _))| (token.as_str(), id)).collect();
    if ids.is_empty() {
        return Err(Error::new(Code::InvalidTokenizer, TOKENIZER, "its vocabulary has no entry that a text gives"));
    }

    let model = &mut tokenizer["model"];
    renumber(&mut model["vocab"], &tokens);
    if let Some(id) = model.get_mut("unk_id").filter(|id| !id.is_null()) {
        *id = unknown.as_deref().and_then(|token| ids.get(token)).map_or(Value::Null, |&id| json!(id));
    }
    if let Some(Value::Array(merges)) = model.get_mut("merges") {
        merges.retain(|merge| {
            merged(merge).is_none_or(|[left, right]| {
                !removed.contains(left) && !removed.contains(right) && !removed.contains(&format!("{left}{right}"))
            })
        });
    }
    if let Some(Value::Array(added)) = tokenizer.get_mut("added_tokens") {
        added.retain_mut(|token| match token["content"].as_str().and_then(|content| ids.get(content)) {
            Some(&id) => {
                token["id"] = json!(id);
                true
            }
            None => false,
        });
    }
    // A sum of vectors knows no first token that could do without its space.
    if let Some(part) = tokenizer.get_mut("pre_tokenizer") {
        add_prefix_space(part);
    }
    for part in ["post_processor", "padding", "truncation"] {
        tokenizer[part] = Value::Null;
    }
    Ok(Vocabulary { tokens, tokenizer })
}

/// The entries of a model's vocabulary: an object of ids, or in Unigram models a list with scores.
fn entries(vocabulary: &Value) -> Result<Vec<(String, u32)>> {
    let entries: Option<Vec<(String, u32)>> = match vocabulary {
        Value::Object(entries) => {
            entries.iter().map(|(token, id)| Some((token.clone(), u32::try_from(id.as_u64()?).ok()?))).collect()
        }
        Value::Array(entries) => entries
            .iter()
            .enumerate()
            .map(|(id, entry)| Some((entry[0].as_str()?.to_owned(), u32::try_from(id).ok()?)))
            .collect(),
        _ => None,
    };
    entries.ok_or_else(|| Error::new(Code::InvalidTokenizer, TOKENIZER, "its model has no vocabulary"))
}

fn added(token: &Value) -> Option<(String, u32)> {
    Some((token["content"].as_str()?.to_owned(), u32::try_from(token["id"].as_u64()?).ok()?))
}

/// `[unused12]`, of which BERT's vocabulary has nearly a thousand.
fn is_reserved(token: &str) -> bool {
    let number = token.strip_prefix("[unused").and_then(|rest| rest.split_once(']')).map(|(number, _)| number);
    number.is_some_and(|number| !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()))
}

/// The two halves of a merge, in the old form or the new one.
fn merged(merge: &Value) -> Option<[&str; 2]> {
    match merge {
        Value::String(pair) => pair.split_once(' ').map(|(left, right)| [left, right]),
        Value::Array(pair) => Some([pair.first()?.as_str()?, pair.get(1)?.as_str()?]),
        _ => None,
    }
}

fn renumber(vocabulary: &mut Value, tokens: &[(String, u32)]) {
    *vocabulary = match vocabulary {
        Value::Array(old) => {
            let score = |entry: &Value| entry[1].as_f64().unwrap_or_default();
            let lowest = old.iter().map(score).fold(f64::INFINITY, f64::min);
            // An added token that the model does not know is the least likely of all.
            tokens.iter().map(|(token, id)| json!([token, old.get(*id as usize).map_or(lowest, score)])).collect()
        }
        _ => Value::Object(tokens.iter().enumerate().map(|(id, (token, _))| (token.clone(), json!(id))).collect()),
    };
}

fn add_prefix_space(part: &mut Value) {
    if part["type"] == "ByteLevel" {
        part["add_prefix_space"] = json!(true);
    }
    if let Some(Value::Array(parts)) = part.get_mut("pretokenizers") {
        parts.iter_mut().for_each(add_prefix_space);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept_of(tokenizer: &Value, padding: Option<&str>) -> Vocabulary {
        kept(tokenizer.to_string().as_bytes(), padding).expect("a vocabulary")
    }

    fn names(vocabulary: &Vocabulary) -> Vec<(&str, u32)> {
        vocabulary.tokens.iter().map(|(token, id)| (token.as_str(), *id)).collect()
    }

    fn special(contents: &[(&str, u32)]) -> Value {
        contents.iter().map(|(content, id)| json!({"content": content, "id": id, "special": true})).collect()
    }

    #[test]
    fn bert_loses_its_reserved_and_special_entries() {
        let vocab = json!({"[PAD]": 0, "[unused0]": 1, "[UNK]": 2, "[CLS]": 3, "a": 4, "[unusedx]": 5, "##b": 6});
        let tokenizer = json!({
            "added_tokens": special(&[("[PAD]", 0), ("[UNK]", 2), ("[CLS]", 3)]),
            "padding": null, "post_processor": {"type": "BertProcessing"},
            "model": {"type": "WordPiece", "unk_token": "[UNK]", "vocab": vocab},
        });
        let found = kept_of(&tokenizer, Some("[PAD]"));
        assert_eq!(names(&found), [("[PAD]", 0), ("[UNK]", 2), ("a", 4), ("[unusedx]", 5), ("##b", 6)]);
        assert_eq!(found.tokenizer["model"]["vocab"]["##b"], 4);
        assert_eq!(found.tokenizer["added_tokens"], special(&[("[PAD]", 0), ("[UNK]", 1)]));
        assert!(found.tokenizer["post_processor"].is_null());
    }

    #[test]
    fn a_unigram_model_keeps_its_scores_and_finds_its_unknown_token_again() {
        let vocab =
            json!([["<s>", 0.0], ["<pad>", 0.0], ["</s>", 0.0], ["<unk>", 0.0], ["\u{2581}a", -3.5], ["b", -7.25]]);
        let tokenizer = json!({
            "added_tokens": special(&[("<s>", 0), ("<pad>", 1), ("</s>", 2), ("<unk>", 3), ("<mask>", 6)]),
            "model": {"type": "Unigram", "unk_id": 3, "vocab": vocab},
        });
        let found = kept_of(&tokenizer, None);
        assert_eq!(names(&found), [("<unk>", 3), ("\u{2581}a", 4), ("b", 5)]);
        assert_eq!(found.tokenizer["model"]["unk_id"], 0);
        assert_eq!(found.tokenizer["model"]["vocab"], json!([["<unk>", 0.0], ["\u{2581}a", -3.5], ["b", -7.25]]));
        let with_mask = kept_of(&tokenizer, Some("<mask>"));
        assert_eq!(names(&with_mask).last(), Some(&("<mask>", 6)));
        assert_eq!(with_mask.tokenizer["model"]["vocab"][3], json!(["<mask>", -7.25]));
    }

    #[test]
    fn merges_of_removed_entries_go_with_them() {
        let tokenizer = json!({
            "added_tokens": special(&[("ab", 2)]),
            "pre_tokenizer": {"type": "Sequence", "pretokenizers": [{"type": "ByteLevel", "add_prefix_space": false}]},
            "model": {
                "type": "BPE", "vocab": {"a": 0, "b": 1, "ab": 2, "c": 3, "bc": 4},
                "merges": ["a b", ["b", "c"], ["ab", "c"]],
            },
        });
        let found = kept_of(&tokenizer, None);
        assert_eq!(names(&found), [("a", 0), ("b", 1), ("c", 3), ("bc", 4)]);
        assert_eq!(found.tokenizer["model"]["merges"], json!([["b", "c"]]));
        assert_eq!(found.tokenizer["pre_tokenizer"]["pretokenizers"][0]["add_prefix_space"], true);
        assert!(found.tokenizer["model"].get("unk_id").is_none());
    }

    #[test]
    fn what_is_no_vocabulary_is_refused() {
        let code = |json: &str| kept(json.as_bytes(), None).err().expect("refused").code();
        assert_eq!(code("<!doctype html>"), Code::InvalidJson);
        assert_eq!(code("{}"), Code::InvalidTokenizer);
        assert_eq!(code(r#"{"model": {"vocab": {"[unused1]": 0}}}"#), Code::InvalidTokenizer);
        assert_eq!(code(r#"{"model": {"vocab": {"a": -1}}}"#), Code::InvalidTokenizer);
    }
}
