#!/usr/bin/env python3
"""Makes the golden files of the text tests, once: python text_fixtures.py
Needs transformers, tokenizers and jinja2. Writes ../resources/text/: a byte-level BPE tokenizer with Llama-3's pattern and
special tokens, templates' renderings, and token ids as transformers gives them."""

import datetime
import json
import os
import pathlib
import random

os.environ["HF_HUB_OFFLINE"] = "1"
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers, AddedToken  # noqa: E402
from transformers import AutoTokenizer, PreTrainedTokenizerFast  # noqa: E402
from transformers.utils.chat_template_utils import _compile_jinja_template  # noqa: E402

from jinja_cases import CASES  # noqa: E402

HERE = pathlib.Path(__file__).parent
OUT = HERE.parent / "resources" / "text"
NOW = datetime.datetime(2026, 3, 7, 15, 4, 5)

SPECIALS = ["<|begin_of_text|>", "<|end_of_text|>"] + [f"<|reserved_special_token_{i}|>" for i in range(2)] + [
    "<|finetune_right_pad_id|>", "<|reserved_special_token_2|>", "<|start_header_id|>", "<|end_header_id|>",
    "<|eom_id|>", "<|eot_id|>", "<|python_tag|>"]
PATTERN = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
           r"|\s+(?!\S)|\s+")

WORDS = ("the a of to and in is it you that he was for on are with as his they be at one have this from or had by hot "
         "word but what some we can out other were all there when up use your how said an each she which do their time "
         "if will way about many then them write would like so these her long make thing see him two has look more day "
         "could go come did number sound no most people my over know water than call first who may down side been now "
         "find any new work part take get place made live where after back little only round man year came show every "
         "good me give our under name weather city celsius function arguments parameters type object string integer "
         "properties required description thinking detailed off on user assistant system TOOLCALL AVAILABLE_TOOLS "
         "TOOL_RESPONSE think grüße straße café 東京 привет").split()


def tokenizer_files(folder):
    rng = random.Random(7)
    corpus = [" ".join(rng.choice(WORDS) for _ in range(12)) + rng.choice(".!?\n") for _ in range(400)]
    corpus += ['{"name": "get_weather", "arguments": {"city": "Paris", "days": 3}}', "<think>\nso 12 + 30 = 42\n</think>\n\n42",
               "<TOOLCALL>[{\"name\": \"f\", \"arguments\": {}}]</TOOLCALL>", "    indented\n\ttext  here\n\n\n"] * 20
    tok = Tokenizer(models.BPE(ignore_merges=True))
    tok.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(PATTERN), "isolated", invert=False),
        pre_tokenizers.ByteLevel(add_prefix_space=False, trim_offsets=True, use_regex=False)])
    tok.decoder = decoders.ByteLevel(add_prefix_space=True, trim_offsets=True, use_regex=True)
    tok.train_from_iterator(corpus, trainers.BpeTrainer(
        vocab_size=900, initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()), show_progress=False))
    base = tok.get_vocab_size()
    tok.add_special_tokens([AddedToken(s, special=True, normalized=False) for s in SPECIALS])
    tok.post_processor = processors.Sequence([
        processors.ByteLevel(add_prefix_space=True, trim_offsets=False, use_regex=True),
        processors.TemplateProcessing(single="<|begin_of_text|> $A", pair="<|begin_of_text|> $A <|begin_of_text|> $B:1",
                                      special_tokens=[("<|begin_of_text|>", base)])])
    folder.mkdir(parents=True, exist_ok=True)
    tok.save(str(folder / "tokenizer.json"), pretty=False)
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<|begin_of_text|>", "eos_token": "<|eot_id|>",
              "clean_up_tokenization_spaces": True, "model_max_length": 131072,
              "model_input_names": ["input_ids", "attention_mask"]}
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n")
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": base + 1}) + "\n")
    return AutoTokenizer.from_pretrained(str(folder))


TOOL_A = {"type": "function", "function": {"name": "get_weather", "description": "The weather of a city — now.",
          "parameters": {"type": "object", "properties": {"city": {"type": "string"}, "days": {"type": "integer", "minimum": 1}},
                         "required": ["city"]}}}
TOOL_B = {"type": "function", "function": {"name": "add", "description": "Adds \"two\" numbers <b>",
          "parameters": {"type": "object", "properties": {"z": {"type": "number", "default": 1.0}, "a": {"type": "number"}}}}}


def call(name, arguments, id="c1"):
    return {"type": "function", "id": id, "function": {"name": name, "arguments": arguments}}


