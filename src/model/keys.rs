//! Which keys a model's small files may have, and what becomes of each.
//!
//! One list per kind of file: a key is computed, or refused unless it has a value that changes nothing, or harmless whatever it
//! says. Read from the released sources of sentence-transformers 0.3.9, 0.4.1, 1.2.1, 2.2.2, 2.7.0, 3.0.0, 4.1.0, 5.0.0, 5.1.0,
//! 5.4.0, 5.7.0 and 6.2.0, transformers 5.23.0 and model2vec 0.10.0 (`tests/fixtures/keys.py` prints the keys of each class).
//!
//! In a file of a stage a key beyond the list is an error: those files have few keys, each of which computes. In `config.json` and
//! `tokenizer_config.json`, to which libraries and authors add what they like, it is a warning.

use serde_json::{Map, Value};

use crate::error::{Code, Error, Result};

/// The keys of one kind of file.
#[derive(Debug, Clone, Copy)]
pub struct Keys {
    /// Read, and part of the computation or of a check.
    pub computed: &'static [&'static str],
    /// With the values that change nothing, as JSON. Null, and nothing at all, never do.
    pub refused: &'static [(&'static str, &'static [&'static str])],
    /// Change no result, whatever their value.
    pub harmless: &'static [&'static str],
}

/// A stage's values that lie where nearly all models have them.
const SENTENCE: &[&str] = &[r#""sentence_embedding""#];

/// An entry of `modules.json`. `kwargs` are names of arguments that a call may pass on; a call of ours has none of them.
pub const MODULE: Keys = Keys { computed: &["path", "type"], refused: &[], harmless: &["idx", "name", "kwargs"] };

/// `Pooling`'s `config.json`.
pub const POOLING: Keys = Keys {
    computed: &[
        "pooling_mode",
        "pooling_mode_cls_token",
        "pooling_mode_max_tokens",
        "pooling_mode_mean_tokens",
        "pooling_mode_mean_sqrt_len_tokens",
        "pooling_mode_weightedmean_tokens",
        "pooling_mode_lasttoken",
        "include_prompt",
    ],
    refused: &[],
    // The width that a list of stages is described with; the encoder has its own.
    harmless: &["embedding_dimension", "word_embedding_dimension"],
};

/// `Dense`'s `config.json`.
pub const DENSE: Keys = Keys {
    computed: &["in_features", "out_features", "bias", "activation_function", "use_residual"],
    refused: &[("module_input_name", SENTENCE), ("module_output_name", SENTENCE)],
    harmless: &[],
};

/// `LayerNorm`'s `config.json`.
pub const LAYER_NORM: Keys = Keys { computed: &["dimension"], refused: &[], harmless: &[] };

/// `Normalize`'s `config.json`, which there is since sentence-transformers 6.
pub const NORMALIZE: Keys = Keys {
    computed: &[],
    refused: &[("module_input_name", SENTENCE), ("module_output_name", SENTENCE)],
    harmless: &[],
};

/// `SpladePooling`'s `config.json`.
pub const SPLADE: Keys = Keys {
    computed: &["pooling_strategy", "activation_function"],
    refused: &[],
    harmless: &["embedding_dimension", "word_embedding_dimension", "chunk_size"],
};

/// `sentence_bert_config.json`: the settings of the transformer as a stage.
pub const TRANSFORMER: Keys = Keys {
    computed: &[
        "max_seq_length",
        "do_lower_case",
        "transformer_task",
        "modality_config",
        "module_output_name",
        "model_args",
        "model_kwargs",
        "tokenizer_args",
        "processor_kwargs",
        "config_args",
        "config_kwargs",
    ],
    refused: &[
        ("processing_kwargs", &["{}"]),
        // Of models for late interaction.
        ("query_length", &[]),
        ("document_length", &[]),
        ("query_expansion", &[]),
        ("tokenizer_name_or_path", &[]),
    ],
    harmless: &["unpad_inputs", "__version__"],
};

/// Arguments that such a file may hand to the classes of transformers: how a model is loaded, and not what it computes.
pub const ARGUMENTS: Keys = Keys {
    computed: &[],
    refused: &[],
    harmless: &[
        "trust_remote_code",
        "revision",
        "code_revision",
        "token",
        "use_auth_token",
        "cache_dir",
        "local_files_only",
        "torch_dtype",
        "dtype",
        "attn_implementation",
        "use_safetensors",
        "low_cpu_mem_usage",
        "device_map",
        "add_pooling_layer",
        "unpad_inputs",
        "use_memory_efficient_attention",
        "use_flash_attn",
        "use_fast",
        "use_cache",
        "clean_up_tokenization_spaces",
        "padding_side",
    ],
};

/// `config_sentence_transformers.json`.
pub const SENTENCE_TRANSFORMERS: Keys = Keys {
    computed: &["prompts", "default_prompt_name", "truncate_dim", "max_active_dims", "activation_fn", "model_type"],
    refused: &[
        // PyLate's, and those of ColBERT itself.
        ("query_prefix", &[]),
        ("document_prefix", &[]),
        ("query_length", &[]),
        ("document_length", &[]),
        ("query_expansion", &[]),
        ("do_query_expansion", &[]),
        ("attend_to_expansion_tokens", &[]),
        ("attend_to_mask_tokens", &[]),
        ("skiplist_words", &[]),
    ],
    // `keep_in_fp32_modules`: all activations are f32 here.
    harmless: &["__version__", "similarity_fn_name", "requirements", "keep_in_fp32_modules"],
};

/// `config.json` of a Model2Vec model (`StaticModelConfig`).
pub const MODEL2VEC: Keys = Keys {
    computed: &["normalize", "max_length", "model_type"],
    refused: &[],
    // How the table was made, and what the weights say themselves.
    harmless: &[
        "architectures",
        "tokenizer_name",
        "apply_pca",
        "apply_zipf",
        "sif_coefficient",
        "hidden_dim",
        "seq_length",
        "pooling",
        "embedding_dtype",
        "vocabulary_quantization",
        "head_config",
        "transformers_version",
        "torch_dtype",
        "dtype",
    ],
};

/// `config.json` of any transformer, beside what its family reads.
pub const COMMON: Keys = Keys {
    computed: &[
        "model_type",
        "architectures",
        "id2label",
        "num_labels",
        "tie_word_embeddings",
        "sentence_transformers",
        "sbert_ce_default_activation_function",
        "tokenizer_class",
    ],
    refused: &[
        ("is_decoder", &["false"]),
        ("add_cross_attention", &["false"]),
        ("pruned_heads", &["{}"]),
        ("per_layer_config", &["{}", "[]"]),
        ("quantization_config", &[]),
    ],
    harmless: &[
        "_attn_implementation",
        "_attn_implementation_autoset",
        "_attn_implementation_internal",
        "_commit_hash",
        "_name_or_path",
        "adapters",
        "attention_dropout",
        "attention_probs_dropout_prob",
        "attn_implementation",
        "auto_map",
        "bad_words_ids",
        "begin_suppress_tokens",
        "bos_token_id",
        "chunk_size_feed_forward",
        "classifier_dropout",
        "cls_token_id",
        "cross_attention_hidden_size",
        "custom_pipelines",
        "decoder_start_token_id",
        "diversity_penalty",
        "do_sample",
        "dropout",
        "dropout_rate",
        "dtype",
        "early_stopping",
        "encoder_no_repeat_ngram_size",
        "eos_token_id",
        "exponential_decay_length_penalty",
        "finetuning_task",
        "forced_bos_token_id",
        "forced_eos_token_id",
        "gradient_checkpointing",
        "hidden_dropout_prob",
        "initializer_factor",
        "initializer_range",
        "is_encoder_decoder",
        "label2id",
        "language",
        "length_penalty",
        "max_length",
        "min_length",
        "name_or_path",
        "no_repeat_ngram_size",
        "num_beam_groups",
        "num_beams",
        "num_return_sequences",
        "output_attentions",
        "output_hidden_states",
        "output_past",
        "output_scores",
        "prefix",
        "problem_type",
        "remove_invalid_values",
        "repetition_penalty",
        "return_dict",
        "return_dict_in_generate",
        "sep_token_id",
        "suppress_tokens",
        "task_specific_params",
        "temperature",
        "tf_legacy_loss",
        "tie_encoder_decoder",
        "tie_weights_",
        "top_k",
        "top_p",
        "torch_dtype",
        "torchscript",
        "transformers_version",
        "typical_p",
        "unk_token_id",
        "use_bfloat16",
        "use_cache",
    ],
};

/// `tokenizer_config.json`. What `tokenizer.json` says too is taken from there.
pub const TOKENIZER: Keys = Keys {
    computed: &[
        "model_max_length",
        "do_lower_case",
        "strip_accents",
        "tokenize_chinese_chars",
        "truncation_side",
        "model_input_names",
        "add_prefix_space",
        "tokenizer_class",
        "unk_token",
        "sep_token",
        "pad_token",
        "cls_token",
        "mask_token",
    ],
    refused: &[("split_special_tokens", &["false"]), ("do_basic_tokenize", &["true"]), ("never_split", &["[]"])],
    harmless: &[
        "_commit_hash",
        "added_tokens_decoder",
        "additional_special_tokens",
        "auto_map",
        "backend",
        "bos_token",
        "chat_template",
        "clean_up_tokenization_spaces",
        "device_map",
        "eos_token",
        "errors",
        "extra_ids",
        "extra_special_tokens",
        "from_slow",
        "full_tokenizer_file",
        "is_local",
        "keep_accents",
        "legacy",
        "local_files_only",
        "max_len",
        "max_length",
        "name_or_path",
        "pad_to_multiple_of",
        "pad_token_type_id",
        "padding_side",
        "processor_class",
        "remove_space",
        "sp_model_kwargs",
        "spaces_between_special_tokens",
        "special_tokens_map_file",
        "stride",
        "tokenizer_file",
        "trim_offsets",
        "truncation_strategy",
        "trust_remote_code",
        "use_fast",
        "vocab_file",
        "wordpieces_prefix",
    ],
};

impl Keys {
    /// Refuses values that would have to be computed, and is not computed here.
    pub fn refuse(&self, file: &str, values: &Map<String, Value>) -> Result<()> {
        for (key, fine) in self.refused {
            match values.get(*key).map(Value::to_string) {
                Some(value) if value != "null" && !fine.contains(&value.as_str()) => {
                    return Err(unsupported(file, format!("{key} {value} is not supported")));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Refuses what [`refuse`](Self::refuse) does, and keys beyond the list.
    pub fn check(&self, file: &str, values: &Map<String, Value>) -> Result<()> {
        self.refuse(file, values)?;
        match unknown(&[self], values).first() {
            None => Ok(()),
            Some(key) => Err(unsupported(file, format!("the key {key:?} is not known, and may change the result"))),
        }
    }

    fn has(&self, key: &str) -> bool {
        let refused = self.refused.iter().any(|(refused, _)| *refused == key);
        refused || self.computed.contains(&key) || self.harmless.contains(&key)
    }
}

/// The keys that stand in none of the lists and have a value.
pub fn unknown(lists: &[&Keys], values: &Map<String, Value>) -> Vec<String> {
    let unknown = |(key, value): &(&String, &Value)| !value.is_null() && !lists.iter().any(|list| list.has(key));
    values.iter().filter(unknown).map(|(key, _)| key.clone()).collect()
}

/// The warning for keys of `config.json` or `tokenizer_config.json` that stand in no list.
pub fn warning(file: &str, unknown: &[String]) -> Option<String> {
    let s = if unknown.len() == 1 { "" } else { "s" };
    (!unknown.is_empty()).then(|| format!("{file}: the key{s} {} may matter, and is not read", unknown.join(", ")))
}

fn unsupported(file: &str, message: String) -> Error {
    Error::new(Code::UnsupportedModel, file, message)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::model::{
        Architecture, Config, bert, distilbert, gte, modernbert, nomic_bert,
        pipeline::{
            self, DenseConfig, Modules, PoolingConfig, Saved, StaticConfig, TokenizerConfig, TransformerConfig,
        },
        t5,
    };

    /// What is read of a file: all of it that is kept, and the warning.
    type Read<'a> = &'a dyn Fn(&[u8]) -> Result<(String, Option<String>)>;

    /// Holds that each key of the lists is handled as they say. `base` is a file, `others` has for each computed key, and for
    /// refused ones where a string is none, a value that must change what is read, or be refused.
    fn hold(kind: &str, lists: &[&Keys], strict: bool, base: &Value, others: &Value, read: Read<'_>) {
        let (plain, warning) = read(base.to_string().as_bytes()).unwrap_or_else(|error| panic!("{kind}: {error}"));
        assert_eq!(warning, None, "{kind}");
        let with = |key: &str, value: Value| {
            let mut file = base.clone();
            file[key] = value;
            read(file.to_string().as_bytes())
        };
        let other = |key: &str| others.get(key).cloned();
        for list in lists {
            for key in list.computed {
                let value = other(key).unwrap_or_else(|| panic!("{kind}: no other value of {key}"));
                if value.is_null() {
                    continue; // read of a relative alone, which has a row of its own
                }
                if let Ok((read, _)) = with(key, value.clone()) {
                    assert_ne!(read, plain, "{kind}: {key} {value} changes nothing");
                }
            }
            for (key, fine) in list.refused {
                for fine in fine.iter().chain(&["null"]) {
                    let value = serde_json::from_str(fine).expect("JSON");
                    assert_eq!(with(key, value).expect("fine").0, plain, "{kind}: {key} {fine}");
                }
                let error = with(key, other(key).unwrap_or_else(|| json!("other"))).expect_err("refused");
                assert_eq!(error.code(), Code::UnsupportedModel, "{kind}: {error}");
                assert!(error.message().contains(key), "{kind}: {error} does not name {key}");
            }
            for key in list.harmless {
                let (read, warning) = with(key, json!(17)).unwrap_or_else(|error| panic!("{kind}: {key}: {error}"));
                assert_eq!((&read, warning), (&plain, None), "{kind}: {key}");
            }
        }
        match (strict, with("no_such_key", json!(1))) {
            (true, Err(error)) => {
                assert_eq!(error.code(), Code::UnsupportedModel, "{kind}: {error}");
                assert!(error.message().contains("no_such_key"), "{kind}: {error}");
            }
            (false, Ok((_, Some(warning)))) => assert!(warning.contains("no_such_key"), "{kind}: {warning}"),
            (_, read) => panic!("{kind}: {read:?}"),
        }
    }

    /// What is read of a file whose every key is known.
    fn strict<T: std::fmt::Debug>(
        read: impl Fn(&[u8]) -> Result<T>,
    ) -> impl Fn(&[u8]) -> Result<(String, Option<String>)> {
        move |bytes| Ok((format!("{:?}", read(bytes)?), None))
    }

    #[test]
    fn keys_of_stages_are_handled_as_they_are_listed() {
        const FILE: &str = "a file";
        let stage = "sentence_transformers.models.Pooling";
        let read = strict(|bytes| Modules::from_bytes(Some(&[b"[", bytes, b"]"].concat())));
        let (base, others) = (json!({"path": "1", "type": stage}), json!({"path": "2", "type": "own.Pooling"}));
        hold("modules.json", &[&MODULE], true, &base, &others, &read);

        let read = strict(|bytes| PoolingConfig::from_bytes(FILE, Some(bytes)));
        let others = json!({
            "pooling_mode": ["cls", "max"], "pooling_mode_cls_token": false, "pooling_mode_max_tokens": true,
            "pooling_mode_mean_tokens": true, "pooling_mode_mean_sqrt_len_tokens": true,
            "pooling_mode_weightedmean_tokens": true, "pooling_mode_lasttoken": true, "include_prompt": false,
        });
        hold("Pooling", &[&POOLING], true, &json!({"pooling_mode_cls_token": true}), &others, &read);

        let read = strict(|bytes| {
            let config = DenseConfig::from_bytes(FILE, bytes)?;
            config.activation(FILE).map(|activation| (config.clone(), activation))
        });
        let base = json!({"in_features": 4, "out_features": 4});
        let others = json!({
            "in_features": 5, "out_features": 5, "bias": false, "activation_function": "torch.nn.Mish", "use_residual": true,
            "module_input_name": "token_embeddings", "module_output_name": "token_embeddings",
        });
        hold("Dense", &[&DENSE], true, &base, &others, &read);
        for code in ["my.GELU", "GELU", "transformers.activations.GELUActivation"] {
            let base = json!({"in_features": 4, "out_features": 4, "activation_function": code});
            let error = read(base.to_string().as_bytes()).expect_err("not torch's");
            assert_eq!(error.code(), Code::UnsupportedModel, "{error}");
        }

        let read = strict(|bytes| pipeline::layer_norm_width(FILE, bytes));
        hold("LayerNorm", &[&LAYER_NORM], true, &json!({"dimension": 4}), &json!({"dimension": 5}), &read);

        let read = strict(|bytes| pipeline::check_normalize(FILE, bytes));
        hold("Normalize", &[&NORMALIZE], true, &json!({}), &json!({}), &read);

        let read = strict(|bytes| pipeline::splade_logarithms(FILE, bytes));
        let others = json!({"pooling_strategy": "sum", "activation_function": "log1p_relu"});
        hold("SpladePooling", &[&SPLADE], true, &json!({}), &others, &read);

        let read = strict(|bytes| TransformerConfig::from_bytes(FILE, Some(bytes)));
        let arguments = json!({"rotary_scaling_factor": 2});
        let others = json!({
            "max_seq_length": 9, "do_lower_case": true, "transformer_task": "fill-mask", "module_output_name": "scores",
            "modality_config": {"image": {"method": "forward", "method_output_name": "last_hidden_state"}},
            "model_args": arguments, "model_kwargs": arguments, "tokenizer_args": arguments,
            "processor_kwargs": arguments, "config_args": arguments, "config_kwargs": arguments,
        });
        let base = json!({
            "max_seq_length": 8, "do_lower_case": null, "model_args": {"trust_remote_code": true}, "config_args": {},
            "transformer_task": "feature-extraction", "module_output_name": "token_embeddings",
        });
        hold("Transformer", &[&TRANSFORMER], true, &base, &others, &read);
        let arguments = |bytes: &[u8]| ARGUMENTS.check(FILE, &pipeline::parse(FILE, bytes)?);
        hold("its arguments", &[&ARGUMENTS], true, &json!({}), &json!({}), &strict(arguments));

        let read = strict(|bytes| {
            let saved = Saved::from_bytes(Some(bytes))?;
            saved.is_sigmoid().map(|sigmoid| (saved.clone(), sigmoid))
        });
        let others = json!({
            "prompts": {"query": "q"}, "default_prompt_name": "query", "truncate_dim": 4, "max_active_dims": 4,
            "activation_fn": "torch.nn.Identity", "model_type": "CrossEncoder",
        });
        let base = json!({"prompts": null, "default_prompt_name": null, "model_type": "SentenceTransformer"});
        hold("config_sentence_transformers.json", &[&SENTENCE_TRANSFORMERS], true, &base, &others, &read);
        for (code, changed) in [
            (Code::UnsupportedModel, json!({"model_type": "ColBERT"})),
            (Code::UnsupportedModel, json!({"activation_fn": "my.Sigmoid"})),
            (Code::InvalidConfig, json!({"default_prompt_name": "none", "prompts": {"other": ""}})),
            (Code::InvalidConfig, json!({"truncate_dim": 0})),
        ] {
            assert_eq!(read(changed.to_string().as_bytes()).expect_err("refused").code(), code, "{changed}");
        }
    }

    #[test]
    fn keys_that_libraries_add_to_are_handled_as_they_are_listed() {
        let read = |bytes: &[u8]| {
            StaticConfig::from_bytes("config.json", bytes)
                .map(|(config, warning)| (format!("{config:?} {}", pipeline::is_model2vec(bytes)), warning))
        };
        let others = json!({"normalize": true, "max_length": 4, "model_type": "bert"});
        hold("Model2Vec", &[&MODEL2VEC], false, &json!({}), &others, &read);

        let vocab = b"[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\n[X]\n";
        let read = |bytes: &[u8]| {
            let (config, warning) = TokenizerConfig::from_bytes(Some(bytes))?;
            let (settings, made) = (config.settings("bert", false, 2)?, config.word_piece(vocab, "bert")?);
            let made = made.map(|made| String::from_utf8(made).expect("UTF-8"));
            Ok((format!("{:?} {settings:?} {made:?}", config.model_max_length), warning))
        };
        let others = json!({
            "model_max_length": 9, "do_lower_case": false, "strip_accents": true, "tokenize_chinese_chars": false,
            "truncation_side": "left", "model_input_names": ["input_ids"], "add_prefix_space": true,
            "tokenizer_class": "PreTrainedTokenizerFast", "unk_token": "[X]", "sep_token": {"content": "[X]"},
            "pad_token": "[X]", "cls_token": "[X]", "mask_token": "[X]", "do_basic_tokenize": false,
            "split_special_tokens": true, "never_split": ["a"],
        });
        hold("tokenizer_config.json", &[&TOKENIZER], false, &json!({}), &others, &read);
    }

    #[test]
    fn keys_of_families_are_handled_as_they_are_listed() {
        let read = |bytes: &[u8]| {
            let mut read = Architecture::from_config(&Config::from_bytes(bytes)?)?;
            let warning = read.warning.take();
            Ok((format!("{read:?}"), warning))
        };
        let common = json!({
            "model_type": "t5", "architectures": ["XForMaskedLM"], "id2label": {"0": "a", "1": "b"}, "num_labels": 7,
            "tie_word_embeddings": false, "sentence_transformers": {"activation_fn": "torch.nn.Identity"},
            "sbert_ce_default_activation_function": "torch.nn.Identity", "tokenizer_class": "XLMRobertaTokenizer", "is_decoder": true, "add_cross_attention": true,
            "pruned_heads": {"0": [1]},
        });
        let (rope, yarn) = (json!({"rope_theta": 7.0}), json!({"type": "linear", "factor": 2.0}));
        let both = json!({"full_attention": rope, "sliding_attention": rope});
        let new = |kind: &str| {
            json!({
                "model_type": kind, "vocab_size": 64, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2,
                "intermediate_size": 24, "max_position_embeddings": 32,
            })
        };
        let changes = json!({
            "vocab_size": 65, "hidden_size": 18, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 25,
            "max_position_embeddings": 33, "hidden_act": "relu", "type_vocab_size": 3, "layer_norm_eps": 0.5,
        });
        let families: [(&str, &Keys, Value, Value); 7] = [
            (
                "bert",
                &bert::KEYS,
                new("bert"),
                json!({"position_embedding_type": "relative_key", "use_flash_attn": true, "pad_token_id": null}),
            ),
            ("camembert", &bert::KEYS, new("camembert"), json!({"position_embedding_type": 1, "pad_token_id": 3})),
            (
                "distilbert",
                &distilbert::KEYS,
                json!({"model_type": "distilbert", "vocab_size": 64, "dim": 16, "n_layers": 2, "n_heads": 2, "hidden_dim": 24}),
                json!({"dim": 18, "n_layers": 3, "n_heads": 4, "hidden_dim": 25, "activation": "relu"}),
            ),
            (
                "gte",
                &gte::KEYS,
                merged(
                    &new("gte"),
                    &json!({"hidden_act": "gelu", "type_vocab_size": 1, "layer_norm_eps": 1e-12, "rope_theta": 10.0}),
                ),
                json!({
                    "layer_norm_type": "rms_norm", "position_embedding_type": "absolute", "rope_theta": 20.0,
                    "rope_scaling": yarn, "rope_parameters": rope, "logn_attention_scale": true,
                }),
            ),
            (
                "nomic_bert",
                &nomic_bert::KEYS,
                merged(
                    &new("nomic_bert"),
                    &json!({"hidden_act": "silu", "type_vocab_size": 2, "layer_norm_eps": 1e-12, "rope_theta": 10.0}),
                ),
                json!({
                    "n_embd": 18, "n_head": 4, "n_layer": 3, "n_inner": 25, "n_positions": 33, "max_trained_positions": 9,
                    "layer_norm_epsilon": 0.5, "hidden_act": "geglu", "activation_function": "geglu", "rope_theta": 20.0,
                    "rotary_emb_base": 20.0, "rope_parameters": rope, "rope_scaling": yarn, "rotary_emb_fraction": 0.5,
                    "rotary_emb_interleaved": true, "rotary_emb_scale_base": 2, "rotary_scaling_factor": 2, "prenorm": true,
                    "use_rms_norm": true, "parallel_block": true, "causal": true, "num_experts": 8,
                }),
            ),
            (
                "t5",
                &t5::KEYS,
                json!({"model_type": "t5", "vocab_size": 64, "d_model": 16, "d_kv": 8, "d_ff": 24, "num_layers": 2, "num_heads": 2}),
                json!({
                    "model_type": "bert", "d_model": 18, "d_kv": 9, "d_ff": 25, "num_layers": 3, "num_heads": 3,
                    "relative_attention_num_buckets": 16, "relative_attention_max_distance": 64,
                    "layer_norm_epsilon": 0.5, "feed_forward_proj": "gated-gelu",
                }),
            ),
            (
                "modernbert",
                &modernbert::KEYS,
                new("modernbert"),
                json!({
                    "hidden_activation": "relu", "norm_eps": 0.5, "local_attention": 64, "global_attn_every_n_layers": 1,
                    "global_rope_theta": 20.0, "local_rope_theta": 20.0, "rope_parameters": both, "rope_scaling": yarn,
                    "layer_types": ["full_attention"], "classifier_pooling": "mean", "classifier_activation": "relu",
                }),
            ),
        ];
        for (kind, keys, base, others) in families {
            let others = merged(&merged(&common, &changes), &others);
            hold(kind, &[keys, &COMMON], false, &base, &others, &read);
        }
    }

    fn merged(one: &Value, other: &Value) -> Value {
        let (mut one, other) = (one.clone(), other.as_object().expect("an object"));
        other.iter().for_each(|(key, value)| one[key] = value.clone());
        one
    }
}
