"""Exact numbers with a root or π, as geometry answers print them: `2√{3}`, `9π cm^{2}`, `3/2√{3}`."""

from __future__ import annotations

import math
import re

from videop2r_data.schemas.reasons import ScoreReason
from videop2r_data.validators.quantity import Quantity
from videop2r_data.validators.units import canonical_unit

_TOKEN = re.compile(
    r"\s*(?:(?P<num>\d+(?:\.\d+)?)|(?P<root>√|\\?sqrt)|(?P<pi>π|\\pi\b|\bpi\b)|(?P<op>[-+*/(){}]))", re.ASCII
)
_DEEP = 8


class _SurdError(Exception):
    """The text is no surd."""


class _Reader:
    """Recursive descent over `sum := product (± product)*`, juxtaposition multiplies, braces are brackets."""

    def __init__(self, text: str) -> None:
        self.text, self.at, self.depth = text, 0, 0

    def peek(self) -> tuple[str, str]:
        match = _TOKEN.match(self.text, self.at)
        return ("", "") if match is None else (match.lastgroup or "", match.group(match.lastgroup or 0))

    def take(self) -> tuple[str, str]:
        match = _TOKEN.match(self.text, self.at)
        if match is None or match.lastgroup is None:
            raise _SurdError
        self.at = match.end()
        return match.lastgroup, match.group(match.lastgroup)

    def sum(self) -> float:
        sign = -1.0 if self.peek()[1] == "-" else 1.0
        if self.peek()[1] in ("-", "+"):
            self.take()
        total = sign * self.product()
        while self.peek()[1] in ("+", "-"):
            total += self.product() if self.take()[1] == "+" else -self.product()
        return total

    def product(self) -> float:
        value = self.factor()
        while True:
            kind, text = self.peek()
            if text == "*":
                self.take()
                value *= self.factor()
            elif text == "/":
                self.take()
                bottom = self.factor()
                if bottom == 0:
                    raise _SurdError
                value /= bottom
            elif kind in ("root", "pi") or text in ("(", "{"):
                value *= self.factor()
            else:
                return value

    def factor(self) -> float:
        kind, text = self.take()
        if kind == "num":
            return float(text)
        if kind == "pi":
            return math.pi
        if kind == "root":
            inside = self.factor()
            if inside < 0:
                raise _SurdError
            return math.sqrt(inside)
        if text in ("(", "{"):
            self.depth += 1
            if self.depth > _DEEP:
                raise _SurdError
            value = self.sum()
            if self.take()[1] != {"(": ")", "{": "}"}[text]:
                raise _SurdError
            self.depth -= 1
            return value
        raise _SurdError


def parse_surd(text: str) -> Quantity | ScoreReason:
    """Read a root or a multiple of π with its unit.

    Returns:
        A quantity with a float value, or NOT_A_NUMBER.
    """
    reader = _Reader(text)
    try:
        value = reader.sum()
    except (_SurdError, OverflowError, ValueError):
        return ScoreReason.NOT_A_NUMBER
    unit = canonical_unit(text[reader.at :])
    if unit is None or not math.isfinite(value):
        return ScoreReason.NOT_A_NUMBER
    return Quantity(value, None, 0, unit)
