//! What a GGUF file says beside its tensors, in the words of transformers: `config.json`, `tokenizer.json`, the pooling.

use serde_json::{Map, Value as Json, json};

use super::{
    Family,
    header::{Header, Scan, Value},
    shape,
};
use crate::{
    error::{Code, Error, Result},
    weights::Refusal,
};

/// The kinds of pieces that are told apart here.
const UNKNOWN: i32 = 2;
const CONTROL: i32 = 3;
/// What stands before a word's first piece.
const SPACE: char = '\u{2581}';

/// A model's files other than its weights.
#[derive(Debug, Clone, PartialEq)]
pub struct Described {
    /// A `config.json`.
    pub config: Json,
    /// A `tokenizer.json`; none where the file has a kind of tokenizer that is not known here.
    pub tokenizer: Option<Json>,
    /// As sentence-transformers names it; none where the file does not say, or is no embedder.
    pub pooling: Option<&'static str>,
}

/// Reads all of a file that stands before the tensors' values.
pub struct Describer {
    file: String,
    scan: Option<Scan>,
}

impl Describer {
    /// A describer of a file whose name appears in errors.
    pub fn new(file: &str) -> Self {
        Self { file: file.to_owned(), scan: Some(Scan::new(true)) }
    }

    /// Takes the next bytes of the file; gives the description once, when it is known. What comes after is of no interest.
    pub fn push(&mut self, mut chunk: &[u8]) -> Result<Option<Described>> {
        let Some(scan) = &mut self.scan else {
            return Ok(None);
        };
        let Some(header) = scan.push(&mut chunk).map_err(|refusal| refusal.at(&self.file))? else {
            return Ok(None);
        };
        self.scan = None;
        described(&header, &self.file).map(Some)
    }

    /// Checks that the file did not end before it was described.
    pub fn finish(self) -> Result<()> {
        match self.scan {
            None => Ok(()),
            Some(_) => Err(Refusal::new("truncated", "the file ends inside its header").at(&self.file)),
        }
    }
}

fn described(header: &Header, file: &str) -> Result<Described> {
    let family = Family::of(header, file)?;
    let tokens = Tokens { header, file };
    let tokenizer = match header.text("tokenizer.ggml.model") {
        Some("bert") => Some(tokens.word_piece()?),
        Some("t5") => Some(tokens.unigram()?),
        _ => None,
    };
    let keys = Keys { header, file, prefix: if family == Family::NomicBert { "nomic-bert" } else { "bert" } };
    let pooling = match header.count(&format!("{}.pooling_type", keys.prefix)) {
        Some(1) => Some("mean"),
        Some(2) => Some("cls"),
        Some(3) => Some("lasttoken"),
        _ => None,
    };
    Ok(Described { config: keys.config(family)?, tokenizer, pooling })
}

/// The keys of an architecture.
struct Keys<'a> {
    header: &'a Header,
    file: &'a str,
    prefix: &'static str,
}

