"""Temporal and spatial grounding: intersection over union, alike under both profiles."""

from __future__ import annotations

from tests.validators.case import Case


def _both(prediction: str, reference: str, value: float | None, why: str, reason: str = "") -> Case:
    return Case(prediction, reference, value, value, why, reason=reason)


TEMPORAL = (
    _both("[0, 10]", "[0, 10]", 1, "the same"),
    _both("[5, 15]", "[0, 10]", 1 / 3, "5 of 15"),
    _both("[2, 4]", "[0, 10]", 0.2, "inside: 2 of 10"),
    _both("[0, 40]", "[0, 10]", 0.25, "around: 10 of 40"),
    _both("[0, 8]", "[2, 10]", 0.6, "6 of 10"),
    _both("[10, 20]", "[0, 10]", 0, "they touch", "mismatch"),
    _both("[30, 40]", "[0, 10]", 0, "apart", "mismatch"),
    _both("(0, 10)", "[0, 10]", 1, "round brackets"),
    _both("0, 10", "[0, 10]", 1, "no brackets"),
    _both("0-10", "[0, 10]", 1, "a hyphen"),
    _both("0 \u2013 10 s", "[0, 10]", 1, "a dash and a unit"),
    _both("0s to 10s", "[0, 10]", 1, "seconds"),
    _both("from 0 to 10 seconds", "[0, 10]", 1, "words"),
    _both("00:00 to 00:10", "[0, 10]", 1, "a clock"),
    _both("1:00:00 - 1:00:10", "[3600, 3610]", 1, "a clock with hours"),
    _both("\uff3b0\uff0c10\uff3d", "[0, 10]", 1, "full-width"),
    _both("\\boxed{[0, 10]}", "[0, 10]", 1, "boxed"),
    _both("[10, 0]", "[0, 10]", 0, "reversed", "bad_interval"),
    _both("[5, 5]", "[0, 10]", 0, "empty interval", "bad_interval"),
    _both("[0]", "[0, 10]", 0, "one number", "bad_interval"),
    _both("[0, 5, 10]", "[0, 10]", 0, "three numbers", "bad_interval"),
    _both("[-1, 10]", "[0, 10]", 0, "before the video", "bad_interval"),
    _both("[nan, 10]", "[0, 10]", 0, "nan", "bad_interval"),
    _both("[0, inf]", "[0, 10]", 0, "infinity", "bad_interval"),
    _both("at the start", "[0, 10]", 0, "words", "bad_interval"),
    _both("", "[0, 10]", 0, "empty", "empty_answer"),
    _both("9" * 400, "[0, 10]", 0, "junk", "too_long"),
    _both("[0, 10]", "[10, 0]", None, "a reversed reference", "bad_reference"),
    _both("[0, 10]", "", None, "no reference", "bad_reference"),
)

SPATIAL = (
    _both("[0, 0, 2, 2]", "[0, 0, 2, 2]", 1, "the same"),
    _both("[1, 1, 3, 3]", "[0, 0, 2, 2]", 1 / 7, "1 of 7"),
    _both("[2, 0, 6, 4]", "[0, 0, 4, 4]", 1 / 3, "8 of 24"),
    _both("[0, 0, 5, 5]", "[0, 0, 10, 10]", 0.25, "a quarter"),
    _both("[0, 0, 10, 6]", "[0, 0, 10, 10]", 0.6, "60 of 100"),
    _both("[2, 0, 4, 2]", "[0, 0, 2, 2]", 0, "they touch", "mismatch"),
    _both("[5, 5, 6, 6]", "[0, 0, 2, 2]", 0, "apart", "mismatch"),
    _both("(0, 0), (2, 2)", "[0, 0, 2, 2]", 1, "two corners"),
    _both("0 0 2 2", "[0, 0, 2, 2]", 1, "blanks"),
    _both('{"bbox": [0, 0, 2, 2]}', "[0, 0, 2, 2]", 1, "JSON"),
    _both("x1=0, y1=0, x2=2, y2=2", "[0, 0, 2, 2]", 1, "named"),
    _both("[0.0, 0.0, 2.0, 2.0]", "[0, 0, 2, 2]", 1, "decimals"),
    _both("[\u22121, 0, 1, 1]", "[-1, 0, 1, 1]", 1, "U+2212"),
    _both("[2, 2, 0, 0]", "[0, 0, 2, 2]", 0, "swapped corners", "bad_box"),
    _both("[0, 0, 2]", "[0, 0, 2, 2]", 0, "three numbers", "bad_box"),
    _both("[0, 0, 2, 2, 2]", "[0, 0, 2, 2]", 0, "five numbers", "bad_box"),
    _both("[0, 0, 0, 2]", "[0, 0, 2, 2]", 0, "no width", "bad_box"),
    _both("[0, 0, nan, 2]", "[0, 0, 2, 2]", 0, "nan", "bad_box"),
    _both("[0, 0, 1e999, 2]", "[0, 0, 2, 2]", 0, "beyond a float", "bad_box"),
    _both("left of the car", "[0, 0, 2, 2]", 0, "words", "bad_box"),
    _both("", "[0, 0, 2, 2]", 0, "empty", "empty_answer"),
    _both("[0, 0, 2, 2]", "[2, 2, 0, 0]", None, "a reference with swapped corners", "bad_reference"),
    _both("[0, 0, 2, 2]", "", None, "no reference", "bad_reference"),
)
