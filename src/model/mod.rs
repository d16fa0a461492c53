//! A model's files to an encoder, heads, a tokenizer and prompts.
//!
//! [`pipeline`] reads the sentence-transformers layout, [`Config`] gives typed access to `config.json`, and each family
//! file maps its own configuration and tensor names to [`Encoder`] data. A family decides nothing silently: a key it needs
//! and does not find is an error that names the key.

mod bert;
mod config;
mod distilbert;
mod gte;
mod keys;
mod modernbert;
mod names;
mod nomic_bert;
pub mod pipeline;
mod rotary;
mod static_table;
mod t5;

pub use config::Config;
pub use static_table::{StaticPlan, StaticTable};

use crate::{
    encoder::Encoder,
    error::{Code, Error, Result},
    head::{Classifier, MaskedLm},
    ops::{Linear, Norm, NormKind, Weights},
    weights::{Blueprint, Source},
};

/// `model_type` of every supported family.
pub const SUPPORTED: [&str; 11] = [
    "bert",
    "distilbert",
    "roberta",
    "xlm-roberta",
    "camembert",
    "nomic_bert",
    "new",
    "gte",
    "t5",
    "modernbert",
    "model2vec",
];

/// A supported transformer with its configuration, ready to take weights.
#[derive(Debug)]
pub struct Architecture {
    /// The `model_type`.
    pub name: String,
    family: Family,
    /// The class names that the configuration gives, such as `BertForMaskedLM`.
    classes: Vec<String>,
    /// Whether the decoder of a masked language model is its word embedding.
    tied: bool,
    /// Labels of a classifier.
    labels: Option<usize>,
    /// Whether a classifier's logit becomes a score by the logistic function, where the configuration says.
    pub sigmoid: Option<bool>,
    /// Rows of the word embedding.
    pub vocabulary: usize,
    /// Rows of the table of segments; 0 without one.
    pub types: usize,
    /// Width of the hidden states.
    pub width: usize,
    /// Most tokens of a text, where the positions have an end.
    pub reach: Option<usize>,
    /// The length the model was trained at, where it says so.
    pub trained: Option<usize>,
    /// transformers' class for the tokenizer, where the configuration names one.
    pub tokenizer_class: Option<String>,
    /// What the caller is to hear of the configuration.
    pub warning: Option<String>,
}

#[derive(Debug)]
enum Family {
    Bert(bert::Bert),
    DistilBert(distilbert::DistilBert),
    NomicBert(nomic_bert::NomicBert),
    Gte(gte::Gte),
    T5(t5::T5),
    ModernBert(modernbert::ModernBert),
}

