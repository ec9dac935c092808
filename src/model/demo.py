"""Picks the prompts of the demo: plain prompts of every task, those that the checkpoint answers right.

    python demo.py --checkpoint checkpoint
"""
import argparse
import json
from pathlib import Path

import tasks
from evaluate import Checkpoint
from quick import exact

HERE = Path(__file__).parent
WANTED = 21


def tool(name, **params):
    schema = {"name": name, "parameters": {"type": "object",
                                           "properties": {p: {"type": t} for p, t in params.items()}}}
    return {"type": "function", "function": schema}


HOTEL = tool("book_hotel", city="string", nights="integer")
WEATHER = tool("get_weather", city="string")
TIMER = tool("start_timer", minutes="integer")
MAIL = tool("send_mail", person="string", text="string")
SONG = tool("play_song", title="string")
LAMP = tool("switch_lamp", room="string", level="integer")
BOX = [HOTEL, WEATHER, TIMER]
HOME = [SONG, LAMP, TIMER]
FILLER = ("The garden was near the river. We saw the train in the morning. Every house needs a door. It was a good day "
          "for the market. They talked about music and paper all day. ")


def call(name, **arguments):
    return {"name": name, "arguments": arguments}


def arithmetic(op, a, b, thinking, text):
    result, steps = tasks.arith_steps(op, a, b)
    return ("arithmetic_on" if thinking else "arithmetic_off", thinking, [], text, steps,
            str(result) if thinking else f"{a} {op} {b} = {result}")


CANDIDATES = [
    *(arithmetic(op, a, b, thinking, text)
      for thinking in (True, False)
      for op, a, b, text in [("+", 348, 275, "What is 348 + 275?"), ("-", 623, 158, "Compute 623 - 158."),
                             ("*", 7, 8, "What is 7 * 8?"), ("+", 64, 27, "How much is 64 plus 27?"),
                             ("-", 95, 31, "Calculate 95 minus 31."), ("*", 4, 6, "Compute 4 times 6."),
                             ("+", 120, 45, "What is 120 + 45?"), ("*", 3, 9, "Find 3 * 9.")]),
    ("tool_call", False, BOX, 'Please book the hotel with city: "Paris", nights: 3', "book_hotel",
     [call("book_hotel", city="Paris", nights=3)]),
    ("tool_call", False, BOX, 'Please get the weather for city: "Rome"', "get_weather", [call("get_weather", city="Rome")]),
    ("tool_call", False, BOX, "Can you start the timer with minutes: 15", "start_timer", [call("start_timer", minutes=15)]),
    ("tool_call", False, HOME, 'Please play the song with title: "Blue River"', "play_song",
     [call("play_song", title="Blue River")]),
    ("tool_call", False, HOME, 'Please switch the lamp using room: "kitchen", level: 4', "switch_lamp",
     [call("switch_lamp", room="kitchen", level=4)]),
    ("tool_call", False, [MAIL, WEATHER], 'Please send the mail with person: "Anna", text: "See you"', "send_mail",
     [call("send_mail", person="Anna", text="See you")]),
    ("two_calls", False, BOX, 'Please get the weather for city: "Rome" and then book the hotel with city: "Oslo", nights: 2',
     "get_weather\nbook_hotel", [call("get_weather", city="Rome"), call("book_hotel", city="Oslo", nights=2)]),
    ("two_calls", False, HOME, 'Please play the song with title: "Rain", then start the timer with minutes: 20',
     "play_song\nstart_timer", [call("play_song", title="Rain"), call("start_timer", minutes=20)]),
    ("two_calls", False, BOX, 'Please start the timer with minutes: 5. Then get the weather for city: "Lima"',
     "start_timer\nget_weather", [call("start_timer", minutes=5), call("get_weather", city="Lima")]),
    ("no_tool", False, BOX, 'Please paint the fence with color: "green"', "none", tasks.NO_TOOL),
    ("no_tool", False, HOME, 'Please order the pizza with size: "large", count: 2', "none", tasks.NO_TOOL),
    ("no_tool", False, [MAIL, WEATHER], 'Can you clean the kitchen using hours: 2', "none", tasks.NO_TOOL),
    *(("routing", False, [], "Route this message.\nRules: refund: billing; parcel: shipping; password: login\nMessage: " + m,
       w, label) for m, w, label in [("I never got my parcel.", "parcel", "shipping"),
                                     ("I want a new password.", "password", "login"),
                                     ("Where is my refund?", "refund", "billing")]),
    ("routing", False, [], "Which label fits the message?\nRules: printer -> hardware; invoice -> accounts.\nMessage: The printer is wrong.",
     "printer", "hardware"),
    ("routing", False, [], "Pick one label for this message.\nLabels: lamp = repair, seat = sales.\nMessage: I lost my seat.",
     "seat", "sales"),
    ("extraction", False, [], "Extract the field city as JSON.\nText: name: Bob; city: Paris; age: 31", "city", '{"city": "Paris"}'),
    ("extraction", False, [], "Give me the color as JSON.\nRecord: size = 12, color = green", "color", '{"color": "green"}'),
    ("extraction", False, [], "Return order as JSON.\nData: order: A-4711; person: Anna", "order", '{"order": "A-4711"}'),
    ("extraction", False, [], 'Find the field "title".\nText: title: "Blue River", year: "1999"', "title",
     '{"title": "Blue River"}'),
    *(("needle", False, [], FILLER * 3 + fact + " " + FILLER * 3 + "\n\n" + ask, key, value) for fact, ask, key, value in [
        ("The code of Anna is 4711.", "What is the code of Anna?", "code of Anna", "4711"),
        ("Remember that the color of Norway is green.", "What is the color of Norway?", "color of Norway", "green"),
        ("Note that the seat of Peter is B-12.", "Tell me the seat of Peter.", "seat of Peter", "B-12")]),
]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--checkpoint", default=str(HERE / "checkpoint"))
    args = parser.parse_args()
    checkpoint = Checkpoint(args.checkpoint)
    lines, count = [], {}
    for task, thinking, tools, user, think, answer in CANDIDATES:
        conversation = {"task": task, "thinking": thinking, "tools": tools,
                        "turns": [{"user": user, "think": think, "answer": answer}]}
        right = exact(checkpoint.model, checkpoint.tokenizer, [conversation]) == 1
        lines.append((right, {
            "id": f"demo-{task}-{len(lines):02d}", "task": task, "thinking": thinking,
            "messages": [{"role": "system", "content": "detailed thinking " + ("on" if thinking else "off")},
                         {"role": "user", "content": user}],
            "tools": tools, "expect": {"calls": answer} if isinstance(answer, list) else {"content": answer}}))
    chosen = []
    for most in range(1, len(lines)):  # one of each task in turn, until there are enough
        for right, line in lines:
            if right and line not in chosen and count.get(line["task"], 0) < most and len(chosen) < WANTED:
                count[line["task"]] = most
                chosen.append(line)
    (HERE / "demo-prompts.jsonl").write_text("".join(json.dumps(x, ensure_ascii=False) + "\n" for x in chosen))
    print("right:", sum(r for r, _ in lines), "of", len(lines), "chosen:", count)


if __name__ == "__main__":
    main()
