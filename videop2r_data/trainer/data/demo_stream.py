"""The endless stream of demo questions: one scene each, drawn in memory, no files and no codecs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import overload

from videop2r_data.demo import SceneSample, questions_of, render_frames, write_trace
from videop2r_data.errors import ConfigError
from videop2r_data.media import frames_digest, smart_resize, uniform_indices
from videop2r_data.schemas import DataType, Frames, MediaRecord, MediaSpec, digest, parse_trace
from videop2r_data.trainer.data.examples import Example
from videop2r_data.trainer.data.specs import DataSpec

SAMPLER = "demo-render/1"
ENDLESS = 2**62
"""Length of a stream without a limit; scene numbers go that far."""


class DemoStream(Sequence[Example]):
    """Example i is the first question about scene `spec.start + i`: any index, any time, the same example.

    Held-out questions are another range of scenes (`start`, `limit`) of the same world, or another seed.
    For SFT the target is a faultless trace of the scene, in a wording of its own.

    Args:
        spec: `source: demo`.

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
        questions_of(self._world, spec.start)  # impossible tasks are told now

    @property
    def sha256(self) -> str:
        """Of what the stream is drawn from: settings, not rows."""
        wanted = {"demo", "start", "limit", "style", "config"}
        return digest(self.spec.model_dump(mode="json", include=wanted))

    def __len__(self) -> int:
        return ENDLESS if self.spec.limit is None else self.spec.limit

    @overload
    def __getitem__(self, index: int) -> Example: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Example]: ...
    def __getitem__(self, index: int | slice) -> Example | Sequence[Example]:
        if isinstance(index, slice):
            return [self._example(i) for i in range(*index.indices(len(self)))]
        if index < 0:
            index += len(self)
        if not 0 <= index < len(self):
            raise IndexError(f"example {index} of {len(self)}")
        return self._example(index)

    def _example(self, index: int) -> Example:
        number = self.spec.start + index
        scene, (question, *_) = questions_of(self._world, number)
        sample = SceneSample(problem_id=number, number=0, scene=scene, question=question)
        return Example(
            sample_id=f"demo-stream/{self._world.seed}/{number}",
            problem=question.problem,
            options=question.options,
            problem_type=question.problem_type,
            data_type=scene.data_type,
            path=None,
            reference=question.answer,
            target=self._target(sample) if self.spec.config == "sft" else None,
            scene=sample,
        )

    def _target(self, sample: SceneSample) -> str:
        trace = write_trace(sample, None, seed=self._world.seed)
        return trace if self.spec.style == "process" else parse_trace(trace).process

    def _check_size(self) -> None:
        side, media = self._world.side, self.spec.media
        limits = [media.max_pixels] if "video" in self._world.mediums else []
        limits += [media.image_max_pixels or media.max_pixels] if "image" in self._world.mediums else []
        for limit in limits:
            fitted = smart_resize(
                side, side, factor=media.factor, min_pixels=media.min_pixels, max_pixels=limit
            )
            if fitted != (side, side):
                raise ConfigError(
                    f"frames of {side}x{side} pixels would be resized to {fitted[1]}x{fitted[0]}: "
                    "the stream is drawn in the size that the model sees",
                    where="data.demo.side",
                    hint=f"choose a multiple of media.factor {media.factor} whose square lies between "
                    f"media.min_pixels {media.min_pixels} and media.max_pixels {limit}",
                )


def draw(sample: SceneSample, media: MediaSpec) -> Frames:
    """The frames that sampling the scene's file would choose, drawn instead of decoded.

    Args:
        sample: a video or image scene.
        media: `frames` uniformly spaced ones are drawn.

    Returns:
        uint8 [T, side, side, 3] with a true record; `file_sha256` is empty, for there is no file.
    """
    scene = sample.scene
    video = scene.data_type is DataType.VIDEO
    indices = uniform_indices(scene.frames, media.frames) if video else [0]
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
