"""What all rooms share: the base of every record, digests of values, and outside text made safe to show."""

from __future__ import annotations

import hashlib
import re
from typing import Any

import orjson
from pydantic import BaseModel, ConfigDict


class Model(BaseModel):
    """A record that passes between steps; immutable, and unknown fields are errors."""

    # JSON has no NaN: a figure that is none must be refused here and not when a file is written.
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)


def canonical_bytes(value: Any) -> bytes:
    """JSON with sorted keys and no spaces, UTF-8.

    Raises:
        TypeError: for values that JSON cannot hold.

    >>> canonical_bytes({"b": 1, "a": [True, None]})
    b'{"a":[true,null],"b":1}'
    """
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS)


def digest(value: Any) -> str:
    """sha256 of the canonical bytes: 64 hexadecimal digits."""
    return hashlib.sha256(canonical_bytes(value)).hexdigest()


def digest_bytes(data: bytes | memoryview) -> str:
    """sha256 of raw bytes: 64 hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()


# --- text from outside as people may see it: nothing steers a terminal or turns the order of reading ---

_BIDI = "\u061c\u202a-\u202e\u2066-\u2069"
_STEERING = re.compile(
    f"[\x00-\x08\x0b-\x1f\x7f-\x9f{_BIDI}\u2028\u2029\ufff9-\ufffb\ud800-\udfff\U000e0000-\U000e007f]"
)
"""C0 but tab and line feed, DEL, C1, bidirectional embeddings, overrides and isolates, line and paragraph
separators, interlinear annotation, lone surrogates, tag characters."""
_PICTURES = {code: chr(0x2400 + code) for code in range(0x20)} | {0x7F: "\u2421"}
_UNSEEN = "\ufffd"


def visible(text: str) -> str:
    r"""The text with a visible sign for every character that would act instead of being seen.

    Control characters become their pictures (ESC is `␛`), others U+FFFD; `\r\n` is a line feed. Marks that
    join letters or say the direction of one word stay, for scripts need them.

    >>> visible("a\x1b]8;;http://x\x07b"), visible("x\u202ey"), visible("one\r\ntwo")
    ('a␛]8;;http://x␇b', 'x\ufffdy', 'one\ntwo')
    """
    # Nearly every text is clean, and a search is cheaper than a substitution.
    if _STEERING.search(text) is None:
        return text
    return _STEERING.sub(_shown, text.replace("\r\n", "\n"))


def visible_line(text: str) -> str:
    r"""The same, on one line.

    >>> visible_line("one\ntwo")
    'one two'
    """
    return " ".join(visible(text).split())


def _shown(match: re.Match[str]) -> str:
    return _PICTURES.get(ord(match.group()), _UNSEEN)
