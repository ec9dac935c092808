"""Trains the model.

    python train.py --out runs/cpu --preset cpu --minutes 80 --procs 2
    python train.py --out runs/gpu --preset gpu --minutes 16
    python train.py --out runs/fine --preset gpu --minutes 8 --start runs/gpu-ck --fine

The schedule follows the clock, not a step count, so that the run ends on time on a busy machine. A run goes on where
its checkpoint left off (same --out); its total is then still --minutes. On a CPU several processes of one thread each,
which meet once a step, get more out of shared cores than one process whose threads meet in every operation.
"""
import argparse
import json
import random
import tempfile
import time
from pathlib import Path

import torch
import torch.distributed as dist
import torch.nn.functional as F
from safetensors.torch import load_file

import data
import model as net
import optim
import seeding
import tokenizer as tok
from quick import quick_scores

DEVICE_DEFAULTS = {"cpu": dict(tokens=1024, muon_lr=0.02, adam_lr=0.004, workers=0, rich=False),
                   "cuda": dict(tokens=32768, muon_lr=0.02, adam_lr=0.004, workers=12, rich=True)}


def schedule(share):
    """Learning rate factor: a short warm-up, level, then straight down to zero over the last half."""
    return min(1.0, share / 0.01 + 0.05, max(0.0, (1 - share) / 0.5))


def save(path, model, optimizers, state):
    part = path.with_suffix(".part")
    torch.save({"config": model.config, "model": model.state_dict(),
                "optimizers": [o.state_dict() for o in optimizers], "state": state}, part)
    part.replace(path)


def arguments():
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", required=True)
    parser.add_argument("--preset", default="cpu", choices=list(net.PRESETS))
    parser.add_argument("--minutes", type=float, default=20)
    parser.add_argument("--tokens", type=int, help="tokens in a batch, each process")
    parser.add_argument("--procs", type=int, default=1, help="processes of one thread each (CPU only)")
    parser.add_argument("--workers", type=int, help="processes that write batches")
    parser.add_argument("--start", help="a checkpoint whose weights to start from")
    parser.add_argument("--fine", action="store_true", help="fine-tune: lower rates, the mixture data.FINE")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--eval-minutes", type=float, default=5)
    return parser.parse_args()


def average_gradients(model, procs):
    """One all-reduce over all gradients together."""
    grads = [p.grad for p in model.parameters()]
    flat = torch.cat([g.reshape(-1) for g in grads])
    dist.all_reduce(flat)
    flat /= procs
    at = 0
    for g in grads:
        g.copy_(flat[at:at + g.numel()].view_as(g))
        at += g.numel()


def to_device(tensor, device):
    """From pinned memory the copy waits for nothing, so the next step is queued while the last one computes."""
    return tensor.pin_memory().to(device, non_blocking=True) if device == "cuda" else tensor


def agree(value):
    """The first process's clock is everybody's, so that all take the same decisions."""
    shared = torch.tensor([value], dtype=torch.float64)
    dist.broadcast(shared, 0)
    return shared.item()


