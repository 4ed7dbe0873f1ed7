"""Hold a build of a demo world against its planted labels: precision and recall of each step."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path

from videop2r_data.demo.question import Defect, Profile, SceneSample, expected_rejection
from videop2r_data.demo.world import planted, read_spec, read_world
from videop2r_data.errors import SourceError
from videop2r_data.schemas import DemoSpec, Model, Outcome, RejectReason, Stage, Unit

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
    spec = read_spec(folder)
    tally = _Tally(profile)
    for sample in read_world(folder):
        row = got.pop(str(sample.problem_id), None)
        if row is not None:
            tally.add(sample, _defect_of(sample, spec, temperatures or {}), row)
    if got:
        raise SourceError(f"no problem_id {next(iter(got))!r} in this demo world", where=str(folder))
    return tally.report()


def _defect_of(sample: SceneSample, spec: DemoSpec, temperatures: Mapping[str, float]) -> Defect | None:
    temperature = temperatures.get(str(sample.problem_id), 0.0)
    if temperature <= 0:
        return sample.defect
    kind = sample.question.problem_type
    return planted(spec, sample.scene.index, sample.number, kind, temperature)


class _Tally:
    """Counts, row by row."""

    def __init__(self, profile: Profile) -> None:
        self.profile = profile
        self.planted: Counter[Stage] = Counter()
        self.rejected: Counter[Stage] = Counter()
        self.right: Counter[Stage] = Counter()
        self.kinds: dict[tuple[str, str], list[int]] = {}
        self.misses: list[Miss] = []
        self.slipped: list[str] = []
        self.judged = self.failed = 0

    def add(self, sample: SceneSample, defect: Defect | None, row: Row) -> None:
        problem_id, outcome, stage, reason = row
        if outcome is Outcome.FAILED:
            self.failed += 1
            return
        self.judged += 1
        expected = expected_rejection(defect, sample.sample(), self.profile)
        if expected:
            self.planted[expected[0]] += 1
        if outcome is Outcome.REJECTED and stage is not None:
            self.rejected[stage] += 1
        wanted = f"{expected[0].value}/{'|'.join(sorted(expected[1]))}" if expected else "kept"
        if expected is None:
            right = outcome is Outcome.KEPT
        else:
            right = outcome is Outcome.REJECTED and stage is expected[0] and reason in expected[1]
            self.right[expected[0]] += right
        label = defect.value if defect else "none"
        counts = self.kinds.setdefault((label, wanted), [0, 0])
        counts[0] += 1
        counts[1] += right
        if not right:
            found = "kept" if outcome is Outcome.KEPT else f"{stage}/{reason}"
            kind = sample.question.kind
            self.misses.append(
                Miss(problem_id=problem_id, kind=kind, defect=label, expected=wanted, got=found)
            )
        elif defect is not None and expected is None:
            self.slipped.append(problem_id)

    def report(self) -> DemoReport:
        stages = [s for s in Stage if s in (Stage.VERIFY, Stage.JUDGE) or self.planted[s] or self.rejected[s]]
        return DemoReport(
            profile=self.profile,
            judged=self.judged,
            failed=self.failed,
            steps=tuple(self._step(s) for s in stages),
            defects=tuple(
                DefectScore(defect=d, expected=e, rows=n, right=r)
                for (d, e), (n, r) in sorted(self.kinds.items())
            ),
            misses=tuple(self.misses),
            slipped=tuple(self.slipped),
        )

    def _step(self, stage: Stage) -> StepScore:
        right, rejected, due = self.right[stage], self.rejected[stage], self.planted[stage]
        return StepScore(
            step=stage.value,
            planted=due,
            rejected=rejected,
            right=right,
            precision=right / rejected if rejected else None,
            recall=right / due if due else None,
        )
