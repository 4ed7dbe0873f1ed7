"""The base of every record, and the one way to turn a value into bytes for a digest."""

from __future__ import annotations

import hashlib
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
