"""Makes checkpoints with random weights in the full size of real models, to see what loads where, how fast, and in how much memory.

    python make.py BERT_TOKENIZER XLMR_TOKENIZER OUTPUT [NAME ...]

BERT_TOKENIZER and XLMR_TOKENIZER are the tokenizer.json of bert-base-uncased and of xlm-roberta-base (or BGE-M3), perhaps gzipped. Needs torch
and safetensors. Names, shapes and number formats are those of the models' own repositories:

    splade   naver/splade-cocondenser-ensembledistil   110M, safetensors f32
    nomic    nomic-ai/nomic-embed-text-v1.5            137M, safetensors f32
    mgte     Alibaba-NLP/gte-multilingual-base         305M, safetensors f16, with its token classifier
    bge-m3   BAAI/bge-m3                               568M, pytorch_model.bin f32, with sparse_linear.pt and colbert_linear.pt
"""

import gzip
import json
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file

torch.manual_seed(0)


def random(*shape):
    return torch.randn(*shape) * 0.02


class Tensors(dict):
    """A state dict under construction."""

    def linear(self, name, outputs, inputs, bias=True):
        self[f"{name}.weight"] = random(outputs, inputs)
        if bias:
            self[f"{name}.bias"] = random(outputs)

    def norm(self, name, width):
        self[f"{name}.weight"] = 1 + random(width)
        self[f"{name}.bias"] = random(width)

    def table(self, name, rows, width):
        self[f"{name}.weight"] = random(rows, width)


def bert(prefix, words, width, inner, layers, positions, types):
    tensors = Tensors()
    tensors.table(f"{prefix}embeddings.word_embeddings", words, width)
    tensors.table(f"{prefix}embeddings.position_embeddings", positions, width)
    tensors.table(f"{prefix}embeddings.token_type_embeddings", types, width)
    tensors.norm(f"{prefix}embeddings.LayerNorm", width)
    for index in range(layers):
        layer = f"{prefix}encoder.layer.{index}"
        for part in ("query", "key", "value"):
            tensors.linear(f"{layer}.attention.self.{part}", width, width)
        tensors.linear(f"{layer}.attention.output.dense", width, width)
        tensors.norm(f"{layer}.attention.output.LayerNorm", width)
        tensors.linear(f"{layer}.intermediate.dense", inner, width)
        tensors.linear(f"{layer}.output.dense", width, inner)
        tensors.norm(f"{layer}.output.LayerNorm", width)
    return tensors


def bert_config(kind, words, width, inner, layers, heads, positions, types, epsilon, **more):
    return {
        "model_type": kind, "vocab_size": words, "hidden_size": width, "intermediate_size": inner, "num_hidden_layers": layers,
        "num_attention_heads": heads, "max_position_embeddings": positions, "type_vocab_size": types, "hidden_act": "gelu",
        "layer_norm_eps": epsilon, **more,
    }


def splade():
    shape = (30522, 768, 3072, 12, 512, 2)
    tensors = bert("bert.", *shape)
    tensors.linear("cls.predictions.transform.dense", 768, 768)
    tensors.norm("cls.predictions.transform.LayerNorm", 768)
    tensors["cls.predictions.bias"] = random(30522) - 0.5
    words, width, inner, layers, positions, types = shape
    config = bert_config("bert", words, width, inner, layers, 12, positions, types, 1e-12, architectures=["BertForMaskedLM"])
    return config, tensors, "bert", {}


