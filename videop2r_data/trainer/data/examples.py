"""One question to train on, sets of them, and the endless stream of demo questions."""

from __future__ import annotations

import hashlib
import json
import zlib
from abc import abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

from videop2r_data.errors import ConfigError
from videop2r_data.media import frame_count, frames_digest, smart_resize, uniform_indices
from videop2r_data.schemas import (
    WHOLE,
    DataType,
    Focus,
    Frames,
    MediaRecord,
    MediaSpec,
    ProblemType,
    digest,
    parse_trace,
)
from videop2r_data.trainer.settings.parts import DataSpec

if TYPE_CHECKING:
    from videop2r_data.demo import SceneSample


@dataclass(frozen=True, slots=True)
class Example:
    """One question with its reference, its media and, for SFT, its target.

    Attributes:
        sample_id: unique in its data set.
        options: as in the pool: `"A. text"`; empty unless multiple choice.
        path: absolute and under its media root; None for text and for the demo stream.
        reference: the right answer, without its tag.
        target: the completion to learn; None for RL.
        scene: of a demo question: for the exact judge, and for its pixels where there is no file.
        focus: the part of the clip that the question is about.
    """

    sample_id: str
    problem: str
    options: tuple[str, ...]
    problem_type: ProblemType
    data_type: DataType
    path: Path | None
    reference: str
    target: str | None
    scene: SceneSample | None = None
    focus: Focus = WHOLE


@dataclass(frozen=True, slots=True)
class Skip:
    """One row or example that was left out.

    Attributes:
        sample_id: its id, or file and row when it could not be read that far.
        reason: a `RejectReason` or `TraceFault` value, or one of `rows.py` and `collate.py`.
        detail: file, row, field and what is wrong, for people.
    """

    sample_id: str
    reason: str
    detail: str


_BLOCK = 16
"""Examples that are compressed together: enough for a good ratio, few enough to unpack for one of them."""


class Lazy(Sequence[Example]):
    """A sequence of examples that are made when asked for: `_at` gets an index from 0 to below the length."""

    @abstractmethod
    def _at(self, index: int) -> Example: ...

    @overload
    def __getitem__(self, index: int) -> Example: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Example]: ...
    def __getitem__(self, index: int | slice) -> Example | Sequence[Example]:
        found = range(len(self))[index]
        return self._at(found) if isinstance(found, int) else [self._at(i) for i in found]


class ExampleSet(Lazy):
    """All examples of a data set in a third of the memory of their texts: an example is made when asked for.

    Args:
        examples: the good ones, in the order of the files; consumed one by one.
        skipped: the others; read after `examples` is consumed, so it may be filled meanwhile.
        revision: commit of a Hub data set, else empty.

    Attributes:
        sha256: of the content of the good ones, paths and pixels left out: 64 hexadecimal digits.

    >>> one = Example("a/1", "Who?", (), ProblemType.FREE_FORM, DataType.TEXT, None, "Ada", None)
    >>> found = ExampleSet([one])
    >>> len(found), found[0] == one, found[:5] == [one]
    (1, True, True)
    """

    def __init__(
        self, examples: Iterable[Example], skipped: Sequence[Skip] = (), *, revision: str = ""
    ) -> None:
        self._blocks: list[bytes] = []
        self._scenes: dict[int, SceneSample] = {}
        self._count = 0
        self._last: tuple[int, list[Example]] = (-1, [])
        state = hashlib.sha256()
        given = iter(examples)
        while block := list(islice(given, _BLOCK)):
            for at, example in enumerate(block, self._count):
                state.update(digest(_content(example)).encode())
                if example.scene is not None:
                    self._scenes[at] = example.scene
            # json, because it takes every text, also one with half a surrogate pair; level 1 is fast enough
            # to disappear beside the checks of a row
            rows = [[*_content(e), None if e.path is None else str(e.path)] for e in block]
            self._blocks.append(zlib.compress(json.dumps(rows).encode(), 1))
            self._count += len(block)
        self.sha256 = state.hexdigest()
        self.skipped, self.revision = tuple(skipped), revision

    def __len__(self) -> int:
        return self._count

    def _at(self, index: int) -> Example:
        number, place = divmod(index, _BLOCK)
        last, block = self._last
        if last != number:
            rows = json.loads(zlib.decompress(self._blocks[number]))
            block = [_example(row, self._scenes.get(at)) for at, row in enumerate(rows, number * _BLOCK)]
            self._last = (number, block)  # one assignment: loaders read from several threads
        return block[place]


def _content(example: Example) -> list[Any]:
    """What is asked and learnt, wherever the files lie."""
    e = example
    part = () if e.focus == WHOLE else e.focus.part
    return [e.sample_id, e.problem, e.options, e.problem_type, e.data_type, e.reference, e.target, *part]


