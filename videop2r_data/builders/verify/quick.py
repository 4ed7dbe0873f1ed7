"""`sft` from parquet: an Arrow batch is cleared at once where no fault is possible, the rest row by row."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from enum import StrEnum
from functools import cached_property, reduce
from hashlib import blake2b
from itertools import pairwise
from operator import and_
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from videop2r_data.builders.verify.report import Rules, Tally
from videop2r_data.builders.verify.rows import (
    PLAIN_PATH,
    REST,
    TIMES,
    TOLERANCE,
    Say,
    check_row,
    check_sft,
    inner_answer,
    kind_of,
    options_fault,
    passes_consistency,
    rescore,
    rows_of,
)
from videop2r_data.files import Batch, as_batch, values_of
from videop2r_data.schemas import DataType, ProblemType, SftRow
from videop2r_data.validators import ANSWER_MARKERS, SURE_LETTERS

# Text columns as NumPy arrays of bytes and offsets, to ask one question of all rows at once.


Mask = NDArray[np.bool_]
_HEX = np.zeros(256, dtype=bool)
_HEX[list(b"0123456789abcdef")] = True


class Texts:
    """A string column without nulls: where each text begins, and the bytes of all."""

    def __init__(self, array: pa.StringArray) -> None:
        _, offsets, data = array.buffers()
        every = np.frombuffer(offsets, np.int32, len(array) + 1, 4 * array.offset) if len(array) else [0]
        starts = np.asarray(every, dtype=np.int64)
        held = np.frombuffer(data, np.uint8) if data is not None and data.size else np.empty(0, np.uint8)
        self.data: NDArray[np.uint8] = held[starts[0] : starts[-1]]
        self.offsets: NDArray[np.int64] = starts - starts[0]

    @cached_property
    def lengths(self) -> NDArray[np.int64]:
        """Bytes of each text."""
        return np.diff(self.offsets)

    def holding(self, bytes_wanted: Mask) -> Mask:
        """Rows that hold one of the bytes marked in a mask over `data`."""
        return rows_of_positions(np.flatnonzero(bytes_wanted), self.offsets)

    def count(self, byte: int) -> NDArray[np.int64]:
        """How often each text holds a byte."""
        at = np.flatnonzero(self.data == byte)
        return np.diff(np.searchsorted(at, self.offsets))

    def byte(self, at: int) -> NDArray[np.uint8]:
        """The byte of each text at an offset; 0 where it is shorter."""
        out = np.zeros(len(self.lengths), dtype=np.uint8)
        long = self.lengths > at
        out[long] = self.data[self.offsets[:-1][long] + at]
        return out

    def hex64(self) -> Mask:
        """Rows of exactly 64 lower-case hexadecimal digits."""
        return np.asarray(self.lengths == 64) & ~self.holding(~_HEX[self.data])


def rows_of_positions(at: NDArray[Any], offsets: NDArray[np.int64]) -> Mask:
    """Which rows the element positions lie in; row `i` has the elements `offsets[i]` to `offsets[i + 1]`."""
    out = np.zeros(len(offsets) - 1, dtype=bool)
    if len(at):
        out[np.searchsorted(offsets, at, side="right") - 1] = True
    return out


def list_parts(array: pa.ListArray) -> tuple[pa.Array, NDArray[np.int64]]:
    """The elements of all lists, and the offsets of each list in them."""
    offsets = array.offsets.to_numpy().astype(np.int64)
    return array.flatten(), offsets - offsets[0]


def increasing_lists(values: NDArray[Any], offsets: NDArray[np.int64]) -> Mask:
    """Lists whose numbers are finite, not negative and strictly increasing (or that are empty)."""
    with np.errstate(invalid="ignore"):
        falls = ~(values[1:] > values[:-1])
        wrong = ~((values >= 0) & (values < np.inf))
    inner = offsets[1:-1]
    edges = inner[(inner > 0) & (inner < len(values))]
    falls[edges - 1] = False  # the last of one list beside the first of the next
    return ~(
        rows_of_positions(np.flatnonzero(falls), offsets) | rows_of_positions(np.flatnonzero(wrong), offsets)
    )


def mask(array: pa.Array) -> Mask:
    """A boolean Arrow array as NumPy; null is False."""
    if array.null_count:
        array = pc.fill_null(array, False)
    return np.asarray(array.to_numpy(zero_copy_only=False), dtype=bool)


def joined(*parts: pa.Array | str) -> pa.StringArray:
    """Texts put together row by row."""
    return pc.binary_join_element_wise(*parts, "")


# Rows that are faultless beyond doubt. Sound, not complete: a row called sure has no finding by any check of
# `rows.check_row` (a test compares the two); every other row goes through those checks, which alone say what
# is wrong.


MAX_BYTES = 2**28
"""Larger batches go row by row: joined texts must fit the 32-bit offsets of one Arrow array."""
_TAIL_BYTES = 64
_CONCLUDES = (
    r"[ \n](?:answer|option|choice|conclusion) (?:is|should be|must be|will be):? "
    r"(?P<claim>[A-Z]|(?:0|[1-9][0-9]{0,8})(?:\.[0-9]{1,6})?)\.?\z"
)
"""A think segment that ends in its conclusion, and this in one letter or number and nothing else."""
_GRADED_BY = {
    name: [kind for kind in ProblemType if kind.traits.grader == name] for name in ("choice", "number")
}
_PLAIN_NUMBER = r"\A(?:0|[1-9][0-9]{0,8})(?:\.[0-9]{1,6})?\z"
_BLANKLESS = r"[!-~]"
_LETTER = np.zeros(256, dtype=np.int64)
_LETTER[[*range(ord("A"), ord("Z") + 1), *range(ord("a"), ord("z") + 1)]] = 1
BRACKETS = "\u02c2\u2039\u227a\u2329\u276c\u276e\u27e8\u29fc\u3008\u300a\ufe3d\ufe3f\ufe64\uff1c"
"""Characters that `unmask_markup` may turn into `<`."""
_MASKED = f"[&{BRACKETS}]"
"""Without one of these no judgement tag is hidden in a text whose every `<` opens a segment tag."""


def sure_rows(part: pa.RecordBatch, rules: Rules) -> tuple[Mask, Mask]:
    """Look at a batch of exactly the columns of `SftRow`.

    Returns:
        Rows without any fault; and rows of which only score and consistency are left to look at.
    """
    nothing = np.zeros(part.num_rows, dtype=bool)
    if not part.num_rows or rules.bounded or part.nbytes > MAX_BYTES or not _clean(part):
        return nothing, nothing
    kind, data_type = _codes(part, "problem_type", ProblemType), _codes(part, "data_type", DataType)
    sound = reduce(
        and_,
        (
            kind >= 0,
            data_type >= 0,
            _path(part, data_type),
            _trace(part, rules),
            _plain_observation(part),
            _rewards(part, rules),
            _calls(part, rules),
            _frames(part, data_type),
            _origin(part, data_type),
        ),
    )
    return sound & _right(part, rules, kind), sound


def _clean(part: pa.RecordBatch) -> bool:
    """UTF-8 throughout, and no nulls but in the columns that may hold them."""
    try:
        part.validate(full=True)
    except pa.ArrowException:
        return False
    return not any(part.column(i).null_count for i, f in enumerate(part.schema) if not f.nullable)


def _codes(part: pa.RecordBatch, name: str, known: Any) -> NDArray[np.int64]:
    """Index of each cell's value in an enumeration, or -1."""
    at = pc.index_in(part.column(name), value_set=pa.array([k.value for k in known], pa.string()))
    return np.asarray(pc.fill_null(at, -1).to_numpy(zero_copy_only=False), dtype=np.int64)


