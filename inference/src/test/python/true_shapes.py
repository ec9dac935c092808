"""Compares the logits of a random checkpoint of a true shape with those of transformers.

Run with Python 3, torch and transformers 5 installed, on a machine with a card:

    python true_shapes.py make CONFIG FOLDER     # a random bf16 checkpoint, tokens, both references
    java ... TeacherForced cuda:0 FOLDER FOLDER/tokens.i32 FOLDER/ours.f32
    python true_shapes.py compare FOLDER

The reference is transformers in float32 on the weights as they are stored; beside ours stands what
transformers itself comes to in bfloat16. The figure is the largest ||a - b|| / ||b|| over positions.
"""

import json
import sys
import time
from pathlib import Path

import numpy as np
import torch
from transformers import AutoConfig, AutoModelForCausalLM

TOKENS = 512
SEED = 5


def device():
    return "cuda" if torch.cuda.is_available() else "cpu"


def logits(model, tokens):
    with torch.inference_mode():
        return model(tokens[None], use_cache=False).logits[0].float().cpu().numpy()


def make(config_file, folder):
    started = time.time()
    torch.manual_seed(SEED)
    torch.backends.cuda.matmul.allow_tf32 = False
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(Path(config_file).read_text())
    config = AutoConfig.from_pretrained(folder)
    with torch.device(device()):
        model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    for name, weight in model.named_parameters():
        if "norm" in name:
            weight.data.uniform_(0.5, 1.5)
    model.eval()
    print(f"made {sum(p.numel() for p in model.parameters()) / 1e9:.2f}e9 weights, {time.time() - started:.1f} s")
    model.save_pretrained(folder, max_shard_size="5GB")
    # The configuration as it is given: transformers writes its own form of it.
    (folder / "config.json").write_text(Path(config_file).read_text())
    print(f"saved, {time.time() - started:.1f} s", flush=True)
    generator = torch.Generator().manual_seed(SEED)
    tokens = torch.randint(0, config.vocab_size, (TOKENS,), generator=generator)
    np.asarray(tokens, dtype="<i4").tofile(folder / "tokens.i32")
    tokens = tokens.to(device())
    logits(model, tokens).astype("<f4").tofile(folder / "bf16.f32")
    model.float()
    logits(model, tokens).astype("<f4").tofile(folder / "reference.f32")
    print(f"references, {time.time() - started:.1f} s")


def compare(folder):
    vocab = json.loads((folder / "config.json").read_text())["vocab_size"]
    read = lambda name: np.fromfile(folder / name, dtype="<f4").reshape(-1, vocab)
    reference = read("reference.f32")
    norm = np.linalg.norm(reference, axis=1)
    worst = {}
    for name in ("bf16.f32", "ours.f32"):
        error = np.linalg.norm(read(name) - reference, axis=1) / norm
        worst[name] = error.max()
        print(f"{name}: largest {error.max():.4e} at {error.argmax()}, mean {error.mean():.4e}, "
              f"last forty {error[-40:].max():.4e}")
    print(f"ours / transformers' bf16: {worst['ours.f32'] / worst['bf16.f32']:.3f}")


if __name__ == "__main__":
    if sys.argv[1] == "make":
        make(sys.argv[2], Path(sys.argv[3]))
    else:
        compare(Path(sys.argv[2]))
