"""Which letter each option of a question goes by: read once, used by prompts and scorers alike."""

from __future__ import annotations

import re
from functools import lru_cache
from itertools import pairwise
from typing import NamedTuple

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_LABELLED = re.compile(r"\s*[(\[（]?\s*([A-Za-z]|\d{1,2})\s*[)\]）.:：．、]\s*(.*)", re.DOTALL)


class LabelledOption(NamedTuple):
    """One option: its label as models are asked to print it, and its text without the label."""

    label: str
    text: str


@lru_cache(maxsize=8192)
def label_options(options: tuple[str, ...]) -> tuple[LabelledOption, ...]:
    """Split every option into label and text.

    Labels are read from the options only if all of them carry one and they rise (`A. x`, `(B) y`, `3) z`);
    otherwise the options go by position: A, B, C ...

    >>> label_options(("A. cat", "B. dog"))[1]
    LabelledOption(label='B', text='dog')
    >>> label_options(("2.", "7.", "3."))[2]
    LabelledOption(label='C', text='3.')
    """
    found = [_LABELLED.fullmatch(option) for option in options]
    read = [LabelledOption(m.group(1).upper(), m.group(2).strip()) for m in found if m is not None]
    if len(read) == len(options) and _rises([option.label for option in read]):
        return tuple(read)
    return tuple(LabelledOption(_by_position(i), option.strip()) for i, option in enumerate(options))


def _rises(labels: list[str]) -> bool:
    if not labels or labels[0] not in ("A", "1"):
        return False
    if labels[0] == "1":
        return labels == [str(i + 1) for i in range(len(labels))]
    return all(len(x) == 1 and x.isalpha() for x in labels) and all(a < b for a, b in pairwise(labels))


def _by_position(index: int) -> str:
    return LETTERS[index] if index < len(LETTERS) else str(index + 1)
