//! Model names to the addresses of their files.
//!
//! Hugging Face's layout: `{host}/{name}/resolve/{revision}/{file}`. No network here; `crate::platform` fetches.

use crate::error::{Code, Error, Result};

/// The host used unless another is named.
pub const DEFAULT_HOST: &str = "https://huggingface.co";

/// The revision used unless another is named.
pub const DEFAULT_REVISION: &str = "main";

/// The folder, on some server, that holds a model's files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Location {
    base: String,
    name: String,
    pinned: bool,
}

impl Location {
    /// `org/name`, `name`, or either with `@revision`. A revision in the name wins over `revision`.
    pub fn hub(name: &str, revision: Option<&str>, host: Option<&str>) -> Result<Self> {
        let (repository, revision) = match name.split_once('@') {
            Some((repository, revision)) => (repository, revision),
            None => (name, revision.unwrap_or(DEFAULT_REVISION)),
        };
        let parts: Vec<&str> = repository.split('/').collect();
        if parts.len() > 2 || !parts.iter().copied().all(is_name) || !revision.split('/').all(is_name) {
            return Err(Error::new(
                Code::InvalidOption,
                "source",
                format!("{name:?} is no model name (org/name@revision); relative addresses start with ./"),
            ));
        }
        let host = host.unwrap_or(DEFAULT_HOST).trim_end_matches('/');
        Ok(Self {
            base: format!("{host}/{repository}/resolve/{}/", revision.replace('/', "%2F")),
            name: repository.to_owned(),
            // Only a commit's hash names the same bytes for ever.
            pinned: revision.len() == 40 && revision.bytes().all(|byte| byte.is_ascii_hexdigit()),
        })
    }

    /// A folder by its absolute address.
    pub fn base(url: &str) -> Result<Self> {
        if url.contains(['?', '#']) {
            let message = format!("{url:?} has a query or a fragment, below which there are no files");
            return Err(Error::new(Code::InvalidOption, "source", message));
        }
        let slash = if url.ends_with('/') { "" } else { "/" };
        let name = url.trim_end_matches('/').rsplit('/').next().unwrap_or_default().to_owned();
        Ok(Self { base: format!("{url}{slash}"), name, pinned: false })
    }

    /// The model's name on the hub, or the last part of the folder's address.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The address of a file, e.g. of `1_Pooling/config.json`.
    pub fn url(&self, file: &str) -> String {
        format!("{}{file}", self.base)
    }

    /// Whether the bytes behind an address can never change.
    pub fn is_pinned(&self) -> bool {
        self.pinned
    }
}

/// A part of a name that can stand in an address as it is.
fn is_name(part: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    !part.is_empty() && part.bytes().all(plain) && !part.bytes().all(|byte| byte == b'.')
}

/// Refuses a path, found in a model's file, that would leave the model's folder.
pub fn check_relative(file: &str, path: &str) -> Result<()> {
    if path.split('/').all(is_name) {
        return Ok(());
    }
    Err(Error::new(Code::InvalidConfig, file, format!("{path:?} is no path inside the model's folder")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_become_addresses() {
        let url =
            |name, revision, host| Location::hub(name, revision, host).map(|location| location.url("config.json"));
        let hub = "https://huggingface.co/sentence-transformers/all-MiniLM-L6-v2/resolve";
        let name = "sentence-transformers/all-MiniLM-L6-v2";
        assert_eq!(url(name, None, None).expect("valid"), format!("{hub}/main/config.json"));
        assert_eq!(url(name, Some("v1"), None).expect("valid"), format!("{hub}/v1/config.json"));
        let pinned = format!("{name}@refs/pr/21");
        assert_eq!(url(&pinned, Some("v1"), None).expect("valid"), format!("{hub}/refs%2Fpr%2F21/config.json"));
        assert_eq!(
            url("gpt2", None, Some("http://localhost:8000/")).expect("valid"),
            "http://localhost:8000/gpt2/resolve/main/config.json"
        );
        for name in ["", "a/b/c", "../secret", "a/..", "a b", "https://example.com/x", "a/b@", "a/b@../c", "a/b?x=1"] {
            assert_eq!(url(name, None, None).expect_err(name).code(), Code::InvalidOption);
        }
    }

    #[test]
    fn only_a_commit_is_pinned() {
        let pinned = |revision| Location::hub("a/b", Some(revision), None).expect("valid").is_pinned();
        assert!(pinned("c9745ed1d9f207416be6d2e6f8de32d1f16199bf"));
        assert!(!pinned("main"));
        assert!(!pinned("c9745ed"));
        let base = Location::base("https://example.com/model").expect("valid");
        assert!(!base.is_pinned());
        assert_eq!(base.name(), "model");
        assert_eq!(Location::hub("a/b@main", None, None).expect("valid").name(), "a/b");
        assert_eq!(base.url("config.json"), "https://example.com/model/config.json");
        assert!(Location::base("https://example.com/model?token=1").is_err());
    }

    #[test]
    fn a_path_cannot_leave_the_folder() {
        assert!(check_relative("modules.json", "1_Pooling").is_ok());
        for path in ["", "..", "../x", "/etc", "a//b", "a/../../b", "http://x/y", "a\\b", "%2e%2e"] {
            assert!(check_relative("modules.json", path).is_err(), "{path}");
        }
    }
}
