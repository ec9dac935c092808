"""A head start for copying.

Every task of this language rests on one circuit: find where the current token stood before and take what followed it.
Growing it from noise costs millions of tokens, which a CPU does not have, so the first two attentions start as a rough
version of it: heads of block 0 look one token back and write a short code of that token; heads of block 1 look for the
code of the current token and copy. Training is free to change all of it, and does.
"""
import math

import torch

SCALE = 0.06  # the size of an embedding's entries
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
    body = hidden - hidden // 4  # dimensions of the token itself; behind them the code, and the constant at the end
    embed = model.model.embed_tokens.weight
    embed[:, body:] = 0
    embed[:, hidden - 1] = CONSTANT * SCALE
    projection = orthonormal(code, body, generator) * math.sqrt(body / code)

    rms = SCALE * math.sqrt((body + CONSTANT ** 2) / hidden)
    first = model.model.layers[0].self_attn
    look = 7.7 / (CONSTANT * SCALE / rms)
    for head, distance in ((0, 1), (1, 2)):
        at = head * dim
        for w in (first.q_proj.weight, first.k_proj.weight):
            w[at:at + dim] *= 0.1
        for i in fast:
            angle = frequencies[i] * distance
            first.k_proj.weight[at + i, hidden - 1] = look
            first.q_proj.weight[at + i, hidden - 1] = look * math.cos(angle)
            first.q_proj.weight[at + half + i, hidden - 1] = -look * math.sin(angle)
    first.v_proj.weight[:dim] = 0
    first.v_proj.weight[:code, :body] = projection * math.sqrt(code / body)
    gain = 3 * SCALE / (SCALE / rms * math.sqrt(code / body) * math.sqrt(body / code))
    for j in range(code):
        first.o_proj.weight[body + j, j] = gain

    second = model.model.layers[1].self_attn
    keep = orthonormal(min(body, (heads - 1) * dim), body, generator)
    for head in range(heads - 1):
        at = head * dim
        for w in (second.q_proj.weight, second.k_proj.weight):
            w[at:at + dim] = 0
        for j, slot in enumerate(slots):
            second.q_proj.weight[at + slot, :body] = 2.3 * projection[j] * math.sqrt(code / body)
            second.k_proj.weight[at + slot, body + j] = 2.3
        part = keep[head * dim:(head + 1) * dim]
        second.v_proj.weight[at:at + len(part)] = 0
        second.v_proj.weight[at:at + len(part), :body] = part
        second.o_proj.weight[:body, at:at + len(part)] = 3 * SCALE / 0.66 * part.T
