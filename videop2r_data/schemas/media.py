"""How frames are sampled, and what a file may cost."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from videop2r_data.schemas.base import Model

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
        return self

    def uniform(self, frames: int) -> Self:
        """The settings for another number of frames, uniformly spaced; for its own number itself."""
        return self if frames == self.frames else self.model_copy(update={"frames": frames, "fps": None})

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
