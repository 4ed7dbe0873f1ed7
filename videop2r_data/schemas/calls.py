"""Calls of models: request, completion, the protocol of a backend, and the kinds that a recipe may name."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol, runtime_checkable

from pydantic import Field
from pydantic_core import PydanticCustomError

from videop2r_data.schemas.base import Model, digest
from videop2r_data.schemas.trace_fields import Shown

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

# A `Request` holds *references* to frames (digest, indices, times), never pixels, so that its key is the
# sha256 of its content and the journal stays small. The pixels travel beside it, as `Frames`.

Role = Literal["system", "user"]
Purpose = Literal["generate", "judge", "claims", "faithfulness", "blind", "conclusion", "exam"]
"""What a call is for: a trace; whether an observation suffices; its claims; whether they are true of the
media; an answer from the text of a question alone; what a think segment settles on; an answer of the
perception examination."""
FinishReason = Literal["stop", "length", "content_filter", "other"]
TimesKind = Literal["exact", "repaired", "assumed"]
"""Where frame times come from: the container's timestamps as they are; those timestamps after jumps,
restarts, doubles or holes in them were mended; or a frame rate alone (the stated one, or an assumed one)."""


class ClipPart(Model):
    """The part of a clip that frames were sampled from; seconds from the clip's first shown frame."""

    start_s: float = Field(ge=0)
    """Where it begins, as asked for; 0 where nothing was asked for."""
    end_s: float
    """Where it ends: as asked for, or at the end of the clip."""
    first: int = Field(ge=0)
    """Index of its first frame in the clip."""
    frames: int = Field(ge=1)
    """Frames that are shown in it."""
    beyond_s: float = Field(default=0.0, ge=0, exclude_if=lambda value: value == 0.0)
    """How far the end that was asked for lies behind the end of the clip."""


class LookRecord(Model):
    """What the frames were selected by, and what was done to them (`MediaSpec.look`)."""

    settings: dict[str, Any]
    """Those that are not at their defaults."""
    candidates: int = Field(default=0, exclude_if=lambda value: not value)
    """Frames that were looked at to select among them."""
    scenes: int = Field(default=0, exclude_if=lambda value: not value)
    """Scenes that were found."""
    question_sha256: str = Field(default="", exclude_if=lambda value: not value)
    """Of the text that the frames were selected by."""
    embedder: str = Field(default="", exclude_if=lambda value: not value)
    """What is known of the model that selected them: its commit, or the sha256 of its files."""
    dropped: tuple[int, ...] = Field(default=(), exclude_if=lambda value: not value)
    """Indices of the frames that were left out at random."""
    box: tuple[int, int, int, int] | None = Field(default=None, exclude_if=lambda value: value is None)
    """Left, top, right and bottom of the grey box, pixels of the frame."""


