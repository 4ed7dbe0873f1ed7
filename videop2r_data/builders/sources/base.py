"""What all sources share: the limit, repeated ids and the digest, around a reader of raw rows."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from hashlib import blake2b
from itertools import islice
from pathlib import Path
from typing import Any

from videop2r_data.builders.sources.answer_base import read_base
from videop2r_data.builders.sources.columns import check_names, check_rows, check_settings
from videop2r_data.builders.sources.contract import BadRow, PoolDigest, content
from videop2r_data.builders.sources.embedded import EmbeddedMedia
from videop2r_data.builders.sources.normalise import Normaliser
from videop2r_data.errors import SourceError
from videop2r_data.files.json_rows import RawRow
from videop2r_data.schemas.base import canonical_bytes
from videop2r_data.schemas.recipe import SourceSpec
from videop2r_data.schemas.sample import Sample
from videop2r_data.schemas.verdict import RejectReason


class RowSource(ABC):
    """A source over raw rows; a subclass says where they come from.

    Args:
        spec: the source of the recipe.
        media_root: folder that the rows' paths are relative to.
    """

    def __init__(self, spec: SourceSpec, media_root: Path | None) -> None:
        self.spec = spec
        self._media_root = media_root
        self._sha256: str | None = None
        self._checked = False
        self._counted_from: int | None = None
        self.embed: EmbeddedMedia | None = None
        """Takes the media that the rows themselves hold, for a pool of such rows."""

    @property
    def name(self) -> str:
        """As in the recipe."""
        return self.spec.name

    @property
    def media_root(self) -> Path | None:
        """Folder that `Sample.path` is relative to."""
        return self._media_root

    @abstractmethod
    def raw_rows(self) -> Iterator[RawRow]:
        """The rows as they stand in the pool, numbered from 0."""

    @property
    def note(self) -> str:
        """What was read from the pool as a whole and the recipe does not say; empty if there is nothing."""
        if self._counted_from is None:
            return ""
        return (
            f"whole-number answers are indices from {self._counted_from}, as the pool as a whole says "
            f"(answer_base: {self._counted_from} in the recipe says so without reading it)"
        )

    def headers(self) -> Iterator[tuple[str, Sequence[str]]]:
        """What the pool says of its columns before its first row: place and names; none if only rows do."""
        return iter(())

    @property
    def where(self) -> str:
        """The source, for messages."""
        return f"source {self.name!r}, {self.spec.path}" if self.spec.path else f"source {self.name!r}"

    def check(self) -> None:
        """Hold the recipe's columns against those of the pool, once, before the first row.

        Raises:
            SourceError: a column that every row needs, or that the recipe names, is not there.
        """
        if self._checked:
            return
        check_settings(self.spec, self.where)
        told = False
        for place, names in self.headers():
            check_names(self.spec, names, f"source {self.name!r}, {place}")
            told = True
        if not told:
            check_rows(self.spec, self.raw_rows(), self.where)
        self._checked = True

    def rows(self) -> Iterator[Sample | BadRow]:
        """All rows in the order of the pool, in constant memory; may be called again.

        Raises:
            SourceError: the pool as a whole cannot be read (on); the good rows before that were given. Or it
                has no row, or not the columns that the recipe names.
        """
        self.check()
        root = self.media_root
        normalise = Normaliser.of(self.spec, root, embed=self.embed)
        unique = _UniqueIds(normalise)
        digest = PoolDigest()
        counts = normalise.answer_base is not None
        for raw in islice(self.raw_rows(), self.spec.limit):
            if raw.value is None:
                row: Sample | BadRow = normalise.bad(raw.index, raw.fault, raw=raw.raw)
            else:
                if not counts and normalise.index_answer(raw.value) is not None:
                    normalise, counts = replace(normalise, counted_from=self.counted_from()), True
                row = unique(normalise(raw.index, raw.value), raw.value)
            digest.update(row)
            yield row
        if not digest.rows:
            raise SourceError(
                "the pool holds no row", where=self.where, hint="check `path` and `split` of this source"
            )
        self._sha256 = digest.hexdigest()

    def counted_from(self) -> int:
        """What index answers of this pool count from, read from all of it whatever its `limit`.

        Raises:
            SourceError: the pool leaves it open, or says both.
        """
        if self._counted_from is None:
            normalise = Normaliser.of(self.spec, None)
            self._counted_from = read_base(self.raw_rows(), normalise, self.where)
        return self._counted_from

    def sha256(self) -> str:
        """Digest of the rows: that of the last complete pass, else a pass is made for it."""
        if self._sha256 is None:
            for _ in self.rows():
                pass
        assert self._sha256 is not None
        return self._sha256


class _UniqueIds:
    """Keeps sample ids unique: about 100 bytes a row.

    The first row with an id keeps it. A row of equal content is a duplicate. A row of other content under
    the same id becomes `<id>#<8 digits of its content digest>`: pools merged out of several sets number each
    from 0, and dropping those rows would lose questions.
    """

    def __init__(self, normalise: Normaliser) -> None:
        self._normalise = normalise
        self._first: dict[int, int] = {}

    def __call__(self, row: Sample | BadRow, value: Mapping[str, Any]) -> Sample | BadRow:
        if isinstance(row, BadRow):
            return row
        try:
            what = _hash(canonical_bytes(content(row)))
        except TypeError:
            detail = f'"{_unwritable(row)}" holds half of a surrogate pair, which is no Unicode text'
            return self._normalise.bad(row.row, detail, value=value)
        if self._take(row.problem_id, what):
            return row
        if self._first[_hash(row.problem_id.encode())] == what:
            return self._repeated(row, value)
        problem_id = f"{row.problem_id}#{what:016x}"[: len(row.problem_id) + 9]
        if self._take(problem_id, what):
            return row.model_copy(
                update={"problem_id": problem_id, "sample_id": f"{row.source}/{problem_id}"},
            )
        return self._repeated(row, value)

    def _take(self, problem_id: str, what: int) -> bool:
        name = _hash(problem_id.encode())
        if name in self._first:
            return False
        self._first[name] = what
        return True

    def _repeated(self, row: Sample, value: Mapping[str, Any]) -> BadRow:
        detail = f"problem_id {row.problem_id!r} with this very content stands further up"
        return self._normalise.bad(row.row, detail, reason=RejectReason.DUPLICATE_ID, value=value)


def _unwritable(row: Sample) -> str:
    """Name of the first field whose text cannot be encoded."""

    for name, value in content(row).items():
        try:
            canonical_bytes(value)
        except TypeError:
            return name
    return "row"


def _hash(data: bytes) -> int:
    """64 bits: among 260,000 rows two meet by chance with probability 2e-9."""
    return int.from_bytes(blake2b(data, digest_size=8).digest(), "big")
