"""Which questions of a large pool are finished, so that a resumed build need not replay them.

The journal has a record of kind `done` for each. Its mark is the digest of the row as it stands in the pool,
of size and time of its file, and of all of the recipe that decides the result; its number says what became of
the question, and to which content its id belongs. It names the media records that the result rests on, and
counts only while no newer one is in their place: the export takes the newest record of a file, which another
file may have left that lay there meanwhile. The pass that makes calls skips such a row, and counts it
as what it was. The export never looks at these records: where it finds no answer to a question that was
skipped, `build` passes over the pool once more, and looks at every question. A share, which has no export,
skips nothing if its journal tells of lost answers. So whatever happens to a journal costs time, and no
answer.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from hashlib import blake2b
from itertools import product
from typing import Any, NamedTuple

import orjson

from videop2r_data.builders.export import locked_settings
from videop2r_data.builders.run import Done, Result, Run
from videop2r_data.builders.steps import Parts
from videop2r_data.schemas import ASK_AGAIN, DataType, Outcome, RejectReason, Sample, Stage, digest
from videop2r_data.version import __version__

_ANYHOW = {"base_url", "api_key_env", "batch", "cache_prompt", "price", "terms", "target", "limit"}
"""Settings that neither a request nor a result depends on, beside those that a lock leaves out."""
_FATES = [Done(*fate) for fate in product(Outcome, [None, *Stage], [None, *RejectReason])]
_CODES = {fate: code for code, fate in enumerate(_FATES)}
_FORM = 2
"""Of the records: the first did not name what they rest on."""
_BITS = 12
"""Of the number are the place in `_FATES`; the others are the first ones of the hash of the content."""


class Mark(NamedTuple):
    """What a question is known by.

    Attributes:
        key: of its record.
        file: where its file should lie; empty if it has none of its own.
        stat: size and time of the file, as in its media record; None: there is no file.
    """

    key: bytes
    file: str
    stat: list[int] | None


class Finished:
    """What is finished of the questions that these parts would ask; without `skip`, nothing is."""

    def __init__(self, parts: Parts, *, skip: bool) -> None:
        settings = _deciding(locked_settings(parts.recipe)), parts.prompts(), sorted(parts.left_out.items())
        self._key = bytes.fromhex(digest([_FORM, __version__, parts.shard, *settings]))
        self._media = parts.media_steps
        # after a share no export notices that the journal has lost answers
        self._skip = skip and not (parts.shard and parts.journal.lacks_answers)
        self._journal, self._shard = parts.journal, parts.shard
        self._under_way: dict[str, tuple[Mark, int]] = {}

    def mark(self, source: str, row: Mapping[str, Any], file: str) -> Mark:
        """What a row of a source is known by, with its file as it lies there; `file` is empty if it has none.

        Raises:
            TypeError: the row cannot be written as JSON.
        """
        stat = None
        with suppress(OSError, ValueError):
            if file:
                now = os.stat(file)  # noqa: PTH116 - a Path costs more
                stat = [now.st_size, now.st_mtime_ns]
        text = orjson.dumps((source, row, stat), default=repr)
        return Mark(blake2b(text, digest_size=32, key=self._key).digest(), file, stat)

    def find(self, mark: Mark) -> tuple[int, Done | None]:
        """First bits of the hash of a row's content, and what became of it; None: it is not finished."""
        found = self._journal.done(mark.key) if self._skip else None
        return (0, None) if found is None else (found >> _BITS, _FATES[found % (1 << _BITS)])

    def begin(self, sample: Sample, mark: Mark, what: int) -> None:
        """A question is asked, unless another share asks it; `what` is the hash of its content."""
        if self._shard is None or self._shard.owns(sample):
            self._under_way[sample.sample_id] = mark, what

    def noting(self, run: Run) -> Run:
        """The same, and each question that needs no further look is noted."""

        async def noted(sample: Sample) -> Result:
            """One question."""
            result = await run(sample)
            mark, what = self._under_way.pop(sample.sample_id, (None, 0))
            if mark is not None and result.outcome is not None and result.reason not in ASK_AGAIN:
                code = _CODES[Done(result.outcome, result.stage, result.reason)]
                if (media := self._rests_on(sample, mark)) is not None:
                    self._journal.put_done(mark.key, what << _BITS | code, media)
            return result

        return noted

    def _rests_on(self, sample: Sample, mark: Mark) -> list[str] | None:
        """Keys of a question's media records; None: its file changed since the row was read."""
        if sample.data_type is DataType.TEXT:
            return []
        records = {key: self._journal.media(key) for key in (step.key(sample) for step in self._media)}
        known = {key: record for key, record in records.items() if record is not None}
        if mark.file and any(record["stat"] != mark.stat for record in known.values()):
            return None
        return list(known)


def _deciding(settings: Any) -> Any:
    """Settings without those that neither a request nor a result depends on."""
    if isinstance(settings, dict):
        return {name: _deciding(value) for name, value in settings.items() if name not in _ANYHOW}
    return [*map(_deciding, settings)] if isinstance(settings, list) else settings
