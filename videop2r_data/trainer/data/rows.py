"""Rows of a data set to examples; a bad row is left out with a reason and counted, never fatal."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from videop2r_data.errors import ConfigError, MediaError, SourceError, first_line
from videop2r_data.files import find_media_roots, open_rows, resolve_media
from videop2r_data.schemas import (
    DataType,
    Focus,
    ProblemType,
    RejectReason,
    default_grammar,
    parse_trace,
    part_fault,
    strip_answer_tag,
    trace_parser,
)
from videop2r_data.trainer.data.examples import DemoStream, Example, ExampleSet, Skip
from videop2r_data.validators import check_reference

if TYPE_CHECKING:
    from videop2r_data.demo import SceneSample
    from videop2r_data.trainer.settings.parts import DataSpec


COLUMNS = (
    "sample_id", "problem_id", "problem", "problem_type", "data_type", "options", "solution", "path",
    "output", "process", "start_s", "end_s",
)  # fmt: skip
"""Columns that are read; our data sets and the official release share these names."""
PASS_RATE, NO_PASS_RATE = "pass_rate", "no_pass_rate"
"""Reasons of a `Skip`: outside of the range that was asked for; no share from 0 to 1."""
_LOOKED_FOR = 32
"""Media files that are looked for before training starts; if all are missing, the media root is wrong."""


def read_examples(spec: DataSpec) -> Sequence[Example]:
    """Read the examples of a data set; relative paths start from the current folder.

    Returns:
        An `ExampleSet`, or a `DemoStream` for `source: demo`.

    Raises:
        SourceError: nothing can be read, or every row is bad.
        ConfigError: no media root is known, or none of its first files is there.
    """
    if spec.is_demo:
        return DemoStream(spec)
    wanted = COLUMNS if spec.pass_rate is None else (*COLUMNS, spec.pass_rate.column)
    source = open_rows(
        spec.source, base=Path(), config=spec.config, columns=wanted, split=spec.split, revision=spec.revision
    )
    reader = _Reader(spec)
    stop = None if spec.limit is None else spec.start + spec.limit
    bad: list[Skip] = []

    def good() -> Iterator[Example]:
        for where, row in islice(source.rows, spec.start, stop):
            read = reader.read(where, row)
            if isinstance(read, Skip):
                bad.append(read)
            else:
                yield read

    found = ExampleSet(good(), bad, revision=source.revision)
    if not found:
        raise _nothing(spec, found.skipped)
    looked = list(islice((example.path for example in found if example.path is not None), _LOOKED_FOR))
    # Single missing files only lose examples.
    if looked and not any(path.is_file() for path in looked):
        raise ConfigError(
            f"none of the first {len(looked)} media files is there",
            where=str(looked[0]),
            hint="name the folder that the rows' `path` is relative to with --media-root (data.media_root)",
        )
    return found


def _nothing(spec: DataSpec, skipped: Sequence[Skip]) -> SourceError:
    if not skipped:
        where = f"{spec.source}, config {spec.config!r}"
        return SourceError(f"no rows from row {spec.start} on", where=where, hint="lower start")
    return SourceError(
        f"none of {len(skipped)} rows can be used; the first: {skipped[0].reason}: {skipped[0].detail}",
        where=spec.source,
        hint=f"read it as another config than {spec.config!r}, with data.style: agnostic where rows have "
        "no observation, or convert it with p2r-data build",
    )


class _BadRowError(Exception):
    """Why a row is left out."""

    def __init__(self, field: str, detail: str, reason: str = RejectReason.BAD_ROW) -> None:
        self.field, self.detail, self.reason = field, detail, reason


class _Reader:
    """Turns rows into examples; the config and the style of `spec` decide what is learnt."""

    def __init__(self, spec: DataSpec) -> None:
        self._spec = spec
        self._parser = trace_parser(spec.grammar)
        self._roots = find_media_roots(spec.source, base=Path(), media_root=spec.media_root)
        self._scenes = cache(_read_scenes)
        self._rates = _read_rates(spec.pass_rate.file) if spec.pass_rate and spec.pass_rate.file else None

    def read(self, where: str, row: Mapping[str, Any] | str) -> Example | Skip:
        """One row, or why it is none; `where` is its file and number."""
        if isinstance(row, str):
            return Skip(where, RejectReason.BAD_ROW, f"{where}: {row}")
        name = row.get("sample_id") or row.get("problem_id")
        sample_id = where if name in (None, "") else str(name)
        try:
            self._check_rate(row)
            return self._example(sample_id, row)
        except _BadRowError as bad:
            return Skip(sample_id, bad.reason, f'{where}, field "{bad.field}": {bad.detail}')
        except MediaError as error:
            return Skip(sample_id, error.reason, f'{where}, field "path": {error}')

    def _example(self, sample_id: str, row: Mapping[str, Any]) -> Example:
        problem = _text(row, "problem")
        kind = _member(ProblemType, row, "problem_type")
        data_type = _member(DataType, row, "data_type")
        options = _options(row)
        reference = strip_answer_tag(_text(row, "solution"))
        fault = check_reference(kind, reference, options)
        if fault is not None:
            raise _BadRowError("solution", fault, RejectReason.BAD_REFERENCE)
        path = None
        if data_type is not DataType.TEXT:
            relative = _text(row, "path")
            path = resolve_media(self._roots.root(sample_id), relative)
        return Example(
            sample_id=sample_id,
            problem=problem,
            options=options,
            problem_type=kind,
            data_type=data_type,
            path=path,
            reference=reference,
            target=self._target(row) if self._spec.config == "sft" else None,
            scene=self._scene(sample_id, problem),
            focus=_focus(row, data_type),
        )

    def _check_rate(self, row: Mapping[str, Any]) -> None:
        """Refuse a row whose pass rate is not in the range, or not known."""
        wanted = self._spec.pass_rate
        if wanted is None:
            return
        field, told = wanted.column, row.get(wanted.column)
        if self._rates is not None:
            names = (str(row.get(name)) for name in ("sample_id", "problem_id"))
            field, told = wanted.file, next((self._rates[n] for n in names if n in self._rates), None)
        try:
            rate = float(told)  # type: ignore[arg-type]
        except (TypeError, ValueError):
            rate = math.nan
        if not 0 <= rate <= 1:
            raise _BadRowError(field, f"a share from 0 to 1 is needed, got {told!r:.60}", NO_PASS_RATE)
        if not wanted.low <= rate <= wanted.high:
            detail = f"{rate:g} is outside of {wanted.low:g} to {wanted.high:g}"
            raise _BadRowError(field, detail, PASS_RATE)

    def _scene(self, sample_id: str, problem: str) -> SceneSample | None:
        """The scene behind a question, if its media lie in a demo world that has just this question."""
        root = self._roots.known(sample_id)
        found = self._scenes(root).get(sample_id.rpartition("/")[2]) if root else None
        return found if found is not None and found.question.problem == problem else None

    def _target(self, row: Mapping[str, Any]) -> str:
        """The completion to learn, checked: `output`, or `process` (its thought and answer) alone."""
        if self._spec.style == "process" or not row.get("process"):
            output = _text(row, "output")
            self._check_trace("output", output)
            return output if self._spec.style == "process" else parse_trace(output).process
        process = _text(row, "process")
        if not row.get("output") and "<answer>" not in process:
            # the layout of Video-R1-COT-165k: the thought alone, and the answer in `solution`, in its tag;
            # the line between them is that of the public code [tulerfeng/Video-R1, sft_video.py]
            process = f"{process}\n<answer>{strip_answer_tag(_text(row, 'solution'))}</answer>"
        # The parser reports faults of whole traces: put an observation before it.
        self._check_trace("process", f"<observation>-</observation>{process}")
        return process

    def _check_trace(self, field: str, text: str) -> None:
        fault = self._parser.spans(text).fault
        if fault is not None:
            grammar = self._parser.grammar
            what = "process-aware trace" if grammar == default_grammar() else f"trace {grammar.name}"
            raise _BadRowError(field, f"no {what}: {text[:60]!r}", fault.value)


def _read_rates(path: str) -> dict[str, Any]:
    """sample_id or problem_id -> pass rate."""
    try:
        found = orjson.loads(Path(path).expanduser().read_bytes())
    except (OSError, orjson.JSONDecodeError) as error:
        raise ConfigError(f"no pass rates can be read: {first_line(error)}", where=path) from error
    if not isinstance(found, dict):
        hint = 'write the ids and their rates: {"pool/1": 0.25}'
        raise ConfigError(f"a JSON {type(found).__name__}, not an object", where=path, hint=hint)
    return found


def _read_scenes(root: Path) -> dict[str, SceneSample]:
    """problem_id -> scene, if the root is the `media` folder of a demo world; else empty."""
    if root.name != "media" or not (root.parent / "scenes.jsonl").is_file():
        return {}
    from videop2r_data.demo import read_world  # other data sets need no demo world

    try:
        return {str(sample.problem_id): sample for sample in read_world(root.parent)}
    except SourceError:
        return {}  # somebody else's scenes.jsonl: the media are good without it


def _text(row: Mapping[str, Any], name: str) -> str:
    value = row.get(name)
    if not isinstance(value, str) or not value.strip():
        raise _BadRowError(name, f"text is needed, got {value!r:.60}")
    return value


def _focus(row: Mapping[str, Any], data_type: DataType) -> Focus:
    """The part of the clip; data sets without parts have no columns for it."""
    for name in ("start_s", "end_s"):
        if not isinstance(row.get(name), int | float | None):
            raise _BadRowError(name, f"seconds are needed, got {row[name]!r:.60}")
    focus = Focus(row.get("start_s"), row.get("end_s"))
    if fault := part_fault(*focus.part, data_type):
        raise _BadRowError("start_s", fault)
    return focus


def _member(kind: Any, row: Mapping[str, Any], name: str) -> Any:
    value = row.get(name)
    try:
        return kind(value)
    except ValueError:
        allowed = ", ".join(k.value for k in kind)
        raise _BadRowError(name, f"got {value!r:.60}, allowed: {allowed}") from None


def _options(row: Mapping[str, Any]) -> tuple[str, ...]:
    """A list, or a list written as JSON: the official release has text in every column of its RL part."""
    value = row.get("options")
    if isinstance(value, str) and value.strip():
        try:
            value = orjson.loads(value)
        except orjson.JSONDecodeError:
            detail = f"no list: {value[:60]!r} (p2r-data build reads it)"
            raise _BadRowError("options", detail) from None
    if not value:
        return ()
    if not isinstance(value, list | tuple) or not all(isinstance(o, str) for o in value):
        raise _BadRowError("options", f"a list of texts is needed, got {value!r:.60}")
    return tuple(value)
