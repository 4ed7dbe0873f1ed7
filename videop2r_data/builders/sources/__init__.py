"""Pools of questions in any layout: `open_source`, `read_pool` -> `Sample` or `BadRow`, row by row."""

from videop2r_data.builders.sources.contract import BadRow, PoolDigest, Source, content
from videop2r_data.builders.sources.opening import open_source, read_pool

__all__ = ["BadRow", "PoolDigest", "Source", "content", "open_source", "read_pool"]
