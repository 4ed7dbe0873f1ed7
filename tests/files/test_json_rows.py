"""The row reader: equal to json.loads on whole files at any chunk size, and never fooled by broken ones."""

from __future__ import annotations

import io
import json
import tracemalloc
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from videop2r_data.errors import SourceError
from videop2r_data.files.json_rows import JsonRows, NumberText, RawRow

_TEXT = st.text(max_size=30) | st.sampled_from(['"', "\\", '{"a": [', "}]", "\n{", "\u2028", "é", "😀", ","])
_VALUE = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**20), 10**20) | st.floats(allow_nan=False) | _TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_TEXT, inner, max_size=4),
    max_leaves=12,
)
_ROWS = st.lists(st.dictionaries(_TEXT, _VALUE, max_size=5), max_size=8)
_CHUNK = st.integers(1, 70)


def read(data: bytes, **kwargs: Any) -> list[RawRow]:
    return list(JsonRows(io.BytesIO(data), where="pool.json", **kwargs))


def values(data: bytes, **kwargs: Any) -> list[Any]:
    rows = read(data, **kwargs)
    assert [row.index for row in rows] == list(range(len(rows)))
    assert not [row.fault for row in rows if row.fault]
    return [row.value for row in rows]


def plain(value: Any) -> Any:
    """Undo the one thing that the reader keeps beyond json.loads: numbers as they were written."""
    if isinstance(value, NumberText):
        return float(value)
    if isinstance(value, dict):
        return {k: plain(v) for k, v in value.items()}
    return [plain(v) for v in value] if isinstance(value, list) else value


@settings(deadline=None, max_examples=300)
@given(_ROWS, _CHUNK, st.sampled_from([None, 0, 2]), st.booleans())
def test_an_array_reads_as_json_loads_does(
    rows: list[dict[str, Any]], chunk: int, indent: int | None, ascii_only: bool
) -> None:
    data = json.dumps(rows, indent=indent, ensure_ascii=ascii_only).encode("utf-8", "surrogatepass")
    assert [plain(v) for v in values(data, chunk_bytes=chunk)] == json.loads(json.dumps(rows))


@settings(deadline=None, max_examples=200)
@given(_ROWS, _CHUNK, st.sampled_from([None, 2]), st.booleans())
def test_the_lenient_reader_gives_the_same_rows(
    rows: list[dict[str, Any]], chunk: int, indent: int | None, ascii_only: bool
) -> None:
    data = json.dumps(rows, indent=indent, ensure_ascii=ascii_only).encode("utf-8", "surrogatepass")
    lenient = values(data, chunk_bytes=chunk, exact=False, unique=False, one_list=True)
    # orjson gives an integer beyond 64 bits as a float
    assert str(json.loads(json.dumps(lenient), parse_int=float)) == str(
        json.loads(json.dumps(rows), parse_int=float)
    )


@pytest.mark.parametrize("chunk", [1, 7, 1000])
def test_texts_that_look_like_the_end_of_a_row(chunk: int) -> None:
    rows = [{"a": '}, {"b'}, {"a": [{"x": 1}, {"y": "}] , {"}]}, {}, {"a": '\\"}, {'}, {"z": 0}]
    data = json.dumps(rows).encode()
    assert values(data, chunk_bytes=chunk) == rows
    assert values(data, chunk_bytes=chunk, exact=False, unique=False) == rows


def test_a_lenient_reader_takes_the_last_of_repeated_fields() -> None:
    data = b'[{"a": 1, "a": 2}, {"a": 3, "a": 4}]'
    assert values(data, exact=False, unique=False) == [{"a": 2}, {"a": 4}]


def test_nothing_may_stand_behind_one_list() -> None:
    assert values(b'[{"a": 1}]\n', one_list=True) == [{"a": 1}]
    with pytest.raises(SourceError, match="text behind the JSON list: 'more'"):
        read(b'[{"a": 1}] more', one_list=True)


