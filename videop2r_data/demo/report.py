"""Hold a build of a demo world against its planted labels: precision and recall of each step."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from videop2r_data.demo.forms import fault_of, tells_what_it_sees
from videop2r_data.demo.scene import INVENTIONS, TEMPLATE_DEFECTS, Defect, Profile
from videop2r_data.demo.world import defect_of, read_spec, read_world
from videop2r_data.errors import SourceError
from videop2r_data.schemas import Model, Outcome, RejectReason, Stage, TraceGrammar, Unit, default_grammar

Row = tuple[str, Outcome, Stage | None, RejectReason | str | None]
"""(problem_id, outcome, stage, reason); stage and reason are None (or empty) for kept rows."""


# Where a defect must end.

_LOW = (Stage.VERIFY, RejectReason.LOW_SCORE)
_INSUFFICIENT = (Stage.JUDGE, RejectReason.INSUFFICIENT)
_CONTRADICTED = (Stage.JUDGE, RejectReason.CONTRADICTED)
_CAUGHT = {
    Defect.NEAR_MISS: None,
    Defect.REPETITION: None,
    Defect.WRONG_ANSWER: _LOW,
    Defect.LOW_QUALITY: _LOW,
    Defect.COMPLETION_CUT: (Stage.GENERATE, RejectReason.COMPLETION_CUT),
    Defect.EVIDENCE_OMITTED: _INSUFFICIENT,
    Defect.EVIDENCE_CONTRADICTED: _INSUFFICIENT,
    Defect.HEDGING: _INSUFFICIENT,
    Defect.INVENTED_EVIDENCE: _CONTRADICTED,
    Defect.INVENTED_DETAIL: _CONTRADICTED,
    Defect.RESTATED_QUESTION: (Stage.VERIFY, RejectReason.HOLLOW_OBSERVATION),
}
"""Defects that are not rejected in the verify step under their own name; None: kept."""
_IN_THE_OBSERVATION = {
    *(Defect.EVIDENCE_OMITTED, Defect.EVIDENCE_CONTRADICTED, Defect.COPIED_VERDICT),
    *INVENTIONS,
}
_PASSES_PAPER = {Defect.LEAKED_ANSWER, Defect.RESTATED_QUESTION}
"""What `paper` does not look for by a rule: its evidence is missing, too, and the judge says so."""


def expected_rejection(
    defect: Defect | None, profile: Profile, grammar: TraceGrammar | None = None, *, seeing: bool = True
) -> tuple[Stage, RejectReason] | None:
    """Where a build must reject a trace with this defect (None: a good one), and why.

    Args:
        defect: what is planted.
        profile: of the verify step. `paper` does not check that think and answer agree, nor what an
            observation leaks.
        grammar: of the traces; None: the default. A grammar without perception has no observation to spoil.
        seeing: whether there is a judge that sees; without one, inventions are kept.

    Returns:
        None if the row must be kept: a good trace, or a defect that these steps do not look for.
    """
    if defect is None:
        return None
    grammar = grammar or default_grammar()
    if defect in TEMPLATE_DEFECTS or defect is Defect.BAD_FIELD:
        return Stage.VERIFY, RejectReason(fault_of(defect, grammar)[1].value)
    if defect in _IN_THE_OBSERVATION and not tells_what_it_sees(grammar):
        return None
    if profile == "paper" and defect is Defect.THINK_ANSWER_MISMATCH:
        return None
    hidden = defect is Defect.RESTATED_QUESTION and not tells_what_it_sees(grammar, alone=True)
    if hidden or (profile == "paper" and defect in _PASSES_PAPER):
        return _INSUFFICIENT
    found = _CAUGHT[defect] if defect in _CAUGHT else (Stage.VERIFY, RejectReason(defect.value))
    return None if found == _CONTRADICTED and not seeing else found


# What was found.


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


BLIND = (
    "The judge of the demo world reads the text alone, as real ones do: evidence that is false of the clip "
    "passes it, and counts as not found."
)
SEEING = (
    "The judge of the demo world that sees has the scene itself: its figures show that the step does what it "
    "should, not how well a model sees."
)
"""Beside the figures of the judges."""


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
    """problem_ids of kept rows with a defect that no step of the build looks for: known limits, no misses."""
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
    grammar: TraceGrammar | None = None,
    seeing: bool = False,
) -> DemoReport:
    """Precision and recall of the steps of a build against the labels of its world.

    Args:
        folder: the world.
        outcomes: one per row of the build, in any order; rows of the world without one are left out.
        profile: that of the build's verify step.
        temperatures: problem_id -> temperature of the completion that counts, for builds with several
            attempts (their defects are drawn anew); None: all at 0.
        grammar: of the traces; None: the default.
        seeing: whether a judge saw the clips. Inventions count as planted for the judges in any case; without
            such a judge they are known limits, no misses.

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
        defect = defect_of(sample, spec, (temperatures or {}).get(row[0], 0.0), grammar)
        due = expected_rejection(defect, profile, grammar)
        expected = expected_rejection(defect, profile, grammar, seeing=seeing)
        found = row[2:] if row[1] is Outcome.REJECTED else None
        label = defect.value if defect else "none"
        judged.append(_Judged(row[0], sample.question.kind, label, due, expected, found))
    if got:
        raise SourceError(f"no problem_id {next(iter(got))!r} in this demo world", where=str(folder))
    made = _report(profile, judged, failed)
    return made.model_copy(update={"judge_note": SEEING if seeing else BLIND})


class _Judged(NamedTuple):
    """A kept or rejected row: what its label says, and what the build did. None: kept."""

    problem_id: str
    kind: str
    defect: str
    due: tuple[Stage, RejectReason] | None
    """Where it should fall."""
    expected: tuple[Stage, RejectReason] | None
    """Where the steps of this build can find it."""
    found: tuple[Stage | None, RejectReason | str | None] | None

    @property
    def right(self) -> bool:
        """Whether the verdict is the one that is due."""
        return self.due == self.found

    @property
    def wanted(self) -> str:
        """The verdict that is due, in words."""
        return f"{self.due[0]}/{self.due[1]}" if self.due else "kept"


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
            if r.found != r.expected
        ),
        slipped=tuple(r.problem_id for r in judged if r.defect != "none" and not (r.found or r.expected)),
    )


def _step(stage: Stage, judged: Sequence[_Judged]) -> StepScore:
    due = [r for r in judged if r.due and r.due[0] is stage]
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
