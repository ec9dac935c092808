"""Conversations to token ids. The text is that of chat_template.jinja (evaluate.py compares the two)."""
import json

import tasks


def head(role):
    return f"<|start_header_id|>{role}<|end_header_id|>\n\n"


def prompt_parts(conversation):
    """Pieces of text with a flag: is it something the model has to write?"""
    thinking = conversation["thinking"]
    text = "<|begin_of_text|>" + head("system") + "detailed thinking " + ("on" if thinking else "off")
    if conversation["tools"]:
        text += "\n\n<AVAILABLE_TOOLS>["
        text += ", ".join(json.dumps(t["function"], ensure_ascii=False) for t in conversation["tools"])
        text += "]</AVAILABLE_TOOLS>"
    text += "<|eot_id|>"
    for turn in conversation["turns"]:
        yield text + head("user") + turn["user"] + "<|eot_id|>" + head("assistant"), False
        yield tasks.target_text(turn, thinking) + "<|eot_id|>", True
        text = ""


def encode(tokenizer, conversation):
    """Token ids, and for each of them whether it is to be written by the model."""
    ids, wanted = [], []
    for text, mine in prompt_parts(conversation):
        piece = tokenizer.encode(text, add_special_tokens=False).ids
        ids += piece
        wanted += [mine] * len(piece)
    return ids, wanted
