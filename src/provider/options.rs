//! How a provider is spoken to.

use std::{num::NonZeroUsize, time::Duration};

use serde::{Deserialize, Deserializer, de};
use serde_json::{Map, Value};

use super::{Ask, Auth, Endpoint, Headers, Key, Provider, Spec, invalid_option};
use crate::{
    call::{OutputDtype, OutputKind, Role, RolePrompts},
    error::Result,
};

/// How a provider is spoken to. Make it with [`RemoteOptions::new`] and change what differs.
///
/// What a provider has no field for is refused when the embedder is made, and not left out.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[non_exhaustive]
pub struct RemoteOptions {
    pub provider: Provider,
    /// Any name that the provider knows. A server of one model may do without.
    #[serde(default)]
    pub model: String,
    #[serde(skip)]
    pub key: Option<Key>,
    /// Where the provider is, in place of its own address: a proxy, or a server of one's own. `http` or `https`; a query stays.
    pub base_url: Option<String>,
    /// Sent with each request; one of ours is replaced.
    #[serde(default)]
    pub headers: Headers,
    /// How long a request may take, until its answer's last byte.
    #[serde(default = "defaults::timeout", rename = "timeoutMs", deserialize_with = "milliseconds")]
    pub timeout: Duration,
    /// How often a request is sent again after a failure that may pass.
    #[serde(default = "defaults::max_retries")]
    pub max_retries: u32,
    /// Requests at a time.
    #[serde(default = "defaults::concurrency")]
    pub concurrency: NonZeroUsize,
    /// Most inputs of a request, where the provider's own limit does not fit.
    pub batch_size: Option<NonZeroUsize>,
    /// Most tokens of a request, as they are estimated here.
    pub batch_tokens: Option<NonZeroUsize>,
    /// What is asked for where a call does not say; dense vectors by default.
    pub outputs: Option<Vec<OutputKind>>,
    /// Ask for vectors of so many dimensions.
    pub dimensions: Option<usize>,
    /// How many dimensions a model that is not known here has by itself. It is checked, and not sent.
    pub native_dimensions: Option<usize>,
    /// What the numbers are.
    pub output_dtype: Option<OutputDtype>,
    /// How they are sent.
    pub encoding_format: Option<EncodingFormat>,
    /// What happens to texts that are too long.
    #[serde(default, deserialize_with = "truncate")]
    pub truncate: Option<Truncate>,
    /// What texts are for, in the provider's words, where a call gives no role.
    pub task: Option<String>,
    /// The title of the documents.
    pub title: Option<String>,
    /// Texts of a call are parts of one document, and are encoded together (Jina). They then are one request.
    pub late_chunking: Option<bool>,
    /// Whether vectors have unit length: divided by their norm here, or not even where Wick would do so. By default as the provider
    /// documents that they come, except that Gemini's shortened ones are normalised, which it leaves to its caller. For floats.
    pub normalize: Option<bool>,
    /// Put before texts here, for servers that have no roles of their own.
    pub prompts: Option<RolePrompts>,
    /// Further fields for each request's body, as they stand: `user`, `priority`, `prompt_name`. Those that would change the form
    /// of the answer, or that an option is for, are refused.
    #[serde(default)]
    pub extra: Map<String, Value>,
}

/// How an answer writes vectors.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EncodingFormat {
    /// As JSON numbers.
    Float,
    /// As the base64 of their bytes, little-endian: smaller, and faster to read.
    Base64,
}

/// What happens to texts that are too long.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Truncate {
    /// They are errors.
    None,
    /// Their beginning is cut off.
    Start,
    /// Their end is cut off.
    End,
}

/// Options that not every provider has a field for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Field {
    Dimensions,
    OutputDtype,
    EncodingFormat,
    Truncate,
    Task,
    Title,
    LateChunking,
    /// Both also work without a field, with every dense endpoint.
    Normalize,
    NativeDimensions,
    /// How many documents are wanted, which a call says.
    Top,
}

impl Field {
    const fn name(self) -> &'static str {
        match self {
            Field::Dimensions => "dimensions",
            Field::OutputDtype => "outputDtype",
            Field::EncodingFormat => "encodingFormat",
            Field::Truncate => "truncate",
            Field::Task => "task",
            Field::Title => "title",
            Field::LateChunking => "lateChunking",
            Field::Normalize => "normalize",
            Field::NativeDimensions => "nativeDimensions",
            Field::Top => "topK",
        }
    }
}

