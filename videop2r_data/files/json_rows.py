"""JSON rows out of a file of any size: an array, one object a line, or objects one after another.

The text of one row at a time is in memory. A row is parsed in place by the standard decoder; only when that
fails does a second, structural reader look for the end of the row, so that one bad row costs itself and not
the file: it is skipped without being held, in time linear in its length, whatever it contains.
"""

from __future__ import annotations

import codecs
import json
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO, NoReturn

import orjson

from videop2r_data.errors import SourceError

CHUNK_BYTES = 1 << 16
"""Read size; also the unit in which a buffer grows."""
MAX_ROW_CHARS = 4 << 20
"""A longer row is skipped and reported, never held."""
RAW_CHARS = 200
"""How much of a bad row is kept for the report."""

_SPACE = re.compile(r"[ \t\r\n]*")
# Inside a string: everything up to its closing quote, a line break before "{" in column 0 (a damaged row ends
# there at the latest: it is where the next one starts), or the end of the buffer. A match takes a
# bounded number of steps, each remembered by the engine. Python 3.11.2 errs on possessive groups.
_IN_STRING = re.compile(r'(?:[^"\\\n]+|\\.|\n(?=[^{])){0,1000}', re.DOTALL)
_TOKEN = re.compile(r'"|[{\[]+|[}\]]+|,|\n')
# Errors this close to the end of the buffer may come from a literal or an escape that was cut there.
_CUT = 16


class NumberText(str):
    """A JSON number with a fraction or an exponent, as written: `1.50` keeps its printed precision."""

    __slots__ = ()


@dataclass(slots=True)  # not frozen: that triples the time to make one, and there are hundreds of thousands
class RawRow:
    """One value of the file.

    Attributes:
        index: 0-based position in the file.
        value: the parsed object; None if there is a fault.
        fault: why the row cannot be used; empty if it can.
        raw: first characters of a row with a fault.
        line: 1-based line, where a row is a line of its own; 0: it is part of a list.
        known: of a row with a fault the columns that can be read all the same.
    """

    index: int
    value: dict[str, Any] | None
    fault: str = ""
    raw: str = ""
    line: int = 0
    known: dict[str, Any] | None = None


class _RepeatedKeyError(ValueError):
    """An object names one field twice."""


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise _RepeatedKeyError(f"field {twice[:80]!r} stands twice in one object")
    return value


# (numbers as written, a repeated field is a fault) -> decoder. The hooks cost a call per object or number.
_DECODERS = {
    (True, True): json.JSONDecoder(object_pairs_hook=_unique, parse_float=NumberText),
    (True, False): json.JSONDecoder(parse_float=NumberText),
    (False, True): json.JSONDecoder(object_pairs_hook=_unique),
    (False, False): json.JSONDecoder(),
}
_LENIENT = _DECODERS[False, False]
_BETWEEN = re.compile(r"\}[ \t\r\n]*,[ \t\r\n]*(?=\{)")


