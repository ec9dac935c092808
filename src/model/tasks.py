"""The tasks of the controlled language: each maker returns one conversation with its right answers.

A conversation is {"task", "thinking", "tools", "turns": [{"user", "think", "answer"} ...]}; an answer is text or a list
of calls. The same makers serve training and held-out prompts; only the Lang they draw from differs.
"""
import json
import re

import phrasings as P

NO_TOOL = "No tool fits this request."


def target_text(turn, thinking):
    """What the model has to write for a turn, without the end-of-turn token."""
    answer = turn["answer"]
    if isinstance(answer, list):
        answer = "<TOOLCALL>" + json.dumps(answer, ensure_ascii=False) + "</TOOLCALL>"
    if thinking:
        return f"<think>\n{turn['think']}\n</think>\n\n{answer}"
    return answer


# ---------------------------------------------------------------- arithmetic

PLACES = ["ones", "tens", "hundreds"]


def arith_pair(lang):
    from lang import pair_is_held
    r = lang.rng.random()
    while True:
        if r < 0.1:
            op, a, b = "*", lang.rng.randint(2, 12), lang.rng.randint(2, 12)
        else:
            op = "+" if r < 0.55 else "-"
            a, b = (lang.rng.randint(*lang.choice([(10, 99), (100, 999), (100, 999)])) for _ in range(2))
            if op == "-" and a < b:
                a, b = b, a
        if pair_is_held(op, a, b) == lang.held:
            return op, a, b


def arith_steps(op, a, b):
    """The written method, column by column from the right; every line has a fixed shape, whatever the numbers.

    A product is one line with the smaller factor first, the way a times table has it.
    """
    if op == "*":
        return a * b, f"{min(a, b)}*{max(a, b)}={a * b}"
    lines, carry = [f"{a:03d}{op}{b:03d}"], 0
    x, y = f"{a:03d}"[::-1], f"{b:03d}"[::-1]
    for place, p, q in zip(PLACES, map(int, x), map(int, y)):
        if op == "+":
            s = p + q + carry
            lines.append(f"{place} {p}+{q}+{carry}={s:02d}")
            carry = s // 10
        else:
            s = p - q - carry
            borrow = 1 if s < 0 else 0
            lines.append(f"{place} {p}-{q}-{carry}={borrow}{s + 10 * borrow}")
            carry = borrow
    return (a + b if op == "+" else a - b), "\n".join(lines)


def arithmetic(lang, thinking):
    turns = []
    for _ in range(1 if lang.held or lang.chance(0.5) else 3):
        op, a, b = arith_pair(lang)
        forms = P.ARITH_EXPR_RICH if lang.rich and lang.chance(0.3) else P.ARITH_EXPR
        expr = lang.choice(forms[op]).format(a=a, b=b)
        text = lang.phrase(P.ARITH_OPEN, P.ARITH_OPEN_HELD).format(e=expr)
        text += lang.phrase(P.ARITH_CLOSE, P.ARITH_CLOSE_HELD)
        if not lang.held and lang.chance(0.2):
            text = noise(lang) + text
        if lang.chance(0.5):
            text = text[0].upper() + text[1:]
        result, steps = arith_steps(op, a, b)
        lang.pairs.append([op, a, b])
        turns.append({"user": text, "think": steps, "answer": str(result) if thinking else f"{a} {op} {b} = {result}"})
    return {"task": "arithmetic", "thinking": thinking, "tools": [], "turns": turns}


def noise(lang):
    """Words that mean nothing: with them in training, an opener never seen is just more noise."""
    words = " ".join(lang.any_word() for _ in range(lang.rng.randint(1, 6)))
    return words.capitalize() + lang.choice([". ", ": ", ", ", " "])


# ---------------------------------------------------------------- tools

def make_param(lang):
    name = lang.word()
    if lang.chance(0.2):
        name += "_" + lang.word()
    kind = "string" if lang.chance(0.68) else lang.choice(["integer", "integer", "integer", "number"])
    return {"name": name, "type": kind}


def make_tool(lang, verb, noun):
    name = f"{verb}_{noun}"
    params, seen = [], set()
    for _ in range(lang.choice([1, 1, 1, 2, 2, 3])):
        param = make_param(lang)
        if param["name"] not in seen:
            seen.add(param["name"])
            params.append(param)
    return {"name": name, "params": params}


