//! A model's folder to a smaller one that loads in the same way: large weights in f16 or in eight bits per row.
//!
//! What is converted is what the loader would convert itself (`weights::CONVERTED_FROM`); everything else becomes f32, the heads in
//! files of their own as a whole. Every tensor of numbers is kept, also those that no embedder asks for: a reranker may. What
//! no weight can be (bool, unsigned and packed types: masks, buffers of quantisation) is left out, and named.
//!
//! The weights are gone through twice: first only to their headers, since the header of what is written holds the place of every
//! tensor; then to the end, each tensor being written when it is complete. Memory holds the largest tensor, in its new form.

use std::{collections::BTreeMap, fs, path::Path};

use crate::{
    call::{Role, Watch, check, invalid_option},
    error::{Code, Error, Result},
    hub,
    load::{MODULES, OTHER_WEIGHTS, PROMPTS, VOCABULARY, WEIGHTS, missing},
    model::pipeline::{self, Modules},
    platform::{
        Body, Files,
        native::{Directory, NewFolder, block_on},
        whole,
    },
    weights::{CONVERTED_FROM, Dtype, Planned, Reader, Sink, TensorInfo, Values, Writer, scales_of, shards},
};

/// The form of the result.
#[derive(Debug, Clone)]
pub struct ConvertOptions {
    /// How large weights are written.
    pub dtype: Dtype,
    /// The file with the weights, where it is not one of the usual names.
    pub weights: Option<String>,
}

/// What was done.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Converted {
    /// The files written, with their lengths.
    pub files: Vec<(String, u64)>,
    /// Bytes of the weights before.
    pub before: u64,
    /// And after.
    pub after: u64,
    /// The tensors that were left out because no weight is of their type.
    pub left_out: Vec<String>,
}

/// Weights that go from some files to one.
struct Job {
    from: Vec<String>,
    to: String,
    dtype: Dtype,
}

/// Writes the model in folder `model` as a new one to `output`, where nothing may be yet. A call that fails leaves nothing there.
pub fn convert(model: &Path, output: &Path, options: &ConvertOptions, watch: &dyn Watch) -> Result<Converted> {
    if options.weights.as_deref().is_some_and(|file| file.ends_with(".gguf")) {
        let message =
            "a GGUF file's own configuration, tokenizer and pooling would be lost; the page loads the file itself";
        return Err(invalid_option("weights", message.to_owned()));
    }
    let folder = NewFolder::at(output)?;
    let source = Source { path: model, files: Directory::new(model) };
    let modules = source.small(MODULES)?;
    let modules = Modules::from_bytes(modules.as_deref())?;

    let mut jobs = vec![source.main_weights(&modules, options)?];
    let heads = ["sparse_linear", "colbert_linear"].map(|head| (head.to_owned(), ["safetensors", "pt"]));
    let stages = modules.stage_folders().flat_map(|folder| {
        // The two names differ in their stem too.
        [(format!("{folder}/model"), ["safetensors"; 2]), (format!("{folder}/pytorch_model"), ["bin"; 2])]
    });
    for (stem, ends) in heads.into_iter().chain(stages) {
        let to = format!("{}.safetensors", stem.replace("/pytorch_model", "/model"));
        let found = ends.iter().map(|end| format!("{stem}.{end}")).find(|file| source.has(file));
        if let Some(file) = found.filter(|_| jobs.iter().all(|job| job.to != to)) {
            jobs.push(Job { from: vec![file], to, dtype: Dtype::F32 });
        }
    }

    let mut files = Vec::new();
    let lengths = jobs.iter().flat_map(|job| &job.from).map(|file| source.length(file)).collect::<Result<Vec<_>>>()?;
    let before = lengths.iter().sum();
    let mut progress = Progress { watch, done: 0, total: before };
    let mut left_out = Vec::new();
    for job in jobs {
        let length = source.convert(&job, &folder, &mut progress, &mut left_out)?;
        files.push((job.to, length));
    }
    let after = files.iter().map(|(_, length)| length).sum();
    let mut descriptions = source.descriptions(&modules)?;
    let prompts = source.known_prompts()?;
    if prompts.is_some() && !descriptions.iter().any(|file| file == PROMPTS) {
        descriptions.push(PROMPTS.to_owned());
    }
    for file in descriptions {
        let length = match &prompts {
            Some(prompts) if file == PROMPTS => {
                folder.write(&file, prompts)?;
                prompts.len() as u64
            }
            _ => source.copy(&file, &folder)?,
        };
        files.push((file, length));
    }
    check(watch)?;
    folder.finish()?;
    Ok(Converted { files, before, after, left_out })
}