def run(rank, args, meeting):
    device = "cuda" if torch.cuda.is_available() else "cpu"
    defaults = DEVICE_DEFAULTS[device]
    procs = args.procs
    if procs > 1:
        torch.set_num_threads(1)
        dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=procs)
    torch.manual_seed(args.seed)
    out = Path(args.out)
    out.mkdir(parents=True, exist_ok=True)
    log = open(out / "log.jsonl", "a", buffering=1)
    tokenizer = tok.load()
    ids = {s: tokenizer.token_to_id(s) for s in tok.SPECIAL}
    config = net.make_config(args.preset, tokenizer.get_vocab_size(),
                             [ids["<|end_of_text|>"], ids["<|eom_id|>"], ids["<|eot_id|>"]], ids["<|begin_of_text|>"])
    model = net.Decoder(config)
    if args.start:
        model.load_state_dict({k: v.float() for k, v in load_file(Path(args.start) / "model.safetensors").items()})
    else:
        seeding.seed_copying(model)
    model = model.to(device)
    torch.set_float32_matmul_precision("high")  # TF32 is plenty for the optimizer's matrix products
    optimizers = optim.make_optimizers(model, defaults["muon_lr"] * (0.5 if args.fine else 1),
                                      defaults["adam_lr"] * (0.375 if args.fine else 1))
    peaks = [[g["lr"] for g in o.param_groups] for o in optimizers]
    state = {"seconds": 0.0, "tokens": 0, "steps": 0}
    checkpoint = out / "last.pt"
    if checkpoint.exists():
        saved = torch.load(checkpoint, map_location=device, weights_only=False)
        model.load_state_dict(saved["model"])
        for o, s in zip(optimizers, saved["optimizers"]):
            o.load_state_dict(s)
        state = saved["state"]
    seed = args.seed + 1000003 * state["steps"] + 7919 * rank
    tokens = args.tokens or defaults["tokens"]
    workers = defaults["workers"] if args.workers is None else args.workers
    stages = data.FINE if args.fine else data.STAGES
    batches = (data.ParallelBatches(workers, seed, tokens, defaults["rich"], stages) if workers
               else data.Batches(tokenizer, seed, tokens, defaults["rich"]))
    limit = args.minutes * 60
    started, before = time.time(), state["seconds"]
    next_eval, next_save = before + args.eval_minutes * 60, before + 60
    losses, waited, last_print = [], 0.0, time.time()
    while state["seconds"] < limit:
        share = state["seconds"] / limit
        if workers:
            batches.share.value = share
        else:
            override = json.loads((out / "mix.json").read_text()) if (out / "mix.json").exists() else {}
            batches.mix = data.stage_mix(share, override, stages)
        for o, rates in zip(optimizers, peaks):
            for group, peak in zip(o.param_groups, rates):
                group["lr"] = peak * schedule(share)
        asked = time.time()
        batch = batches.next()
        waited += time.time() - asked
        x, positions, pick, target = (to_device(t, device) for t in batch)
        with torch.autocast(device, torch.bfloat16, enabled=device == "cuda"):
            logits = model(x, positions, pick)
        loss = F.cross_entropy(logits.float(), target)
        # A batch of long texts holds few answers; its mean is worth less than that of a batch with many.
        (loss * min(1.0, (target.numel() * 8 / tokens) ** 0.25)).backward()
        if procs > 1:
            average_gradients(model, procs)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for o in optimizers:
            o.step()
            o.zero_grad()
        losses.append(loss.detach())
        state["steps"] += 1
        state["tokens"] += x.numel() * procs
        state["seconds"] = before + time.time() - started
        if procs > 1:
            state["seconds"] = agree(state["seconds"])
        if rank == 0 and state["seconds"] > next_save:
            save(checkpoint, model, optimizers, state)
            next_save = state["seconds"] + 60
        if rank == 0 and state["steps"] % 50 == 0:
            mean = torch.stack(losses).mean().item()
            losses = []
            line = {"minutes": round(state["seconds"] / 60, 2), "steps": state["steps"], "tokens": state["tokens"],
                    "loss": round(mean, 4), "seconds_per_50": round(time.time() - last_print, 1),
                    "waited": round(waited, 1)}
            waited, last_print = 0.0, time.time()
            log.write(json.dumps(line) + "\n")
        if rank == 0 and state["seconds"] > next_eval:
            scores = quick_scores(model, tokenizer, random.Random(5), 24, long=share > 0.3)
            log.write(json.dumps({"minutes": round(state["seconds"] / 60, 2), "scores": scores}) + "\n")
            state["seconds"] = before + time.time() - started
            next_eval = state["seconds"] + args.eval_minutes * 60
    if rank == 0:
        save(checkpoint, model, optimizers, state)
        log.write(json.dumps({"done": state}) + "\n")


def main():
    args = arguments()
    if args.procs == 1:
        run(0, args, None)
        return
    with tempfile.TemporaryDirectory() as folder:
        torch.multiprocessing.spawn(run, (args, folder + "/meeting"), nprocs=args.procs)


if __name__ == "__main__":
    main()
