"""Members read out of zip archives by ranges: every layout that writers make, and what hostile ones do."""

from __future__ import annotations

import io
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from struct import pack, pack_into

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from videop2r_data.cards.hub.archives import ForwardFile, Member, read_directory, unpack
from videop2r_data.cards.hub.client import JoinedFile
from videop2r_data.errors import SourceError


class Memory(JoinedFile):
    """An archive in memory that counts what is read."""

    def __init__(self, data: bytes, starts: Sequence[int] = (0,)) -> None:
        super().__init__("a.zip", ())
        self.data, self.starts, self.size = data, starts, len(data)
        self.asked: list[tuple[int, int]] = []

    def read(self, start: int, end: int) -> bytes:
        self.asked.append((start, end))
        return self.data[start:end]


def archive(
    files: dict[str, bytes], method: int = zipfile.ZIP_STORED, *, comment: bytes = b"", big: bool = False
) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as made:
        for name, data in files.items():
            with made.open(zipfile.ZipInfo(name) if method == 0 else name, "w", force_zip64=big) as file:
                file.write(data)
        made.comment = comment
    return out.getvalue()


def pieces(data: bytes, size: int) -> Iterator[bytes]:
    return (data[i : i + size] for i in range(0, len(data), size))


def content(data: bytes, *, piece: int = 1000, starts: Sequence[int] = (0,)) -> dict[str, bytes]:
    found = read_directory(Memory(data, starts))
    return {
        m.name: b"".join(unpack(m, ForwardFile(pieces(data[m.start : m.end], piece), m.start), "a.zip"))
        for m in found
    }


FILES = {
    "a/one.mp4": b"x" * 5000 + bytes(range(256)),
    "a/two.mp4": b"",
    "ü/drei 三.mp4": zlib.compress(b"noise" * 99),
}


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
@pytest.mark.parametrize("comment", [b"", b"PK\x05\x06 in a comment", b"c" * 65535])
@pytest.mark.parametrize("big", [False, True])
def test_what_was_packed_is_read(method: int, comment: bytes, big: bool) -> None:
    assert content(archive(FILES, method, comment=comment, big=big)) == FILES


@settings(deadline=None, max_examples=60)
@given(
    st.dictionaries(
        st.text("abc/é", min_size=1, max_size=9).filter(lambda n: not n.endswith("/")),
        st.binary(max_size=3000),
        max_size=6,
    ),
    st.sampled_from([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED]),
    st.integers(1, 700),
    st.binary(max_size=40),
)
def test_any_archive_in_any_pieces(files: dict[str, bytes], method: int, piece: int, before: bytes) -> None:
    """`before`: bytes in front of the archive, which shift every offset in it."""
    assert content(before + archive(files, method), piece=piece) == files


def test_a_writer_that_cannot_seek_puts_the_sizes_behind_the_data() -> None:
    class Pipe(io.RawIOBase):
        def __init__(self) -> None:
            self.got = b""

        def writable(self) -> bool:
            return True

        def write(self, data: object) -> int:
            self.got += bytes(data)  # type: ignore[call-overload]
            return len(data)  # type: ignore[arg-type]

    pipe = Pipe()
    with zipfile.ZipFile(pipe, "w", zipfile.ZIP_DEFLATED) as made:
        for name, data in FILES.items():
            made.writestr(name, data)
    assert content(pipe.got) == FILES


def test_zip64_by_the_number_of_entries() -> None:
    files = {f"{i}.txt": b"" for i in range(66_000)}
    data = archive(files)
    found = read_directory(Memory(data))
    assert len(found) == 66_000 and found[65_999].name == "65999.txt"


