"""Reading data sets: ours, the official files, the Hub; bad rows, hostile paths, media roots."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.shared import samples_dir
from tests.trainer.data.parts import SMALL
from videop2r_data.demo import read_world, write_world
from videop2r_data.errors import ConfigError, SourceError
from videop2r_data.schemas.recipe import DemoSpec
from videop2r_data.schemas.rows import CONFIGS, arrow_schema
from videop2r_data.trainer.data.examples import Example, ExampleSet
from videop2r_data.trainer.data.rows import read_examples
from videop2r_data.trainer.settings.parts import DataSpec

TRACE = "<observation>o</observation> <think>t</think><answer>B</answer>"


def row(number: int = 0, **more: Any) -> dict[str, Any]:
    """An `sft` row about a text question."""
    fields: dict[str, Any] = {
        "sample_id": f"pool/{number}",
        "problem_id": str(number),
        "problem": f"Which one, {number}?",
        "problem_type": "multiple choice",
        "data_type": "text",
        "options": ["A. cat", "B. dog"],
        "solution": "<answer>B</answer>",
        "path": "",
        "output": TRACE,
        "process": "<think>t</think><answer>B</answer>",
    }
    return fields | more


def write(path: Path, rows: list[Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(orjson.dumps(rows))
    return path


def torn(path: Path) -> Path:
    """A gzip file that lost its end."""
    between, around = (b",", (b"[", b"]")) if ".json." in path.name else (b"\n", (b"", b""))
    rows = between.join(orjson.dumps(row(number)) for number in range(400))
    path.write_bytes(gzip.compress(around[0] + rows + around[1])[:-2000])
    return path


def parquet(path: Path, rows: list[dict[str, Any]], config: str = "sft") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    blank: dict[str, Any] = {"string": "", "double": 0.0, "bool": False, "int32": 0}
    schema = arrow_schema(CONFIGS[config])
    full = [
        {f.name: r.get(f.name, [] if pa.types.is_list(f.type) else blank[str(f.type)]) for f in schema}
        for r in rows
    ]
    pq.write_table(pa.Table.from_pylist(full, schema=schema), path)


def read(source: Path | str, **more: Any) -> ExampleSet:
    found = read_examples(DataSpec(source=str(source), **more))
    assert isinstance(found, ExampleSet)
    return found


def test_a_built_folder_is_read_part_by_part(tmp_path: Path) -> None:
    parquet(tmp_path / "data" / "sft-00010.parquet", [row(2)])
    parquet(tmp_path / "data" / "sft-00002.parquet", [row(0), row(1)])
    parquet(tmp_path / "data" / "rl-00000.parquet", [row(7)], "rl")
    found = read(tmp_path)
    assert [e.sample_id for e in found] == ["pool/0", "pool/1", "pool/2"]
    first = found[0]
    assert (first.options, first.reference, first.target, first.path) == (
        ("A. cat", "B. dog"), "B", TRACE, None
    )  # fmt: skip
    agnostic = read(tmp_path, style="agnostic")
    assert agnostic[0].target == "<think>t</think><answer>B</answer>"
    questions = read(tmp_path, config="rl")
    assert [(e.sample_id, e.target) for e in questions] == [("pool/7", None)]
    assert len({found.sha256, agnostic.sha256, questions.sha256}) == 3
    assert read(tmp_path).sha256 == found.sha256


def test_ranges_of_rows_are_disjoint(tmp_path: Path) -> None:
    rows: list[Any] = [row(i) for i in range(6)]
    rows[1]["solution"] = "<answer>C</answer>"
    path = write(tmp_path / "sft-0.json", rows)
    assert [e.sample_id for e in read(path, limit=3)] == ["pool/0", "pool/2"]
    assert [e.sample_id for e in read(path, start=3)] == ["pool/3", "pool/4", "pool/5"]
    with pytest.raises(SourceError, match="no rows from row 6 on"):
        read(path, start=6)


@pytest.mark.parametrize("ending", ["json", "json.gz", "jsonl", "jsonl.gz"])
def test_one_file_of_the_official_layout(tmp_path: Path, ending: str) -> None:
    """No sample_id, no think column; in the RL part every value is text, the options too."""
    rows = [{k: v for k, v in row(i).items() if k != "sample_id"} for i in range(2)]
    rows[1]["options"] = json.dumps(rows[1]["options"])
    data = orjson.dumps(rows) if "jsonl" not in ending else b"\n".join(map(orjson.dumps, rows))
    path = tmp_path / f"VideoP2R-162k_sft.part1of1.{ending}"
    path.write_bytes(gzip.compress(data) if ending.endswith("gz") else data)
    found = read(path)
    assert [(e.sample_id, e.options) for e in found] == [
        ("0", ("A. cat", "B. dog")),
        ("1", ("A. cat", "B. dog")),
    ]


def predecessors(**more: Any) -> dict[str, Any]:
    """A row in the layout of Video-R1-COT-165k."""
    fields = {
        "problem_id": 7,
        "problem": "What is on the screen?",
        "data_type": "video",
        "problem_type": "multiple choice",
        "options": ["A. a cat", "B. a dog"],
        "process": "<think>Let me look: it barks.</think>",
        "solution": "<answer>B</answer>",
        "path": "./CLEVRER/a.mp4",
        "data_source": "CLEVRER",
    }
    if (folder := samples_dir()) is not None:  # the row that its README prints, which has no process
        fields |= json.loads((folder / "videor1_train_readme_row.jsonl").read_text())
    return fields | more


def test_the_layout_of_the_predecessors_data(tmp_path: Path) -> None:
    """The thought in `process`, the answer in `solution`: one completion for style agnostic."""
    rows = [
        predecessors(),
        predecessors(problem_id=8, process="no thought"),
        predecessors(problem_id=9, process=""),
        predecessors(problem_id=10, process="<think>t</think> <answer>B</answer>"),
    ]
    for one in rows:
        place = tmp_path / str(one["path"])
        place.parent.mkdir(parents=True, exist_ok=True)
        place.touch()
    path = write(tmp_path / "Video-R1-COT-165k.json", rows)
    found = read(path, style="agnostic", media_root=str(tmp_path))
    first, last = found
    assert first.target == f"{rows[0]['process']}\n<answer>{first.reference}</answer>"
    assert first.path is not None and first.path.is_file() and first.data_type == "video"
    assert (last.sample_id, last.target) == ("10", rows[3]["process"])
    assert [(skip.sample_id, skip.reason) for skip in found.skipped] == [
        ("8", "missing_think"),
        ("9", "bad_row"),
    ]
    with pytest.raises(SourceError, match='field "output"'):
        read(path, media_root=str(tmp_path))


BAD = [
    ("not a row", None, "bad_row", "a row is a JSON object"),
    (row(1, problem=" "), None, "bad_row", 'field "problem"'),
    (row(1, problem_type="essay"), None, "bad_row", "allowed: multiple choice, numerical"),
    (row(1, data_type="sound"), None, "bad_row", "allowed: image, video, text"),
    (row(1, options="cat or dog"), None, "bad_row", 'field "options"'),
    (row(1, options=["A. cat", 2]), None, "bad_row", 'field "options"'),
    (row(1, solution="<answer>C</answer>"), None, "bad_reference", "names none of the options A, B"),
    (row(1, problem_type="numerical", solution="many"), None, "bad_reference", "not one number"),
    (row(1, output="no trace at all"), None, "missing_observation", 'field "output"'),
    (row(1, output=TRACE + TRACE), None, "repeated_tag", 'field "output"'),
    (row(1, process="<think>t</think>"), "agnostic", "missing_answer", 'field "process"'),
    (row(1, data_type="video", path="../../etc/passwd"), None, "unsafe_path", 'field "path"'),
    (row(1, data_type="video", path="/etc/passwd"), None, "unsafe_path", 'field "path"'),
    (row(1, data_type="image", path="a\x00b"), None, "unsafe_path", 'field "path"'),
    (row(1, data_type="image", path=""), None, "bad_row", 'field "path"'),
]


@pytest.mark.parametrize(("bad", "style", "reason", "detail"), BAD)
def test_a_bad_row_is_left_out_with_its_place(
    tmp_path: Path, bad: Any, style: str | None, reason: str, detail: str
) -> None:
    path = write(tmp_path / "p.json", [row(0), bad, row(2)])
    found = read(path, style=style or "process", media_root=str(tmp_path))
    assert [e.sample_id for e in found] == ["pool/0", "pool/2"]
    (skip,) = found.skipped
    assert skip.reason == reason and detail in skip.detail and "p.json, row 1" in skip.detail
    assert [one.reason for one in found.skipped] == [reason]


def test_a_link_out_of_the_media_root_is_refused(tmp_path: Path) -> None:
    (tmp_path / "secret.mp4").write_bytes(b"x")
    root = tmp_path / "media"
    root.mkdir()
    (root / "a.mp4").symlink_to(tmp_path / "secret.mp4")
    (root / "b.mp4").write_bytes(b"x")
    path = write(
        tmp_path / "p.json",
        [row(0, data_type="video", path="a.mp4"), row(1, data_type="video", path="./b.mp4")],
    )
    found = read(path, media_root=str(root))
    assert [e.path for e in found] == [(root / "b.mp4").resolve()]
    assert found.skipped[0].reason == "unsafe_path"


def test_only_bad_rows_are_an_error_that_names_the_first(tmp_path: Path) -> None:
    path = write(tmp_path / "p.json", [row(0, output=""), row(1, output="")])
    with pytest.raises(
        SourceError, match=r'none of 2 rows can be used; the first: bad_row: p.json, row 0, field "output"'
    ):
        read(path)
    assert len(read(path, config="rl")) == 2


def test_media_without_a_root_name_the_flag(tmp_path: Path) -> None:
    path = write(tmp_path / "p.json", [row(0, data_type="video", path="a.mp4")])
    with pytest.raises(ConfigError, match="--media-root"):
        read(path)
    with pytest.raises(ConfigError, match=r"none of the first 1 media files is there[\s\S]*--media-root"):
        read(path, media_root=str(tmp_path))
    with pytest.raises(ConfigError, match="no such folder"):
        read(path, media_root=str(tmp_path / "nowhere"))


def test_the_work_folder_beside_a_build_knows_its_media(tmp_path: Path) -> None:
    out, clips = tmp_path / "set", tmp_path / "clips"
    clips.mkdir()
    (clips / "a.mp4").write_bytes(b"x")
    parquet(out / "data" / "sft-00000.parquet", [row(0, sample_id="mine/0", data_type="video", path="a.mp4")])
    note = {
        "base": str(tmp_path),
        "recipe": {"sources": [{"name": "mine", "kind": "video-r1", "media_root": "clips"}]},
    }
    work = tmp_path / "set.build"
    work.mkdir()
    (work / "workspace.json").write_bytes(orjson.dumps(note))
    assert read(out)[0].path == (clips / "a.mp4").resolve()
    parquet(
        out / "data" / "sft-00000.parquet", [row(0, sample_id="other/0", data_type="video", path="a.mp4")]
    )
    with pytest.raises(ConfigError, match=r"no media root for .other/0. \(known for: mine"):
        read(out)
    (work / "workspace.json").write_bytes(b"[]")
    with pytest.raises(ConfigError, match="none is noted"):
        read(out)


def test_a_demo_world_brings_its_scenes(tmp_path: Path) -> None:
    world = write_world(tmp_path / "set.build" / "demo" / "demo", DemoSpec(rows=6, side=32, frames=4))
    scenes = list(read_world(world))
    rows = [row(**(s.pool_row() | {"sample_id": f"demo/{s.problem_id}", "output": TRACE})) for s in scenes]
    rows[0]["problem"] = "Something else?"
    rows = [r | {"problem_id": str(r["problem_id"]), "path": r["path"].removeprefix("./")} for r in rows]
    parquet(tmp_path / "set" / "data" / "rl-00000.parquet", rows, "rl")
    note = {
        "base": str(tmp_path),
        "recipe": {"sources": [{"name": "demo", "kind": "demo", "media_root": ""}]},
    }
    (tmp_path / "set.build" / "workspace.json").write_bytes(orjson.dumps(note))
    for found in (
        read(tmp_path / "set", config="rl"),
        read(tmp_path / "set", config="rl", media_root=str(world / "media")),
    ):
        assert [e.scene for e in found] == [None, *scenes[1:]]
        assert all(e.path is None or e.path.is_file() for e in found)
    (world / "scenes.jsonl").write_bytes(b"{}\n")  # not ours: the media are good without it
    assert {e.scene for e in read(tmp_path / "set", config="rl")} == {None}


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda p: p / "nowhere" / "at all", "no such file or folder"),
        (lambda p: p, "no files of config 'sft'"),
        (lambda p: write(p / "x.json", []), "no rows"),
        (lambda p: write(p / "x.csv", []), "not a data file"),
        (lambda p: write(p / "x.parquet", []), "not a readable parquet file"),
        (lambda p: torn(p / "x.json.gz"), "x.json.gz, byte .*cannot be read on: Compressed file ended"),
        (lambda p: torn(p / "x.jsonl.gz"), "x.jsonl.gz: cannot be read to its end: Compressed file ended"),
    ],
)
def test_what_cannot_be_read_says_what_can(tmp_path: Path, make: Any, message: str) -> None:
    with pytest.raises(SourceError, match=message):
        read(make(tmp_path))


class Hub:
    """Stands in for the Hub's two calls."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, rows: list[dict[str, Any]]) -> None:
        import datasets
        import huggingface_hub

        self.asked: list[Any] = []

        def load_dataset(path: str, **kw: Any) -> Any:
            self.asked.append((path, kw))
            if kw["split"] != "train":
                raise ValueError("Unknown split")
            return datasets.Dataset.from_list([{**r, "judge_key": "-"} for r in rows])

        def dataset_info(_: Any, name: str, revision: str | None = None) -> Any:
            if name == "gone/set":
                raise OSError("offline")
            return SimpleNamespace(sha="c" * 40)

        monkeypatch.setattr(datasets, "load_dataset", load_dataset)
        monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", dataset_info)


