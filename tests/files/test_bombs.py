"""Small files that claim, or unpack to, many gigabytes: refused with a reason, in bounded memory."""

from __future__ import annotations

import gzip
import io
import os
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable, Iterable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from videop2r_data.builders.sources import open_source
from videop2r_data.builders.sources.tables import read_columnar
from videop2r_data.errors import SourceError
from videop2r_data.files import file_rows, read_batches
from videop2r_data.schemas import SourceSpec

_ROW = {
    "problem": "Which?",
    "solution": "<answer>B</answer>",
    "problem_type": "free-form",
    "data_type": "text",
}
_LARGE = 80 << 20


def _read(path: Path) -> int:
    return len(
        list(open_source(SourceSpec(name="s", kind="dataset", path=str(path)), base=path.parent).rows())
    )


def _write(path: Path, rows: list[dict[str, str]]) -> Path:
    table = pa.Table.from_pylist(rows)
    if path.suffix == ".parquet":
        pq.write_table(table, path, compression="zstd", use_dictionary=False, write_statistics=False)
    else:
        options = pa.ipc.IpcWriteOptions(compression="zstd")
        with (
            pa.OSFile(str(path), "wb") as file,
            pa.ipc.new_file(file, table.schema, options=options) as writer,
        ):
            writer.write_table(table)
    return path


@pytest.mark.parametrize("ending", ["parquet", "arrow"])
def test_a_cell_of_many_times_the_bytes_of_its_file_is_a_bomb(tmp_path: Path, ending: str) -> None:
    path = _write(tmp_path / f"pool.{ending}", [_ROW | {"problem": "x" * _LARGE}])
    assert path.stat().st_size < 20_000
    with pytest.raises(SourceError, match=r"pool\.\w+: unpacks to more than 200 times its size"):
        _read(path)


def _varint(number: int, length: int = 0) -> bytes:
    """As Parquet writes numbers; longer than it has to be where a length is asked for."""
    number, out = number << 1, b""
    while number > 127 or len(out) + 1 < length:
        number, out = number >> 7, out + bytes([number & 127 | 128])
    return out + bytes([number])


def test_a_bomb_that_says_of_itself_that_it_is_small(tmp_path: Path) -> None:
    path = _write(tmp_path / "sft-0.parquet", [{"problem": "x" * _LARGE}])
    data, group = path.read_bytes(), pq.ParquetFile(path).metadata.row_group(0)
    body = len(data) - 8 - int.from_bytes(data[-8:-4], "little")
    footer = data[body:]
    for true in {group.total_byte_size, group.column(0).total_uncompressed_size}:
        footer = footer.replace(_varint(true), _varint(1000, len(_varint(true))))
    path.write_bytes(data[:body] + footer)
    assert pq.ParquetFile(path).metadata.row_group(0).total_byte_size == 1000
    readers: tuple[Callable[[Path], Iterable[object]], ...] = (file_rows, read_batches, read_columnar)
    for read in readers:
        with pytest.raises(SourceError, match="unpacks to more than 200 times its size"):
            list(read(path))


def test_many_equal_large_cells_are_none(tmp_path: Path) -> None:
    """A picture that many rows share is stored once: a batch of them is large, no row is."""
    path = tmp_path / "pool.parquet"
    pq.write_table(
        pa.Table.from_pylist([_ROW | {"more": "x" * 300_000, "problem_id": str(n)} for n in range(300)]), path
    )
    assert path.stat().st_size < 100_000
    assert _read(path) == 300


# --- headers that claim what is not there ---


def _png() -> bytes:
    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    head = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", head)
        + chunk(b"IDAT", zlib.compress(b"\0" * 99))
        + chunk(b"IEND", b"")
    )


def _text_of_png() -> bytes:
    """A picture of one pixel with 64 MB of text behind it."""
    packer = zlib.compressobj(9)
    data = b"a\0\0" + b"".join(packer.compress(bytes(1 << 20)) for _ in range(64)) + packer.flush()
    start = b"\x89PNG\r\n\x1a\n" + struct.pack(">I4sIIBBBBB", 13, b"IHDR", 1, 1, 8, 2, 0, 0, 0)
    start += struct.pack(">I", zlib.crc32(start[12:]))
    text = struct.pack(">I", len(data)) + b"zTXt" + data + struct.pack(">I", zlib.crc32(b"zTXt" + data))
    return start + text


def _atom(name: bytes, *parts: bytes) -> bytes:
    data = b"".join(parts)
    return struct.pack(">I", 8 + len(data)) + name + data


def _mp4() -> bytes:
    """A sample table of 4,294,967,295 entries."""
    table = _atom(b"stsz", struct.pack(">IIII", 0, 0, 2**32 - 1, 7))
    media = _atom(
        b"mdia", _atom(b"hdlr", bytes(8), b"vide", bytes(13)), _atom(b"minf", _atom(b"stbl", table))
    )
    return (
        _atom(b"ftyp", b"isom\0\0\2\0isom")
        + _atom(b"moov", _atom(b"trak", media))
        + struct.pack(">I4sQ", 1, b"mdat", 10 << 30)
    )


