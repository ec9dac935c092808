"""The nemotron-nas decoder in plain torch: every kind of block, llama3 RoPE, tied embeddings.

Parameter names are those of the checkpoint, so that saving and loading is a plain copy.
"""
import math

import torch
import torch.nn as nn
import torch.nn.functional as F


def intermediate_size(mult, hidden):
    n = int(2 * mult * hidden / 3)
    return (n + 255) // 256 * 256


def attention(group=None, linear=False):
    return {"n_heads_in_group": group, "no_op": group is None and not linear, "replace_with_linear": linear}


def ffn(mult=None, linear=False):
    return {"ffn_mult": mult, "no_op": mult is None and not linear, "replace_with_linear": linear}


# The kinds without attention or without a wide FFN stand where they cost least: after the copying heads have found
# their tokens, and between two attentions that feed each other.
SHALLOW = [
    (attention(1), ffn()),
    (attention(1), ffn(linear=True)),
    (attention(2), ffn("narrow")),
    (attention(1), ffn("wide")),
    (attention(1), ffn("narrow")),
    (attention(), ffn("narrow")),
    (attention(linear=True), ffn("narrow")),
]
DEEP = [
    (attention(1), ffn()),
    (attention(1), ffn(linear=True)),
    (attention(2), ffn("narrow")),
    (attention(1), ffn("narrow")),
    (attention(2), ffn("wide")),
    (attention(1), ffn("narrow")),
    (attention(), ffn("wide")),
    (attention(1), ffn("narrow")),
    (attention(2), ffn("wide")),
    (attention(linear=True), ffn("narrow")),
]
PRESETS = {
    # narrow and wide are FFN multipliers
    "cpu": dict(layout=SHALLOW, hidden=128, heads=4, narrow=3.0, wide=6.0),
    "gpu": dict(layout=DEEP, hidden=256, heads=8, narrow=4.5, wide=6.0),
}


def make_config(preset, vocab_size, eos_ids, bos_id):
    p = PRESETS[preset]
    blocks = []
    for a, f in p["layout"]:
        f = dict(f)
        if isinstance(f["ffn_mult"], str):
            f["ffn_mult"] = p[f["ffn_mult"]]
        blocks.append({"attention": dict(a), "ffn": f})
    return {
        "architectures": ["DeciLMForCausalLM"], "model_type": "nemotron-nas",
        "attention_bias": False, "mlp_bias": False, "hidden_act": "silu", "vocab_size": vocab_size,
        "rms_norm_eps": 1e-05, "tie_word_embeddings": True, "torch_dtype": "bfloat16",
        "bos_token_id": bos_id, "eos_token_id": eos_ids,
        "hidden_size": p["hidden"], "num_hidden_layers": len(blocks), "num_attention_heads": p["heads"],
        "num_key_value_heads": None, "intermediate_size": None,
        "max_position_embeddings": 8192, "rope_theta": 500000.0,
        "rope_scaling": {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
                         "original_max_position_embeddings": 1024},
        "block_configs": blocks,
    }


