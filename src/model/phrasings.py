"""Phrasings of every task, as parts that are either training parts or held-out parts, never both.

A prompt joins an opener and a body; a held-out prompt takes both from the held-out lists, so that each of its
(at least six times six) phrasings is made of parts that no training prompt contains.
"""

ARITH_OPEN = ["What is {e}?", "Compute {e}.", "Calculate {e}.", "How much is {e}?", "{e} = ?", "{e}", "Work out {e}.",
              "Tell me what {e} is.", "Please compute {e}.", "Solve {e}.", "I need the value of {e}.",
              "Can you calculate {e}?", "What do you get for {e}?", "Give the answer to {e}.", "What does {e} equal?",
              "Add it up: {e}", "My question is {e}.", "Find {e}.", "The task is {e}. What is the answer?",
              "Please answer: {e}"]
ARITH_OPEN_HELD = ["Evaluate {e}.", "Please work out {e} for me.", "Could you tell me {e}?", "Say how much {e} makes.",
                   "I would like to know {e}.", "Quick question: {e}?", "Do the sum {e}.", "What comes out of {e}?",
                   "Let us see {e}.", "Kindly give me {e}."]
ARITH_CLOSE = ["", "", "", " Thanks.", " Please.", " Thank you!", " I need it today."]
ARITH_CLOSE_HELD = ["", " Be exact.", " Much obliged.", " Cheers!"]
ARITH_EXPR_RICH = {"+": ["the sum of {a} and {b}", "{a} and {b} added together", "{a} + {b}"],
                   "-": ["the difference of {a} and {b}", "{a} take away {b}", "{a} - {b}"],
                   "*": ["the product of {a} and {b}", "{a} multiplied by {b}", "{a} x {b}"]}
ARITH_EXPR = {"+": ["{a} + {b}", "{a}+{b}", "{a} plus {b}"], "-": ["{a} - {b}", "{a}-{b}", "{a} minus {b}"],
              "*": ["{a} * {b}", "{a}*{b}", "{a} times {b}"]}
TOOL_OPEN = ["", "", "Please ", "Can you ", "I want to ", "I need you to ", "Could you please ", "We have to ",
             "Now ", "Go and ", "Help me to ", "It is time to ", "You should ", "My boss asked me to ", "Hello, please "]
TOOL_OPEN_HELD = ["Kindly ", "Would you ", "I would like you to ", "Let us ", "Be so good and ", "Today I must ",
                  "Hi there, can you "]
TOOL_SEP = [" with ", " for ", " using ", " where ", " and use ", " given "]
TOOL_SEP_HELD = [" by means of ", " having ", " taking ", " such that ", " based on ", " that has "]
TOOL_THEN = [" and then ", ", then ", ". Then ", ". Also ", ", and also ", ". After that "]
TOOL_THEN_HELD = [". Next ", ", afterwards ", ". When done, ", " plus ", ". Besides, ", " followed by "]
TOOL_ASSIGN_RICH = ["{p}: {v}", "{p} = {v}", "{p} is {v}", "{p} {v}", "the {p} {v}", "{p} set to {v}"]
TOOL_ASSIGN = ["{p}: {v}", "{p}: {v}", "{p} = {v}"]
ROUTE_OPEN = ["Route this message.", "Which label fits the message?", "Choose the right label.",
              "Classify the support message.", "Pick one label for this message.", "Assign a label.",
              "Sort the message.", "Where does this message belong?", "Label the text.", "Decide which team gets this.",
              "Tell me the label of the message.", ""]
ROUTE_OPEN_HELD = ["Send the message to its team.", "Name the queue that should get this.", "Put this into a category.",
                   "Select the label that matches.", "Who should handle the message?", "Triage the ticket.",
                   "Mark this message with a label."]
ROUTE_LABELS = ["Labels: ", "The labels are: ", "Rules: ", "Choose from: ", "Teams: ", "Words and labels: "]
ROUTE_LABELS_HELD = ["Pick among: ", "The queues are: ", "Categories: ", "Allowed labels: ", "Take one of: ", "Topics: "]
ROUTE_TEXT = ["Message: ", "Text: ", "The message is: ", "Customer: ", "It says: ", "Ticket: "]
ROUTE_TEXT_HELD = ["Mail: ", "The customer writes: ", "Content: ", "Here it is: ", "Note: ", "Request: "]