@settings(deadline=None, max_examples=200)
@given(_ROWS.filter(bool), _CHUNK, st.sampled_from(["\n", "\r\n", "", " ", "\n\n  "]), st.booleans())
def test_lines_and_concatenated_objects(
    rows: list[dict[str, Any]], chunk: int, between: str, bom: bool
) -> None:
    text = between.join(json.dumps(row, ensure_ascii=False) for row in rows)
    data = (b"\xef\xbb\xbf" if bom else b"") + text.encode("utf-8", "surrogatepass")
    assert [plain(v) for v in values(data, chunk_bytes=chunk)] == json.loads(json.dumps(rows))


@settings(deadline=None, max_examples=300)
@given(st.binary(max_size=200) | st.text('[]{}",:\\\n a1', max_size=80).map(str.encode), _CHUNK)
def test_junk_never_raises_anything_else_and_chunks_do_not_matter(data: bytes, chunk: int) -> None:
    def outcome(size: int) -> tuple[list[Any], str | None]:
        rows: list[Any] = []
        try:
            for row in JsonRows(io.BytesIO(data), where="pool.json", chunk_bytes=size):
                rows.append((row.index, row.value, row.fault, row.raw))
        except SourceError as error:
            return rows, str(error)
        return rows, None

    assert repr(outcome(chunk)) == repr(outcome(1 << 18))


@settings(deadline=None, max_examples=200)
@given(st.data(), _CHUNK)
def test_a_cut_array_gives_its_whole_rows_then_the_place(data: st.DataObject, chunk: int) -> None:
    rows = [{"id": i, "text": 'a "quoted" \\ {brace} é'} for i in range(4)]
    texts = [json.dumps(row, ensure_ascii=False).encode() for row in rows]
    whole = b"[" + b", ".join(texts) + b"]"
    ends = [1 + sum(len(text) + 2 for text in texts[:i]) + len(texts[i]) for i in range(4)]
    cut = data.draw(st.integers(1, len(whole) - 1))
    got: list[Any] = []
    with pytest.raises(SourceError, match=r"byte \d+, row \d"):
        for row in JsonRows(io.BytesIO(whole[:cut]), where="pool.json", chunk_bytes=chunk):
            got.append(row.value)
    assert got == rows[: sum(end <= cut for end in ends)]


@pytest.mark.parametrize(
    ("bad", "fault"),
    [
        (b'{"a": }', "not JSON: Expecting value at character 6 of the row"),
        (b'{"a": 1,}', "not JSON"),
        (b"{a: 1}", "not JSON"),
        (b"{'a': 1}", "not JSON"),
        (b'{"a": 1, "a": 2}', "field 'a' stands twice in one object"),
        (b'{"a": {"b": 1, "b": 1}}', "field 'b' stands twice in one object"),
        (b'{"a": "line\nbreak"}', "not JSON: Invalid control character"),
        (b'{"a": "\\x"}', "not JSON"),
        (b'{"a": ' + b"9" * 5000 + b"}", "Exceeds the limit"),
        (b'{"a":' * 5000 + b"1" + b"}" * 5000, "nested too deeply"),
        (b'"just text, with a comma"', "a row is a JSON object"),
        (b"[1, [2, 3]]", "a row is a JSON object"),
        (b"12", "a row is a JSON object"),
        (b"null", "a row is a JSON object"),
    ],
)
@pytest.mark.parametrize("chunk", [1, 7, 1 << 18])
def test_a_bad_row_of_an_array_costs_itself(bad: bytes, fault: str, chunk: int) -> None:
    rows = read(b'[{"ok": 1}, ' + bad + b', {"ok": 2}]', chunk_bytes=chunk)
    assert [row.value for row in rows] == [{"ok": 1}, None, {"ok": 2}]
    assert fault in rows[1].fault
    assert rows[1].raw.startswith(bad[:20].decode())
    assert len(rows[1].raw) <= 200


@pytest.mark.parametrize(
    "bad",
    [
        b'{"a": "cut',
        b'{"a": {"b": [1, 2',
        b"junk without an end",
        b"[[[[",
        b'{"a": "x}',
        b"}",
        b"]",
        b"<html>",
    ],
)
@pytest.mark.parametrize("chunk", [1, 7, 1 << 18])
@pytest.mark.parametrize("newline", [b"\n", b"\r\n"])
def test_a_bad_line_costs_itself(bad: bytes, chunk: int, newline: bytes) -> None:
    rows = read(newline.join([b'{"ok": 1}', bad, b'{"ok": 2}', b""]), chunk_bytes=chunk)
    assert [row.value for row in rows] == [{"ok": 1}, None, {"ok": 2}]


