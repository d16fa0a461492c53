"""Made minilm.json and tokenizer_bert.json: the published values for all-MiniLM-L6-v2 and its tokenizer.

    python extract.py PEERS_JSON GOLDEN_JSON TOKENIZERS_JSON

The inputs are collections of outputs printed in other projects' documentation and test suites; each entry keeps its source
(repository, commit, file). Only numbers and the short texts they belong to are kept.
"""

import json
import sys

peers, golden, tokenizers = (json.load(open(path)) for path in sys.argv[1:4])

MODEL = "sentence-transformers/all-MiniLM-L6-v2"
entries = []
for entry in peers:
    if entry["model"] != MODEL:
        continue
    keep = {key: entry[key] for key in ("kind", "role", "text", "texts", "pooling", "normalized", "expected", "abs_tol", "source") if key in entry}
    if entry["kind"] == "dense_full" or entry["kind"] in ("dense_prefix", "dense_suffix", "similarity_matrix", "token_states"):
        entries.append(keep)
sums = golden["minilm"]["sum_fastembed_rs"]
for text, total in zip(sums["texts"], sums["sums"]):
    entries.append({"kind": "sum", "text": text, "expected": total, "abs_tol": sums["tol"], "source": "Anush008/fastembed-rs tests"})
json.dump(entries, open("minilm.json", "w"), indent=1, ensure_ascii=False)

UNCASED = ("Xenova/bert-base-uncased", "Xenova/distilbert-base-uncased-finetuned-sst-2-english")
cases = [
    {key: case[key] for key in ("case", "text", "tokens", "ids", "source")}
    for case in tokenizers
    if case["model"] in UNCASED
]
json.dump(cases, open("tokenizer_bert.json", "w"), indent=1, ensure_ascii=False)
print(len(entries), "values,", len(cases), "tokenizer cases")
