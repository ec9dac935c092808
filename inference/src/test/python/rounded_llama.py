"""A Llama in float32 on weights of bf16, plainly, that rounds what it is told to round.

With nothing rounded it is the network of transformers. `Rounding` says what FP8 changes of it, what
an engine that keeps bfloat16 between its operations changes besides, and some faults.
"""

import json
import math
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from transformers import AutoConfig
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

LARGEST = 448.0
GROUPS = {
    "qkv": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    "o": ("self_attn.o_proj",),
    "gate_up": ("mlp.gate_proj", "mlp.up_proj"),
    "down": ("mlp.down_proj",),
}
NORMS = ("input_layernorm", "post_attention_layernorm")
OF_A_LAYER = NORMS + tuple(name for group in GROUPS.values() for name in group)


@dataclass(frozen=True)
class Rounding:
    """What is rounded.

    weights, inputs: of linear layers, to e4m3. A group of weights that read one input has one
    scale; a row of inputs has its own.
    kept: keys and values as the cache keeps them, to e4m3 with a scale of 1.
    narrow: what Hopper's prefill over such a cache rounds, to e4m3: queries by their own largest
    number, and the weights of attention, times 256 and relative to the largest of their own, of
    `tile` positions after another.
    bf16: what our engine keeps in memory between its operations on a card: among these are results
    of products before they are multiplied by the scales of their rows, and the weights of attention,
    relative to the largest so far, of `tile` positions after another (to halves where keys and
    values are e4m3).
    parts: each sum over inputs is that of so many, which come to another order of the same.
    whole_scale: a fault, one scale for all rows of an input.
    off: a fault, weights' scales are so many times what they should be, in the product alone.
    """

    weights: bool = False
    inputs: bool = False
    kept: bool = False
    narrow: bool = False
    bf16: bool = False
    tile: int = 128
    parts: int = 1
    whole_scale: bool = False
    off: float = 1.0


def e4m3(x):
    return x.clamp(-LARGEST, LARGEST).to(torch.float8_e4m3fn).to(x.dtype)


def e4m3_scale(largest):
    return (largest / LARGEST).clamp_min(torch.finfo(torch.float32).tiny)


def bf16(x):
    return x.to(torch.bfloat16).to(x.dtype)


