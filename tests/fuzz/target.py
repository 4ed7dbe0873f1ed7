"""What all targets share: how an input is read, and the bounds on what it may cost."""

from __future__ import annotations

import resource
import signal
import struct
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import NoReturn

RAW, WORDS, SHAPED = 0, 1, 2
"""How the rest of an input is read, by its first byte: as it stands, as places in the target's list of words,
or as the choices of a hypothesis strategy."""


class BrokenError(Exception):
    """An invariant does not hold; the message begins with its name."""


class SlowError(Exception):
    """An input costs more processor time than its bound."""


class LargeError(Exception):
    """An input costs more memory than its bound."""


def must(holds: object, invariant: str, *seen: object) -> None:
    """Raise `BrokenError` unless it holds."""
    if not holds:
        raise BrokenError(f"{invariant}: {', '.join(ascii(one)[:300] for one in seen)}")


@dataclass(frozen=True)
class Target:
    """One thing that reads what strangers write.

    Attributes:
        name: for the command line, and of its folder in the corpus.
        check: takes any bytes; raises on what must not happen.
        seeds: good inputs and near misses to start from, first byte included.
        words: pieces that inputs of kind WORDS are made of.
        shaped: a hypothesis test of typed values, for inputs of kind SHAPED.
        seconds: of processor time that one input may cost.
        megabytes: that one input may add to the most memory that the process ever had.
        longest: bytes of an input.
    """

    name: str
    check: Callable[[bytes], None]
    seeds: Callable[[], Iterable[bytes]]
    words: Sequence[bytes] = ()
    shaped: Callable[[], None] | None = None
    seconds: float = 1.0
    megabytes: int = 200
    longest: int = 4096

    def run(self, data: bytes, *, factor: float = 1.0) -> None:
        """One input within its bounds.

        Args:
            data: the input.
            factor: of the bounds: code that is traced for coverage is slower.
        """
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        began = time.process_time()
        with _stopped_after(20 * factor * self.seconds):
            self.read(data)
        took = time.process_time() - began
        if took > factor * self.seconds:
            raise SlowError(f"{took:.2f} s of processor time for {len(data)} bytes")
        grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
        if grown > self.megabytes:
            raise LargeError(f"{grown:.0f} MB for {len(data)} bytes")

    def read(self, data: bytes) -> None:
        """One input without bounds."""
        kind, rest = data[0] % 3 if data else RAW, data[1:]
        if kind == SHAPED and self.shaped is not None:
            self.shaped.hypothesis.fuzz_one_input(rest)  # type: ignore[attr-defined]
        elif kind == WORDS and self.words:
            self.check(b"".join(self.words[byte % len(self.words)] for byte in rest))
        else:
            self.check(rest)


@contextmanager
def _stopped_after(seconds: float) -> Iterator[None]:
    """What does not end is stopped, in Python code at least."""

    def stop(number: int, frame: FrameType | None) -> NoReturn:
        raise SlowError(f"not done after {seconds:.0f} s of processor time")

    before = signal.signal(signal.SIGVTALRM, stop)
    signal.setitimer(signal.ITIMER_VIRTUAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)


def text_of(data: bytes) -> str:
    """Bytes as text: UTF-8, halves of surrogate pairs among it; every other byte is such a half."""
    try:
        return data.decode("utf-8", "surrogatepass")
    except UnicodeDecodeError:
        return data.decode("utf-8", "surrogateescape")


def raw(data: bytes | str) -> bytes:
    """An input of kind RAW."""
    return bytes([RAW]) + (data.encode("utf-8", "surrogatepass") if isinstance(data, str) else data)


_EDIT = struct.Struct("<BIB")


def edited(base: bytes, edits: bytes) -> bytes:
    """A file with some bytes changed: six bytes of `edits` say what, where, and to which value.

    So a large file needs a small input, and a change in one place leaves the others as they were.
    """
    data = bytearray(base)
    for what, where, value in _EDIT.iter_unpack(edits[: len(edits) // _EDIT.size * _EDIT.size]):
        at = where % (len(data) + 1)
        match what % 8:
            case 0:
                data[at : at + 1] = bytes([value])
            case 1:
                data[at : at + 4] = bytes([value]) * 4
            case 2:
                data[at : at + 4] = (value << (where >> 24) % 25).to_bytes(4, "big")
            case 3:
                data[at : at + 4] = (value << (where >> 24) % 25).to_bytes(4, "little")
            case 4:
                del data[at : at + value]
            case 5:
                data[at:at] = data[max(0, at - value) : at]
            case 6 if at < len(data):
                data[at] ^= 1 << value % 8
            case 7 if value < 8:
                del data[at:]
            case _:
                data[at : at + value] = bytes(min(value, len(data) - at))
    return bytes(data)
