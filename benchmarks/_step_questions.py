"""Questions about pictures of the demo world, the same ones for every trainer that is timed."""

from __future__ import annotations

from itertools import islice
from typing import Any, NamedTuple

import numpy as np

from videop2r_data.demo import SceneSample, iter_scenes, render_frames
from videop2r_data.prompts import load_prompt, render_generate
from videop2r_data.schemas import DemoSpec


class Asked(NamedTuple):
    """One question: its texts, its picture (uint8 [side, side, 3]) and where it comes from."""

    system: str
    user: str
    picture: Any
    sample: SceneSample


def world(side: int) -> DemoSpec:
    """One question a picture, exact background."""
    return DemoSpec(
        seed=1, side=side, mediums=("image",), questions=1, rotated=False, numbered=False, defect_rate=0
    )


def questions(count: int, side: int) -> list[Asked]:
    """The first `count` questions about pictures of `side` pixels."""
    prompt = load_prompt("generate-v1")
    asked = []
    for sample in islice(iter_scenes(world(side)), count):
        q = sample.question
        user = render_generate(prompt, problem=q.problem, options=q.options, problem_type=q.problem_type)
        picture = np.ascontiguousarray(render_frames(sample.scene, [0])[0])
        asked.append(Asked(prompt.system, user, picture, sample))
    return asked