def nomic():
    width, inner, layers, words = 768, 3072, 12, 30528
    tensors = Tensors()
    tensors.table("embeddings.word_embeddings", words, width)
    tensors.table("embeddings.token_type_embeddings", 2, width)
    tensors.norm("emb_ln", width)
    for index in range(layers):
        layer = f"encoder.layers.{index}"
        tensors.linear(f"{layer}.attn.Wqkv", 3 * width, width, bias=False)
        tensors.linear(f"{layer}.attn.out_proj", width, width, bias=False)
        for part in ("fc11", "fc12"):
            tensors.linear(f"{layer}.mlp.{part}", inner, width, bias=False)
        tensors.linear(f"{layer}.mlp.fc2", width, inner, bias=False)
        tensors.norm(f"{layer}.norm1", width)
        tensors.norm(f"{layer}.norm2", width)
    config = {
        "model_type": "nomic_bert", "vocab_size": words, "n_embd": width, "n_head": 12, "n_layer": layers, "n_inner": inner,
        "n_positions": 8192, "max_trained_positions": 2048, "type_vocab_size": 2, "layer_norm_epsilon": 1e-12,
        "activation_function": "swiglu", "rotary_emb_base": 1000, "rotary_emb_fraction": 1.0, "rotary_emb_interleaved": False,
        "rotary_emb_scale_base": None, "rotary_scaling_factor": None, "prenorm": False, "use_rms_norm": False,
        "qkv_proj_bias": False, "mlp_fc1_bias": False, "mlp_fc2_bias": False,
    }
    return config, tensors, "bert", {}


def mgte():
    width, inner, layers, words = 768, 3072, 12, 250048
    tensors = Tensors()
    tensors.table("new.embeddings.word_embeddings", words, width)
    tensors.table("new.embeddings.token_type_embeddings", 1, width)
    tensors.norm("new.embeddings.LayerNorm", width)
    for index in range(layers):
        layer = f"new.encoder.layer.{index}"
        tensors.linear(f"{layer}.attention.qkv_proj", 3 * width, width)
        tensors.linear(f"{layer}.attention.o_proj", width, width)
        tensors.norm(f"{layer}.attn_ln", width)
        tensors.linear(f"{layer}.mlp.up_gate_proj", 2 * inner, width, bias=False)
        tensors.linear(f"{layer}.mlp.down_proj", width, inner)
        tensors.norm(f"{layer}.mlp_ln", width)
    tensors.linear("classifier", 1, width)
    config = bert_config(
        "new", words, width, inner, layers, 12, 8192, 1, 1e-12, rope_theta=20000, rope_scaling={"type": "ntk", "factor": 8.0},
        position_embedding_type="rope", pack_qkv=True, layer_norm_type="layer_norm", logn_attention_scale=False,
    )
    return config, Tensors({name: tensor.half() for name, tensor in tensors.items()}), "xlmr", {}


def bge_m3():
    shape = (250002, 1024, 4096, 24, 8194, 1)
    words, width, inner, layers, positions, types = shape
    config = bert_config("xlm-roberta", words, width, inner, layers, 16, positions, types, 1e-5, pad_token_id=1)
    heads = {
        "sparse_linear.pt": {"weight": random(1, width), "bias": random(1)},
        "colbert_linear.pt": {"weight": random(width, width), "bias": random(width)},
    }
    return config, bert("", *shape), "xlmr", heads


MODELS = {"splade": splade, "nomic": nomic, "mgte": mgte, "bge-m3": bge_m3}
STAGES = [("", "Transformer"), ("1_Pooling", "Pooling"), ("2_Normalize", "Normalize")]

if __name__ == "__main__":
    bert_tokenizer, xlmr_tokenizer, output, *names = sys.argv[1:]
    for name in names or MODELS:
        config, tensors, tokenizer, heads = MODELS[name]()
        folder = Path(output) / name
        (folder / "1_Pooling").mkdir(parents=True, exist_ok=True)
        (folder / "config.json").write_text(json.dumps(config))
        source = Path(bert_tokenizer if tokenizer == "bert" else xlmr_tokenizer).read_bytes()
        (folder / "tokenizer.json").write_bytes(gzip.decompress(source) if source[:2] == b"\x1f\x8b" else source)
        if name != "splade":
            stages = [{"path": path, "type": f"sentence_transformers.models.{kind}"} for path, kind in STAGES]
            (folder / "modules.json").write_text(json.dumps(stages))
            pooling = "pooling_mode_mean_tokens" if name == "nomic" else "pooling_mode_cls_token"
            (folder / "1_Pooling" / "config.json").write_text(json.dumps({pooling: True}))
        if heads:
            torch.save(dict(tensors), folder / "pytorch_model.bin")
            for file, head in heads.items():
                torch.save(head, folder / file)
        else:
            save_file(tensors, folder / "model.safetensors")
        print(name, sum(tensor.numel() for tensor in tensors.values()) / 1e6, "million parameters")