def test_a_hub_set_is_read_at_one_commit(monkeypatch: pytest.MonkeyPatch) -> None:
    hub = Hub(monkeypatch, [row(0), row(1)])
    found = read("owner/set", revision="v1")
    assert [e.sample_id for e in found] == ["pool/0", "pool/1"] and found.revision == "c" * 40
    assert hub.asked == [("owner/set", {"name": "sft", "split": "train", "revision": "c" * 40})]
    with pytest.raises(SourceError, match=r"owner/set@cccccccccccc, config 'sft', split 'test'"):
        read("owner/set", split="test")
    with pytest.raises(SourceError, match="cannot get the data set from the Hub: offline"):
        read("gone/set")
    assert read("gone/set", revision="d" * 40).revision == "d" * 40


def test_a_spec_says_what_cannot_be() -> None:
    with pytest.raises(ValueError, match="no media_root"):
        DataSpec(source="demo", media_root="x")
    assert DataSpec(source="x", prompt="mine.txt").prompt_name == "mine.txt"
    assert DataSpec(source="demo", media=SMALL).is_demo and isinstance(read_examples, object)
    assert Example.__slots__


@pytest.mark.integration
def test_what_a_build_wrote_is_read_with_media_and_scenes(tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "videop2r_data.cli",
        "build",
        "--out",
        str(tmp_path / "set"),
        "--limit",
        "24",
    ]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    questions, traces = read(tmp_path / "set", config="rl"), read(tmp_path / "set")
    assert len(questions) == 24 and 8 < len(traces) < 24 and not questions.skipped + traces.skipped
    assert all(e.scene is not None and (e.path is None or e.path.is_file()) for e in questions)
    assert {e.data_type for e in questions} == {"video", "image", "text"}
    agnostic = read(tmp_path / "set", style="agnostic")
    for one, other in zip(traces, agnostic, strict=True):
        assert one.target is not None and one.target.endswith(f" {other.target}")