def _is(codes: NDArray[np.int64], *members: StrEnum) -> Mask:
    known = list(type(members[0]))
    return np.isin(codes, [known.index(m) for m in members])


def _path(part: pa.RecordBatch, data_type: NDArray[np.int64]) -> Mask:
    path = part.column("path")
    none = Texts(path).lengths == 0
    plain = mask(pc.match_substring_regex(path, PLAIN_PATH))
    return np.where(_is(data_type, DataType.TEXT), none, plain)


def _trace(part: pa.RecordBatch, rules: Rules) -> Mask:
    """Process and output are the segments between the template's own six tags, and no `<` stands in them."""
    observation, think, answer, process, output = (
        part.column(name) for name in ("observation", "think", "answer", "process", "output")
    )
    same = mask(pc.equal(process, joined("<think>", think, "</think><answer>", answer, "</answer>")))
    whole = joined("<observation>", observation, "</observation> ", process)
    same &= mask(pc.equal(output, whole))
    texts = Texts(output)
    same &= texts.count(ord("<")) == 6
    for segment in (observation, think, answer):
        same &= mask(pc.match_substring_regex(segment, _BLANKLESS))
    if rules.own and np.any((texts.data >= 128) | (texts.data == ord("&"))):
        same &= ~mask(pc.match_substring_regex(output, _MASKED))
    return same


def _plain_observation(part: pa.RecordBatch) -> Mask:
    """Observations that say more than question, options and answer do, in words that state no answer."""
    observation = part.column("observation")
    options, starts = list_parts(part.column("options"))
    enough = np.diff(Texts(options).offsets[starts])
    for name in ("problem", "answer"):
        enough = np.maximum(enough, Texts(part.column(name)).lengths)
    texts = Texts(observation)
    letters = np.concatenate(([0], np.cumsum(_LETTER[texts.data])))[texts.offsets]
    return np.asarray(
        (np.diff(letters) > enough + SURE_LETTERS)
        & ~mask(pc.match_substring_regex(observation, f"(?i){ANSWER_MARKERS}"))
    )


def _rewards(part: pa.RecordBatch, rules: Rules) -> Mask:
    reward = part.column("reward").to_numpy()
    return np.asarray((reward >= rules.spec.threshold) & (reward >= 0) & (reward <= 1))