struct Progress<'a> {
    watch: &'a dyn Watch,
    done: u64,
    total: u64,
}

/// The folder that is read.
struct Source<'a> {
    path: &'a Path,
    files: Directory,
}

impl Source<'_> {
    fn has(&self, file: &str) -> bool {
        self.path.join(file).is_file()
    }

    fn length(&self, file: &str) -> Result<u64> {
        let length = block_on(self.files.open(file))?.and_then(|body| body.length());
        length.ok_or_else(|| missing(file))
    }

    fn small(&self, file: &str) -> Result<Option<Vec<u8>>> {
        block_on(async {
            match self.files.open(file).await? {
                Some(body) => whole(file, body, |_| Ok(())).await.map(Some),
                None => Ok(None),
            }
        })
    }

    /// Copies a file, of which nothing is read, and gives its length.
    fn copy(&self, file: &str, folder: &NewFolder) -> Result<u64> {
        let path = self.path.join(file);
        let mut target = folder.create(file)?;
        fs::File::open(&path)
            .and_then(|mut source| std::io::copy(&mut source, &mut target))
            .map_err(|error| Error::new(Code::Io, path.display().to_string(), error.to_string()))
    }

    /// The file of prompts with those that are known by the model's name alone, which another folder may not have.
    fn known_prompts(&self) -> Result<Option<Vec<u8>>> {
        let found = self.small(PROMPTS)?;
        let own = pipeline::Saved::from_static(found.as_deref())?.prompts;
        let known = own.clone().or_known(self.files.name().as_deref());
        if known == own {
            return Ok(None);
        }
        let mut file: serde_json::Map<String, serde_json::Value> = match &found {
            Some(bytes) => pipeline::parse(PROMPTS, bytes)?,
            None => serde_json::Map::new(),
        };
        let prompts =
            serde_json::json!({ "query": known.prefix(Role::Query), "document": known.prefix(Role::Document) });
        file.insert("prompts".to_owned(), prompts);
        Ok(Some(serde_json::Value::Object(file).to_string().into_bytes()))
    }

    /// The main weights, looked for as the loader looks for them.
    fn main_weights(&self, modules: &Modules, options: &ConvertOptions) -> Result<Job> {
        let dtype = options.dtype;
        let folder = modules.static_table.as_ref().unwrap_or(&modules.transformer);
        let below = |file: &str| if folder.is_empty() { file.to_owned() } else { format!("{folder}/{file}") };
        let to = below(WEIGHTS);
        let names = match &options.weights {
            Some(file) => vec![file.clone()],
            None => [WEIGHTS].into_iter().chain(OTHER_WEIGHTS).map(below).collect(),
        };
        let Some(file) = names.iter().find(|file| self.has(file)) else {
            let message = format!("the model has none of {}", names.join(", "));
            return Err(Error::new(Code::MissingFile, &names[0], message));
        };
        let from = match file.ends_with(".json") {
            true => {
                let index = self.small(file)?.ok_or_else(|| missing(file))?;
                let shards: Vec<String> = shards(file, &index)?.into_keys().collect();
                shards.iter().try_for_each(|shard| hub::check_relative(file, shard))?;
                shards.iter().map(|shard| below(shard)).collect()
            }
            false => vec![file.clone()],
        };
        from.iter().try_for_each(|shard| hub::check_relative(file, shard))?;
        Ok(Job { from, to, dtype })
    }

    /// The files beside the weights: configurations and tokenizer of the model and its stages, and its terms, which go where
    /// the weights go. An index is left behind, since there is one file now.
    fn descriptions(&self, modules: &Modules) -> Result<Vec<String>> {
        let root = String::new();
        let mut found = Vec::new();
        let norms = modules.norm_folders().iter().filter(|folder| self.path.join(folder).is_dir());
        for folder in [&root].into_iter().chain(modules.folders()).chain(norms) {
            let at = self.path.join(folder);
            let failed = |error: std::io::Error| Error::new(Code::Io, at.display().to_string(), error.to_string());
            for entry in fs::read_dir(&at).map_err(failed)? {
                let entry = entry.map_err(failed)?;
                let name = entry.file_name().to_string_lossy().into_owned();
                let describes = name == VOCABULARY || name.ends_with(".json") && !name.ends_with(".index.json");
                let are_terms = ["LICENSE", "LICENCE", "NOTICE", "README"].iter().any(|start| name.starts_with(start));
                if (describes || are_terms) && entry.path().is_file() {
                    found.push(if folder.is_empty() { name } else { format!("{folder}/{name}") });
                }
            }
        }
        found.sort();
        found.dedup();
        Ok(found)
    }

    /// Gives a file to a sink, as far as the sink wants it.
    fn stream<S: Sink>(
        &self,
        file: &str,
        sink: &mut S,
        is_enough: impl Fn(&S) -> bool,
        mut progress: Option<&mut Progress<'_>>,
    ) -> Result<()> {
        block_on(async {
            let mut body = self.files.open(file).await?.ok_or_else(|| missing(file))?;
            let mut reader = Reader::new(file)?;
            while let Some(chunk) = body.chunk().await? {
                reader.push(chunk, sink)?;
                if is_enough(sink) {
                    return Ok(());
                }
                if let Some(progress) = &mut progress {
                    progress.done += chunk.len() as u64;
                    progress.watch.loaded(progress.done, Some(progress.total), file);
                    check(progress.watch)?;
                }
            }
            reader.finish()
        })
    }

    /// Converts the files of a job, and gives the length of the new one.
    fn convert(
        &self,
        job: &Job,
        folder: &NewFolder,
        progress: &mut Progress<'_>,
        left_out: &mut Vec<String>,
    ) -> Result<u64> {
        let mut infos = Vec::new();
        for file in &job.from {
            let mut headers = Headers(None);
            self.stream(file, &mut headers, |headers| headers.0.is_some(), None)?;
            infos.extend(headers.0.unwrap_or_default());
        }
        let plan = plan(&infos, job.dtype)?;
        left_out.extend(infos.iter().filter(|info| info.dtype.is_none()).map(|info| info.name.clone()));
        let wanted = plan.iter().map(|planned| (planned.name.clone(), planned.dtype)).collect();
        let writer = Writer::new(folder.create(&job.to)?, &job.to, plan)?;
        let mut sink = Converter { wanted, infos, writer };
        for file in &job.from {
            self.stream(file, &mut sink, |_| false, Some(progress))?;
        }
        sink.writer.finish()
    }
}

