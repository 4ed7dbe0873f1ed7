"""The decoder process: reads one request, decodes one file, answers, until its input ends.

Started by `DecodePool` as `python -m videop2r_data.media.worker`; the first message holds the settings.
"""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import sys
from pathlib import Path
from typing import Any, BinaryIO

from videop2r_data.errors import MediaError, P2RError
from videop2r_data.media import wire
from videop2r_data.media.probe import probe_media
from videop2r_data.media.sampling import sample_media
from videop2r_data.schemas.recipe import MediaSpec

_PR_SET_PDEATHSIG = 1
_STATM = Path("/proc/self/statm")
_IOV_MAX = 512
"""Pieces that one `writev` may hold: 1,024 on Linux."""


def main() -> None:
    """Serve until the parent closes the pipe or dies."""
    # Ctrl-C reaches the whole foreground group; the parent decides when its workers end.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    source = sys.stdin.buffer
    # A decoder that prints must not write into the protocol.
    sink = os.dup(1)
    os.dup2(2, 1)
    hello = _read(source)
    if hello is None:
        return
    _die_with_parent(int(hello["parent"]))
    spec = MediaSpec.model_validate(hello["spec"])
    _load(spec)
    base = _address_space()
    _limit(base + spec.limits.memory_mb * 2**20)
    _write(sink, {"ready": True})
    while (request := _read(source)) is not None:
        header, blobs = _answer(request, spec)
        _write(sink, {**header, "grown": _address_space() - base}, blobs)


def _die_with_parent(parent: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL))
    if os.getppid() != parent:
        os._exit(0)


def _load(spec: MediaSpec) -> None:
    """Import the decoders before the limits fall, so that the limits count for the files alone."""
    import av  # noqa: F401
    import numpy as np  # noqa: F401

    from videop2r_data.media.image import register_formats

    register_formats()
    if spec.decoder == "decord":
        import decord  # noqa: F401


def _limit(address_space: int) -> None:
    """Memory for the files, no core dumps, and no byte written to any file."""
    resource.setrlimit(resource.RLIMIT_AS, (address_space, address_space))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))


def _address_space() -> int:
    """Bytes; 0 where the system does not tell."""
    try:
        with _STATM.open("rb", buffering=0) as file:
            return int(file.read(64).split()[0]) * resource.getpagesize()
    except OSError:
        return 0


def _answer(
    request: dict[str, Any], spec: MediaSpec
) -> tuple[dict[str, Any], tuple[bytes | memoryview, ...]]:
    path = Path(os.fsdecode(bytes.fromhex(request["path"])))
    try:
        if request["do"] == "probe":
            probe = probe_media(path, request["data_type"], spec.limits, deep=bool(request["deep"]))
            return {"ok": True, "probe": probe.model_dump(mode="json")}, ()
        frames = sample_media(path, request["data_type"], spec, want=request["want"])
    except MediaError as error:
        return {"ok": False, "reason": error.reason, "message": error.message, "where": error.where}, ()
    except P2RError as error:
        return {"ok": False, "reason": None, "message": str(error), "where": error.where}, ()
    blobs: tuple[bytes | memoryview, ...] = frames.encoded
    if frames.array is not None:
        blobs = (frames.array.reshape(-1).data,)
    return {"ok": True, "record": frames.record.model_dump(mode="json")}, blobs


def _read(source: BinaryIO) -> dict[str, Any] | None:
    prefix = source.read(wire.PREFIX.size)
    if len(prefix) < wire.PREFIX.size:
        return None
    data = source.read(wire.header_length(prefix))
    header, _ = wire.parse_header(data, max_blobs=0, max_bytes=0)
    return header


def _write(sink: int, header: dict[str, Any], blobs: tuple[bytes | memoryview, ...] = ()) -> None:
    """All pieces in one call as far as the pipe takes them: each call would wake the parent."""
    pieces = [memoryview(piece) for piece in wire.pack(header, blobs)]
    while pieces:
        written = os.writev(sink, pieces[:_IOV_MAX])
        while pieces and written >= len(pieces[0]):
            written -= len(pieces.pop(0))
        if pieces:
            pieces[0] = pieces[0][written:]


if __name__ == "__main__":
    main()
