"""Clips out of tar archives on the stand-in Hub, names that systems spell in their own ways, names that come twice."""

from __future__ import annotations

import gzip
import io
import tarfile
import unicodedata
import warnings
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cards.test_hub_media import REPO, clip, plan
from tests.fakes.hub_server import HubServer
from videop2r_data.cards.hub.media import fetch_media
from videop2r_data.cards.hub.tars import Entry, read_tar
from videop2r_data.errors import SourceError


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    monkeypatch.setattr("time.sleep", lambda _: None)
    with HubServer(tmp_path / "hub") as made:
        made.store.create("dataset", REPO, private=False)
        yield made


def put(server: HubServer, name: str, data: bytes) -> None:
    path = server.store.root / "made" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    server.store.put_file(server.store.repo("dataset", REPO), name, path)


def tar_of(*members: tuple[str, bytes] | tarfile.TarInfo, form: int = tarfile.PAX_FORMAT) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=form) as made:
        for member in members:
            if isinstance(member, tarfile.TarInfo):
                made.addfile(member)
                continue
            info = tarfile.TarInfo(member[0])
            info.size = len(member[1])
            made.addfile(info, io.BytesIO(member[1]))
    return out.getvalue()


@pytest.mark.parametrize("name", ["A/v.tar", "A/v.tar.gz", "A/v.tgz"])
@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_clips_of_a_tar_archive(tmp_path: Path, server: HubServer, name: str, form: int) -> None:
    long = f"clips/{'d' * 90}/{'n' * 80}.mp4"
    data = tar_of(*((f"clips/{n}.mp4", clip(n, 40_000)) for n in range(9)), (long, clip(77)), form=form)
    put(server, name, data if name.endswith("tar") else gzip.compress(data))
    rows = ["./A/clips/3.mp4", "A/clips/8.mp4", f"A/{long}", "A/clips/none.mp4"]
    found = plan(server, tmp_path, rows)
    packed = (server.store.root / "made" / name).stat().st_size
    assert found.estimate.whole == ((name, packed),) and found.estimate.perhaps == 4
    assert found.estimate.transfer_bytes == packed, "told before: it is read as a whole"
    seen: list[tuple[str, int, int]] = []
    report = fetch_media(found, watch=lambda *step: seen.append(step))
    assert (report.fetched, report.failed, report.missing) == (3, (), ("A/clips/none.mp4",))
    assert seen[-1] == (name, packed, packed)
    assert (tmp_path / "media/A/clips/8.mp4").read_bytes() == clip(8, 40_000)
    assert (tmp_path / f"media/A/{long}").read_bytes() == clip(77)
    assert not list((tmp_path / "media").rglob("*.part"))
    asked = [path for _, path in server.seen if path.startswith("/cdn/")]
    again = plan(server, tmp_path, rows).estimate
    assert (again.present, again.perhaps, again.transfer_bytes) == (3, 0, 0), "its list of members is kept"
    assert again.missing == ("A/clips/none.mp4",)
    assert [path for _, path in server.seen if path.startswith("/cdn/")] == asked
    (tmp_path / "media/A/clips/3.mp4").write_bytes(b"cut")
    assert plan(server, tmp_path, rows).estimate.perhaps == 1


def test_a_tar_archive_in_pieces_with_its_folder_inside(tmp_path: Path, server: HubServer) -> None:
    data = gzip.compress(tar_of(("A/1.mp4", clip(1)), ("A/2.mp4", clip(2)), ("3.mp4", clip(3))))
    for number in range(3):
        third = len(data) // 3 + 1
        put(server, f"A/v.tar.gz.{number + 1:03d}", data[number * third : (number + 1) * third])
    report = fetch_media(plan(server, tmp_path, ["A/1.mp4", "A/v/3.mp4", "A/2.mp4"]))
    assert (report.fetched, report.missing, report.failed) == (3, (), ())


