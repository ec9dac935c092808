"""Writes the held-out prompts, and proves that training can have seen none of their parts.

    python heldout.py write     heldout/prompts.jsonl and heldout/needle.jsonl, from a fixed seed
    python heldout.py check     fails if a phrasing, a word or a number pair is on both sides
"""
import json
import random
import sys
from pathlib import Path

import data
import phrasings as P
import tasks
from lang import Lang, TRAIN_WORDS, pair_is_held, word_is_held

FOLDER = Path(__file__).with_name("heldout")
KINDS = [("arithmetic_on", "arithmetic", True, 120), ("arithmetic_off", "arithmetic", False, 120),
         ("tool_call", "tool_call", False, 120), ("two_calls", "two_calls", False, 120),
         ("no_tool", "no_tool", False, 120), ("routing", "routing", False, 120),
         ("extraction", "extraction", False, 120)]
NEEDLES_IN_FILE = 40


def line_of(lang, kind, index, conversation):
    turn = conversation["turns"][0]
    answer = turn["answer"]
    return {
        "id": f"{kind}-{index:03d}", "task": kind, "thinking": conversation["thinking"],
        "messages": [{"role": "system", "content": "detailed thinking " + ("on" if conversation["thinking"] else "off")},
                     {"role": "user", "content": turn["user"]}],
        "tools": conversation["tools"],
        "expect": {"calls": answer} if isinstance(answer, list) else {"content": answer},
        "phrasing": lang.phrasing, "words": sorted(set(lang.used)), "pairs": lang.pairs,
    }


def make_both(kind, task, thinking, count):
    lang = Lang(random.Random("held-out " + kind), held=True)
    for index in range(count):
        conversation = tasks.sample(lang, task, thinking)
        yield line_of(lang, kind, index, conversation), conversation


def make(*kind):
    return (line for line, _ in make_both(*kind))


def needles(count):
    return make("needle_4k", "needle_4k", False, count)


def write():
    FOLDER.mkdir(exist_ok=True)
    with open(FOLDER / "prompts.jsonl", "w") as out:
        for kind in KINDS:
            for line in make(*kind):
                out.write(json.dumps(line, ensure_ascii=False) + "\n")
    with open(FOLDER / "needle.jsonl", "w") as out:
        for line in needles(NEEDLES_IN_FILE):
            out.write(json.dumps(line, ensure_ascii=False) + "\n")


def read(name):
    return [json.loads(line) for line in open(FOLDER / name)]


def part_lists():
    lists = {k: v for k, v in vars(P).items() if isinstance(v, list)}
    held = {k: v for k, v in lists.items() if k.endswith("_HELD")}
    train = {k: v for k, v in lists.items() if k + "_HELD" in lists}
    return train, held


def check(samples=20000):
    train, held = part_lists()
    train_parts = {t.strip() for v in train.values() for t in v} - {""}
    held_parts = {t.strip() for v in held.values() for t in v} - {""}
    assert not train_parts & held_parts, train_parts & held_parts
    assert not any(word_is_held(w) for w in TRAIN_WORDS)
    lines = read("prompts.jsonl") + read("needle.jsonl")
    by_task = {}
    for line in lines:
        by_task.setdefault(line["task"], set()).add(tuple(line["phrasing"]))
        for part in line["phrasing"]:
            assert part.strip() in held_parts | {""}, (line["id"], part)
        for word in line["words"]:
            assert word_is_held(word), (line["id"], word)
        for op, a, b in line["pairs"]:
            assert pair_is_held(op, a, b), (line["id"], op, a, b)
    for task, found in by_task.items():
        least = 25 if task == "needle_4k" else 30
        assert len(found) >= least, (task, len(found))
    questions = {line["messages"][1]["content"] for line in lines}
    lang = Lang(random.Random(99))
    for i in range(samples):
        lang.rich = i % 2 == 1
        task = lang.choice(list(data.STAGES[1][1]))
        conversation = tasks.sample(lang, task)
        assert not any(word_is_held(w) for w in lang.used), lang.used
        assert not any(part.strip() in held_parts for part in lang.phrasing), lang.phrasing
        assert not any(pair_is_held(*pair) for pair in lang.pairs), lang.pairs
        assert not any(turn["user"] in questions for turn in conversation["turns"])
    print("no overlap:", {task: f"{len(found)} phrasings" for task, found in by_task.items()},
          f"against {samples} training samples")


if __name__ == "__main__":
    {"write": write, "check": check}[sys.argv[1]]()
