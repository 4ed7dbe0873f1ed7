"""Ids in file names: each inside its namespace, and unknown where a name says none."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests import shared
from videop2r_data.builders.overlap.identity import Identity, load_namespaces
from videop2r_data.errors import ConfigError
from videop2r_data.schemas import DataType, ProblemType, Sample

SPACES = load_namespaces()


def row(path: str, data_source: str = "", source: str = "pool") -> Sample:
    return Sample(
        sample_id=f"{source}/1",
        problem_id="1",
        problem="What happens?",
        problem_type=ProblemType.FREE_FORM,
        data_type=DataType.VIDEO,
        solution="a",
        path=path,
        data_source=data_source,
        source=source,
        row=0,
    )


def told(path: str, data_source: str = "", source: str = "pool") -> list[str]:
    return [f"{one.namespace}:{one.id}" for one in SPACES.identities(row(path, data_source, source))]


@pytest.mark.parametrize(
    ("path", "data_source", "wanted"),
    [
        ("LLaVA-Video-178K/videos/youtube_video_2024/ytb_aB3dE6gH9jK.mp4", "", ["youtube:aB3dE6gH9jK"]),
        ("academic_source/activitynet/v_aB3dE6gH9jK.mp4", "", ["youtube:aB3dE6gH9jK"]),
        ("k/aB3dE6gH9jK_000012_000022.mp4", "", ["youtube:aB3dE6gH9jK"]),
        ("Video-MME/data/ab3de6gh9jk.mp4", "", ["youtube:ab3de6gh9jk"]),
        ("youcook2/415/aB3dE6gH9jK/split_1.mp4", "", ["youtube:aB3dE6gH9jK"]),
        ("1.mp4", "https://www.youtube.com/watch?list=PL_abc&v=aB3dE6gH9jK&index=3", ["youtube:aB3dE6gH9jK"]),
        ("1.mp4", "https://youtu.be/aB3dE6gH9jK?si=x", ["youtube:aB3dE6gH9jK"]),
        ("CLEVRER/train/video_00042.mp4", "", ["clevrer:42"]),
        ("clevrer/video_validation/video_12345.mp4", "", ["clevrer:12345"]),
        ("perception/videos/video_12345.mp4", "", ["perception-test:12345"]),
        ("videos/video_12345.mp4", "PerceptionTest", ["perception-test:12345"]),
        ("star/Charades_v1_480/AB1CD.mp4", "", ["charades:AB1CD"]),
        ("sta/sta_video_segment/AB1CD_3.5_10.mp4", "", ["charades:AB1CD"]),
        ("NExTVideo/1164/1234567890.mp4", "", ["vidor:1234567890"]),
        ("any/scene0001_02.mp4", "", ["scannet:scene0001_02"]),
        ("scannetpp/0123456789.mp4", "", ["scannetpp:0123456789"]),
        ("arkitscenes/41000001.mp4", "", ["arkitscenes:41000001"]),
        ("ssv2_video/41000.webm", "", ["something-something:41000"]),
        ("tvqa/frames_fps3_hq/s01e02_seg01_clip_00/00001.jpg", "", ["tvqa:s01e02_seg01_clip_00"]),
        ("tvqa/frames_fps3_hq/met_s01e02_seg01_clip_00.mp4", "", ["tvqa:met_s01e02_seg01_clip_00"]),
        ("nturgbd/S001C002P003R001A002_rgb.avi", "", ["ntu-rgbd:S001C002P003R001A002"]),
        ("x/Film.Name.2001__#0-05-55_0-08-54_label_B1-0-0.mp4", "", ["xd-violence:Film.Name.2001__#0-05-55_0-08-54"]),
        ("MMVU/videos/Some_Field/7.mp4", "", ["mmvu:Some_Field/7"]),
        ("tempcompass/videos/1234567_reverse.mp4", "", ["tempcompass:1234567"]),
        ("train2014/COCO_train2014_000000000042.jpg", "", ["coco:000000000042"]),
        ("coco/val2017/000000000042.jpg", "", ["coco:000000000042"]),
        # nothing is guessed: no set around the name, or words of eleven letters
        ("videos/video_12345.mp4", "", []),
        ("clips/AB1CD.mp4", "", []),
        ("clips/some-clip-1.mp4", "", []),
        ("clips/41000001.mp4", "", []),
        ("clips/" + "a" * 400 + ".mp4", "", []),
    ],
)  # fmt: skip
def test_names(path: str, data_source: str, wanted: list[str]) -> None:
    assert told(path, data_source) == wanted


def test_the_cut_in_a_name_is_in_seconds() -> None:
    assert SPACES.identities(row("k/aB3dE6gH9jK_60.0_210.5.mp4")) == (
        Identity("youtube", "aB3dE6gH9jK", 60.0, 210.5),
    )


def test_a_row_may_say_two_ids() -> None:
    both = told("MMVU/videos/Field/7.mp4", "https://www.youtube.com/watch?v=aB3dE6gH9jK")
    assert both == ["youtube:aB3dE6gH9jK", "mmvu:Field/7"]


def test_splits_are_told_by_numbers_before_folders() -> None:
    def split(path: str) -> str:
        one = row(path)
        return SPACES.split(one, SPACES.identities(one)[0])

    assert split("clevrer/video_12345.mp4") == "validation"
    assert split("clevrer/train/video_15000.mp4") == "test"
    assert split("perception/valid/video_1.mp4") == "validation"
    assert split("perception/videos/video_1.mp4") == ""


def test_a_table_of_ones_own_comes_first(tmp_path: Path) -> None:
    file = tmp_path / "names.yaml"
    file.write_text("namespaces:\n- {name: mine, rules: [{where: [own*], read: 'c(?P<id>\\d+)'}]}\n")
    found = load_namespaces(file).identities(row("own-clips/c12.mp4"))
    assert found == (Identity("mine", "12"),)
    file.write_text("namespaces:\n- {name: mine, rules: [{read: 'c(\\d+)'}]}\n")
    with pytest.raises(ConfigError, match="no group `id`"):
        load_namespaces(file)


ROWS = {
    "videor1_eval_mvbench": "mvbench", "videor1_eval_videomme": "video-mme", "videor1_eval_vsibench": "vsi",
    "videor1_eval_mmvu": "mmvu", "videor1_eval_videommmu": "video-mmmu", "tvgbench": "tvgbench",
    "nextgqa_test": "nextgqa", "official_longvideobench_val": "longvideobench",
}  # fmt: skip


@pytest.mark.parametrize("name", ROWS)
def test_every_real_row_has_an_id(name: str) -> None:
    folder = shared.samples_dir()
    if folder is None:
        pytest.skip("no real rows on this machine")
    for line in (folder / f"{name}.jsonl").read_text().splitlines():
        said = json.loads(line)
        path = said.get("path") or said.get("video_path") or said.get("video")
        assert told(path.removeprefix("./"), said.get("data_source") or "", ROWS[name]), path
