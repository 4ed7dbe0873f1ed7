"""What was spent is a function of the records, whatever their order."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from videop2r_data.backends.journal import Journal
from videop2r_data.backends.spending import Spending
from videop2r_data.schemas import digest

KEYS = [digest(i) for i in range(4)]
STEPS = st.lists(
    st.tuples(
        st.sampled_from(["sent", "void", "call", "refused", "media"]),
        st.integers(0, 3),
        st.integers(0, 50),
    ),
    max_size=25,
)


@given(STEPS, st.integers(0, 25))
@settings(deadline=None, max_examples=60)
def test_a_reopened_journal_knows_the_same_sums(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, int, int]], cut: int
) -> None:
    folder = tmp_path_factory.mktemp("j")

    def write(journal: Journal, part: list[tuple[str, int, int]]) -> tuple[int, int, int]:
        for kind, which, nusd in part:
            key = KEYS[which]
            if kind == "sent":
                journal.put_sent(key, nusd=nusd)
            elif kind == "void":
                journal.put_void(key, nusd=nusd)
            elif kind == "call":
                journal.put_call(key, {"text": ""}, nusd=nusd)
            elif kind == "refused":
                journal.put_refused(key, "no")
            else:
                journal.put_media(key, {"n": nusd})
        return journal.spending.finished_nusd, journal.spending.open_nusd, len(journal)

    with Journal(folder) as journal:
        write(journal, steps[:cut])
    with Journal(folder) as journal:
        live = write(journal, steps[cut:])
        media = [journal.media(key) for key in KEYS]
    with Journal(folder, readonly=True) as journal:
        assert write(journal, []) == live
        assert [journal.media(key) for key in KEYS] == media


@given(st.lists(st.sampled_from(["lost", "voided", "answered"]), max_size=8), st.randoms())
@settings(deadline=None, max_examples=60)
def test_the_order_of_merged_segments_changes_no_sum(ends: list[str], rng: random.Random) -> None:
    """Calls of one request, each at most 10 and billed 3 when answered, in any order of their records."""
    records = [(b"sent", 10)] * len(ends)
    records += [(b"void", 10)] * ends.count("voided") + [(b"call", 3)] * ends.count("answered")
    rng.shuffle(records)
    spending = Spending()
    for kind, nusd in records:
        spending.note(b"k", kind, nusd)
    assert spending.finished_nusd == 3 * ends.count("answered")
    assert spending.open_nusd == 10 * ends.count("lost")