def test_a_world_in_a_recipe_is_as_the_default_where_it_says_nothing() -> None:
    said = DataSpec.model_validate({"source": "demo", "demo": {"seed": 3}}).demo
    assert (said.seed, said.numbered, said.rotated) == (3, False, False)
    assert DataSpec.model_validate({"source": "demo", "demo": {"numbered": True}}).demo.numbered


RATES = [0.0, 0.1, 0.5, 0.9, 1.0, None, "0.5", "often", 1.5, float("inf"), True]


@pytest.mark.parametrize("by", ["column", "file"])
def test_a_filter_by_pass_rate_leaves_out_and_counts(by: str, tmp_path: Path) -> None:
    rates = [None if rate == float("inf") else rate for rate in RATES]  # JSON has no infinity
    if by == "column":
        source = write(tmp_path / "d.json", [row(i, rate=rate) for i, rate in enumerate(rates)])
        wanted = {"low": 0.1, "high": 0.9, "column": "rate"}
    else:
        source = write(tmp_path / "d.json", [row(i, pass_rate=1.0) for i in range(len(rates))])
        # ids of either kind; a row that the file does not know is left out
        named = {f"pool/{i}" if i % 2 else str(i): rate for i, rate in enumerate(rates)}
        file = tmp_path / "rates.json"
        file.write_bytes(orjson.dumps(named))
        wanted = {"low": 0.1, "high": 0.9, "file": str(file)}
    spec = DataSpec.model_validate({"source": str(source), "config": "sft", "pass_rate": wanted})
    found = read_examples(spec)
    # both bounds are in
    assert [e.sample_id for e in found] == [f"pool/{i}" for i in (1, 2, 3, 6)]
    assert isinstance(found, ExampleSet)
    assert Counter(one.reason for one in found.skipped) == {"pass_rate": 3, "no_pass_rate": 4}
    assert found.sha256 != read_examples(spec.model_copy(update={"pass_rate": None})).sha256  # type: ignore[attr-defined]


def test_rates_that_are_none_are_told_with_what_to_do(tmp_path: Path) -> None:
    source = write(tmp_path / "d.json", [row()])
    spec: dict[str, Any] = {"source": str(source), "config": "sft", "pass_rate": {"high": 0.9}}
    with pytest.raises(SourceError, match=r'no_pass_rate: .*row 0, field "pass_rate": a share from 0 to 1'):
        read_examples(DataSpec.model_validate(spec))
    lost = {**spec, "pass_rate": {"file": str(tmp_path / "none.json")}}
    with pytest.raises(ConfigError, match="no pass rates can be read"):
        read_examples(DataSpec.model_validate(lost))
    listed = write(tmp_path / "rates.json", [0.5])
    with pytest.raises(ConfigError, match="a JSON list, not an object"):
        read_examples(DataSpec.model_validate({**spec, "pass_rate": {"file": str(listed)}}))
    with pytest.raises(ValueError, match=r"low 0\.9 above high 0\.1"):
        DataSpec.model_validate({**spec, "pass_rate": {"low": 0.9, "high": 0.1}})
    with pytest.raises(ValueError, match="no pass_rate"):
        DataSpec.model_validate({"source": "demo", "pass_rate": {}})