def tool_schema(lang, tool, style):
    words = tool["name"].replace("_", " ")
    properties = {}
    for p in tool["params"]:
        properties[p["name"]] = {"type": p["type"]}
        if style["param_text"]:
            properties[p["name"]]["description"] = lang.choice(
                ["The {}", "the {} to use", "Value of {}", "{}"]).format(p["name"].replace("_", " "))
    out = {"name": tool["name"]}
    if style["text"]:
        out["description"] = lang.choice(["{}.", "Use it to {}.", "Tool to {}", "{}", "{} for the user."]).format(words)
        out["description"] = out["description"][0].upper() + out["description"][1:]
    out["parameters"] = {"type": "object", "properties": properties}
    if style["required"]:
        out["parameters"]["required"] = list(properties)
    return {"type": "function", "function": out}


def param_value(lang, kind):
    """A value and the way a request spells it."""
    if kind == "integer":
        text = lang.digits(1, 4)
        return int(text), text
    if kind == "number":
        if lang.chance(0.3):  # a number may be a whole one
            text = lang.digits(1, 3)
            return int(text), text
        text = lang.digits(1, 3) + "." + str(lang.rng.randint(1, 9))
        return float(text), text
    value = lang.text_value()
    if lang.rich and " " not in value and lang.chance(0.2):
        return value, value
    return value, f'"{value}"'


def request(lang, tool):
    """One request for a tool: the words of its name, then each parameter by name with its value."""
    arguments, said = {}, []
    assign = lang.choice(P.TOOL_ASSIGN_RICH if lang.rich and lang.chance(0.4) else P.TOOL_ASSIGN)
    for p in tool["params"]:
        value, spelled = param_value(lang, p["type"])
        arguments[p["name"]] = value
        label = p["name"].replace("_", " ") if lang.rich and lang.chance(0.4) else p["name"]
        said.append(assign.format(p=label, v=spelled))
    if lang.rich and lang.chance(0.2):
        lang.rng.shuffle(said)
    args = ", ".join(said)
    if len(said) > 1 and lang.chance(0.2):
        args = ", ".join(said[:-1]) + " and " + said[-1]
    verb, noun = tool["name"].split("_")
    words = verb + lang.choice([" ", " the ", " the ", " a ", " my "]) + noun
    return words + lang.phrase(P.TOOL_SEP, P.TOOL_SEP_HELD) + args, {"name": tool["name"], "arguments": arguments}


def tools_task(kind):
    def make(lang, thinking):
        full = lang.held or lang.rich
        n = lang.choice([2, 3, 4, 5] if full else [2, 2, 2, 2, 3, 3, 4, 5])
        verbs = lang.distinct(lang.word, n + 1)
        nouns = lang.distinct(lang.word, n + 1, verbs)
        for i in range(1, n + 1):
            # Near misses: two tools that share their verb or their noun.
            if lang.chance(0.15):
                verbs[i] = verbs[i - 1]
            elif lang.chance(0.1):
                nouns[i] = nouns[i - 1]
        tools = [make_tool(lang, v, o) for v, o in zip(verbs, nouns)]
        lang.rng.shuffle(tools)
        absent, tools = tools[0], tools[1:]
        style = {"text": lang.chance(0.5 if full else 0.25), "param_text": lang.chance(0.12 if full else 0.06),
                 "required": lang.chance(0.4 if full else 0.2)}
        turns = []
        for i in range(1 if lang.held or lang.chance(0.25) else 4):
            what = kind if i == 0 else lang.choice(["tool_call", "tool_call", "two_calls", "no_tool"])
            opener = lang.phrase(P.TOOL_OPEN, P.TOOL_OPEN_HELD)
            if not lang.held and lang.chance(0.15):
                opener = noise(lang) + opener
            if what == "no_tool":
                body, _ = request(lang, absent)
                answer, think = NO_TOOL, "none"
            elif what == "tool_call":
                body, call = request(lang, lang.choice(tools))
                answer, think = [call], call["name"]
            else:
                pair = lang.rng.sample(tools, 2) if lang.chance(0.9) else [lang.choice(tools)] * 2
                (one, first), (two, second) = (request(lang, t) for t in pair)
                body = one + lang.phrase(P.TOOL_THEN, P.TOOL_THEN_HELD) + two
                answer, think = [first, second], first["name"] + "\n" + second["name"]
            text = opener + body
            text = (text[0].upper() + text[1:] if lang.chance(0.4) else text) + lang.choice(["", ".", "."])
            turns.append({"user": text, "think": think, "answer": answer})
        return {"task": kind, "thinking": thinking, "tools": [tool_schema(lang, t, style) for t in tools],
                "turns": turns}
    return make


