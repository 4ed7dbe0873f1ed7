"""What all sections of a recipe have in common: contradictions are told together, defaults stay unsaid."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any, Self

from pydantic import model_validator

from videop2r_data.schemas import Model


def unless(usual: Any) -> dict[str, Any]:
    """Keeps a setting with its default out of a dump: older runs lack it, and go on."""
    return {"default": usual, "exclude_if": lambda value: value == usual}


class Section(Model, ABC):
    """Settings that must fit each other; all that does not fit is told at once."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if problems := list(self._problems()):
            raise ValueError("; ".join(problems))
        return self

    @abstractmethod
    def _problems(self) -> Iterator[str]:
        """What does not fit, in words."""
