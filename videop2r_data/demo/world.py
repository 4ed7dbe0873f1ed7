"""The demo world: endless in memory, of a given size on disk."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from itertools import count, islice
from pathlib import Path

import orjson
from pydantic import ValidationError

from videop2r_data.demo.ask import KINDS, ask
from videop2r_data.demo.imagine import imagine, media_bytes
from videop2r_data.demo.scene import (
    TEMPLATE_DEFECTS,
    Defect,
    Question,
    Scene,
    SceneSample,
    applicable,
    stream,
)
from videop2r_data.demo.traces import inventions
from videop2r_data.errors import ConfigError, SourceError
from videop2r_data.schemas import DemoSpec, TraceGrammar, digest, digest_bytes

# --- the endless stream of scenes and questions ---

_RETRIES = 200


def kinds_of(spec: DemoSpec) -> list[str]:
    """The question kinds that the settings ask for, in the order of `ask.KINDS`.

    Raises:
        ConfigError: an unknown task, or tasks that no chosen data type can show.
    """
    names = {kind: {kind, row[3].value} for kind, row in KINDS.items()}
    known = sorted(set().union(*names.values()))
    unknown = [t for t in spec.tasks if t not in known]
    if unknown:
        message = f"unknown demo task {unknown[0]!r} (allowed: {', '.join(known)})"
        raise ConfigError(message, where="demo.tasks")
    wanted = set(spec.tasks or known)
    kinds = [k for k, row in KINDS.items() if names[k] & wanted and set(row[2]) & set(spec.mediums)]
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
    # Not every scene has something to ask: a task like `order` needs two things that begin apart.
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
        start: number of the first scene. `problem_id` counts from 0.

    Yields:
        the questions of scene `start`, then those of the next one, and so on.

    Raises:
        ConfigError: unknown or impossible tasks.
    """
    row = 0
    for index in count(start):
        scene, asked = questions_of(spec, index)
        for number, question in enumerate(asked):
            defect = planted(spec, scene, question, number)
            yield SceneSample(problem_id=row, number=number, scene=scene, question=question, defect=defect)
            row += 1


# --- which trace carries which defect ---

_SHARES = {Defect.INVENTED_EVIDENCE: 4, Defect.INVENTED_DETAIL: 2}
"""How much more often than the other habits a question gets these, where it can have them."""


def planted(
    spec: DemoSpec, scene: Scene, question: Question, number: int, temperature: float = 0.0
) -> Defect | None:
    """The planted defect of a question's trace: a new draw for every temperature, equal for equal arguments.

    Broken templates share one part in six; the other kinds that fit the type share the rest evenly. Traces
    without any of them may have a habit of real generators, at a rate of its own.
    """
    # A stream of its own: the share of defects changes no scene and no question.
    rng = stream(spec.seed, "defect", scene.index, number, f"{temperature:.4f}")
    if rng.random() < spec.defect_rate:
        if rng.random() < 1 / 6:
            return rng.choice(TEMPLATE_DEFECTS)
        return rng.choice([d for d in applicable(question.problem_type) if d not in TEMPLATE_DEFECTS])
    rng = stream(spec.seed, "invention", scene.index, number, f"{temperature:.4f}")
    if rng.random() < spec.invention_rate:
        made = inventions(scene, question)
        return rng.choice([defect for defect in made for _ in range(_SHARES.get(defect, 1))])
    return None


def defect_of(
    sample: SceneSample, spec: DemoSpec, temperature: float, grammar: TraceGrammar | None = None
) -> Defect | None:
    """The defect of the trace that is written at a temperature: the labelled one at 0, else a new draw.

    Where a segment of the grammar must have a form, a quarter of the broken templates break that form.
    """
    defect = sample.defect
    if temperature > 0:
        defect = planted(spec, sample.scene, sample.question, sample.number, temperature)
    formed = grammar is not None and any(one.holds for one in grammar.flat)
    if formed and defect in TEMPLATE_DEFECTS:
        rng = stream(spec.seed, "form", sample.scene.index, sample.number, f"{temperature:.4f}")
        return Defect.BAD_FIELD if rng.random() < 0.25 else defect
    return defect


# --- a world on disk: media files, the pool in the layout of Video-R1, the scene truth ---

FORMAT = 1
"""Version of what a spec means: raised whenever the same spec gives other bytes."""
WORLD_MEDIA, WORLD_POOL, SCENES, WORLD = "media", "pool.json", "scenes.jsonl", "world.json"