/// What is written for the tensors of a model.
fn plan(infos: &[TensorInfo], dtype: Dtype) -> Result<Vec<Planned>> {
    // Eight-bit integers, whose scales have tensors of their own or, in the table of a static model, are not needed.
    let eight_bits = |info: &&TensorInfo| info.dtype == Some(Dtype::Int8);
    if let Some(info) = infos.iter().find(eight_bits).filter(|_| dtype != Dtype::Int8) {
        let message = format!("{} has eight bits already; convert the model that it was made from", info.name);
        return Err(invalid_option("dtype", message));
    }
    let scales: Vec<String> = infos.iter().filter(eight_bits).map(|info| scales_of(&info.name)).collect();
    let mut plan = Vec::with_capacity(infos.len());
    for info in infos.iter().filter(|info| info.dtype.is_some()) {
        let TensorInfo { name, shape, .. } = info;
        let planned =
            |name: &str, shape: &[usize], dtype| Planned { name: name.to_owned(), shape: shape.to_vec(), dtype };
        let is_large = shape.len() == 2 && shape.iter().product::<usize>() >= CONVERTED_FROM;
        match dtype {
            _ if eight_bits(&info) => plan.push(planned(name, shape, Dtype::Int8)),
            _ if !is_large || scales.contains(name) => plan.push(planned(name, shape, Dtype::F32)),
            Dtype::Int8 => {
                plan.push(planned(name, shape, Dtype::Int8));
                plan.push(planned(&scales_of(name), &shape[..1], Dtype::F32));
            }
            _ => plan.push(planned(name, shape, dtype)),
        }
    }
    Ok(plan)
}

