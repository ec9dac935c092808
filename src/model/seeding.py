"""A head start for copying.

Every task of this language rests on one circuit: find where the current token stood before and take what followed it.
Growing it from noise costs millions of tokens, which a CPU does not have, so the first two attentions start as a rough
version of it: heads of block 0 look one and two tokens back and write a short code of what they see; heads of block 1
look for the code of the current token and copy what followed it; heads of block 2 copy the value behind a name. Training
is free to change all of it, and does.
"""
import math

import torch

SCALE = 0.06  # the size of an embedding's entries
SHARPNESS = 2.3
CONSTANT = 4.0  # one dimension holds a constant, in units of SCALE, for heads that look at a fixed distance


def orthonormal(rows, columns, generator):
    q, _ = torch.linalg.qr(torch.randn(columns, rows, generator=generator))
    return q.T


@torch.no_grad()
def seed_copying(model, seed=3):
    generator = torch.Generator().manual_seed(seed)
    config = model.config
    hidden, heads = config["hidden_size"], config["num_attention_heads"]
    dim = hidden // heads
    half = dim // 2
    frequencies = model.frequencies.tolist()
    slow = [i for i in range(half) if frequencies[i] < 0.0006]
    fast = [i for i in range(half) if frequencies[i] > 0.009]
    slots = slow + [i + half for i in slow]
    code = len(slots)
    body = hidden - hidden // 16 - 2 * code  # the token itself; behind it two codes, a little room, the constant
    embed = model.model.embed_tokens.weight
    embed[:, body:] = 0
    embed[:, hidden - 1] = CONSTANT * SCALE
    project = orthonormal(code, body, generator)

    # Block 0: heads that look one, two and three tokens back; the first two write a code of what they see.
    rms = SCALE * math.sqrt((body + CONSTANT ** 2) / hidden)
    first = model.model.layers[0].self_attn
    look = 7.7 / (CONSTANT * SCALE / rms)
    for head in range(3):
        at, distance = head * dim, head + 1
        for w in (first.q_proj.weight, first.k_proj.weight):
            w[at:at + dim] *= 0.1
        for i in fast:
            angle = frequencies[i] * distance
            first.k_proj.weight[at + i, hidden - 1] = look
            first.q_proj.weight[at + i, hidden - 1] = look * math.cos(angle)
            first.q_proj.weight[at + half + i, hidden - 1] = -look * math.sin(angle)
        if distance < 3:
            first.v_proj.weight[at:at + dim] = 0
            first.v_proj.weight[at:at + code, :body] = project
            for j in range(code):
                first.o_proj.weight[body + head * code + j, at + j] = 3 * rms

    def copier(attention, head, kv_head, query_of, key_of, part):
        """A head that goes where the key's code equals the query's, and copies a part of the token found there."""
        q_at, k_at = head * dim, kv_head * dim
        attention.q_proj.weight[q_at:q_at + dim] = 0
        attention.k_proj.weight[k_at:k_at + dim] = 0
        attention.v_proj.weight[k_at:k_at + dim] = 0
        for j, slot in enumerate(slots):
            if query_of is None:
                attention.q_proj.weight[q_at + slot, :body] = SHARPNESS * project[j]
            else:
                attention.q_proj.weight[q_at + slot, body + query_of * code + j] = SHARPNESS / 3
            attention.k_proj.weight[k_at + slot, body + key_of * code + j] = SHARPNESS
        attention.v_proj.weight[k_at:k_at + len(part), :body] = part
        attention.o_proj.weight[:body, q_at:q_at + len(part)] = 4.5 * SCALE * part.T

    keep = orthonormal(body, body, generator)
    parts = [keep[i:i + dim] for i in range(0, body, dim)]
    # Block 1: what followed the current token when it stood before.
    for head, part in enumerate(parts[:heads]):
        copier(model.model.layers[1].self_attn, head, head, None, 0, part)
    # Block 2: what stood two behind the token before this one, as a value does behind its name and a mark.
    for kv_head, part in enumerate(parts[:heads // 2]):
        copier(model.model.layers[2].self_attn, 2 * kv_head, kv_head, 0, 1, part)
