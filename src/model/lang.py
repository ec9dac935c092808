"""The vocabulary of the controlled language and how it is split into training and held-out parts.

A word, a number pair or a phrasing belongs to one side for good: the side is a function of the thing itself
(a checksum), so no sample drawn on one side can use anything from the other.
"""
import json
import random
import zlib
from pathlib import Path

WORDS = Path(__file__).with_name("words.txt").read_text().split()
CONSONANTS = "b c d f g h j k l m n p r s t v w z br ch cl dr fl gr kr pl pr sh sk sl st th tr".split()
VOWELS = "a e i o u ai ea ee oo ou".split()
ENDS = [""] * 6 + "n r s t l m d k x ng nd".split()


def word_is_held(word):
    return zlib.crc32(word.lower().encode()) % 5 == 0


def pair_is_held(op, a, b):
    if op == "*":
        # A product cannot be worked out from its digits alone: the mirrored pair stays in training.
        return a > b and zlib.crc32(f"{a}*{b}".encode()) % 4 == 0
    return zlib.crc32(f"{a},{b}".encode()) % 10 == 0


TRAIN_WORDS = [w for w in WORDS if not word_is_held(w)]
HELD_WORDS = [w for w in WORDS if word_is_held(w)]


def vocabulary_pieces():
    """Pieces of words that are tokens. Words put together from them make every token a thing to copy."""
    path = Path(__file__).with_name("tokenizer.json")
    if not path.exists():
        return []
    vocab = json.loads(path.read_text())["model"]["vocab"]
    return sorted(t for t in vocab if t.isascii() and t.isalpha() and t.islower() and 2 <= len(t) <= 5)


PIECES = vocabulary_pieces()


class Lang:
    """Draws words, names, values and phrasings from one side of the split, and remembers what it drew."""

    def __init__(self, rng=None, held=False, rich=False):
        self.rng = rng or random.Random(0)
        self.held = held
        self.rich = rich  # more ways to say a thing than the model card promises; for runs that can afford them
        self.words = TRAIN_WORDS if not held else HELD_WORDS
        self.used = []
        self.phrasing = []
        self.pairs = []

    def forget(self):
        self.used, self.phrasing, self.pairs = [], [], []

    def chance(self, p):
        return self.rng.random() < p

    def choice(self, items):
        return self.rng.choice(items)

    def phrase(self, train, held):
        text = self.rng.choice(held if self.held else train)
        self.phrasing.append(text)
        return text

    def real(self):
        word = self.rng.choice(self.words)
        self.used.append(word)
        return word

    def pseudo(self, least=1, most=2):
        while True:
            word = "".join(
                self.rng.choice(CONSONANTS) + self.rng.choice(VOWELS) + self.rng.choice(ENDS)
                for _ in range(self.rng.randint(least, most)))
            if 3 <= len(word) <= 9 and word_is_held(word) == self.held:
                self.used.append(word)
                return word

    def pieced(self):
        while True:
            word = "".join(self.rng.choice(PIECES) for _ in range(self.choice([1, 1, 2, 2, 3])))
            if 3 <= len(word) <= 10 and word_is_held(word) == self.held:
                self.used.append(word)
                return word

    def word(self):
        r = self.rng.random()
        if self.held or not PIECES:
            return self.real() if r < 0.7 else self.pseudo()
        return self.real() if r < 0.45 else self.pieced() if r < 0.9 else self.pseudo()

    def name(self):
        return self.word().capitalize()

    def distinct(self, make, n, taken=()):
        out, seen = [], set(taken)
        while len(out) < n:
            item = make()
            if item not in seen:
                seen.add(item)
                out.append(item)
        return out

    def digits(self, least=1, most=4):
        n = self.rng.randint(least, most)
        return str(self.rng.randint(10 ** (n - 1) if n > 1 else 0, 10 ** n - 1))

    def code(self):
        letters = "".join(self.rng.choice("ABCDEFGHJKLMNPRSTUVWXYZ") for _ in range(self.rng.randint(1, 3)))
        return letters + self.choice(["", "-"]) + self.digits(2, 4)

    def text_value(self, spaces=True):
        """A value of a text field: a word or a name, sometimes several, a code or a number."""
        r = self.rng.random()
        if r < 0.3:
            return self.word()
        if r < 0.6:
            return self.name()
        if r < 0.7:
            return self.code()
        if r < 0.8:
            return self.digits(1, 5)
        if not spaces:
            return self.word()
        make = self.choice([self.word, self.name])
        return " ".join(make() for _ in range(self.choice([2, 2, 3])))
