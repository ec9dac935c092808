"""Fills the scores and the facts of the run into the card (README.md, between its marks).

    python card.py --run runs/cpu
"""
import argparse
import json
from pathlib import Path

from tokenizers import Tokenizer

HERE = Path(__file__).parent
NAMES = {"arithmetic_on": "arithmetic, thinking on", "arithmetic_off": "arithmetic, thinking off",
         "tool_call": "one tool call", "two_calls": "two tool calls", "no_tool": "no tool fits", "routing": "routing",
         "extraction": "extraction", "needle_4k": "a fact in 4,000 tokens"}


def between(text, mark, new):
    start, end = f"<!-- {mark} -->\n", f"<!-- /{mark} -->"
    head, rest = text.split(start)
    return head + start + new + end + rest.split(end)[1]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--run", required=True)
    args = parser.parse_args()
    scores = json.loads((HERE / "scores.json").read_text())
    log = [json.loads(line) for line in open(Path(args.run) / "log.jsonl")]
    done = [line["done"] for line in log if "done" in line][-1]
    config = json.loads((HERE / "checkpoint" / "config.json").read_text())
    size = (HERE / "checkpoint" / "model.safetensors").stat().st_size
    tokenizer = Tokenizer.from_file(str(HERE / "checkpoint" / "tokenizer.json"))
    table = "| held-out task, greedy | right | of | share |\n|---|---|---|---|\n"
    table += "".join(f"| {NAMES[t]} | {s['right']} | {s['of']} | {s['share']:.0%} |\n" for t, s in scores.items())
    facts = (f"These weights: {done['tokens'] / 1e6:.1f} million tokens in {done['steps']} steps, "
             f"{done['seconds'] / 60:.0f} minutes; {config['num_hidden_layers']} blocks of width {config['hidden_size']}, "
             f"{config['num_attention_heads']} heads, {tokenizer.get_vocab_size()} tokens in the vocabulary, "
             f"{size / 1e6:.1f} MB of bfloat16.\n")
    text = (HERE / "README.md").read_text()
    (HERE / "README.md").write_text(between(between(text, "scores", table), "run", facts))


if __name__ == "__main__":
    main()
