//! A transformer with its heads, on one executor: a batch in, rows of results out.

#[cfg(feature = "webgpu")]
use crate::ops::auto::{Auto, Subject};
use crate::{
    batches::Limits,
    call::{OutputKind, Vectors},
    error::{Code, Error, Result},
    head::{Colbert, Dense, Lexical, Residual, Splade, Stage, unit_length},
    load::{Engine, Request, Session},
    model::{Architecture, DenseStagePlan, LayerNormPlan, LinearPlan, Purpose, pipeline::DenseConfig},
    ops::{Ops, Pooling},
    platform::Files,
    sparse::SparseVector,
    text::{Batch, Tokenizer},
    weights::Blueprint,
};

/// Most values of all texts of a batch over the vocabulary (16 MB).
const MOST_LOGITS: usize = 1 << 22;

/// A network and what makes results of its hidden states.
pub struct Transformer<O: Ops> {
    engine: Engine<O>,
    dense: Option<Dense<O>>,
    sparse: Option<Sparse<O>>,
    colbert: Option<Colbert<O>>,
}

enum Sparse<O: Ops> {
    Splade(Splade),
    Lexical(Lexical<O>),
}

/// What the model's files and the caller say of a transformer.
pub struct TransformerPlan<'a> {
    pub architecture: &'a Architecture,
    pub tokenizer: &'a Tokenizer,
    /// What the caller wants; all there is by default.
    pub asked: Option<&'a [OutputKind]>,
    pub is_splade: bool,
    /// See [`Splade::logarithms`].
    pub logarithms: usize,
    pub dense: Option<DensePlan>,
    /// Whether vectors have unit length, where the caller says so.
    pub normalize: Option<bool>,
}

/// Pooling and what follows it.
pub struct DensePlan {
    pub pooling: Vec<Pooling>,
    /// What follows, in order.
    pub stages: Vec<StagePlan>,
    pub width: usize,
    pub dimensions: Option<usize>,
    /// Whether vectors have unit length, where the caller says nothing.
    pub normalize: bool,
}

/// A stage after pooling, with its folder and the file of its configuration.
pub enum StagePlan {
    Dense { folder: String, file: String, config: DenseConfig },
    LayerNorm { folder: String, width: usize },
    Normalize { width: usize },
}

/// Results of a call while they are made.
pub struct Rows {
    pub dense: Option<Vectors>,
    pub sparse: Option<Vec<SparseVector>>,
    pub tokens: Option<Vec<Vec<f32>>>,
}

