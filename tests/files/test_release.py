"""Opening releases: which files, which layout, which config; and reading them in constant memory."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.builders.release_rows import official_rows, valid_rows, write_official, write_ours, write_parquet
from videop2r_data.errors import SourceError
from videop2r_data.files import hub as release_hub
from videop2r_data.files import rows
from videop2r_data.files.names import missing_parts
from videop2r_data.files.release import open_release, open_rows
from videop2r_data.files.rows import MISSING, file_rows, json_records, read_batches

json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
json_objects = st.dictionaries(st.text(), json_values, max_size=5)


def read(path: Path) -> list[Any]:
    return [record.value for record in json_records(path)]


@given(st.lists(json_objects, max_size=6), st.booleans(), st.sampled_from([None, 1, 4]))
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_list_is_cut_into_its_elements(
    tmp_path: Path, values: list[Any], ascii_only: bool, indent: int | None
) -> None:
    path = tmp_path / "x.json"
    path.write_bytes(
        json.dumps(values, ensure_ascii=ascii_only, indent=indent).encode("utf-8", "surrogatepass")
    )
    assert json.dumps(read(path)) == json.dumps(values)


@given(st.lists(json_values, max_size=6))
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_elements_of_any_kind_are_none_of_them_lost(tmp_path: Path, values: list[Any]) -> None:
    path = tmp_path / "x.json"
    path.write_text(json.dumps(values))
    assert read(path) == [value if isinstance(value, dict) else None for value in values]


@given(st.binary(max_size=200))
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_junk_ends_in_records_or_in_an_error_that_says_so(tmp_path: Path, junk: bytes) -> None:
    path = tmp_path / "x.json"
    for data in (junk, b"[" + junk, b"{" + junk):
        path.write_bytes(data)
        try:
            for record in json_records(path):
                assert isinstance(record.value, dict) or record.fault
        except SourceError:
            pass


@pytest.mark.parametrize("text", ["[", '[{"a": 1}', '[{"a": "', '[{"a": 1}] more', "[{}]]", "[{}][{}]"])
def test_a_cut_or_continued_list_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "x.json"
    path.write_text(text)
    with pytest.raises(SourceError):
        read(path)


def test_a_record_that_never_ends_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows, "MAX_RECORD_BYTES", 3 << 20)
    for name, text, told in (
        ("x.json", '[{"a": "', "a string never ends"),
        ("x.jsonl", '{"a": "', "longer than 3,145,728 bytes"),
    ):
        (tmp_path / name).write_text(text + "x" * (6 << 20))
        with pytest.raises(SourceError, match=told):
            read(tmp_path / name)


def test_json_lines_with_crlf_blank_lines_and_a_byte_order_mark(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"a": 1}\r\n\r\n{"b": 2}')
    (batch,) = read_batches(path)
    assert batch.columns == {"a": [1, MISSING], "b": [MISSING, 2]}
    assert list(batch.index) == [0, 1]


def test_records_that_are_no_objects_keep_their_index(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    path.write_text('{"a": 1}\n[1]\nnope\n{"a": 4}\n{"a": NaN}\n')
    (batch,) = read_batches(path)
    assert list(batch.index) == [0, 3, 4]
    assert [row for row, _ in batch.bad] == [1, 2]
    assert batch.rows == 5


def test_batches_of_parquet_are_slices(tmp_path: Path) -> None:
    rows = valid_rows()["sft"]
    path = tmp_path / "x.parquet"
    write_parquet(path, "sft", rows)
    read = [
        (start + at, value)
        for batch in read_batches(
            path, columns=["output", "options", "frame_times_s"], size=2, rows=range(1, 4)
        )
        for start, at, value in [
            (batch.start, i, {n: batch.columns[n][i] for n in batch.columns}) for i in range(batch.rows)
        ]
    ]
    assert [at for at, _ in read] == [1, 2, 3]
    for at, value in read:
        assert value == {name: rows[at][name] for name in ("output", "options", "frame_times_s")}


def test_our_layout(tmp_path: Path) -> None:
    release = open_release(write_ours(tmp_path / "made"))
    assert release.layout == "ours"
    assert release.configs == ("sft", "rl", "rejected")
    assert release.lock is not None
    assert release.card is not None
    assert release.problems == ()
    rows = [value for _, b in release.batches("sft", ["sample_id"]) for value in b.columns["sample_id"]]
    assert rows == [row["sample_id"] for row in valid_rows()["sft"]]


def test_the_official_layout_is_read_part_by_part_in_order(tmp_path: Path) -> None:
    rows = official_rows() * 4
    folder = write_official(tmp_path / "clone" / "data", rows, parts=12)
    for where in (folder, folder.parent):
        release = open_release(where)
        assert release.layout == "official"
        ids = [v for _, b in release.batches("sft", ["problem_id"]) for v in b.columns["problem_id"]]
        assert ids == [row["problem_id"] for row in rows]


def test_one_file_is_a_release(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b"\n".join(orjson.dumps(row) for row in valid_rows()["rejected"]))
    release = open_release(path)
    assert (release.layout, release.configs) == ("ours", ("rejected",))


def test_missing_parts_are_named(tmp_path: Path) -> None:
    folder = write_official(tmp_path, official_rows(), parts=3)
    (folder / "VideoP2R-162k_sft.part2of3.json.gz").unlink()
    assert missing_parts(file.name for file in open_release(folder).files) == [("VideoP2R-162k_sft", 2)]


@pytest.mark.parametrize("where", ["/no/such/place", "a/b/c", "../x", "has space", "a//b"])
def test_what_is_neither_folder_nor_id(where: str) -> None:
    with pytest.raises(SourceError, match="no such file"):
        open_release(where)


def test_an_empty_folder(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="no data files"):
        open_release(tmp_path)


def test_a_hub_id_is_fetched_at_its_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_ours(tmp_path / "made")
    asked = []

    def fetch(repo_id: str, revision: str | None) -> tuple[Path, str]:
        asked.append((repo_id, revision))
        return folder, "c0ffee"

    monkeypatch.setattr(release_hub, "fetch", fetch)
    release = open_release("some/made-set", revision="v1")
    assert asked == [("some/made-set", "v1")]
    assert release.revision == "c0ffee"
    assert release.layout == "ours"


def test_a_damaged_gzip_file_is_an_error_of_its_own(tmp_path: Path) -> None:
    data = gzip.compress(orjson.dumps(official_rows() * 50))
    for number, broken in enumerate(
        (data[: len(data) // 2], data[:-4], data[:300] + b"XX" + data[302:], b"")
    ):
        path = tmp_path / f"x{number}.json.gz"
        path.write_bytes(broken)
        if not broken:
            assert list(read_batches(path)) == []
            continue
        with pytest.raises(SourceError):
            list(read_batches(path))


def test_the_rows_of_a_config_are_found_wherever_they_lie(tmp_path: Path) -> None:
    made, parts = (
        write_ours(tmp_path / "made"),
        write_official(tmp_path / "parts", official_rows() * 4, parts=12),
    )

    def ids(where: str, config: str) -> list[Any]:
        found = open_rows(where, base=tmp_path, config=config, columns=["problem_id"], revision=None)
        return [row["problem_id"] for _, row in found.rows if isinstance(row, dict)]

    assert ids("made", "rl") == [row["problem_id"] for row in valid_rows()["rl"]]
    assert ids(str(made), "rejected") == [row["problem_id"] for row in valid_rows()["rejected"]]
    assert ids("parts", "sft") == [row["problem_id"] for row in official_rows() * 4]
    one = sorted(parts.glob("*.part1of12*"))[0]
    assert (
        ids(str(one), "rl")
        == [row["problem_id"] for row in (official_rows() * 4)][: len(ids(str(one), "sft"))]
    )
    with pytest.raises(SourceError, match="no files of config 'rl'"):
        ids("parts", "rl")


def test_rows_have_places_and_faults(tmp_path: Path) -> None:
    (tmp_path / "x.jsonl").write_text('{"a": 1}\n\nnope\n[1]\n')
    (tmp_path / "x.json").write_text('[{"a": 1}, 2]')
    assert list(file_rows(tmp_path / "x.jsonl")) == [
        ("x.jsonl, line 1", {"a": 1}),
        ("x.jsonl, line 3", "not JSON: nope"),
        ("x.jsonl, line 4", "a list, not a JSON object: [1]"),
    ]
    assert list(file_rows(tmp_path / "x.json")) == [
        ("x.json, row 0", {"a": 1}),
        ("x.json, row 1", "a row is a JSON object, got '2'…"),
    ]


@pytest.mark.parametrize("text", [b"<!DOCTYPE html><html>", b"version https://git-lfs.github.com/spec/v1\n"])
def test_what_is_no_json_at_all_is_named(tmp_path: Path, text: bytes) -> None:
    (tmp_path / "x.json").write_bytes(text)
    with pytest.raises(SourceError, match=r"a web page|a Git LFS pointer"):
        read(tmp_path / "x.json")


def test_parts_may_be_numbered_from_zero() -> None:
    assert missing_parts(["d/x.part0of3.json.gz", "d/x.part2of3.json.gz"]) == [("d/x", 1)]
    assert missing_parts(["x.part1of2.parquet", "y.json", "x.part2of2.parquet"]) == []
