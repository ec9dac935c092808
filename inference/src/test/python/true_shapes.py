"""Compares the logits of a random checkpoint of a true shape with references on the same weights.

Run with Python 3, torch and transformers 5 installed, on a machine with a card:

    python true_shapes.py make CONFIG FOLDER [options]   # a random bf16 checkpoint and tokens
    python true_shapes.py bf16 FOLDER                    # references for bfloat16
    python true_shapes.py fp8 FOLDER [--layers 0,8,31]   # references for FP8
    java ... TeacherForced cuda:0 bf16 auto FOLDER       # or fp8 auto, fp8 fp8
    python true_shapes.py compare FOLDER...

The figure is the largest ||a - b|| / ||b|| over positions.

bf16: the reference is transformers in float32; beside ours stands transformers' own bfloat16.

fp8: the reference is in float32 and rounds weights and inputs of linear layers with the scales of
FP8 made at load. In a deep network a difference in the last place sends some numbers to the
neighbour in e4m3, and these are a difference for the next layer: two computations that round alike
and add in another order end up apart. So `fp8` says how far the reference itself is from another
order of its sums, and from no rounding at all. With --layers it writes, for each of those layers, a
checkpoint FOLDER/layer-N of that layer alone, whose embeddings are the states that enter the layer
in the reference: there nothing has grown yet, and it says how far some faults would be.

With `make --made-up --vocabulary 4096` there is no checkpoint: engine and reference make up the same
weights of FP8, and the reference needs no card.
"""

import argparse
import json
import math
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from transformers import AutoConfig, AutoModelForCausalLM

from rounded_llama import Llama, MadeUp, Rounding

TOKENS = 512
SEED = 5
FP8 = Rounding(weights=True, inputs=True)
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
torch.backends.cuda.matmul.allow_tf32 = False


# Weights.


def shapes(config):
    h, d, wide = config.hidden_size, config.head_dim, config.intermediate_size
    q, kv = config.num_attention_heads * d, config.num_key_value_heads * d
    yield "model.embed_tokens.weight", (config.vocab_size, h)
    for i in range(config.num_hidden_layers):
        at = f"model.layers.{i}."
        yield at + "input_layernorm.weight", (h,)
        yield at + "self_attn.q_proj.weight", (q, h)
        yield at + "self_attn.k_proj.weight", (kv, h)
        yield at + "self_attn.v_proj.weight", (kv, h)
        yield at + "self_attn.o_proj.weight", (h, q)
        yield at + "post_attention_layernorm.weight", (h,)
        yield at + "mlp.gate_proj.weight", (wide, h)
        yield at + "mlp.up_proj.weight", (wide, h)
        yield at + "mlp.down_proj.weight", (h, wide)
    yield "model.norm.weight", (h,)
    yield "lm_head.weight", (config.vocab_size, h)


def made(name, shape, config, damped, embedding):
    """As transformers initialises, but norms are not all 1."""
    weight = torch.empty(shape, dtype=torch.bfloat16, device=DEVICE)
    if "norm" in name:
        return weight.uniform_(0.5, 1.5)
    deviation = config.initializer_range
    if "embed" in name:
        deviation = embedding
    elif damped and name.endswith(("o_proj.weight", "down_proj.weight")):
        deviation /= math.sqrt(2 * config.num_hidden_layers)
    return weight.normal_(0, deviation)


def make(options):
    started = time.time()
    torch.manual_seed(SEED)
    folder = options.folder
    folder.mkdir(parents=True, exist_ok=True)
    text = options.config.read_text()
    if options.vocabulary:
        text = json.dumps(json.loads(text) | vocabulary(options.vocabulary))
    (folder / "config.json").write_text(text)
    config = AutoConfig.from_pretrained(folder)
    if not options.made_up:
        embedding = options.embedding or config.initializer_range
        save(
            folder,
            {n: made(n, s, config, options.damped, embedding) for n, s in shapes(config)},
        )
    generator = torch.Generator().manual_seed(SEED)
    tokens = torch.randint(0, config.vocab_size, (options.tokens,), generator=generator)
    np.asarray(tokens, dtype="<i4").tofile(folder / "tokens.i32")
    print(f"{folder}: made in {time.time() - started:.1f} s", flush=True)