impl Architecture {
    /// Reads `config.json`.
    pub fn from_config(config: &Config) -> Result<Self> {
        let classes: Vec<String> = config.strings("architectures").into_iter().map(str::to_owned).collect();
        if let Some(class) = classes.iter().find(|class| class.contains("ColBERT")) {
            let message = format!("{class}: models for late interaction (ColBERT) are not supported");
            return Err(Error::new(Code::UnsupportedModel, "config.json", message));
        }
        let name = config.string("model_type")?;
        let family = match name {
            "bert" | "roberta" | "xlm-roberta" | "camembert" => Family::Bert(bert::Bert::from_config(config)?),
            "distilbert" => Family::DistilBert(distilbert::DistilBert::from_config(config)?),
            "nomic_bert" => Family::NomicBert(nomic_bert::NomicBert::from_config(config)?),
            "new" | "gte" => Family::Gte(gte::Gte::from_config(config)?),
            "t5" => Family::T5(t5::T5::from_config(config)?),
            "modernbert" => Family::ModernBert(modernbert::ModernBert::from_config(config)?),
            other => {
                return Err(Error::new(
                    Code::UnsupportedModel,
                    "config.json",
                    format!("model_type {other:?} is not supported; supported: {}", SUPPORTED.join(", ")),
                ));
            }
        };
        let (vocabulary, width, reach, trained) = match &family {
            Family::Bert(model) => (model.vocabulary, model.width, Some(model.reach()), None),
            Family::DistilBert(model) => (model.vocabulary, model.width, Some(model.positions), None),
            Family::NomicBert(model) => (model.vocabulary, model.width, Some(model.reach), model.trained),
            Family::Gte(model) => (model.vocabulary, model.width, Some(model.reach), None),
            Family::T5(model) => (model.vocabulary, model.width, None, None),
            Family::ModernBert(model) => (model.vocabulary, model.width, Some(model.reach), None),
        };
        let types = match &family {
            Family::Bert(model) => model.type_vocabulary,
            Family::NomicBert(model) => model.type_vocabulary,
            Family::Gte(model) => model.type_vocabulary,
            Family::DistilBert(_) | Family::T5(_) | Family::ModernBert(_) => 0,
        };
        let own = match &family {
            Family::Bert(_) => &bert::KEYS,
            Family::DistilBert(_) => &distilbert::KEYS,
            Family::NomicBert(_) => &nomic_bert::KEYS,
            Family::Gte(_) => &gte::KEYS,
            Family::T5(_) => &t5::KEYS,
            Family::ModernBert(_) => &modernbert::KEYS,
        };
        Ok(Self {
            name: name.to_owned(),
            warning: config.checked(&[own, &keys::COMMON])?,
            family,
            classes,
            types,
            tied: !config.has("tie_word_embeddings") || config.flag("tie_word_embeddings")?,
            labels: config.labels(),
            sigmoid: pipeline::is_sigmoid(config)?,
            tokenizer_class: match config.has("tokenizer_class") {
                true => Some(config.string("tokenizer_class")?.to_owned()),
                false => None,
            },
            vocabulary,
            width,
            reach,
            trained,
        })
    }

    /// Whether the configuration names a masked language model.
    pub fn is_masked_lm(&self) -> bool {
        self.classes.iter().any(|class| class.ends_with("ForMaskedLM"))
    }

    /// Whether BGE-M3's heads may stand beside this model.
    pub fn may_have_bge_heads(&self) -> bool {
        matches!(&self.family, Family::Bert(bert) if bert.is_roberta())
    }

    /// Whether vectors that are cut must be standardised first.
    pub fn standardizes_before_cut(&self) -> bool {
        matches!(self.family, Family::NomicBert(_))
    }

    fn has_no(&self, head: &str) -> Error {
        let message = format!("its architecture {:?} has no {head} here", self.classes);
        Error::new(Code::UnsupportedModel, "config.json", message)
    }

    fn encoder<S: Source>(&self, source: &mut S) -> Result<Encoder<S::Weights>> {
        match &self.family {
            Family::Bert(model) => model.encoder(source),
            Family::DistilBert(model) => model.encoder(source),
            Family::NomicBert(model) => model.encoder(source),
            Family::Gte(model) => model.encoder(source),
            Family::T5(model) => model.encoder(source),
            Family::ModernBert(model) => model.encoder(source),
        }
    }

    fn masked_lm<S: Source>(&self, source: &mut S) -> Result<MaskedLm<S::Weights>> {
        if !self.tied {
            return Err(self.has_no("decoder of its own for masked tokens (tie_word_embeddings is false)"));
        }
        match &self.family {
            Family::Bert(model) => model.masked_lm(source),
            Family::DistilBert(model) => model.masked_lm(source),
            Family::ModernBert(model) => model.masked_lm(source),
            Family::NomicBert(_) | Family::Gte(_) | Family::T5(_) => Err(self.has_no("head for masked tokens")),
        }
    }

    fn classifier<S: Source>(&self, source: &mut S) -> Result<Classifier<S::Weights>> {
        if let Some(labels) = self.labels.filter(|&labels| labels != 1) {
            let message = format!("its classifier has {labels} labels, a reranker has one");
            return Err(Error::new(Code::UnsupportedModel, "config.json", message));
        }
        match &self.family {
            Family::Bert(model) => model.classifier(source),
            Family::DistilBert(model) => model.classifier(source),
            Family::Gte(model) => model.classifier(source),
            Family::ModernBert(model) => model.classifier(source),
            Family::NomicBert(_) | Family::T5(_) => Err(self.has_no("classifier")),
        }
    }

