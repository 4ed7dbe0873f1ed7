"""Pools of questions: files of every format that a source or a check reads, whole, edited or made up."""

from __future__ import annotations

import gzip
import io
import json
import shutil
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fuzz.target import RAW, SHAPED, WORDS, Target, edited, must
from videop2r_data.builders.sources import PoolDigest, open_source
from videop2r_data.builders.sources.dataset import LocalFiles, read_file
from videop2r_data.errors import SourceError
from videop2r_data.files import file_rows
from videop2r_data.files.rows import first_columns, read_batches
from videop2r_data.schemas import BadRow, Sample, SourceSpec, safe_relative_path

_FOLDER = Path(tempfile.mkdtemp(prefix="p2r-fuzz-", dir="/dev/shm" if Path("/dev/shm").is_dir() else None))
ENDINGS = (
    ".json",
    ".jsonl",
    ".csv",
    ".tsv",
    ".parquet",
    ".arrow",
    ".json.gz",
    ".csv.gz",
    ".jsonl.gz",
    ".ndjson",
)
_MOST = 400
_ROWS: list[dict[str, Any]] = [
    {
        "problem_id": n,
        "problem": f"Which? \u00e9 {n}",
        "data_type": "image" if n % 2 else "text",
        "problem_type": "multiple choice",
        "options": ["A. cat", "B. dog"],
        "solution": "<answer>B</answer>",
        "path": f"media/{n}.png",
        "data_source": "x",
    }
    for n in range(3)
]


def check(data: bytes) -> None:
    """The first byte names the format. The second: the rest is the file (even), or edits of a good one (odd)."""
    if len(data) < 2:
        return
    ending = ENDINGS[data[0] % len(ENDINGS)]
    _read(ending, edited(good(ending), data[2:]) if data[1] % 2 else data[2:])


def _read(ending: str, content: bytes) -> None:
    folder = _FOLDER / "pool"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    path = folder / f"pool{ending}"
    path.write_bytes(content)
    kinds = ("dataset", "video-r1") if "json" in ending or "ndjson" in ending else ("dataset",)
    for kind in kinds:
        _source(SourceSpec.model_validate({"name": "s", "kind": kind, "path": str(path)}), folder)
    _refused(lambda: _each_row(path), path)
    _refused(lambda: [LocalFiles((path,), folder).headers()], path)
    if ending in (".json", ".jsonl", ".parquet", ".json.gz"):
        _refused(
            lambda: [len(str(row)) for (_, row), _ in zip(file_rows(path), range(_MOST), strict=False)], path
        )
        _refused(
            lambda: [b.rows for b, _ in zip(read_batches(path, size=7), range(_MOST), strict=False)], path
        )
        _refused(lambda: first_columns(path), path)


def _source(spec: SourceSpec, folder: Path) -> None:
    def read() -> None:
        source = open_source(spec, base=folder)
        digest = PoolDigest()
        root = source.media_root
        for at, (row, _) in enumerate(zip(source.rows(), range(_MOST), strict=False)):
            must(
                isinstance(row, Sample | BadRow) and row.row == at,
                "one row for each of the pool, in order",
                at,
                row,
            )
            digest.update(row)
            if isinstance(row, BadRow):
                must(row.reason and row.detail, "a bad row says why", row)
            elif row.path:
                must(
                    safe_relative_path(row.path) == row.path and root is not None,
                    "a path below the root",
                    row.path,
                )
        digest.hexdigest()

    _refused(read, Path(spec.path))
    outside = [p for p in folder.rglob("*") if not p.resolve().is_relative_to(folder.resolve())]
    must(not outside, "nothing is written elsewhere", outside)


def _each_row(path: Path) -> None:
    for at, (row, _) in enumerate(zip(read_file(path), range(_MOST), strict=False)):
        must(
            row.index == at and (row.value is not None or row.fault),
            "rows are numbered, bad ones have a fault",
            row,
        )


def _refused(read: Any, path: Path) -> None:
    try:
        read()
    except SourceError as error:
        must(path.name in str(error), "the error names the file", str(error))
        must(len(str(error)) < 3000, "an error that can be read", len(str(error)))


