"""`sft` from parquet: what is sure is told for a whole batch, the rest goes row by row."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from hashlib import blake2b
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from videop2r_data.builders.verify.question import (
    QUESTION,
    Say,
    inner_answer,
    kind_of,
    options_fault,
    rows_of,
)
from videop2r_data.builders.verify.rules import Rules
from videop2r_data.builders.verify.sft import (
    SFT,
    TOLERANCE,
    check_row,
    check_sft,
    passes_consistency,
    rescore,
)
from videop2r_data.builders.verify.sure import concluding, sure_rows
from videop2r_data.builders.verify.tally import Tally
from videop2r_data.builders.verify.texts import Mask, Texts, joined, list_parts
from videop2r_data.files.rows import Batch, as_batch, values_of

_SCORED = ("problem_type", "options", "solution", "answer", "reward")


def check_sft_arrow(start: int, part: pa.RecordBatch, file: str, rules: Rules, tally: Tally) -> None:
    """The checks of `check_sft` on a record batch of exactly its columns; the same findings and digests.

    Raises:
        SourceError: a text is not UTF-8.
    """
    sure, sound = sure_rows(part, rules)
    if not sound.any():
        check_sft(as_batch(start, part, file), None, file, rules, tally)
        return
    rest = np.flatnonzero(sound & ~sure)
    if len(rest):
        sure[rest] = _scores_hold(part.take(pa.array(rest)), rules)
    _remember(start, part, tally)
    doubtful = np.flatnonzero(~sure)
    if len(doubtful):
        taken = as_batch(start, part.take(pa.array(doubtful)), file)
        at = (start + doubtful).tolist()
        say = Say(tally, file)
        for row in rows_of(Batch(start, len(at), taken.columns, at), QUESTION + SFT, None):
            check_row(say, rules, row)


def _scores_hold(part: pa.RecordBatch, rules: Rules) -> Mask:
    """Rows in which everything else was found right: whether score and consistency are."""
    out = np.zeros(part.num_rows, dtype=bool)
    columns = [values_of(part.column(name)) for name in _SCORED]
    consistent = rules.own and rules.spec.checks_consistency
    said = concluding(part).tolist() if consistent else [True] * part.num_rows
    think = part.column("think")
    for at, (problem_type, options, solution, answer, reward) in enumerate(zip(*columns, strict=True)):
        kind, reference = kind_of(problem_type), inner_answer(solution)
        if kind is None or reference is None or options_fault(kind, options):
            continue
        got = rescore(kind, answer, reference, options, rules.spec.policy).value
        if got is None or abs(got - reward) > TOLERANCE:
            continue
        out[at] = said[at] or passes_consistency(kind, think[at].as_py(), answer, options)
    return out


def _remember(start: int, part: pa.RecordBatch, tally: Tally) -> None:
    """What `Tally.remember` and the table keep, for all rows of a batch; the same bytes are hashed."""
    rows = part.num_rows
    cells = zip(part.column("data_type").to_pylist(), part.column("problem_type").to_pylist(), strict=True)
    tally.table.update(Counter(cells))
    tally.at.extend(range(start, start + rows))
    options, ends = list_parts(part.column("options"))
    # a list of elements that may be null, in name only: Arrow joins no other
    lists = pc.binary_join(pa.ListArray.from_arrays(ends.astype("int32"), options), "\1")
    content = _slices(joined(part.column("problem"), "\0", lists, "\0", part.column("path"), "\0"))
    names = ("problem_id", "problem_type", "data_type", "solution", "data_source")
    rest = _slices(pc.binary_join_element_wise(*map(part.column, names), "\0"))
    output, ids = _slices(part.column("output")), _slices(part.column("sample_id"))
    for sample_id, one, trace, other in zip(ids, content, output, rest, strict=True):
        tally.ids += blake2b(sample_id, digest_size=8).digest()
        held = blake2b(one, digest_size=8)
        question = held.copy()
        held.update(trace)
        question.update(other)
        tally.contents += held.digest()
        tally.questions += question.digest()


def _slices(array: pa.StringArray) -> Iterator[bytes]:
    """The bytes of each text."""
    texts = Texts(array)
    held = texts.data.tobytes()  # pieces of it are no objects that the garbage collector has to visit
    return (held[a:b] for a, b in pairwise(texts.offsets.tolist()))