def _example(row: list[Any], scene: SceneSample | None) -> Example:
    sample_id, problem, options, kind, data_type, reference, target, *part, path = row
    where = None if path is None else Path(path)
    asked = (sample_id, problem, tuple(options), ProblemType(kind), DataType(data_type), where)
    return Example(*asked, reference, target, scene, Focus(*part))


SAMPLER = "demo-render/1"
ENDLESS = 2**62
"""Length of a stream without a limit; scene numbers go that far."""


class DemoStream(Lazy):
    """Example i is the first question about scene `spec.start + i`: any index, any time, the same example.

    Held-out questions are another range of scenes (`start`, `limit`) of the same world, or another seed.
    For SFT the target is a faultless trace of the scene, in a wording of its own.

    Raises:
        ConfigError: impossible tasks, or frames of a size that the sampling settings would change.

    >>> stream = DemoStream(DataSpec(source="demo", limit=8))
    >>> len(stream), stream[3] == stream[3], stream[3].target.startswith("<observation>Based on the question")
    (8, True, True)
    """

    def __init__(self, spec: DataSpec) -> None:
        self.spec = spec
        self._world = spec.demo.model_copy(update={"questions": 1})
        self._check_size()
        from videop2r_data.demo import questions_of

        questions_of(self._world, spec.start)  # raises for impossible tasks, before training starts

    @property
    def sha256(self) -> str:
        """sha256 of the settings that the stream is drawn from; its rows are never read for it."""
        wanted = {"demo", "start", "limit", "style", "config"}
        return digest(self.spec.model_dump(mode="json", include=wanted))

    def __len__(self) -> int:
        return ENDLESS if self.spec.limit is None else self.spec.limit

    def _at(self, index: int) -> Example:
        from videop2r_data.demo import SceneSample, questions_of, write_trace

        number = self.spec.start + index
        scene, (question, *_) = questions_of(self._world, number)
        sample = SceneSample(problem_id=number, number=0, scene=scene, question=question)
        target = None
        if self.spec.config == "sft":
            trace = write_trace(sample, None, seed=self._world.seed, grammar=self.spec.trace)
            target = trace if self.spec.style == "process" else parse_trace(trace).process
        return Example(
            sample_id=f"demo-stream/{self._world.seed}/{number}",
            problem=question.problem,
            options=question.options,
            problem_type=question.problem_type,
            data_type=scene.data_type,
            path=None,
            reference=question.answer,
            target=target,
            scene=sample,
        )

    def _check_size(self) -> None:
        side, media = self._world.side, self.spec.media
        limits = {"video": media.max_pixels, "image": media.image_max_pixels or media.max_pixels}
        for limit in (limits[kind] for kind in limits if kind in self._world.mediums):
            bounds = {"min_pixels": media.min_pixels, "max_pixels": limit}
            height, width = smart_resize(side, side, factor=media.factor, **bounds)
            if (height, width) != (side, side):
                raise ConfigError(
                    f"frames of {side}x{side} pixels would be resized to {width}x{height}: "
                    "the stream is drawn in the size that the model sees",
                    where="data.demo.side",
                    hint=f"choose a multiple of media.factor {media.factor} whose square lies between "
                    f"media.min_pixels {media.min_pixels} and media.max_pixels {limit}",
                )


def draw(sample: SceneSample, media: MediaSpec) -> Frames:
    """The frames that sampling the file of a video or image scene would choose, drawn instead of decoded.

    Returns:
        uint8 [T, side, side, 3] with a true record; `file_sha256` is empty, for there is no file.
    """
    from videop2r_data.demo import render_frames

    if media.look is not None:
        from videop2r_data.media import looked

        return looked(draw(sample, media.candidates), media, "array", question=sample.question.problem)
    scene = sample.scene
    video = scene.data_type is DataType.VIDEO
    count = frame_count(media, scene.frames, scene.duration_s)
    indices = uniform_indices(scene.frames, count) if video else [0]
    array = render_frames(scene, indices)
    record = MediaRecord(
        data_type="video" if video else "image",
        frames_sha256=frames_digest(array),
        count=len(indices),
        width=scene.side,
        height=scene.side,
        indices=tuple(indices),
        times_s=tuple(i / scene.fps for i in indices),
        source_fps=float(scene.fps) if video else None,
        source_frames=scene.frames,
        duration_s=scene.duration_s if video else None,
        source_width=scene.side,
        source_height=scene.side,
        file_sha256="",
        file_bytes=0,
        sampler=SAMPLER,
    )
    return Frames(record=record, array=array)