def test_connections_that_break_and_an_archive_that_is_not_the_one_of_the_list(
    tmp_path: Path, server: HubServer
) -> None:
    data = tar_of(*((f"{n}.mp4", clip(n, 300_000)) for n in range(4)))
    put(server, "A/v.tar", data)
    server.cut_after = [200_000, 500_000]
    assert fetch_media(plan(server, tmp_path, ["A/3.mp4"])).fetched == 1
    data = tar_of(*((f"{n}.mp4", clip(9 + n, 300_000)) for n in range(4)))
    put(server, "B/v.tar", data)
    broken = bytearray(data)
    broken[len(data) // 2] ^= 1
    (server.store.root / "made/B/v.tar").write_bytes(broken)
    report = fetch_media(plan(server, tmp_path, ["B/0.mp4", "B/3.mp4"]))
    assert report.fetched == 0 and report.missing == ()
    assert {why for _, why in report.failed} == {"B/v.tar: its digest is not the one that the Hub lists"}
    assert not list((tmp_path / "media/B").rglob("*")), "nothing of it gets its name"


def link(name: str, to: str, kind: bytes = tarfile.SYMTYPE) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, to
    return info


def test_hostile_members_of_a_tar_archive(tmp_path: Path, server: HubServer) -> None:
    members: list[tuple[str, bytes] | tarfile.TarInfo] = [
        ("../../evil.mp4", b"x"),
        ("/etc/evil.mp4", b"x"),
        ("good.mp4", clip(1)),
        link("link.mp4", "/etc/passwd"),
        link("hard.mp4", "good.mp4", tarfile.LNKTYPE),
        link("fifo.mp4", "", tarfile.FIFOTYPE),
    ]
    put(server, "A/v.tar", tar_of(*members))
    rows = [f"A/{n}.mp4" for n in ("good", "link", "hard", "fifo", "evil")]
    report = fetch_media(plan(server, tmp_path, rows))
    assert report.fetched == 1 and report.missing == ("A/evil.mp4",)
    assert report.failed == (
        ("A/fifo.mp4", "no regular file"),
        ("A/hard.mp4", "a link"),
        ("A/link.mp4", "a link"),
    )
    files = [p.relative_to(tmp_path) for p in tmp_path.rglob("*.mp4") if p.exists()]
    assert files == [Path("media/A/good.mp4")]


def bomb() -> bytes:
    return gzip.compress(tar_of(("big.mp4", bytes(300_000_000))))


def wide_header() -> bytes:
    info = tarfile.TarInfo("x")
    info.type, info.size = tarfile.XHDTYPE, 1 << 40
    return info.tobuf(tarfile.USTAR_FORMAT if info.size < 8**11 else tarfile.GNU_FORMAT) + bytes(1 << 20)


def sparse() -> bytes:
    info = tarfile.TarInfo("x.mp4")
    info.type = tarfile.GNUTYPE_SPARSE
    return info.tobuf(tarfile.GNU_FORMAT) + bytes(1024)


def block(kind: bytes, content: bytes) -> bytes:
    info = tarfile.TarInfo("x")
    info.type, info.size = kind, len(content)
    return info.tobuf(tarfile.GNU_FORMAT) + content.ljust(-(-len(content) // 512) * 512, b"\0")


def headers_of_headers() -> bytes:
    return block(tarfile.GNUTYPE_LONGNAME, b"x") * 1500 + tar_of(("a.mp4", clip(1)))


def damaged_in_the_middle() -> bytes:
    """Three members; the header of the second has a wrong byte."""
    data = bytearray(tar_of(("a.mp4", bytes(600)), ("b.mp4", bytes(600)), ("c.mp4", bytes(600))))
    data[3 * 512 + 10] ^= 0xFF
    return bytes(data)


def endless_number(before: bytes = b"") -> bytes:
    return before + block(tarfile.XHDTYPE, b"9" * 5000 + b" path=x\n") + tar_of(("a.mp4", clip(1)))


@pytest.mark.parametrize(
    ("data", "packed", "why"),
    [
        (headers_of_headers(), False, "a header that cannot be read"),
        (endless_number(), False, "a header that cannot be read"),
        (damaged_in_the_middle(), False, "a header that cannot be read"),
        (endless_number(before=block(tarfile.REGTYPE, b"x")), False, "a header that cannot be read"),
        (None, True, "more than 200 times its size"),
        (wide_header(), False, "a header of 1,099,511,627,776 bytes"),
        (sparse(), False, "a sparse file"),
        (b"<html>not found</html>" * 100, False, "not a whole tar archive"),
        (tar_of(("a.mp4", clip(1)))[:2000], False, "unexpected end of data"),
        (gzip.compress(tar_of(("a.mp4", clip(1))), mtime=0)[:-20], True, "ends early|end of data"),
        (b"no gzip", True, "damaged"),
    ],
)
def test_archives_that_are_refused(data: bytes | None, packed: bool, why: str) -> None:
    data = bomb() if data is None else data  # takes a second: not while tests are collected

    def drop(entry: Entry, content: Iterator[bytes]) -> None:
        for _ in content:
            pass

    with pytest.raises(SourceError, match=why):
        read_tar((data[i : i + 4096] for i in range(0, len(data), 4096)), "a.tar", drop, packed=packed)


def test_names_and_headers_that_would_fill_memory_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("videop2r_data.cards.hub.tars._MAX_NAMES", 20_000)
    long = tar_of(*((f"{number:09999}.mp4", b"") for number in range(3)))
    with pytest.raises(SourceError, match="names of more than"):
        read_tar([long], "a.tar", lambda entry, content: None, packed=False)
    general = b""
    for number in range(3):
        text = f" k{number}=".encode() + b"x" * 600_000 + b"\n"
        general += block(tarfile.XGLTYPE, b"%d" % (len(text) + 6) + text) + block(tarfile.REGTYPE, b"x")
    with pytest.raises(SourceError, match="headers for all members"):
        read_tar([general + bytes(1024)], "a.tar", lambda entry, content: None, packed=False)


NFC, NFD = (unicodedata.normalize(form, "café/überall.mp4") for form in ("NFC", "NFD"))


def zip_of(*members: tuple[str, bytes], flagged: bool = True) -> bytes:
    out = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # zipfile tells of a name that comes twice
        with zipfile.ZipFile(out, "w") as made:
            for name, data in members:
                made.writestr(zipfile.ZipInfo(name), data)
    data = out.getvalue()
    if flagged:
        return data
    for mark, at in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):  # as macOS writes: UTF-8 without its flag
        start = -1
        while (start := data.find(mark, start + 1)) >= 0:
            data = data[: start + at] + b"\0\0" + data[start + at + 2 :]
    return data


@pytest.mark.parametrize(("rows", "stored"), [(NFC, NFD), (NFD, NFC), (NFC, NFC.replace("/", "\\"))])
@pytest.mark.parametrize("how", ["zip", "zip without flag", "tar", "file"])
def test_names_that_systems_spell_in_their_own_ways(
    tmp_path: Path, server: HubServer, rows: str, stored: str, how: str
) -> None:
    if how == "file":
        put(server, f"A/{stored}", clip(5))
    elif how == "tar":
        put(server, "A/v.tar", tar_of((stored, clip(5))))
    else:
        put(server, "A/v.zip", zip_of((stored, clip(5)), flagged=how == "zip"))
    report = fetch_media(plan(server, tmp_path, [f"A/{rows}"]))
    assert (report.fetched, report.estimate.missing, report.missing) == (1, (), ())
    assert (tmp_path / "media/A" / rows).read_bytes() == clip(5), "the file is called what the row calls it"
    assert plan(server, tmp_path, [f"A/{rows}"]).estimate.present == 1


@pytest.mark.parametrize("second", ["1.mp4", "./1.mp4"])
def test_two_members_of_one_name_are_an_error(tmp_path: Path, server: HubServer, second: str) -> None:
    members = (("1.mp4", clip(1)), ("2.mp4", clip(2)), (second, clip(3)))
    put(server, "A/v.tar", tar_of(*members))
    put(server, "B/v.zip", zip_of(*members))
    found = plan(server, tmp_path, ["A/1.mp4", "A/2.mp4", "B/1.mp4", "B/2.mp4"])
    assert found.estimate.refused == (("B/1.mp4", "two members of one name"),)
    report = fetch_media(found)
    assert report.failed == (("A/1.mp4", "two members of one name"),) and report.fetched == 2
    assert sorted(p.name for p in (tmp_path / "media").rglob("*") if p.is_file()) == ["2.mp4", "2.mp4"]


def test_two_rows_whose_paths_differ_only_in_how_accents_are_written(
    tmp_path: Path, server: HubServer
) -> None:
    put(server, "A/v.zip", zip_of((NFC, clip(1))))
    found = plan(server, tmp_path, [f"A/{NFC}", f"A/{NFD}"]).estimate
    assert found.to_fetch == 1 and "its accents written another way" in found.refused[0][1]
