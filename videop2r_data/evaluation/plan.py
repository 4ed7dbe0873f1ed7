"""The plan of a command: a file, a run's folder or a model, with the flags that were given."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from functools import reduce
from pathlib import Path
from typing import Any, NamedTuple

import orjson

from videop2r_data.errors import ConfigError
from videop2r_data.evaluation.pools import OWN
from videop2r_data.evaluation.target import EVAL, RECIPE, of_run
from videop2r_data.files import built_grammar, find_model, locate
from videop2r_data.schemas import (
    WEIGHTS,
    EvalPlan,
    digest,
    parse_mapping,
    parse_set,
    read_settings,
    validate_settings,
)

_BLOCKS, _BLOCK = 64, 2**16


class Meant(NamedTuple):
    """What a command means.

    Attributes:
        plan: what is asked of whom.
        base: folder that its paths are relative to.
        out: where the result goes, unless the command says it.
        run: the training run that is evaluated; None: something else.
    """

    plan: EvalPlan
    base: Path
    out: Path
    run: Path | None


def plan_of(what: str | None, given: Mapping[str, Any], *, device: str = "") -> Meant:
    """The plan that a command means.

    Args:
        what: a plan's file; the folder of a run or of a model; a Hub id; None: the settings alone.
        given: settings of the command, by the names of the plan; they win. Paths in them are relative to the
            current folder. `pool`: settings of every benchmark; `set`: texts `key.path=value`, which win.
        device: for a model in this process; empty: what there is.

    Raises:
        ConfigError: nothing of the kind is there, or settings that do not fit; all errors at once.
    """
    for text in given.get("set") or ():
        key, value = parse_set(text)
        given = merged(given, reduce(lambda inner, name: {name: inner}, reversed(key.split(".")), value))
    path = Path(what).expanduser() if what is not None else None
    # those of a plan's file start from there
    named = {"benchmarks": [_from_here(pool) for pool in given.get("benchmarks") or ()] or None}
    every = _from_here(given.get("pool") or {})
    given = {**given, **named, "pool": None, "set": None}
    run, base, told = None, Path(), {}
    if path is not None and path.is_file():
        told = parse_mapping(
            read_settings(path), where=what or "", what="plan", valid="see docs/evaluation.md"
        )
        base = path.parent
    elif path is not None and (path / RECIPE).is_file():
        run = path
        told, given = of_run(path, given), given | {"benchmarks": None}
    elif what is not None and path is not None:
        told = {"backend": _model(what, path)}
    settings = merged(told, given)
    backend = settings.get("backend") or {}
    if isinstance(backend, Mapping) and not backend.get("model"):
        raise ConfigError(
            "nobody is asked",
            where=what or "",
            hint="name a run, a model folder, a Hub id or a plan; "
            "or --backend openai --model NAME --base-url URL",
        )
    if isinstance(backend, Mapping):
        settings["backend"] = _in_process(backend, device)
        media, factor = settings.get("media") or {}, patch_factor(str(backend["model"]))
        if factor is not None and isinstance(media, Mapping):
            settings["media"] = {"factor": factor, **media}
    judges = settings.get("judges")
    for other in (*(judges if isinstance(judges, list) else ()), settings.get("exam")):
        if isinstance(other, dict) and isinstance(other.get("backend"), dict):
            other["backend"] = _of_these_weights(other["backend"])
    if not settings.get("benchmarks"):
        raise ConfigError("no benchmark is named", hint="add --benchmark NAME, FOLDER, FILE, HUB_ID or demo")
    if not isinstance(settings["benchmarks"], str | Mapping):
        settings["benchmarks"] = [_pool(one, every, base, settings) for one in settings["benchmarks"]]
    plan = validate_settings(
        settings, EvalPlan, where=what or "the flags", what="plan", base=base,
        allowed="docs/evaluation.md lists what is allowed",
    )  # fmt: skip
    return Meant(plan, base, _out(plan, run), run)


def _model(what: str, path: Path) -> dict[str, str]:
    """A folder of weights or a Hub id, asked in this process."""
    if path.suffix in (".yaml", ".yml", ".json"):
        raise ConfigError("no such plan", where=what, hint="docs/evaluation.md has one to start from")
    find_model(what, where=what)
    return {"kind": "transformers", "model": str(path) if path.is_dir() else what}


def merged(told: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Settings with others put over them, section by section; None leaves a setting as it is."""
    found = dict(told)
    for name, value in given.items():
        below = found.get(name)
        if isinstance(value, Mapping) and name != "demo":
            some = merged(below if isinstance(below, Mapping) else {}, value)
            # where nothing is put over it, what is no section stays, and is refused with the rest
            found[name] = some if some or below is None else below
        elif value is not None:
            found[name] = value
    return found