def test_a_zip64_archive_of_ten_gigabytes_that_are_not_there() -> None:
    """Offsets above 4 GiB: the members before are a hole that nobody reads."""
    hole = 10 * 2**30
    body = (
        pack("<4s5H3L2H", b"PK\x03\x04", 45, 0x800, 0, 0, 0, zlib.crc32(b"clip"), 4, 4, 1, 0) + b"m" + b"clip"
    )
    wide = pack("<2HQ", 1, 8, hole)
    entry = pack(
        "<4s6H3L5H2L",
        b"PK\x01\x02",
        45,
        45,
        0x800,
        0,
        0,
        0,
        zlib.crc32(b"clip"),
        4,
        4,
        1,
        len(wide),
        0,
        0,
        0,
        0,
        0xFFFFFFFF,
    )
    table = entry + b"m" + wide
    at = hole + len(body)
    end = pack("<4sQ2H2L4Q", b"PK\x06\x06", 44, 45, 45, 0, 0, 1, 1, len(table), at)
    end += pack("<4sLQL", b"PK\x06\x07", 0, at + len(table), 1)
    end += pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0)
    last = body + table + end

    class Sparse(Memory):
        def read(self, start: int, end: int) -> bytes:
            assert start >= hole - 70_000
            return bytes(max(0, hole - start)) + last[max(0, start - hole) : end - hole]

    sparse = Sparse(b"")
    sparse.size = hole + len(last)
    (member,) = read_directory(sparse)
    assert (member.name, member.start, member.size) == ("m", hole, 4)
    assert b"".join(unpack(member, ForwardFile([last], hole), "big.zip")) == b"clip"


def test_a_file_cut_into_parts_is_read_through_their_joints() -> None:
    data = archive(FILES)
    assert content(data, starts=(0, 1000, 4000)) == FILES


def test_a_split_archive_counts_its_offsets_from_each_part() -> None:
    """As `zip -s` writes it: `.z01` begins with a mark, and every entry names the part that it begins in."""
    plain = b"PK\x07\x08" + archive({"one": b"1" * 50, "two": b"2" * 50})
    joint = 4 + 30 + 3 + 50  # the second member begins the second part
    data = bytearray(plain)
    at = data.index(b"PK\x01\x02")
    pack_into("<L", data, at + 42, 4)
    second = data.index(b"PK\x01\x02", at + 4)
    pack_into("<H", data, second + 34, 1)
    pack_into("<L", data, second + 42, 0)
    end = data.index(b"PK\x05\x06")
    pack_into("<4H", data, end + 4, 1, 1, 2, 2)
    pack_into("<L", data, end + 16, at - joint)
    assert content(bytes(data), starts=(0, joint)) == {"one": b"1" * 50, "two": b"2" * 50}
    with pytest.raises(SourceError, match="a split archive of 2 parts, 1 of them here"):
        read_directory(Memory(bytes(data)))


def test_a_split_zip64_archive_is_read_as_one() -> None:
    """The end records as they stand where the parts begin: in the last part, with every number of a part set."""
    files = {"one": b"1" * 50, "two": b"2" * 50}
    plain = archive(files)
    table, end = plain.index(b"PK\x01\x02"), plain.index(b"PK\x05\x06")
    joint, at = 20, end - table
    data = bytearray(plain[:end])
    data += pack("<4sQ2H2L4Q", b"PK\x06\x06", 44, 45, 45, 1, 1, 2, 2, at, table - joint)
    data += pack("<4sLQL", b"PK\x06\x07", 1, end - joint, 2)
    data += pack("<4s4H2LH", b"PK\x05\x06", *[0xFFFF] * 4, *[0xFFFFFFFF] * 2, 0)
    second = data.index(b"PK\x01\x02", table + 4)
    pack_into("<H", data, second + 34, 1)
    pack_into("<L", data, second + 42, plain.index(b"PK\x03\x04", 4) - joint)
    assert content(bytes(data), starts=(0, joint)) == files
    with pytest.raises(SourceError, match="a split archive of 2 parts, 1 of them here"):
        read_directory(Memory(bytes(data)))


def test_names_in_utf8_without_the_flag_that_says_so_and_in_the_old_code_page() -> None:
    data = bytearray(archive({"ü/三.mp4": b"1", "ä.mp4": b"2"}))
    old = "ä.mp4".encode("cp437") + b"_"  # as long as in UTF-8
    for at in [i for mark in (b"PK\x03\x04", b"PK\x01\x02") for i in places(data, mark)]:
        flags = at + (6 if data[at + 2] == 3 else 8)
        pack_into("<H", data, flags, 0)
    data = bytearray(bytes(data).replace("ä.mp4".encode(), old))
    assert content(bytes(data)) == {"ü/三.mp4": b"1", "ä.mp4_": b"2"}


