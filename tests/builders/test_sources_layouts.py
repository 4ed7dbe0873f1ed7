"""Pools as people have them: tables, JSON, Parquet, folders, embedded media; and files that are none of these."""

from __future__ import annotations

import codecs
import gzip
import io
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from videop2r_data.builders.sources import Source, open_source
from videop2r_data.errors import SourceError
from videop2r_data.schemas import BadRow
from videop2r_data.schemas.recipe import ColumnMapping, SourceSpec
from videop2r_data.schemas.sample import Sample

COLUMNS = ColumnMapping(problem="question", solution="answer", path="video", options="choices")
ROWS: list[dict[str, Any]] = [
    {"question": "Which one, then?", "answer": "dog", "video": "a.mp4", "choices": ["cat", "dog"]},
    {"question": 'Who said "no"?', "answer": "B", "video": "b/c.mp4", "choices": ["he", "she", "they"]},
]
WANTED = [("Which one, then?", "B", "a.mp4"), ('Who said "no"?', "B", "b/c.mp4")]


def opened(path: Path, base: Path | None = None, **settings: Any) -> Source:
    given = {"kind": "dataset", "columns": COLUMNS, "problem_type": "mcq", "data_type": "video"} | settings
    spec = SourceSpec(name="pool", path=str(path), **given)
    root = base or path.parent
    return open_source(spec, base=root, demo_root=root / "work" / "demo")


def good(source: Source) -> list[tuple[str, str, str]]:
    rows = list(source.rows())
    assert [r for r in rows if isinstance(r, BadRow)] == []
    return [(r.problem, r.reference, r.path) for r in rows if isinstance(r, Sample)]


def faults(source: Source) -> list[str]:
    return [row.detail for row in source.rows() if isinstance(row, BadRow)]


def table(delimiter: str = ",", end: str = "\n") -> str:
    cells = [["question", "answer", "video", "choices"]]
    cells += [[r["question"], r["answer"], r["video"], json.dumps(r["choices"])] for r in ROWS]
    return "".join(delimiter.join(f'"{c.replace(chr(34), chr(34) * 2)}"' for c in row) + end for row in cells)


def parquet(rows: list[dict[str, Any]]) -> bytes:
    sink = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), sink)
    return sink.getvalue()


def lines(rows: list[dict[str, Any]]) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("pool.csv", table().encode()),
        ("pool.csv", table(";", "\r\n").encode()),
        ("pool.csv", table("\t").encode("utf-8-sig")),
        ("pool.csv", table(end="\r").encode()),
        ("pool.csv", ("\n\n" + table() + "\n\n").encode()),
        ("pool.csv", table("\t", "\r\n").encode("utf-16")),
        ("pool.csv", table().encode("utf-32")),
        ("pool.csv.gz", gzip.compress(table().encode(), mtime=0)),
        ("pool.csv", gzip.compress(table().encode("utf-16"), mtime=0)),
        ("pool.tsv", table("\t").encode()),
        ("pool.tsv.gz", gzip.compress(table("\t").encode(), mtime=0)),
        ("pool.CSV", table().encode()),
        ("pool.json", json.dumps(ROWS).encode()),
        ("pool.json", json.dumps(ROWS, indent=2).encode("utf-8-sig")),
        ("pool.json", json.dumps(ROWS).encode("utf-16")),
        ("pool.jsonl", lines(ROWS)),
        ("pool.jsonl", lines(ROWS).replace(b"\n", b"\r\n").rstrip()),
        ("pool.ndjson", codecs.BOM_UTF16_BE + lines(ROWS).decode().encode("utf-16-be")),
        ("pool.jsonl.gz", gzip.compress(lines(ROWS), mtime=0)),
        ("pool.parquet", parquet(ROWS)),
        ("pool.pq", parquet(ROWS)),
    ],
)
def test_files_of_every_kind_give_the_same_rows(tmp_path: Path, name: str, data: bytes) -> None:
    (tmp_path / name).write_bytes(data)
    source = opened(tmp_path / name)
    assert good(source) == WANTED
    assert source.media_root == tmp_path


@pytest.mark.parametrize("form", ["stream", "file"])
def test_arrow_in_both_forms(tmp_path: Path, form: str) -> None:
    made = pa.Table.from_pylist(ROWS)
    with pa.OSFile(str(tmp_path / "pool.arrow"), "wb") as sink:
        new = pa.ipc.new_stream if form == "stream" else pa.ipc.new_file
        with new(sink, made.schema) as writer:
            writer.write_table(made)
    assert good(opened(tmp_path / "pool.arrow")) == WANTED


