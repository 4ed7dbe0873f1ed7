"""What one slice of a release adds up to; mergeable, and small enough to travel between processes."""

from __future__ import annotations

from array import array
from collections import Counter
from hashlib import blake2b

from videop2r_data.builders.verify.report import Findings


class Tally:
    """Counts, findings and 64-bit digests of some rows of one config.

    A digest of 64 bits stands for each text: among 260,000 rows two different texts share one with a
    probability of 2e-9.
    """

    def __init__(self) -> None:
        self.rows = 0
        self.findings = Findings()
        self.table: Counter[tuple[str, str]] = Counter()
        self.outcomes: Counter[str] = Counter()
        self.reasons: Counter[str] = Counter()
        self.notes: Counter[str] = Counter()
        self.at = array("Q")
        """Row index in the file of each remembered row."""
        self.ids = bytearray()
        self.contents = bytearray()
        self.questions = bytearray()
        self.busy_s = 0.0
        """Seconds that reading and checking took, without imports."""
        self.process = 0
        """Which process did it."""
        self.sha256 = ""
        """Of a whole file, for a digest task."""

    def remember(self, row: int, sample_id: str, content: str, question: str) -> None:
        """Keep the digests by which rows are compared with other rows."""
        self.at.append(row)
        self.ids += _digest(sample_id)
        self.contents += _digest(content)
        self.questions += _digest(question)


def _digest(text: str) -> bytes:
    return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()
