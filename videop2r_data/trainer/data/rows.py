"""One row of a data set -> one `Example`, or the reason why it is left out."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from videop2r_data.errors import MediaError
from videop2r_data.files.media_roots import resolve_media
from videop2r_data.schemas import (
    DataType,
    ProblemType,
    RejectReason,
    parse_trace,
    segment_spans,
    strip_answer_tag,
)
from videop2r_data.trainer.data.examples import Example, Skip
from videop2r_data.validators import check_reference

if TYPE_CHECKING:
    from videop2r_data.trainer.data.roots import MediaRoots
    from videop2r_data.trainer.data.specs import DataSpec


class _BadRowError(Exception):
    """Carries why a row is left out."""

    def __init__(self, reason: str, field: str, detail: str) -> None:
        super().__init__(detail)
        self.reason, self.field, self.detail = reason, field, detail


class RowReader:
    """Turns rows into examples.

    Args:
        spec: config and style decide what is learnt.
        roots: where each source's media lie.
    """

    def __init__(self, spec: DataSpec, roots: MediaRoots) -> None:
        self._spec = spec
        self._roots = roots

    def read(self, where: str, row: Any) -> Example | Skip:
        """One row.

        Args:
            where: file and row, for the `Skip`.
            row: a mapping with the columns of `schemas.rows` or of the official release; a text says why the
                row cannot be read.

        Raises:
            ConfigError: the row has media and no media root is known: no row could be read.
        """
        if not isinstance(row, Mapping):
            told = row if isinstance(row, str) else f"a {type(row).__name__}, not a row of columns"
            return Skip(where, RejectReason.BAD_ROW, f"{where}: {told}")
        name = row.get("sample_id") or row.get("problem_id")
        sample_id = str(name) if name not in (None, "") else where
        try:
            return self._example(sample_id, row)
        except _BadRowError as bad:
            return Skip(sample_id, bad.reason, f'{where}, field "{bad.field}": {bad.detail}')

    def _example(self, sample_id: str, row: Mapping[str, Any]) -> Example:
        problem = _text(row, "problem")
        kind = _member(ProblemType, row, "problem_type")
        data_type = _member(DataType, row, "data_type")
        options = _options(row)
        reference = strip_answer_tag(_text(row, "solution"))
        fault = check_reference(kind, reference, options)
        if fault is not None:
            raise _BadRowError(RejectReason.BAD_REFERENCE, "solution", fault)
        return Example(
            sample_id=sample_id,
            problem=problem,
            options=options,
            problem_type=kind,
            data_type=data_type,
            path=None if data_type is DataType.TEXT else self._path(sample_id, row),
            reference=reference,
            target=self._target(row) if self._spec.config == "sft" else None,
            scene=self._roots.scene(sample_id, problem),
        )

    def _path(self, sample_id: str, row: Mapping[str, Any]) -> Path:
        relative = _text(row, "path")
        try:
            return resolve_media(self._roots.root(sample_id), relative)
        except MediaError as error:
            raise _BadRowError(error.reason, "path", str(error)) from None

    def _target(self, row: Mapping[str, Any]) -> str:
        """The completion to learn, checked: `output`, or `process` (its thought and answer) alone."""
        if self._spec.style == "process":
            return _trace(row, "output", _text(row, "output"))
        if not row.get("process"):
            return parse_trace(_trace(row, "output", _text(row, "output"))).process
        process = _text(row, "process")
        # the fault of a text without its observation is found by giving it one
        _trace(row, "process", f"<observation>-</observation>{process}")
        return process


def _trace(row: Mapping[str, Any], name: str, text: str) -> str:
    fault = segment_spans(text).fault
    if fault is not None:
        raise _BadRowError(fault.value, name, f"no process-aware trace: {text[:60]!r}")
    return text


def _text(row: Mapping[str, Any], name: str) -> str:
    value = row.get(name)
    if not isinstance(value, str) or not value.strip():
        raise _BadRowError(RejectReason.BAD_ROW, name, f"text is needed, got {value!r:.60}")
    return value


def _member(kind: Any, row: Mapping[str, Any], name: str) -> Any:
    value = row.get(name)
    try:
        return kind(value)
    except ValueError:
        allowed = ", ".join(k.value for k in kind)
        raise _BadRowError(RejectReason.BAD_ROW, name, f"got {value!r:.60}, allowed: {allowed}") from None


def _options(row: Mapping[str, Any]) -> tuple[str, ...]:
    """A list, or a list written as JSON: the official release has text in every column of its RL part."""
    value = row.get("options")
    if isinstance(value, str) and value.strip():
        try:
            value = orjson.loads(value)
        except orjson.JSONDecodeError:
            raise _BadRowError(
                RejectReason.BAD_ROW, "options", f"no list: {value[:60]!r} (p2r-data build reads it)"
            ) from None
    if not value:
        return ()
    if not isinstance(value, list | tuple) or not all(isinstance(o, str) for o in value):
        raise _BadRowError(RejectReason.BAD_ROW, "options", f"a list of texts is needed, got {value!r:.60}")
    return tuple(value)