CHATS = {
    "one user turn": ([{"role": "user", "content": "How is the weather?"}], None),
    "system and spaces": ([{"role": "system", "content": "  detailed thinking on \n"},
                           {"role": "user", "content": "\n 2 + 2? "}], None),
    "history with thinking": ([{"role": "system", "content": "Be brief."}, {"role": "user", "content": "2 + 2?"},
                               {"role": "assistant", "content": "<think>\n2 + 2\n</think>\n\n 4 "},
                               {"role": "user", "content": "and 3 + 3?"}], None),
    "other scripts": ([{"role": "user", "content": "Grüße aus 東京 😀👨‍👩‍👧 — привет\u00a0\u2028x\u0000y"}], None),
    "two tools": ([{"role": "user", "content": "Weather in Zürich?"}], [TOOL_A, TOOL_B]),
    "tools and system": ([{"role": "system", "content": "detailed thinking on"}, {"role": "user", "content": "Hi"}], [TOOL_A]),
    "call and result": ([{"role": "user", "content": "Weather?"},
                         {"role": "assistant", "content": "", "tool_calls": [call("get_weather", {"city": "Köln", "days": 2})]},
                         {"role": "tool", "content": "{\"temp\": 21.5}", "tool_call_id": "c1", "name": "get_weather"},
                         {"role": "assistant", "content": "21.5 degrees."}, {"role": "user", "content": "Thanks"}], [TOOL_A]),
    "two calls, two results": ([{"role": "user", "content": "Add"},
                                {"role": "assistant", "content": "Sure.", "tool_calls": [call("add", {"z": 1, "a": 2.0}), call("add", {}, "c2")]},
                                {"role": "tool", "content": "3", "tool_call_id": "c1"},
                                {"role": "tool", "content": "0", "tool_call_id": "c2"}], [TOOL_B]),
    "empty content": ([{"role": "user", "content": ""}], None),
    "tools, no user": ([{"role": "system", "content": "x"}], [TOOL_A]),
}


def compile_with_clock(template):
    compiled = _compile_jinja_template(template)
    return lambda **context: compiled.render(strftime_now=NOW.strftime, **context)


def outcome(render, **context):
    try:
        return {"text": render()(**context)}
    except Exception as e:  # the kind and the words of whatever went wrong are the golden value
        return {"error": type(e).__name__, "message": str(e)}


def main():
    OUT.mkdir(parents=True, exist_ok=True)
    tok = tokenizer_files(OUT / "tokenizer")

    small = [{"name": n, "template": t, "context": c, **outcome(lambda: compile_with_clock(t), **c)} for n, t, c in CASES]
    (OUT / "jinja.json").write_text(json.dumps(small, ensure_ascii=True, indent=1) + "\n")

    chats = []
    for file in sorted((HERE / "templates").glob("*.jinja")):
        template = file.read_text()
        for name, (messages, tools) in CHATS.items():
            r = outcome(lambda: compile_with_clock(template), messages=messages, tools=tools, documents=None,
                        add_generation_prompt=True, bos_token="<|begin_of_text|>", eos_token="<|eot_id|>")
            if "text" in r:
                r["ids"] = tok(r["text"], add_special_tokens=False)["input_ids"]
                if "strftime_now" not in template:
                    direct = tok.apply_chat_template(messages, tools=tools, chat_template=template,
                                                     add_generation_prompt=True, tokenize=True, return_dict=False)
                    assert direct == r["ids"], name
            chats.append({"template": file.name, "name": name, "messages": messages, "tools": tools, **r})
    (OUT / "chats.json").write_text(json.dumps(chats, ensure_ascii=True, indent=1) + "\n")

    rng = random.Random(11)
    texts = ["", " ", "  ", "\n", "a", "Hello world", "  two  spaces  ", "line\n\n\nline\r\n\ttab", "it's we'LL I'd", "1234567890",
             "x=1;y=[2,3]", "Grüße 東京 привет 😀👨‍👩‍👧", "e\u0301 \u200b \ufeff \ue000\uf8ff", "\u0000\u0001", "<think>\n</think>", "<TOOLCALL>[{",
             "a" * 700, "word " * 700]
    alphabet = "ab Z09\n\t'.,<|>_{}\"é東😀\u00a0ß"
    texts += ["".join(rng.choice(alphabet) for _ in range(rng.randint(1, 60))) for _ in range(60)]
    encoded = [{"text": t, "ids": tok(t, add_special_tokens=False)["input_ids"]} for t in texts]
    size = len(tok)
    decoded = []
    for _ in range(120):
        ids = [rng.randrange(size) for _ in range(rng.randint(1, 40))]
        decoded.append({"ids": ids, "text": tok.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)})
    (OUT / "tokens.json").write_text(json.dumps({"encoded": encoded, "decoded": decoded}, ensure_ascii=True, indent=1) + "\n")


if __name__ == "__main__":
    main()
