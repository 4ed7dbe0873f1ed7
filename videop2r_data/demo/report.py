"""Hold a build of a demo world against its planted labels: precision and recall of each step."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from videop2r_data.demo.scene import Profile, expected_rejection
from videop2r_data.demo.world import defect_of, read_spec, read_world
from videop2r_data.errors import SourceError
from videop2r_data.schemas import Model, Outcome, RejectReason, Stage, Unit

Row = tuple[str, Outcome, Stage | None, RejectReason | str | None]
"""(problem_id, outcome, stage, reason); stage and reason are None (or empty) for kept rows."""


class StepScore(Model):
    """How well one step found the defects that are planted for it."""

    step: str
    planted: int
    """Rows that this step must reject."""
    rejected: int
    """Rows that it rejected."""
    right: int
    """Rows of both kinds whose reason is an expected one."""
    precision: Unit | None
    """right / rejected; None when nothing was rejected."""
    recall: Unit | None
    """right / planted; None when nothing was planted."""


class DefectScore(Model):
    """How the rows of one planted kind fared."""

    defect: str
    """A `Defect` value, or `none`."""
    rows: int
    expected: str
    """`stage/reason`, or `kept`."""
    right: int


class Miss(Model):
    """One row that did not go where its label says."""

    problem_id: str
    kind: str
    """Kind of the question."""
    defect: str
    expected: str
    got: str


SEES_THE_SCENE = (
    "The judge of the demo world reads the scene itself: its figures show that the step does what it should, "
    "not how well a judge that has only the text would do."
)
"""Beside the figures of a judge that no real one can be."""


class DemoReport(Model):
    """Planted labels against what a build did."""

    profile: Profile
    judged: int
    """Rows with an outcome that says something (kept or rejected)."""
    failed: int
    """Rows that a step could not look at: left out."""
    steps: tuple[StepScore, ...]
    defects: tuple[DefectScore, ...]
    misses: tuple[Miss, ...]
    slipped: tuple[str, ...]
    """problem_ids of kept rows with a defect that this profile does not look for: known limits, no misses."""
    judge_note: str = ""
    """What has to be said beside the judge's figures; empty: nothing."""

    def rows(self) -> list[tuple[str, str, str, str, str, str]]:
        """The table: a header, then one line a step."""
        head = ("step", "planted", "rejected", "right", "precision", "recall")
        return [
            head,
            *(
                (s.step, str(s.planted), str(s.rejected), str(s.right), _share(s.precision), _share(s.recall))
                for s in self.steps
            ),
        ]

    def defect_rows(self) -> list[tuple[str, str, str, str]]:
        """A second table: a header, then one line a planted kind."""
        head = ("planted", "rows", "expected", "right")
        return [head, *((d.defect, str(d.rows), d.expected, str(d.right)) for d in self.defects)]


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def evaluate(
    folder: Path,
    outcomes: Iterable[Row],
    profile: Profile = "robust",
    *,
    temperatures: Mapping[str, float] | None = None,
) -> DemoReport:
    """Precision and recall of the steps of a build against the labels of its world.

    Args:
        folder: the world.
        outcomes: one per row of the build, in any order; rows of the world without one are left out.
        profile: that of the build's verify step.
        temperatures: problem_id -> temperature of the completion that counts, for builds with several
            attempts (their defects are drawn anew); None: all at 0.

    Raises:
        SourceError: no world there, or an outcome for a problem_id that it does not have.
    """
    got = {str(row[0]): row for row in outcomes}
    spec, judged, failed = read_spec(folder), [], 0
    for sample in read_world(folder):
        row = got.pop(str(sample.problem_id), None)
        if row is None:
            continue
        if row[1] is Outcome.FAILED:
            failed += 1
            continue
        defect = defect_of(sample, spec, (temperatures or {}).get(row[0], 0.0))
        expected = expected_rejection(defect, profile)
        found = row[2:] if row[1] is Outcome.REJECTED else None
        label = defect.value if defect else "none"
        judged.append(_Judged(row[0], sample.question.kind, label, expected, found))
    if got:
        raise SourceError(f"no problem_id {next(iter(got))!r} in this demo world", where=str(folder))
    return _report(profile, judged, failed)


class _Judged(NamedTuple):
    """A kept or rejected row: what its label says, and what the build did. None: kept."""

    problem_id: str
    kind: str
    defect: str
    expected: tuple[Stage, RejectReason] | None
    found: tuple[Stage | None, RejectReason | str | None] | None

    @property
    def right(self) -> bool:
        return self.expected == self.found

    @property
    def wanted(self) -> str:
        return f"{self.expected[0]}/{self.expected[1]}" if self.expected else "kept"


def _report(profile: Profile, judged: Sequence[_Judged], failed: int) -> DemoReport:
    steps = [_step(s, judged) for s in Stage]
    always = (Stage.VERIFY.value, Stage.JUDGE.value)
    kinds = Counter((r.defect, r.wanted) for r in judged)
    right = Counter((r.defect, r.wanted) for r in judged if r.right)
    return DemoReport(
        profile=profile,
        judged=len(judged),
        failed=failed,
        steps=tuple(s for s in steps if s.step in always or s.planted or s.rejected),
        defects=tuple(
            DefectScore(defect=kind[0], expected=kind[1], rows=rows, right=right[kind])
            for kind, rows in sorted(kinds.items())
        ),
        misses=tuple(
            Miss(
                problem_id=r.problem_id,
                kind=r.kind,
                defect=r.defect,
                expected=r.wanted,
                got=f"{r.found[0]}/{r.found[1]}" if r.found else "kept",
            )
            for r in judged
            if not r.right
        ),
        slipped=tuple(r.problem_id for r in judged if r.right and r.defect != "none" and not r.expected),
    )


def _step(stage: Stage, judged: Sequence[_Judged]) -> StepScore:
    due = [r for r in judged if r.expected and r.expected[0] is stage]
    rejected = sum(r.found is not None and r.found[0] is stage for r in judged)
    right = sum(r.right for r in due)
    return StepScore(
        step=stage.value,
        planted=len(due),
        rejected=rejected,
        right=right,
        precision=right / rejected if rejected else None,
        recall=right / len(due) if due else None,
    )
