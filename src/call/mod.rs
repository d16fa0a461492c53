//! What a call is asked for, what it gives, and what it tells meanwhile: the same whoever computes, a model here or a provider.

mod output;
mod quantized;

pub use output::{Output, OutputKind, Ranked, Usage, Vectors};
pub(crate) use output::{check_outputs, normalize, rank};
pub use quantized::{OutputDtype, QuantizedValues, QuantizedVectors};

use crate::{
    error::{Code, Error, Result},
    platform::Shared,
};

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

/// What is put before texts, by what they are for.
#[derive(Debug, Clone, Default, serde::Deserialize)]
#[serde(default)]
pub struct RolePrompts {
    pub query: String,
    pub document: String,
}

impl RolePrompts {
    /// The prefix for a role.
    pub fn prefix(&self, role: Role) -> &str {
        match role {
            Role::Plain => "",
            Role::Query => &self.query,
            Role::Document => &self.document,
        }
    }
}

/// What a call asks for. A [`Role`] alone is such a thing.
#[derive(Debug, Clone, Default)]
pub struct EncodeOptions {
    /// What the texts are for, which decides the prompt.
    pub role: Role,
    /// Another prompt than the role's, put before each text as it stands.
    pub prompt: Option<String>,
    /// What to give of what the model was loaded for; all by default.
    pub outputs: Option<Vec<OutputKind>>,
    /// Keep the so many largest weights of each sparse vector.
    pub top_k: Option<usize>,
    /// Keep this many leading components of each dense vector; by default as the model was loaded.
    pub dimensions: Option<usize>,
    /// Whether dense vectors have unit length; by default as the model was loaded.
    pub normalize: Option<bool>,
}

impl From<Role> for EncodeOptions {
    fn from(role: Role) -> Self {
        Self { role, ..Self::default() }
    }
}

/// Progress and cancellation callbacks of loading and encoding. Natively [`Sync`], because a call's future may move between threads.
pub trait Watch: Shared {
    /// Bytes of all files so far, and of all files in total where servers said.
    fn loaded(&self, _loaded: u64, _total: Option<u64>, _file: &str) {}

    /// What went otherwise than was asked, and how it goes on: nothing is lost by it but time.
    fn warned(&self, _message: &str) {}

    /// Texts done so far.
    fn encoded(&self, _done: usize, _total: usize) {}

    /// Whether to stop. Asked between chunks of a file and between batches.
    fn cancelled(&self) -> bool {
        false
    }
}

/// Sees nothing and never stops.
impl Watch for () {}

/// The error for an option that cannot be honoured.
pub fn invalid_option(name: &str, message: String) -> Error {
    Error::new(Code::InvalidOption, name, message)
}

/// Stops where the caller asked to.
pub fn check(watch: &dyn Watch) -> Result<()> {
    match watch.cancelled() {
        true => Err(Error::new(Code::Aborted, "embedder", "the caller asked to stop")),
        false => Ok(()),
    }
}
