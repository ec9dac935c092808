"""Scores a checkpoint on the held-out prompts by greedy decoding, and writes the reference the engine is held to.

    python evaluate.py --checkpoint checkpoint [--limit 20] [--fast] [--write] [--reference]

With --fast one forward pass over prompt and right answer takes the place of decoding: greedy decoding writes exactly
the right answer when each of its tokens is the most likely one. It is the same number wherever there is one right text;
with thinking on it also asks for the exact working, so it can only be lower.
"""
import argparse
import json
import time
from pathlib import Path

import jinja2
import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer

import heldout
import model as net
from quick import exact

HERE = Path(__file__).parent


class Checkpoint:
    def __init__(self, folder):
        folder = Path(folder)
        self.config = json.loads((folder / "config.json").read_text())
        self.tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self.model = net.Decoder(self.config)
        self.model.load_state_dict({k: v.float() for k, v in load_file(folder / "model.safetensors").items()})
        self.model.eval()
        environment = jinja2.Environment(trim_blocks=True, lstrip_blocks=True)
        environment.filters["tojson"] = lambda x: json.dumps(x, ensure_ascii=False)
        self.template = environment.from_string((folder / "chat_template.jinja").read_text())

    def prompt_ids(self, messages, tools):
        text = self.template.render(messages=messages, tools=tools or None, add_generation_prompt=True)
        return self.tokenizer.encode(text, add_special_tokens=False).ids

    @torch.no_grad()
    def greedy(self, ids, most=200):
        caches = [{} for _ in self.model.model.layers]
        out, at = [], 0
        step = torch.tensor([ids])
        first = None
        while len(out) < most:
            positions = torch.arange(at, at + step.shape[1])[None]
            logits = self.model(step, positions, pick=torch.tensor([step.shape[1] - 1]), caches=caches)[0]
            first = logits if first is None else first
            at += step.shape[1]
            best = int(logits.argmax())
            out.append(best)
            if best in self.config["eos_token_id"]:
                break
            step = torch.tensor([[best]])
        return out, first

    def text(self, ids):
        return self.tokenizer.decode([i for i in ids if i not in self.config["eos_token_id"]],
                                     skip_special_tokens=False)


def answer_of(text):
    """Content and calls of an output, as a client sees them."""
    if "</think>" in text:
        text = text.split("</think>", 1)[1]
    text = text.strip()
    if text.startswith("<TOOLCALL>") and text.endswith("</TOOLCALL>"):
        try:
            return {"calls": json.loads(text[len("<TOOLCALL>"):-len("</TOOLCALL>")])}
        except ValueError:
            pass
    return {"content": text}


def is_right(line, text):
    if line["thinking"] and "</think>" not in text:
        return False
    return answer_of(text) == line["expect"]


def reference(checkpoint, lines):
    out = []
    for line in lines:
        ids = checkpoint.prompt_ids(line["messages"], line["tools"])
        tokens, logits = checkpoint.greedy(ids)
        out.append({"id": line["id"], "prompt_tokens": ids, "greedy_tokens": tokens, "text": checkpoint.text(tokens),
                    "first_logits": [round(float(x), 5) for x in logits]})
    return out


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--checkpoint", default=str(HERE / "checkpoint"))
    parser.add_argument("--limit", type=int, default=0, help="prompts a task")
    parser.add_argument("--needles", type=int, default=100)
    parser.add_argument("--show", type=int, default=0, help="wrong answers to print a task")
    parser.add_argument("--fast", action="store_true")
    parser.add_argument("--write", action="store_true", help="write scores.json")
    parser.add_argument("--reference", action="store_true", help="write heldout/reference.json instead of scoring")
    args = parser.parse_args()
    checkpoint = Checkpoint(args.checkpoint)
    by_task, conversations = {}, {}
    for kind in heldout.KINDS + [("needle_4k", "needle_4k", False, args.needles)]:
        for line, conversation in heldout.make_both(*kind):
            by_task.setdefault(line["task"], []).append(line)
            conversations.setdefault(line["task"], []).append(conversation)
    written = heldout.read("prompts.jsonl") + heldout.read("needle.jsonl")
    if args.reference:
        chosen = [lines[0] for task, lines in by_task.items()]
        with open(HERE / "heldout" / "reference.json", "w") as file:
            json.dump(reference(checkpoint, chosen), file, ensure_ascii=False)
        return
    made = {line["id"]: line for lines in by_task.values() for line in lines}
    assert all(made.get(line["id"], line) == line for line in written), "the held-out files are not what the code makes"
    scores = {}
    for task, lines in by_task.items():
        lines = lines[:args.limit] if args.limit else lines
        started, right, shown = time.time(), 0, 0
        if args.fast:
            if torch.cuda.is_available():
                checkpoint.model.cuda()
            step = 1 if task == "needle_4k" else 8
            right = round(exact(checkpoint.model, checkpoint.tokenizer, conversations[task][:len(lines)], step) * len(lines))
        for line in [] if args.fast else lines:
            text = checkpoint.text(checkpoint.greedy(checkpoint.prompt_ids(line["messages"], line["tools"]))[0])
            ok = is_right(line, text)
            right += ok
            if not ok and shown < args.show:
                shown += 1
                print(task, "|", line["messages"][1]["content"][-300:], "| wanted", json.dumps(line["expect"]), "| got",
                      json.dumps(text))
        scores[task] = {"right": right, "of": len(lines), "share": round(right / len(lines), 4)}
        print(task, scores[task], f"{time.time() - started:.0f} s", flush=True)
    if args.write:
        (HERE / "scores.json").write_text(json.dumps(scores, indent=1) + "\n")


if __name__ == "__main__":
    main()