FOREIGN: list[tuple[str, bytes, str]] = [
    ("p.csv", b"", "the file is empty"),
    ("p.json", b"", "the file is empty"),
    ("p.parquet", b"", "the file is empty"),
    ("p.csv.gz", gzip.compress(b"", mtime=0), "the file is empty"),
    ("p.csv", b"question,answer,video,choices\n", "the pool holds no row"),
    ("p.json", b"[]", "the pool holds no row"),
    ("p.parquet", parquet(ROWS)[:-30], "no whole Parquet file"),
    ("p.parquet", b"<!DOCTYPE html><html>", "a web page or JSON"),
    ("p.parquet", b"version https://git-lfs.github.com/spec/v1", "git lfs pull"),
    ("p.jsonl", b"  <!DOCTYPE HTML><html>404</html>", "a web page"),
    ("p.csv", b"<html><body>", "a web page"),
    ("p.csv", b"version https://git-lfs.github.com/spec/v1\noid", "git lfs pull"),
    ("p.csv", b"PK\x03\x04sheet", "an Excel sheet"),
    ("p.json", parquet(ROWS), r"ending \.parquet"),
    ("p.jsonl", lines(ROWS).decode().encode("utf-16-le"), "without a byte order mark"),
    ("p.json", json.dumps(ROWS).encode()[:-20], "ends inside this row"),
    ("p.csv", table().encode()[:-20], "ends inside of a quoted cell that began in the row at line 3"),
    ("p.csv.gz", gzip.compress(table().encode(), mtime=0)[:-12], "cut off"),
    ("p.json", json.dumps(ROWS).encode("utf-16")[:-1], "damaged or cut off"),
    ("p.xlsx", b"PK", r"file of type '\.xlsx', known are \.csv"),
    ("p.json", json.dumps({"version": 1, "data": ROWS}).encode(), r"in its field 'data'.*jq '\.\"data\"'"),
    ("p.json", json.dumps({"k1": ROWS[0], "k2": ROWS[1]}).encode(), r"around all rows, .*'k1'.*jq"),
    ("p.csv", b"q,a\n1,2\n", r"no column for problem: question, .*there are: q, a"),
]


@pytest.mark.parametrize(("name", "data", "message"), FOREIGN)
def test_files_that_are_no_pool_are_named_for_what_they_are(
    tmp_path: Path, name: str, data: bytes, message: str
) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(SourceError, match=r"(?s)" + message) as caught:
        list(opened(tmp_path / name).rows())
    assert name in str(caught.value) and "Features" not in str(caught.value)
    assert caught.value.hint


def test_a_bad_line_of_a_table_costs_itself(tmp_path: Path) -> None:
    path = tmp_path / "p.csv"
    good_line = b'Why?,dog,a.mp4,"[""cat"", ""dog""]"\n'
    path.write_bytes(
        b"question,answer,video,choices\n"
        + good_line
        + b"Why, then?,dog,a.mp4,[]\n"
        + b"Why?,dog\n"
        + b'"Why" not?,dog,a.mp4,x\n'
        + b"Why\x00?,dog,a.mp4,x\n"
        + "Wieso denn \xe4?,dog,a.mp4,x\n".encode("latin-1")
        + good_line
    )
    rows = list(opened(path).rows())
    assert [isinstance(row, Sample) for row in rows] == [True, False, False, False, False, False, True]
    assert [row.row for row in rows] == list(range(7))
    told = [row.detail for row in rows if isinstance(row, BadRow)]
    for detail, words in zip(
        told,
        ["line 3: 5 cells", "line 4: 2 cells, the header has 4", "line 5: not a row", "line 6: holds a NUL",
         "line 7: bytes that are no UTF-8"],
        strict=True,
    ):  # fmt: skip
        assert words in detail


def test_a_column_that_stands_twice_is_refused_where_it_is_used(tmp_path: Path) -> None:
    (tmp_path / "p.csv").write_text("question,answer,video,choices,answer,,\nWhy?,B,a.mp4,x|y,A,,\n")
    with pytest.raises(SourceError, match="column 'answer' stands there 2 times"):
        list(opened(tmp_path / "p.csv").rows())
    (tmp_path / "p.csv").write_text("question,answer,video,choices,note,note,\nWhy?,B,a.mp4,x|y,A,,\n")
    assert good(opened(tmp_path / "p.csv")) == [("Why?", "B", "a.mp4")]
    doubled = pa.Table.from_arrays(
        [pa.array(["Why?"]), pa.array(["B"]), pa.array(["C"])], ["question", "answer", "answer"]
    )
    pq.write_table(doubled, tmp_path / "p.parquet")
    free: dict[str, Any] = {
        "problem_type": "free-form",
        "data_type": "text",
        "columns": ColumnMapping(problem="question", solution="answer"),
    }
    with pytest.raises(SourceError, match="'answer' stands there 2 times"):
        list(opened(tmp_path / "p.parquet", **free).rows())


