#!/usr/bin/env python3
"""Wick's native program beside ONNX Runtime's: the same texts, weights and threads, in alternation.

  python native.py --wick target/release/wick --model DIR --onnx MODELS_DIR/all-MiniLM-L6-v2 [--rounds 5]

ONNX Runtime gets the same care as in the browser: the tokenizers library, padding to the longest of a call, mean pooling in NumPy; W5 sorted by
length and 32 a call, which is where it is fastest. Needs: onnxruntime, tokenizers, numpy.
"""
import argparse, json, os, statistics, subprocess, tempfile, time

import numpy, onnxruntime, tokenizers

HERE = os.path.dirname(os.path.abspath(__file__))
FILES = {"f32": "onnx/model.onnx", "int8": "onnx/model_quantized.onnx"}
MODES = {"W1": 1, "W2": None, "W3": None, "W4": None, "W5": 32}


class Peer:
    def __init__(self, folder, dtype, threads):
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        self.session = onnxruntime.InferenceSession(f"{folder}/{FILES[dtype]}", options, providers=["CPUExecutionProvider"])
        self.tokenizer = tokenizers.Tokenizer.from_file(f"{folder}/tokenizer.json")
        self.tokenizer.enable_padding()
        self.tokenizer.enable_truncation(256)
        self.inputs = [i.name for i in self.session.get_inputs()]

    def encode(self, texts):
        encodings = self.tokenizer.encode_batch(texts)
        mask = numpy.array([e.attention_mask for e in encodings])
        values = {"input_ids": numpy.array([e.ids for e in encodings]), "attention_mask": mask, "token_type_ids": numpy.zeros_like(mask)}
        hidden = self.session.run(None, {name: values[name] for name in self.inputs})[0]
        pooled = (hidden * mask[:, :, None]).sum(1) / mask.sum(1)[:, None]
        return pooled / numpy.linalg.norm(pooled, axis=1, keepdims=True)

    def measure(self, texts, batch):
        """Milliseconds for all texts, and the median for a call."""
        calls = []
        for at in range(0, len(texts), batch):
            start = time.perf_counter()
            self.encode(texts[at:at + batch])
            calls.append((time.perf_counter() - start) * 1e3)
        return sum(calls), statistics.median(calls)


def main():
    options = argparse.ArgumentParser()
    options.add_argument("--wick", required=True)
    options.add_argument("--model", required=True)
    options.add_argument("--onnx", required=True)
    options.add_argument("--rounds", type=int, default=5)
    options = options.parse_args()
    workloads = json.load(open(f"{HERE}/workloads.json"))["workloads"]
    print("| threads | | " + " | ".join(MODES) + " |\n| --- | --- |" + " --- |" * len(MODES))
    for dtype in FILES:
        for threads in (1, 2):
            os.environ["TOKENIZERS_PARALLELISM"] = "true" if threads > 1 else "false"
            peer = Peer(options.onnx, dtype, threads)
            ours, theirs = {}, {}
            for mode, batch in MODES.items():
                texts = workloads[mode]["texts"]
                by_length = sorted(texts, key=len) if mode == "W5" else texts
                with tempfile.NamedTemporaryFile("w", suffix=".jsonl") as lines:
                    lines.writelines(json.dumps(text) + "\n" for text in texts)
                    lines.flush()
                    command = [options.wick, "bench", "--model", options.model, "--input", lines.name, "--json", "--rounds", "1",
                               "--threads", str(threads), "--dtype", dtype] + (["--batch", "1"] if batch == 1 else [])
                    peer.measure(by_length, batch or len(texts))
                    for _ in range(options.rounds):
                        told = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
                        ours.setdefault(mode, []).append((told["round_ms"], told["call_ms"]))
                        theirs.setdefault(mode, []).append(peer.measure(by_length, batch or len(texts)))
            def cell(times, mode):
                whole, call = (statistics.median(t[i] for t in times[mode]) for i in (0, 1))
                return call if mode == "W1" else workloads[mode]["tokens"] / whole * 1e3
            mine, other = ({mode: cell(times, mode) for mode in MODES} for times in (ours, theirs))
            for name, cells in (("Wick", mine), ("ONNX Runtime", other)):
                print(f"| {threads} | {name} {dtype} | " + " | ".join(f"{v:.2f} ms" if m == "W1" else f"{v:.0f}" for m, v in cells.items()) + " |")
            ratio = {m: other[m] / mine[m] if m == "W1" else mine[m] / other[m] for m in MODES}
            print(f"| {threads} | {dtype}: times as fast | " + " | ".join(f"{v:.2f}" for v in ratio.values()) + " |", flush=True)


if __name__ == "__main__":
    main()