SUPPORT = ["My {k} does not work.", "I have a problem with the {k}.", "The {k} is wrong.", "Where is my {k}?",
           "I never got my {k}.", "Please look at the {k}.", "Why is the {k} so late?", "I lost my {k}.",
           "Can you help me with my {k}?", "The {k} I bought is broken.", "There is an error in the {k}.",
           "I am not happy with the {k}.", "When will the {k} be ready?", "We still wait for the {k}.",
           "How do I change my {k}?", "The {k} has been missing for days.", "Something is odd about my {k}.",
           "I want a new {k}.", "I was told that the {k} was fine but it is not.", "Nobody answers about my {k}."]
SUPPORT_HELD = ["My {k} failed again.", "It seems that the {k} got stuck.", "Could somebody check my {k}?",
                "The {k} stopped this morning.", "I cannot find the {k} anywhere.", "Our {k} looks strange.",
                "You forgot my {k}.", "I am waiting for the {k} since Monday.", "What happened to my {k}?",
                "Since the update the {k} is gone."]
SUPPORT_OPEN = ["", "", "", "Hello. ", "Hi, ", "Good morning. ", "Dear team, ", "Sorry, ", "Hey. "]
SUPPORT_OPEN_HELD = ["", "Good evening. ", "Dear all, ", "Excuse me, ", "Hi folks, "]
SUPPORT_CLOSE = ["", "", "", " Thanks.", " Please help.", " This is urgent.", " Best regards."]
SUPPORT_CLOSE_HELD = ["", " Kind wishes.", " I am upset.", " Reply soon."]

EXTRACT_ASK = ["Extract the field {f} as JSON.", "Give me the {f} as JSON.", "Return {f} as JSON.", "Get the {f}.",
               "What is the {f}? Answer in JSON.", "Find the field {f}.", "JSON with {f}, please.",
               "Extract {f} from the text.", "Read out the {f} as a JSON object.", "Field to extract: {f}",
               "I need the {f} in JSON.", "Take the {f} from this."]
EXTRACT_ASK_HELD = ["Pull out the {f} as JSON.", "Please fetch the value of {f}.", "Show the {f} in a JSON object.",
                    "Copy the field named {f} into JSON.", "Only the {f}, as JSON.", "Look up {f} and reply in JSON.",
                    "Output {f} in JSON form."]
EXTRACT_TEXT = ["Text: ", "Record: ", "Data: ", "Input: ", "", "Here is the text: ", "The text is: "]
EXTRACT_TEXT_HELD = ["Document: ", "Entry: ", "Source: ", "Content: ", "Form: ", "The record reads: "]

NEEDLE_FACT = ["The {a} of {n} is {v}.", "The {a} of {n} is {v}.", "Remember that the {a} of {n} is {v}.",
               "As everyone knows, the {a} of {n} is {v}.", "Note that the {a} of {n} is {v}.",
               "It is a fact that the {a} of {n} is {v}."]
NEEDLE_FACT_HELD = ["By the way, the {a} of {n} is {v}.", "Keep in mind that the {a} of {n} is {v}.",
                    "They say that the {a} of {n} is {v}.", "In the end the {a} of {n} is {v}.",
                    "Do not forget that the {a} of {n} is {v}.", "Between us, the {a} of {n} is {v}."]
NEEDLE_ASK = ["What is the {a} of {n}?", "Tell me the {a} of {n}.", "The {a} of {n}?", "Find the {a} of {n}.",
              "Give me the {a} of {n}.", "Say the {a} of {n}.", "Now, what is the {a} of {n}?", "Do tell the {a} of {n}."]
NEEDLE_ASK_HELD = ["Can you name the {a} of {n}?", "I forgot the {a} of {n}?", "Look up the {a} of {n}.",
                   "According to the text, what is the {a} of {n}?", "Please report the {a} of {n}.",
                   "Do you know the {a} of {n}?"]
FILLER = ["The {w} was near the {x}.", "A {w} and a {x} came by.", "Some people like {w} more than {x}.",
          "We saw the {w} in the {x}.", "Every {w} needs a {x}.", "It was a good day for the {w}.",
          "They talked about {w} and {x} all day.", "No {w} can be a {x}.", "She put the {w} on the {x}.",
          "He went home with the {w}.", "In the morning the {w} was still there.", "Then they went on to the {x}.",
          "This is not a {w} but a {x}.", "Nobody knew why the {w} was here."]
FILLER_HELD = ["There was a {w} next to the {x}.", "He likes the {w} and she likes the {x}.", "One {w} is like any {x}.",
               "At night the {w} was in the {x}.", "It is said that a {w} needs some {x}.", "The {w} went by.",
               "People came to see the {w} and the {x}.", "Later the {x} was not there."]
HELD_PARTS = {text.strip() for name, parts in list(globals().items()) if name.endswith("_HELD") for text in parts} - {""}
