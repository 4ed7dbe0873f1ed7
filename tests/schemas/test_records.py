"""Paths, solutions, columns and request keys."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from videop2r_data.schemas.calls import MediaRecord, Message, Request, SamplingParams
from videop2r_data.schemas.rows import CONFIGS, arrow_schema, feature_info
from videop2r_data.schemas.sample import safe_relative_path, strip_answer_tag
from videop2r_data.schemas.verdict import RejectReason, Stage, reasons_of


@pytest.mark.parametrize(
    ("path", "safe"),
    [
        ("./a/b.mp4", "a/b.mp4"),
        ("a//b", "a/b"),
        ("a/./b", "a/b"),
        ("..a/b..", "..a/b.."),
        ("é 日.mp4", "é 日.mp4"),
    ],
)
def test_paths_are_normalised(path: str, safe: str) -> None:
    assert safe_relative_path(path) == safe
    assert safe_relative_path(safe) == safe


@pytest.mark.parametrize(
    "path",
    [
        "",
        ".",
        "./",
        "..",
        "a/../b",
        "../a",
        "a/..",
        "/a",
        "//a",
        "a\\b",
        "..\\a",
        "C:/a",
        "c:\\a",
        "\\\\host\\a",
        "a\x00b",
        "a\nb",
        "a\x1fb",
        "http://h/a",
        "file:///etc/passwd",
        "s3://b/a",
    ],
)
def test_paths_that_could_leave_their_root_are_refused(path: str) -> None:
    with pytest.raises(ValueError, match="media path"):
        safe_relative_path(path)


@pytest.mark.parametrize(
    ("solution", "text"),
    [
        ("<answer> A </answer>", "A"),
        ("A", "A"),
        ("<answer>A", "<answer>A"),
        (" <answer>\nx\n</answer> ", "x"),
    ],
)
def test_the_answer_tag_is_taken_off_once(solution: str, text: str) -> None:
    assert strip_answer_tag(solution) == text


@pytest.mark.parametrize("config", list(CONFIGS))
def test_the_columns_of_arrow_datasets_and_the_card_are_the_same(config: str) -> None:
    from datasets import Features

    schema = arrow_schema(CONFIGS[config])
    assert schema.names == list(CONFIGS[config].model_fields)
    assert Features.from_arrow_schema(schema) == Features._from_yaml_list(feature_info(CONFIGS[config]))


RECORD = MediaRecord(
    data_type="video",
    frames_sha256="0" * 64,
    count=2,
    width=56,
    height=28,
    indices=(0, 5),
    times_s=(0.0, 1.0),
    source_fps=5.0,
    source_frames=10,
    duration_s=2.0,
    source_width=100,
    source_height=50,
    file_sha256="1" * 64,
    file_bytes=1000,
    sampler="pyav-gop/1",
)


def test_a_record_from_before_times_were_noted_is_read_and_its_key_is_the_same() -> None:
    """`times` and `missing` came later: an old journal has neither, and no request is paid again."""
    old = {k: v for k, v in RECORD.model_dump(mode="json").items() if k not in ("times", "missing")}
    read = MediaRecord.model_validate(old)
    assert (read.times, read.missing) == (None, None)
    noted = RECORD.model_copy(update={"times": "exact", "missing": 0.0})
    messages = (Message("user", "u", media=True),)
    keys = {
        Request("generate", "m", messages, media=one, media_encoding="jpeg-95").key for one in (read, noted)
    }
    assert keys == {"4590325a5f0caffb5fc3f3a3609653474bc7f7ecd9389d46286588a7a50a1cd2"}


REQUEST = Request(
    "generate",
    "m",
    (Message("system", "s"), Message("user", "u", media=True)),
    SamplingParams(),
    RECORD,
    "jpeg-95",
)


@pytest.mark.parametrize(
    "change",
    [
        {"purpose": "judge"},
        {"model": "n"},
        {"messages": (Message("user", "u", media=True),)},
        {"messages": (Message("system", "s"), Message("user", "u"))},
        {"messages": (Message("system", "s"), Message("user", "v", media=True))},
        {"messages": (Message("user", "s"), Message("user", "u", media=True))},
        {"params": SamplingParams(temperature=0.1)},
        {"params": SamplingParams(max_tokens=7)},
        {"params": SamplingParams(top_p=0.5)},
        {"params": SamplingParams(seed=0)},
        {"media": None},
        {"media_encoding": "png"},
        {"variant": "x"},
        *(
            {"media": RECORD.model_copy(update=u)}
            for u in (
                {"data_type": "image"},
                {"frames_sha256": "2" * 64},
                {"indices": (0, 6)},
                {"times_s": (0.0, 1.5)},
            )
        ),
    ],
)
def test_what_shapes_an_answer_changes_the_key(change: dict[str, Any]) -> None:
    assert replace(REQUEST, **change).key != REQUEST.key


@pytest.mark.parametrize(
    "change", [{"file_sha256": "3" * 64}, {"file_bytes": 1}, {"sampler": "decord/1"}, {"source_width": 9}]
)
def test_what_does_not_shape_an_answer_leaves_the_key(change: dict[str, Any]) -> None:
    other = replace(REQUEST, media=RECORD.model_copy(update=change))
    assert other.key == REQUEST.key and len(other.key) == 64 and int(other.key, 16)


def test_the_key_of_a_known_request_never_changes() -> None:
    plain = Request("judge", "m", (Message("user", "u"),))
    assert plain.key == replace(plain, media_encoding="png").key
    assert plain.key == "fd76934db5f0378aa8b8549e3bd00a6757636490da18a7c6a8e3187490575250"


def test_every_reason_belongs_to_a_stage_and_the_stages_are_told_apart() -> None:
    assert frozenset().union(*(reasons_of(stage) for stage in Stage)) == frozenset(RejectReason)
    calls = {r.value for r in reasons_of(Stage.GENERATE)}
    assert {"call_failed", "call_refused", "completion_cut", "content_filtered"} <= calls
    assert {r.value for r in reasons_of(Stage.JUDGE)} == calls | {
        "insufficient",
        "no_verdict",
        "contradicted",
        "unsupported",
        "answered_blind",
    }
    verify = {r.value for r in reasons_of(Stage.VERIFY)}
    assert {"low_score", "leaked_answer", "hollow_observation", "unclosed_tag", "too_long"} <= verify
    assert not verify & calls and "media_missing" not in verify
