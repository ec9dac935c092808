"""A quick held-out score: one forward pass over prompt and right answer.

Greedy decoding writes the whole answer exactly when every token of it is the most likely one, so no decoding is needed.
With thinking on this asks for the exact working as well, which is stricter than the final score.
"""
import torch

import render
import tasks
from lang import Lang

KINDS = [("arithmetic_on", "arithmetic", True), ("arithmetic_off", "arithmetic", False), ("tool_call", "tool_call", False),
         ("two_calls", "two_calls", False), ("no_tool", "no_tool", False), ("routing", "routing", False),
         ("extraction", "extraction", False), ("needle_short", "needle", False)]


@torch.no_grad()
def exact(model, tokenizer, conversations, step=8):
    device = next(model.parameters()).device
    right = 0
    for start in range(0, len(conversations), step):
        rows = [render.encode(tokenizer, c) for c in conversations[start:start + step]]
        n = max(len(ids) for ids, _ in rows)
        ids = torch.zeros(len(rows), n, dtype=torch.long, device=device)
        for i, (tokens, _) in enumerate(rows):
            ids[i, :len(tokens)] = torch.tensor(tokens, device=device)
        # Logits only where an answer is: a long text has few such places.
        pick, target, owner = [], [], []
        for i, (tokens, wanted) in enumerate(rows):
            at = [k for k in range(1, len(tokens)) if wanted[k]]
            pick += [i * n + k - 1 for k in at]
            target += [tokens[k] for k in at]
            owner += [i] * len(at)
        best = model(ids, pick=torch.tensor(pick, device=device)).argmax(-1).tolist()
        wrong = {o for o, b, t in zip(owner, best, target) if b != t}
        right += len(rows) - len(wrong)
    return right / len(conversations)


def quick_scores(model, tokenizer, rng, count, long=False):
    lang = Lang(rng, held=True)
    scores = {}
    for name, task, thinking in KINDS:
        scores[name] = round(exact(model, tokenizer, [tasks.sample(lang, task, thinking) for _ in range(count)]), 3)
    if long:
        scores["needle_4k"] = round(exact(model, tokenizer, [tasks.sample(lang, "needle_long", False)
                                                             for _ in range(count // 3)]), 3)
    return scores
