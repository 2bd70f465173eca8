"""Reference of the multi-token-prediction (MTP) layer: our own module, held against transformers'.

`Mtp` is written from the equations of the DeepSeek-V3 technical report (sections 2.1 and 2.2) in float64 and shares no
code with transformers: rotation by complex numbers, attention in MLA's expanded form, experts one by one. It computes
the main model as well, since the layer starts from its last hidden states. transformers' `MtpModel` is a published
implementation that others run the released weights with; the two have to agree before anything is written.

The order of eh_proj's input (embedding first) and the final norm under hnorm are theirs; `write_reference` shows that
either other choice moves the result far.
"""
import contextlib
import json
import math

import torch
import transformers
from safetensors.torch import load_file
from transformers.cache_utils import MtpCache
from transformers.modeling_layers import MtpModel


def rms(x, w, eps):
    return x / torch.sqrt((x * x).mean(-1, keepdim=True) + eps) * w


class Mtp(torch.nn.Module):
    """Main model and MTP layer of a checkpoint folder; `forward` gives the draft's log-probabilities per row."""

    def __init__(self, folder, embedding_first=True, final_norm=True):
        super().__init__()
        self.cfg = json.loads((folder / "config.json").read_text())
        self.w = {k: v.double() for k, v in load_file(folder / "model.safetensors").items()}
        self.embedding_first, self.final_norm = embedding_first, final_norm
        self.inv_freq, self.mscale = self.yarn()

    def yarn(self):
        s, dim, base = self.cfg["rope_scaling"], self.cfg["qk_rope_head_dim"], self.cfg["rope_theta"]
        inv = base ** (-torch.arange(0, dim, 2, dtype=torch.float64) / dim)

        def pair(turns):
            return dim * math.log(s["original_max_position_embeddings"] / (turns * 2 * math.pi)) / (2 * math.log(base))

        low, high = max(math.floor(pair(s["beta_fast"])), 0), min(math.ceil(pair(s["beta_slow"])), dim - 1)
        ramp = ((torch.arange(dim // 2, dtype=torch.float64) - low) / max(high - low, 0.001)).clamp(0, 1)
        return inv / s["factor"] * ramp + inv * (1 - ramp), 0.1 * s["mscale_all_dim"] * math.log(s["factor"]) + 1

    def norm(self, x, name):
        return rms(x, self.w[name + ".weight"], self.cfg["rms_norm_eps"])

    def linear(self, x, name):
        return x @ self.w[name + ".weight"].T

    def rotate(self, x, position):
        """x [..., rows, dim]: adjacent pairs turn by position · frequency."""
        z = torch.view_as_complex(x.unflatten(-1, (-1, 2)).contiguous())
        turn = torch.exp(1j * (position.double()[:, None] * self.inv_freq))
        return torch.view_as_real(z * turn).flatten(-2)

    def attention(self, x, p, position):
        c = self.cfg
        h, nope, rope, v, rank = (c[k] for k in ("num_attention_heads", "qk_nope_head_dim", "qk_rope_head_dim",
                                                 "v_head_dim", "kv_lora_rank"))
        q = self.linear(self.norm(self.linear(x, p + "q_a_proj"), p + "q_a_layernorm"), p + "q_b_proj")
        q = q.unflatten(-1, (h, nope + rope)).transpose(0, 1)
        kv = self.linear(x, p + "kv_a_proj_with_mqa")
        latent, k_pe = self.norm(kv[:, :rank], p + "kv_a_layernorm"), self.rotate(kv[:, rank:], position)
        up = self.linear(latent, p + "kv_b_proj").unflatten(-1, (h, nope + v)).transpose(0, 1)
        k = torch.cat([up[..., :nope], k_pe.expand(h, -1, -1)], -1)
        q = torch.cat([q[..., :nope], self.rotate(q[..., nope:], position)], -1)
        score = q @ k.transpose(1, 2) * (nope + rope) ** -0.5 * self.mscale ** 2
        score = score.masked_fill(torch.ones(score.shape[1:]).triu(1).bool(), -torch.inf)
        return self.linear((score.softmax(-1) @ up[..., nope:]).transpose(0, 1).flatten(1), p + "o_proj")

    def mlp(self, x, p):
        gate = self.linear(x, p + "gate_proj")
        return self.linear(gate * gate.sigmoid() * self.linear(x, p + "up_proj"), p + "down_proj")

    def experts(self, x, p):
        c, out = self.cfg, []
        bias = self.w[p + "gate.e_score_correction_bias"]
        for row in x:
            score = self.linear(row, p + "gate").sigmoid()
            group = (score + bias).view(c["n_group"], -1)
            kept = group.topk(2, -1)[0].sum(-1).topk(c["topk_group"])[1]
            choice = torch.full_like(group, -torch.inf)
            choice[kept] = group[kept]
            chosen = choice.flatten().topk(c["num_experts_per_tok"])[1]
            weight = score[chosen] / (score[chosen].sum() + 1e-20) * c["routed_scaling_factor"]
            out.append(sum(g * self.mlp(row, f"{p}experts.{e}.") for e, g in zip(chosen.tolist(), weight))
                       + self.mlp(row, p + "shared_experts."))
        return torch.stack(out)

    def block(self, x, i, position):
        p = f"model.layers.{i}."
        x = x + self.attention(self.norm(x, p + "input_layernorm"), p + "self_attn.", position)
        h = self.norm(x, p + "post_attention_layernorm")
        dense = i < self.cfg["first_k_dense_replace"]
        return x + (self.mlp(h, p + "mlp.") if dense else self.experts(h, p + "mlp."))

    def forward(self, ids):
        n, ids = self.cfg["num_hidden_layers"], torch.tensor(ids)
        position, p = torch.arange(len(ids)), f"model.layers.{n}."
        x = self.w["model.embed_tokens.weight"][ids]
        for i in range(n):
            x = self.block(x, i, position)
        hidden = (self.norm(x, "model.norm") if self.final_norm else x)[:-1]
        pair = [self.norm(self.w["model.embed_tokens.weight"][ids[1:]], p + "enorm"), self.norm(hidden, p + "hnorm")]
        x = self.linear(torch.cat(pair if self.embedding_first else pair[::-1], -1), p + "eh_proj")
        x = self.norm(self.block(x, n, position[:-1]), p + "shared_head.norm")
        return self.linear(x, "lm_head").log_softmax(-1)


@contextlib.contextmanager
def layer_expected(cfg):
    """transformers knows the MTP layer of a DeepSeek-V3 by its number, 61; here it is another."""
    cls = transformers.DeepseekV3ForCausalLM
    before = cls._keys_to_ignore_on_load_unexpected
    cls._keys_to_ignore_on_load_unexpected = [rf"model\.layers\.{cfg['num_hidden_layers']}.*"]
    try:
        yield
    finally:
        cls._keys_to_ignore_on_load_unexpected = before


def published(main, ids):
    """The draft's log-probabilities of transformers' MtpModel, given all ids at once."""
    layer = MtpModel.from_pretrained(main).eval().to(torch.float32)
    with torch.no_grad():
        hidden = main(torch.tensor([ids]), use_cache=False, output_hidden_states=True).hidden_states[-1]
        cache = MtpCache(config=main.config.get_mtp_config())
        out = layer.forward_layer(0, hidden[:, :-1], torch.arange(1, len(ids))[None], cache,
                                  input_ids=torch.tensor([ids[1:]]))
        return torch.log_softmax(layer._project_to_logits(out)[0], -1)


def write_reference(path, files, folder, main, prompts, top, tolerance):
    ours, out, apart = Mtp(folder), [], 0.0
    others = {"hidden state first": Mtp(folder, embedding_first=False), "no final norm": Mtp(folder, final_norm=False)}
    for prompt in prompts:
        ids = prompt["tokens"]
        lp, theirs = ours(ids), published(main, ids)
        apart = max(apart, (lp - theirs.double()).abs().max().item())
        rows = {}
        for r in (int(r) for r in prompt["rows"] if int(r) < len(ids) - 1):
            v, i = lp[r].topk(top)
            rows[str(r)] = [[int(a), round(float(b), 6)] for a, b in zip(i, v)]
        for name, module in others.items():
            moved = (module(ids) - lp).abs().max().item()
            print(f"    {len(ids)} ids, {name}: {moved:.3g}")
            assert moved > 1000 * tolerance, name
        out.append({"tokens": ids, "rows": rows})
    print(f"    largest difference from transformers' MtpModel: {apart:.1e}")
    assert apart < tolerance / 2  # over the whole vocabulary, one in float32
    head = {"name": folder.name, "architecture": "deepseek-v3", "files": list(files), "formats": files,
            "reference": f"tools/golden/mtp.py in float64; transformers {transformers.__version__} MtpModel within {apart:.1e}",
            "tolerance": tolerance, "prompts": out}
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(head, ensure_ascii=False, separators=(",", ":"))
    path.write_text(text.replace('"prompts":[', '"prompts":[\n').replace('},{"tokens"', '},\n{"tokens"') + "\n")
