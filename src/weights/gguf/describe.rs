//! What a GGUF file says beside its tensors, in the words of transformers: `config.json`, `tokenizer.json`, the pooling.

use std::borrow::Cow;

use serde::{Serialize, Serializer};
use serde_json::{Map, Value as Json, json};

use super::{
    Family,
    header::{Header, Scan, Value},
    shape,
};
use crate::{
    base64,
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
    /// The text of a `tokenizer.json`; none where the file has a kind of tokenizer that is not
    /// known here.
    pub tokenizer: Option<String>,
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
    fn special(&self, texts: &Texts, keys: &[&str], usual: &str) -> Result<usize> {
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
    fn word_piece(&self) -> Result<String> {
        let pieces = self.pieces()?;
        let kinds = self.kinds(pieces.len())?;
        let special = |id: usize| kinds.get(id).is_some_and(|&kind| kind == CONTROL);
        let text = |id: usize| {
            let piece = &*pieces[id];
            match piece.strip_prefix(SPACE) {
                Some(word) => Cow::Borrowed(word),
                None if special(id) || (kinds.is_empty() && piece.starts_with('[')) => Cow::Borrowed(piece),
                None => Cow::Owned(format!("##{piece}")),
            }
        };
        let texts = Texts { count: pieces.len(), text: &text };
        let unknown = self.special(&texts, &["unknown"], "[UNK]")?;
        let first = self.special(&texts, &["cls", "bos"], "[CLS]")?;
        let last = self.special(&texts, &["seperator", "sep", "eos"], "[SEP]")?;
        // The file does not say whether the model knows capitals. llama.cpp never does; the
        // vocabulary of a cased model is full of them.
        let ordinary = texts.iter().enumerate().filter(|(id, text)| !special(*id) && !text.starts_with('['));
        let cased = ordinary.filter(|(_, text)| text.chars().any(char::is_uppercase)).count();
        let piece = |id: usize, kind: u8| json!({"SpecialToken": {"id": text(id), "type_id": kind}});
        let sequence = |name: &str, kind: u8| json!({"Sequence": {"id": name, "type_id": kind}});
        self.written(&File {
            added_tokens: Each(|| added(&texts, special)),
            normalizer: json!({
                "type": "BertNormalizer",
                "clean_text": true,
                "handle_chinese_chars": true,
                "strip_accents": null,
                "lowercase": cased * 100 < texts.len(),
            }),
            pre_tokenizer: json!({"type": "BertPreTokenizer"}),
            post_processor: json!({
                "type": "TemplateProcessing",
                "single": [piece(first, 0), sequence("A", 0), piece(last, 0)],
                "pair": [piece(first, 0), sequence("A", 0), piece(last, 0), sequence("B", 1), piece(last, 1)],
                "special_tokens": specials(&texts, [first, last]),
            }),
            model: WordPiece {
                kind: "WordPiece",
                unk_token: text(unknown),
                continuing_subword_prefix: "##",
                max_input_chars_per_word: 100,
                vocab: Pairs(|| texts.iter().enumerate().map(|(id, text)| (text, id))),
            },
        })
    }

    /// XLM-R's tokenizer.
    fn unigram(&self) -> Result<String> {
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
        let text = |id: usize| Cow::Borrowed(&*pieces[id]);
        let texts = Texts { count: pieces.len(), text: &text };
        let unknown = match self.header.count("tokenizer.ggml.unknown_token_id") {
            None if kinds.contains(&UNKNOWN) => kinds.iter().position(|&kind| kind == UNKNOWN).unwrap_or(0),
            _ => self.special(&texts, &["unknown"], "<unk>")?,
        };
        let first = self.special(&texts, &["bos", "cls"], "<s>")?;
        let last = self.special(&texts, &["eos", "seperator"], "</s>")?;
        let normalizer = match self.value("precompiled_charsmap") {
            Some(Value::Bytes(table)) if !table.is_empty() => {
                json!({"type": "Precompiled", "precompiled_charsmap": base64::encode(table)})
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
        let piece = |id: usize| json!({"SpecialToken": {"id": text(id), "type_id": 0}});
        let sequence = |name: &str| json!({"Sequence": {"id": name, "type_id": 0}});
        let special = |id: usize| id == unknown || kinds.get(id).is_some_and(|&kind| kind == CONTROL);
        self.written(&File {
            added_tokens: Each(|| added(&texts, special)),
            normalizer,
            pre_tokenizer,
            post_processor: json!({
                "type": "TemplateProcessing",
                "single": [piece(first), sequence("A"), piece(last)],
                "pair": [piece(first), sequence("A"), piece(last), piece(last), sequence("B"), piece(last)],
                "special_tokens": specials(&texts, [first, last]),
            }),
            model: Unigram {
                kind: "Unigram",
                unk_id: unknown,
                byte_fallback: false,
                vocab: Each(|| texts.iter().zip(scores.iter().map(|&score| f64::from(score)))),
            },
        })
    }

    fn written(&self, file: &impl Serialize) -> Result<String> {
        // A buffer that grows would for a moment be there twice: a piece takes its bytes, and a
        // score or an id.
        let length = self.pieces()?.iter().map(|piece| piece.len() + 32).sum();
        let mut json = Vec::with_capacity(length);
        let written = serde_json::to_writer(&mut json, file).map_err(|error| self.invalid(error.to_string()));
        written.and_then(|()| String::from_utf8(json).map_err(|error| self.invalid(error.to_string())))
    }
}

/// The texts of a vocabulary, made when they are asked for.
struct Texts<'a> {
    count: usize,
    text: &'a dyn Fn(usize) -> Cow<'a, str>,
}

impl<'a> Texts<'a> {
    fn len(&self) -> usize {
        self.count
    }

    fn iter(&self) -> impl Iterator<Item = Cow<'a, str>> {
        (0..self.count).map(self.text)
    }
}

/// A `tokenizer.json`, of which the long lists are written as they are made.
#[derive(Serialize)]
struct File<A: Serialize, M: Serialize> {
    added_tokens: A,
    normalizer: Json,
    pre_tokenizer: Json,
    post_processor: Json,
    model: M,
}

#[derive(Serialize)]
struct WordPiece<'a, V: Serialize> {
    #[serde(rename = "type")]
    kind: &'static str,
    unk_token: Cow<'a, str>,
    continuing_subword_prefix: &'static str,
    max_input_chars_per_word: usize,
    vocab: V,
}

