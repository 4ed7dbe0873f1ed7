"""Every kind of question in one table, and how they are put to a scene."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random

from videop2r_data.demo import ask_choice as c
from videop2r_data.demo import ask_open as o
from videop2r_data.demo.question import Question
from videop2r_data.demo.scene import Medium, Scene, Theme
from videop2r_data.schemas.sample import ProblemType

Asker = Callable[[Scene, Random], Question | None]
KINDS: dict[str, tuple[Asker, Theme, tuple[Medium, ...], ProblemType]] = {
    "direction": (c.ask_direction, "shapes", ("video",), ProblemType.MULTIPLE_CHOICE),
    "colour": (c.ask_colour, "shapes", ("video", "image"), ProblemType.MULTIPLE_CHOICE),
    "shape": (c.ask_shape, "shapes", ("video", "image"), ProblemType.MULTIPLE_CHOICE),
    "order": (c.ask_order, "shapes", ("video",), ProblemType.MULTIPLE_CHOICE),
    "faster": (c.ask_faster, "shapes", ("video",), ProblemType.MULTIPLE_CHOICE),
    "place": (c.ask_place, "shapes", ("image",), ProblemType.MULTIPLE_CHOICE),
    "beside": (c.ask_beside, "shapes", ("image",), ProblemType.MULTIPLE_CHOICE),
    "exists": (c.ask_exists, "shapes", ("video", "image"), ProblemType.MULTIPLE_CHOICE),
    "count": (o.ask_count, "shapes", ("video", "image"), ProblemType.NUMERICAL),
    "count_choice": (c.ask_count_choice, "shapes", ("video", "image"), ProblemType.MULTIPLE_CHOICE),
    "count_some": (o.ask_count_some, "shapes", ("video", "image"), ProblemType.NUMERICAL),
    "count_moving": (o.ask_count_moving, "shapes", ("video",), ProblemType.NUMERICAL),
    "interval": (o.ask_interval, "shapes", ("video",), ProblemType.TEMPORAL_GROUNDING),
    "sign_interval": (o.ask_interval, "sign", ("video",), ProblemType.TEMPORAL_GROUNDING),
    "seconds": (o.ask_seconds, "shapes", ("video",), ProblemType.REGRESSION),
    "box": (o.ask_box, "shapes", ("video", "image"), ProblemType.SPATIAL_GROUNDING),
    "describe": (o.ask_describe, "shapes", ("video",), ProblemType.FREE_FORM),
    "portray": (o.ask_portray, "shapes", ("image",), ProblemType.FREE_FORM),
    "read": (o.ask_read, "sign", ("video", "image"), ProblemType.OCR),
    "read_choice": (c.ask_read_choice, "sign", ("video", "image"), ProblemType.MULTIPLE_CHOICE),
    "level": (o.ask_level, "gauge", ("video", "image"), ProblemType.REGRESSION),
    "trend": (c.ask_trend, "gauge", ("video",), ProblemType.MULTIPLE_CHOICE),
    "sum": (o.ask_sum, "groups", ("text",), ProblemType.NUMERICAL),
    "most": (c.ask_most, "groups", ("text",), ProblemType.MULTIPLE_CHOICE),
}
"""Kind -> how to ask, the theme and the media that it fits, and its type."""


def ask(scene: Scene, kinds: Sequence[str], at_most: int, rng: Random) -> list[Question]:
    """Up to `at_most` different questions about a scene, of the given kinds, in random order."""
    fitting = [k for k in kinds if KINDS[k][1] == scene.theme and scene.medium in KINDS[k][2]]
    rng.shuffle(fitting)
    asked: list[Question] = []
    for kind in fitting:
        if len(asked) == at_most:
            break
        question = KINDS[kind][0](scene, rng) if scene.objects or scene.theme != "shapes" else None
        if question is not None and question.problem not in {q.problem for q in asked}:
            asked.append(question)
    return asked
