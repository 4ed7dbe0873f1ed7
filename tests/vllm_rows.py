"""A small pool of text, image and video questions for the vLLM tests; real ones where they lie."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from PIL import Image

from tests.media.clips import picture, write_clip
from tests.pools import read_pool
from tests.shared import media_dir, samples_dir
from videop2r_data.builders.steps import RequestBuilder
from videop2r_data.media import sample_media
from videop2r_data.schemas.calls import Frames, Request
from videop2r_data.schemas.recipe import Recipe
from videop2r_data.schemas.sample import Sample

CLIPS = ("video1.mp4", "fire2.mp4", "flipping_a_pancake.mkv", "h265_video.mp4", "video_90.mov")
"""An odd rate, a rotated one of variable rate, one without a frame count, ten frames, three frames."""


@dataclass(frozen=True, slots=True)
class Call:
    """One request with its pixels, as the build would make it."""

    sample: Sample
    request: Request
    frames: Frames | None


def write_pool(folder: Path) -> Path:
    """`pool.json` in the layout of Video-R1, its media beside it.

    Two text rows, two image rows, and a video row per clip.
    """
    folder.mkdir(parents=True, exist_ok=True)
    clips = _copy_clips(folder)
    Image.fromarray(picture(3, 210, 150)).save(folder / "wide.png")
    Image.fromarray(picture(5, 90, 260)).save(folder / "tall.jpg", quality=95)
    choices, numbers = _choices(len(clips)), _numbers()
    rows = [_row(i, "video", path=clip, **choices[i]) for i, clip in enumerate(clips)]
    rows += [_row(100 + i, "image", path=p, **numbers[i]) for i, p in enumerate(("wide.png", "tall.jpg"))]
    rows += [_row(200 + i, "text", path="", **numbers[2 + i]) for i in range(2)]
    pool = folder / "pool.json"
    pool.write_text(json.dumps(rows))
    return pool


def make_recipe(pool: Path, backend: dict[str, Any], **generate: Any) -> Recipe:
    """A recipe over that pool, one model in both places; lossless pictures: all backends see the same pixels.

    Args:
        pool: from `write_pool`.
        backend: settings of generator and judge.
        generate: further settings of step 1.
    """
    return Recipe.model_validate(
        {
            "name": "tiny",
            "sources": [
                {"name": "pool", "kind": "video-r1", "path": str(pool), "media_root": str(pool.parent)}
            ],
            "media": {"frames": 8, "max_pixels": 16 * 784, "encoding": "png"},
            "generate": {"backend": backend, "max_tokens": 24, **generate},
            "judge": {"backend": backend, "max_tokens": 16},
        }
    )


def calls_of(recipe: Recipe, pool: Path) -> list[Call]:
    """The first request of every row, with its frames as array and as pictures."""
    builder = RequestBuilder(recipe, pool.parent)
    calls = []
    for row in read_pool(recipe.sources, base=pool.parent):
        assert isinstance(row, Sample), row
        frames = None
        if row.path:
            kind: Literal["video", "image"] = "video" if row.data_type.value == "video" else "image"
            path = pool.parent / row.path
            array = sample_media(path, kind, recipe.media, want="array")
            encoded = sample_media(path, kind, recipe.media, want="encoded")
            assert array.record == encoded.record
            frames = Frames(array.record, array.array, encoded.encoded, encoded.mime)
        calls.append(Call(row, builder.generate(row, frames.record if frames else None, 0), frames))
    return calls


def _copy_clips(folder: Path) -> list[str]:
    shared = media_dir()
    if shared is not None:
        for name in CLIPS:
            shutil.copyfile(shared / name, folder / name)
        return list(CLIPS)
    write_clip(folder / "plain.mp4")
    write_clip(folder / "turned.mp4", rotation=90, frames=30)
    write_clip(folder / "uneven.mp4", frames=9, pts=[0, 40, 120, 160, 400, 500, 900, 1000, 1500])
    write_clip(folder / "long.mp4", frames=60, rate=2, size=(84, 84))
    write_clip(folder / "short.mp4", frames=3, size=(112, 56))
    return ["plain.mp4", "turned.mp4", "uneven.mp4", "long.mp4", "short.mp4"]


def _row(number: int, data_type: str, **fields: Any) -> dict[str, Any]:
    return {"problem_id": number, "data_type": data_type, "data_source": "test"} | fields


def _choices(count: int) -> list[dict[str, Any]]:
    """Multiple-choice questions."""
    shared = samples_dir()
    if shared is None:
        options = ["A. to the left", "B. to the right", "C. nowhere"]
        found = [{"problem": "Where does it move?", "options": options, "solution": "<answer>A</answer>"}]
        found *= count
    else:
        lines = (shared / "twgrpo_eval_mmvu.jsonl").read_text(encoding="utf-8").splitlines()
        found = [json.loads(line) for line in lines[:count]]
    wanted = ("problem", "options", "solution")
    return [{k: row[k] for k in wanted} | {"problem_type": "multiple choice"} for row in found]


def _numbers() -> list[dict[str, Any]]:
    """Four questions with a number for an answer."""
    shared = samples_dir()
    if shared is None:
        found = [{"question": f"What is {i} + {i}?", "ground_truth": 2 * i} for i in range(4)]
    else:
        name = "videor1_superclevr_counts.jsonl"
        found = [json.loads(line) for line in (shared / name).read_text(encoding="utf-8").splitlines()[:4]]
    return [
        {
            "problem": f"{row['question']} (picture {i})",
            "problem_type": "numerical",
            "options": [],
            "solution": f"<answer>{row['ground_truth']}</answer>",
        }
        for i, row in enumerate(found)
    ]
