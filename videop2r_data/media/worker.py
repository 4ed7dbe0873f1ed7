"""The decoder process, and the messages between it and its parent."""

from __future__ import annotations

import ctypes
import math
import os
import resource
import signal
import struct
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Literal

import orjson
from pydantic import ValidationError

from videop2r_data.errors import MediaError, P2RError
from videop2r_data.media.sampling import probe_media, sample_media
from videop2r_data.schemas import Focus, Frames, MediaRecord, MediaSpec

if TYPE_CHECKING:
    from videop2r_data.media.image import Want

_KEPT = ("PATH", "LD_LIBRARY_PATH", "LANG", "LC_ALL", "HOME", "TMPDIR", "VIRTUAL_ENV")
_OWN_FAULTS = frozenset(
    ("SIGSEGV", "SIGBUS", "SIGILL", "SIGFPE", "SIGABRT", "SIGTRAP", "SIGSYS", "SIGXCPU", "SIGXFSZ")
)
"""Signals of a process's own faults; any other came from outside: the kernel short of memory, a user, a batch
system."""


class DecoderDiedError(Exception):
    """The process ended in the middle of a file.

    Attributes:
        killed: by a signal from outside, so the file is not at fault.
    """

    def __init__(self, code: int) -> None:
        name = {s.value: s.name for s in signal.Signals}.get(-code, f"signal {-code}")
        how = f"was ended by {name}" if code < 0 else f"ended with exit code {code}"
        super().__init__(f"its decoder process {how}")
        self.killed = code < 0 and name not in _OWN_FAULTS


def environment() -> dict[str, str]:
    """Only what Python needs: no key of any service is handed to a process that reads hostile files."""
    kept = {name: os.environ[name] for name in _KEPT if name in os.environ}
    package = str(Path(__file__).resolve().parents[2])
    others = os.environ.get("PYTHONPATH")
    kept["PYTHONPATH"] = os.pathsep.join([package, others]) if others else package
    # Their idle threads would count against the address space.
    kept |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
    return kept


def is_stopped(pid: int) -> bool:
    """Whether a process was halted by a signal; False where the system does not tell."""
    try:
        return Path(f"/proc/{pid}/stat").read_bytes().rpartition(b") ")[2][:1] in (b"T", b"t")
    except OSError:
        return False


# The messages: a JSON header and raw blobs, each with its length.
#
# Nothing is pickled: a hostile file may control the decoder process, so its replies are parsed as data and
# checked against the settings before they are used.


PREFIX = struct.Struct(">I")
MAX_HEADER = 8 * 2**20


class WireError(Exception):
    """A reply of the decoder process that breaks the protocol."""


def pack(header: dict[str, Any], blobs: tuple[bytes | memoryview, ...] = ()) -> list[bytes | memoryview]:
    """The pieces of one message, in the order in which they are written."""
    text = orjson.dumps({**header, "blobs": [len(b) for b in blobs]})
    return [PREFIX.pack(len(text)), text, *blobs]


def header_length(prefix: bytes) -> int:
    """Bytes of the header that follows.

    Raises:
        WireError: longer than any header.
    """
    length = int(PREFIX.unpack(prefix)[0])
    if length > MAX_HEADER:
        raise WireError(f"a header of {length} bytes")
    return length


def parse_header(data: bytes, *, max_blobs: int, max_bytes: int) -> tuple[dict[str, Any], list[int]]:
    """The header and the lengths of its blobs.

    Raises:
        WireError: not a header, or blobs past the limits.
    """
    try:
        header = orjson.loads(data)
    except orjson.JSONDecodeError:
        raise WireError("a header that is no JSON") from None
    lengths = header.pop("blobs", None) if isinstance(header, dict) else None
    if not isinstance(lengths, list) or not all(type(n) is int and n >= 0 for n in lengths):
        raise WireError("a header without blob lengths")
    if len(lengths) > max_blobs or sum(lengths) > max_bytes:
        raise WireError(f"{len(lengths)} blobs of {sum(lengths)} bytes")
    return header, lengths


def budget(spec: MediaSpec) -> int:
    """Bytes that one reply may hold at most: frames at their pixel budget, and room for poor compression."""
    pixels = max(spec.max_pixels, spec.image_max_pixels or 0)
    return 4 * spec.frames * pixels + 2**20


def _mime(picture: bytes) -> Literal["image/jpeg", "image/png"] | None:
    """Media type by the first bytes."""
    if picture.startswith(b"\xff\xd8\xff"):
        return "image/jpeg"
    return "image/png" if picture.startswith(b"\x89PNG\r\n\x1a\n") else None


def frames_of(header: dict[str, Any], blobs: list[bytes], spec: MediaSpec, want: Want) -> Frames:
    """The `Frames` of a reply, checked against its own record.

    Raises:
        WireError: record, sizes and settings do not fit each other.
    """
    import numpy as np

    try:
        record = MediaRecord.model_validate(header.get("record"), strict=False)
    except ValidationError as error:
        raise WireError(f"a bad record: {error.error_count()} errors") from None
    shape = (record.count, record.height, record.width, 3)
    if record.count > spec.frames or len(record.indices) != record.count != len(record.times_s):
        raise WireError(f"a record of {record.count} frames")
    if want == "encoded":
        mime = _mime(blobs[0]) if blobs else None
        if len(blobs) != record.count or mime is None or any(_mime(blob) != mime for blob in blobs):
            raise WireError(f"{len(blobs)} pictures for {record.count} frames")
        if mime != spec.mime and not (spec.passthrough and record.passthrough):
            raise WireError(f"{mime} where {spec.mime} was asked for")
        return Frames(record=record, encoded=tuple(blobs), mime=mime)
    if len(blobs) != 1 or len(blobs[0]) != math.prod(shape):
        raise WireError("pixels that do not fill their shape")
    # Writable, as an array of `sample_media` is.
    array = np.frombuffer(bytearray(blobs[0]), dtype=np.uint8).reshape(shape)
    return Frames(record=record, array=array, mime=spec.mime)


# The decoder process: reads one request, decodes one file, answers, until its input ends.
#
# Started by `DecodePool` as `python -m videop2r_data.media.worker`; the first message holds the settings.


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
        frames = sample_media(
            path, request["data_type"], spec, want=request["want"], focus=Focus(*request["focus"])
        )
    except MediaError as error:
        return {"ok": False, "reason": error.reason, "message": error.message, "where": error.where}, ()
    except P2RError as error:
        return {"ok": False, "reason": None, "message": str(error), "where": error.where}, ()
    blobs: tuple[bytes | memoryview, ...] = frames.encoded
    if frames.array is not None:
        blobs = (frames.array.reshape(-1).data,)
    return {"ok": True, "record": frames.record.model_dump(mode="json")}, blobs


def _read(source: BinaryIO) -> dict[str, Any] | None:
    prefix = source.read(PREFIX.size)
    if len(prefix) < PREFIX.size:
        return None
    data = source.read(header_length(prefix))
    header, _ = parse_header(data, max_blobs=0, max_bytes=0)
    return header


def _write(sink: int, header: dict[str, Any], blobs: tuple[bytes | memoryview, ...] = ()) -> None:
    """Write all pieces with as few calls as the pipe allows: each call wakes the parent."""
    pieces = [memoryview(piece) for piece in pack(header, blobs)]
    while pieces:
        written = os.writev(sink, pieces[:_IOV_MAX])
        while pieces and written >= len(pieces[0]):
            written -= len(pieces.pop(0))
        if pieces:
            pieces[0] = pieces[0][written:]


if __name__ == "__main__":
    main()