def write_world(folder: Path, spec: DemoSpec, *, progress: Callable[[int, int], None] | None = None) -> Path:
    """Write a world; an equal and complete one is left as it is, an interrupted one is finished.

    Files: `media/demo/*.mp4|png`, `pool.json` (one JSON array), `scenes.jsonl` (one `SceneSample` a line)
    and, last, `world.json` (digests of the spec and of both tables). Every file is renamed into place whole.

    Args:
        folder: made if it does not exist; the files of another world in it are replaced.
        spec: settings of the world.
        progress: called with (rows done, all rows).

    Returns:
        `folder`.

    Raises:
        ConfigError: an odd side, impossible tasks.
    """
    settings = spec.model_dump(mode="json")
    mark = digest({"format": FORMAT, "spec": settings})
    if _is_whole(folder, mark):
        return folder
    (folder / WORLD_MEDIA / "demo").mkdir(parents=True, exist_ok=True)
    (folder / WORLD).unlink(missing_ok=True)
    samples: list[SceneSample] = []
    written: set[str] = set()
    for sample in islice(iter_scenes(spec, spec.start), spec.rows):
        samples.append(_with_media(folder, sample, samples[-1] if samples else None, written))
        if progress is not None:
            progress(len(samples), spec.rows)
    # What an earlier world or an interrupted write left in our own media folder.
    for file in (folder / WORLD_MEDIA / "demo").iterdir():
        if file.name not in written and file.is_file():
            file.unlink()
    pool = b"[\n" + b",\n".join(orjson.dumps(s.pool_row()) for s in samples) + b"\n]\n"
    scenes = b"".join(orjson.dumps(s.model_dump(mode="json")) + b"\n" for s in samples)
    _put(folder / WORLD_POOL, pool)
    _put(folder / SCENES, scenes)
    world = {
        "synthetic": True,
        "format": FORMAT,
        "spec_sha256": mark,
        "spec": settings,
        "files": {WORLD_POOL: digest_bytes(pool), SCENES: digest_bytes(scenes)},
        "media_sha256": _media_digest(folder),
    }
    _put(folder / WORLD, orjson.dumps(world, option=orjson.OPT_INDENT_2) + b"\n")
    return folder


def _is_whole(folder: Path, mark: str) -> bool:
    try:
        world = orjson.loads((folder / WORLD).read_bytes())
        return bool(
            world["spec_sha256"] == mark
            and world["media_sha256"] == _media_digest(folder)
            and all(digest_bytes((folder / name).read_bytes()) == sha for name, sha in world["files"].items())
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False


def _media_digest(folder: Path) -> str:
    """Of the names and sizes of all media files: finds a missing, cut or foreign one without reading them."""
    return digest(sorted([p.name, p.stat().st_size] for p in (folder / WORLD_MEDIA / "demo").iterdir()))


def _with_media(
    folder: Path, sample: SceneSample, before: SceneSample | None, written: set[str]
) -> SceneSample:
    scene = sample.scene
    if scene.medium == "text":
        return sample
    if before is not None and before.scene.index == scene.index:
        return sample.model_copy(update={"media_sha256": before.media_sha256})
    data = media_bytes(scene)
    target = folder / WORLD_MEDIA / scene.path
    if not target.is_file() or target.read_bytes() != data:
        _put(target, data)
    written.add(target.name)
    return sample.model_copy(update={"media_sha256": digest_bytes(data)})


def _put(path: Path, data: bytes) -> None:
    """Write and rename, so that a reader never sees half of a file."""
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    part.write_bytes(data)
    part.replace(path)


def read_spec(folder: Path) -> DemoSpec:
    """The settings that a world was made from.

    Raises:
        SourceError: the folder holds no finished world.
    """
    try:
        return DemoSpec.model_validate(orjson.loads((folder / WORLD).read_bytes())["spec"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SourceError(
            f"no finished demo world: {error}",
            where=str(folder),
            hint="build the demo first: its world lies in the work folder of that build",
        ) from None


def scene_lines(folder: Path) -> list[bytes]:
    """The lines of `scenes.jsonl`, unread.

    Raises:
        SourceError: the folder holds no finished world.
    """
    try:
        return (folder / SCENES).read_bytes().splitlines()
    except OSError as error:
        raise SourceError(f"no finished demo world: {error}", where=str(folder)) from None


def read_world(folder: Path) -> Iterator[SceneSample]:
    """The lines of `scenes.jsonl`, in the order of the pool.

    Raises:
        SourceError: there is no (whole) world in the folder.
    """
    path = folder / SCENES
    if not (folder / WORLD).is_file():
        raise SourceError(
            "there is no finished demo world here", where=str(folder), hint="write it with write_world"
        )
    with path.open("rb") as lines:
        for at, line in enumerate(lines):
            try:
                yield SceneSample.model_validate_json(line)
            except ValidationError as error:
                raise SourceError(
                    f"not a scene: {error.errors()[0]['msg']}", where=f"{path}, line {at + 1}"
                ) from None
