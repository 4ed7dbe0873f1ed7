"""From a recipe to the backend of one of its steps."""

from __future__ import annotations

from typing import Literal

from videop2r_data.builders.workspace import Workspace
from videop2r_data.errors import ConfigError
from videop2r_data.schemas import Backend, BackendSpec, Recipe


def backend_of(recipe: Recipe, place: Workspace, spec: BackendSpec) -> Backend:
    """The backend that answers a step, not started yet.

    Args:
        recipe: its media settings say how frames travel.
        place: where a demo world lies.
        spec: the step's backend.

    Raises:
        ConfigError: the settings do not fit the kind, or a demo backend has no demo source.
        MissingExtraError: the kind's library is not installed.
    """
    from videop2r_data.backends.kinds import make_backend

    def demo(spec: BackendSpec) -> Backend:
        from videop2r_data.demo import DemoBackend

        world = next((s.name for s in recipe.sources if s.kind == "demo"), None)
        if world is None:
            raise ConfigError(
                "a backend of kind demo answers only for a source of kind demo", where=recipe.name
            )
        return DemoBackend(spec, place.demo / world)

    return make_backend(spec, media=recipe.media, demo=demo)


def wanted_frames(recipe: Recipe) -> Literal["array", "encoded"]:
    """In which form the generator takes frames."""
    return "array" if recipe.generate.backend.kind in ("vllm", "transformers") else "encoded"
