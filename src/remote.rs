//! Remote providers with the faces of local models: the same calls, the same results.

use std::{future::Future, pin::pin, time::Duration};

use futures_util::future::{Either, select};

use crate::{
    call::{EncodeOptions, Output, OutputKind, Ranked, Usage, Watch, check, check_outputs, rank},
    error::{Code, Error, Result},
    platform::{Http, sleep},
    provider::{Call, Driver, RemoteOptions, Rows, refuse_empty},
};

/// How long until a caller who asks to stop is heard.
const TICK: Duration = Duration::from_millis(25);

/// An embedder whose model is a provider's.
pub struct RemoteEmbedder<H> {
    driver: Driver<H>,
    outputs: Vec<OutputKind>,
}

/// A reranker whose model is a provider's.
pub struct RemoteReranker<H> {
    driver: Driver<H>,
}

#[cfg(feature = "local")]
impl crate::embedder::Embedder {
    /// [`RemoteEmbedder::new`].
    pub fn remote<H: Http>(http: H, options: RemoteOptions) -> Result<RemoteEmbedder<H>> {
        RemoteEmbedder::new(http, options)
    }
}

#[cfg(feature = "local")]
impl crate::rerank::Reranker {
    /// [`RemoteReranker::new`].
    pub fn remote<H: Http>(http: H, options: RemoteOptions) -> Result<RemoteReranker<H>> {
        RemoteReranker::new(http, options)
    }
}

impl<H: Http> RemoteEmbedder<H> {
    /// A provider's model. Nothing is sent before the first call; options that the provider cannot honour are refused here.
    pub fn new(http: H, options: RemoteOptions) -> Result<Self> {
        let outputs = options.outputs.clone().unwrap_or_else(|| vec![OutputKind::Dense]);
        Ok(Self { driver: Driver::embedder(http, options)?, outputs })
    }

    /// Encodes texts, as a local embedder does: one result for each, in their order. A call needs about as many requests as
    /// the provider's limits make of the texts, several at a time; if one of them fails for good so does the call. Texts that are
    /// empty are refused.
    pub async fn encode<T: AsRef<str>>(
        &self,
        texts: &[T],
        options: impl Into<EncodeOptions>,
        watch: &dyn Watch,
    ) -> Result<Output> {
        let EncodeOptions { role, prompt, outputs, top_k, dimensions, normalize } = options.into();
        if dimensions.is_some() || normalize.is_some() {
            let message = "of a provider it is decided when the embedder is made (RemoteOptions)";
            let name = if dimensions.is_some() { "dimensions" } else { "normalize" };
            return Err(Error::new(Code::InvalidOption, name, message));
        }
        check_outputs(outputs.as_deref(), &self.outputs)?;
        let prompts = &self.driver.options().prompts;
        let own = || prompts.as_ref().map_or("", |prompts| prompts.prefix(role));
        let prefix = prompt.as_deref().unwrap_or_else(own);
        // Before there is a prompt in them.
        for (index, text) in texts.iter().enumerate() {
            refuse_empty(text.as_ref(), || format!("text {index}"))?;
        }
        let texts: Vec<String> = texts.iter().map(|text| [prefix, text.as_ref()].concat()).collect();
        let prompted = prompt.is_some() || !prefix.is_empty();
        let wanted: Vec<OutputKind> = match outputs {
            Some(wanted) => self.outputs.iter().copied().filter(|kind| wanted.contains(kind)).collect(),
            None => self.outputs.clone(),
        };
        let mut output = Output::default();
        let calls = wanted.len();
        for (number, kind) in wanted.into_iter().enumerate() {
            let call = Call::Embed { kind, role, prompted };
            // With several outputs a text is done when it has all of them.
            let progress = |done| watch.encoded((number * texts.len() + done) / calls, texts.len());
            let gathered = unless_stopped(watch, self.driver.gather(call, &texts, progress)).await?;
            output.usage = Usage { tokens: output.usage.tokens + gathered.tokens, ..output.usage };
            match gathered.rows {
                Rows::Dense(vectors) => output.dense = Some(vectors),
                Rows::Quantized(vectors) => output.quantized = Some(vectors),
                Rows::Sparse(mut rows) => {
                    if let Some(count) = top_k {
                        rows.iter_mut().for_each(|row| row.keep_largest(count));
                    }
                    output.sparse = Some(rows);
                }
                Rows::Scores(_) => return Err(Error::new(Code::InvalidResponse, "outputs", "scores are no vectors")),
            }
        }
        Ok(output)
    }

    /// Dimensions of a dense vector: as asked for, as documented, or as the first answer had them.
    pub fn dimensions(&self) -> Option<usize> {
        self.driver.dimensions()
    }

    /// What it gives.
    pub fn outputs(&self) -> &[OutputKind] {
        &self.outputs
    }

    /// How the provider is spoken to.
    pub fn options(&self) -> &RemoteOptions {
        self.driver.options()
    }
}

impl<H: Http> RemoteReranker<H> {
    /// As [`RemoteEmbedder::new`].
    pub fn new(http: H, options: RemoteOptions) -> Result<Self> {
        Ok(Self { driver: Driver::reranker(http, options)? })
    }

    /// Scores and orders documents, as a local reranker does. Long lists are split only where a document's score does not depend
    /// on the others.
    pub async fn rerank<T: AsRef<str>>(
        &self,
        query: &str,
        documents: &[T],
        top_k: Option<usize>,
        watch: &dyn Watch,
    ) -> Result<Vec<Ranked>> {
        let texts: Vec<String> = documents.iter().map(|document| document.as_ref().to_owned()).collect();
        let call = Call::Rerank { query, top: top_k };
        let progress = |done| watch.encoded(done, texts.len());
        let gathered = unless_stopped(watch, self.driver.gather(call, &texts, progress)).await?;
        let Rows::Scores(scores) = gathered.rows else {
            return Err(Error::new(Code::InvalidResponse, "rerank", "vectors are no scores"));
        };
        Ok(rank(scores, top_k))
    }

    /// How the provider is spoken to.
    pub fn options(&self) -> &RemoteOptions {
        self.driver.options()
    }
}

/// Waits for a result, or until the caller asks to stop, which ends what is under way.
async fn unless_stopped<T>(watch: &dyn Watch, work: impl Future<Output = Result<T>>) -> Result<T> {
    check(watch)?;
    let stopped = async {
        while !watch.cancelled() {
            sleep(TICK).await;
        }
    };
    match select(pin!(work), pin!(stopped)).await {
        Either::Left((result, _)) => result,
        Either::Right(_) => {
            check(watch)?;
            Err(Error::new(Code::Aborted, "call", "the caller asked to stop"))
        }
    }
}
