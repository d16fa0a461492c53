//! Typed access to `config.json`: a value that is missing or of another kind is an error that names its key.

use serde_json::{Map, Value};

use crate::{
    error::{Code, Error, Result},
    ops::Activation,
};

const FILE: &str = "config.json";

/// Parses a JSON file of a model. Recognises the web page that many servers answer for a missing file.
pub fn parse<T: serde::de::DeserializeOwned>(file: &str, bytes: &[u8]) -> Result<T> {
    serde_json::from_slice(bytes).map_err(|error| {
        let start = bytes.trim_ascii_start();
        let code = match error.classify() {
            serde_json::error::Category::Data => Code::InvalidConfig,
            _ => Code::InvalidJson,
        };
        let message = if start.starts_with(b"<") {
            "this is a web page, not JSON; does the server answer missing files with its index page?".to_owned()
        } else {
            error.to_string()
        };
        Error::new(code, file, message)
    })
}

/// A parsed `config.json`.
#[derive(Debug, Clone)]
pub struct Config {
    values: Map<String, Value>,
}

impl Config {
    /// Parses the file.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self> {
        Ok(Self { values: parse(FILE, bytes)? })
    }

    /// The value of a key, unless absent or null.
    fn get(&self, key: &str) -> Option<&Value> {
        self.values.get(key).filter(|value| !value.is_null())
    }

    fn required<'a, T>(&'a self, key: &str, kind: &str, read: impl Fn(&'a Value) -> Option<T>) -> Result<T> {
        let value = self.get(key).ok_or_else(|| Error::new(Code::InvalidConfig, FILE, format!("{key} is missing")))?;
        read(value).ok_or_else(|| Error::new(Code::InvalidConfig, FILE, format!("{key} is {value}, not {kind}")))
    }

    /// A required string.
    pub fn string(&self, key: &str) -> Result<&str> {
        self.required(key, "a string", Value::as_str)
    }

    /// A required whole number above zero.
    pub fn count(&self, key: &str) -> Result<usize> {
        self.required(key, "a whole number above zero", |value| {
            usize::try_from(value.as_u64()?).ok().filter(|&count| count > 0)
        })
    }

    /// A required number above zero.
    pub fn positive(&self, key: &str) -> Result<f64> {
        self.required(key, "a number above zero", |value| value.as_f64().filter(|&number| number > 0.0))
    }

    /// A required activation, by the names transformers uses. `gelu` is the exact form there.
    pub fn activation(&self, key: &str) -> Result<Activation> {
        match self.string(key)? {
            "gelu" => Ok(Activation::Gelu),
            "gelu_new" | "gelu_pytorch_tanh" => Ok(Activation::GeluTanh),
            "relu" => Ok(Activation::Relu),
            other => Err(self.unsupported(key, &format!("{other:?}"))),
        }
    }

    /// Refuses a model whose `key` has any value but the ones this architecture computes. Absent means the first.
    pub fn only(&self, key: &str, supported: &[Value]) -> Result<()> {
        match self.get(key) {
            Some(value) if !supported.contains(value) => Err(self.unsupported(key, &value.to_string())),
            _ => Ok(()),
        }
    }

    fn unsupported(&self, key: &str, value: &str) -> Error {
        Error::new(Code::UnsupportedModel, FILE, format!("{key} {value} is not supported"))
    }
}
