"""Makes the small random checkpoints of ../resources/checkpoints with their reference logits.

Run with Python 3, torch and transformers 5 installed:

    python inference/src/test/python/reference_checkpoints.py

Llama's logits come from transformers' LlamaForCausalLM, those of nemotron-nas, for which
transformers has no class, from the plain torch below. Everything is computed in float32 from the
weights as they are stored; what FP8 weights multiply is rounded to e4m3 with the scales that are
stored, and logits-fp8-cache.f32 are those with keys and values rounded likewise. Each folder holds a checkpoint and, in reference/, a seeded sequence
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


def random_weight(name, shape, generator, gain=1.5):
    noise = torch.randn(shape, generator=generator)
    if "norm" in name:
        return 1 + 0.2 * noise
    if "embed" in name:
        return noise
    if name.endswith("bias"):
        return 0.3 * noise
    return noise * gain / math.sqrt(shape[-1])


def write_reference(folder, vocab, seed, logits_of, file="logits.f32"):
    tokens = np.random.default_rng(seed).integers(0, vocab, TOKENS).astype("<i4")
    with torch.no_grad():
        logits = logits_of(torch.tensor(tokens.astype(np.int64)))
    (folder / "reference").mkdir(exist_ok=True)
    tokens.tofile(folder / "reference" / "tokens.i32")
    logits.float().numpy().astype("<f4").tofile(folder / "reference" / file)


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


def nemotron_nas(name, seed, fp8=False):
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
    excluded = ["model.layers.5.", "lm_head"]
    if fp8:
        config["quantization_config"] = dict(
            config_groups=dict(
                group_0=dict(
                    input_activations=dict(dynamic=False, num_bits=8, type="float"),
                    weights=dict(dynamic=False, num_bits=8, type="float"),
                    targets=["Linear"],
                )
            ),
            ignore=["model.layers.5*", "lm_head"],
            quant_algo="FP8",
            kv_cache_scheme=dict(dynamic=False, num_bits=8, type="float"),
            producer=dict(name="modelopt", version="0.29.0"),
            quant_method="modelopt",
        )
    (folder / "config.json").write_text(json.dumps(config, indent=1) + "\n")
    (folder / "generation_config.json").write_text(
        json.dumps(dict(bos_token_id=0, eos_token_id=[2, 1])) + "\n"
    )
    generator = torch.Generator().manual_seed(seed)
    # What FP8 rounds the other way for a tiny difference must not grow from block to block.
    gain = 0.5 if fp8 else 1.5
    weights = {
        n: random_weight(n, shape, generator, gain).to(torch.bfloat16)
        for n, shape in nas_shapes(config)
    }
    if fp8:
        weights = fp8_weights(weights, excluded, config, seed)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    stored = load_file(folder / "model.safetensors")
    if not fp8:
        stored = Weights({n: w.float() for n, w in stored.items()})
        write_reference(
            folder, config["vocab_size"], seed, lambda ids: nas_logits(config, stored, ids)
        )
        return
    for file, fp8_cache in ("logits.f32", False), ("logits-fp8-cache.f32", True):
        w = Fp8(stored, fp8_cache)
        write_reference(
            folder, config["vocab_size"], seed, lambda ids: nas_logits(config, w, ids), file
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
                x = x + times(y, w, p + "self_attn.linear_attn")
            else:
                x = x + nas_attention(config, w, p + "self_attn.", y)
        if not f["no_op"]:
            y = rms_norm(x, w[p + "post_attention_layernorm.weight"], eps)
            if f["replace_with_linear"]:
                x = x + times(y, w, p + "mlp.linear_mlp")
            else:
                gate = times(y, w, p + "mlp.gate_proj")
                up = times(y, w, p + "mlp.up_proj")
                x = x + times(gate * torch.sigmoid(gate) * up, w, p + "mlp.down_proj")
    return rms_norm(x, w["model.norm.weight"], eps) @ w["lm_head.weight"].T


def times(x, w, module):
    return w.input(x, module) @ w[module + ".weight"].T


class Weights(dict):
    """Matrices and vectors in float32 by their names, and what is done to what they multiply."""

    def input(self, x, module):
        return x

    def kept(self, x, scale):
        """Keys or values, as the cache keeps them."""
        return x


class Calibration(Weights):
    """Notes the largest number of each module's input, and of keys and values."""

    def __init__(self, weights):
        super().__init__(weights)
        self.largest = {}

    def input(self, x, module):
        self.largest[module] = x.abs().max()
        return x

    def kept(self, x, scale):
        self.largest[scale] = x.abs().max()
        return x


