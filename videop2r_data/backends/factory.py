"""From a recipe's backend settings to a backend."""

from __future__ import annotations

from collections.abc import Callable

from videop2r_data.errors import ConfigError
from videop2r_data.schemas.calls import Backend
from videop2r_data.schemas.recipe import BackendSpec, MediaSpec

Maker = Callable[[BackendSpec, MediaSpec], Backend]


def make_backend(
    spec: BackendSpec, *, media: MediaSpec, demo: Callable[[BackendSpec], Backend] | None = None
) -> Backend:
    """The backend that the settings ask for; nothing is loaded or opened before its `start`.

    Args:
        spec: kind, model, address, settings.
        media: how frames are sampled and encoded.
        demo: makes the `demo` backend; handed in, since the demo world is a room on the same level.

    Raises:
        ConfigError: the settings do not fit the kind.
        MissingExtraError: the kind's library is not installed.
    """
    if spec.kind == "demo":
        if demo is None:
            raise ConfigError(
                "kind demo answers only questions of the demo world",
                hint="use kind openai, vllm, anthropic or transformers",
            )
        return demo(spec)
    return MAKERS[spec.kind](spec, media)


def _openai(spec: BackendSpec, media: MediaSpec) -> Backend:
    from videop2r_data.backends.openai import OpenAIBackend

    return OpenAIBackend(spec, encoding=media.wire)


def _anthropic(spec: BackendSpec, media: MediaSpec) -> Backend:
    from videop2r_data.backends.anthropic import AnthropicBackend

    return AnthropicBackend(spec, encoding=media.wire)


def _vllm(spec: BackendSpec, media: MediaSpec) -> Backend:
    from videop2r_data.backends.vllm_engine import VllmBackend

    return VllmBackend(spec)


def _transformers(spec: BackendSpec, media: MediaSpec) -> Backend:
    from videop2r_data.backends.transformers_local import TransformersBackend

    return TransformersBackend(spec)


MAKERS: dict[str, Maker] = {
    "openai": _openai,
    "anthropic": _anthropic,
    "vllm": _vllm,
    "transformers": _transformers,
}
