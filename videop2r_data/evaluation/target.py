"""What a training run says of its evaluation: its final model, and the settings it was trained with."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import orjson

from videop2r_data.errors import ConfigError
from videop2r_data.schemas import HELD_OUT, PAPER_FRAMES, MediaSpec, parse_mapping, read_settings

RECIPE, RUN, FINAL, EVAL = "recipe.yaml", "run.json", "final", "eval"
_DEMO = {"kind": "demo", "model": "demo-judge"}
_JUDGES = [
    {"name": decides, "decides": decides, "backend": _DEMO}
    for decides in ("sufficiency", "faithfulness", "conclusion")
]


def of_run(run: Path, given: Mapping[str, Any]) -> dict[str, Any]:
    """What a run says of its evaluation: model, held-out questions, prompt, trace, frames, sampling, judge.

    Raises:
        ConfigError: the run has no final model yet, or its files cannot be read.
    """
    model = run / FINAL
    if not (model / "config.json").is_file():
        raise ConfigError(
            "this run has no final/ yet",
            where=str(run),
            hint="let it end (the same p2r-train command goes on), or name a model folder",
        )
    recipe = parse_mapping(
        read_settings(run / RECIPE), where=str(run / RECIPE), what="training recipe", valid=""
    )
    training = _section(recipe, "data")
    # questions of somebody else are looked at as in training, the run's own as the recipe says
    held = {} if given.get("benchmarks") else _section(recipe, "evaluation")
    found: dict[str, Any] = {
        "name": _name(run.resolve().name),
        "backend": {"kind": "transformers", "model": str(model)},
        "media": _media(training, held),
        "scoring": dict(_section(recipe, "scoring")) or None,
        "trace": _grammar(run, training),
        **_sampling(recipe),
    }
    for name in ("style", "prompt"):
        value = held.get(name) or training.get(name)
        found |= {name: value} if value else {}
    if found.get("prompt") and not str(found["prompt"]).startswith("generate-"):
        found["question_only_prompt"] = found["prompt"]  # the only one that the model knows
    pools = [_of_world(pool, training) for pool in given.get("benchmarks") or ()]
    if held.get("source"):
        pools = [_held_out(held, training)]
    found["benchmarks"] = pools
    if (given.get("style") or found.get("style")) != "agnostic" and given.get("judges") is None:
        found["judges"] = _judges(_section(recipe, "judging"), pools)
    return {name: value for name, value in found.items() if value is not None}


def _held_out(held: Mapping[str, Any], training: Mapping[str, Any]) -> dict[str, Any]:
    if held["source"] == "demo":
        return {"name": "demo", "demo": _world(training, held)}
    kept = ("media_root", "split", "revision", "start", "limit", "config")
    return {"path": str(held["source"])} | {name: held[name] for name in kept if held.get(name)}


def _of_world(pool: Mapping[str, Any], training: Mapping[str, Any]) -> dict[str, Any]:
    demo = pool.get("name") == "demo" and "demo" not in pool
    return {**pool, "demo": _world(training, {})} if demo else dict(pool)


def _world(training: Mapping[str, Any], held: Mapping[str, Any]) -> dict[str, Any]:
    """The demo world that the run was trained on, at scenes of its own."""
    # the stream of a training gives pixels that no codec has touched
    stream = training.get("source") == "demo"
    world = (
        {"numbered": False, "rotated": False}
        | ({"exact": True} if stream else {})
        | dict(_section(training, "demo"))
        | dict(_section(held, "demo"))
    )
    rows = held.get("limit") or HELD_OUT["rows"]
    return world | {"rows": rows, "questions": 1, "start": held.get("start") or HELD_OUT["start"]}


def _media(training: Mapping[str, Any], held: Mapping[str, Any]) -> dict[str, Any]:
    """Frames and pixels of the questions, unless the recipe sets them for evaluation.

    The paper trains on 16 frames of 128 * 28 * 28 pixels and evaluates on 32 of 256 * 28 * 28. A run with
    the paper's training settings is evaluated like that; any other run as it was trained.
    """
    if held.get("media"):
        return dict(_section(held, "media"))
    trained, usual = dict(_section(training, "media")), MediaSpec()
    trained.pop("look", None)  # noise in training is none in evaluation
    frames, pixels = trained.get("frames", usual.frames), trained.get("max_pixels", usual.max_pixels)
    return trained | (PAPER_FRAMES if (frames, pixels) == (usual.frames, usual.max_pixels) else {})


def _grammar(run: Path, training: Mapping[str, Any]) -> Any:
    """What the model writes: the trace that it was trained on."""
    try:
        return orjson.loads((run / RUN).read_bytes())["data"]["trace"]
    except (OSError, ValueError, LookupError, TypeError):
        return training.get("trace")


def _sampling(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """As the recipe evaluates, else as in the paper."""
    asked = _section(_section(recipe, "evaluating"), "sampling")
    names = {"temperature": "temperature", "top_p": "top_p", "max_new_tokens": "max_tokens"}
    return {names[name]: value for name, value in asked.items() if name in names}


def _judges(judging: Mapping[str, Any], pools: Any) -> list[dict[str, Any]] | None:
    """The judge of the training; questions of the demo world alone get its own, which cost nothing."""
    if judging.get("kind") == "backend" and judging.get("backend"):
        kept = ("backend", "prompt", "temperature", "max_tokens")
        return [{"name": "sufficiency"} | {name: judging[name] for name in kept if name in judging}]
    demo = [isinstance(pool, Mapping) and pool.get("name") == "demo" for pool in pools]
    return _JUDGES if demo and all(demo) else None


def _section(values: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found = values.get(name)
    return found if isinstance(found, Mapping) else {}


def _name(text: str) -> str:
    return "".join(c if c.isalnum() or c in "._-" else "-" for c in text).lstrip("._-") or "run"
