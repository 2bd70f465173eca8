"""A Q8_0 GGUF, without a tokenizer, of a BERT folder in safetensors: encoders_q8.py FOLDER OUT. Needs numpy and gguf."""
import json
import pathlib
import struct
import sys

import gguf
import numpy as np

DTYPES = {"F32": np.float32, "F16": np.float16}
NAMES = {"embeddings.word_embeddings": "token_embd", "embeddings.position_embeddings": "position_embd",
         "embeddings.token_type_embeddings": "token_types", "embeddings.LayerNorm": "token_embd_norm"}
PARTS = {"attention.self.query": "attn_q", "attention.self.key": "attn_k", "attention.self.value": "attn_v",
         "attention.output.dense": "attn_output", "attention.output.LayerNorm": "attn_output_norm",
         "intermediate.dense": "ffn_up", "output.dense": "ffn_down", "output.LayerNorm": "layer_output_norm"}


def tensors(path):
    raw = path.read_bytes()
    n = struct.unpack("<Q", raw[:8])[0]
    for name, t in json.loads(raw[8:8 + n]).items():
        if name != "__metadata__" and t["dtype"] in DTYPES:
            begin, end = t["data_offsets"]
            yield name.removeprefix("bert."), np.frombuffer(raw[8 + n + begin:8 + n + end], DTYPES[t["dtype"]]).reshape(t["shape"])


def main():
    folder, out = pathlib.Path(sys.argv[1]), sys.argv[2]
    c = json.loads((folder / "config.json").read_text())
    w = gguf.GGUFWriter(out, "bert")
    w.add_context_length(c["max_position_embeddings"])
    w.add_embedding_length(c["hidden_size"])
    w.add_block_count(c["num_hidden_layers"])
    w.add_feed_forward_length(c["intermediate_size"])
    w.add_head_count(c["num_attention_heads"])
    w.add_layer_norm_eps(c["layer_norm_eps"])
    w.add_causal_attention(False)
    w.add_pooling_type(gguf.PoolingType.MEAN)
    names = dict(NAMES)
    for i in range(c["num_hidden_layers"]):
        names.update({f"encoder.layer.{i}.{k}": f"blk.{i}.{v}" for k, v in PARTS.items()})
    for name, value in tensors(folder / "model.safetensors"):
        base, end = name.rsplit(".", 1)
        if base not in names:
            continue
        value = value.astype(np.float32)
        if value.ndim == 2 and "embeddings" not in base:
            kind = gguf.GGMLQuantizationType.Q8_0
            w.add_tensor(f"{names[base]}.{end}", gguf.quants.quantize(value, kind), raw_dtype=kind)
        else:
            w.add_tensor(f"{names[base]}.{end}", value)
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()


if __name__ == "__main__":
    main()