# ---------------------------------------------------------------- routing

def routing(lang, thinking):
    n = lang.rng.randint(2, 5)
    labels = lang.distinct(lang.word, n)
    if lang.chance(0.15):
        labels = [a + "_" + b for a, b in zip(labels, lang.distinct(lang.word, n))]
    flat = set(labels)
    rules = []
    for label in labels:
        words = lang.distinct(lang.word, lang.choice([1, 1, 2]), flat)
        flat.update(words)
        rules += [(word, label) for word in words]
    lang.rng.shuffle(rules)
    form = lang.choice(["{}: {}", "{} = {}", "{} -> {}"])
    listed = lang.choice(["; ", ", ", "\n"]).join(form.format(*rule) for rule in rules)
    gap = lang.choice([" ", "\n"])
    opener = lang.phrase(P.ROUTE_OPEN, P.ROUTE_OPEN_HELD)
    head = lang.phrase(P.ROUTE_LABELS, P.ROUTE_LABELS_HELD) + listed + "." + gap
    turns = []
    for i in range(1 if lang.held or lang.chance(0.4) else 3):
        said, label = lang.choice(rules)
        text = lang.phrase(P.ROUTE_TEXT, P.ROUTE_TEXT_HELD) + support_message(lang, said, flat)
        if i == 0:
            text = (opener + gap if opener else "") + head + text
        turns.append({"user": text, "think": said, "answer": label})
    return {"task": "routing", "thinking": thinking, "tools": [], "turns": turns}


def support_message(lang, said, flat):
    """A message with the word that counts, and with none of the others."""
    while True:
        message = any_support_message(lang, said, flat)
        if len(flat & set(re.findall(r"[A-Za-z]+", message))) == 1:
            return message


def any_support_message(lang, said, flat):
    if not lang.held and lang.chance(0.2):  # any words around the one that counts
        words = lang.distinct(lang.any_word, lang.rng.randint(2, 9), flat)
        words.insert(lang.rng.randint(0, len(words)), said)
        message = " ".join(words) + lang.choice([".", "!", "?", ""])
        return message[0].upper() + message[1:] if words[0] != said else message
    message = lang.phrase(P.SUPPORT_OPEN, P.SUPPORT_OPEN_HELD) + lang.phrase(P.SUPPORT, P.SUPPORT_HELD).format(k=said)
    message += lang.phrase(P.SUPPORT_CLOSE, P.SUPPORT_CLOSE_HELD)
    if not lang.held and lang.chance(0.3):
        extra = " ".join(lang.distinct(lang.word, lang.rng.randint(2, 5), flat)).capitalize() + "."
        message = message + " " + extra if lang.chance(0.5) else extra + " " + message
    return '"' + message + '"' if lang.chance(0.3) else message


# ---------------------------------------------------------------- extraction

def extraction(lang, thinking):
    n = lang.rng.randint(2, 6)

    def field():
        r = lang.rng.random()
        return lang.word() if r < 0.8 else lang.word() + "_" + lang.word()

    fields = lang.distinct(field, n)
    values = [lang.text_value() for _ in fields]
    form, joiner = lang.choice(["{}: {}", "{}: {}", "{} = {}", '{}: "{}"']), lang.choice(["; ", ", ", "\n"])
    body = joiner.join(form.format(f, v) for f, v in zip(fields, values))
    label = lang.phrase(P.EXTRACT_TEXT, P.EXTRACT_TEXT_HELD)
    asked = lang.rng.sample(range(n), 1 if lang.held or lang.chance(0.4) else min(n, 3))
    turns = []
    for k, i in enumerate(asked):
        name = '"' + fields[i] + '"' if lang.chance(0.4) else fields[i]
        text = lang.phrase(P.EXTRACT_ASK, P.EXTRACT_ASK_HELD).format(f=name)
        if not lang.held and lang.chance(0.15):
            text = noise(lang) + text
        if k == 0:
            gap = lang.choice([" ", "\n", "\n\n"])
            text = text + gap + label + body if lang.chance(0.6) else label + body + gap.replace(" ", "\n") + text
        answer = json.dumps({fields[i]: values[i]}, ensure_ascii=False)
        turns.append({"user": text, "think": fields[i], "answer": answer})
    return {"task": "extraction", "thinking": thinking, "tools": [], "turns": turns}


