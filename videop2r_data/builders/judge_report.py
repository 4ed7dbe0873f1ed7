"""Labels that judges are measured on, and what a calibration says of each judge."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from videop2r_data.builders.people import People, compare_people, latest
from videop2r_data.errors import SourceError
from videop2r_data.schemas.base import Model
from videop2r_data.schemas.calibration import BadLabel, HumanLabel, read_labels
from videop2r_data.validators.agreement import Agreement


class JudgedLabel(Model):
    """One verdict beside its label."""

    judge: str
    model: str
    """As the server reports it; empty without an answer."""
    label: HumanLabel
    sufficient: bool | None
    """None: unscored."""
    why: str
    """The judge's words; of an unscored one, the reason."""
    latency_s: float | None
    """Seconds of the call that was answered; None where another run or a build made it."""


class JudgeReport(Model):
    """One judge on all labels."""

    name: str
    model: str
    prompt_sha256: str
    labels: int
    unscored: int
    """No verdict, no answer, or not asked for want of money: in none of the figures."""
    unanswered: int = 0
    """Of these, calls that got no answer: the same command asks them again."""
    unscored_why: str = ""
    """Of the unscored ones, the commonest reason; empty if there are none."""
    figures: Agreement
    cost_usd: float
    """What these answers cost at the judge's price, whoever paid for them; 0 without a price."""
    latency_s: float | None
    """Median seconds of a call; None if this work folder made none."""
    asked: int
    """Calls made in this run."""


class CalibrationReport(Model):
    """All judges on the same labels."""

    labels: int
    sufficient: int
    """Labels that say so."""
    repeated: int
    """Labels of one observation that say the same again: counted once."""
    bad: list[BadLabel]
    conflicts: list[str]
    """Samples whose observation people label both ways: left out of the judges' figures."""
    people: People = People()
    """How far the reviewers agree with each other, on every observation that several of them labelled."""
    judges: list[JudgeReport]
    complete: bool
    """False: money ran out before every judge had seen every label."""


class Labels(Model):
    """Labels that can be counted, and what is wrong with the others."""

    used: list[HumanLabel]
    repeated: int
    bad: list[BadLabel]
    conflicts: list[str]
    people: People = People()


def gather_labels(paths: Sequence[Path]) -> Labels:
    """Read label files; one label per observation, and none where people contradict each other.

    Of several labels of one reviewer for one observation the latest counts. What people say differently is no
    truth to measure a judge by; it counts in their own agreement.

    Raises:
        SourceError: a file cannot be read, or no label is left.
    """
    seen: dict[str, list[HumanLabel]] = {}
    bad: list[BadLabel] = []
    for path in paths:
        for found in read_labels(path):
            if isinstance(found, BadLabel):
                bad.append(found)
            else:
                texts = [found.problem, *found.options, found.reference, found.observation]
                seen.setdefault("\0".join(texts), []).append(found)
    said = {key: latest(same) for key, same in seen.items()}
    clear = {key: len({label.sufficient for label in labels}) == 1 for key, labels in said.items()}
    used = [labels[0] for key, labels in said.items() if clear[key]]
    if not used:
        why = f"; the first: {bad[0].where}: {bad[0].detail}" if bad else ""
        raise SourceError(
            f"no label that can be used in {', '.join(map(str, paths))} ({len(bad)} bad lines{why})",
            hint="mark samples in the gallery (p2r-data gallery) and export the marks",
        )
    return Labels(
        used=used,
        repeated=sum(len(same) - 1 for key, same in seen.items() if clear[key]),
        bad=bad,
        conflicts=[same[0].sample_id for key, same in seen.items() if not clear[key]],
        people=compare_people(list(said.values())),
    )
