"""How frames are sampled, and what a file may cost."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from videop2r_data.schemas.base import Model
from videop2r_data.schemas.sample import Focus

BUFFER_MB = 1024
MIN_FRAMES = 4


class MediaLimits(Model):
    """What a file may cost before it costs its row."""

    max_bytes: int = Field(default=4 * 2**30, ge=1)
    """Size of a file."""
    max_side: int = Field(default=8192, ge=1)
    """Source width or height, pixels."""
    max_duration_s: float = Field(default=6 * 3600.0, gt=0)
    """Seconds of a clip."""
    max_packets: int = Field(default=2_000_000, ge=1)
    """Packets of a clip's video stream."""
    max_bad_packets: float = Field(default=0.05, ge=0.0, le=1.0)
    """Share of packets that fail to decode above which the clip is refused."""
    max_missing: float | None = Field(default=None, ge=0.0, le=1.0)
    """Share of a clip that its container promises and the file lacks (frames, seconds or bytes) above which
    the clip is refused; None: as `max_bad_packets`. 1 accepts every rest, and files that break off without
    saying how much was to come."""
    decode_all: bool = False
    """Decode every frame of every clip, so that damage is found wherever it lies and the verdict on a clip is
    the same for every number of frames; long clips then take many times as long."""
    wall_s: float = Field(default=120.0, gt=0)
    """Seconds of wall-clock for one file, then its decoder process is killed."""
    memory_mb: int = Field(default=4096, ge=256)
    """Address space of a decoder process."""


class LookSpec(Model):
    """Which frames are taken, and what is done to them before a model sees them. In this order: frames are
    selected and dropped, then blurred, overlaid with noise and covered."""

    select: Literal["uniform", "scenes", "question"] = "uniform"
    """`uniform`: evenly spaced; `scenes`: spread over what lies between scene cuts; `question`: those whose
    embedding comes closest to that of the question. Clips only."""
    candidates: int = Field(default=64, ge=2, le=2048)
    """Evenly spaced frames that are looked at to select among them."""
    embedder: str = ""
    """For `question`: a model with image and text features of one space (CLIP, SigLIP): Hub id or folder. It
    runs on the CPU, in a process of its own; needs the extra `train`."""
    revision: str | None = None
    """Commit of a Hub id; a folder is known by its content."""
    drop: float = Field(default=0.0, ge=0.0, lt=1.0)
    """Share of the frames that are left out at random; one always stays. Clips only."""
    blur: float = Field(default=0.0, ge=0.0, le=64.0)
    """Standard deviation of a Gaussian blur, pixels of the frame as it is sent."""
    noise: float = Field(default=0.0, ge=0.0, le=255.0)
    """Standard deviation of Gaussian noise, grey levels of 255."""
    occlude: float = Field(default=0.0, ge=0.0, le=1.0)
    """Share of each frame's area that one grey box covers, at the same place in all frames of a clip."""
    seed: int = Field(default=0, ge=0)
    """Of everything random; with it each file has its own random numbers."""

    @model_validator(mode="after")
    def _names_its_embedder(self) -> Self:
        if (self.select == "question") != bool(self.embedder):
            raise ValueError("select: question and embedder go together")
        return self