impl Keys<'_> {
    fn missing(&self, key: &str) -> Error {
        Error::new(Code::InvalidConfig, self.file, format!("{}.{key} is missing, or no such number", self.prefix))
    }

    fn count(&self, key: &str) -> Result<u64> {
        self.header.count(&format!("{}.{key}", self.prefix)).ok_or_else(|| self.missing(key))
    }

    fn float(&self, key: &str) -> Result<f64> {
        match self.header.values.get(&format!("{}.{key}", self.prefix)) {
            Some(Value::Float(number)) if number.is_finite() => Ok(*number),
            _ => Err(self.missing(key)),
        }
    }

    fn has(&self, tensor: &str) -> bool {
        self.header.tensor(tensor).is_some()
    }

    /// Rows of a table, which say how many tokens, positions or types there are.
    fn rows(&self, tensor: &str) -> Result<u64> {
        match self.header.tensor(tensor).map(shape).as_deref() {
            Some(&[rows, _]) => Ok(rows),
            _ => Err(Error::new(Code::MissingTensor, tensor, format!("{} has no such table", self.file))),
        }
    }

    fn config(&self, family: Family) -> Result<Json> {
        let mut config = json!({
            "vocab_size": self.rows("token_embd.weight")?,
            "type_vocab_size": self.rows("token_types.weight")?,
        });
        let classifier = match self.has("cls.output.weight") {
            true => Some(self.rows("cls.output.weight")?),
            false => None,
        };
        let ending = if classifier.is_some() { "ForSequenceClassification" } else { "Model" };
        if let Some(labels) = classifier {
            config["num_labels"] = labels.into();
        }
        let (width, layers, heads) =
            (self.count("embedding_length")?, self.count("block_count")?, self.count("attention.head_count")?);
        let (inner, epsilon) = (self.count("feed_forward_length")?, self.float("attention.layer_norm_epsilon")?);
        let more = match family {
            Family::NomicBert => {
                if let Some(scaling) = self.header.text("nomic-bert.rope.scaling.type").filter(|&name| name != "none") {
                    let message = format!("rope scaling {scaling:?} is not supported");
                    return Err(Error::new(Code::UnsupportedModel, self.file, message));
                }
                json!({
                    "model_type": "nomic_bert",
                    "architectures": [format!("NomicBert{ending}")],
                    "n_embd": width,
                    "n_layer": layers,
                    "n_head": heads,
                    "n_inner": inner,
                    "n_positions": self.count("context_length")?,
                    "rotary_emb_base": self.float("rope.freq_base")?,
                    "rotary_emb_fraction": 1.0,
                    "rotary_emb_interleaved": false,
                    "layer_norm_epsilon": epsilon,
                    // The converter takes no other.
                    "activation_function": "swiglu",
                    "prenorm": false,
                    "causal": false,
                    "qkv_proj_bias": self.has("blk.0.attn_qkv.bias"),
                    "mlp_fc1_bias": self.has("blk.0.ffn_up.bias"),
                    "mlp_fc2_bias": self.has("blk.0.ffn_down.bias"),
                })
            }
            Family::Bert | Family::Roberta(_) => {
                let positions = self.rows("position_embd.weight")?;
                let (kind, class, positions) = match family {
                    Family::Roberta(padding) => {
                        config["pad_token_id"] = padding.into();
                        let positions = positions.saturating_add(padding + 1);
                        match self.header.text("tokenizer.ggml.model") {
                            Some("t5") => ("xlm-roberta", "XLMRoberta", positions),
                            _ => ("roberta", "Roberta", positions),
                        }
                    }
                    _ => ("bert", "Bert", positions),
                };
                json!({
                    "model_type": kind,
                    "architectures": [format!("{class}{ending}")],
                    "hidden_size": width,
                    "num_hidden_layers": layers,
                    "num_attention_heads": heads,
                    "intermediate_size": inner,
                    "max_position_embeddings": positions,
                    "layer_norm_eps": epsilon,
                    // Files do not say; llama.cpp computes no other.
                    "hidden_act": "gelu",
                    "position_embedding_type": "absolute",
                })
            }
        };
        if let (Json::Object(config), Json::Object(more)) = (&mut config, more) {
            config.extend(more);
        }
        Ok(config)
    }
}

/// The keys of a tokenizer.
struct Tokens<'a> {
    header: &'a Header,
    file: &'a str,
}