def _calls(part: pa.RecordBatch, rules: Rules) -> Mask:
    judge_key = Texts(part.column("judge_key"))
    judged = mask(pc.equal(part.column("judgement"), "Yes"))
    unjudged = Texts(part.column("judgement")).lengths == 0
    verdict = {
        True: judged & judge_key.hex64(),
        False: unjudged & (judge_key.lengths == 0),
        None: np.where(judged, judge_key.hex64(), unjudged & (judge_key.lengths == 0)),
    }[rules.judge]
    sound = verdict & Texts(part.column("generation_key")).hex64() & (part.column("attempt").to_numpy() >= 0)
    if rules.synthetic is not None:
        sound &= mask(part.column("synthetic")) == rules.synthetic
    return np.asarray(sound)


def _frames(part: pa.RecordBatch, data_type: NDArray[np.int64]) -> Mask:
    indices, starts = list_parts(part.column("frame_indices"))
    times, other_starts = list_parts(part.column("frame_times_s"))
    count = np.diff(starts)
    sound = count == np.diff(other_starts)
    sound &= increasing_lists(indices.to_numpy(), starts) & increasing_lists(times.to_numpy(), other_starts)
    text, image = _is(data_type, DataType.TEXT), _is(data_type, DataType.IMAGE)
    sound &= np.where(text, count == 0, np.where(image, count == 1, count >= 1))
    fps = pc.fill_null(part.column("source_fps"), 1.0).to_numpy()
    media = Texts(part.column("media_sha256"))
    return np.asarray(sound & (fps > 0) & (fps < np.inf) & np.where(text, media.lengths == 0, media.hex64()))


def _origin(part: pa.RecordBatch, data_type: NDArray[np.int64]) -> Mask:
    times = part.column("times")
    known = mask(pc.is_in(times, value_set=pa.array(TIMES, pa.string())))
    sound = (Texts(times).lengths == 0) | (known & _is(data_type, DataType.VIDEO))
    missing = pc.fill_null(part.column("media_missing"), 0.0).to_numpy()
    return np.asarray(sound & (missing >= 0) & (missing <= 1))


def _right(part: pa.RecordBatch, rules: Rules, kind: NDArray[np.int64]) -> Mask:
    """Rows whose answer equals its plain reference, has reward 1, and ends the think segment."""
    answer = part.column("answer")
    sound = mask(pc.equal(part.column("solution"), joined("<answer>", answer, "</answer>")))
    sound &= np.abs(part.column("reward").to_numpy() - 1.0) <= 1e-9
    choice, number = (_is(kind, *_GRADED_BY[name]) for name in ("choice", "number"))
    if choice.any():
        choice &= _labelled(part)
    if number.any():
        number &= mask(pc.match_substring_regex(answer, _PLAIN_NUMBER))
    sound &= choice | number
    if rules.own and rules.spec.checks_consistency:
        sound &= concluding(part)
    return sound


def concluding(part: pa.RecordBatch) -> Mask:
    """Rows whose think segment ends in `answer is X.`, X being the answer: a letter or a plain number."""
    tail = pc.binary_slice(part.column("think").cast(pa.binary()), -_TAIL_BYTES)
    claim = pc.struct_field(pc.extract_regex(tail, _CONCLUDES), "claim")
    return mask(pc.equal(claim, part.column("answer").cast(pa.binary())))


def _labelled(part: pa.RecordBatch) -> Mask:
    """Rows with 2 to 26 options `A.`, `B.` ... in order, and one of these letters as the answer."""
    options, starts = list_parts(part.column("options"))
    texts, count = Texts(options), np.diff(starts)
    place = np.arange(len(options)) - np.repeat(starts[:-1], count)
    plain = (texts.byte(0) == ord("A") + place) & (texts.byte(1) == ord(".")) & (place < 26)
    lists = np.repeat(np.arange(len(count)), count)
    sound = (count >= 2) & (count <= 26)
    sound[lists[~plain]] = False
    answer = Texts(part.column("answer"))
    letter = answer.byte(0).astype(np.int64) - ord("A")
    return np.asarray(sound & (answer.lengths == 1) & (letter >= 0) & (letter < count))


# The check of a slice: sure rows add to the tally at once, the others go row by row.


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
        for index, row in rows_of(Batch(start, len(at), taken.columns, at), SftRow):
            check_row(say, rules, index, row)


def _scores_hold(part: pa.RecordBatch, rules: Rules) -> Mask:
    """Of rows that pass every other check: whether reward and consistency hold."""
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
    """`rows.remember` and the table for all rows of a batch; the same bytes are hashed."""
    rows = part.num_rows
    cells = zip(part.column("data_type").to_pylist(), part.column("problem_type").to_pylist(), strict=True)
    tally.table.update(Counter(cells))
    tally.at.extend(range(start, start + rows))
    options, ends = list_parts(part.column("options"))
    # a list of elements that may be null, in name only: Arrow joins no other
    lists = pc.binary_join(pa.ListArray.from_arrays(ends.astype("int32"), options), "\1")
    content = _slices(joined(part.column("problem"), "\0", lists, "\0", part.column("path"), "\0"))
    rest = _slices(pc.binary_join_element_wise(*map(part.column, REST), "\0"))
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
    held = texts.data.tobytes()  # slices of bytes are untracked by the garbage collector
    return (held[a:b] for a, b in pairwise(texts.offsets.tolist()))