impl<O: Ops + Clone> Transformer<O> {
    /// Reads the network and its heads.
    pub async fn load<F: Files>(
        session: &mut Session<'_, F>,
        ops: O,
        plan: TransformerPlan<'_>,
        request: &Request,
    ) -> Result<Self> {
        let TransformerPlan { architecture, tokenizer, asked, is_splade, logarithms, dense, normalize } = plan;
        let wanted = |kind| asked.is_none_or(|outputs| outputs.contains(&kind));
        let named = |kind| asked.is_some_and(|outputs| outputs.contains(&kind));
        let purpose = if is_splade { Purpose::Splade } else { Purpose::Embed };
        let mut engine = session.engine(ops.clone(), architecture, purpose, request).await?;
        let dense = match dense {
            None => None,
            Some(plan) => {
                let mut stages = Vec::with_capacity(plan.stages.len());
                for stage in &plan.stages {
                    stages.push(match stage {
                        StagePlan::Dense { folder, file, config } => {
                            let plan = DenseStagePlan(config);
                            let (linear, mapped) = stage_weights(session, folder, &ops, &plan).await?;
                            let residual = match mapped {
                                Some(linear) => Residual::Mapped(linear),
                                None if config.use_residual => Residual::Input,
                                None => Residual::None,
                            };
                            Stage::Dense { linear, activation: config.activation(file)?, residual }
                        }
                        StagePlan::LayerNorm { folder, width } => {
                            Stage::Norm(stage_weights(session, folder, &ops, &LayerNormPlan(*width)).await?)
                        }
                        StagePlan::Normalize { width } => Stage::Norm(unit_length(&ops, *width)?),
                    });
                }
                Some(Dense {
                    pooling: plan.pooling,
                    stages,
                    width: plan.width,
                    dimensions: plan.dimensions,
                    standardize_before_cut: architecture.standardizes_before_cut(),
                    normalize: normalize.unwrap_or(plan.normalize),
                })
            }
        };

        let lexical = |linear| {
            let special = ["<s>", "</s>", "<pad>", "<unk>", "[CLS]", "[SEP]", "[PAD]", "[UNK]"];
            Sparse::Lexical(Lexical { linear, excluded: tokenizer.ids_of(&special) })
        };
        let mut sparse = engine.network.lexical.take().filter(|_| wanted(OutputKind::Sparse)).map(lexical);
        if is_splade {
            sparse = Some(Sparse::Splade(Splade { logarithms, vocabulary: tokenizer.id_bound() as usize }));
        }
        let mut colbert = None;
        if architecture.may_have_bge_heads() && !is_splade {
            // BGE-M3 has its heads in files of their own.
            let width = architecture.width;
            let names = |head: &str| ["safetensors", "pt"].map(|end| format!("{head}_linear.{end}"));
            if wanted(OutputKind::Sparse) {
                let plan = LinearPlan { prefix: "", shape: [1, width], bias: true };
                sparse = session.first_weights(&names("sparse"), &ops, &plan).await?.map(lexical);
            }
            // Who has one has both.
            if named(OutputKind::Tokens) || (wanted(OutputKind::Tokens) && sparse.is_some()) {
                let plan = LinearPlan { prefix: "", shape: [width, width], bias: true };
                let linear = session.first_weights(&names("colbert"), &ops, &plan).await?;
                let normalize = normalize.unwrap_or(true);
                colbert = linear.map(|linear| Colbert { linear, width, normalize });
            }
        }
        Ok(Self { engine, dense, sparse, colbert })
    }
}

/// The weights of a stage, in either of the files that may hold them.
async fn stage_weights<F: Files, O: Ops, B: Blueprint>(
    session: &mut Session<'_, F>,
    folder: &str,
    ops: &O,
    plan: &B,
) -> Result<B::Model<O>> {
    let names = ["model.safetensors", "pytorch_model.bin"].map(|name| format!("{folder}/{name}"));
    let weights = session.first_weights(&names, ops, plan).await?;
    weights.ok_or_else(|| Error::new(Code::MissingFile, &names[0], "nor is there a .bin"))
}

impl<O: Ops> Transformer<O> {
    /// What it gives.
    pub fn outputs(&self) -> Vec<OutputKind> {
        let given = [
            self.dense.as_ref().map(|_| OutputKind::Dense),
            self.sparse.as_ref().map(|_| OutputKind::Sparse),
            self.colbert.as_ref().map(|_| OutputKind::Tokens),
        ];
        given.into_iter().flatten().collect()
    }

    /// Computes a batch and puts its results in their places: those of its first text at the first of `indices`, and so on.
    /// `unit`: whether vectors have unit length, other than loaded.
    pub async fn fill(
        &self,
        rows: &mut Rows,
        batch: &Batch,
        indices: &[usize],
        top_k: Option<usize>,
        unit: Option<bool>,
    ) -> Result<()> {
        loop {
            match self.computed(rows, batch, indices, top_k, unit).await {
                Err(error) if self.engine.ops.recover(&error).await => {}
                result => return result,
            }
        }
    }

