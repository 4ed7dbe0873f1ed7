"""Parts of clips in a pool: columns of seconds, whatever they hold."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from videop2r_data.builders.sources import open_source
from videop2r_data.schemas import BadRow, ColumnMapping, Extra, Focus, ProblemType, Recipe, Sample, SourceSpec

COLUMNS: dict[str, Any] = {
    "problem": "q",
    "solution": "a",
    "path": "v",
    "problem_type": None,
    "data_type": None,
}


def rows_of(folder: Path, rows: list[dict[str, Any]], **columns: Any) -> list[Sample | BadRow]:
    (folder / "pool.jsonl").write_text(
        "".join(json.dumps({"q": "?", "a": "2", "v": "a.mp4"} | r) + "\n" for r in rows)
    )
    return list(open_source(spec(**columns), base=folder).rows())


def spec(path: str = "pool.jsonl", medium: str = "video", **columns: Any) -> SourceSpec:
    mapping = ColumnMapping(**(COLUMNS | {"start": "s", "end": "e"} | columns))
    return SourceSpec(
        name="p", kind="dataset", path=path, columns=mapping, problem_type="numerical", data_type=medium
    )


@pytest.mark.parametrize(
    ("start", "end", "focus"),
    [
        (1.5, 3, (1.5, 3.0)),
        ("1.5", " 3 ", (1.5, 3.0)),
        (None, 3, (None, 3.0)),
        (2, None, (2.0, None)),
        ("", "", (None, None)),
        (0, 0.001, (0.0, 0.001)),
        ("1e1", 11, (10.0, 11.0)),
    ],
)
def test_seconds_are_numbers_or_texts_of_numbers(
    tmp_path: Path, start: Any, end: Any, focus: tuple[float | None, float | None]
) -> None:
    (row,) = rows_of(tmp_path, [{"s": start, "e": end}])
    assert isinstance(row, Sample) and row.focus == Focus(*focus)
    told = {name: value for name, value in zip(("start_s", "end_s"), focus, strict=True) if value is not None}
    assert {name: row.content()[name] for name in told} == told
    assert ("start_s" in row.content(), "end_s" in row.content()) == ("start_s" in told, "end_s" in told)


@pytest.mark.parametrize(
    ("start", "end", "told"),
    [
        ("soon", 3, "\"s\" is 'soon', seconds are needed"),
        (1, "0:03", "\"e\" is '0:03', seconds are needed"),
        (-1, 3, "\"s\" is '-1', seconds are needed: a number from 0 on"),
        (True, 3, "\"s\" is 'True', seconds are needed"),
        ([1, 2, 3], 3, "\"s\" is '<list>', seconds are needed"),
        ("nan", 3, "\"s\" is 'nan', seconds are needed"),
        ("1" * 400, None, '"s" is \'1111'),
        (1, math.inf, '"e" is inf, seconds are needed'),
        (3, 3, '"s": start_s 3 is not in [0, end_s 3)'),
        (4, 3, '"s": start_s 4 is not in [0, end_s 3)'),
        (0, 0, '"s": start_s 0 is not in [0, end_s 0)'),
    ],
)
def test_what_is_no_part_is_a_bad_row_with_its_field(tmp_path: Path, start: Any, end: Any, told: str) -> None:
    good, bad = rows_of(tmp_path, [{"s": 1, "e": 2}, {"s": start, "e": end}])
    assert isinstance(good, Sample) and isinstance(bad, BadRow)
    assert bad.reason == "bad_row" and bad.detail.startswith(told), bad.detail


def test_one_column_may_hold_both(tmp_path: Path) -> None:
    for columns in ({"start": "span", "end": None}, {"start": "span", "end": "span"}):
        found = rows_of(tmp_path, [{"span": [1, "2.5"]}, {"span": None}], **columns)
        assert [row.focus for row in found if isinstance(row, Sample)] == [Focus(1.0, 2.5), Focus()]


def test_texts_of_a_csv_file_are_seconds(tmp_path: Path) -> None:
    with (tmp_path / "pool.csv").open("w", newline="") as file:
        written = csv.writer(file)
        written.writerows(
            [["q", "a", "v", "s", "e"], ["?", "2", "a.mp4", "0.5", ""], ["!", "2", "a.mp4", "", "4"]]
        )
    found = open_source(spec("pool.csv"), base=tmp_path).rows()
    assert [row.focus for row in found if isinstance(row, Sample)] == [Focus(0.5, None), Focus(None, 4.0)]


def test_only_clips_have_parts(tmp_path: Path) -> None:
    (tmp_path / "pool.jsonl").write_text(json.dumps({"q": "?", "a": "2", "v": "a.png", "s": 1, "e": 2}))
    (bad,) = open_source(spec(medium="image"), base=tmp_path).rows()
    assert isinstance(bad, BadRow) and "a part of a clip, and this is image" in bad.detail
    with pytest.raises(ValidationError, match="part of a clip"):
        Sample(
            sample_id="p/1", problem_id="1", problem="?", problem_type=ProblemType.NUMERICAL,
            data_type="image", solution="<answer>2</answer>", path="a.png", source="p", row=0, start_s=1.0,
        )  # fmt: skip


def test_settings_without_parts_are_written_as_ever() -> None:
    assert not {"start", "end"} & ColumnMapping().model_dump().keys()
    plain = {"name": "x", "generate": {"backend": {"kind": "demo", "model": "m"}}}
    without = Recipe.model_validate(
        plain | {"sources": [{"name": "p", "kind": "video-r1", "path": "a.json"}]}
    )
    assert without.extra == Extra()
    mapped = without.sources[0].model_copy(update={"columns": ColumnMapping(end="e")})
    assert without.model_copy(update={"sources": (mapped,)}).extra == Extra(parts=True)
