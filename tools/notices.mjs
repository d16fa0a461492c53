// node tools/notices.mjs: the licences of all that is compiled into the package's modules, to be shipped with it.
// Which crates these are cargo says; each licence is the file that the crate itself brings.
import { execFileSync } from "node:child_process";
import { readFileSync, readdirSync } from "node:fs";
import { basename, dirname, join } from "node:path";

/** Of all modules, see build.sh. */
const FEATURES = "local,webgpu,remote,reference";
const TARGET = "wasm32-unknown-unknown";
/** What a crate calls a licence. */
const NAMES = /^(licen[cs]e|copying|copyright|notice|unlicense)/i;

const cargo = (...words) => execFileSync("cargo", words, { encoding: "utf8", maxBuffer: 1 << 28 });
const selected = ["--locked", "--no-default-features", "--features", FEATURES];

// The tree alone has each crate's features of this target; the metadata have the files.
const tree = cargo("tree", ...selected, "--edges", "normal", "--target", TARGET, "--prefix", "none", "--format", "{p}");
const wanted = new Set(tree.split("\n").map((line) => line.split(" ").slice(0, 2).join(" ")));
const { packages, workspace_members: own } = JSON.parse(cargo("metadata", ...selected, "--format-version", "1", "--filter-platform", TARGET));
const crates = packages
  .filter(({ id, name, version }) => !own.includes(id) && wanted.has(`${name} v${version}`))
  .sort((a, b) => (a.name < b.name ? -1 : a.name > b.name ? 1 : a.version < b.version ? -1 : 1));

/** Crates by the text of a licence: most share one. */
const texts = new Map();
const lines = [];
for (const { name, version, license, license_file, authors, repository, manifest_path } of crates) {
  const folder = dirname(manifest_path);
  const files = new Set(readdirSync(folder).filter((file) => NAMES.test(basename(file))));
  if (license_file) files.add(license_file);
  lines.push(`${name} ${version}: ${license ?? license_file}${repository ? ` (${repository})` : ""}${authors.length ? `, by ${authors.join(", ")}` : ""}`);
  for (const file of files) {
    const text = readFileSync(join(folder, file), "utf8").replaceAll("\r\n", "\n").trim();
    // The same text with other white space is the same licence.
    const key = text.replace(/\s+/g, " ");
    const entry = texts.get(key) ?? { text, of: [] };
    entry.of.push(`${name} ${version}`);
    texts.set(key, entry);
  }
}
const library = ["The standard library of Rust: MIT OR Apache-2.0 (https://github.com/rust-lang/rust), by the Rust Project Developers."];
texts.set("stop words", { text: readFileSync("src/bm25/stopwords/LICENSE", "utf8").trim(), of: ["the stop words of BM25"] });

const rule = "-".repeat(80);
process.stdout.write(
  `Third-party software in the WebAssembly modules of wick-embed. The package's own licence is MIT OR Apache-2.0.

${[...library, ...lines].join("\n")}

${[...texts.values()].map(({ text, of }) => `${rule}\n${of.join(", ")}\n${rule}\n\n${text}\n`).join("\n")}`,
);