def test_mixed_types_and_missing_fields_across_rows(tmp_path: Path) -> None:
    rows = [
        {**ROWS[0], "id": 1},
        {**ROWS[1], "id": "x-2", "answer": 1.0, "choices": {"A": "he", "B": "she"}},
        {**ROWS[0], "id": None, "answer": ["dog"], "video": ["a.mp4"], "note": {"deep": [1, "x"]}},
        {**ROWS[0], "answer": 0, "choices": "cat | dog"},
    ]
    (tmp_path / "p.jsonl").write_bytes(lines(rows))
    found = list(opened(tmp_path / "p.jsonl", columns=COLUMNS.model_copy(update={"problem_id": "id"})).rows())
    assert [(r.problem_id, r.reference) for r in found if isinstance(r, Sample)] == [
        ("1", "B"), ("x-2", "B"), ("row-2", "B"), ("row-3", "A"),
    ]  # fmt: skip


@pytest.mark.parametrize("split", ["train", "validation"])
def test_a_folder_is_read_by_split(tmp_path: Path, split: str) -> None:
    for name, row in (("train-00000-of-00002", 0), ("train-00001-of-00002", 1), ("val-00000-of-00001", 1)):
        (tmp_path / "data").mkdir(exist_ok=True)
        (tmp_path / "data" / f"{name}.parquet").write_bytes(parquet([ROWS[row]]))
    (tmp_path / "README.md").write_text("---\nlicense: mit\n---\n")
    assert good(opened(tmp_path, base=tmp_path, split=split)) == (WANTED if split == "train" else WANTED[1:])
    with pytest.raises(SourceError, match="no split 'test'; there are: train, validation"):
        opened(tmp_path, base=tmp_path, split="test")