#[derive(Serialize)]
struct Unigram<V: Serialize> {
    #[serde(rename = "type")]
    kind: &'static str,
    unk_id: usize,
    byte_fallback: bool,
    vocab: V,
}

/// A list of what an iterator gives.
struct Each<F>(F);

impl<I: Iterator<Item: Serialize>, F: Fn() -> I> Serialize for Each<F> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq((self.0)())
    }
}

/// An object of what an iterator gives.
struct Pairs<F>(F);

impl<K: Serialize, V: Serialize, I: Iterator<Item = (K, V)>, F: Fn() -> I> Serialize for Pairs<F> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map((self.0)())
    }
}

fn specials(texts: &Texts, ids: [usize; 2]) -> Map<String, Json> {
    let special = |id: usize| {
        let text = (texts.text)(id).into_owned();
        (text.clone(), json!({"id": text, "ids": [id], "tokens": [text]}))
    };
    ids.into_iter().map(special).collect()
}

/// A token that a text may name as it is.
#[derive(Serialize)]
struct Added<'a> {
    id: usize,
    content: Cow<'a, str>,
    special: bool,
    normalized: bool,
    single_word: bool,
    lstrip: bool,
    rstrip: bool,
}

fn added<'a>(texts: &Texts<'a>, special: impl Fn(usize) -> bool) -> impl Iterator<Item = Added<'a>> {
    let tokens = texts.iter().enumerate().filter(move |(id, text)| special(*id) && !text.is_empty());
    tokens.map(|(id, content)| Added {
        id,
        content,
        special: true,
        normalized: false,
        single_word: false,
        lstrip: false,
        rstrip: false,
    })
}
