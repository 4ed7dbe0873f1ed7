"""The kinds of backend that a recipe may name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol, runtime_checkable

from videop2r_data.errors import ConfigError
from videop2r_data.schemas import Backend, BackendSpec, MediaSpec

# Which models a server says that it has, and how much each of them takes: free, before any call.


LIST_S = 15.0
"""Seconds for the list of models: a server that serves answers it at once."""


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


def parse_models(data: Any) -> list[ServedModel] | None:
    """The models of a decoded `GET /v1/models`; None if it is no such list.

    `max_model_len` is what vLLM and SGLang say; other servers tell no length.

    >>> parse_models({"data": [{"id": "m", "max_model_len": 4096}]})
    [ServedModel(model='m', context=4096, prompt=None, note='')]
    """
    listed = data.get("data") if isinstance(data, dict) else None
    if not isinstance(listed, list):
        return None
    found = []
    for entry in listed:
        name = entry.get("id") if isinstance(entry, dict) else None
        if isinstance(name, str):
            length = entry.get("max_model_len")
            found.append(ServedModel(name, length if type(length) is int and length > 0 else None))
    return found


# From a recipe's backend settings to a backend.


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
    from videop2r_data.backends.openai.client import OpenAIBackend

    return OpenAIBackend(spec, encoding=media.wire)


def _anthropic(spec: BackendSpec, media: MediaSpec) -> Backend:
    from videop2r_data.backends.anthropic.client import AnthropicBackend

    return AnthropicBackend(spec, encoding=media.wire)


def _vllm(spec: BackendSpec, media: MediaSpec) -> Backend:
    from videop2r_data.backends.local.vllm import VllmBackend

    return VllmBackend(spec)


def _transformers(spec: BackendSpec, media: MediaSpec) -> Backend:
    from videop2r_data.backends.local.transformers import TransformersBackend

    return TransformersBackend(spec)


MAKERS: dict[str, Maker] = {
    "openai": _openai,
    "anthropic": _anthropic,
    "vllm": _vllm,
    "transformers": _transformers,
}