/// Names of fields that `extra` may not hold, in any API: what an option is for, and what changes the form of an answer.
const RESERVED: &[&str] = &[
    "content",
    "dimensionality",
    "dimensions",
    "documents",
    "embedding_type",
    "embedding_types",
    "encoding_format",
    "images",
    "input",
    "input_type",
    "inputs",
    "late_chunking",
    "long_text_mode",
    "model",
    "normalize",
    "normalized",
    "outputDimensionality",
    "output_dimension",
    "output_dimensionality",
    "output_dtype",
    "query",
    "requests",
    "return_documents",
    "return_multivector",
    "return_text",
    "task",
    "taskType",
    "task_type",
    "text",
    "texts",
    "title",
    "top_k",
    "top_n",
    "truncate",
    "truncation",
    "truncation_direction",
];

mod defaults {
    use super::{Duration, NonZeroUsize};

    pub(super) fn timeout() -> Duration {
        Duration::from_secs(60)
    }

    /// As the providers' own clients.
    pub(super) fn max_retries() -> u32 {
        2
    }

    pub(super) fn concurrency() -> NonZeroUsize {
        const { NonZeroUsize::new(4).expect("not zero") }
    }
}

impl RemoteOptions {
    /// A provider's model, and everything else by default.
    pub fn new(provider: Provider, model: &str) -> Self {
        Self {
            provider,
            model: model.to_owned(),
            key: None,
            base_url: None,
            headers: Headers::default(),
            timeout: defaults::timeout(),
            max_retries: defaults::max_retries(),
            concurrency: defaults::concurrency(),
            batch_size: None,
            batch_tokens: None,
            outputs: None,
            dimensions: None,
            native_dimensions: None,
            output_dtype: None,
            encoding_format: None,
            truncate: None,
            task: None,
            title: None,
            late_chunking: None,
            normalize: None,
            prompts: None,
            extra: Map::new(),
        }
    }

    pub(super) fn dtype(&self) -> OutputDtype {
        self.output_dtype.unwrap_or_default()
    }

    pub(super) fn is_base64(&self) -> bool {
        self.encoding_format == Some(EncodingFormat::Base64)
    }

    /// The dtype, as a field of a request where it was asked for.
    pub(super) fn dtype_field(&self) -> Option<&'static str> {
        self.output_dtype.map(OutputDtype::as_str)
    }

    /// Whether texts are cut, for providers that cut at the end or not at all.
    pub(super) fn truncates(&self) -> Result<Option<bool>> {
        match self.truncate {
            None => Ok(None),
            Some(Truncate::None) => Ok(Some(false)),
            Some(Truncate::End) => Ok(Some(true)),
            Some(Truncate::Start) => {
                Err(invalid_option("truncate", format!("{} cuts only at the end", self.provider.as_str())))
            }
        }
    }

    /// Components that a vector must have, as far as it is known before one came.
    pub(super) fn known_dimensions(&self) -> Option<usize> {
        let documented = || self.provider.models().iter().find(|model| model.name == self.model);
        self.dimensions.or(self.native_dimensions).or_else(|| documented().map(|model| model.dimensions))
    }

    fn asked(&self) -> impl Iterator<Item = Field> {
        let fields = [
            (Field::Dimensions, self.dimensions.is_some()),
            (Field::OutputDtype, self.output_dtype.is_some()),
            (Field::EncodingFormat, self.encoding_format.is_some()),
            (Field::Truncate, self.truncate.is_some()),
            (Field::Task, self.task.is_some()),
            (Field::Title, self.title.is_some()),
            (Field::LateChunking, self.late_chunking.is_some()),
            (Field::Normalize, self.normalize.is_some()),
            (Field::NativeDimensions, self.native_dimensions.is_some()),
        ];
        fields.into_iter().filter(|(_, asked)| *asked).map(|(field, _)| field)
    }

    /// Refuses what cannot be honoured by any of the endpoints that will be asked, before anything is sent. Of each: whether it gives dense vectors.
    pub(super) fn check(&self, spec: &Spec, endpoints: &[(&Endpoint, bool)]) -> Result<()> {
        let key_header = match spec.auth {
            Auth::Bearer => "authorization",
            Auth::Header(name) => name,
        };
        if let Some(url) = &self.base_url {
            check_base_url(url)?;
        } else if (spec.base_url)("").is_none() {
            return Err(invalid_option(
                "baseUrl",
                format!("{} has no address of its own: name the server's", spec.name),
            ));
        } else if self.key.is_none() && !self.headers.has(key_header) && !self.headers.has("authorization") {
            return Err(invalid_option("apiKey", format!("{} needs a key", spec.name)));
        }
        if self.model.is_empty() && self.provider != Provider::Tei {
            return Err(invalid_option("model", format!("{} needs a model's name", spec.name)));
        }
        for field in self.asked() {
            let here = |is_dense| is_dense && matches!(field, Field::Normalize | Field::NativeDimensions);
            if !endpoints.iter().any(|&(endpoint, is_dense)| here(is_dense) || endpoint.honours.contains(&field)) {
                return Err(invalid_option(field.name(), format!("{} has no field for it here", spec.name)));
            }
        }
        for dimensions in [self.dimensions, self.native_dimensions].into_iter().flatten() {
            if dimensions == 0 || !dimensions.is_multiple_of(self.dtype().dimensions_per_value()) {
                let message =
                    format!("{dimensions} is not a number of dimensions that {:?} vectors can have", self.dtype());
                return Err(invalid_option("dimensions", message));
            }
        }
        let is_sent = endpoints.iter().any(|(endpoint, _)| endpoint.honours.contains(&Field::Normalize));
        if self.normalize.is_some() && self.dtype() != OutputDtype::Float && !is_sent {
            return Err(invalid_option("normalize", "floats alone can be normalised here"));
        }
        if let Some(name) = self.extra.keys().find(|name| RESERVED.contains(&name.as_str())) {
            return Err(invalid_option("extra", format!("{name} is not free: see whether an option is for it")));
        }
        if self.timeout.is_zero() {
            return Err(invalid_option("timeoutMs", "it must be above zero"));
        }
        // What is wrong for this provider alone shows when a request is made.
        let texts = ["text".to_owned()];
        let role = Role::Document;
        let ask = Ask { options: self, role, prompted: false, texts: &texts, query: "query", top: None };
        endpoints.iter().try_for_each(|(endpoint, _)| (endpoint.request)(&ask).map(drop))
    }
}

