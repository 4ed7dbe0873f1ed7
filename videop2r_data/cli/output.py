"""Plain lines, JSON, logs and tracebacks in which no text from outside can steer a terminal."""

from __future__ import annotations

import logging
import re
import sys
import traceback
from typing import Any

import typer

from videop2r_data.schemas.visible_text import visible

_C1_AND_BIDI = re.compile("[\x7f-\x9f\u061c\u2028-\u202e\u2066-\u2069\ufff9-\ufffb\U000e0000-\U000e007f]")


def say(text: str, *, err: bool = False, nl: bool = True) -> None:
    """One plain line, visible."""
    typer.echo(visible(text), err=err, nl=nl)


def print_json(value: Any) -> None:
    """One JSON document on stdout; what could steer a terminal is escaped, and so the value is the same."""
    import orjson

    text = orjson.dumps(value, option=orjson.OPT_INDENT_2).decode()
    sys.stdout.buffer.write(_C1_AND_BIDI.sub(_escaped, text).encode() + b"\n")
    sys.stdout.buffer.flush()


def print_traceback(error: BaseException) -> None:
    """The traceback of an error on stderr, visible."""
    sys.stderr.write(visible("".join(traceback.format_exception(error))))


class VisibleFormatter(logging.Formatter):
    """A log line, visible: libraries log what servers say."""

    def format(self, record: logging.LogRecord) -> str:
        """The formatted record."""
        return visible(super().format(record))


def _escaped(match: re.Match[str]) -> str:
    code = ord(match.group())
    if code < 0x10000:
        return f"\\u{code:04x}"
    code -= 0x10000
    return f"\\u{0xD800 + (code >> 10):04x}\\u{0xDC00 + (code & 0x3FF):04x}"
