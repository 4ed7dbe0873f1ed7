"""Several wordings of every question.

`{at}` is `in clip 17`, `{At}` the same with a capital, `{label}` is `clip 17`.
"""

from __future__ import annotations

from random import Random

PROBLEMS: dict[str, tuple[str, ...]] = {
    "direction": (
        "{At}, which way does the {a} move?",
        "In which direction does the {a} travel {at}?",
        "Watch {label}. Where is the {a} heading?",
    ),
    "colour": (
        "{At}, what colour is the {a}?",
        "Which colour does the {a} have {at}?",
        "Look at {label}. Name the colour of the {a}.",
    ),
    "shape": (
        "{At}, what shape is the {a} thing?",
        "Which shape does the only {a} thing have {at}?",
        "Look at {label}. What kind of shape is drawn in {a}?",
    ),
    "order": (
        "{At}, which shape can be seen first?",
        "Watch {label}. Which of these shapes comes into view before the others?",
        "Which shape is the earliest to appear {at}?",
    ),
    "faster": (
        "{At}, which of the two is faster, the {a} or the {b}?",
        "Compare the {a} with the {b} {at}. Which one travels faster?",
        "Watch {label}. Does the {a} or the {b} have the higher speed?",
    ),
    "place": (
        "{At}, in which corner region is the {a}?",
        "Where in the frame does the {a} lie {at}?",
        "Look at {label}. Which part of it holds the {a}?",
    ),
    "beside": (
        "{At}, on which side of the {b} is the {a}?",
        "Seen from the {b}, where is the {a} {at}?",
        "Look at {label}. Is the {a} left or right of the {b}?",
    ),
    "exists": (
        "{At}, is there a {a}?",
        "Does a {a} appear anywhere {at}?",
        "Look at {label}. Can a {a} be seen?",
    ),
    "count": (
        "{At}, how many shapes are there?",
        "What is the number of shapes {at}?",
        "Count the shapes {at}.",
    ),
    "count_some": (
        "{At}, how many {a} are there?",
        "What is the number of {a} {at}?",
        "Look at {label}. How many {a} can you find?",
    ),
    "count_moving": (
        "{At}, how many shapes move?",
        "How many of the shapes change their place {at}?",
        "Watch {label}. What is the number of shapes in motion?",
    ),
    "count_choice": (
        "{At}, how many shapes are in view altogether?",
        "Pick the total number of shapes {at}.",
    ),
    "interval": (
        "{At}, from when to when is the {a} visible? Give the start and the end in seconds.",
        "During which seconds can the {a} be seen {at}?",
        "Watch {label}. Mark the time span in which the {a} is shown, in seconds.",
    ),
    "seconds": (
        "{At}, for how many seconds is the {a} visible?",
        "How long, in seconds, can the {a} be seen {at}?",
        "Watch {label}. Estimate how many seconds the {a} stays in view.",
    ),
    "box": (
        "{At}, give the bounding box of the {a} in pixels of the {side} x {side} frame.",
        "Where exactly is the {a} {at}? Answer with its box in pixels; the frame is {side} x {side}.",
        "Locate the {a} {at} by its box [x1, y1, x2, y2] on the {side} x {side} pixel grid.",
    ),
    "describe": (
        "{At}, what does the {a} do?",
        "Describe the behaviour of the {a} {at} in one sentence.",
        "Watch {label}. Say in a sentence how the {a} behaves.",
    ),
    "portray": (
        "{At}, describe the {a} in one sentence: its size and its place.",
        "How large is the {a} {at}, and where is it? Answer in one sentence.",
    ),
    "read": (
        "{At}, what is written on the sign?",
        "Transcribe the text of the sign {at}.",
        "Read the sign {at} aloud, word by word.",
    ),
    "read_choice": (
        "{At}, which of these texts is on the sign?",
        "Pick the text that the sign shows {at}.",
    ),
    "level": (
        "{At}, how full is the bar, in percent?",
        "Estimate the fill of the bar {at}, from 0 to 100 percent.",
        "Look at {label}. What percentage of the bar is filled?",
    ),
    "level_end": (
        "{At}, how full is the bar at the very end, in percent?",
        "What percentage of the bar is filled when {label} ends?",
    ),
    "trend": (
        "{At}, what happens to the fill of the bar?",
        "How does the bar change {at}?",
    ),
    "sum": (
        "{Puzzle} A box holds {things}. How many shapes does it hold in all?",
        "{Puzzle} Someone draws {things}. How many shapes are drawn altogether?",
        "{Puzzle} On a table lie {things}. What is the total number of shapes?",
    ),
    "most": (
        "{Puzzle} A box holds {things}. Which kind is the most frequent?",
        "{Puzzle} On a table lie {things}. Of which kind are there the most?",
    ),
}
"""Question kind -> its wordings."""


NUMBER_WORDS = (
    *("zero", "one", "two", "three", "four", "five", "six"),
    *("seven", "eight", "nine", "ten", "eleven", "twelve"),
)


def phrase(kind: str, label: str, rng: Random, **slots: str) -> str:
    """One wording of a question, filled in."""
    at = f"in {label}"
    return rng.choice(PROBLEMS[kind]).format(
        at=at, At=at.capitalize(), label=label, Puzzle=f"{label.capitalize()}:", **slots
    )


def listing(things: list[str]) -> str:
    """`a, b and c`."""
    return things[0] if len(things) == 1 else f"{', '.join(things[:-1])} and {things[-1]}"


def plural(name: str) -> str:
    """`red circles`, `blue crosses`."""
    return f"{name}es" if name.endswith("s") else f"{name}s"


def number(value: float) -> str:
    """Shortest text of a number, at most three decimals."""
    return f"{round(float(value), 3):g}"
