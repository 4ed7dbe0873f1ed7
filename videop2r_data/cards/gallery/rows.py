"""Rows of a release as the gallery shows them, with the verdicts of judges on them."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from videop2r_data.cards.gallery.trace import Shown, parts_of
from videop2r_data.errors import SourceError
from videop2r_data.files import Release
from videop2r_data.schemas import (
    WHOLE,
    Claim,
    ClaimVerdict,
    DataType,
    Focus,
    HumanLabel,
    Model,
    Trace,
    TraceGrammar,
    default_grammar,
    part_fault,
    strip_answer_tag,
)

OUTCOMES = ("accepted", "rejected", "failed", "question")
"""What became of a row; `question`: a release of questions without traces."""
CLAIMS = 200
"""Claims of one observation that are shown."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One row of the page; texts are unchanged.

    Attributes:
        outcome: one of `OUTCOMES`.
        reference: the correct answer, without tags.
        source: `data_source`, or the first part of `sample_id`.
        media_source: the recipe's source, whose media root `path` is relative to.
        parts: the whole trace, cut into segments and tags; joined they are the model's text.
        answer: the model's final answer; empty if the trace has none.
        observation: the text that a judge sees; None if the trace has none.
        judgement: verdict of the build's judge: `Yes`, `No`, `no verdict`, or empty.
        reward: 0 to 1; None if the answer was not scored.
        frames: indices of the sampled frames; empty if the row has none.
        times_s: their times in seconds.
        claims: what a model that sees the clip said of each claim of the observation.
        tags: name -> value of further filters.
        focus: the part of the clip that the question is about.
    """

    sample_id: str
    outcome: str
    problem: str
    options: tuple[str, ...]
    reference: str
    problem_type: str
    data_type: str
    source: str
    media_source: str
    path: str
    stage: str
    reason: str
    detail: str
    reward: float | None
    attempt: int | None
    parts: tuple[Shown, ...]
    answer: str
    observation: str | None
    judgement: str
    why: str
    frames: tuple[int, ...]
    times_s: tuple[float, ...]
    fps: float | None
    media_sha256: str
    generation_key: str
    judge_key: str
    synthetic: bool
    claims: tuple[Claim, ...] = ()
    focus: Focus = WHOLE
    tags: Mapping[str, str] = field(default_factory=dict)

    @property
    def place(self) -> tuple[str, str, Focus]:
        """What its frames are of: source, path and part."""
        return self.media_source, self.path, self.focus


def count_rows(release: Release) -> dict[str, int]:
    """Config -> rows, of the configs that the gallery shows, in order."""
    return {
        config: sum(len(batch.index) for _, batch in release.batches(config, ("problem_id",), size=8192))
        for config in shown_configs(release)
    }


def shown_configs(release: Release) -> tuple[str, ...]:
    """Configs that the gallery shows: `sft`, then `rejected`; others only if both are missing."""
    have = tuple(c for c in ("sft", "rejected") if c in release.configs)
    return have or release.configs


def read_entries(
    release: Release, *, limit: int, total: int, always: Collection[str] = ()
) -> Iterator[Entry]:
    """Stream the entries of a release.

    Args:
        release: what to read.
        limit: entries at most; of more rows, evenly spaced ones are taken, the same at every run.
        total: rows of the shown configs, of `count_rows`.
        always: `sample_id`s that are taken in any case.

    Raises:
        SourceError: a file is damaged, or two rows have one `sample_id`.
    """
    seen: set[str] = set()
    at = -1
    grammar = release.grammar
    for config in shown_configs(release):
        for file, batch in release.batches(config, size=512):
            names = list(batch.columns)
            for number, values in zip(batch.index, zip(*batch.columns.values(), strict=True), strict=True):
                at += 1
                row = dict(zip(names, values, strict=True))
                # evenly spaced without floats: taken where `at * limit / total` passes an integer
                chosen = total <= limit or (at + 1) * limit // total > at * limit // total
                if not chosen and row.get("sample_id") not in always:
                    continue
                entry = entry_of(row, config, number, grammar)
                if entry.sample_id in seen:
                    raise SourceError(
                        f"a second row has the sample_id {entry.sample_id!r}",
                        where=f"{file.name}, row {number}",
                        hint="sample_id has to be unique in a data set: p2r-data verify names every such row",
                    )
                seen.add(entry.sample_id)
                yield entry


def entry_of(row: dict[str, Any], config: str, number: int, grammar: TraceGrammar | None = None) -> Entry:
    """A row of any config, of a build or of the official release, as an entry.

    Args:
        row: column -> value; a cell that is missing or of another type counts as empty.
        config: `sft`, `rl` or `rejected`.
        number: index of the row in its file, for a row without any id.
        grammar: what a trace of the row is made of; None: the default.
    """

    def text(name: str) -> str:
        return _text(row.get(name))

    problem_id = text("problem_id")
    sample_id = text("sample_id") or f"{config}/{problem_id or number}"
    output = text("output")
    form = grammar or default_grammar()
    found = Trace.found_in(output, form)
    observed = text("observation") if config == "sft" else found.observation.strip() and found.observation
    frames, times = _frames(row)
    reason = text("reason")
    outcome = {"sft": "accepted", "rejected": "rejected"}.get(config, "question")
    if config == "rejected" and row.get("outcome") == "failed":
        outcome = "failed"
    reward = _number(row.get("reward"))
    named = sample_id.partition("/")[0] if row.get("sample_id") else ""
    return Entry(
        sample_id=sample_id,
        outcome=outcome,
        problem=text("problem"),
        options=tuple(_text(option) for option in _list(row.get("options"))),
        reference=strip_answer_tag(text("solution")),
        problem_type=text("problem_type"),
        data_type=text("data_type"),
        source=text("data_source") or named,
        media_source=named,
        path=text("path"),
        stage=text("stage"),
        reason=reason,
        detail=text("detail"),
        reward=reward if reward is not None and 0 <= reward <= 1 else None,
        attempt=row["attempt"] if isinstance(row.get("attempt"), int) else None,
        parts=parts_of(output, form),
        answer=found.answer,
        observation=observed or None,
        judgement=text("judgement") or {"insufficient": "No", "no_verdict": "no verdict"}.get(reason, ""),
        why=text("judge_explanation"),
        frames=frames,
        times_s=times,
        fps=_number(row.get("source_fps")),
        media_sha256=text("media_sha256"),
        generation_key=text("generation_key"),
        judge_key=text("judge_key"),
        synthetic=row.get("synthetic") is True,
        claims=_claims(row.get("claims")),
        focus=_focus(row),
    )


def _frames(row: dict[str, Any]) -> tuple[tuple[int, ...], tuple[float, ...]]:
    """Indices and times of the sampled frames; empty where they are not as many."""
    frames = tuple(x for x in _list(row.get("frame_indices")) if isinstance(x, int))
    times = tuple(float(x) for x in _list(row.get("frame_times_s")) if isinstance(x, int | float))
    return (frames, times) if len(frames) == len(times) else ((), ())


def _focus(row: dict[str, Any]) -> Focus:
    """The part of the clip; the whole one where the columns say none that can be."""
    found = Focus(_number(row.get("start_s")), _number(row.get("end_s")))
    return WHOLE if row.get("data_type") != "video" or part_fault(*found.part, DataType.VIDEO) else found


def _claims(value: Any) -> tuple[Claim, ...]:
    """The column `claims`; what is no claim is left out, and so are times that are none."""
    known = {verdict.value: verdict for verdict in ClaimVerdict}
    found = []
    for cell in _list(value)[:CLAIMS]:
        if isinstance(cell, dict) and _text(cell.get("text")):
            times = (_number(at) for at in _list(cell.get("at")))
            at = tuple(time for time in times if time is not None and time >= 0)
            said = cell.get("verdict")
            verdict = known.get(said) if isinstance(said, str) else None
            found.append(Claim(text=_text(cell["text"]), verdict=verdict, at=at))
    return tuple(found)


def _text(value: Any) -> str:
    """A cell as text that UTF-8 can encode; numbers too, since the official files have numeric ids."""
    if isinstance(value, str):
        return value if value.isascii() else value.encode("utf-8", "replace").decode()
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else ""


def _list(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) else []


def _number(value: Any) -> float | None:
    good = isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e12
    return float(value) if good else None


# Verdicts of judges, as `judge-eval` writes them, matched to rows by the words that were judged.


class JudgedLine(Model):
    """A line of `verdicts.jsonl`: the verdict of one judge on one human label."""

    judge: str
    model: str
    label: HumanLabel
    sufficient: bool | None
    """None: unscored."""
    why: str
    latency_s: float | None


def read_verdicts(path: Path) -> list[JudgedLine]:
    """All lines of a file of verdicts.

    Raises:
        SourceError: it cannot be read, a line is no verdict, or there is none.
    """
    found: list[JudgedLine] = []
    where, hint = str(path), "give verdicts.jsonl of judge-eval"
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                where = f"{path}, line {number}"
                if line.strip():
                    found.append(JudgedLine.model_validate_json(line))
    except OSError as error:
        raise SourceError(f"cannot read the verdicts: {error}", where=str(path)) from None
    except ValidationError as error:
        first = error.errors()[0]
        told = f"no verdict: {'.'.join(map(str, first['loc']))}: {first['msg']}"
        raise SourceError(told, where=where, hint=hint) from None
    if not found:
        raise SourceError("no verdict in it", where=where, hint=hint)
    return found


def by_words(lines: Sequence[JudgedLine]) -> dict[tuple[str, ...], list[JudgedLine]]:
    """(sample_id, words that were judged) -> verdicts, in order.

    Not by id alone: a rebuilt data set may have other words under the same id, and no verdict on them.
    """
    found: dict[tuple[str, ...], list[JudgedLine]] = {}
    for line in lines:
        label = line.label
        words = (label.problem, *label.options, label.reference, label.observation)
        found.setdefault((label.sample_id, *words), []).append(line)
    return found


def words_of(entry: Entry) -> tuple[str, ...]:
    """The key of an entry in `by_words`."""
    return (entry.sample_id, entry.problem, *entry.options, entry.reference, entry.observation or "")


def differs(line: JudgedLine) -> bool:
    """Whether a judge contradicts the human label; an unscored verdict does not."""
    return line.sufficient is not None and line.sufficient is not line.label.sufficient
