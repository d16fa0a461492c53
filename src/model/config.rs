//! Typed access to `config.json`: a value that is missing or of another kind is an error that names its key.

use serde_json::{Map, Value};

use super::keys::{self, Keys};
use crate::{
    error::{Code, Error, Result},
    ops::Activation,
};

const FILE: &str = "config.json";

/// Wider than the head of any model.
const MAX_HEAD_WIDTH: usize = 1 << 16;

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

    /// Refuses what a family's lists of keys refuse. The warning for keys that stand in none of them.
    pub fn checked(&self, lists: &[&Keys]) -> Result<Option<String>> {
        lists.iter().try_for_each(|list| list.refuse(FILE, &self.values))?;
        Ok(keys::warning(FILE, &keys::unknown(lists, &self.values)))
    }

    /// The same configuration, with a value for each of these keys that has none: what the original class then takes.
    pub fn with_defaults(&self, defaults: &[(&str, Value)]) -> Self {
        let mut values = self.values.clone();
        for (key, default) in defaults {
            if !self.has(key) {
                values.insert((*key).to_owned(), default.clone());
            }
        }
        Self { values }
    }

    /// The same configuration under one naming: each pair is a key and the older or newer name that some files give it. A file
    /// that has both with different values contradicts itself.
    pub fn renamed(&self, names: &[(&str, &str)]) -> Result<Self> {
        let mut values = self.values.clone();
        for (key, other) in names {
            let Some(value) = values.remove(*other).filter(|value| !value.is_null()) else {
                continue;
            };
            match self.get(key) {
                Some(found) if *found != value => {
                    let message = format!("{key} is {found}, but {other} is {value}");
                    return Err(Error::new(Code::InvalidConfig, FILE, message));
                }
                _ => drop(values.insert((*key).to_owned(), value)),
            }
        }
        Ok(Self { values })
    }

    /// An object inside the configuration, as one of its own.
    pub fn section(&self, key: &str) -> Option<Self> {
        Some(Self { values: self.get(key)?.as_object()?.clone() })
    }

    /// Whether a key has a value.
    pub fn has(&self, key: &str) -> bool {
        self.get(key).is_some()
    }

    /// The strings of an array; none where the key is absent.
    pub fn strings(&self, key: &str) -> Vec<&str> {
        self.get(key).and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).collect()
    }

    /// The value of a key, unless absent or null.
    fn get(&self, key: &str) -> Option<&Value> {
        self.values.get(key).filter(|value| !value.is_null())
    }

    fn required<'a, T>(&'a self, key: &str, kind: &str, read: impl Fn(&'a Value) -> Option<T>) -> Result<T> {
        let value = self.get(key).ok_or_else(|| self.missing(key))?;
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

    /// Labels of a classifier: transformers writes their names, or their number.
    pub fn labels(&self) -> Option<usize> {
        match self.get("id2label").and_then(Value::as_object) {
            Some(names) => Some(names.len()),
            None => usize::try_from(self.get("num_labels")?.as_u64()?).ok(),
        }
    }

    /// A required id.
    pub fn id(&self, key: &str) -> Result<u32> {
        self.required(key, "an id", |value| u32::try_from(value.as_u64()?).ok())
    }

    /// A required truth value.
    pub fn flag(&self, key: &str) -> Result<bool> {
        self.required(key, "true or false", Value::as_bool)
    }

    /// A required activation, by the names transformers uses (`ACT2CLS`). `gelu` is the exact form there, and `gelu_fast` the same
    /// formula as `gelu_new`.
    pub fn activation(&self, key: &str) -> Result<Activation> {
        match self.string(key)? {
            "gelu" | "gelu_python" => Ok(Activation::Gelu),
            "gelu_new" | "gelu_fast" | "gelu_pytorch_tanh" | "gelu_python_tanh" | "gelu_accurate" => {
                Ok(Activation::GeluTanh)
            }
            "relu" => Ok(Activation::Relu),
            "silu" | "swish" => Ok(Activation::Silu),
            "tanh" => Ok(Activation::Tanh),
            "sigmoid" => Ok(Activation::Sigmoid),
            "mish" => Ok(Activation::Mish),
            "leaky_relu" => Ok(Activation::LeakyRelu),
            "linear" => Ok(Activation::None),
            other => Err(self.unsupported(key, &format!("{other:?}"))),
        }
    }

    /// The width of a head, where heads divide the hidden states among them.
    pub fn head_width(&self, width: usize, heads: usize) -> Result<usize> {
        match width.is_multiple_of(heads) {
            // Tables by component are made from it before any weight is seen.
            true if width / heads > MAX_HEAD_WIDTH => Err(self.unsupported("hidden_size", &width.to_string())),
            true => Ok(width / heads),
            false => {
                let message = format!("hidden_size {width} is no multiple of num_attention_heads {heads}");
                Err(Error::new(Code::InvalidConfig, FILE, message))
            }
        }
    }

    /// Refuses a model whose `key` has any value but the ones this architecture computes. Absent means the first.
    pub fn only(&self, key: &str, supported: &[Value]) -> Result<()> {
        match self.get(key) {
            Some(value) if !supported.contains(value) => Err(self.unsupported(key, &value.to_string())),
            _ => Ok(()),
        }
    }

    /// The error for a key that is not there.
    pub fn missing(&self, key: &str) -> Error {
        Error::new(Code::InvalidConfig, FILE, format!("{key} is missing"))
    }

    /// The error for a value that this version does not compute.
    pub fn unsupported(&self, key: &str, value: &str) -> Error {
        Error::new(Code::UnsupportedModel, FILE, format!("{key} {value} is not supported"))
    }
}
