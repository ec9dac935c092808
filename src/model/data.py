"""Training batches: conversations of like length side by side, so that little is padding."""
import multiprocessing
import random

import numpy as np
import torch

import render
import tasks
import tokenizer as tok
from lang import Lang

STAGES = [  # from this share of the run on, the weights of the tasks
    (0.00, {"copying": 4.0, "extraction": 2.5, "arithmetic": 2.0, "routing": 1.0, "tool_call": 0.3, "needle": 0.5}),
    (0.04, {"copying": 0.5, "extraction": 1.4, "arithmetic": 3.0, "routing": 1.8, "tool_call": 1.5, "two_calls": 0.6,
            "no_tool": 0.5, "needle": 0.8, "needle_mid": 0.03}),
    (0.25, {"copying": 0.2, "extraction": 1.2, "arithmetic": 3.5, "routing": 1.6, "tool_call": 1.5, "two_calls": 0.8,
            "no_tool": 0.6, "needle": 0.6, "needle_mid": 0.10, "needle_long": 0.02}),
    (0.55, {"copying": 0.1, "extraction": 1.1, "arithmetic": 3.5, "routing": 1.5, "tool_call": 1.5, "two_calls": 0.9,
            "no_tool": 0.6, "needle": 0.5, "needle_mid": 0.15, "needle_long": 0.06}),
]
FINE = [  # fine-tuning: what is still weak, and many long texts
    (0.00, {"extraction": 0.8, "arithmetic": 3.0, "routing": 0.8, "tool_call": 1.8, "two_calls": 2.0,
            "no_tool": 0.6, "needle": 0.8, "needle_mid": 0.6, "needle_long": 0.6}),
]
LONGEST = 4600  # positions that training covers


def stage_mix(share, override=None, stages=STAGES):
    mix = [m for start, m in stages if share >= start][-1]
    return {**mix, **(override or {})}


class Batches:
    def __init__(self, tokenizer, seed, tokens, rich=False):
        self.tokenizer, self.tokens = tokenizer, tokens
        self.rng = random.Random(seed)
        self.lang = Lang(self.rng, rich=rich)
        self.mix = stage_mix(0)
        self.ready = []

    def one(self):
        task = self.rng.choices(list(self.mix), list(self.mix.values()))[0]
        conversation = tasks.sample(self.lang, task)
        ids, wanted = render.encode(self.tokenizer, conversation)
        positions = np.arange(len(ids))
        if task == "needle" and self.rng.random() < 0.5:
            # Far positions at the price of a short text: jumps at a few places, up to the length of a long one.
            spare = self.rng.randint(0, max(0, LONGEST - len(ids)))
            for cut in sorted(self.rng.sample(range(8, len(ids) - 2), 3)):
                jump = self.rng.randint(0, spare)
                spare -= jump
                positions[cut:] += jump
        return np.array(ids), np.array(wanted), positions

    def refill(self):
        pool, total = [], 0
        while total < 24 * self.tokens:
            pool.append(self.one())
            total += len(pool[-1][0])
        pool.sort(key=lambda item: len(item[0]), reverse=True)
        out = []
        while pool:
            # Few different shapes, so that memory on the GPU is used again instead of allocated anew.
            width = (len(pool[0][0]) + 30) // 32 * 32
            rows = max(1, self.tokens // width)
            out.append((width, pool[:rows]))
            pool = pool[rows:]
        self.rng.shuffle(out)
        self.ready = out

    def next(self):
        """Token ids, positions, the flat places with a loss, and the tokens wanted there."""
        if not self.ready:
            self.refill()
        n, batch = self.ready.pop()
        ids = np.zeros((len(batch), n), dtype=np.int64)
        positions = np.zeros((len(batch), n), dtype=np.int64)
        pick, target = [], []
        for row, (tokens, wanted, places) in enumerate(batch):
            ids[row, :len(tokens) - 1] = tokens[:-1]
            positions[row, :len(tokens) - 1] = places[:-1]
            at = np.flatnonzero(wanted[1:])
            pick.append(row * n + at)
            target.append(tokens[at + 1])
        return tuple(torch.from_numpy(a) for a in (ids, positions, np.concatenate(pick), np.concatenate(target)))


def _work(queue, share, seed, tokens, rich, stages):
    torch.set_num_threads(1)
    batches = Batches(tok.load(), seed, tokens, rich)
    while True:
        batches.mix = stage_mix(share.value, stages=stages)
        queue.put(tuple(t.numpy() for t in batches.next()))


class ParallelBatches:
    """The same from several processes, for a GPU that trains faster than one process can write."""

    def __init__(self, workers, seed, tokens, rich, stages=STAGES):
        context = multiprocessing.get_context("spawn")
        self.queue, self.share = context.Queue(4 * workers), context.Value("d", 0.0)
        for i in range(workers):
            context.Process(target=_work, args=(self.queue, self.share, seed + 104729 * i, tokens, rich, stages),
                            daemon=True).start()

    def next(self):
        return tuple(torch.from_numpy(a) for a in self.queue.get())
