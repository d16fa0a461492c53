//! The prefixes that a model expects before queries and documents.
//!
//! Must agree with `config_sentence_transformers.json` as sentence-transformers reads it: a prompt is put before the text as
//! it stands, any separator is part of it.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer};

use crate::call::Role;

/// Prompts by name, and the name of the default one.
#[derive(Debug, Clone, Default, PartialEq, serde::Deserialize)]
pub struct Prompts {
    #[serde(default, rename = "prompts", deserialize_with = "or_none")]
    by_name: BTreeMap<String, Option<String>>,
    #[serde(default, rename = "default_prompt_name")]
    default: Option<String>,
    /// Whether white space around a text is dropped before the prompt is put before it, as Instructor has it.
    #[serde(skip)]
    pub strip: bool,
    /// Whether pooling leaves the prompt out whatever the pooling configuration says.
    #[serde(skip)]
    pub unpooled: bool,
}

/// Null for no prompts.
fn or_none<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BTreeMap<String, Option<String>>, D::Error> {
    Option::deserialize(deserializer).map(Option::unwrap_or_default)
}

/// Prompts that a model's card asks for and its files do not hold: the beginnings of the model's name without its owner, then
/// the prompts for queries and documents. The first that fits counts.
const KNOWN: &[(&[&str], &str, &str)] = &[
    // <https://huggingface.co/intfloat/multilingual-e5-large-instruct>: its own example task.
    (
        &["multilingual-e5-large-instruct", "e5-mistral"],
        "Instruct: Given a web search query, retrieve relevant passages that answer the query\nQuery: ",
        "",
    ),
    // <https://huggingface.co/intfloat/e5-base-v2>
    (&["e5-", "multilingual-e5-"], "query: ", "passage: "),
    // <https://huggingface.co/BAAI/bge-base-en-v1.5> and <https://huggingface.co/BAAI/bge-base-zh-v1.5>
    (&["bge-small-en", "bge-base-en", "bge-large-en"], "Represent this sentence for searching relevant passages: ", ""),
    (&["bge-small-zh", "bge-base-zh", "bge-large-zh"], "为这个句子生成表示以用于检索相关文章：", ""),
    // <https://huggingface.co/nomic-ai/nomic-embed-text-v1.5>
    (&["nomic-embed-text-v1"], "search_query: ", "search_document: "),
    // <https://milvus.io/docs/embed-with-instructor.md>, whose values they give: without a space at the end.
    (
        &["instructor-base", "instructor-large", "instructor-xl"],
        "Represent the question for retrieval:",
        "Represent the document for retrieval:",
    ),
];

/// A model's name without its owner.
fn short(name: Option<&str>) -> String {
    name.and_then(|name| name.rsplit('/').next()).unwrap_or_default().to_lowercase()
}

impl Prompts {
    /// Prompts for queries and documents.
    pub fn new(query: &str, document: &str) -> Self {
        let prompt = |name: &str, prompt: &str| (name.to_owned(), Some(prompt.to_owned()));
        Self { by_name: [prompt("query", query), prompt("document", document)].into(), ..Self::default() }
    }

    /// These prompts, or where the files hold none, those known for the model's name.
    pub fn or_known(self, name: Option<&str>) -> Self {
        let name = short(name);
        let known = KNOWN.iter().find(|(names, ..)| names.iter().any(|start| name.starts_with(start)));
        let empty = self.by_name.values().flatten().all(String::is_empty);
        match known {
            Some((_, query, document)) if empty => Self::new(query, document),
            _ => self,
        }
    }

    /// With what is known for the model's name of how prompts are used; sentence-transformers, too, knows Instructor by name.
    pub fn used_as(self, name: Option<&str>) -> Self {
        let instructor = short(name).starts_with("instructor-");
        Self { strip: instructor, unpooled: instructor, ..self }
    }

    /// The prefix of a name.
    pub fn named(&self, name: &str) -> Option<&str> {
        self.by_name.get(name)?.as_deref()
    }

    /// The name of the default prompt, where it is the name of none. sentence-transformers has `query` and `document` in any case.
    pub fn missing_default(&self) -> Option<&str> {
        let is_there = |name: &&str| self.by_name.contains_key(*name) || ["query", "document"].contains(name);
        self.default.as_deref().filter(|name| !is_there(name))
    }

    /// The default prompt; empty if there is none.
    pub fn default_prompt(&self) -> &str {
        self.prefix(Role::Plain)
    }

    /// The prefix for a role; empty if the model has none.
    ///
    /// As in sentence-transformers, a query looks for `query`; a document for `document`, `passage`, then `corpus`; whatever is
    /// not found falls back to the default prompt.
    pub fn prefix(&self, role: Role) -> &str {
        let names: &[&str] = match role {
            Role::Plain => &[],
            Role::Query => &["query"],
            Role::Document => &["document", "passage", "corpus"],
        };
        names.iter().copied().chain(self.default.as_deref()).find_map(|name| self.named(name)).unwrap_or("")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roles_fall_back_as_in_sentence_transformers() {
        let parse = |json| serde_json::from_str::<Prompts>(json).expect("prompts");
        let prompts =
            parse(r#"{"prompts": {"query": "q: ", "passage": "p: ", "x": "x "}, "default_prompt_name": "x"}"#);
        assert_eq!(prompts.prefix(Role::Query), "q: ");
        assert_eq!(prompts.prefix(Role::Document), "p: ");
        assert_eq!(prompts.prefix(Role::Plain), "x ");
        let prompts =
            parse(r#"{"prompts": {"query": "", "document": null}, "default_prompt_name": null, "__version__": {}}"#);
        assert_eq!(prompts.prefix(Role::Query), "");
        assert_eq!(prompts.prefix(Role::Document), "");
        assert_eq!(parse("{}").prefix(Role::Query), "");
    }
    #[test]
    fn prompts_that_files_lack_are_known_by_the_models_name() {
        let known = |name| Prompts::default().or_known(Some(name));
        assert_eq!(known("intfloat/e5-small-v2").prefix(Role::Query), "query: ");
        assert_eq!(known("multilingual-e5-base").prefix(Role::Document), "passage: ");
        assert_eq!(known("BAAI/bge-small-en-v1.5").prefix(Role::Document), "");
        assert!(known("bge-small-en-v1.5").prefix(Role::Query).ends_with("passages: "));
        assert_eq!(known("nomic-ai/nomic-embed-text-v1.5").prefix(Role::Plain), "");
        assert_eq!(known("BAAI/bge-m3"), Prompts::default());
        let instructor = known("hkunlp/instructor-large").used_as(Some("hkunlp/instructor-large"));
        assert!(instructor.strip && instructor.unpooled && instructor.prefix(Role::Query).ends_with("retrieval:"));
        let own = Prompts::new("mine: ", "").or_known(Some("e5-small"));
        assert_eq!(own.prefix(Role::Query), "mine: ");
    }
}
