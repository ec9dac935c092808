"""Builds tokenizer.json: byte-level BPE with the Llama-3 special tokens, made for copying.

Three choices keep the texts short and every word spelled the same wherever it stands:
 - a word is cut apart from the marks around it, and a space belongs to the word before it;
 - every digit is a token of its own;
 - the fixed JSON around tool schemas and calls is cut as whole pieces.
Run it as a script to train the vocabulary anew; the trainer only loads the result.
"""
import collections
import json
import random
import re
from pathlib import Path

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

import phrasings
from lang import Lang

PATH = Path(__file__).with_name("tokenizer.json")
SPECIAL = ["<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eom_id|>",
           "<|eot_id|>"]
SCAFFOLDS = ['", "parameters": {"type": "object", "properties": {"', '": {"type": "string", "description": "',
             '": {"type": "integer", "description": "', '": {"type": "number", "description": "',
             '": {"type": "string"', '": {"type": "integer"', '": {"type": "number"', '}}, "required": ["',
             '", "description": "', '", "arguments": {"', '{"name": "']
FIXED_WORDS = ["detailed thinking on off system user assistant AVAILABLE TOOLS TOOLCALL TOOL RESPONSE think No tool fits "
               "this request ones tens hundreds thousands borrow JSON Labels Message"]


def pattern():
    fixed = "|".join(re.sub(r"([{}\[\]])", r"\\\1", s) for s in SCAFFOLDS)
    return rf"{fixed}|\p{{L}}+ ?|\p{{N}}|(?:(?!{fixed})[^\p{{L}}\p{{N}}])+"


def phrase_words():
    """Words of the phrasings (both sides: this is the language itself, not its copied vocabulary) by frequency."""
    found = collections.Counter()
    lists = [v for v in vars(phrasings).values() if isinstance(v, list)]
    lists += [v for d in vars(phrasings).values() if isinstance(d, dict) and "+" in d for v in d.values()]
    for items in lists + [FIXED_WORDS] * 3:
        for text in set(items):
            found.update(re.findall(r"(?<![{\w])[A-Za-z]+(?![}\w])", text))
    return found


def train(size=1600):
    rng = random.Random(7)
    lang = Lang(rng)
    found = phrase_words()
    spaced = [w for w, n in found.most_common() if len(w) > 1][:330]
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(r"\p{L}+|\p{N}|" + pattern()), "isolated"), byte_level])
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    core = size - len(spaced) - len(SPECIAL) - 3
    corpus = [lang.real() for _ in range(40000)] + [lang.pseudo() for _ in range(15000)] + [w for w, n in found.items() for _ in range(20 + 20 * n)]
    trainer = trainers.BpeTrainer(vocab_size=core - 260, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(corpus, trainer)
    data = json.loads(tokenizer.to_str())
    merges = [tuple(m) for m in data["model"]["merges"]]
    vocab = data["model"]["vocab"]

    def add(left, right):
        if left + right not in vocab:
            vocab[left + right] = len(vocab)
            merges.append((left, right))
        return left + right

    def chain(text):
        """Merges from the left until the text is one token."""
        whole = "".join(s for s, _ in byte_level.pre_tokenize_str(text))
        pieces = list(whole)
        merged = True
        ranks = {m: i for i, m in enumerate(merges)}
        while merged and len(pieces) > 1:
            best = min(range(len(pieces) - 1), key=lambda i: ranks.get((pieces[i], pieces[i + 1]), 1 << 30))
            merged = (pieces[best], pieces[best + 1]) in ranks
            if merged:
                pieces[best:best + 2] = [pieces[best] + pieces[best + 1]]
        while len(pieces) > 1:
            pieces[:2] = [add(pieces[0], pieces[1])]

    marks = ['": "', '", "', ": ", "; ", ", ", ". ", " = ", " + ", " - ", " * ", "\n\n", '"}, "', '"}}', '"}]', ".\n",
             ' "', '" ', '",', '"]}}', '>[', ']</', '>\n', '\n</', '>\n\n', '}, ', '}}', "? ", " (", ") ", '{"', '"}',
             '"]}}, ', '}}}', '}}}, ', '"}}, ', '"}}]</', '\n\n<', '": ', ', "', ".\n\n", "), "]
    for text in marks + SCAFFOLDS:
        chain(text)
    for word in sorted(w for w in found if len(w) > 1):
        chain(word)
    for word in spaced:
        chain(word + " ")
    first = len(vocab)
    data["model"]["merges"] = [list(m) for m in merges]
    data["pre_tokenizer"]["pretokenizers"][0]["pattern"] = {"Regex": pattern()}
    data["added_tokens"] = [{"id": first + i, "content": s, "single_word": False, "lstrip": False, "rstrip": False,
                             "normalized": False, "special": True} for i, s in enumerate(SPECIAL)]
    PATH.write_text(json.dumps(data, ensure_ascii=False, indent=1) + "\n")
    return first + len(SPECIAL)


def load():
    return Tokenizer.from_file(str(PATH))


if __name__ == "__main__":
    print("tokens:", train())