fn check_base_url(url: &str) -> Result<()> {
    let refused = |message: &str| Err(invalid_option("baseUrl", message));
    let Some(rest) = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://")) else {
        return refused("it is not an absolute address (http or https)");
    };
    if !url.bytes().all(|byte| byte.is_ascii_graphic()) || url.contains('#') {
        return refused("it holds a blank, a fragment or a character that is to be percent-encoded");
    }
    let authority = rest.split(['/', '?']).next().unwrap_or_default();
    if authority.is_empty() || authority.contains('@') {
        return refused("it names no host, or a user: send credentials as headers");
    }
    Ok(())
}

/// An address below a base, whose query stays where it belongs.
pub(super) fn below(base: &str, path: &str) -> String {
    let (folder, query) = base.split_once('?').unwrap_or((base, ""));
    let mark = if query.is_empty() { "" } else { "?" };
    format!("{}{path}{mark}{query}", folder.trim_end_matches('/'))
}

fn milliseconds<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let milliseconds = f64::deserialize(deserializer)?;
    Duration::try_from_secs_f64(milliseconds / 1e3).map_err(de::Error::custom)
}

/// A word, or what other APIs have: whether texts are cut.
fn truncate<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Truncate>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Either {
        Whether(bool),
        How(Truncate),
    }
    Ok(Option::<Either>::deserialize(deserializer)?.map(|either| match either {
        Either::Whether(false) => Truncate::None,
        Either::Whether(true) => Truncate::End,
        Either::How(how) => how,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_goes_before_the_query() {
        assert_eq!(below("https://a.b/v1/", "/embeddings"), "https://a.b/v1/embeddings");
        let azure = "https://a.b/openai/deployments/x?api-version=1";
        assert_eq!(below(azure, "/embeddings"), "https://a.b/openai/deployments/x/embeddings?api-version=1");
    }

    #[test]
    fn addresses_are_absolute_and_without_secrets() {
        for url in ["https://a.b", "http://127.0.0.1:8080/v1?x=1", "http://[::1]:1/"] {
            assert!(check_base_url(url).is_ok(), "{url}");
        }
        for url in ["", "/v1", "ftp://a.b", "https://", "https://user:pass@a.b", "https://a.b/ x", "https://a.b/#x"] {
            assert!(check_base_url(url).is_err(), "{url}");
        }
    }

    #[test]
    fn options_are_read_as_pages_write_them() {
        let read = |json| serde_json::from_str::<RemoteOptions>(json);
        let options = read(
            r#"{"provider": "openai", "model": "m", "baseUrl": "http://a", "timeoutMs": 1500, "truncate": true,
                "headers": {"X-A": "b"}, "outputDtype": "int8", "encodingFormat": "base64", "extra": {"user": "u"}}"#,
        );
        let options = options.expect("valid");
        assert_eq!((options.timeout, options.truncate), (Duration::from_millis(1500), Some(Truncate::End)));
        assert_eq!((options.max_retries, options.concurrency.get()), (2, 4));
        assert_eq!(
            read(r#"{"provider": "jina", "truncate": "start"}"#).expect("valid").truncate,
            Some(Truncate::Start)
        );
        for bad in [
            r#"{"provider": "nobody"}"#,
            r#"{"provider": "jina", "apiKey": "k"}"#,
            r#"{"provider": "jina", "timeoutMs": -1}"#,
            r#"{"provider": "jina", "truncate": "middle"}"#,
            r#"{"provider": "jina", "headers": {"a": "b\nc"}}"#,
            r#"{"provider": "jina", "concurrency": 0}"#,
        ] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }
}