/// Keeps what the header says.
struct Headers(Option<Vec<TensorInfo>>);

impl Sink for Headers {
    fn begin(&mut self, tensors: &[TensorInfo]) -> Result<()> {
        self.0 = Some(tensors.to_vec());
        Ok(())
    }

    fn wants(&self, _: &str) -> Option<Dtype> {
        None
    }

    fn tensor(&mut self, _: &str, _: Values) -> Result<()> {
        Ok(())
    }
}

/// Writes tensors as they arrive.
struct Converter {
    wanted: BTreeMap<String, Dtype>,
    infos: Vec<TensorInfo>,
    writer: Writer<fs::File>,
}

impl Sink for Converter {
    fn begin(&mut self, tensors: &[TensorInfo]) -> Result<()> {
        match tensors.iter().find(|info| !self.infos.contains(info)) {
            None => Ok(()),
            Some(info) => Err(Error::new(Code::Io, &info.name, "the file changed while it was read")),
        }
    }

    fn wants(&self, name: &str) -> Option<Dtype> {
        self.wanted.get(name).copied()
    }

    fn tensor(&mut self, name: &str, values: Values) -> Result<()> {
        self.writer.tensor(name, &values)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info(name: &str, shape: &[usize], dtype: Option<Dtype>) -> TensorInfo {
        TensorInfo { name: name.to_owned(), shape: shape.to_vec(), dtype }
    }

    fn planned(infos: &[TensorInfo], dtype: Dtype) -> Vec<(String, Dtype)> {
        plan(infos, dtype).expect("a plan").into_iter().map(|planned| (planned.name, planned.dtype)).collect()
    }

    #[test]
    fn only_large_matrices_are_converted() {
        let infos = [
            info("w", &[256, 256], Some(Dtype::F32)),
            info("small", &[255, 256], Some(Dtype::F16)),
            info("bias", &[1 << 20], Some(Dtype::F32)),
            info("convolution", &[256, 256, 3], Some(Dtype::F32)),
            info("mask", &[512, 512], None),
        ];
        let named = |w, scale: &[(&str, Dtype)]| -> Vec<(String, Dtype)> {
            let rest = [("small", Dtype::F32), ("bias", Dtype::F32), ("convolution", Dtype::F32)];
            let all = [("w", w)].into_iter().chain(scale.iter().copied()).chain(rest);
            all.map(|(name, dtype)| (name.to_owned(), dtype)).collect()
        };
        assert_eq!(planned(&infos, Dtype::F16), named(Dtype::F16, &[]));
        assert_eq!(planned(&infos, Dtype::F32), named(Dtype::F32, &[]));
        assert_eq!(planned(&infos, Dtype::Int8), named(Dtype::Int8, &[("w_scale", Dtype::F32)]));
    }

    #[test]
    fn eight_bits_stay_as_they_are_with_their_scales() {
        let infos = [info("w", &[1 << 17, 8], Some(Dtype::Int8)), info("w_scale", &[1 << 17, 1], Some(Dtype::F32))];
        let kept = [("w".to_owned(), Dtype::Int8), ("w_scale".to_owned(), Dtype::F32)];
        assert_eq!(planned(&infos, Dtype::Int8), kept);
        assert_eq!(plan(&infos, Dtype::F16).expect_err("refused").code(), Code::InvalidOption);
    }
}