@cache
def good(ending: str) -> bytes:
    """A good pool in this format."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pa.Table.from_pylist([row | {"more": {"a": [1.5, None]}} for row in _ROWS])
    sink = io.BytesIO()
    if ending == ".parquet":
        pq.write_table(table, sink, compression="snappy")
    elif ending == ".arrow":
        with pa.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table)
    elif ending.startswith((".csv", ".tsv")):
        comma = "\t" if ending == ".tsv" else ","
        rows = [list(_ROWS[0]), *([str(v).replace(",", ";") for v in row.values()] for row in _ROWS)]
        sink.write("\r\n".join(comma.join(f'"{cell}"' for cell in row) for row in rows).encode())
    elif ending.startswith(".json") and "l" not in ending:
        sink.write(json.dumps(_ROWS).encode())
    else:
        sink.write(b"\n".join(json.dumps(row).encode() for row in _ROWS))
    return gzip.compress(sink.getvalue(), mtime=0) if ending.endswith(".gz") else sink.getvalue()


_CELL = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**62), 2**62) | st.floats() | st.text(max_size=8) | st.binary(max_size=12)
    | st.sampled_from(["../../etc/passwd", "/etc/passwd", "a\\..\\b", "B", "image", "numerical", "\u202e", "=1+1", "C:x", "~", "\0"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["bytes", "path", "a"]), inner, max_size=3),
    max_leaves=5,
)  # fmt: skip
_ROW = st.dictionaries(st.sampled_from([*_ROWS[0], "more"]), _CELL, max_size=9)


@settings(database=None, deadline=None)
@given(
    st.lists(st.dictionaries(st.sampled_from(list(_ROWS[0])), _CELL, max_size=3), max_size=4),
    st.sampled_from(ENDINGS[:6]),
)
def shaped(changes: list[dict[str, Any]], ending: str) -> None:
    """Good rows with some cells replaced by anything, in a sound file."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = [_ROWS[0] | {"problem_id": f"r{n}"} | change for n, change in enumerate(changes)]
    sink = io.BytesIO()
    try:
        if ending in (".parquet", ".arrow"):
            table = pa.Table.from_pylist(rows)
            if ending == ".parquet":
                pq.write_table(table, sink)
            else:
                with pa.ipc.new_file(sink, table.schema) as writer:
                    writer.write_table(table)
        elif ending in (".csv", ".tsv"):
            import csv

            text = io.StringIO()
            writer = csv.DictWriter(text, list(_ROWS[0]), delimiter="\t" if ending == ".tsv" else ",")
            writer.writeheader()
            writer.writerows(rows)
            sink.write(text.getvalue().encode("utf-8", "surrogatepass"))
        else:
            text_of_rows = json.dumps(rows, default=lambda b: b.decode("latin-1"))
            sink.write(
                text_of_rows.encode()
                if ending == ".json"
                else text_of_rows.replace("}, {", "}\n{")[1:-1].encode()
            )
    except (pa.ArrowException, OverflowError, UnicodeError):
        return  # no such file can be written
    _read(ending, sink.getvalue())


_TEXT = (
    '{|}|[|]|,|:|"|\\|\\u|d800|"problem": |"solution": |"options": |"path": |"data_type": |"problem_type": |"image"|"text"|'
    '"multiple choice"|"A. x"|"B"|"../x"|null|true|1e999|-0|NaN|1.50|\n|\r\n|\r| |problem,solution,path\n|a,b\n|""|;|\t|'
    "\ufeff|\0|\ud800|<html|<?xml|PAR1|ARROW1|version https://git-lfs|\x1f\u008b|{'a': 1}|problem|solution|data_type|problem_type"
)
_PIECES = (
    *(bytes([n]) for n in range(len(ENDINGS))),
    b"\xff\xfe",
    b"\xfe\xff",
    b"\xff",
    *(w.encode("utf-8", "surrogatepass") for w in _TEXT.split("|")),
)


def seeds() -> list[bytes]:
    """A good file of each format, whole and with an edit, and what is saved under such a name by mistake."""
    found = []
    for n, ending in enumerate(ENDINGS):
        found.append(bytes([RAW, n, 0]) + good(ending))
        found += [
            bytes([RAW, n, 1]) + edits for edits in (b"", b"\0\1\2\3\4\5", b"\2\xff\xff\xff\x7f\xff" * 3)
        ]
    found += [bytes([RAW, n, 0]) + b"<html>" for n in (0, 2, 4, 5)]
    found += [bytes([RAW, 0, 0]) + b"[" * 3000, bytes([RAW, 6, 0]) + gzip.compress(b" " * 2**20, mtime=0)]
    return [*found, bytes([WORDS, 1, 0, *range(10, 60)]), bytes([SHAPED, *range(120)])]


TARGET = Target(
    "pools", check, seeds, words=_PIECES, shaped=shaped, seconds=3.0, megabytes=300, longest=16384
)
