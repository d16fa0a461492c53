//! What answers requests: an embedder and a reranker, as queues see them.

use super::{
    batch::Engine,
    failure::{Failure, Reason},
};
use crate::{
    call::{EncodeOptions, Output, OutputKind, Vectors},
    embedder::Embedder,
    error::{Error, Result},
    ops::Pooling,
    platform::native::block_on,
    rerank::Reranker,
    sparse::SparseVector,
    text::Encoded,
};

/// Texts to embed.
pub struct Embed {
    pub texts: Vec<String>,
    /// The name of the prompt that is put before each; the model's default one, if it names one, without.
    pub prompt_name: Option<String>,
    /// Whether texts that are too long are cut.
    pub truncate: bool,
    pub wanted: Wanted,
}

/// What is computed of each text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wanted {
    pub output: OutputKind,
    pub dimensions: Option<usize>,
    pub normalize: Option<bool>,
}

impl Wanted {
    fn options(self) -> EncodeOptions {
        let Self { output, dimensions, normalize } = self;
        EncodeOptions { outputs: Some(vec![output]), dimensions, normalize, ..EncodeOptions::default() }
    }
}

/// What a text is given: of the two what was wanted.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Row {
    pub dense: Vec<f32>,
    pub sparse: SparseVector,
}

#[derive(Debug, Clone)]
pub struct EmbedderAbout {
    pub outputs: Vec<OutputKind>,
    pub pooling: Vec<Pooling>,
    pub max_tokens: usize,
}

impl Engine for Embedder {
    type Request = Embed;
    type Options = Wanted;
    type Row = Row;
    type About = EmbedderAbout;

    fn about(&self) -> EmbedderAbout {
        let (outputs, pooling) = (self.outputs().to_vec(), self.pooling().to_vec());
        EmbedderAbout { outputs, pooling, max_tokens: self.max_tokens() }
    }

    fn cost(request: &Embed, index: usize) -> usize {
        cost(&request.texts, index)
    }

    fn options(&self, request: &Embed) -> Result<Wanted, Failure> {
        self.check(&request.wanted.options())?;
        match &request.prompt_name {
            Some(name) if self.prompt(name).is_none() => {
                Err(Failure::new(Reason::Invalid, format!("the model has no prompt {name:?}")).at("prompt_name"))
            }
            _ => Ok(request.wanted),
        }
    }

    fn prepare(&self, request: &mut Embed, index: usize) -> Result<Encoded, Failure> {
        let mut options = request.wanted.options();
        options.prompt = request.prompt_name.as_deref().and_then(|name| self.prompt(name)).map(str::to_owned);
        let text = request.texts.get(index).map_or("", String::as_str);
        let text = self.prepare(text, &options).map_err(|error| refused(error, index))?;
        check_length(&text, index, request.truncate, self.max_tokens())?;
        Ok(text)
    }

    fn run(&self, texts: &[Encoded], wanted: &Wanted) -> Result<Vec<Row>, Failure> {
        let Output { dense, sparse, .. } = block_on(self.encode_prepared(texts, &wanted.options(), &()))?;
        let dense = dense.iter().flat_map(Vectors::rows).map(|row| Row { dense: row.to_vec(), ..Row::default() });
        let sparse = sparse.into_iter().flatten().map(|sparse| Row { sparse, ..Row::default() });
        Ok(dense.chain(sparse).collect())
    }
}

/// Documents to score for a query.
pub struct Rerank {
    pub query: String,
    pub documents: Vec<String>,
    /// Whether pairs that are too long are cut.
    pub truncate: bool,
    /// Whether scores are between 0 and 1.
    pub normalize: bool,
}

#[derive(Debug, Clone)]
pub struct RerankerAbout {
    pub max_tokens: usize,
}

impl Engine for Reranker {
    type Request = Rerank;
    /// Whether scores are between 0 and 1.
    type Options = bool;
    type Row = f32;
    type About = RerankerAbout;

    fn about(&self) -> RerankerAbout {
        RerankerAbout { max_tokens: self.max_tokens() }
    }

    fn cost(request: &Rerank, index: usize) -> usize {
        cost(&request.documents, index)
    }

    fn options(&self, request: &Rerank) -> Result<bool, Failure> {
        Ok(request.normalize)
    }

    fn prepare(&self, request: &mut Rerank, index: usize) -> Result<Encoded, Failure> {
        let document = request.documents.get(index).map_or(&[][..], std::slice::from_ref);
        let pair = self.prepare(&request.query, document).map_err(|error| refused(error, index))?.pop();
        let pair = pair.ok_or_else(Failure::crashed)?;
        check_length(&pair, index, request.truncate, self.max_tokens())?;
        Ok(pair)
    }

    fn run(&self, pairs: &[Encoded], normalize: &bool) -> Result<Vec<f32>, Failure> {
        Ok(block_on(self.score_prepared(pairs, Some(*normalize), &()))?)
    }
}

/// Of a text more than this is not read, as a rule.
const MOST_COST: usize = 4096;

fn cost(texts: &[String], index: usize) -> usize {
    // A text costs something beside its tokens.
    texts.get(index).map_or(0, |text| text.len().min(MOST_COST) + 32)
}

fn refused(error: Error, index: usize) -> Failure {
    let failure = Failure::from(error);
    Failure { message: format!("text {index}: {}", failure.message), ..failure }
}

fn check_length(text: &Encoded, index: usize, truncate: bool, most: usize) -> Result<(), Failure> {
    if !text.truncated || truncate {
        return Ok(());
    }
    let message = format!("text {index} has more than the {most} tokens that the model takes, and is not to be cut");
    Err(Failure::new(Reason::TooLong, message).at("input"))
}
