"""What goes into a build, in a recipe's words: question pools, the synthetic world, frame sampling."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from videop2r_data.schemas.base import Model

BUFFER_MB = 1024
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,95}$")]


class ColumnMapping(Model):
    """Which column of a foreign data set holds what; None: the field has no column there.

    A dot steps into a column that holds fields of its own: `row.question`. A column whose name has a dot in
    it is found first.
    """

    problem_id: str | None = "problem_id"
    """Id of the question: text or a whole number; None: `row-<n>`."""
    problem: str = "problem"
    """The question."""
    problem_type: str | None = "problem_type"
    """`multiple choice`, `numerical` ...; None: `problem_type` of the source holds for all rows."""
    data_type: str | None = "data_type"
    """`video`, `image` or `text`; None: `data_type` of the source holds for all rows."""
    options: str | tuple[str, ...] | None = "options"
    """The options of multiple choice: one column, or a list of columns with an option each (`[a0, a1]`). The
    column of `problem` itself: the options are the last lines of the question, `(A) x`."""
    solution: str = "solution"
    """The reference answer; for multiple choice a letter, an option's text, or a number (`answer_base`)."""
    path: str | None = "path"
    """The media file: a path below `media_root`, or embedded `{bytes, path}` as `datasets` writes it; or a
    path made of columns: `clips/{video_id}.mp4`."""
    data_source: str | None = "data_source"
    """Which data set the question came from originally; kept in the row, for cards and licences."""


class DemoSpec(Model):
    """Settings of the synthetic world."""

    rows: int = Field(default=240, ge=1)
    """Questions."""
    seed: int = 0
    """Another seed, another world."""
    defect_rate: float = Field(default=0.35, ge=0.0, le=1.0)
    """Share of rows whose trace carries a planted defect."""
    side: int = Field(default=112, ge=16)
    """Height and width of a frame, pixels."""
    frames: int = Field(default=24, ge=2)
    """Frames of a clip."""
    fps: int = Field(default=8, ge=1)
    """Frames per second of a clip."""
    max_objects: int = Field(default=3, ge=1, le=3)
    """Coloured shapes in a scene at most."""
    noise: bool = False
    """Off: the background is one exact colour."""
    background: Literal["zero", "varied"] = "zero"
    """`zero`: the colour that Qwen's normalisation maps to (almost) 0; `varied`: a grey per scene."""
    mediums: tuple[Literal["video", "image", "text"], ...] = Field(
        default=("video", "image", "text"), min_length=1
    )
    """Which data types there are."""
    tasks: tuple[str, ...] = ()
    """Question kinds (`direction`, `count` ...) or problem types (`OCR` ...) to ask; empty: all of them."""
    questions: int = Field(default=3, ge=1, le=8)
    """Questions about one scene at most; they share its clip."""
    rotated: bool = True
    """Some files are stored turned, with a display matrix or an EXIF orientation that turns them back."""
    numbered: bool = True
    """Questions name their scene (`In clip 17, ...`): the `demo` backend finds the scene by it."""


class SourceSpec(Model):
    """One pool of questions."""

    name: Name
    """Of the pool; `sample_id` begins with it."""
    kind: Literal["video-r1", "official", "dataset", "demo"]
    """`dataset`: CSV, TSV, JSON, Parquet, Arrow, `save_to_disk`, `imagefolder` or the Hub; `video-r1`: JSON
    in the layout of Video-R1; `official`: the parts of the official release; `demo`: the synthetic world."""
    path: str = ""
    """File, folder or glob; for `dataset` also a Hub id; relative to the recipe. Unused for `demo`."""
    media_root: str = ""
    """Folder that the rows' `path` is relative to; relative to the recipe."""
    columns: ColumnMapping = ColumnMapping()
    """Which column holds what."""
    answer_base: Literal[0, 1, "text"] | None = None
    """What a whole number means as the answer of a multiple-choice row: an index from 0, an index from 1, or
    the text of an option. None: read from the pool as a whole; a pool that leaves it open is refused."""
    problem_type: str | None = None
    """For rows without a column for it."""
    data_type: str | None = None
    """For rows without a column for it."""
    config: str | None = None
    """For `dataset`: its configuration."""
    split: str = "train"
    """For `dataset`: its split, where it has several."""
    revision: str | None = None
    """For a Hub id: commit or tag. A moving branch makes a build irreproducible."""
    limit: int | None = Field(default=None, ge=1)
    """Take only the first rows."""
    license: str = ""
    """Licence of the questions and media, for data sets that neither `licenses` nor the registry names."""
    licenses: dict[str, str] = Field(default_factory=dict)
    """For a pool that gathers several data sets: `data_source` -> its licence; counts before the registry."""
    demo: DemoSpec | None = None
    """For `demo`."""

    @model_validator(mode="after")
    def _kind_has_its_fields(self) -> Self:
        if self.kind != "demo" and not self.path:
            raise ValueError(f"source {self.name!r}: kind {self.kind!r} needs a path")
        return self


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
    """N, uniformly spaced; a clip with fewer shown frames gives each of them once."""
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

    @property
    def wire(self) -> str:
        """How frames that are encoded here look on the wire, e.g. `jpeg-95`."""
        return f"jpeg-{self.quality}" if self.encoding == "jpeg" else "png"

    def wire_of(self, passthrough: bool | None) -> str:
        """How frames with this `MediaRecord.passthrough` look on the wire: `source` is the file itself."""
        return "source" if self.passthrough and passthrough else self.wire