# ---------------------------------------------------------------- needle

def needle_task(low, high):
    """A fact planted in filler; low and high bound the length in words."""
    def make(lang, thinking):
        facts = lang.rng.randint(1, 3)
        names = lang.distinct(lang.name, facts)
        attributes = [lang.word() for _ in names]
        values = [lang.choice([lang.word(), lang.name(), lang.digits(2, 5), lang.code()]) for _ in names]
        planted = [lang.phrase(P.NEEDLE_FACT, P.NEEDLE_FACT_HELD).format(a=a, n=n, v=v)
                   for a, n, v in zip(attributes, names, values)]
        goal = int(low * (high / low) ** lang.rng.random())
        kinds = P.FILLER_HELD if lang.held else P.FILLER
        count, filler = 0, []
        rng = lang.rng
        strange = rng.choice([0, 0.1, 0.5])  # share of sentences that are just words
        while count < goal:
            if not lang.held and rng.random() < strange:
                sentence = " ".join(lang.any_word() for _ in range(rng.randint(3, 9))).capitalize() + "."
            else:
                sentence = rng.choice(kinds).format(w=lang.real(), x=lang.real())
            count += sentence.count(" ") + 1
            filler.append(sentence)
        spots = sorted((rng.randrange(len(filler) + 1) for _ in planted), reverse=True)
        for spot, fact in zip(spots, planted):
            filler.insert(spot, fact)
        asked = [rng.randrange(facts)] if lang.held or lang.chance(0.3) else rng.sample(range(facts), facts)
        turns = []
        for k, i in enumerate(asked):
            text = lang.phrase(P.NEEDLE_ASK, P.NEEDLE_ASK_HELD).format(a=attributes[i], n=names[i])
            if k == 0:
                story = " ".join(filler)
                gap = lang.choice([" ", "\n", "\n\n"])
                text = story + gap + text if lang.chance(0.85) else text + gap + story
            turns.append({"user": text, "think": attributes[i] + " of " + names[i], "answer": values[i]})
        return {"task": "needle", "thinking": thinking, "tools": [], "turns": turns}
    return make


# ---------------------------------------------------------------- copying, for the first minutes of training

def copying(lang, thinking):
    """Plain lookups with many answers a prompt: the cheapest way to grow the copying heads that all tasks need."""
    n = lang.rng.randint(3, 8)
    keys = lang.distinct(lang.word, n)
    values = [lang.text_value() for _ in keys]
    text = lang.choice([", ", "; ", "\n"]).join(f"{k}: {v}" for k, v in zip(keys, values))
    order = lang.rng.sample(range(n), n)
    answer = "{" + ", ".join(f'"{keys[i]}": "{values[i]}"' for i in order) + "}"
    text = text + "\nJSON: " + " ".join(keys[i] for i in order)
    return {"task": "copying", "thinking": thinking, "tools": [], "turns": [{"user": text, "think": "", "answer": answer}]}


MAKERS = {
    "arithmetic": arithmetic,
    "tool_call": tools_task("tool_call"),
    "two_calls": tools_task("two_calls"),
    "no_tool": tools_task("no_tool"),
    "routing": routing,
    "extraction": extraction,
    "needle": needle_task(40, 300),
    "needle_mid": needle_task(300, 1000),
    "needle_long": needle_task(1000, 2300),
    "needle_4k": needle_task(2180, 2230),
    "copying": copying,
}


def sample(lang, task, thinking=None):
    lang.forget()
    if thinking is None:
        thinking = lang.chance(0.35 if task == "arithmetic" else 0.05)
    return MAKERS[task](lang, thinking)