impl Tokens<'_> {
    fn invalid(&self, message: impl Into<String>) -> Error {
        Error::new(Code::InvalidTokenizer, self.file, message)
    }

    fn value(&self, key: &str) -> Option<&Value> {
        self.header.values.get(&format!("tokenizer.ggml.{key}"))
    }

    fn pieces(&self) -> Result<&[Box<str>]> {
        match self.value("tokens") {
            Some(Value::Texts(texts)) if !texts.is_empty() => Ok(texts),
            _ => Err(self.invalid("tokenizer.ggml.tokens is missing, or no list of strings")),
        }
    }

    /// Each piece's kind; none where the file does not say.
    fn kinds(&self, pieces: usize) -> Result<&[i32]> {
        match self.value("token_type") {
            None => Ok(&[]),
            Some(Value::Ints(kinds)) if kinds.len() == pieces => Ok(kinds),
            Some(_) => Err(self.invalid("tokenizer.ggml.token_type has no number for each token")),
        }
    }

    /// A token that the file names by the first of these keys, or else is known by its text.
    fn special(&self, texts: &[String], keys: &[&str], usual: &str) -> Result<usize> {
        let id = keys.iter().find_map(|key| self.header.count(&format!("tokenizer.ggml.{key}_token_id")));
        let found = match id {
            Some(id) => usize::try_from(id).ok().filter(|&id| id < texts.len()),
            None => texts.iter().position(|text| text == usual),
        };
        found.ok_or_else(|| self.invalid(format!("there is no token {usual}, or its id is none of the tokens'")))
    }

    fn flag(&self, key: &str, usual: bool) -> bool {
        match self.value(key) {
            Some(Value::Bool(flag)) => *flag,
            _ => usual,
        }
    }

    /// BERT's tokenizer. The file has words with a mark in front and their continuations without one.
    fn word_piece(&self) -> Result<Json> {
        let pieces = self.pieces()?;
        let kinds = self.kinds(pieces.len())?;
        let special = |id: usize| kinds.get(id).is_some_and(|&kind| kind == CONTROL);
        let text = |(id, piece): (usize, &str)| match piece.strip_prefix(SPACE) {
            Some(word) => word.to_owned(),
            None if special(id) || (kinds.is_empty() && piece.starts_with('[')) => piece.to_owned(),
            None => format!("##{piece}"),
        };
        let texts: Vec<String> = pieces.iter().map(AsRef::as_ref).enumerate().map(text).collect();
        let unknown = self.special(&texts, &["unknown"], "[UNK]")?;
        let first = self.special(&texts, &["cls", "bos"], "[CLS]")?;
        let last = self.special(&texts, &["seperator", "sep", "eos"], "[SEP]")?;
        // The file does not say whether the model knows capitals. llama.cpp never does; the vocabulary of a cased model is full of them.
        let ordinary = || texts.iter().enumerate().filter(|&(id, text)| !special(id) && !text.starts_with('['));
        let cased = ordinary().filter(|(_, text)| text.chars().any(char::is_uppercase)).count();
        let vocabulary: Map<String, Json> =
            texts.iter().enumerate().map(|(id, text)| (text.clone(), id.into())).collect();
        let piece = |id: usize, kind: u8| json!({"SpecialToken": {"id": texts[id], "type_id": kind}});
        let sequence = |name: &str, kind: u8| json!({"Sequence": {"id": name, "type_id": kind}});
        Ok(self.assembled(
            json!({
                "type": "WordPiece",
                "unk_token": texts[unknown],
                "continuing_subword_prefix": "##",
                "max_input_chars_per_word": 100,
                "vocab": vocabulary,
            }),
            json!({
                "type": "BertNormalizer",
                "clean_text": true,
                "handle_chinese_chars": true,
                "strip_accents": null,
                "lowercase": cased * 100 < texts.len(),
            }),
            json!({"type": "BertPreTokenizer"}),
            json!({
                "type": "TemplateProcessing",
                "single": [piece(first, 0), sequence("A", 0), piece(last, 0)],
                "pair": [piece(first, 0), sequence("A", 0), piece(last, 0), sequence("B", 1), piece(last, 1)],
                "special_tokens": specials(&texts, [first, last]),
            }),
            added(&texts, special),
        ))
    }

    /// XLM-R's tokenizer.
    fn unigram(&self) -> Result<Json> {
        let pieces = self.pieces()?;
        let kinds = self.kinds(pieces.len())?;
        let scores = match self.value("scores") {
            Some(Value::Floats(scores))
                if scores.len() == pieces.len() && scores.iter().all(|score| score.is_finite()) =>
            {
                scores
            }
            _ => return Err(self.invalid("tokenizer.ggml.scores has no number for each token")),
        };
        let texts: Vec<String> = pieces.iter().map(ToString::to_string).collect();
        let unknown = match self.header.count("tokenizer.ggml.unknown_token_id") {
            None if kinds.contains(&UNKNOWN) => kinds.iter().position(|&kind| kind == UNKNOWN).unwrap_or(0),
            _ => self.special(&texts, &["unknown"], "<unk>")?,
        };
        let first = self.special(&texts, &["bos", "cls"], "<s>")?;
        let last = self.special(&texts, &["eos", "seperator"], "</s>")?;
        let vocabulary: Vec<Json> =
            texts.iter().zip(scores).map(|(text, &score)| json!([text, f64::from(score)])).collect();
        let normalizer = match self.value("precompiled_charsmap") {
            Some(Value::Bytes(table)) if !table.is_empty() => {
                json!({"type": "Precompiled", "precompiled_charsmap": base64(table)})
            }
            _ => Json::Null,
        };
        let scheme = if self.flag("add_space_prefix", true) { "always" } else { "never" };
        let metaspace = json!({
            "type": "Metaspace", "replacement": SPACE, "prepend_scheme": scheme, "split": true,
        });
        let pre_tokenizer = match self.flag("remove_extra_whitespaces", true) {
            true => json!({"type": "Sequence", "pretokenizers": [{"type": "WhitespaceSplit"}, metaspace]}),
            false => metaspace,
        };
        let piece = |id: usize| json!({"SpecialToken": {"id": texts[id], "type_id": 0}});
        let sequence = |name: &str| json!({"Sequence": {"id": name, "type_id": 0}});
        Ok(self.assembled(
            json!({"type": "Unigram", "unk_id": unknown, "vocab": vocabulary, "byte_fallback": false}),
            normalizer,
            pre_tokenizer,
            json!({
                "type": "TemplateProcessing",
                "single": [piece(first), sequence("A"), piece(last)],
                "pair": [piece(first), sequence("A"), piece(last), piece(last), sequence("B"), piece(last)],
                "special_tokens": specials(&texts, [first, last]),
            }),
            added(&texts, |id| id == unknown || kinds.get(id).is_some_and(|&kind| kind == CONTROL)),
        ))
    }

    fn assembled(&self, model: Json, normalizer: Json, pre_tokenizer: Json, template: Json, added: Vec<Json>) -> Json {
        let mut tokenizer = json!({"version": "1.0", "truncation": null, "padding": null, "decoder": null});
        tokenizer["added_tokens"] = added.into();
        tokenizer["normalizer"] = normalizer;
        tokenizer["pre_tokenizer"] = pre_tokenizer;
        tokenizer["post_processor"] = template;
        tokenizer["model"] = model;
        tokenizer
    }
}