class JsonRows:
    """Iterate over the rows of one JSON file.

    Args:
        stream: binary, read once from its current place to its end.
        where: name for messages.
        chunk_bytes: read size.
        max_row_chars: longest row that is parsed.
        exact: numbers with a fraction keep their printed form; else they are floats.
        unique: an object that names a field twice is a fault; else the last value counts.
        one_list: nothing may stand behind the closing bracket of an array.

    Raises (while iterating):
        SourceError: the file is empty, cut off, damaged as a whole, or UTF-16; it names byte and row.

    >>> import io
    >>> [row.value for row in JsonRows(io.BytesIO(b'[{"a": 1}, {"a": 2}]'), where="pool.json")]
    [{'a': 1}, {'a': 2}]
    """

    def __init__(
        self,
        stream: BinaryIO,
        *,
        where: str,
        chunk_bytes: int = CHUNK_BYTES,
        max_row_chars: int = MAX_ROW_CHARS,
        exact: bool = True,
        unique: bool = True,
        one_list: bool = False,
    ) -> None:
        self._stream = stream
        self._where = where
        self._chunk = chunk_bytes
        self._max_row = max_row_chars
        self._json = _DECODERS[exact, unique]
        self._one_list = one_list
        # surrogateescape: bytes that are no UTF-8 spoil their own row, not the file.
        self._decoder = codecs.getincrementaldecoder("utf-8")("surrogateescape")
        self._buffer = ""
        self._at = 0
        self._eof = False
        self._bytes = 0
        self._index = 0
        # Start of the row that is being skipped: index into the buffer, or byte offset once that is dropped.
        self._mark: int | None = None
        self._mark_byte = 0

    def __iter__(self) -> Iterator[RawRow]:
        arrays = in_array = self._open()
        while True:
            char = self._next_char()
            if char == "":
                if in_array:
                    self._fail("the file ends before its array is closed", "it is cut off: fetch it again")
                return
            if char == "]" and in_array:
                self._at += 1
                in_array = False
            elif arrays and not in_array and self._one_list:
                text = self._buffer[self._at : self._at + 40]
                self._fail(f"text behind the JSON list: {text!r}", "one file holds one list of rows")
            elif char == "[" and arrays and not in_array:  # arrays one after another
                self._at += 1
                in_array = True
            elif char == ",":
                self._at += 1
            else:
                yield self._row(char, in_array)
                self._index += 1

    def _open(self) -> bool:
        """Skip the byte order mark and the opening bracket; True if there is one."""
        while len(self._buffer) < 2 and self._more():
            pass
        if self._buffer.startswith("\ufeff"):
            self._at = 1
        elif self._buffer[:2] in ("\udcff\udcfe", "\udcfe\udcff"):
            self._fail("the file is UTF-16", "convert it to UTF-8: iconv -f UTF-16 -t UTF-8")
        char = self._next_char()
        if char == "":
            self._fail("the file is empty", "a pool is a JSON array of rows, or one row a line")
        if char == "[":
            self._at += 1
        return char == "["

    def _row(self, char: str, in_array: bool) -> RawRow:
        if char != "{":
            return self._bad(f"a row is a JSON object, got {char!r}…", in_array)
        if self._json is _LENIENT and (row := self._guess()):
            return row
        while True:
            try:
                value, self._at = self._json.raw_decode(self._buffer, self._at)
            except json.JSONDecodeError as error:
                if not self._may_be_cut(error):
                    return self._bad(
                        f"not JSON: {error.msg} at character {error.pos - self._at} of the row", in_array
                    )
            except (_RepeatedKeyError, RecursionError, ValueError) as error:
                fault = "nested too deeply" if isinstance(error, RecursionError) else str(error)
                return self._bad(fault, in_array)
            else:
                return RawRow(self._index, value)
            # The buffer doubles, so the tries on one row cost a constant factor in total.
            size = len(self._buffer) - self._at
            if size > self._max_row:
                return self._too_long(in_array)
            while len(self._buffer) - self._at < 2 * size and self._more(size):
                pass

    def _guess(self) -> RawRow | None:
        """The row if it ends at the first `} , {`: an object cut short there would be no JSON.

        orjson keeps one string for equal field names, which makes everything that reads the rows faster too.
        """
        end = _BETWEEN.search(self._buffer, self._at)
        if end is None:
            return None
        try:
            value = orjson.loads(self._buffer[self._at : end.start() + 1])
        except orjson.JSONDecodeError:
            return None
        self._at = end.end()
        return RawRow(self._index, value)

    def _may_be_cut(self, error: json.JSONDecodeError) -> bool:
        """True if more text may cure the error; at the end of the file, text that just stops is fatal."""
        stops = error.msg.startswith("Unterminated string") or error.pos >= len(self._buffer) - _CUT
        if not self._eof:
            return stops
        if error.msg.startswith("Unterminated string") or error.pos >= len(self._buffer):
            if "\n{" in self._buffer[self._at :]:
                return False  # a damaged line before whole ones
            self._fail("the file ends inside this row", "it is cut off: fetch it again")
        return False

    def _too_long(self, in_array: bool) -> RawRow:
        if not in_array and self._index == 0:
            self._fail(
                f"the first object is longer than {self._max_row} characters",
                "a pool is a JSON array of rows, or one row a line, not one object around all of them",
            )
        return self._bad(f"the row is longer than {self._max_row} characters", in_array)

    def _bad(self, fault: str, in_array: bool) -> RawRow:
        while len(self._buffer) - self._at < RAW_CHARS and self._more():
            pass
        row = RawRow(self._index, None, fault, self._buffer[self._at : self._at + RAW_CHARS])
        self._skip(in_array)
        # The decoder's errors count the lines from the start of the buffer: keep that near when rows are bad.
        self._buffer, self._at, self._mark = self._buffer[self._at :], 0, None
        return row

    def _skip(self, in_array: bool) -> None:
        """Move behind the value at the cursor, dropping what was passed: nothing of it is kept."""
        depth = 0
        self._mark = self._at
        while True:
            token = _TOKEN.search(self._buffer, self._at)
            # Whether a line break ends the row is told by the character behind it, which must be there.
            if token is None or (token.group() == "\n" and token.end() == len(self._buffer)):
                self._at = token.start() if token else len(self._buffer)
                if self._more():
                    continue
                self._at = len(self._buffer)
                if depth:
                    self._fail_at_mark("this row never ends")
                return
            if token.group() == '"':
                self._at = token.end()
                done = self._skip_string()
            else:
                depth, done = self._step(token, depth, in_array)
            if done:
                return

    def _step(self, token: re.Match[str], depth: int, in_array: bool) -> tuple[int, bool]:
        """Move over a token outside of strings; the depth behind it, and whether the value ends there."""
        kind = token.group()[0]
        self._at = token.end()
        if kind in "{[":
            return depth + len(token.group()), False
        if kind == "\n":
            return depth, self._buffer[self._at] == "{" or (depth == 0 and not in_array)
        if kind == ",":
            self._at -= depth == 0  # the comma behind the value is none of it
            return depth, depth == 0
        if depth == 0:
            ends_array = kind == "]" and in_array
            self._at = token.start() + (not ends_array)
            return 0, ends_array
        if len(token.group()) >= depth:
            self._at = token.start() + depth
            return 0, True
        return depth - len(token.group()), False

    def _skip_string(self) -> bool:
        """Move behind the string that the cursor is in; True if the row broke off inside it."""
        while True:
            while (match := _IN_STRING.match(self._buffer, self._at)) and match.group():
                self._at = match.end()
            stop = self._buffer[self._at : self._at + 2]
            if stop[:1] == '"':
                self._at += 1
                return False
            if stop == "\n{":
                self._at += 1
                return True
            if not self._more():
                self._fail_at_mark("a string never ends")

    def _next_char(self) -> str:
        """The next character that is no white space, under the cursor; empty at the end of the file."""
        while True:
            match = _SPACE.match(self._buffer, self._at)
            self._at = match.end() if match else self._at
            if self._at < len(self._buffer):
                return self._buffer[self._at]
            if not self._more():
                return ""

    def _more(self, at_least: int = 0) -> bool:
        """Drop what lies before the cursor and read one chunk; False at the end of the file."""
        if self._eof:
            return False
        try:
            data = self._stream.read(max(self._chunk, at_least))
        except (OSError, EOFError, zlib.error) as error:
            self._fail(f"cannot be read on: {error}", "the file is damaged or cut off: fetch it again")
        if self._mark is not None:
            self._mark_byte, self._mark = self._offset(self._mark), None
        self._bytes += len(data)
        self._eof = not data
        self._buffer = self._buffer[self._at :] + self._decoder.decode(data, final=self._eof)
        self._at = 0
        return True

    def _offset(self, index: int) -> int:
        """Byte offset, in the (unpacked) file, of a place in the buffer."""
        rest = self._buffer[index:].encode("utf-8", "surrogateescape")
        return self._bytes - len(self._decoder.getstate()[0]) - len(rest)

    def _fail_at_mark(self, message: str) -> NoReturn:
        place = self._mark_byte if self._mark is None else self._offset(self._mark)
        self._fail(message, "it is damaged here or the file is cut off", byte=place)

    def _fail(self, message: str, hint: str, *, byte: int | None = None) -> NoReturn:
        place = self._offset(self._at) if byte is None else byte
        raise SourceError(message, where=f"{self._where}, byte {place}, row {self._index}", hint=hint)