class MediaRecord(Model):
    """What was sampled from one media file; journaled, so that a resumed run need not decode again."""

    data_type: Literal["image", "video"]
    frames_sha256: str
    """sha256 of the sampled frames: uint8 RGB, shape [T, H, W, 3], C order, prefixed by the shape."""
    count: int = Field(ge=1)
    """T, number of sampled frames (1 for an image)."""
    width: int = Field(ge=1)
    """Pixels after resizing; a multiple of the factor of the sampling settings."""
    height: int = Field(ge=1)
    indices: tuple[int, ...]
    """Index of each sampled frame in display order; of a part too, it is that in the whole clip."""
    times_s: tuple[float, ...]
    """Presentation time of each sampled frame, seconds from the first shown frame; of a part too, it is that
    in the whole clip. What a model is told is `seen`."""
    source_fps: float | None = None
    """Average frames per second of the source; None for images and when the container does not say."""
    source_frames: int = Field(ge=1)
    """Frames that the source shows."""
    duration_s: float | None = None
    source_width: int = Field(ge=1)
    source_height: int = Field(ge=1)
    """Source size in pixels, after rotation."""
    file_sha256: str
    file_bytes: int = Field(ge=0)
    sampler: str
    """Name and version of the sampler, e.g. `pyav-gop/1`."""
    passthrough: bool | None = Field(default=None, exclude_if=lambda value: value is None)
    """Whether the file's own bytes stand for its pixels (`MediaSpec.passthrough`); None: not looked at."""
    times: TimesKind | None = None
    """Where `times_s` come from; None for images, and in records made before this was noted."""
    missing: float | None = Field(default=None, ge=0.0, le=1.0)
    """Share of the clip that its container promises and that is not there or does not decode; a lower bound
    where the container does not say how much was to come. None in records made before this was noted."""

    part: ClipPart | None = Field(default=None, exclude_if=lambda value: value is None)
    """The part of the clip that was sampled; None: the whole clip."""
    look: LookRecord | None = Field(default=None, exclude_if=lambda value: value is None)
    """None: evenly spaced frames as they are."""

    @property
    def seen(self) -> MediaRecord:
        """What a model is told: a part as if it were a clip of its own, whose time begins where it begins."""
        if (part := self.part) is None:
            return self
        return self.model_copy(
            update={
                "indices": tuple(index - part.first for index in self.indices),
                "times_s": tuple(max(0.0, round(time_s - part.start_s, 6)) for time_s in self.times_s),
                "source_frames": part.frames,
                "duration_s": round(part.end_s - part.start_s, 6),
                "part": None,
            }
        )

    @property
    def shown(self) -> Shown:
        """What a typed value of a trace has to lie in."""
        width, height = max(self.width, self.source_width), max(self.height, self.source_height)
        start_s = None if self.part is None else self.part.start_s
        shown = Shown.by_frames(self.indices, self.times_s, self.times, start_s=start_s)
        if self.look is not None and (self.look.candidates or self.look.dropped):
            # the first and the last frame need not be among them
            shown = Shown(None if self.times == "assumed" else self.seen.duration_s, self.seen.source_frames)
        return shown._replace(width=width, height=height)


@dataclass(frozen=True, slots=True)
class Frames:
    """Sampled pixels, with what a model must know about their times.

    Attributes:
        record: what was sampled.
        array: uint8 [T, H, W, 3], RGB; None when only encoded frames were asked for.
        encoded: T encoded pictures (JPEG or PNG bytes); empty when only the array was asked for.
        mime: media type of `encoded`.
        path: the file that they were sampled from, for a server that is given the file itself.
    """

    record: MediaRecord
    array: NDArray[np.uint8] | None = None
    encoded: tuple[bytes, ...] = ()
    mime: Literal["image/jpeg", "image/png"] = "image/jpeg"
    path: Path | None = None

    @property
    def nbytes(self) -> int:
        """Bytes of the pixels, or of the encoded pictures."""
        return (0 if self.array is None else self.array.nbytes) + sum(map(len, self.encoded))


@dataclass(frozen=True, slots=True)
class Message:
    """One message; `media` says that the request's media stand before the text of this message."""

    role: Role
    text: str
    media: bool = False


@dataclass(frozen=True, slots=True)
class SamplingParams:
    """Sampling parameters of a call; `seed` and `top_p` are sent only when set."""

    temperature: float = 0.0
    max_tokens: int = 1024
    """Completion tokens at most."""
    top_p: float | None = None
    seed: int | None = None

    def canonical(self) -> dict[str, Any]:
        """The fields that count for the request's key."""
        return {name: getattr(self, name) for name in self.__slots__}


