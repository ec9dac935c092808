"""Makes the small random checkpoints of ../resources/checkpoints with their reference logits.

Run with Python 3, torch and transformers 5 installed:

    python inference/src/test/python/reference_checkpoints.py

Llama's logits come from transformers' LlamaForCausalLM, those of nemotron-nas, for which
transformers has no class, from the plain torch below. Everything is computed in float32 from the
weights as they are stored. Each folder holds a checkpoint and, in reference/, a seeded sequence
(tokens.i32) and the logits after each of its tokens (logits.f32, [tokens, vocabulary]), both raw
and little-endian.
"""

import json
import math
import shutil
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from transformers import LlamaConfig, LlamaForCausalLM

OUT = Path(__file__).resolve().parent.parent / "resources" / "checkpoints"
TOKENS = 200
LLAMA3 = dict(
    rope_type="llama3",
    factor=8.0,
    low_freq_factor=1.0,
    high_freq_factor=4.0,
    original_max_position_embeddings=64,
)
YARN = dict(
    rope_type="yarn",
    factor=8.0,
    original_max_position_embeddings=64,
    beta_fast=4.0,
    beta_slow=1.0,
)


def randomise(model, seed):
    """Weights large enough that attention is sharp and logits differ."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, p in model.named_parameters():
            p.copy_(random_weight(name, p.shape, generator))


def random_weight(name, shape, generator):
    noise = torch.randn(shape, generator=generator)
    if "norm" in name:
        return 1 + 0.2 * noise
    if "embed" in name:
        return noise
    if name.endswith("bias"):
        return 0.3 * noise
    return noise * 1.5 / math.sqrt(shape[-1])


def write_reference(folder, vocab, seed, logits_of):
    tokens = np.random.default_rng(seed).integers(0, vocab, TOKENS).astype("<i4")
    with torch.no_grad():
        logits = logits_of(torch.tensor(tokens.astype(np.int64)))
    (folder / "reference").mkdir()
    tokens.tofile(folder / "reference" / "tokens.i32")
    logits.float().numpy().astype("<f4").tofile(folder / "reference" / "logits.f32")


def fresh(name):
    folder = OUT / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def llama(name, seed, dtype, shard="1GB", old_config=False, **config):
    folder = fresh(name)
    base = dict(
        vocab_size=80,
        hidden_size=72,
        intermediate_size=88,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=16,
        max_position_embeddings=512,
        rms_norm_eps=1e-5,
        bos_token_id=0,
        eos_token_id=[1, 2],
    )
    model = LlamaForCausalLM(LlamaConfig(**{**base, **config}))
    randomise(model, seed)
    model.to(dtype).save_pretrained(folder, max_shard_size=shard)
    if old_config:
        rewrite_as_older_versions(folder / "config.json")
    model = LlamaForCausalLM.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager"
    )
    write_reference(
        folder, base["vocab_size"], seed, lambda ids: model(ids[None]).logits[0]
    )


def rewrite_as_older_versions(path):
    """rope_theta and rope_scaling instead of rope_parameters, torch_dtype instead of dtype."""
    config = json.loads(path.read_text())
    rope = config.pop("rope_parameters")
    config["rope_theta"] = rope.pop("rope_theta")
    config["rope_scaling"] = rope
    config["torch_dtype"] = config.pop("dtype")
    path.write_text(json.dumps(config, indent=2) + "\n")


def attention(kv_group):
    return dict(n_heads_in_group=kv_group, no_op=False, replace_with_linear=False)


def feed_forward(mult):
    return dict(ffn_mult=mult, no_op=False, replace_with_linear=False)


ATTENTION_LINEAR = dict(n_heads_in_group=None, no_op=False, replace_with_linear=True)
ATTENTION_ABSENT = dict(n_heads_in_group=None, no_op=True, replace_with_linear=False)
FFN_LINEAR = dict(ffn_mult=None, no_op=False, replace_with_linear=True)
FFN_ABSENT = dict(ffn_mult=None, no_op=True, replace_with_linear=False)

NAS_BLOCKS = [
    (attention(2), feed_forward(1.0)),
    (ATTENTION_LINEAR, feed_forward(8.0)),
    (attention(4), FFN_LINEAR),
    (ATTENTION_ABSENT, feed_forward(0.5)),
    (attention(1), FFN_ABSENT),
    (ATTENTION_LINEAR, FFN_LINEAR),
    (ATTENTION_ABSENT, FFN_ABSENT),
    (attention(2), feed_forward(2.0)),
]


def nemotron_nas(name, seed):
    folder = fresh(name)
    config = dict(
        architectures=["DeciLMForCausalLM"],
        model_type="nemotron-nas",
        attention_bias=False,
        mlp_bias=False,
        hidden_act="silu",
        vocab_size=80,
        hidden_size=64,
        num_hidden_layers=len(NAS_BLOCKS),
        num_attention_heads=4,
        num_key_value_heads=None,
        intermediate_size=None,
        max_position_embeddings=512,
        rms_norm_eps=1e-5,
        rope_theta=10000.0,
        rope_scaling=LLAMA3,
        tie_word_embeddings=False,
        torch_dtype="bfloat16",
        bos_token_id=0,
        eos_token_id=1,
        block_configs=[dict(attention=a, ffn=f) for a, f in NAS_BLOCKS],
    )
    (folder / "config.json").write_text(json.dumps(config, indent=1) + "\n")
    (folder / "generation_config.json").write_text(
        json.dumps(dict(bos_token_id=0, eos_token_id=[2, 1])) + "\n"
    )
    generator = torch.Generator().manual_seed(seed)
    weights = {
        n: random_weight(n, shape, generator).to(torch.bfloat16)
        for n, shape in nas_shapes(config)
    }
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    stored = {n: w.float() for n, w in load_file(folder / "model.safetensors").items()}
    write_reference(
        folder, config["vocab_size"], seed, lambda ids: nas_logits(config, stored, ids)
    )


def nas_width(config, ffn):
    n = int(2 * ffn["ffn_mult"] * config["hidden_size"] / 3)
    return (n + 255) // 256 * 256


def nas_shapes(config):
    h, heads = config["hidden_size"], config["num_attention_heads"]
    d = h // heads
    yield "model.embed_tokens.weight", (config["vocab_size"], h)
    for i, block in enumerate(config["block_configs"]):
        p = f"model.layers.{i}."
        a, f = block["attention"], block["ffn"]
        if not a["no_op"]:
            yield p + "input_layernorm.weight", (h,)
            if a["replace_with_linear"]:
                yield p + "self_attn.linear_attn.weight", (h, h)
            else:
                kv = heads // a["n_heads_in_group"] * d
                yield p + "self_attn.q_proj.weight", (heads * d, h)
                yield p + "self_attn.k_proj.weight", (kv, h)
                yield p + "self_attn.v_proj.weight", (kv, h)
                yield p + "self_attn.o_proj.weight", (h, heads * d)
        if not f["no_op"]:
            yield p + "post_attention_layernorm.weight", (h,)
            if f["replace_with_linear"]:
                yield p + "mlp.linear_mlp.weight", (h, h)
            else:
                width = nas_width(config, f)
                yield p + "mlp.gate_proj.weight", (width, h)
                yield p + "mlp.up_proj.weight", (width, h)
                yield p + "mlp.down_proj.weight", (h, width)
    yield "model.norm.weight", (h,)
    yield "lm_head.weight", (config["vocab_size"], h)


def nas_logits(config, w, ids):
    """The network, plainly: a part that is absent has neither norm nor residual connection."""
    eps = config["rms_norm_eps"]
    x = w["model.embed_tokens.weight"][ids]
    for i, block in enumerate(config["block_configs"]):
        p = f"model.layers.{i}."
        a, f = block["attention"], block["ffn"]
        if not a["no_op"]:
            y = rms_norm(x, w[p + "input_layernorm.weight"], eps)
            if a["replace_with_linear"]:
                x = x + y @ w[p + "self_attn.linear_attn.weight"].T
            else:
                x = x + nas_attention(config, w, p + "self_attn.", y)
        if not f["no_op"]:
            y = rms_norm(x, w[p + "post_attention_layernorm.weight"], eps)
            if f["replace_with_linear"]:
                x = x + y @ w[p + "mlp.linear_mlp.weight"].T
            else:
                gate = y @ w[p + "mlp.gate_proj.weight"].T
                up = y @ w[p + "mlp.up_proj.weight"].T
                x = x + (gate * torch.sigmoid(gate) * up) @ w[p + "mlp.down_proj.weight"].T
    return rms_norm(x, w["model.norm.weight"], eps) @ w["lm_head.weight"].T


def rms_norm(x, weight, eps):
    return x / torch.sqrt((x * x).mean(-1, keepdim=True) + eps) * weight


def nas_attention(config, w, p, y):
    n, heads = y.shape[0], config["num_attention_heads"]
    d = config["hidden_size"] // heads
    q = (y @ w[p + "q_proj.weight"].T).view(n, heads, d).transpose(0, 1)
    k = (y @ w[p + "k_proj.weight"].T).view(n, -1, d).transpose(0, 1)
    v = (y @ w[p + "v_proj.weight"].T).view(n, -1, d).transpose(0, 1)
    angles = torch.arange(n, dtype=torch.float64)[:, None] * llama3_frequencies(config, d)
    cos, sin = angles.cos().float(), angles.sin().float()
    q, k = rotate(q, cos, sin), rotate(k, cos, sin)
    k = k.repeat_interleave(heads // k.shape[0], 0)
    v = v.repeat_interleave(heads // v.shape[0], 0)
    scores = q @ k.transpose(1, 2) / math.sqrt(d)
    scores = scores + torch.full((n, n), -math.inf).triu(1)
    out = torch.softmax(scores, -1) @ v
    return out.transpose(0, 1).reshape(n, heads * d) @ w[p + "o_proj.weight"].T


def rotate(x, cos, sin):
    a, b = x.chunk(2, -1)
    return torch.cat([a * cos - b * sin, b * cos + a * sin], -1)


def llama3_frequencies(config, d):
    rope = config["rope_scaling"]
    low, high = rope["low_freq_factor"], rope["high_freq_factor"]
    original = rope["original_max_position_embeddings"]
    frequencies = []
    for i in range(d // 2):
        f = config["rope_theta"] ** (-2 * i / d)
        turns = original * f / (2 * math.pi)
        keep = min(max((turns - low) / (high - low), 0), 1)
        frequencies.append(f * keep + f / rope["factor"] * (1 - keep))
    return torch.tensor(frequencies, dtype=torch.float64)


if __name__ == "__main__":
    llama("llama-plain-bf16", 1, torch.bfloat16, num_key_value_heads=4)
    llama(
        "llama-llama3-f32-tied",
        2,
        torch.float32,
        old_config=True,
        num_key_value_heads=1,
        head_dim=32,
        tie_word_embeddings=True,
        rope_parameters=dict(LLAMA3, rope_theta=500.0),
    )
    llama(
        "llama-yarn-f16-sharded",
        3,
        torch.float16,
        shard="60KB",
        rope_parameters=dict(YARN, rope_theta=500.0),
    )
    llama(
        "llama-biases-bf16",
        4,
        torch.bfloat16,
        hidden_size=64,
        attention_bias=True,
        mlp_bias=True,
        rope_parameters=dict(rope_type="default", rope_theta=3565775107.2609234),
    )
    nemotron_nas("nemotron-nas-bf16", 5)
