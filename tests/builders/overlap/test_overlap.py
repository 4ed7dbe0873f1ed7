"""A pool against evaluation sets: counts with their unknowns, rows, and the command."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from videop2r_data.builders import Stop
from videop2r_data.builders.overlap import OverlapSettings, find_overlap
from videop2r_data.cli.main import app
from videop2r_data.cli.overlap import _folder, render_overlap
from videop2r_data.cli.terminal import SafeConsole, Told
from videop2r_data.errors import ConfigError, SourceError, StoppedError
from videop2r_data.schemas import Overlap, Signal


def asked(number: int, problem: str, path: str, options: Sequence[str] = (), **more: Any) -> dict[str, Any]:
    kind = {"problem_type": "multiple choice", "solution": "<answer>A</answer>"} if options else {}
    text = {"problem_type": "free-form", "solution": "<answer>a</answer>"}
    return {
        "problem_id": number, "problem": problem, "data_type": "video", "options": list(options), "path": path,
        "data_source": path.split("/", maxsplit=1)[0], **text, **kind, **more,
    }  # fmt: skip


POOL = [
    asked(1, "What does the woman do after she opens the box?", "CLEVRER/train/video_00001.mp4"),
    asked(2, "How many cubes are moving?", "CLEVRER/train/video_00002.mp4", ["A. one", "B. two"]),
    asked(3, "Which team scores in the second half?", "clips/unheard-of.mp4", ["A. white", "B. blue"]),
    asked(4, "What is the man in the red coat holding?", "Charades/AB1CD.mp4"),
    asked(5, "Why does the girl laugh?", "kinetics/aB3dE6gH9jK_000000_000010.mp4"),
    asked(6, "What is poured into the glass?", "PerceptionTest/video_7.mp4"),
]
BENCH = [
    # the clip and its question, in other words
    asked(1, "After opening the box, what does the woman do?", "clevrer/video_1.mp4"),
    # equal words and another clip: no leak
    asked(2, "how many cubes are moving", "clevrer/video_validation/video_12345.mp4", ["A. two", "B. one"]),
    # the clip and another question
    asked(3, "Where does he stand at the end?", "star/Charades_v1_480/AB1CD.mp4"),
    # another part of the clip
    asked(4, "Why does the girl laugh?", "kinetics/aB3dE6gH9jK_000100_000110.mp4"),
    # equal number, other namespace
    asked(5, "What falls off the table?", "clevrer/video_7.mp4"),
    # no name that says anything
    asked(6, "Which tool comes last?", "x/clip.mp4"),
]  # fmt: skip


def write(path: Path, rows: Sequence[dict[str, Any]]) -> Path:
    path.write_text(json.dumps(rows))
    return path


def compared(tmp_path: Path, pool: str, *against: str, **more: Any) -> Overlap:
    settings = OverlapSettings(pool=pool, against=against, out=tmp_path / "out", **more)
    return asyncio.run(find_overlap(settings, progress=lambda *_: None, stop=Stop()))


def rows_of(tmp_path: Path) -> set[tuple[str, str, str]]:
    found = pq.read_table(tmp_path / "out" / "rows.parquet").to_pylist()
    return {(row["signal"], row["sample_id"], row["bench_id"]) for row in found}


@pytest.fixture
def report(tmp_path: Path) -> Overlap:
    pool, bench = write(tmp_path / "pool.json", POOL), write(tmp_path / "bench.json", BENCH)
    return compared(tmp_path, str(pool), str(bench))


def test_counts_of_each_signal_with_what_is_unknown(report: Overlap) -> None:
    (bench,) = report.benches
    counts = {s: (c.found, c.known, c.rows, c.same) for s, c in bench.bench.items()}
    assert counts == {"identity": (3, 5, 6, 0), "text": (3, 6, 6, 2), "both": (1, 5, 6, 0)}
    assert {s: (c.found, c.known, c.rows) for s, c in bench.pool.items()} == {
        "identity": (3, 5, 6), "text": (3, 6, 6), "both": (1, 5, 6)
    }  # fmt: skip
    assert bench.apart == 1
    assert bench.by_source["CLEVRER"] == {"rows": 2, "identity": 1, "text": 2, "both": 1}
    assert bench.by_source["clips"] == {"rows": 1}


def test_a_new_question_of_a_known_form_about_a_known_clip_is_none_of_the_pools(tmp_path: Path) -> None:
    """It is nearer to the same words about another clip than to the other question about this one."""
    pool = [
        asked(1, "What colour is the small red cube?", "clevrer/video_1.mp4"),
        asked(2, "What colour is the small red ball?", "clevrer/video_2.mp4"),
    ]
    bench = [
        asked(1, "What colour is the small red ball?", "CLEVRER/train/video_00001.mp4"),
        asked(2, "A small red cube: which colour has it?", "CLEVRER/train/video_00001.mp4"),
    ]
    compared(tmp_path, *(str(write(tmp_path / f"{n}.json", rows)) for n, rows in (("a", pool), ("b", bench))))
    assert {(a, b) for signal, a, b in rows_of(tmp_path) if signal == "both"} == {("a/1", "b/2")}


def test_rows_name_both_sides(report: Overlap, tmp_path: Path) -> None:
    assert rows_of(tmp_path) == {
        ("identity", "pool/1", "bench/1"), ("identity", "pool/4", "bench/3"), ("identity", "pool/5", "bench/4"),
        ("text", "pool/1", "bench/1"), ("text", "pool/2", "bench/2"), ("text", "pool/5", "bench/4"),
        ("both", "pool/1", "bench/1"),
    }  # fmt: skip


def test_declared_splits_stand_side_by_side(report: Overlap) -> None:
    splits = {(s.namespace, s.split): (s.pool_rows, s.bench_rows) for s in report.benches[0].splits}
    assert splits["clevrer", "train"] == (
        2,
        2,
    )  # video_1 and video_7 are train clips, whatever folder they lie in
    assert splits["clevrer", "validation"] == (0, 1)
    assert splits["charades", ""] == (1, 1)
    assert not any(name == "perception-test" for name, _ in splits)


def test_what_has_nothing_to_be_compared_with_is_unknown(tmp_path: Path) -> None:
    """A pool whose names say nothing has no clip in common by name, and none that is known to be another."""
    pool = write(
        tmp_path / "pool.json", [asked(1, "Who runs?", "clips/1.mp4"), asked(2, "Who sits?", "clips/2.mp4")]
    )
    (bench,) = compared(tmp_path, str(pool), str(write(tmp_path / "bench.json", BENCH))).benches
    assert {name: (one.known, one.rows) for name, one in bench.bench.items()} == {
        "identity": (0, 6), "text": (6, 6), "both": (0, 6)
    }  # fmt: skip


def test_frames_without_a_clip_on_both_sides_are_an_error(tmp_path: Path) -> None:
    pool, bench = write(tmp_path / "pool.json", POOL), write(tmp_path / "bench.json", BENCH)
    with pytest.raises(SourceError, match="no frames of pool could be compared"):
        compared(tmp_path, str(pool), str(bench), frames=True)
    assert (tmp_path / "out" / "overlap.json").exists()  # what else was found


@pytest.mark.parametrize(
    ("name", "folder", "told"), [("typo", ".", "called 'typo'"), ("", "no", "no such folder")]
)
def test_a_media_folder_that_serves_nobody_is_an_error(
    tmp_path: Path, name: str, folder: str, told: str
) -> None:
    pool, bench = write(tmp_path / "pool.json", POOL), write(tmp_path / "bench.json", BENCH)
    with pytest.raises(ConfigError, match=told):
        compared(tmp_path, str(pool), str(bench), media={name: tmp_path / folder})


def test_each_source_of_a_recipe_is_an_evaluation_set_of_its_own(tmp_path: Path) -> None:
    write(tmp_path / "pool.json", POOL)
    write(tmp_path / "bench.json", BENCH)
    recipe = tmp_path / "benches.yaml"
    recipe.write_text(
        "name: benches\nsources:\n- {name: one, kind: video-r1, path: bench.json}\n"
        "- {name: two, kind: video-r1, path: pool.json, limit: 2}\n"
        "generate: {backend: {kind: demo, model: x}}\n"
    )
    found = compared(tmp_path, f"mine={tmp_path / 'pool.json'}", str(recipe))
    assert [(b.name, b.rows) for b in found.benches] == [("one", 6), ("two", 2)]
    assert found.benches[1].bench["both"].same == 2
    assert found.pool == "mine" and list(found.sources) == ["mine"]
    with pytest.raises(ConfigError, match="two evaluation sets are called one"):
        compared(tmp_path, str(tmp_path / "pool.json"), str(recipe), f"one={tmp_path / 'bench.json'}")


def test_a_side_that_cannot_be_read_is_no_overlap_of_nothing(tmp_path: Path) -> None:
    pool = write(tmp_path / "pool.json", POOL)
    bad = write(tmp_path / "bad.json", [asked(1, "What?", "/etc/passwd")])
    with pytest.raises((SourceError, ConfigError)):
        compared(tmp_path, str(pool), str(bad))
    stop = Stop()
    stop.ask()
    settings = OverlapSettings(pool=str(pool), against=[str(pool)], out=tmp_path / "out")
    with pytest.raises(StoppedError):
        asyncio.run(find_overlap(settings, progress=lambda *_: None, stop=stop))
    assert not (tmp_path / "out" / "overlap.json").exists()


def test_a_name_of_nothing_is_told_and_leaves_nothing(tmp_path: Path) -> None:
    pool = write(tmp_path / "pool.json", [asked(1, "Why?", "")])
    for one, other in ((str(pool), "nosuch"), ("nosuch", "mmvu")):
        with pytest.raises(
            ConfigError, match=r"nosuch: no benchmark, recipe, file .*\n  p2r-data benchmarks lists"
        ):
            compared(tmp_path, one, other)
    assert list(tmp_path.iterdir()) == [pool]


def test_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "pool.json", POOL)
    write(tmp_path / "bench.json", [*BENCH, asked(7, "", "a.mp4")])
    args = ["overlap", "pool.json", "--against", "bench.json", "--out", "found"]
    done = CliRunner().invoke(app, args)
    assert done.exit_code == 0, done.output
    assert "6 rows, 1 unreadable" in done.stdout
    assert [line.split() for line in done.stdout.splitlines() if "same file" in line] == [
        ["same", "file", "not", "looked", "for"]
    ]
    assert max(map(len, done.stdout.splitlines())) <= 80
    report = Overlap.model_validate(json.loads(CliRunner().invoke(app, [*args, "--json"]).stdout))
    assert report == Overlap.model_validate_json((tmp_path / "found" / "overlap.json").read_bytes())
    signal: Signal = "both"
    assert report.benches[0].bench[signal].found == 1


def test_a_stopped_command_says_run_me_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def stopped(*_: object, **__: object) -> None:
        raise StoppedError("stopped")

    monkeypatch.setattr("videop2r_data.builders.overlap.find_overlap", stopped)
    done = CliRunner().invoke(app, ["overlap", "a.json", "--against", "b.json", "--out", str(tmp_path)])
    assert done.exit_code == 3 and "the same command goes on" in done.output


def test_names(tmp_path: Path) -> None:
    pool = write(tmp_path / "a=b.json", POOL)
    bench = write(tmp_path / "bench.json", BENCH)
    assert compared(tmp_path, str(pool), f"x={bench}").pool == "a-b"
    with pytest.raises(ConfigError, match="is no name"):
        compared(tmp_path, str(pool), f"../x={bench}")


def test_folders_of_media_may_have_an_equal_sign(tmp_path: Path) -> None:
    (tmp_path / "a=b").mkdir()
    assert _folder(str(tmp_path / "a=b")) == ("", tmp_path / "a=b")
    assert _folder("a=b=c") == ("a", Path("b=c"))
    assert _folder("clips") == ("", Path("clips"))


def test_what_strangers_wrote_is_printed_as_text(report: Overlap) -> None:
    file = io.StringIO()
    evil = "[red]\x1b]8;;http://evil\x07[/red]"
    counts = {evil: {"rows": 1, "both": 1}, "b": {"rows": 1}}
    bench = report.benches[0].model_copy(update={"name": evil, "by_source": counts})
    shown = report.model_copy(update={"pool": evil, "benches": [bench]})
    render_overlap(shown, SafeConsole(file=file, width=80))
    with Told(SafeConsole(file=file, width=80, force_terminal=True), "opening") as told:
        told.count(f"reading [/x]{evil}", 1, None)
    assert "\x1b]" not in file.getvalue() and file.getvalue().count("[red]") >= 4
    assert "[/x]" in file.getvalue()