fn specials(texts: &[String], ids: [usize; 2]) -> Map<String, Json> {
    let special = |id: usize| {
        let text = &texts[id];
        (text.clone(), json!({"id": text, "ids": [id], "tokens": [text]}))
    };
    ids.into_iter().map(special).collect()
}

/// Tokens that a text may name as they are.
fn added(texts: &[String], special: impl Fn(usize) -> bool) -> Vec<Json> {
    let tokens = texts.iter().enumerate().filter(|&(id, text)| special(id) && !text.is_empty());
    tokens
        .map(|(id, text)| {
            json!({
                "id": id, "content": text, "special": true, "normalized": false,
                "single_word": false, "lstrip": false, "rstrip": false,
            })
        })
        .collect()
}

/// As the tokenizers crate reads it.
fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let number = (0..3).fold(0, |number, at| number << 8 | group.get(at).copied().map_or(0, usize::from));
        for digit in 0..4 {
            match digit <= group.len() {
                true => text.push(char::from(DIGITS[number >> (18 - 6 * digit) & 63])),
                false => text.push('='),
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::base64;

    #[test]
    fn base64_is_the_usual_one() {
        for (bytes, text) in [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foobar", "Zm9vYmFy")] {
            assert_eq!(base64(bytes.as_bytes()), text);
        }
    }
}
