"""Takes words out of the vocabulary that training leaves without a use, and their rows out of a checkpoint's weights.

    python prune.py --checkpoint runs/gpu-ck [--never-written]

The held-out split keeps whole words from training, so a vocabulary made before it has tokens that training never
touches, and others that it only ever reads: a single "Kindly" throws off an answer that does not even depend on it, and
a value "broken" cannot be copied. Without such a token the word is spelled in shorter pieces, and those are trained.
Counted are training texts only. Without --never-written a word token goes that is hardly ever found; with it, one that
answers hardly ever hold. With a token go all that are merged from it; parts of a common token stay.
"""
import argparse
import collections
import json
import random
import re
from pathlib import Path

from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer

import data
import render
import tasks
import tokenizer as tok
from lang import Lang

SAMPLES = 12000
RARE = 25  # a word found less often in the samples than this is as good as untrained
WRITTEN = 3  # one that answers hold less often than this is never copied
COMMON = 2500  # one found as often as this stays, and so do its parts


def counts(tokenizer):
    """How often training texts hold a token, and how often their answers do."""
    lang, found, written = Lang(random.Random(1), rich=True), collections.Counter(), collections.Counter()
    mix = {task: weight for task, weight in data.FINE[-1][1].items() if task not in ("needle_mid", "needle_long")}
    choose = random.Random(2)
    for _ in range(SAMPLES):
        task = choose.choices(list(mix), list(mix.values()))[0]
        ids, wanted = render.encode(tokenizer, tasks.sample(lang, task))
        found.update(ids)
        written.update(i for i, mine in zip(ids, wanted) if mine)
    return found, written


def pruned(text, found, poor):
    """The tokenizer without the word tokens that poor holds of, and the ids of those that stay, in their order."""
    spec = json.loads(text)
    vocab, merges = spec["model"]["vocab"], spec["model"]["merges"]
    gone = {token for token, i in vocab.items() if poor(token, i)}
    needed = {token for token, i in vocab.items() if found[i] >= COMMON}
    for left, right in reversed(merges):
        if left + right in needed:
            needed.update((left, right))
    gone -= needed
    for left, right in merges:
        if left in gone or right in gone:
            gone.add(left + right)
    kept = sorted((i, token) for token, i in vocab.items() if token not in gone)
    order = [i for i, _ in kept]
    spec["model"]["merges"] = [[left, right] for left, right in merges if left + right not in gone]
    spec["model"]["vocab"] = {token: place for place, (_, token) in enumerate(kept)}
    for token in spec["added_tokens"]:
        order.append(token["id"])
        token["id"] = len(order) - 1
    return json.dumps(spec, ensure_ascii=False, indent=1) + "\n", order, sorted(gone)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--checkpoint", required=True)
    parser.add_argument("--never-written", action="store_true")
    args = parser.parse_args()
    folder = Path(args.checkpoint)
    found, written = counts(tok.load())

    def poor(token, i):
        if args.never_written:  # a spaced token is only ever read; it goes with its bare word
            return written[i] < WRITTEN and re.fullmatch("[A-Za-z]{2,}", token)
        return found[i] < RARE and re.fullmatch("[A-Za-z]{2,}Ġ?", token)

    text, order, gone = pruned(tok.PATH.read_text(), found, poor)
    weights, config = load_file(folder / "model.safetensors"), json.loads((folder / "config.json").read_text())
    assert config["vocab_size"] == tok.load().get_vocab_size(), "the checkpoint has another vocabulary"
    weights["model.embed_tokens.weight"] = weights["model.embed_tokens.weight"][order].contiguous()
    after = Tokenizer.from_str(text)
    config["vocab_size"] = after.get_vocab_size()
    config["bos_token_id"] = after.token_to_id("<|begin_of_text|>")
    config["eos_token_id"] = [after.token_to_id(s) for s in ("<|end_of_text|>", "<|eom_id|>", "<|eot_id|>")]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(config, indent=1) + "\n")
    tok.PATH.write_text(text)
    print(f"{len(gone)} tokens taken out, {len(order)} left:", " ".join(gone))


if __name__ == "__main__":
    main()