class MadeUp:
    """The weights of the Java class DampedWeights by their names, each made when it is asked for."""

    SEED = 5
    EMBEDDING = 2

    def __init__(self, config):
        h, d, wide = config.hidden_size, config.head_dim, config.intermediate_size
        q, kv = config.num_attention_heads * d, config.num_key_value_heads * d
        self.damping = 1 / math.sqrt(2 * config.num_hidden_layers)
        self.hidden = h
        self.shapes = {"embed_tokens": (config.vocab_size, h), "lm_head": (config.vocab_size, h)}
        self.shapes |= {"q_proj": (q, h), "k_proj": (kv, h), "v_proj": (kv, h), "o_proj": (h, q)}
        self.shapes |= {"gate_proj": (wide, h), "up_proj": (wide, h), "down_proj": (h, wide)}

    def __getitem__(self, name):
        last = name.split(".")[-2]
        if "norm" in last:
            return torch.ones(self.hidden)
        rows, columns = self.shapes[last]
        spread = math.sqrt(3) * self.EMBEDDING if last == "embed_tokens" else math.sqrt(3 / columns)
        if last in ("o_proj", "down_proj"):
            spread *= self.damping
        numbers = torch.from_numpy(self.numbers(name, rows * columns)).reshape(rows, columns)
        if last in ("embed_tokens", "lm_head"):
            return (numbers * np.float32(spread)).to(torch.bfloat16)
        return e4m3(numbers * LARGEST) * (np.float32(spread) / np.float32(LARGEST))

    def numbers(self, name, count):
        """In [-1, 1): as RandomNumbers, SplitMix64 of seed and index."""
        hashed = 0
        for letter in name:
            hashed = (hashed * 31 + ord(letter)) & 0xFFFFFFFF
        hashed -= (hashed & 0x80000000) << 1
        out = np.empty(count, dtype=np.float32)
        with np.errstate(over="ignore"):
            for start in range(0, count, 1 << 18):
                end = min(count, start + (1 << 18))
                z = np.arange(start + 1, end + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
                z += np.uint64((self.SEED * 31 + hashed) & 0xFFFFFFFFFFFFFFFF)
                z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
                z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
                z ^= z >> np.uint64(31)
                out[start:end] = (z.view(np.int64) >> np.int64(40)) * np.float32(2.0**-23)
        return out


class Llama:
    """
    weights: in float or bf16 by their names in a checkpoint, all on one device.
    """

    def __init__(self, config_file, weights):
        self.config = AutoConfig.from_pretrained(config_file)
        self.weights = weights
        self.device = weights["model.norm.weight"].device
        self.rotary = LlamaRotaryEmbedding(self.config).to(self.device)
        self.layer = {}
        self.codes = {}

    def logits(self, tokens, rounding=Rounding(), visit=None):
        """[positions, vocabulary] in float32; visit(layer, state) sees what enters each layer."""
        return self.all_logits(tokens, [rounding], visit)[0]

    def all_logits(self, tokens, roundings, visit=None):
        """The logits of several, of which the first one's states are visited."""
        with torch.inference_mode():
            tokens = tokens.to(self.device)
            state = self.weights["model.embed_tokens.weight"][tokens].float()
            angles = self.rotary(state[None], torch.arange(len(tokens), device=self.device)[None])
            angles = [a[0].float() for a in angles]
            states = [state] * len(roundings)
            for layer in range(self.config.num_hidden_layers):
                if visit:
                    visit(layer, states[0])
                at = f"model.layers.{layer}."
                self.layer = {n: self.weights[at + n + ".weight"].float() for n in OF_A_LAYER}
                self.codes = {}
                states = [self.block(layer, s, angles, r) for s, r in zip(states, roundings)]
            final = self.weights["model.norm.weight"].float()
            head = self.weights["lm_head.weight"].float()
            return [
                self.product(self.round(self.norm(final, s), r), head, r)
                for s, r in zip(states, roundings)
            ]

    def block(self, layer, state, angles, r):
        normed = self.norm(self.layer["input_layernorm"], state)
        q, k, v = self.linear("qkv", normed, r)
        (attended,) = self.linear("o", self.attention(q, k, v, angles, r), r)
        state = self.round(state + attended, r)
        normed = self.norm(self.layer["post_attention_layernorm"], state)
        gate, up = self.linear("gate_up", normed, r)
        (delta,) = self.linear("down", F.silu(gate) * up, r)
        if layer == self.config.num_hidden_layers - 1:
            delta = self.round(delta, r)  # nothing that reads it multiplies it by its rows' scales
        return self.round(state + delta, r)

    def attention(self, q, k, v, angles, r):
        size = self.config.head_dim
        q, k, v = (x.view(len(x), -1, size).transpose(0, 1) for x in (q, k, v))
        q, k = self.round(turned(q, angles), r), turned(k, angles)
        if r.narrow:
            scales = e4m3_scale(q.abs().amax(-1, keepdim=True))
            q = e4m3(q * (1 / scales)) * scales
        k, v = (e4m3(k), e4m3(v)) if r.kept else (self.round(k, r), self.round(v, r))
        shared = q.shape[0] // k.shape[0]
        k, v = k.repeat_interleave(shared, 0), v.repeat_interleave(shared, 0)
        n = q.shape[1]
        hidden = torch.ones(n, n, dtype=torch.bool, device=q.device).triu(1)
        scores = (q @ k.transpose(1, 2) / math.sqrt(size)).masked_fill(hidden, -math.inf)
        out = self.weighted(scores, v, r) if r.bf16 or r.narrow else torch.softmax(scores, -1) @ v
        return self.round(out.transpose(0, 1).reshape(n, -1), r)

    @staticmethod
    def weighted(scores, v, r):
        """softmax(scores) @ v, tile after tile."""
        largest = torch.full_like(scores[..., :1], -math.inf)
        total = values = 0.0
        for s, part in zip(scores.split(r.tile, -1), v.split(r.tile, 1)):
            own = s.amax(-1, keepdim=True)
            before, largest = largest, torch.maximum(largest, own)
            shrink = torch.exp(before - largest)
            if r.narrow:
                own = own.clamp(min=-1e30)  # of a row that sees nothing of the tile
                p = e4m3(torch.exp(s - own) * 256) / 256 * torch.exp(own - largest)
            else:
                p = torch.exp(s - largest)
            total = total * shrink + p.sum(-1, keepdim=True)
            if not r.narrow:
                p = p.to(torch.half if r.kept else torch.bfloat16).float()
            values = values * shrink + p @ part
        return values / total

    def linear(self, group, x, r):
        """The products of a group of matrices with one input."""
        scales = 1.0
        if r.inputs:
            largest = x.abs().amax() if r.whole_scale else x.abs().amax(-1, keepdim=True)
            scales = e4m3_scale(largest)
            x = e4m3(x * (1 / scales))
        matrices, scale = self.matrices(group, r.weights)
        return [self.round(self.product(x, m, r) * (scale * r.off), r) * scales for m in matrices]

    def matrices(self, group, rounded):
        """Of the layer at hand, and what they are to be multiplied by."""
        matrices = [self.layer[name] for name in GROUPS[group]]
        if not rounded:
            return matrices, 1.0
        if group not in self.codes:
            scale = e4m3_scale(torch.stack([m.abs().max() for m in matrices]).max())
            self.codes[group] = [e4m3(m * (1 / scale)) for m in matrices], scale
        return self.codes[group]

    @staticmethod
    def product(x, matrix, r):
        parts = zip(x.chunk(r.parts, 1), matrix.chunk(r.parts, 1))
        return sum(a @ b.T for a, b in parts)

    def norm(self, weight, x):
        scale = torch.rsqrt((x * x).mean(-1, keepdim=True) + self.config.rms_norm_eps)
        return x * (scale * weight)

    @staticmethod
    def round(x, r):
        return bf16(x) if r.bf16 else x


def turned(x, angles):
    cos, sin = angles
    low, high = x.chunk(2, -1)
    return x * cos + torch.cat([-high, low], -1) * sin