def test_folders_without_a_pool_and_with_several(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("x")
    with pytest.raises(SourceError, match=r"no data file in the folder \(.*\.csv.*there are: a\.txt"):
        opened(tmp_path, base=tmp_path)
    (tmp_path / "b.csv").write_text(table())
    assert good(opened(tmp_path, base=tmp_path)) == WANTED
    (tmp_path / "c.jsonl").write_bytes(lines(ROWS))
    with pytest.raises(SourceError, match=r"several kinds: b\.csv, c\.jsonl"):
        opened(tmp_path, base=tmp_path)
    assert good(opened(tmp_path / "*.csv", base=tmp_path)) == WANTED


def test_a_card_that_names_files_is_obeyed(tmp_path: Path) -> None:
    (tmp_path / "odd").mkdir()
    (tmp_path / "odd" / "here.jsonl").write_bytes(lines(ROWS))
    (tmp_path / "other.jsonl").write_bytes(lines(ROWS[:1]))
    config = "configs:\n- config_name: default\n  data_files:\n  - split: train\n    path: odd/here.jsonl\n"
    (tmp_path / "README.md").write_text(f"---\n{config}---\n")
    assert good(opened(tmp_path, base=tmp_path)) == WANTED


@pytest.mark.parametrize("several", [False, True])
def test_what_save_to_disk_wrote(tmp_path: Path, several: bool) -> None:
    import datasets

    made = datasets.Dataset.from_list(ROWS)
    saved = datasets.DatasetDict({"train": made, "extra": made.select([0])}) if several else made
    saved.save_to_disk(str(tmp_path / "set"))
    source = opened(tmp_path / "set", base=tmp_path)
    assert good(source) == WANTED and source.media_root == tmp_path / "set"
    if several:
        assert good(opened(tmp_path / "set", base=tmp_path, split="extra")) == WANTED[:1]
        with pytest.raises(SourceError, match="no split 'test'; there are: train, extra"):
            opened(tmp_path / "set", base=tmp_path, split="test")


def test_a_saved_set_names_files_beside_it_only(tmp_path: Path) -> None:
    import datasets

    datasets.Dataset.from_list(ROWS).save_to_disk(str(tmp_path / "set"))
    state = tmp_path / "set" / "state.json"
    for text in ('{"_data_files": [{"filename": "../x.arrow"}]}', '{"_data_files": []}', "{}", "no JSON"):
        state.write_text(text)
        with pytest.raises(SourceError, match=r"state\.json"):
            opened(tmp_path / "set", base=tmp_path)


def picture(shade: int, kind: str = "PNG") -> bytes:
    sink = io.BytesIO()
    Image.new("RGB", (32, 24), (shade, 0, 0)).save(sink, kind)
    return sink.getvalue()


@pytest.mark.parametrize("where", ["top", "split"])
@pytest.mark.parametrize("form", ["jsonl", "csv"])
def test_an_imagefolder(tmp_path: Path, where: str, form: str) -> None:
    folder = tmp_path / "train" if where == "split" else tmp_path
    (folder / "sub").mkdir(parents=True)
    for i in range(2):
        (folder / "sub" / f"{i}.png").write_bytes(picture(i))
    rows = [{"file_name": f"sub/{i}.png", "q": "Red?", "a": "yes"} for i in range(2)]
    text = (
        lines(rows).decode()
        if form == "jsonl"
        else "file_name,q,a\n" + "".join(f"{r['file_name']},Red?,yes\n" for r in rows)
    )
    (folder / f"metadata.{form}").write_text(text)
    for column in ("file_name", "image"):
        columns = ColumnMapping(problem="q", solution="a", path=column)
        source = opened(tmp_path, base=tmp_path, columns=columns, problem_type="OCR", data_type="image")
        assert good(source) == [("Red?", "yes", f"sub/{i}.png") for i in range(2)]
        assert source.media_root == folder


def embedded(tmp_path: Path, form: str) -> Source:
    images = [{"bytes": picture(1), "path": "../../evil.png"}, {"bytes": picture(2, "JPEG"), "path": None}]
    rows: list[dict[str, Any]] = [
        {"q": f"Red {i}?", "a": "yes", "image": image} for i, image in enumerate([*images, images[0]])
    ]
    if form == "parquet":
        (tmp_path / "p.parquet").write_bytes(parquet(rows))
        path = tmp_path / "p.parquet"
    elif form == "bytes":
        (tmp_path / "p.parquet").write_bytes(parquet([r | {"image": r["image"]["bytes"]} for r in rows]))
        path = tmp_path / "p.parquet"
    elif form == "list":
        (tmp_path / "p.parquet").write_bytes(parquet([r | {"image": [r["image"]]} for r in rows]))
        path = tmp_path / "p.parquet"
    else:
        import datasets

        features = datasets.Features(
            {"q": datasets.Value("string"), "a": datasets.Value("string"), "image": datasets.Image()}
        )
        path = tmp_path / "set"
        datasets.Dataset.from_list(rows, features=features).save_to_disk(str(path))
    columns = ColumnMapping(problem="q", solution="a", path="image")
    return opened(path, base=tmp_path, columns=columns, problem_type="OCR", data_type="image")


@pytest.mark.parametrize("form", ["parquet", "bytes", "list", "saved"])
def test_images_inside_of_the_rows_become_files_named_by_their_content(tmp_path: Path, form: str) -> None:
    source = embedded(tmp_path, form)
    rows = good(source)
    root = tmp_path / "work" / "embedded" / "pool"
    assert source.media_root == root
    paths = [path for _, _, path in rows]
    assert paths[0] == paths[2] != paths[1]
    assert [Path(p).suffix for p in paths] == [".png", ".jpg", ".png"]
    assert [(root / p).read_bytes() for p in paths[:2]] == [picture(1), picture(2, "JPEG")]
    assert sorted(p.name for p in root.rglob("*") if p.is_file()) == sorted({Path(p).name for p in paths})
    before = {p: p.stat().st_mtime_ns for p in root.rglob("*")}
    again = embedded(tmp_path, form)
    assert good(again) == rows
    assert {p: p.stat().st_mtime_ns for p in root.rglob("*")} == before
    (root / paths[1]).write_bytes(b"cut")
    good(embedded(tmp_path, form))
    assert (root / paths[1]).read_bytes() == picture(2, "JPEG")


def test_a_row_without_its_image_in_such_a_pool_is_told(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [
        {
            "q": "?",
            "a": "x",
            "image": {"bytes": picture(i), "path": "a.png"} if i else {"bytes": None, "path": "/etc/passwd"},
        }
        for i in (1, 0, 2)
    ]
    rows.append({"q": "?", "a": "x", "image": None})
    (tmp_path / "p.parquet").write_bytes(parquet(rows))
    columns = ColumnMapping(problem="q", solution="a", path="image")
    found = faults(opened(tmp_path / "p.parquet", columns=columns, problem_type="OCR", data_type="image"))
    assert len(found) == 2 and "holds a path" in found[0] and "is empty" in found[1]


def test_a_struct_with_paths_only_stays_with_the_files_beside_it(tmp_path: Path) -> None:
    rows = [{"q": "?", "a": "x", "image": {"bytes": None, "path": f"{i}.png"}} for i in range(2)]
    (tmp_path / "p.parquet").write_bytes(parquet(rows))
    columns = ColumnMapping(problem="q", solution="a", path="image")
    source = opened(tmp_path / "p.parquet", columns=columns, problem_type="OCR", data_type="image")
    assert [p for _, _, p in good(source)] == ["0.png", "1.png"] and source.media_root == tmp_path


def test_fields_inside_of_fields(tmp_path: Path) -> None:
    rows = [
        {"meta": {"id": i, "qa": {"q": "Which?", "a": "B"}}, "opts": {"A": "x", "B": "y"}, "v": "a.mp4"}
        for i in range(2)
    ]
    (tmp_path / "p.parquet").write_bytes(parquet(rows))
    columns = ColumnMapping(
        problem_id="meta.id", problem="meta.qa.q", solution="meta.qa.a", options="opts", path="v"
    )
    source = opened(tmp_path / "p.parquet", columns=columns)
    assert [r.sample_id for r in source.rows()] == ["pool/0", "pool/1"]


@pytest.mark.parametrize(
    ("write", "name"),
    [
        (lambda rows: lines(rows), "p.jsonl"),
        (lambda rows: parquet(rows), "p.parquet"),
        (
            lambda rows: (
                "question,answer,video,a0,a1,a2\n"
                + "".join(",".join(str(v if v is not None else "") for v in r.values()) + "\n" for r in rows)
            ).encode(),
            "p.csv",
        ),
    ],
    ids=["jsonl", "parquet", "csv"],
)
@pytest.mark.parametrize(("answer", "letter"), [("dog", "B"), ("B", "B"), ("b", "B"), (1, "B"), (0, "A")])
def test_options_in_columns_of_their_own(
    tmp_path: Path, write: Callable[[list[dict[str, Any]]], bytes], name: str, answer: Any, letter: str
) -> None:
    rows = [
        {
            "question": "?",
            "answer": a,
            "video": "a.mp4",
            "a0": "cat",
            "a1": "dog",
            "a2": "cow" if a == "cow" else None,
        }
        for a in (answer, 0 if isinstance(answer, int) else "cow")
    ]
    (tmp_path / name).write_bytes(write(rows))
    columns = COLUMNS.model_copy(update={"options": ("a0", "a1", "a2")})
    found = [r for r in opened(tmp_path / name, columns=columns).rows() if isinstance(r, Sample)]
    assert found[0].reference == letter and found[0].options == ("A. cat", "B. dog")


def test_a_gap_in_such_columns_and_a_column_that_is_not_there(tmp_path: Path) -> None:
    (tmp_path / "p.csv").write_text("question,answer,video,a0,a1,a2\n?,B,a.mp4,cat,,dog\n")
    columns = COLUMNS.model_copy(update={"options": ("a0", "a1", "a2")})
    assert '"a1" is empty and a later option is not' in faults(opened(tmp_path / "p.csv", columns=columns))[0]
    with pytest.raises(SourceError, match=r"no column for options: a3; there are: question, .*a2"):
        list(opened(tmp_path / "p.csv", columns=columns.model_copy(update={"options": ("a0", "a3")})).rows())


@pytest.mark.parametrize("name", ["p.csv", "p.tsv.gz", "p.json", "p.jsonl.gz", "p.parquet", "p.arrow"])
def test_damage_is_told_as_damage_and_never_as_a_bug(tmp_path: Path, name: str) -> None:
    sink = io.BytesIO()
    made = pa.Table.from_pylist(ROWS * 20)
    with pa.ipc.new_stream(sink, made.schema) as writer:
        writer.write_table(made)
    whole = {
        "p.csv": table().encode(),
        "p.tsv.gz": gzip.compress(table("\t").encode(), mtime=0),
        "p.json": json.dumps(ROWS * 20).encode(),
        "p.jsonl.gz": gzip.compress(lines(ROWS * 20), mtime=0),
        "p.parquet": parquet(ROWS * 20),
        "p.arrow": sink.getvalue(),
    }[name]
    chance = random.Random(name)
    path = tmp_path / name
    for _ in range(60):
        data = bytearray(whole[: chance.randrange(len(whole))] if chance.random() < 0.4 else whole)
        for _ in range(chance.randrange(4)):
            if data:
                data[chance.randrange(len(data))] = chance.randrange(256)
        path.write_bytes(data)
        try:
            for row in opened(path).rows():
                row.model_dump_json()
        except SourceError as error:
            assert name in str(error)