def vocabulary(size):
    return {"vocab_size": size, "bos_token_id": 0, "eos_token_id": 1}


def save(folder, weights):
    """A file for each layer and one for the rest, several at a time."""
    files = {}
    for name in weights:
        part = name.split(".")[2] if name.startswith("model.layers.") else "rest"
        files.setdefault(f"model-{part}.safetensors", []).append(name)

    def write(file):
        header, end = {"__metadata__": {"format": "pt"}}, 0
        for name in files[file]:
            size = 2 * weights[name].numel()
            shape = list(weights[name].shape)
            header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [end, end + size]}
            end += size
        text = json.dumps(header).encode()
        text += b" " * (-len(text) % 8)
        with open(folder / file, "wb") as out:
            out.write(len(text).to_bytes(8, "little") + text)
            for name in files[file]:
                weights[name].cpu().view(torch.int16).numpy().tofile(out)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(write, files))
    index = {"metadata": {}, "weight_map": {n: f for f, names in files.items() for n in names}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def load(folder):
    weights = {}
    if not list(folder.glob("*.safetensors")):
        return MadeUp(AutoConfig.from_pretrained(folder))
    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(file, "pt", device=DEVICE) as opened:
            weights.update({name: opened.get_tensor(name) for name in opened.keys()})
    return weights


# References.


def tokens_of(folder):
    return torch.from_numpy(np.fromfile(folder / "tokens.i32", dtype="<i4").astype(np.int64))


def keep(folder, name, logits):
    logits.float().cpu().numpy().astype("<f4").tofile(folder / (name + ".f32"))


def bf16(options):
    tokens = tokens_of(options.folder).to(DEVICE)
    model = AutoModelForCausalLM.from_pretrained(options.folder, dtype=torch.bfloat16).to(DEVICE)
    with torch.inference_mode():
        keep(options.folder, "transformers-bf16", model(tokens[None], use_cache=False).logits[0])
        model.float()
        exact = model(tokens[None], use_cache=False).logits[0]
        keep(options.folder, "exact", exact)
    plain = Llama(options.folder, load(options.folder)).logits(tokens)
    print(f"{options.folder}: our plain network from transformers {summary(plain, exact)}")


def fp8(options):
    started = time.time()
    folder = options.folder
    weights = load(folder)
    network, tokens = Llama(folder, weights), tokens_of(folder)
    states = {}

    def visit(layer, state):
        if layer in options.layers:
            states[layer] = state.to(torch.bfloat16)

    print(f"{folder}")
    references(folder, network, tokens, options.tile, visit)
    for layer, state in sorted(states.items()):
        alone = folder / f"layer-{layer}"
        one_layer(alone, folder, weights, layer, state)
        network = Llama(alone, load(alone))
        print(f"layer {layer} alone, state {state.float().std():.2f}")
        alike = references(alone, network, torch.arange(len(tokens)), options.tile)
        faults(network, torch.arange(len(tokens)), alike)
    print(f"references in {time.time() - started:.1f} s", flush=True)


def one_layer(alone, folder, weights, layer, state):
    """A model of one layer, whose tokens are the positions of the reference."""
    alone.mkdir(exist_ok=True)
    config = json.loads((folder / "config.json").read_text())
    config |= {"num_hidden_layers": 1} | vocabulary(len(state))
    (alone / "config.json").write_text(json.dumps(config))
    at = f"model.layers.{layer}."
    own = {
        n.replace(at, "model.layers.0."): w
        for n, w in weights.items()
        if n.startswith(at) or n == "model.norm.weight"
    }
    own["model.embed_tokens.weight"] = state
    own["lm_head.weight"] = weights["lm_head.weight"][: len(state)]
    save(alone, own)
    np.arange(len(state), dtype="<i4").tofile(alone / "tokens.i32")


def references(folder, network, tokens, tile, visit=None):
    """Keeps them and says how far they are from one another; the rounding of the one alike."""
    alike = replace(FP8, bf16=True, tile=tile)
    roundings = {
        "fp8-alike": alike,
        "fp8": FP8,
        "fp8-fp8": replace(FP8, kept=True),
        "fp8-fp8-alike": replace(alike, kept=True),
        "fp8-fp8-narrow": replace(FP8, kept=True, narrow=True),
        "nothing": Rounding(),
        "another order": replace(FP8, parts=2),
        "alike in another order": replace(alike, parts=2),
    }
    logits = dict(zip(roundings, network.all_logits(tokens, roundings.values(), visit)))
    for name in roundings:
        if name.startswith("fp8"):
            keep(folder, name, logits[name])
    for text, a, b in (
        ("nothing rounded, from the reference", "nothing", "fp8"),
        ("rounding alike, from the reference", "fp8-alike", "fp8"),
        ("attention in e4m3, from the one with a cache", "fp8-fp8-narrow", "fp8-fp8"),
        ("the reference, from another order of its sums", "another order", "fp8"),
        ("rounding alike, from another order of its sums", "alike in another order", "fp8-alike"),
    ):
        print(f"  {text:46} {summary(logits[a], logits[b])}", flush=True)
    return alike


def faults(network, tokens, alike):
    wrong = {
        "inputs are not rounded": replace(alike, inputs=False),
        "one scale for all rows": replace(alike, whole_scale=True),
        "weights' scales 1 % off": replace(alike, off=1.01),
    }
    right, *others = network.all_logits(tokens, [alike, *wrong.values()])
    for what, other in zip(wrong, others):
        print(f"  fault: {what:39} {summary(other, right)}")


# Comparisons.


def summary(a, b):
    error = (a - b).norm(dim=1) / b.norm(dim=1)
    return (
        f"largest {error.max():.1e}, mean {error.mean():.1e}, median {error.median():.1e}, "
        f"last forty {error[-40:].max():.1e}, under 1e-5 {(error < 1e-5).float().mean():.0%}"
    )


def compare(options):
    for folder in options.folders:
        vocab = json.loads((folder / "config.json").read_text())["vocab_size"]

        def read(file):
            return torch.from_numpy(np.fromfile(file, dtype="<f4")).reshape(-1, vocab).to(DEVICE)

        for file in sorted(folder.glob("ours-*.f32")):
            formats = file.stem.removeprefix("ours-")
            names = ["exact"]
            if formats.startswith("fp8"):
                names = [formats, formats + "-alike"]
            if formats == "fp8-fp8":
                names.append(formats + "-narrow")
            for name in names:
                reference = read(folder / (name + ".f32"))
                print(f"{folder.name} {formats} from {name}: {summary(read(file), reference)}")
        other = folder / "transformers-bf16.f32"
        if other.exists():
            reference = read(folder / "exact.f32")
            print(f"{folder.name} transformers' bf16 from exact: {summary(read(other), reference)}")


def numbers(text):
    return [int(n) for n in text.split(",")] if text else []


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(required=True)
    command = commands.add_parser("make")
    command.set_defaults(run=make)
    command.add_argument("config", type=Path)
    command.add_argument("folder", type=Path)
    command.add_argument("--tokens", type=int, default=TOKENS)
    command.add_argument(
        "--damped",
        action="store_true",
        help="o_proj and down_proj are smaller by sqrt(2 layers), as networks to be trained begin",
    )
    command.add_argument(
        "--made-up", action="store_true", help="no weights: those that TeacherForced makes up then"
    )
    command.add_argument("--vocabulary", type=int, help="of so many tokens, not the shape's")
    command.add_argument("--embedding", type=float, help="standard deviation of embeddings")
    command = commands.add_parser("bf16")
    command.set_defaults(run=bf16)
    command.add_argument("folder", type=Path)
    command = commands.add_parser("fp8")
    command.set_defaults(run=fp8)
    command.add_argument("folder", type=Path)
    command.add_argument("--layers", type=numbers, default=[])
    command.add_argument(
        "--tile",
        type=int,
        default=128,
        help="positions that prefill's attention takes at a time: 128 on Hopper, 64 elsewhere",
    )
    command = commands.add_parser("compare")
    command.set_defaults(run=compare)
    command.add_argument("folders", type=Path, nargs="+")
    options = parser.parse_args()
    options.run(options)
