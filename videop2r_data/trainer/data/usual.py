"""The usual answer of a question, counted over the training questions: what a guess without the clip takes.

- Among questions of the same text (case and spaces aside), if there are `ALIKE` or more: their most frequent
  reference answer. Of multiple choice the *text* of the right option counts, since letters change places, and
  only options that the question has can be guessed.
- Else among all questions of the same type: their most frequent reference answer; of multiple choice the most
  frequent *letter* among questions with as many options.

An answer that only one question has is not usual. Ties go to the first answer in alphabetical order.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from itertools import islice

from videop2r_data.trainer.data.examples import ENDLESS, Example
from videop2r_data.validators import option_set, reference_labels

ALIKE = 8
_Group = tuple[str, object]


class UsualAnswers:
    """Counts the reference answers of the training questions; of the endless stream the first 256.

    >>> from videop2r_data.schemas import DataType, ProblemType
    >>> asked = [Example(str(i), "How many?", (), ProblemType.NUMERICAL, DataType.VIDEO, None, answer, None)
    ...          for i, answer in enumerate("2223331")]
    >>> [UsualAnswers(asked[:5]).holds(one) for one in asked[2:4]]
    [True, False]
    """

    def __init__(self, examples: Sequence[Example]) -> None:
        self._counts: defaultdict[_Group, Counter[str]] = defaultdict(Counter)
        for example in islice(examples, 256 if len(examples) >= ENDLESS else None):
            for group, answer, _ in _guesses(example):
                self._counts[group][answer] += 1

    def holds(self, example: Example) -> bool | None:
        """Whether the usual answer of a question is the right one; None if it has none."""
        for group, right, on_offer in _guesses(example):
            counts = self._counts[group]
            known = [(-n, one) for one, n in counts.items() if n > 1 and (not on_offer or one in on_offer)]
            if known and (group[0] == "type" or counts.total() >= ALIKE):
                return min(known)[1] == right
        return None


def _guesses(example: Example) -> list[tuple[_Group, str, frozenset[str]]]:
    """Group, right answer in it, and what can be answered (empty: anything); the closest group first."""
    kind = example.problem_type.value
    asked = (kind, " ".join(example.problem.split()).casefold())
    said = letters = " ".join(example.reference.split()).casefold()
    on_offer: frozenset[str] = frozenset()
    right = reference_labels(example.reference, example.options) if example.options else None
    if right is not None:
        options = option_set(example.options)
        said = " / ".join(sorted(options.keys[options.labels[x]] for x in right))
        letters = " / ".join(sorted(right))
        on_offer = frozenset(options.keys) if len(right) == 1 else on_offer
    return [(("text", asked), said, on_offer), (("type", (kind, len(example.options))), letters, frozenset())]