def _from_here(pool: Mapping[str, Any]) -> dict[str, Any]:
    """A pool whose paths start from the current folder."""
    paths = {
        name: Path(str(pool[name])).expanduser()
        for name in ("path", "media_root", "benchmark")
        if pool.get(name)
    }
    return {**pool, **{name: str(path.absolute()) for name, path in paths.items() if path.exists()}}


def _in_process(backend: Mapping[str, Any], device: str) -> dict[str, Any]:
    """The backend that is evaluated: in this process float32 on a CPU, the model's own type elsewhere."""
    found = _of_these_weights(backend)
    if found.get("kind") == "transformers":
        found.setdefault("concurrency", 2)  # one at a time is answered; the next one's frames are ready
        if device:
            usual = {"device_map": device, "dtype": "float32" if device == "cpu" else "bfloat16"}
            found["extra"] = usual | (found.get("extra") or {})
    return found


def _of_these_weights(backend: Mapping[str, Any]) -> dict[str, Any]:
    """A backend whose requests name the digest of its weights, if they lie here, and not where they lie."""
    folder = Path(str(backend.get("model"))).expanduser()
    local = backend.get("kind") in ("transformers", "vllm") and folder.is_dir()
    known = {"revision": weights_digest(folder)} if local and not backend.get("revision") else {}
    return {**backend, **known}


def weights_digest(folder: Path) -> str:
    """sha256 over names, sizes and evenly spaced parts of a model's files, and over its settings as a whole.

    Training changes nearly every weight, so a few MB of each file tell two checkpoints apart.
    """
    seen = hashlib.sha256()
    for path in sorted(p for p in folder.iterdir() if p.suffix in (".safetensors", ".bin", ".json")):
        size = path.stat().st_size
        seen.update(f"{path.name}\0{size}\0".encode())
        with path.open("rb") as file:
            whole = path.suffix == ".json" or size <= _BLOCKS * _BLOCK
            for at in (0,) if whole else range(0, size, size // _BLOCKS):
                file.seek(at)
                seen.update(file.read(-1 if whole else _BLOCK))
    return WEIGHTS + seen.hexdigest()[:16]


def patch_factor(model: str) -> int | None:
    """Patch size times merge size of a local model's processor; None where its files do not say."""
    for name in ("preprocessor_config.json", "processor_config.json"):
        try:
            found = orjson.loads((Path(model) / name).read_bytes())
        except (OSError, ValueError):
            continue
        part = found.get("image_processor", found) if isinstance(found, dict) else {}
        patch, merge = part.get("patch_size"), part.get("merge_size")
        if isinstance(patch, int) and isinstance(merge, int):
            return patch * merge
    return None


def _pool(pool: Any, every: Mapping[str, Any], base: Path, settings: dict[str, Any]) -> Any:
    """A benchmark with the flags that are for all of them.

    A folder that `p2r-data build` wrote is read as its questions, and asked for its traces.
    """
    if isinstance(pool, str):
        pool = {"path": pool} if "/" in pool or "." in pool else {"name": pool}
    if not isinstance(pool, Mapping):
        return pool
    found = {**pool, **every}
    folder = locate(str(found.get("path") or ""), base)
    if found.get("path") and (grammar := built_grammar(folder)) is not None:
        found = {"name": folder.resolve().name, "benchmark": OWN} | found
        settings.setdefault("trace", grammar.model_dump(mode="json"))
    return found


def _out(plan: EvalPlan, run: Path | None) -> Path:
    if run is None:
        return Path(plan.name)
    name = "-".join(pool.name for pool in plan.benchmarks)[:60]
    settings = plan.model_dump(mode="json", exclude={"max_cost", "scoring"})
    settings["backend"]["model"] = plan.backend.identity
    settings["backend"].pop("base_urls", None)
    return run / EVAL / f"{name}-{digest(settings)[:8]}"
