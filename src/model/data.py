"""Training batches: conversations of like length side by side, so that little is padding."""
import random

import torch

import render
import tasks
from lang import Lang

MIX = {"arithmetic": 5.0, "tool_call": 1.6, "two_calls": 1.0, "no_tool": 0.9, "routing": 2.6, "extraction": 1.4,
       "needle": 1.0, "needle_mid": 0.0, "needle_long": 0.0, "copying": 1.0}


class Batches:
    def __init__(self, tokenizer, seed, tokens=4096, mix=None):
        self.tokenizer, self.tokens = tokenizer, tokens
        self.rng = random.Random(seed)
        self.lang = Lang(self.rng)
        self.mix = dict(mix or MIX)
        self.ready = []

    def one(self):
        task = self.rng.choices(list(self.mix), list(self.mix.values()))[0]
        conversation = tasks.sample(self.lang, task)
        ids, wanted = render.encode(self.tokenizer, conversation)
        positions = list(range(len(ids)))
        if task == "needle" and self.rng.random() < 0.5:
            # Far positions at the price of a short text: jumps at a few places, up to the length of a long one.
            spare = self.rng.randint(0, max(0, 4600 - len(ids)))
            cuts = sorted(self.rng.sample(range(8, len(ids) - 2), 3))
            for cut in cuts:
                jump = self.rng.randint(0, spare)
                spare -= jump
                for i in range(cut, len(ids)):
                    positions[i] += jump
        return ids, wanted, positions

    def refill(self):
        pool = []
        total = 0
        while total < 24 * self.tokens:
            pool.append(self.one())
            total += len(pool[-1][0])
        pool.sort(key=lambda item: len(item[0]))
        batch, out = [], []
        for item in pool:
            if batch and len(item[0]) * (len(batch) + 1) > self.tokens:
                out.append(batch)
                batch = []
            batch.append(item)
        # The rest of the pool is a short batch; it still trains.
        out.append(batch)
        self.rng.shuffle(out)
        self.ready = out

    def next(self):
        if not self.ready:
            self.refill()
        batch = self.ready.pop()
        n = max(len(ids) for ids, _, _ in batch) - 1
        ids = torch.zeros(len(batch), n, dtype=torch.long)
        positions = torch.zeros(len(batch), n, dtype=torch.long)
        pick, target = [], []
        for row, (tokens, wanted, places) in enumerate(batch):
            ids[row, :len(tokens) - 1] = torch.tensor(tokens[:-1])
            positions[row, :len(tokens) - 1] = torch.tensor(places[:-1])
            for i in range(len(tokens) - 1):
                if wanted[i + 1]:
                    pick.append(row * n + i)
                    target.append(tokens[i + 1])
        return ids, positions, torch.tensor(pick), torch.tensor(target)