class MediaSpec(Model):
    """How frames are sampled."""

    decoder: Literal["pyav", "decord"] = "pyav"
    """Library that decodes clips; `decord` needs its extra."""
    frames: int = Field(default=16, ge=1, le=2048)
    """N, uniformly spaced; a clip with fewer shown frames gives each of them once. With `fps`: at most so
    many."""
    fps: float | None = Field(default=None, gt=0, le=1000, exclude_if=lambda value: value is None)
    """Frames for each second of the clip, from `min_frames` to `frames` and an even number, uniformly spaced;
    None: `frames`, however long it is."""
    min_frames: int = Field(default=MIN_FRAMES, ge=1, exclude_if=lambda value: value == MIN_FRAMES)
    """With `fps`: frames of a short clip at least, if it shows so many."""
    max_pixels: int = Field(default=128 * 28 * 28, ge=28 * 28)
    """Pixel budget of one frame, after resizing."""
    min_pixels: int = Field(default=4 * 28 * 28, ge=1)
    """A frame with fewer pixels is enlarged."""
    factor: int = Field(default=28, ge=1)
    """Sides are multiples of it (Qwen2.5-VL: 28, Qwen3-VL: 32)."""
    image_max_pixels: int | None = Field(default=None, ge=28 * 28)
    """Pixel budget of an image; None: that of a frame."""
    encoding: Literal["jpeg", "png"] = "jpeg"
    """How frames go to a server."""
    quality: int = Field(default=95, ge=1, le=100)
    """JPEG quality."""
    passthrough: bool = Field(default=False, exclude_if=lambda value: value is False)
    """Send a JPEG or PNG that already has its final size, and holds nothing but pixels, as it is."""
    look: LookSpec | None = Field(default=None, exclude_if=lambda value: value is None)
    """Which frames are taken, and what is done to them; None: evenly spaced ones as they are."""
    workers: int = Field(default=0, ge=0)
    """Decoder processes; 0: one per core. Changes no output."""
    buffer_mb: int = Field(default=BUFFER_MB, ge=1, exclude_if=lambda value: value == BUFFER_MB)
    """MiB of frames that are held for calls or being decoded; decoding waits when they are full. Changes no
    output."""
    limits: MediaLimits = MediaLimits()
    """What a file may cost before it costs its row."""

    @model_validator(mode="after")
    def _rate_fits(self) -> Self:
        if self.fps is not None and self.min_frames > self.frames:
            raise ValueError(f"min_frames {self.min_frames} is more than frames {self.frames}")
        if self.look is not None and self.look.select != "uniform" and self.look.candidates < self.frames:
            raise ValueError(f"look.candidates {self.look.candidates} is less than frames {self.frames}")
        if self.look is not None and self.passthrough:
            raise ValueError("look changes what a picture's own bytes show: it cannot go with passthrough")
        return self

    def uniform(self, frames: int) -> Self:
        """The settings for another number of frames, evenly spaced as they are; for its own number itself."""
        plain = {"frames": frames, "fps": None, "look": None}
        return self if frames == self.frames else self.model_copy(update=plain)

    def undisturbed(self, frames: int) -> Self:
        """What a judge sees that holds words against the clip: frames that nothing was done to.

        Those that `look` selects, none dropped, or for another number evenly spaced ones.
        """
        spec = self.uniform(frames)
        if spec.look is None:
            return spec
        as_they_are = {"drop": 0.0, "blur": 0.0, "noise": 0.0, "occlude": 0.0}
        look = spec.look.model_copy(update=as_they_are) if spec.look.select != "uniform" else None
        return spec.model_copy(update={"look": look})

    @property
    def by_question(self) -> bool:
        """Whether the text of a question decides which frames of its clip it gets."""
        return self.look is not None and self.look.select == "question"

    @property
    def shows_ends(self) -> bool:
        """Whether the first and the last frame of a clip are among those that are taken."""
        return self.look is None or (self.look.select == "uniform" and self.look.drop == 0.0)

    @property
    def candidates(self) -> Self:
        """The settings for the frames that `look` selects among, or does something to."""
        plain: dict[str, object] = {"look": None}
        if self.look is not None and self.look.select != "uniform":
            plain |= {"frames": self.look.candidates, "fps": None}
        return self.model_copy(update=plain)

    def focus(self, part: Focus, question: str) -> Focus:
        """What counts of a question for its frames."""
        return part._replace(question=question) if self.by_question else part

    @property
    def mime(self) -> Literal["image/jpeg", "image/png"]:
        """Media type of frames that are encoded here."""
        return "image/jpeg" if self.encoding == "jpeg" else "image/png"

    @property
    def wire(self) -> str:
        """How frames that are encoded here look on the wire, e.g. `jpeg-95`."""
        return f"jpeg-{self.quality}" if self.encoding == "jpeg" else "png"

    def wire_of(self, passthrough: bool | None) -> str:
        """How frames with this `MediaRecord.passthrough` look on the wire: `source` is the file itself."""
        return "source" if self.passthrough and passthrough else self.wire