@dataclass(frozen=True)
class Request:
    """One model call. Two requests with equal content have one key, and are paid once.

    Attributes:
        purpose: which step asks (part of the key).
        model: model id as asked for.
        messages: system (optional, first) and user messages.
        params: how to decode.
        media: what was sampled for it, or None.
        media_encoding: how frames look on the wire, e.g. `jpeg-95`, or `source` for the bytes of the file
            itself; `file`: the server is given the clip's file and takes its own frames, so that the file's
            digest is in the key too; in the key if there are media.
        variant: digest of what else shapes the answer (model revision, more body fields); empty if nothing.
        frames: what is sent of `media`, where a request waits for its batch.
    """

    purpose: Purpose
    model: str
    messages: tuple[Message, ...]
    params: SamplingParams = field(default_factory=SamplingParams)
    media: MediaRecord | None = None
    media_encoding: str = ""
    variant: str = ""
    frames: Frames | None = field(default=None, compare=False, repr=False)

    @cached_property
    def key(self) -> str:
        """sha256 of the canonical content: 64 hexadecimal digits, also the id in a batch."""
        shown: list[Any] | None = None
        if self.media is not None:
            media = self.media.seen
            shown = [media.data_type, media.frames_sha256, media.indices, media.times_s, self.media_encoding]
            if self.media.part is not None:  # which its last frame does not tell
                shown += [media.source_frames, media.duration_s]
            if self.sends_file:
                part = self.media.part
                shown += [media.file_sha256, *((part.start_s, part.end_s) if part else ())]
        return digest(
            {
                # A change here changes every key, so that no journal would answer any more.
                "v": 1,
                "purpose": self.purpose,
                "model": self.model,
                "messages": [[m.role, m.text, m.media] for m in self.messages],
                "params": self.params.canonical(),
                "variant": self.variant,
                "media": shown,
            }
        )

    @property
    def sends_file(self) -> bool:
        """Whether the server is given the file of the clip."""
        return self.media_encoding == "file"


class Usage(Model):
    """Tokens of one call as the server counted them; 0 where it does not say."""

    input_tokens: int = Field(default=0, ge=0)
    """Prompt tokens that were neither read from nor written to a prompt cache."""
    output_tokens: int = Field(default=0, ge=0)
    cache_read_tokens: int = Field(default=0, ge=0)
    cache_write_tokens: int = Field(default=0, ge=0)


class Completion(Model):
    """What a model answered."""

    text: str
    finish_reason: FinishReason
    model: str
    """Model id as the server reports it."""
    usage: Usage = Usage()
    batched: bool = False
    """Came through a batch API, at its price."""
    reasoning_chars: int = Field(default=0, ge=0)
    """Characters that the server took out of the text as reasoning (`reasoning_content`)."""


@runtime_checkable
class Backend(Protocol):
    """One model behind one protocol; `backends.Caller` adds retries, limits and the journal."""

    model: str
    """Model id as asked for."""

    async def start(self) -> None:
        """Open connections or load weights; called once, in the running loop."""

    async def complete(self, request: Request, frames: Frames | None = None) -> Completion:
        """One call, one try.

        Raises:
            TransientError, RefusedError, AuthError: see `errors`.
        """
        ...

    async def close(self) -> None:
        """Free what `start` took; safe to call twice."""


class ServedModel(NamedTuple):
    """One model of a server.

    Attributes:
        model: its id, as a request names it.
        context: tokens of prompt and answer together; None: the server does not say.
        prompt: tokens of the prompt alone; None: the server does not say.
        note: why not to use it (`deprecated`, `retired`), or empty.
    """

    model: str
    context: int | None = None
    prompt: int | None = None
    note: str = ""


@runtime_checkable
class ListsModels(Protocol):
    """A backend whose server lists its models."""

    async def models(self) -> list[ServedModel] | None:
        """The models; None: this server keeps no list.

        Raises:
            TransientError, AuthError: as `Backend.complete`.
        """
        ...


@runtime_checkable
class KnowsContext(Protocol):
    """A backend in this process: it knows its model's length once it is loaded."""

    @property
    def context(self) -> int | None:
        """Tokens of prompt and answer together; None: not loaded, or the model does not say."""
        ...


BatchState = Literal["in_progress", "ended"]


@dataclass(frozen=True, slots=True)
class BatchInfo:
    """One batch as its server lists it."""

    batch_id: str
    state: BatchState
    total: int
    """Requests in it."""
    created_at_s: float
    """Unix seconds, by the server's clock."""
    label: str = ""
    """The name it was given, `batch_log.label_of` its keys; empty: the server keeps none."""


@dataclass(frozen=True, slots=True)
class BatchResult:
    """One answer out of a batch; exactly one of `completion` and `error` is set."""

    key: str
    completion: Completion | None
    error: Exception | None
    """`TransientError` (expired, cancelled, server error: ask again) or `RefusedError` (for good)."""


