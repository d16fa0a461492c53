//! What answers requests: an embedder and a reranker, as queues see them.

use super::{
    batch::Engine,
    failure::{Failure, Reason},
};
use crate::{
    call::{EncodeOptions, Output, OutputKind, Vectors},
    embedder::Embedder,
    error::Result,
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

    fn prepare(&self, request: Embed) -> Result<(Vec<Encoded>, Wanted), Failure> {
        let mut options = request.wanted.options();
        self.check(&options)?;
        if let Some(name) = &request.prompt_name {
            let Some(prompt) = self.prompt(name) else {
                return Err(
                    Failure::new(Reason::Invalid, format!("the model has no prompt {name:?}")).at("prompt_name")
                );
            };
            options.prompt = Some(prompt.to_owned());
        }
        let texts = request.texts.iter().map(|text| self.prepare(text, &options)).collect::<Result<Vec<_>>>()?;
        check_length(&texts, request.truncate, self.max_tokens())?;
        Ok((texts, request.wanted))
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

    fn prepare(&self, request: Rerank) -> Result<(Vec<Encoded>, bool), Failure> {
        let pairs = self.prepare(&request.query, &request.documents)?;
        check_length(&pairs, request.truncate, self.max_tokens())?;
        Ok((pairs, request.normalize))
    }

    fn run(&self, pairs: &[Encoded], normalize: &bool) -> Result<Vec<f32>, Failure> {
        Ok(block_on(self.score_prepared(pairs, Some(*normalize), &()))?)
    }
}

fn check_length(texts: &[Encoded], truncate: bool, most: usize) -> Result<(), Failure> {
    match texts.iter().position(|text| text.truncated) {
        Some(index) if !truncate => {
            let message =
                format!("text {index} has more than the {most} tokens that the model takes, and is not to be cut");
            Err(Failure::new(Reason::TooLong, message).at("input"))
        }
        _ => Ok(()),
    }
}
