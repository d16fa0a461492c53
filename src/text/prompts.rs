//! The prefixes that a model expects before queries and documents.
//!
//! Must agree with `config_sentence_transformers.json` as sentence-transformers reads it: a prompt is put before the text as
//! it stands, any separator is part of it.

use std::collections::BTreeMap;

use crate::error::{Code, Error, Result};

/// What a text is for; models may put another prompt before each.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Role {
    /// Neither: the model's default prompt, if it names one.
    #[default]
    Plain,
    Query,
    Document,
}

impl std::str::FromStr for Role {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        match name {
            "plain" => Ok(Role::Plain),
            "query" => Ok(Role::Query),
            "document" => Ok(Role::Document),
            _ => Err(Error::new(Code::InvalidOption, "role", format!("{name:?} is none of plain, query, document"))),
        }
    }
}

/// Prompts by name, and the name of the default one.
#[derive(Debug, Clone, Default, serde::Deserialize)]
pub struct Prompts {
    #[serde(default, rename = "prompts")]
    by_name: BTreeMap<String, Option<String>>,
    #[serde(default, rename = "default_prompt_name")]
    default: Option<String>,
}

impl Prompts {
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
        names
            .iter()
            .copied()
            .chain(self.default.as_deref())
            .find_map(|name| self.by_name.get(name)?.as_deref())
            .unwrap_or("")
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
}