def _parquet() -> bytes:
    """A footer as long as the file, whose lists have 2**31 - 1 entries."""
    footer = b"\x15\x02\x19\xfc\xff\xff\xff\xff\x07" + b"\x48" * 40
    return b"PAR1" + footer + struct.pack("<I", len(footer)) + b"PAR1"


def _arrow() -> bytes:
    """One buffer that says that it unpacks to 10 GB."""
    table, sink = pa.table({"problem": ["x" * 4000]}), io.BytesIO()
    with pa.ipc.new_file(sink, table.schema, options=pa.ipc.IpcWriteOptions(compression="zstd")) as writer:
        writer.write_table(table)
    mark = struct.pack("<q", 4000) + b"\x28\xb5\x2f\xfd"
    assert mark in sink.getvalue()
    return sink.getvalue().replace(mark, struct.pack("<q", 10 << 30) + mark[8:], 1)


_FILES: dict[str, Callable[[], bytes]] = {
    "size.png": _png,
    "text.png": _text_of_png,
    "size.gif": lambda: b"GIF89a" + struct.pack("<HHBBB", 65535, 65535, 0xF7, 0, 0) + bytes(768) + b",\0\0\0\0\xff\xff\xff\xff\0\2\1\0\0;",
    "size.bmp": lambda: b"BM" + struct.pack("<IIIIiiHHIIIIII", 200, 0, 54, 40, 2**30, 2**30, 1, 24, 0, 0, 0, 0, 0, 0),
    "size.jpg": lambda: b"\xff\xd8\xff\xc0\0\x11\x08\xff\xff\xff\xff\3\1\x22\0\2\x11\1\3\x11\1\xff\xda\0\x0c\3\1\0\2\x11\3\x11\0\x3f\0" + bytes(20),
    "size.webp": lambda: b"RIFF\x20\0\0\0WEBPVP8L\x10\0\0\0\x2f\xff\xff\xff\x0f" + bytes(12),
    "table.mp4": _mp4,
    "parts.avi": lambda: b"RIFF" + struct.pack("<I", 2**32 - 9) + b"AVI LIST" + struct.pack("<I", 2**31) + b"hdrlavih" + struct.pack("<I", 2**31 - 1) + bytes(60),
    "size.mkv": lambda: b"\x1a\x45\xdf\xa3\x84\x42\x82\x81\x41\x18\x53\x80\x67\x01" + (10 << 30).to_bytes(7, "big") + b"\x16\x54\xae\x6b\x01" + (5 << 30).to_bytes(7, "big") + bytes(30),
    "tag.flv": lambda: b"FLV\1\1\0\0\0\x09\0\0\0\0\x09\xff\xff\xff" + bytes(20),
    "footer.parquet": lambda: b"PAR1" + bytes(20) + struct.pack("<I", 2**32 - 1) + b"PAR1",
    "lists.parquet": _parquet,
    "buffer.arrow": _arrow,
    "head.arrow": lambda: b"ARROW1\0\0\xff\xff\xff\xff" + struct.pack("<I", 2**31 - 8) + bytes(30) + struct.pack("<I", 2**31 - 1) + b"ARROW1",
    "size.json.gz": lambda: gzip.compress(b'[{"problem": ' + b" " * 1000, mtime=0)[:-4] + struct.pack("<I", 2**32 - 1),
}  # fmt: skip
_LOOK = """
import resource, sys
from pathlib import Path
from videop2r_data.builders.sources import open_source
from videop2r_data.builders.sources.tables import read_columnar
from videop2r_data.errors import MediaError, SourceError
from videop2r_data.media import probe_media
from videop2r_data.media.worker import _address_space, _load
from videop2r_data.schemas import MediaLimits, MediaSpec, SourceSpec
import pyarrow.parquet, datasets

_load(MediaSpec())
resource.setrlimit(resource.RLIMIT_AS, (_address_space() + (1 << 30),) * 2)
for path in map(Path, sys.argv[1:]):
    try:
        if path.suffix in (".parquet", ".arrow", ".gz"):
            list(open_source(SourceSpec(name="s", kind="dataset", path=str(path)), base=path.parent).rows())
        else:
            kind = "image" if path.suffix in (".png", ".gif", ".bmp", ".jpg", ".webp") else "video"
            probe_media(path, kind, MediaLimits())
    except (MediaError, SourceError) as error:
        print(path.name, getattr(error, "reason", "refused"), path.name in str(error))
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024, file=sys.stderr)
"""


@pytest.mark.integration
def test_ten_gigabytes_in_a_header_cost_nothing(tmp_path: Path) -> None:
    for name, made in _FILES.items():
        (tmp_path / name).write_bytes(made())
        assert (tmp_path / name).stat().st_size < 80_000, name
    paths = [str(tmp_path / name) for name in _FILES]
    done = subprocess.run(
        [sys.executable, "-c", _LOOK, *paths],
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
        env=os.environ,
    )
    assert done.returncode == 0, done.stderr
    said = dict(line.split(" ", 1) for line in done.stdout.splitlines())
    assert list(said) == list(_FILES), done.stdout + done.stderr
    assert all(line.endswith("True") and "decode_memory" not in line for line in said.values()), said
    memory = [int(line) for line in done.stderr.splitlines() if line.isdecimal()]
    assert memory[-1] - memory[0] < 300, list(zip(_FILES, memory, strict=True))