def places(data: bytes | bytearray, mark: bytes) -> list[int]:
    return [i for i in range(len(data)) if data.startswith(mark, i)]


def test_only_the_end_of_a_large_archive_is_read_for_its_directory() -> None:
    memory = Memory(archive({f"{i}.bin": bytes(10_000) for i in range(300)}))
    assert len(read_directory(memory)) == 300
    assert sum(end - start for start, end in memory.asked) < 70_000


def broken(data: bytes, at: int, new: bytes) -> bytes:
    return data[:at] + new + data[at + len(new) :]


def test_hostile_and_damaged_archives_are_errors() -> None:
    good = archive({"clip.mp4": b"content" * 300})
    directory, end = good.index(b"PK\x01\x02"), good.index(b"PK\x05\x06")
    (member,) = read_directory(Memory(good))
    cases = {
        "no end record": good[:-1],
        "its directory is damaged or cut": broken(good, directory, b"XXXX"),
        "its directory is damaged or cut: Bad offset": broken(good, end + 12, pack("<L", 0xFFFFFFF0)),
        "is damaged or cut": broken(good, end + 8, pack("<2H", 9, 9)),
    }
    for message, data in cases.items():
        with pytest.raises(SourceError, match=message):
            read_directory(Memory(data))
    body = {
        "Bad magic number for file header": broken(good, 0, b"XXXX"),
        "File name in directory 'clip.mp4' and header b'blip.mp4' differ": broken(good, 30, b"b"),
        "Bad CRC-32": broken(good, 60, b"X"),
        "it ends early": good[:100],
    }
    for message, data in body.items():
        with pytest.raises(SourceError, match=message):
            list(unpack(member, ForwardFile([data], 0), "a.zip"))


def test_a_bomb_stops_at_what_it_announced() -> None:
    data = bytearray(archive({"bomb": bytes(50_000_000)}, zipfile.ZIP_DEFLATED))
    at = data.index(b"PK\x01\x02")
    pack_into("<L", data, at + 24, 1000)
    (member,) = read_directory(Memory(bytes(data)))
    got = 0
    with pytest.raises(SourceError, match="Bad CRC-32 for file 'bomb'"):
        for piece in unpack(member, ForwardFile(pieces(bytes(data), 100), 0), "a.zip"):
            got += len(piece)
    assert got == 0


def test_a_member_shorter_than_announced_is_no_clip() -> None:
    """`zipfile` gives what there is and finds its CRC right."""
    data = bytearray(archive({"short": b"s" * 500}, zipfile.ZIP_DEFLATED))
    pack_into("<L", data, data.index(b"PK\x01\x02") + 24, 501)
    (member,) = read_directory(Memory(bytes(data)))
    with pytest.raises(SourceError, match="500 bytes, the archive says 501"):
        list(unpack(member, ForwardFile([bytes(data)], 0), "a.zip"))


def test_what_cannot_be_read_says_why() -> None:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as made:
        link = zipfile.ZipInfo("link")
        link.create_system, link.external_attr = 3, 0o120777 << 16
        made.writestr(link, "/etc/passwd")
        made.writestr("squeezed", b"x" * 100, zipfile.ZIP_LZMA)
        made.writestr("folder/", b"")
        made.writestr("secret", b"s")
    data = bytearray(out.getvalue())
    at = data.index(b"secret", data.index(b"PK\x01\x02")) - 46
    pack_into("<H", data, at + 8, 1)
    assert {m.name: m.refused for m in read_directory(Memory(bytes(data)))} == {
        "link": "a symbolic link",
        "squeezed": "compression method 14, only stored and deflate can be read",
        "secret": "encrypted",
    }


def test_members_that_lie_on_top_of_each_other_are_refused() -> None:
    data = bytearray(archive({"one": b"1" * 500, "two": b"2" * 500}))
    first = data.index(b"PK\x01\x02")
    second = data.index(b"PK\x01\x02", first + 4)
    pack_into("<L", data, second + 42, 10)
    found: dict[str, Member] = {m.name: m for m in read_directory(Memory(bytes(data)))}
    assert found["one"].refused == "overlaps the next member"
