"""Xet storage in a folder: the real client writes it (`local://`), this reads back what it wrote."""

from __future__ import annotations

import time
from pathlib import Path
from struct import unpack_from

_BLOCK = 48
"""Bytes of the shard's header and of every record of it; see the public description of the shard format."""
_WITH_CHECKS, _WITH_SHA256 = 1 << 31, 1 << 30
_END = b"\xff" * 32


class LocalCas:
    """The folder, and which Xet file has which sha256."""

    def __init__(self, root: Path) -> None:
        root.mkdir(parents=True, exist_ok=True)
        self.root = root
        self.url = f"local://{root.resolve()}"
        self._known: dict[str, str] = {}
        self._read: set[Path] = set()

    def find(self, sha256: str) -> str | None:
        """Xet hash of a file by its sha256, None: it was never uploaded."""
        if sha256 not in self._known:
            for shard in self.root.glob("xet/xorbs/shards/*.mdb"):
                if shard not in self._read:
                    self._known.update(shard_files(shard.read_bytes()))
                    self._read.add(shard)
        return self._known.get(sha256)

    def read(self, sha256: str, size: int, start: int, end: int) -> bytes:
        """A range of a file; it is put together from its chunks once."""
        plain = self.root / "plain" / sha256
        if not plain.is_file():
            plain.parent.mkdir(exist_ok=True)
            plain.write_bytes(self._whole(sha256, size))
        with plain.open("rb") as file:
            file.seek(start)
            return file.read(max(0, end - start))

    def _whole(self, sha256: str, size: int) -> bytes:
        import hf_xet

        found = self.find(sha256)
        assert found is not None
        for _ in range(100):
            try:
                # not kept open: one process at a time may have the folder
                streams = hf_xet.XetSession().new_download_stream_group(endpoint=self.url)
                data = b"".join(streams.download_stream(hf_xet.XetFileInfo(found, size)))
                streams.finish()
                return data
            except RuntimeError:
                time.sleep(0.05)
        raise AssertionError("the Xet folder stays open elsewhere")

    @property
    def stored(self) -> int:
        """Bytes of chunks and shards: what uploads have cost so far."""
        kinds = ("xet/xorbs/xorbs/default.*", "xet/xorbs/shards/*.mdb")
        return sum(
            path.stat().st_size
            for kind in kinds
            for path in self.root.glob(kind)
            if not path.name.endswith(".tagset")
        )


def shard_files(shard: bytes) -> dict[str, str]:
    """sha256 -> Xet hash of the files that a shard describes."""
    found, at = {}, _BLOCK
    while shard[at : at + 32] != _END:
        flags, entries = unpack_from("<II", shard, at + 32)
        last = at + _BLOCK * (1 + entries * (2 if flags & _WITH_CHECKS else 1))
        if flags & _WITH_SHA256:
            found[_hex(shard[last : last + 32])] = _hex(shard[at : at + 32])
            last += _BLOCK
        at = last
    return found


def _hex(digest: bytes) -> str:
    """Xet writes a hash as four little-endian numbers of 64 bits."""
    return "".join(f"{number:016x}" for number in unpack_from("<4Q", digest))
