"""Pools of every layout: what a row becomes, what it is refused for, and what stops a source."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from tests.pools import read_pool
from tests.shared import samples_dir
from videop2r_data.builders.sources import PoolDigest, Source, open_source
from videop2r_data.builders.sources.answers import Labels, OptionsError, read_options
from videop2r_data.builders.sources.normalise import Normaliser
from videop2r_data.errors import SourceError
from videop2r_data.schemas import BadRow
from videop2r_data.schemas.recipe import ColumnMapping, DemoSpec, SourceSpec
from videop2r_data.schemas.sample import Sample
from videop2r_data.schemas.verdict import RejectReason

ROW: dict[str, Any] = {
    "problem_id": 7,
    "problem": "Which one?",
    "data_type": "video",
    "problem_type": "multiple choice",
    "options": ["A. cat", "B. dog", "C. cow"],
    "solution": "<answer>B</answer>",
    "path": "./Sub/clip.mp4",
    "data_source": "Sub",
}
SPEC = SourceSpec(name="pool", kind="video-r1", path="pool.json")


def one(**changes: Any) -> Sample | BadRow:
    return Normaliser(SPEC)(0, ROW | changes)


def good(**changes: Any) -> Sample:
    row = one(**changes)
    assert isinstance(row, Sample), row
    return row


def bad(**changes: Any) -> BadRow:
    row = one(**changes)
    assert isinstance(row, BadRow), row
    return row


def write(path: Path, rows: list[Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    data = json.dumps(rows).encode()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


def opened(path: Path, **kwargs: Any) -> Source:
    spec = SourceSpec(name="pool", path=str(path), **({"kind": "video-r1"} | kwargs))
    return open_source(spec, base=path.parent)


def test_a_row_of_video_r1() -> None:
    sample = good()
    assert sample.sample_id == "pool/7"
    assert sample.path == "Sub/clip.mp4"
    assert sample.options == ("A. cat", "B. dog", "C. cow")
    assert (sample.solution, sample.reference) == ("<answer>B</answer>", "B")


@pytest.mark.parametrize(
    ("spelling", "value"),
    [
        ("multiple-choice", "multiple choice"),
        ("Multiple_Choice", "multiple choice"),
        ("mcq", "multiple choice"),
    ],
)
def test_spellings_of_multiple_choice(spelling: str, value: str) -> None:
    assert good(problem_type=spelling).problem_type.value == value


@pytest.mark.parametrize(
    ("spelling", "value", "solution"),
    [
        ("free_form", "free-form", "a red ball"),
        ("open-ended", "free-form", "a red ball"),
        ("ocr", "OCR", "STOP"),
        ("Numerical", "numerical", "4"),
        ("regression", "regression", "4.5"),
        ("temporal_grounding", "temporal grounding", "[1.5, 3.0]"),
    ],
)
def test_spellings_of_the_other_types(spelling: str, value: str, solution: str) -> None:
    sample = good(problem_type=spelling, solution=solution)
    assert sample.problem_type.value == value
    assert sample.options == ()
    assert sample.solution == f"<answer>{solution}</answer>"


@pytest.mark.parametrize(
    ("options", "expected", "labels"),
    [
        (None, (), Labels.NONE),
        ([], (), Labels.NONE),
        ("", (), Labels.NONE),
        ("[]", (), Labels.NONE),
        ("None", (), Labels.NONE),
        (["red", "blue"], ("A. red", "B. blue"), Labels.NONE),
        ([3, 4.5], ("A. 3", "B. 4.5"), Labels.NONE),
        (["(A) red", "(B) blue"], ("A. red", "B. blue"), Labels.LETTERS),
        (["a: red", "b: blue"], ("A. red", "B. blue"), Labels.LETTERS),
        (["1. red", "2. blue"], ("A. red", "B. blue"), Labels.NUMBERS),
        (["1.5 m", "2.5 m"], ("A. 1.5 m", "B. 2.5 m"), Labels.NONE),
        ({"B": "blue", "A": "red"}, ("A. red", "B. blue"), Labels.LETTERS),
        ({"A": "red", "B": "blue", "C": None}, ("A. red", "B. blue"), Labels.LETTERS),
        ({"label": ["A", "B"], "text": ["red", "blue"]}, ("A. red", "B. blue"), Labels.LETTERS),
        ('["A. red", "B. it\'s"]', ("A. red", "B. it's"), Labels.LETTERS),
        ("['A. red', \"B. it's\"]", ("A. red", "B. it's"), Labels.LETTERS),
        ("{'A': 'red', 'B': 'blue'}", ("A. red", "B. blue"), Labels.LETTERS),
    ],
)
def test_options_of_every_layout(options: Any, expected: tuple[str, ...], labels: Labels) -> None:
    assert read_options(options) == (expected, labels)


@pytest.mark.parametrize(
    "options",
    [
        "__import__('os').system('true')",
        "[" * 5000,
        "x" * 70_000,
        7,
        [["a"]],
        ["a", ""],
        [True, False],
        ["x"] * 27,
        ["B. x", "C. y"],
        ["B. x", "A. y"],
        ["A. x", "B. y", "z"],
        {"first": "x", "second": "y"},
        {"a": "x", "A": "y"},
    ],
)
def test_options_with_no_one_reading_are_refused(options: Any) -> None:
    with pytest.raises(OptionsError, match="options"):
        read_options(options)
    assert bad(options=options).reason is RejectReason.BAD_ROW


@pytest.mark.parametrize(
    ("options", "solution", "letter"),
    [
        (["cat", "dog"], "B", "B"),
        (["cat", "dog"], "(b)", "B"),
        (["cat", "dog"], "<answer> dog </answer>", "B"),
        (["cat", "dog"], 1, "B"),
        (["4", "7"], 7, "B"),
        (["1. cat", "2. dog"], "2", "B"),
        (["1. cat", "2. dog"], 2, "B"),
        (["A", "B"], "B", "B"),
    ],
)
def test_an_option_by_letter_text_or_number(options: list[str], solution: Any, letter: str) -> None:
    assert good(options=options, solution=solution).reference == letter


@pytest.mark.parametrize(
    ("options", "solution"),
    [
        (["1", "0"], 0),  # index 0 is option A, text "0" is option B
        (["cat", "dog"], 2),
        (["cat", "dog"], -1),
        (["B", "A"], "B"),  # a letter that the pool did not print, or the text of option A
        (["cat", "dog"], True),
        (["cat", "dog"], None),
        (["cat", "dog"], ""),
        (["cat", "dog"], "<answer></answer>"),
        (["cat", "dog"], "<answer>A</answer><answer>B</answer>"),
        (["cat", "dog"], float("nan")),
        (["cat", "dog"], {"A": 1}),
    ],
)
def test_references_with_no_one_reading(options: list[str], solution: Any) -> None:
    assert bad(options=options, solution=solution).reason is RejectReason.BAD_REFERENCE


@pytest.mark.parametrize(
    "path",
    ["../x.mp4", "a/../../x", "/etc/passwd", "C:\\x.mp4", "http://h/x.mp4", "a\x00b", "a\nb", "x" * 5000],
)
def test_paths_that_could_leave_their_root(path: str) -> None:
    assert bad(path=path).reason is RejectReason.UNSAFE_PATH


def test_an_absolute_path_below_the_media_root_is_made_relative() -> None:
    row = Normaliser(SPEC, Path("/data"))(0, ROW | {"path": "/data/a/b.mp4"})
    assert isinstance(row, Sample) and row.path == "a/b.mp4"
    out = Normaliser(SPEC, Path("/data"))(0, ROW | {"path": "/data/../etc/passwd"})
    assert isinstance(out, BadRow) and out.reason is RejectReason.UNSAFE_PATH


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"problem": None}, "problem"),
        ({"problem": "  "}, "problem"),
        ({"problem": 5}, "problem"),
        ({"problem": "x" * 70_000}, "problem"),
        ({"problem": "\udcff"}, "problem"),
        ({"problem_type": "essay"}, "problem_type"),
        ({"problem_type": None}, "problem_type"),
        ({"data_type": "frame"}, "data_type"),
        ({"path": ""}, "path"),
        ({"path": 3}, "path"),
        ({"options": ["A. one"]}, "at least 2 options"),
        ({"problem_id": [1]}, "problem_id"),
        ({"problem_id": "a\nb"}, "problem_id"),
        ({"data_type": "text"}, "text"),
    ],
)
def test_a_bad_field_is_named_with_what_was_got(changes: dict[str, Any], word: str) -> None:
    row = bad(**changes)
    assert row.reason is RejectReason.BAD_ROW
    assert word in row.detail
    row.model_dump_json()


def test_a_number_keeps_its_printed_form(tmp_path: Path) -> None:
    path = tmp_path / "pool.jsonl"
    rows = ['"solution": 1.50', '"solution": 4', '"solution": "1.50"']
    base = '{"problem_id": %d, "problem": "?", "data_type": "text", "problem_type": "numerical", %s}\n'
    path.write_text("".join(base % (i, row) for i, row in enumerate(rows)))
    assert [r.solution for r in opened(path).rows() if isinstance(r, Sample)] == [
        "<answer>1.50</answer>",
        "<answer>4</answer>",
        "<answer>1.50</answer>",
    ]


def test_repeated_ids(tmp_path: Path) -> None:
    other = ROW | {"problem": "Another?"}
    path = write(tmp_path / "pool.json", [ROW, other, ROW, other, ROW | {"problem_id": 8}])
    source = opened(path)
    rows = list(source.rows())
    ids = [row.sample_id for row in rows]
    assert ids[0] == "pool/7" and ids[4] == "pool/8"
    assert ids[1].startswith("pool/7#") and len(ids[1]) == len("pool/7#") + 8
    assert [getattr(row, "reason", None) for row in rows] == [
        None, None, RejectReason.DUPLICATE_ID, RejectReason.DUPLICATE_ID, None,
    ]  # fmt: skip
    assert len(set(ids)) == 5
    assert [row.sample_id for row in source.rows()] == ids


def digest(source: Source) -> PoolDigest:
    found = PoolDigest()
    for row in source.rows():
        found.update(row)
    return found


def test_the_digest_is_that_of_the_rows(tmp_path: Path) -> None:
    source = opened(write(tmp_path / "pool.json", [ROW, {"x": 1}]))
    before = digest(source)
    assert before.rows == 2 and digest(source).hexdigest() == before.hexdigest()
    changed = opened(write(tmp_path / "other.json", [ROW | {"problem": "!"}, {"x": 1}]))
    assert digest(changed).hexdigest() != before.hexdigest()
    packed = opened(write(tmp_path / "pool.json.gz", [ROW, {"x": 1}]))
    assert digest(packed).hexdigest() == before.hexdigest()


def test_limit_folder_glob_and_pool_order(tmp_path: Path) -> None:
    for name in ("b.json", "a.json", "c.json.gz"):
        write(tmp_path / "pools" / name, [ROW | {"problem_id": f"{name}-{i}"} for i in range(2)])
    (tmp_path / "pools" / "notes.txt").write_text("no pool")
    folder = opened(tmp_path / "pools")
    rows = list(folder.rows())
    assert [r.problem_id for r in rows] == [
        f"{n}-{i}" for n in ("a.json", "b.json", "c.json.gz") for i in (0, 1)
    ]
    assert [r.row for r in rows] == [0, 1, 2, 3, 4, 5]
    assert folder.media_root == tmp_path / "pools"
    assert len(list(opened(tmp_path / "pools" / "*.json").rows())) == 4
    assert len(list(opened(tmp_path / "pools", limit=3).rows())) == 3
    specs = [
        SourceSpec(name=n, kind="video-r1", path=f"pools/{n}.json", media_root="media") for n in ("b", "a")
    ]
    assert [r.sample_id for r in read_pool(specs, base=tmp_path)] == [
        "b/b.json-0", "b/b.json-1", "a/a.json-0", "a/a.json-1",
    ]  # fmt: skip
    assert open_source(specs[0], base=tmp_path).media_root == tmp_path / "media"


def test_files_that_are_not_there_or_not_whole(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="no such file"):
        opened(tmp_path / "none.json")
    (tmp_path / "empty").mkdir()
    with pytest.raises(SourceError, match="no pool file"):
        opened(tmp_path / "empty")
    cut = tmp_path / "cut.json.gz"
    cut.write_bytes(gzip.compress(json.dumps([ROW] * 50).encode())[:-20])
    with pytest.raises(SourceError, match=r"byte \d+"):
        list(opened(cut).rows())


def test_a_gzip_bomb_is_refused(tmp_path: Path) -> None:
    bomb = tmp_path / "bomb.json.gz"
    with gzip.open(bomb, "wb", compresslevel=9) as file:
        for _ in range(80):
            file.write(b" " * (1 << 20))
    with pytest.raises(SourceError, match="gzip bomb"):
        list(opened(bomb).rows())


STRINGS = {k: str(v) for k, v in ROW.items()} | {"reward": "1.0", "select": "True"}


def _release(folder: Path, stem: str, parts: list[int], of: int) -> None:
    for part in parts:
        rows = [STRINGS | {"problem_id": f"{part}-{i}"} for i in range(2)]
        write(folder / f"{stem}.part{part}of{of}.json.gz", rows)


def test_official_parts_in_order_with_every_value_a_string(tmp_path: Path) -> None:
    _release(tmp_path, "VideoP2R-263k_rl", [10, 2, 1, *range(3, 10)], 10)
    rows = list(opened(tmp_path, kind="official").rows())
    assert [r.problem_id for r in rows] == [f"{p}-{i}" for p in range(1, 11) for i in (0, 1)]
    assert isinstance(rows[0], Sample)
    assert rows[0].options == ("A. cat", "B. dog", "C. cow")
    one_part = tmp_path / "VideoP2R-263k_rl.part3of10.json.gz"
    assert len(list(opened(one_part, kind="official").rows())) == 20


def test_official_parts_that_do_not_make_a_release(tmp_path: Path) -> None:
    _release(tmp_path / "gap", "x_sft", [1, 3], 3)
    with pytest.raises(SourceError, match=r"missing: x_sft\.part2of3\.json\.gz"):
        opened(tmp_path / "gap", kind="official")
    _release(tmp_path / "two", "x_sft", [1], 1)
    _release(tmp_path / "two", "x_rl", [1], 1)
    with pytest.raises(SourceError, match="several releases"):
        opened(tmp_path / "two", kind="official")
    assert len(list(opened(tmp_path / "two" / "x_rl.*", kind="official").rows())) == 2
    write(tmp_path / "none" / "x.json", [ROW])
    with pytest.raises(SourceError, match="part<N>of<M>"):
        opened(tmp_path / "none", kind="official")


@pytest.mark.parametrize("layout", ["jsonl", "parquet", "folder"])
def test_a_data_set_with_columns_of_its_own(tmp_path: Path, layout: str) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = [
        {"qid": i, "q": "Which?", "choices": ["cat", "dog"], "label": i, "clip": f"{i}.mp4"} for i in range(2)
    ]
    if layout == "jsonl":
        path = tmp_path / "mine.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        path = tmp_path / "mine.parquet"
        pq.write_table(pa.Table.from_pylist(rows), path)
    columns = ColumnMapping(
        problem_id="qid", problem="q", options="choices", solution="label", path="clip",
        problem_type=None, data_type=None, data_source=None,
    )  # fmt: skip
    spec = {"kind": "dataset", "columns": columns, "problem_type": "multiple choice", "data_type": "video"}
    source = opened(tmp_path if layout == "folder" else path, **spec)
    got = [row for row in source.rows() if isinstance(row, Sample)]
    assert [(s.sample_id, s.reference, s.path) for s in got] == [
        ("pool/0", "A", "0.mp4"),
        ("pool/1", "B", "1.mp4"),
    ]
    assert source.media_root == tmp_path
    with pytest.raises(SourceError, match="no column for problem: problem"):
        list(opened(path, kind="dataset").rows())


def test_a_data_set_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="no such file"):
        opened(tmp_path / "none.parquet", kind="dataset")


def test_the_demo_world(tmp_path: Path) -> None:
    spec = SourceSpec(name="demo", kind="demo", demo=DemoSpec(rows=6))
    source = open_source(spec, base=tmp_path, demo_root=tmp_path / "world")
    rows = list(source.rows())
    assert len(rows) == 6 and all(isinstance(row, Sample) for row in rows)
    root = source.media_root
    assert root is not None
    assert all((root / row.path).is_file() for row in rows if isinstance(row, Sample) and row.path)


@pytest.mark.parametrize(
    ("name", "rows", "fields"),
    [
        ("videor1_train_readme_row", 1, {}),
        ("twgrpo_eval_mmvu", 170, {"media_root": "/MMVU", "columns": ColumnMapping(path="video")}),
        ("twgrpo_eval_videomme", 200, {"media_root": "/videoMME", "columns": ColumnMapping(path="video")}),
    ],
)
@pytest.mark.parametrize("kind", ["video-r1", "dataset"])
def test_real_rows(name: str, rows: int, fields: dict[str, Any], kind: str) -> None:
    folder = samples_dir()
    if folder is None:
        pytest.skip("no shared samples here")
    got = list(opened(folder / f"{name}.jsonl", kind=kind, **fields).rows())
    assert len(got) == rows
    assert [row for row in got if isinstance(row, BadRow)] == []
