"""How far reviewers agree with each other: the bound of what any judge can be measured to."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from itertools import combinations

from videop2r_data.schemas.base import Model
from videop2r_data.schemas.calibration import HumanLabel
from videop2r_data.validators.agreement import Agreement, count_confusion, measure_agreement
from videop2r_data.validators.estimate import Estimate, wilson

UNNAMED = "(no name)"


class Reviewer(Model):
    """One reviewer."""

    name: str
    labels: int
    """Observations labelled."""
    sufficient: int
    """Labels that say so."""
    compared: int
    """Pairs of a label of this reviewer and one of another, of the same observation."""
    agreement: Estimate
    """Share of these pairs that say the same; Wilson interval."""


class ReviewerPair(Model):
    """Two reviewers on the observations that both labelled."""

    first: str
    second: str
    items: int
    figures: Agreement
    """With the first reviewer's labels as the truth: kappa and agreement do not depend on which is first."""


class People(Model):
    """All reviewers."""

    reviewers: tuple[Reviewer, ...] = ()
    items: int = 0
    """Observations that several reviewers labelled."""
    agreed: int = 0
    """Those that all of their reviewers label alike."""
    pairs: tuple[ReviewerPair, ...] = ()


def latest(labels: Sequence[HumanLabel]) -> list[HumanLabel]:
    """What each reviewer says last of one observation, in the order in which reviewers first appear.

    A label of a named reviewer replaces earlier ones by its time. Labels without a name may be of different
    people, and of contradicting labels without a time nobody knows which is the last: all of these stay.
    """
    by_name: dict[str, list[HumanLabel]] = {}
    for label in labels:
        by_name.setdefault(label.reviewer, []).append(label)
    found: list[HumanLabel] = []
    for name, own in by_name.items():
        newest = max(label.time for label in own)
        last = own if not name else [label for label in own if label.time == newest]
        found += last if len({label.sufficient for label in last}) > 1 else last[-1:] if name else last
    return found


def compare_people(said: Sequence[Sequence[HumanLabel]]) -> People:
    """Agreement of every reviewer with the others, and of every two of them.

    Args:
        said: for each observation, one label per reviewer.
    """
    labels: defaultdict[str, list[bool]] = defaultdict(list)
    pairs: defaultdict[tuple[str, str], list[tuple[bool, bool]]] = defaultdict(list)
    several = [item for item in said if len(item) > 1]
    for item in said:
        for label in item:
            labels[label.reviewer or UNNAMED].append(label.sufficient)
        for a, b in combinations(sorted(item, key=lambda label: label.reviewer), 2):
            pairs[a.reviewer or UNNAMED, b.reviewer or UNNAMED].append((a.sufficient, b.sufficient))
    return People(
        reviewers=tuple(_reviewer(name, given, pairs) for name, given in sorted(labels.items())),
        items=len(several),
        agreed=sum(len({label.sufficient for label in item}) == 1 for item in several),
        pairs=tuple(
            ReviewerPair(first=a, second=b, items=len(both), figures=measure_agreement(count_confusion(both)))
            for (a, b), both in sorted(pairs.items())
        ),
    )


def _reviewer(
    name: str, given: Sequence[bool], pairs: dict[tuple[str, str], list[tuple[bool, bool]]]
) -> Reviewer:
    mine = [pair for names, both in pairs.items() if name in names for pair in both]
    return Reviewer(
        name=name,
        labels=len(given),
        sufficient=sum(given),
        compared=len(mine),
        agreement=wilson(sum(a == b for a, b in mine), len(mine)),
    )
