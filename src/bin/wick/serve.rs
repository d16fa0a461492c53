//! `wick serve`: models behind HTTP.

use std::{
    env,
    net::TcpListener,
    num::NonZeroU32,
    path::{Path, PathBuf},
    time::Duration,
};

use wick_embed::{
    Code, Embedder, Error, RerankOptions, Reranker, Result,
    platform::native::{Directory, block_on},
    serve::{Access, Limits, Served, Server, Summary},
};

use crate::{Bars, input::How, tell};

#[derive(clap::Args)]
#[group(id = "models", multiple = true, required = true, args = ["model", "reranker"])]
pub struct Serve {
    /// The folder of an embedder, for /v1/embeddings, /embed and /embed_sparse.
    #[arg(long)]
    model: Option<PathBuf>,
    /// The folder of a reranker, for /rerank.
    #[arg(long)]
    reranker: Option<PathBuf>,
    #[command(flatten)]
    how: How,
    /// A name that requests may call the embedder by, instead of its folder's; may be given several times.
    #[arg(long = "served-name")]
    served_names: Vec<String>,
    /// Where to listen: the default lets in this machine alone, 0.0.0.0 everyone.
    #[arg(long, default_value = "127.0.0.1")]
    host: String,
    /// The port; 0 takes any that is free.
    #[arg(long, default_value_t = 8080)]
    port: u16,
    /// An origin whose pages may ask, such as http://localhost:5173, or * for all; may be given several times.
    #[arg(long = "cors-allow-origin")]
    cors_allow_origins: Vec<String>,
    /// A further name that requests may have as their Host, where the server listens to this machine alone and asks for no key;
    /// may be given several times.
    #[arg(long = "allowed-host")]
    allowed_hosts: Vec<String>,
    /// The environment variable with the key that clients must send as Authorization: Bearer.
    #[arg(long, value_name = "VARIABLE")]
    api_key_env: Option<String>,
    /// Cut texts that are too long where a request does not say whether to; by default they are refused.
    #[arg(long)]
    auto_truncate: bool,
    /// Write no line for each request to standard error. One has method, path, status, milliseconds, texts and tokens, and neither
    /// texts nor keys.
    #[arg(long)]
    quiet: bool,
    /// Bytes of a request.
    #[arg(long, default_value_t = number(Limits::default().max_body_bytes))]
    max_body_bytes: NonZeroU32,
    /// Texts of a request.
    #[arg(long, default_value_t = number(Limits::default().max_texts))]
    max_texts: NonZeroU32,
    /// Texts that may wait for a model; what does not fit is refused with 429.
    #[arg(long, default_value_t = number(Limits::default().max_queued_texts))]
    max_queued_texts: NonZeroU32,
    /// Requests that may be under way; more are refused with 429.
    #[arg(long, default_value_t = number(Limits::default().max_requests))]
    max_requests: NonZeroU32,
    /// Seconds that a request may take; then it is refused with 408.
    #[arg(long, default_value_t = number(Limits::default().timeout.as_secs() as usize))]
    timeout: NonZeroU32,
}

fn number(value: usize) -> NonZeroU32 {
    u32::try_from(value).ok().and_then(NonZeroU32::new).unwrap_or(NonZeroU32::MAX)
}

impl Serve {
    pub fn run(self) -> Result<()> {
        let access = Access {
            origins: self.cors_allow_origins,
            key: self.api_key_env.as_deref().map(key).transpose()?,
            hosts: self.allowed_hosts,
        };
        let limits = Limits {
            max_body_bytes: self.max_body_bytes.get() as usize,
            max_texts: self.max_texts.get() as usize,
            max_queued_texts: self.max_queued_texts.get() as usize,
            max_requests: self.max_requests.get() as usize,
            timeout: Duration::from_secs(self.timeout.get().into()),
            auto_truncate: self.auto_truncate,
        };
        // Before the models are loaded, which takes longer than to learn that the port is taken.
        let at = format!("{}:{}", self.host, self.port);
        let failed = |error: std::io::Error| Error::new(Code::Io, &at, error.to_string());
        let listener = TcpListener::bind((self.host.as_str(), self.port)).map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;

        let options = self.how.options();
        let dtype = options.dtype.map_or("auto", |dtype| dtype.as_str());
        let rerank_options = RerankOptions {
            device: options.device,
            threads: options.threads,
            dtype: options.dtype,
            ..RerankOptions::default()
        };
        let embedder = self.model.map(|folder| {
            let names = if self.served_names.is_empty() { vec![name(&folder)] } else { self.served_names };
            let load = move || loaded(|bars| block_on(Embedder::load(&Directory::new(folder), &options, bars)));
            Served::load(names, &limits, load)
        });
        let reranker = self.reranker.map(|folder| {
            let names = vec![name(&folder)];
            let load = move || loaded(|bars| block_on(Reranker::load(&Directory::new(folder), &rerank_options, bars)));
            Served::load(names, &limits, load)
        });
        let server = Server::new(embedder.transpose()?, reranker.transpose()?, limits, access, dtype)?;

        tell(&format!("listening at http://{address}"));
        if !self.quiet {
            tracing_subscriber::fmt().with_writer(std::io::stderr).with_ansi(false).with_target(false).init();
        }
        let Summary { requests, texts, calls } = server.run(listener)?;
        tell(&format!("stopped; {requests} requests with {texts} texts took {calls} calls"));
        Ok(())
    }
}

fn loaded<M>(load: impl FnOnce(&Bars) -> Result<M>) -> Result<M> {
    let bars = Bars::new();
    let model = load(&bars);
    bars.bar.finish_and_clear();
    model
}

/// From the environment, because every user of a machine sees the arguments.
fn key(variable: &str) -> Result<String> {
    let refused = |message: &str| Error::new(Code::InvalidOption, "--api-key-env", format!("{variable} {message}"));
    match env::var(variable) {
        Ok(key) if key.is_empty() => Err(refused("is empty")),
        Ok(key) => Ok(key),
        Err(env::VarError::NotPresent) => Err(refused("is not set")),
        Err(env::VarError::NotUnicode(_)) => Err(refused("is not UTF-8")),
    }
}

/// A folder's own name, also of `.`.
fn name(folder: &Path) -> String {
    let path = folder.canonicalize().unwrap_or_else(|_| folder.to_owned());
    path.file_name().map_or_else(|| "model".to_owned(), |name| name.to_string_lossy().into_owned())
}
