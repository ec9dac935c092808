"""The vocabulary of the controlled language and how it is split into training and held-out parts.

A word, a number pair or a phrasing belongs to one side for good: the side is a function of the thing itself
(a checksum), so no sample drawn on one side can use anything from the other.
"""
import json
import random
import re
import zlib
from pathlib import Path

from phrasings import HELD_PARTS

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
    return sorted(t for t in vocab if t.isascii() and t.isalpha() and len(t) >= 2)


TOKENS = vocabulary_pieces()
PIECES = [t for t in TOKENS if t.islower() and len(t) <= 5]
# Words that requests are made of whatever they ask for.
COMMON = [w for w in """a an the this that these those it its is are was be been am do does did have has had can could will
would should may must not no yes and or but so if as at by for from in into of off on out over to up with about after
all also always any before below best both down each every few first good great here how just last like little look
made make many me mine more most much my need never new next now old once one only other our own part please quick
right same say see she he her his him some soon still such sure take tell thank thanks them then there they thing time
today two us very want way we well what when where which while who why you your dear hello hi team""".split()
          if not word_is_held(w)]
# What scrambling leaves alone: the slots, and the core of a planted fact.
FIXED = re.compile(r"(the \{a\} of \{n\} is \{v\}|the \{a\} of \{n\}|\{\w\})")


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
        if not self.held and text and self.chance(0.6):
            scrambled = self.scramble(text)
            if scrambled.strip() not in HELD_PARTS:
                text = scrambled
        self.phrasing.append(text)
        return text

    def scramble(self, text):
        """A phrasing with some or all of its words replaced and others put between: what it says matters no more,
        only where its slots stand. Without it a model learns the few phrasings by heart and fails on any other."""
        share, out = self.choice([0.3, 0.7, 1.0]), []
        for i, part in enumerate(FIXED.split(text)):
            if i % 2:
                out.append(part)
                continue
            runs = re.findall(r"[A-Za-z]+|[^A-Za-z]+", part)
            for k, run in enumerate(runs):
                if run.isalpha():
                    if self.chance(share):
                        runs[k] = self.any_word().capitalize() if run[0].isupper() else self.any_word()
                    elif self.chance(0.1):
                        runs[k] = run.swapcase() if len(run) == 1 else run[0].swapcase() + run[1:]
                elif run.strip() in (".", "?", "!", ":", ",") and self.chance(0.15):
                    runs[k] = run.replace(run.strip(), self.choice(".?!:,"))
            words = [k for k, run in enumerate(runs) if run.isalpha()]
            if words and self.chance(0.3):
                runs[self.choice(words)] += "".join(" " + self.any_word() for _ in range(self.rng.randint(1, 4)))
            elif words and len(words) > 2 and self.chance(0.3):
                k = self.choice(words[:-1])
                del runs[k:k + 2]
            out.append("".join(runs))
        return "".join(out)

    def any_word(self):
        """A word that means nothing here: common ones, those of the vocabulary, single tokens."""
        r = self.rng.random()
        if r < 0.4:
            return self.choice(COMMON)
        if r < 0.65 or not TOKENS:
            return self.word()
        while True:
            word = self.choice(TOKENS)
            if not word_is_held(word):
                return word

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