    fn lexical<S: Source>(&self, source: &mut S) -> Result<Option<Linear<S::Weights>>> {
        match &self.family {
            // A reranker's classifier, which follows a pooler, speaks of texts and not of tokens.
            Family::Gte(model) if !self.classes.iter().any(|class| class.ends_with("ForSequenceClassification")) => {
                model.lexical(source)
            }
            _ => Ok(None),
        }
    }
}

/// What a model is loaded for, which decides the heads taken from its main weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// Hidden states, and lexical weights where the file has them.
    Embed,
    /// Sparse vectors from the logits of masked tokens.
    Splade,
    /// Scores of pairs.
    Rerank,
}

/// A model's main weights: an encoder and the heads that lie in the same file.
pub struct Network<W: Weights> {
    pub encoder: Encoder<W>,
    pub masked_lm: Option<MaskedLm<W>>,
    pub lexical: Option<Linear<W>>,
    pub classifier: Option<Classifier<W>>,
}

/// Builds a [`Network`].
pub struct NetworkPlan<'a> {
    pub architecture: &'a Architecture,
    pub purpose: Purpose,
}

impl Blueprint for NetworkPlan<'_> {
    type Model<W: Weights> = Network<W>;

    fn build<S: Source>(&self, source: &mut S) -> Result<Network<S::Weights>> {
        let NetworkPlan { architecture, purpose } = self;
        Ok(Network {
            encoder: architecture.encoder(source)?,
            masked_lm: (*purpose == Purpose::Splade).then(|| architecture.masked_lm(source)).transpose()?,
            lexical: if *purpose == Purpose::Embed { architecture.lexical(source)? } else { None },
            classifier: (*purpose == Purpose::Rerank).then(|| architecture.classifier(source)).transpose()?,
        })
    }
}

/// A linear map in a file of its own: `weight` and, where there is one, `bias`, perhaps below a prefix.
pub struct LinearPlan {
    pub prefix: &'static str,
    pub shape: [usize; 2],
    pub bias: bool,
}

impl Blueprint for LinearPlan {
    type Model<W: Weights> = Linear<W>;

    fn build<S: Source>(&self, source: &mut S) -> Result<Linear<S::Weights>> {
        Ok(Linear {
            weight: source.matrix(&[format!("{}weight", self.prefix)], self.shape)?,
            bias: self.bias.then(|| source.vector(&[format!("{}bias", self.prefix)], self.shape[0])).transpose()?,
        })
    }
}

/// The linear maps of a Dense stage: its own, and that of what is added where widths differ.
pub struct DenseStagePlan<'a>(pub &'a pipeline::DenseConfig);

impl Blueprint for DenseStagePlan<'_> {
    type Model<W: Weights> = (Linear<W>, Option<Linear<W>>);

    fn build<S: Source>(&self, source: &mut S) -> Result<Self::Model<S::Weights>> {
        let DenseStagePlan(config) = self;
        let shape = [config.out_features, config.in_features];
        let linear = LinearPlan { prefix: "linear.", shape, bias: config.bias }.build(source)?;
        let residual = LinearPlan { prefix: "residual.", shape, bias: false };
        let has_residual = config.use_residual && shape[0] != shape[1];
        Ok((linear, has_residual.then(|| residual.build(source)).transpose()?))
    }
}

/// The norm of a LayerNorm stage, of so many components.
pub struct LayerNormPlan(pub usize);

impl Blueprint for LayerNormPlan {
    type Model<W: Weights> = Norm<W>;

    fn build<S: Source>(&self, source: &mut S) -> Result<Norm<S::Weights>> {
        Ok(Norm {
            kind: NormKind::Layer,
            gain: source.vector(&["norm.weight".to_owned()], self.0)?,
            bias: Some(source.vector(&["norm.bias".to_owned()], self.0)?),
            // Of torch's LayerNorm; the stage has no setting for it.
            epsilon: 1e-5,
        })
    }
}