    async fn computed(
        &self,
        rows: &mut Rows,
        batch: &Batch,
        indices: &[usize],
        top_k: Option<usize>,
        unit: Option<bool>,
    ) -> Result<()> {
        let Engine { ops, network, .. } = &self.engine;
        let hidden = self.engine.hidden(batch)?;
        let dense = self.dense.as_ref().filter(|_| rows.dense.is_some());
        let colbert = self.colbert.as_ref().filter(|_| rows.tokens.is_some());
        let lexical = match &self.sparse {
            Some(Sparse::Lexical(head)) if rows.sparse.is_some() => Some(head),
            _ => None,
        };
        // All are recorded before one is read: a GPU is then sent everything at once.
        let pooled = dense.map(|head| head.pooled(ops, &hidden, batch)).transpose()?;
        let weights = lexical.map(|head| head.weights(ops, &hidden)).transpose()?;
        let projected = colbert.map(|head| head.projected(ops, &hidden)).transpose()?;
        let tensors: Vec<&O::Tensor> = [&pooled, &weights, &projected].into_iter().flatten().collect();
        let mut read = if tensors.is_empty() { Vec::new() } else { ops.read_all(&tensors).await? }.into_iter();

        if let (Some(rows), Some(head), Some(values)) = (&mut rows.dense, dense, pooled.and_then(|_| read.next())) {
            let width = rows.width;
            for (index, row) in indices.iter().zip(head.vectors(&values, width, unit)?) {
                rows.values[index * width..][..width].copy_from_slice(&row);
            }
        }
        if let Some(rows) = &mut rows.sparse {
            let found = match (&self.sparse, &network.masked_lm, weights.and_then(|_| read.next())) {
                (Some(Sparse::Lexical(head)), _, Some(values)) => head.vectors(&values, batch)?,
                (Some(Sparse::Splade(splade)), Some(head), _) => {
                    head.apply(ops, &hidden, &network.encoder.embeddings.words, batch, *splade).await?
                }
                _ => Vec::new(),
            };
            for (&index, mut row) in indices.iter().zip(found) {
                row.keep_largest(top_k.unwrap_or(usize::MAX));
                rows[index] = row;
            }
        }
        if let (Some(rows), Some(head), Some(values)) = (&mut rows.tokens, colbert, read.next()) {
            for (&index, row) in indices.iter().zip(head.vectors(values, batch)?) {
                rows[index] = row;
            }
        }
        Ok(())
    }

    /// Computes a text of three tokens for nothing.
    #[cfg(feature = "webgpu")]
    pub async fn warm(&self) -> Result<()> {
        // Heads that came after the network have weights of their own.
        self.engine.ops.ready().await?;
        let batch = Batch::even(1, 3);
        let dense =
            self.dense.as_ref().map(|head| Vectors { width: head.dimensions(), values: vec![0.0; head.dimensions()] });
        let sparse = self.sparse.as_ref().map(|_| vec![SparseVector::default()]);
        let tokens = self.colbert.as_ref().map(|_| vec![Vec::new()]);
        self.fill(&mut Rows { dense, sparse, tokens }, &batch, &[0], None, None).await?;
        // The vocabulary that SPLADE multiplies with was sent only now.
        self.engine.ops.ready().await
    }

    /// What it computes on.
    #[cfg(any(feature = "candle", feature = "webgpu"))]
    pub fn ops(&self) -> &O {
        &self.engine.ops
    }

    /// Components of a dense vector, if it gives one.
    pub fn dimensions(&self) -> Option<usize> {
        self.dense.as_ref().map(Dense::dimensions)
    }

    /// How dense vectors are pooled.
    pub fn pooling(&self) -> &[Pooling] {
        self.dense.as_ref().map_or(&[], |head| &head.pooling)
    }

    /// How large a batch may be. SPLADE has a value for each text and word, whatever the text's length.
    pub fn limits(&self) -> Limits {
        let texts = match self.sparse {
            Some(Sparse::Splade(_)) => (MOST_LOGITS / self.engine.network.encoder.embeddings.words.rows.max(1)).max(1),
            _ => usize::MAX,
        };
        Limits { tokens: self.engine.ops.batch_tokens(), texts }
    }

    /// What the caller is to hear of.
    pub fn warnings(&self) -> Vec<String> {
        self.engine.ops.warnings()
    }

    /// Components of a token's vector.
    pub fn token_width(&self) -> usize {
        self.colbert.as_ref().map_or(1, |head| head.width)
    }
}

#[cfg(feature = "webgpu")]
impl Subject for Transformer<Auto> {
    async fn hidden(&self, size: [usize; 2]) -> Result<Vec<f32>> {
        self.engine.measured(size).await
    }

    async fn heads(&self) -> Result<()> {
        self.warm().await
    }
}
