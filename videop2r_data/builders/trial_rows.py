"""Which rows a trial call is about: the first ones whose media can be decoded, and the longest question."""

from __future__ import annotations

from pathlib import Path

from videop2r_data.errors import MediaError
from videop2r_data.files.media_roots import resolve_media
from videop2r_data.media import DecodePool
from videop2r_data.schemas import DataType, Sample
from videop2r_data.schemas.calls import Frames

CANDIDATES = 20
"""Rows of each data type that are tried until one's file can be decoded."""


def question_bytes(sample: Sample) -> int:
    """Length of what a prompt shows of a question, UTF-8 bytes."""
    return len("\n".join((sample.problem, *sample.options)).encode())


class TrialRows:
    """The first rows of each data type, and the length of the longest question of the pool.

    Attributes:
        longest: `question_bytes` of the longest question.
        good: rows seen.
    """

    def __init__(self) -> None:
        self.longest = 0
        self.good = 0
        self._first: dict[DataType, list[tuple[Sample, Path | None]]] = {}

    def see(self, sample: Sample, root: Path | None) -> None:
        """One good row, and the folder that its path is relative to."""
        self.good += 1
        self.longest = max(self.longest, question_bytes(sample))
        kept = self._first.setdefault(sample.data_type, [])
        if len(kept) < CANDIDATES:
            kept.append((sample, root))

    def types(self) -> list[DataType]:
        """The data types that a call is made for: those with media, as text alone is the easier case."""
        shown: list[DataType] = [kind for kind in (DataType.VIDEO, DataType.IMAGE) if kind in self._first]
        return shown or [kind for kind in (DataType.TEXT,) if kind in self._first]

    def any(self) -> Sample | None:
        """The first row that the judge can be asked about."""
        return next((kept[0][0] for kept in self._first.values()), None)

    async def decode(self, kind: DataType, pool: DecodePool) -> tuple[Sample, Frames | None]:
        """The first row of a type whose file can be decoded, with its frames.

        Raises:
            MediaError: none of the first `CANDIDATES` can; the last one's fault.
        """
        failed: MediaError | None = None
        for sample, root in self._first[kind]:
            if kind is DataType.TEXT:
                return sample, None
            if root is None:
                continue  # the pool's own report says that a media root is missing
            try:
                path = resolve_media(root, sample.path)
                return sample, await pool.sample(path, "video" if kind is DataType.VIDEO else "image")
            except MediaError as error:
                failed = error
        raise failed or MediaError("the source has no media_root", reason="media_missing")