class BatchBackend(Protocol):
    """A server that takes many requests at once and answers hours later, under a durable id."""

    async def submit(self, requests: Sequence[Request]) -> str:
        """Hand over, with the frames of each; returns the batch id."""
        ...

    async def poll(self, batch_id: str) -> BatchInfo:
        """How far it is."""
        ...

    async def listing(self, *, created_after_s: float) -> list[BatchInfo]:
        """The batches of this account made since then, newest first."""
        ...

    def collect(self, batch_id: str) -> AsyncGenerator[BatchResult, None]:
        """The answers of an ended batch, in any order."""
        ...

    async def close(self) -> None:
        """Close every connection; nothing at the server changes."""


# The kinds of backend that a recipe may name. A new one is a module with its class, and one entry here. An
# entry says what must be known before the class is loaded: `check` and `doctor` ask it without a library.

FrameForm = Literal["encoded", "array"]


class BackendKind(NamedTuple):
    """What is declared of one kind of backend.

    Attributes:
        makes: `package.module:Class`, imported when the first backend of the kind is made. The class takes
            a `BackendSpec` and has the methods of `schemas.calls.Backend`. Empty: the builders
            make it, since it needs more than the recipe (the demo world).
        frames: what a decoder process hands over: `encoded` pictures (JPEG or PNG bytes), or one `array`
            (uint8 [T, H, W, 3], RGB).
        batches: `package.module:Class` of its batch API, a `schemas.calls.BatchBackend`; empty: live calls
            only.
        needs_address: whether a recipe must say `base_url`.
        billed_by: owner of the server that is meant without `base_url`, whose calls are never free; empty:
            there is no such server.
        libraries: packages that must be importable because the model is loaded into this process; empty:
            the model is behind a server.
        extra: the extra of videop2r-data that installs them.
        shaping: settings of `extra` in the recipe that change what a model is asked, and so the keys of its
            requests; those of a kind that loads a model say how it is loaded, and stay out of the keys.
        pixels_per_token: pixels of a frame that make one token; None: `media.factor` squared.
        pairs_frames: whether two frames of a clip share their tokens.
    """

    makes: str
    frames: FrameForm = "encoded"
    batches: str = ""
    needs_address: bool = False
    billed_by: str = ""
    libraries: tuple[str, ...] = ()
    extra: str = ""
    shaping: tuple[str, ...] = ()
    pixels_per_token: int | None = None
    pairs_frames: bool = True


BACKENDS: dict[str, BackendKind] = {
    "openai": BackendKind(
        makes="videop2r_data.backends.openai.client:OpenAIBackend",
        batches="videop2r_data.backends.batch_apis:OpenAIBatches",
        needs_address=True,
        shaping=("body", "video"),
    ),
    "vllm": BackendKind(
        makes="videop2r_data.backends.local.vllm:VllmBackend",
        frames="array",
        libraries=("vllm",),
        extra="vllm",
    ),
    "anthropic": BackendKind(
        makes="videop2r_data.backends.anthropic.client:AnthropicBackend",
        batches="videop2r_data.backends.batch_apis:AnthropicBatches",
        billed_by="Anthropic",
        pixels_per_token=750,
        pairs_frames=False,
    ),
    "gemini": BackendKind(
        makes="videop2r_data.backends.gemini.client:GeminiBackend",
        batches="videop2r_data.backends.batch_apis:GeminiBatches",
        billed_by="Google",
        shaping=("body",),
        pairs_frames=False,
    ),
    "transformers": BackendKind(
        makes="videop2r_data.backends.local.transformers:TransformersBackend",
        frames="array",
        libraries=("torch", "transformers"),
        extra="train",
    ),
    "demo": BackendKind(makes="", shaping=("error_rate", "error_seed")),
}


def known_kind(name: str) -> str:
    """The name of a kind, as it is.

    Raises:
        PydanticCustomError: there is no such kind; it reads and is told like a wrong value of a `Literal`.
    """
    if name not in BACKENDS:
        *most, last = map(repr, BACKENDS)
        expected = {"expected": f"{', '.join(most)} or {last}"}
        raise PydanticCustomError("literal_error", "Input should be {expected}", expected)
    return name