def test_numbers_keep_their_printed_precision() -> None:
    (row,) = values(b'{"a": 1.50, "b": 1e3, "c": 7, "d": "1.50"}')
    assert row == {"a": "1.50", "b": "1e3", "c": 7, "d": "1.50"}
    assert isinstance(row["a"], NumberText) and not isinstance(row["d"], NumberText)


def test_nan_in_an_unused_column_spoils_nothing() -> None:
    (row,) = values(b'[{"a": NaN, "b": -Infinity}]')
    assert repr(row) == "{'a': nan, 'b': -inf}"


def test_bytes_that_are_no_utf8_stay_in_their_row() -> None:
    rows = values(b'[{"a": "\xff\xfe"}, {"a": "ok"}]')
    assert rows == [{"a": "\udcff\udcfe"}, {"a": "ok"}]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "the file is empty"),
        (b"  \n\t ", "the file is empty"),
        (b"\xef\xbb\xbf", "the file is empty"),
        ("[{}]".encode("utf-16"), "UTF-16"),
        (b"[", "before its array is closed"),
        (b'[{"a": 1}', "before its array is closed"),
        (b'[{"a": 1}, {"a": "te', "pool.json, byte 11, row 1: the file ends inside this row"),
        (b'{"a": 1}\n{"a": "te', "pool.json, byte 9, row 1: the file ends inside this row"),
        ('[{"a": "é"}, {'.encode(), "byte 14, row 1"),
        (b'[{"a": 1}, {"a": 1 "b": 2, "c": "', "byte 11, row 1: a string never ends"),
    ],
)
def test_what_cannot_be_read_at_all_names_the_place(data: bytes, message: str) -> None:
    with pytest.raises(SourceError) as caught:
        read(data, chunk_bytes=5)
    assert message in str(caught.value)
    assert caught.value.hint


def test_an_empty_array_is_no_error() -> None:
    assert read(b" [ ] ") == []


def test_an_object_around_all_rows_is_named_as_such() -> None:
    data = b'{"data": [' + b", ".join(b'{"a": 1}' for _ in range(100)) + b"]}"
    with pytest.raises(SourceError, match="longer than 100 characters"):
        read(data, max_row_chars=100, chunk_bytes=16)


@pytest.mark.parametrize(
    "filler",
    [b"x", b"\\\\", b'\\"', b"\\u00e9", "é".encode(), b"{", b"\\n"],
    ids=["plain", "backslashes", "quotes", "escapes", "two bytes", "braces", "line breaks"],
)
def test_a_giant_string_is_skipped_in_constant_memory(filler: bytes) -> None:
    size = 5 << 20
    data = b'[{"ok": 1}, {"a": "' + filler * (size // len(filler)) + b'"}, {"ok": 2}]'
    stream = io.BytesIO(data)
    tracemalloc.start()
    rows = list(JsonRows(stream, where="pool.json", max_row_chars=1 << 20))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert [row.value for row in rows] == [{"ok": 1}, None, {"ok": 2}]
    assert rows[1].fault == "the row is longer than 1048576 characters"
    assert peak < 12 << 20


@pytest.mark.parametrize(
    "bomb", [b"[" * (1 << 20), b"{" * (1 << 20), b'{"a":' * (1 << 18), b"[{" * (1 << 19)]
)
def test_depth_bombs_end_in_an_error_with_a_place(bomb: bytes) -> None:
    with pytest.raises(SourceError, match="row 0"):
        read(bomb)


class _Torn(io.RawIOBase):
    def __init__(self) -> None:
        self.parts: list[bytes | OSError] = [b'[{"a": 1}, {"a"', OSError("Input/output error")]

    def read(self, size: int = -1) -> bytes:
        part = self.parts.pop(0)
        if isinstance(part, OSError):
            raise part
        return part


def test_a_disk_error_comes_after_the_good_rows() -> None:
    rows = iter(JsonRows(_Torn(), where="pool.json"))  # type: ignore[arg-type]
    assert next(rows).value == {"a": 1}
    with pytest.raises(SourceError, match="row 1: cannot be read on: Input/output error"):
        next(rows)
