"""The kinds of backend that a recipe may name. A new one is a module with its class, and one entry here.

An entry says what must be known before the class is loaded: `check` and `doctor` ask it without a library
installed, and a recipe is checked against it.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

from pydantic_core import PydanticCustomError

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
        batches="videop2r_data.backends.anthropic.client:AnthropicBatches",
        billed_by="Anthropic",
        pixels_per_token=750,
        pairs_frames=False,
    ),
    "transformers": BackendKind(
        makes="videop2r_data.backends.local.transformers:TransformersBackend",
        frames="array",
        libraries=("torch", "transformers"),
        extra="train",
    ),
    "demo": BackendKind(makes=""),
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