def rope_frequencies(config):
    d = config["hidden_size"] // config["num_attention_heads"]
    s = config["rope_scaling"]
    out = []
    for i in range(d // 2):
        inv = config["rope_theta"] ** (-2 * i / d)
        wave = 2 * math.pi / inv
        low, high = s["low_freq_factor"], s["high_freq_factor"]
        original = s["original_max_position_embeddings"]
        if wave > original / low:
            inv /= s["factor"]
        elif wave >= original / high:
            mix = (original / wave - low) / (high - low)
            inv = inv * ((1 - mix) / s["factor"] + mix)
        out.append(inv)
    return torch.tensor(out, dtype=torch.float64)


def rotate(x, cos, sin):
    a, b = x.chunk(2, dim=-1)
    return torch.cat((a * cos - b * sin, b * cos + a * sin), dim=-1)


class Norm(nn.Module):
    def __init__(self, dim, eps):
        super().__init__()
        self.weight, self.eps = nn.Parameter(torch.ones(dim)), eps

    def forward(self, x):
        return F.rms_norm(x, (x.shape[-1],), self.weight, self.eps)


class Attention(nn.Module):
    def __init__(self, config, spec):
        super().__init__()
        h = config["hidden_size"]
        self.linear = spec["replace_with_linear"]
        if self.linear:
            self.linear_attn = nn.Linear(h, h, bias=False)
            return
        self.heads = config["num_attention_heads"]
        self.kv_heads = self.heads // spec["n_heads_in_group"]
        self.dim = h // self.heads
        self.q_proj = nn.Linear(h, h, bias=False)
        self.k_proj = nn.Linear(h, self.kv_heads * self.dim, bias=False)
        self.v_proj = nn.Linear(h, self.kv_heads * self.dim, bias=False)
        self.o_proj = nn.Linear(h, h, bias=False)

    def forward(self, x, cos, sin, cache=None):
        if self.linear:
            return self.linear_attn(x)
        b, n, h = x.shape
        q = rotate(self.q_proj(x).view(b, n, self.heads, self.dim).transpose(1, 2), cos, sin)
        k = rotate(self.k_proj(x).view(b, n, self.kv_heads, self.dim).transpose(1, 2), cos, sin)
        v = self.v_proj(x).view(b, n, self.kv_heads, self.dim).transpose(1, 2)
        q, k = q.to(v.dtype), k.to(v.dtype)
        if cache is not None:
            if "k" in cache:
                k, v = torch.cat((cache["k"], k), 2), torch.cat((cache["v"], v), 2)
            cache["k"], cache["v"] = k, v
        if self.kv_heads != self.heads:
            group = self.heads // self.kv_heads
            k, v = k.repeat_interleave(group, 1), v.repeat_interleave(group, 1)
        out = F.scaled_dot_product_attention(q, k, v, is_causal=n > 1)
        return self.o_proj(out.transpose(1, 2).reshape(b, n, h))


class Ffn(nn.Module):
    def __init__(self, config, spec):
        super().__init__()
        h = config["hidden_size"]
        self.linear = spec["replace_with_linear"]
        if self.linear:
            self.linear_mlp = nn.Linear(h, h, bias=False)
            return
        n = intermediate_size(spec["ffn_mult"], h)
        self.gate_proj = nn.Linear(h, n, bias=False)
        self.up_proj = nn.Linear(h, n, bias=False)
        self.down_proj = nn.Linear(n, h, bias=False)

    def forward(self, x):
        if self.linear:
            return self.linear_mlp(x)
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class Block(nn.Module):
    def __init__(self, config, spec):
        super().__init__()
        h, eps = config["hidden_size"], config["rms_norm_eps"]
        self.has_attention = not spec["attention"]["no_op"]
        self.has_ffn = not spec["ffn"]["no_op"]
        if self.has_attention:
            self.input_layernorm = Norm(h, eps)
            self.self_attn = Attention(config, spec["attention"])
        if self.has_ffn:
            self.post_attention_layernorm = Norm(h, eps)
            self.mlp = Ffn(config, spec["ffn"])

    def attend(self, x, cos, sin, cache=None):
        return x + self.self_attn(self.input_layernorm(x), cos, sin, cache) if self.has_attention else x

    def feed(self, x):
        return x + self.mlp(self.post_attention_layernorm(x)) if self.has_ffn else x


class Decoder(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.config = config
        h = config["hidden_size"]
        self.model = nn.Module()
        self.model.embed_tokens = nn.Embedding(config["vocab_size"], h)
        self.model.layers = nn.ModuleList(Block(config, spec) for spec in config["block_configs"])
        self.model.norm = Norm(h, config["rms_norm_eps"])
        self.register_buffer("frequencies", rope_frequencies(config), persistent=False)
        for name, p in self.named_parameters():
            if p.dim() == 2:
                nn.init.normal_(p, std=0.06 if "embed" in name else 0.6 * p.shape[1] ** -0.5)
            if any(s in name for s in ("o_proj", "down_proj", "linear_attn", "linear_mlp")):
                nn.init.zeros_(p)

    def rope(self, positions):
        angles = positions.double()[..., None] * self.frequencies
        return angles.cos().float(), angles.sin().float()

    def forward(self, ids, positions=None, pick=None, caches=None):
        """Logits of all positions, or of those that pick (flat indices) names."""
        if positions is None:
            positions = torch.arange(ids.shape[1], device=ids.device)[None]
        cos, sin = self.rope(positions)
        cos, sin = cos[:, None], sin[:, None]
        x = self.model.embed_tokens(ids)
        last = max(i for i, b in enumerate(self.model.layers) if b.has_attention and not b.self_attn.linear)
        for i, block in enumerate(self.model.layers):
            x = block.attend(x, cos, sin, None if caches is None else caches[i])
            if i == last and pick is not None:
                # Behind the last attention tokens no longer meet: only those with a loss go on.
                x = x.reshape(-1, x.shape[-1])[pick]
            x = block.feed(x)
        return F.linear(self.model.norm(x), self.model.embed_tokens.weight)