class Fp8(Weights):
    """Each FP8 matrix times its scale; inputs rounded to e4m3 with the largest scale of a group."""

    def __init__(self, stored, fp8_cache):
        super().__init__()
        self.stored = stored
        self.fp8_cache = fp8_cache
        for name, weight in stored.items():
            scale = stored.get(name.removesuffix(".weight") + ".weight_scale")
            self[name] = weight.float() if scale is None else weight.float() * scale

    def input(self, x, module):
        parent, _, last = module.rpartition(".")
        group = next((g for g in FP8_GROUPS if last in g), (last,))
        names = [f"{parent}.{member}.input_scale" for member in group]
        if names[0] not in self.stored:
            return x
        return rounded(x, torch.stack([self.stored[n].reshape(()) for n in names]).max())

    def kept(self, x, scale):
        return rounded(x, self.stored[scale]) if self.fp8_cache else x


FP8_GROUPS = [("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj")]


def e4m3(x, scale):
    return (x / scale).clamp(-448, 448).to(torch.float8_e4m3fn)


def rounded(x, scale):
    return e4m3(x, scale).float() * scale


def fp8_weights(weights, excluded, config, seed):
    """As Model Optimizer stores them, but scales within a group differ, as they may."""
    weights = {n: w.float() for n, w in weights.items()}
    seen = Calibration(weights)
    ids = np.random.default_rng(seed + 100).integers(0, config["vocab_size"], TOKENS)
    with torch.no_grad():
        nas_logits(config, seen, torch.tensor(ids))
    stored = {}
    for name, weight in weights.items():
        module = name.removesuffix(".weight")
        if module not in seen.largest or any(module.startswith(e) for e in excluded):
            stored[name] = weight.to(torch.bfloat16)
            continue
        scale = weight.abs().max() / 448
        stored[name] = e4m3(weight, scale)
        stored[module + ".weight_scale"] = scale
        stored[module + ".input_scale"] = seen.largest[module] / 448 * (0.8 + len(stored) % 3 / 10)
    for name, largest in seen.largest.items():
        if name.endswith(("k_scale", "v_scale")):
            stored[name] = (largest / 448).reshape(1)
    return stored


def rms_norm(x, weight, eps):
    return x / torch.sqrt((x * x).mean(-1, keepdim=True) + eps) * weight


def nas_attention(config, w, p, y):
    n, heads = y.shape[0], config["num_attention_heads"]
    d = config["hidden_size"] // heads
    q = times(y, w, p + "q_proj").view(n, heads, d).transpose(0, 1)
    k = times(y, w, p + "k_proj").view(n, -1, d).transpose(0, 1)
    v = times(y, w, p + "v_proj").view(n, -1, d).transpose(0, 1)
    angles = torch.arange(n, dtype=torch.float64)[:, None] * llama3_frequencies(config, d)
    cos, sin = angles.cos().float(), angles.sin().float()
    q, k = rotate(q, cos, sin), rotate(k, cos, sin)
    k, v = w.kept(k, p + "k_proj.k_scale"), w.kept(v, p + "v_proj.v_scale")
    k = k.repeat_interleave(heads // k.shape[0], 0)
    v = v.repeat_interleave(heads // v.shape[0], 0)
    scores = q @ k.transpose(1, 2) / math.sqrt(d)
    scores = scores + torch.full((n, n), -math.inf).triu(1)
    out = torch.softmax(scores, -1) @ v
    return times(out.transpose(0, 1).reshape(n, heads * d), w, p + "o_proj")


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
    nemotron_nas("nemotron-nas-fp8", 6, fp8=True)
