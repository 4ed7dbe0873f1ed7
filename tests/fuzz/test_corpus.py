"""What the long runs start from and what they kept, replayed: nothing may raise, break or cost too much."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fuzz.run import FACTOR, TARGETS, Findings, target_of
from tests.fuzz.target import RAW, SHAPED, BrokenError, SlowError, Target, edited, must, raw

_CORPUS = Path(__file__).parent / "corpus"


def _kept(name: str) -> list[bytes]:
    """One input a line, as the digits of its bytes."""
    path = _CORPUS / f"{name}.hex"
    return [bytes.fromhex(line) for line in path.read_text().split()] if path.exists() else []


@pytest.mark.parametrize("name", TARGETS)
def test_every_input_of_the_corpus_is_read_or_refused(name: str, tmp_path: Path) -> None:
    target, findings = target_of(name), Findings(tmp_path)
    inputs = [*target.seeds(), *_kept(name)]
    for data in inputs:
        try:
            target.run(data, factor=FACTOR)
        except Exception as error:
            findings.take(data, error)
    told = [path.read_text() for path in tmp_path.glob("*.txt")]
    assert not told, "\n\n".join(told)
    assert len(inputs) > 5


def test_a_target_tells_what_is_slow_and_what_is_broken(tmp_path: Path) -> None:
    def check(data: bytes) -> None:
        while data == b"slow":
            pass
        must(data != b"wrong", "right", data)

    target = Target("own", check, lambda: [], seconds=0.1)
    target.run(raw("fine"))
    with pytest.raises(SlowError):
        target.run(raw("slow"))
    findings = Findings(tmp_path)
    for data in (raw("wrong"), raw("wrong")):
        with pytest.raises(BrokenError, match="right") as caught:
            target.run(data)
        findings.take(data, caught.value)
    assert len(list(tmp_path.glob("*.txt"))) == 1


def test_edits_are_small_and_total() -> None:
    base = bytes(range(200))
    assert edited(base, b"") == base
    assert edited(base, b"\0\5\0\0\0\xff")[5] == 255
    for what in range(16):
        for where in (b"\0\0\0\0", b"\xff\xff\xff\xff"):
            edited(base, bytes([what]) + where + b"\x09")
            edited(b"", bytes([what]) + where + b"\x09")
    assert RAW != SHAPED
