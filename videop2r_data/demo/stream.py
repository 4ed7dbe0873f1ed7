"""The endless stream of scenes and questions behind every demo world."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count

from videop2r_data.demo.ask import KINDS, ask
from videop2r_data.demo.chance import stream
from videop2r_data.demo.defects import TEMPLATE_DEFECTS, Defect, applicable
from videop2r_data.demo.imagine import imagine
from videop2r_data.demo.question import Question, SceneSample
from videop2r_data.demo.scene import Scene
from videop2r_data.errors import ConfigError
from videop2r_data.schemas.recipe import DemoSpec
from videop2r_data.schemas.sample import ProblemType

_RETRIES = 200


def kinds_of(spec: DemoSpec) -> list[str]:
    """The question kinds that the settings ask for, in the order of `ask.KINDS`.

    Raises:
        ConfigError: an unknown task, or tasks that no chosen data type can show.
    """
    names = {k: {k, row[3].value} for k, row in KINDS.items()}
    known = set().union(*names.values())
    unknown = [t for t in spec.tasks if t not in known]
    if unknown:
        raise ConfigError(
            f"unknown demo task {unknown[0]!r} (allowed: {', '.join(sorted(known))})", where="demo.tasks"
        )
    kinds = [
        k
        for k, (_, _, media, _) in KINDS.items()
        if (not spec.tasks or names[k] & set(spec.tasks)) and set(media) & set(spec.mediums)
    ]
    if not kinds:
        raise ConfigError(
            f"no task of {list(spec.tasks)} can be asked about {list(spec.mediums)}",
            where="demo.tasks",
            hint="add a data type to demo.mediums or a task to demo.tasks",
        )
    return kinds


def questions_of(spec: DemoSpec, index: int) -> tuple[Scene, list[Question]]:
    """Scene number `index` and its questions (at least one, at most `spec.questions`).

    Raises:
        ConfigError: these settings never give a scene that such a question fits.
    """
    kinds = kinds_of(spec)
    for retry in range(_RETRIES):
        scene = imagine(spec, index, retry)
        asked = ask(scene, kinds, spec.questions, stream(spec.seed, "ask", index, retry))
        if asked:
            return scene, asked
    raise ConfigError(
        f"no scene in {_RETRIES} draws fits the tasks {kinds}", where="demo.tasks", hint="allow more objects"
    )


def iter_scenes(spec: DemoSpec, start: int = 0) -> Iterator[SceneSample]:
    """The endless stream of questions, in memory, without files or codecs.

    Args:
        spec: the world; `rows` does not end the stream.
        start: number of the first scene. `problem_id` counts from there, so worlds on disk start at 0.

    Yields:
        the questions of scene `start`, then those of the next one, and so on.

    Raises:
        ConfigError: unknown or impossible tasks.
    """
    row = 0
    for index in count(start):
        scene, asked = questions_of(spec, index)
        for number, question in enumerate(asked):
            defect = planted(spec, index, number, question.problem_type)
            yield SceneSample(problem_id=row, number=number, scene=scene, question=question, defect=defect)
            row += 1


def planted(
    spec: DemoSpec, index: int, number: int, problem_type: ProblemType, temperature: float = 0.0
) -> Defect | None:
    """The planted defect of a question's trace: a new draw for every temperature, equal for equal arguments.

    Broken templates share one part in six; the other kinds that fit the type share the rest evenly.
    """
    rng = stream(spec.seed, "defect", index, number, f"{temperature:.4f}")
    if rng.random() >= spec.defect_rate:
        return None
    if rng.random() < 1 / 6:
        return rng.choice(TEMPLATE_DEFECTS)
    return rng.choice([d for d in applicable(problem_type) if d not in TEMPLATE_DEFECTS])
