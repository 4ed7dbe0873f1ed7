"""Which models a server says that it has, and how much each of them takes: free, before any call."""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol, runtime_checkable

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
