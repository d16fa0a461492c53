//! What the tree promises: who imports whom, and facts that stand in two places.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use crate::common::{json, path, read};
use wick_embed::Code;

/// The layers, lowest first: a module may use those below it, and neighbours only where a pair says so.
const LAYERS: &[&[&str]] = &[
    &["error"],
    &["base64", "platform", "sparse"],
    &["call"],
    &["text", "weights", "kernels", "gpu"],
    &["ops"],
    &["encoder"],
    &["model", "head", "hub", "score", "bm25", "provider"],
    &["load"],
    &["batches"],
    &["transformer"],
    &["second_opinion"],
    &["embedder", "rerank", "remote", "convert", "distill"],
    &["serve"],
    &["bindings", "bin"],
];

/// Uses that the layers do not allow, each with its reason.
const ALLOWED: &[(&str, &str)] = &[
    ("weights", "ops"),     // the loader packs tensors through the contract
    ("remote", "embedder"), // makes its remote counterpart
    ("remote", "rerank"),   // as above
    ("encoder", "text"),    // a batch is what the forward reads
    ("model", "head"),      // a pipeline's files describe its head
    ("model", "hub"),       // paths found in a model's files are checked as addresses are
    ("platform", "hub"),    // an address becomes a request
];

fn files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            files(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

fn sources() -> Vec<(String, String)> {
    let root = path("src");
    let mut found = Vec::new();
    files(&root, &mut found);
    let relative = |path: &Path| path.strip_prefix(&root).expect("below src").display().to_string();
    found.iter().map(|path| (relative(path), fs::read_to_string(path).expect("UTF-8"))).collect()
}

fn module(file: &str) -> &str {
    file.split('/').next().expect("a name").trim_end_matches(".rs")
}

fn layer(module: &str) -> Option<usize> {
    LAYERS.iter().position(|layer| layer.contains(&module))
}

/// The modules of this crate that a file's code names: `crate::x`, and `crate::{x::..., y}`. Comments may point upwards.
fn uses(text: &str) -> BTreeSet<String> {
    let code: Vec<&str> = text.lines().filter(|line| !line.trim_start().starts_with("//")).collect();
    let text = code.join("\n");
    let mut used = BTreeSet::new();
    for (at, _) in text.match_indices("crate::") {
        let rest = &text[at + "crate::".len()..];
        let names = match rest.strip_prefix('{') {
            None => vec![rest],
            Some(group) => {
                let mut depth = 1;
                let end = group.find(|character| {
                    depth += match character {
                        '{' => 1,
                        '}' => -1,
                        _ => 0,
                    };
                    depth == 0
                });
                let mut depth = 0;
                group[..end.expect("a closed group")]
                    .split(move |character| {
                        depth += match character {
                            '{' => 1,
                            '}' => -1,
                            _ => 0,
                        };
                        character == ',' && depth == 0
                    })
                    .collect()
            }
        };
        for name in names {
            let name = name.trim_start();
            let end =
                name.find(|character: char| !character.is_alphanumeric() && character != '_').unwrap_or(name.len());
            if end > 0 {
                used.insert(name[..end].to_owned());
            }
        }
    }
    used
}

#[test]
fn the_import_reader_reads_groups() {
    let text = "use crate::{\n  error::{Code, Error},\n  ops::Ops,\n};\nfn f() -> crate::hub::Location {}";
    assert_eq!(uses(text).into_iter().collect::<Vec<_>>(), ["error", "hub", "ops"]);
}

#[test]
fn lower_layers_never_import_higher_ones() {
    let mut seen = 0;
    for (file, text) in sources() {
        let from = module(&file);
        if from == "lib" {
            continue;
        }
        let own = layer(from).unwrap_or_else(|| panic!("{file}: {from} has no layer"));
        for used in uses(&text) {
            // Names of the crate's root (`crate::Code`) belong to the top.
            let Some(other) = layer(&used) else {
                assert!(own + 1 >= LAYERS.len() - 1, "{file} takes {used} from the crate's root");
                continue;
            };
            seen += 1;
            let fine = used == from || other < own || ALLOWED.contains(&(from, &used));
            assert!(fine, "{file} imports {used}, which is not below {from}");
        }
    }
    assert!(seen > 20, "only {seen} imports were found");
}

#[test]
fn families_do_not_know_each_other() {
    let shared = ["mod", "config", "names", "pipeline", "rotary"];
    for (file, text) in sources() {
        let Some(family) = file.strip_prefix("model/").map(|name| name.trim_end_matches(".rs")) else {
            continue;
        };
        if !shared.contains(&family) {
            let other = text
                .lines()
                .find(|line| line.starts_with("use super::") && !line.contains("Config") && !line.contains("names"));
            assert_eq!(other, None, "{file}");
        }
    }
}

#[test]
fn providers_do_not_know_each_other() {
    let providers: Vec<&str> = wick_embed::Provider::ALL.map(wick_embed::Provider::as_str).into();
    for (file, text) in sources() {
        let Some(own) = file.strip_prefix("provider/").map(|name| name.trim_end_matches(".rs")) else {
            continue;
        };
        if providers.contains(&own) {
            let known = providers.iter().find(|other| **other != own && text.contains(&format!("{other}::")));
            assert_eq!(known, None, "{file}");
        }
    }
}

#[test]
fn what_belongs_to_one_place_stays_there() {
    let rules: &[(&[&str], &[&str])] = &[
        (&["web_sys::", "js_sys::", "wasm_bindgen::"], &["platform/web", "bindings/"]),
        (&["wgpu::"], &["gpu/"]),
        (
            &["candle_core::", "candle_nn::", "candle_transformers::"],
            &["ops/candle.rs", "second_opinion.rs", "weights/gguf/blocks.rs"],
        ),
        (&["axum::", "hyper::", "tokio::"], &["serve/"]),
        (&["target_arch", "target_feature"], &["platform/", "kernels/", "lib.rs"]),
        (&["unsafe {", "unsafe fn"], &["kernels/", "platform/", "weights/gguf/blocks.rs"]),
    ];
    for (file, text) in sources() {
        for (words, places) in rules {
            let word = words.iter().find(|word| text.contains(**word));
            let fine = word.is_none() || places.iter().any(|place| file.starts_with(place));
            assert!(fine, "{file} has {word:?}, which belongs in {places:?}");
        }
    }
}

#[test]
fn error_codes_are_the_same_in_rust_typescript_and_the_documentation() {
    let rust: Vec<&str> = Code::ALL.iter().map(|code| code.as_str()).collect();
    let text = |file| String::from_utf8(read(file)).expect("UTF-8");
    let typescript = text("pkg/src/errors.ts");
    let (_, list) = typescript.split_once("codes = [").expect("the list");
    let (list, _) = list.split_once(']').expect("its end");
    let typescript: Vec<&str> =
        list.split(',').map(|word| word.trim().trim_matches('"')).filter(|word| !word.is_empty()).collect();
    assert_eq!(typescript, rust);
    let documentation = text("docs/errors.md");
    let documented: Vec<&str> =
        documentation.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next()).collect();
    assert_eq!(documented, rust);
}

#[test]
fn versions_agree() {
    let package = json("pkg/package.json");
    assert_eq!(package["version"], env!("CARGO_PKG_VERSION"));
    let changelog = String::from_utf8(read("CHANGELOG.md")).expect("UTF-8");
    let heading = format!("## {}", env!("CARGO_PKG_VERSION"));
    assert!(changelog.lines().any(|line| line.starts_with(&heading)), "CHANGELOG.md has no {heading}");
    let lock = String::from_utf8(read("Cargo.lock")).expect("UTF-8");
    let locked = |name: &str| {
        let (_, rest) = lock.split_once(&format!("name = \"{name}\"\nversion = \"")).expect(name);
        rest.split('"').next().expect("a version").to_owned()
    };
    assert_eq!(locked("wasm-bindgen"), locked("wasm-bindgen-cli-support"));
}

#[test]
fn the_documentation_names_every_supported_family() {
    let readme = String::from_utf8(read("README.md")).expect("UTF-8");
    for family in wick_embed::model::SUPPORTED {
        assert!(readme.contains(&format!("`{family}`")), "README.md does not name {family}");
    }
}
