"""The folder swap loses nothing: neither the old set, nor what people keep beside it, nor a journal."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from videop2r_data.builders.export import ConfigWriter, DatasetWriter, check_ours, recover
from videop2r_data.builders.workspace import Workspace
from videop2r_data.errors import ConfigError, ExportError
from videop2r_data.files import release
from videop2r_data.schemas.rows import CONFIGS


def rl(i: int, *, text: str = "?", options: tuple[str, ...] = ()) -> dict[str, Any]:
    return {
        "problem_id": str(i),
        "problem": text,
        "problem_type": "numerical",
        "data_type": "text",
        "options": list(options),
        "solution": "<answer>1</answer>",
        "path": "",
        "data_source": "",
        "sample_id": f"s/{i}",
    }


def made(out: Path, *ids: int) -> None:
    """A data set with these rows in `rl`."""
    with DatasetWriter(out) as writer:
        for i in ids:
            writer.configs["rl"].add(rl(i))
        writer.close()
        (writer.staging / "build.lock.json").write_text("{}")
        (writer.staging / "README.md").write_text("card")
        writer.commit()


def ids(out: Path) -> list[str]:
    import pyarrow.parquet as pq

    return [
        i for p in sorted((out / "data").glob("rl-*")) for i in pq.read_table(p)["problem_id"].to_pylist()
    ]


def leftovers(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir() if p.name.startswith("."))


def test_what_people_keep_in_the_folder_moves_into_the_new_one(tmp_path: Path) -> None:
    out = tmp_path / "set"
    made(out, 1)
    (out / ".git").mkdir()
    (out / ".git" / "HEAD").write_text("ref")
    (out / "notes.md").write_text("mine")
    (out / "data" / "extra.csv").write_text("a,b")
    (out / "data" / "rl-00007.parquet").write_text("a shard of an older, larger set")
    made(out, 2)
    assert ids(out) == ["2"]
    assert (out / ".git" / "HEAD").read_text() == "ref"
    assert (out / "notes.md").read_text() == "mine" and (out / "data" / "extra.csv").read_text() == "a,b"
    assert not (out / "data" / "rl-00007.parquet").exists() and not leftovers(tmp_path)


def test_a_crash_between_the_two_renames_is_undone(tmp_path: Path) -> None:
    out = tmp_path / "set"
    made(out, 1)
    out.rename(tmp_path / ".set.old")
    (tmp_path / ".set.staging").mkdir()
    recover(out)
    assert ids(out) == ["1"]
    made(out, 2)
    assert ids(out) == ["2"] and not leftovers(tmp_path)


def test_a_crash_after_the_swap_is_finished(tmp_path: Path) -> None:
    made(tmp_path / "set", 2)
    made(tmp_path / ".set.old", 1)
    (tmp_path / ".set.old" / "notes.md").write_text("mine")
    recover(tmp_path / "set")
    assert ids(tmp_path / "set") == ["2"] and (tmp_path / "set" / "notes.md").read_text() == "mine"
    assert not leftovers(tmp_path)


def test_a_living_writer_is_left_alone(tmp_path: Path) -> None:
    out = tmp_path / "set"
    made(out, 1)
    with DatasetWriter(out) as first:
        with pytest.raises(ExportError, match="another process"):
            DatasetWriter(out)
        assert first.staging.exists()
        # it is in the middle of its swap: nobody else may undo that
        out.rename(first.old)
        recover(out)
        assert not out.exists() and first.old.exists()
        first.old.rename(out)
    made(out, 2)
    assert ids(out) == ["2"]


def test_a_staging_folder_of_a_dead_writer_is_cleared(tmp_path: Path) -> None:
    (tmp_path / ".set.staging" / "data").mkdir(parents=True)
    (tmp_path / ".set.staging" / "data" / "sft-00009.parquet").write_text("half")
    made(tmp_path / "set", 1)
    assert ids(tmp_path / "set") == ["1"] and not leftovers(tmp_path)
    assert len(list((tmp_path / "set" / "data").iterdir())) == 3


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "big").mkdir()
    made(tmp_path / "big" / "set", 1)
    (tmp_path / "set").symlink_to(tmp_path / "big" / "set")
    made(tmp_path / "set", 2)
    assert (tmp_path / "set").is_symlink() and ids(tmp_path / "big" / "set") == ["2"]
    assert not leftovers(tmp_path) and not leftovers(tmp_path / "big")


@pytest.mark.parametrize("what", ["file", "folder", "dangling"])
def test_what_is_not_ours_is_never_replaced(tmp_path: Path, what: str) -> None:
    out = tmp_path / "set"
    if what == "file":
        out.write_text("thesis")
    elif what == "folder":
        out.mkdir()
        (out / "thesis.tex").write_text("thesis")
    else:
        out.symlink_to(tmp_path / "nowhere")
    with pytest.raises(ExportError, match="not a data set of this tool"):
        check_ours(out)
    with pytest.raises(ExportError):
        DatasetWriter(out)
    assert os.path.lexists(out)


@pytest.mark.parametrize("work", ["set", "set/work", "link/work"])
def test_a_journal_inside_the_data_set_is_refused(tmp_path: Path, work: str) -> None:
    (tmp_path / "set").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "set")
    with pytest.raises(ConfigError, match="must lie apart"):
        Workspace.at(tmp_path / "set", base=tmp_path, work=tmp_path / work).check()
    Workspace.at(tmp_path / "set", base=tmp_path, work=tmp_path / "other").check()
    Workspace.at(tmp_path / "w" / "set", base=tmp_path, work=tmp_path / "w").check()


def read(folder: Path, config: str) -> list[dict[str, Any]]:
    import pyarrow.parquet as pq

    return [
        row for p in sorted((folder / "data").glob(f"{config}-*")) for row in pq.read_table(p).to_pylist()
    ]


@pytest.mark.parametrize(("group", "shard"), [(1, 1), (700, 2_000), (10**9, 10**9)])
def test_groups_and_shards_hold_every_row_once_in_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, group: int, shard: int
) -> None:
    import pyarrow.parquet as pq

    monkeypatch.setattr(release, "ROW_GROUP_BYTES", group)
    monkeypatch.setattr(release, "SHARD_BYTES", shard)
    writer = ConfigWriter(tmp_path, "rl")
    rows = [rl(i, text="x" * (i * 37 % 300), options=("A. a\nb",) * (i % 3)) for i in range(23)]
    for row in rows:
        writer.add(row)
    writer.close()
    assert read(tmp_path, "rl") == rows
    assert [n for _, n in writer.shards] == [pq.read_metadata(p).num_rows for p, _ in writer.shards]
    assert all(n for _, n in writer.shards) and sum(n for _, n in writer.shards) == 23
    assert (len(writer.shards) > 1) == (shard < 10**9)


@pytest.mark.parametrize("config", sorted(CONFIGS))
def test_a_config_without_rows_has_a_file_with_the_schema(tmp_path: Path, config: str) -> None:
    from videop2r_data.schemas.rows import arrow_schema

    writer = ConfigWriter(tmp_path, config)
    writer.close()
    ((path, rows),) = writer.shards
    import pyarrow.parquet as pq

    assert rows == 0 and pq.read_schema(path).remove_metadata().equals(arrow_schema(CONFIGS[config]))


def test_a_text_of_10_mb_fits(tmp_path: Path) -> None:
    writer = ConfigWriter(tmp_path, "rl")
    writer.add(rl(0, text="é\n\x00" * 3_000_000))
    writer.close()
    assert len(read(tmp_path, "rl")[0]["problem"]) == 9_000_000


def test_an_inserted_row_moves_no_later_row_group(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import pyarrow.parquet as pq

    monkeypatch.setattr(release, "ROW_GROUP_BYTES", 20_000)
    monkeypatch.setattr(release, "MARKED_ROWS", 16)

    def groups(name: str, ids: list[int]) -> list[tuple[str, ...]]:
        writer = ConfigWriter(tmp_path / name, "rl")
        for i in ids:
            writer.add(rl(i))
        writer.close()
        file = pq.ParquetFile(writer.shards[0][0])
        return [
            tuple(file.read_row_group(g, columns=["sample_id"]).column(0).to_pylist())
            for g in range(file.num_row_groups)
        ]

    before, after = groups("before", list(range(900))), groups("after", [9_999, *range(900)])
    assert len(before) > 8
    assert len(set(before) & set(after)) >= len(before) - 2
