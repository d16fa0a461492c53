// node sts-csv.mjs stsb-en-test.csv: STS-B as its repository has it (sentence1,sentence2,score) to tab-separated score,
// sentence1, sentence2 with single spaces, which is what tests read.
import { readFileSync } from "node:fs";

const FIELD = /(?:"((?:[^"]|"")*)"|([^",\r\n]*))(,|\r?\n|$)/g;

const rows = [];
let row = [];
for (const [whole, quoted, plain, end] of readFileSync(process.argv[2], "utf8").matchAll(FIELD)) {
  if (whole === "") break;
  row.push((quoted?.replaceAll('""', '"') ?? plain).replaceAll(/\s+/g, " "));
  if (end !== ",") rows.push(row.splice(0));
}
console.log("score\tsentence1\tsentence2");
for (const [first, second, score] of rows) console.log([score, first, second].join("\t"));
