"""What is evaluated and how: `p2r-train eval` on a model, and held-out questions between training steps."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import orjson

from videop2r_data.errors import ConfigError
from videop2r_data.prompts import load_prompt
from videop2r_data.schemas import MediaSpec, digest, parse_mapping, read_settings, validate_settings
from videop2r_data.trainer.data.examples import ENDLESS, Example
from videop2r_data.trainer.data.rows import read_examples
from videop2r_data.trainer.evaluate.questions import Progress, Ranks, RowStore, evaluate
from videop2r_data.trainer.evaluate.report import EvalReport
from videop2r_data.trainer.judging.base import DemoJudge, Judge
from videop2r_data.trainer.judging.model import make_judge
from videop2r_data.trainer.model.load import load_policy
from videop2r_data.trainer.rollout.base import RolloutEngine
from videop2r_data.trainer.settings.parts import (
    PAPER_MEDIA,
    PAPER_SAMPLING,
    DataSpec,
    EvalRecipe,
    EvalSpec,
    run_grammar,
)

# The target: a run of this trainer or any model, and the settings that follow from it.


DEMO_START, DEMO_LIMIT = 10_000_000, 200
"""Held-out scenes of the demo stream: beyond those of a training run of any ordinary length."""
RECIPE, FINAL, EVAL = "recipe.yaml", "final", "eval"


@dataclass(frozen=True)
class Target:
    """A model to evaluate.

    Attributes:
        name: for people and for folder names.
        model: folder or Hub id.
        run: the run's folder, or None for any other model.
        recipe: the run's recipe as plain values; {} without one.
    """

    name: str
    model: str
    run: Path | None
    recipe: Mapping[str, Any]


def find_target(named: str) -> Target:
    """A run's folder (its `final/` is meant), a model's folder, or a Hub id.

    Raises:
        ConfigError: a run that has no final model yet, or a folder without a model.
    """
    path = Path(named).expanduser()
    if not path.is_dir():
        if path.exists() or named.count("/") != 1 or named.startswith((".", "/", "~")):
            raise ConfigError(
                "neither a folder nor a Hub id (owner/name)", where=named, hint="name a run or a model"
            )
        return Target(named.rpartition("/")[2], named, None, {})
    if (path / RECIPE).is_file():
        model = path / FINAL
        if not (model / "config.json").is_file():
            raise ConfigError(
                "this run has no final/ yet",
                where=str(path),
                hint="let it end (the same p2r-train command goes on), or name a model folder",
            )
        recipe = parse_mapping(
            read_settings(path / RECIPE), where=str(path / RECIPE), what="training recipe", valid=""
        )
        return Target(path.resolve().name, str(model), path, recipe)
    if not (path / "config.json").is_file():
        raise ConfigError(
            "no model in this folder: there is no config.json and no recipe.yaml",
            where=str(path),
            hint="name the folder of a run, or of a model as from_pretrained loads it",
        )
    return Target(path.resolve().name, str(path), None, {})


def eval_recipe(target: Target, given: Mapping[str, Any], *, device: str) -> EvalRecipe:
    """The settings of an evaluation: given ones win over the run's recipe, which wins over the paper's.

    Args:
        target: the model, and the run that made it.
        given: sections `model`, `data`, `run`, `judging` with the settings that were named.
        device: float32 on `cpu`, else bfloat16, unless a type is given.

    Raises:
        ConfigError: no data are known, or settings that do not fit; all errors at once.
    """
    trained, asked = target.recipe, _section(given, "data")
    training = _section(trained, "data")
    data: dict[str, Any] = {} if asked.get("source") else dict(_section(trained, "evaluation"))
    for name in ("style", "prompt", "demo"):
        if name in training:
            data.setdefault(name, training[name])
    data.setdefault("config", "rl")
    data["media"] = {**_media(target, training, data), **_section(asked, "media")}
    data |= {key: value for key, value in asked.items() if key != "media"}
    if not data.get("source"):
        raise ConfigError("no held-out questions are named", hint="add --data FOLDER_OR_HUB_ID (or demo)")
    if data["source"] == "demo":
        data.setdefault("start", DEMO_START)
        data.setdefault("limit", DEMO_LIMIT)
    else:
        data.pop("demo", None)
    trained_judging = _section(trained, "judging")
    if trained_judging.get("kind", "none") == "none":
        trained_judging = {}  # not inherited: a run of grpo needs no judge, its evaluation may
    values = {
        "model": {
            "dtype": "float32" if device == "cpu" else "bfloat16",
            "gradient_checkpointing": False,
            **_section(given, "model"),
            "model": target.model,
        },
        "data": data,
        "run": _how(trained, _section(given, "run")),
        "judging": given.get("judging", trained_judging),
    }
    recipe = validate_settings(values, EvalRecipe, where=f"evaluation of {target.name}", what="settings")
    if target.run is None or "trace" in asked or recipe.data.grammar == run_grammar(target.run):
        return recipe
    # the model writes the traces that it was trained on, whatever the questions come with
    spoken = recipe.data.model_copy(update={"trace": run_grammar(target.run)})
    return recipe.model_copy(update={"data": spoken})


def _media(target: Target, training: Mapping[str, Any], data: Mapping[str, Any]) -> dict[str, Any]:
    """Frames and pixels of the questions, unless the recipe sets them for evaluation.

    The paper trains on 16 frames of 128 * 28 * 28 pixels and evaluates on 32 of 256 * 28 * 28. A run with the
    paper's training settings, and a model without a run, is evaluated like that; any other run as it was
    trained.
    """
    if data.get("media"):
        return dict(_section(data, "media"))
    trained = dict(_section(training, "media"))
    usual = MediaSpec()
    like_paper = (trained.get("frames", usual.frames), trained.get("max_pixels", usual.max_pixels)) == (
        usual.frames,
        usual.max_pixels,
    )
    if not like_paper:
        return trained
    if not trained and (factor := patch_factor(target.model)) is not None:
        trained["factor"] = factor
    return trained | {"frames": PAPER_MEDIA.frames, "max_pixels": PAPER_MEDIA.max_pixels}


def _how(trained: Mapping[str, Any], asked: Mapping[str, Any]) -> dict[str, Any]:
    """Sampling, grading and batch: as given, else as in the run's recipe, else as in the paper."""
    usual = _section(trained, "evaluating")
    sampling = (
        PAPER_SAMPLING.model_dump() | dict(_section(usual, "sampling")) | dict(_section(asked, "sampling"))
    )
    return {"scoring": _section(trained, "scoring"), **usual, **asked, "sampling": sampling}


def _section(values: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found = values.get(name)
    return found if isinstance(found, Mapping) else {}


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


def model_digest(model: str, revision: str | None) -> str:
    """sha256 over name and revision on the Hub, or over names, sizes and times of a folder's files."""
    folder = Path(model)
    if not folder.is_dir():
        return digest(["hub", model, revision])
    files = sorted(p for p in folder.iterdir() if p.suffix in (".safetensors", ".bin", ".json"))
    return digest([[p.name, p.stat().st_size, p.stat().st_mtime_ns] for p in files])


# Settings of rows.


def settings_of(spec: EvalSpec, data: DataSpec, **more: Any) -> dict[str, Any]:
    """Everything that affects a row, as a JSON object; a folder keeps rows of one value only.

    Args:
        spec: the batch size and the intervals are left out: they change no row.
        data: workers and look-ahead are left out.
        more: further values, e.g. the digest of the model.
    """
    return {
        **more,
        "sampling": spec.sampling.model_dump(mode="json", exclude={"rows"}),
        "seed": spec.seed,
        "scoring": spec.scoring.model_dump(mode="json"),
        "data": data.model_dump(
            mode="json", exclude={"workers", "ahead", "media_root", "shuffle", "tail", "bucket"}
        ),
        "prompt_sha256": load_prompt(data.prompt_name, grammar=data.grammar).sha256,
    }


def finite(data: DataSpec) -> DataSpec:
    """The same settings, after a check that the questions are finitely many.

    Raises:
        ConfigError: the demo stream without a limit.
    """
    if data.is_demo and (data.limit is None or data.limit >= ENDLESS):
        raise ConfigError(
            "the demo stream never ends", where="evaluation data", hint="set limit, e.g. limit: 200"
        )
    return data


def exact_judge(examples: Sequence[Example]) -> Judge | None:
    """The exact judge if the first questions have scenes, else None."""
    first = examples[:64]
    return DemoJudge() if first and all(example.scene is not None for example in first) else None


# The command.


class Evaluated(NamedTuple):
    """A finished evaluation."""

    report: EvalReport
    folder: Path
    main: bool
    """True in the first process, which reports."""


def run_eval(
    target: Target,
    recipe: EvalRecipe,
    *,
    device: str,
    out: Path | None = None,
    progress: Progress | None = None,
    note: Callable[[str], None] | None = None,
) -> Evaluated:
    """Evaluate a model; the same call continues a stopped evaluation.

    Args:
        target, recipe: what, and how.
        device: `cpu`, `cuda`, `cuda:1` ...
        out: folder of rows and report; None: `RUN/eval/DATA-DIGEST/` (`eval/MODEL/...` for another model).
        progress: is told how far this process is.
        note: called with messages for people.

    Raises:
        ConfigError, SourceError, AuthError, BudgetError: see the message; finished rows are kept.
    """
    data = finite(recipe.data)
    ranks = Ranks.here()
    settings = _settings(recipe, data)
    base = target.run / EVAL if target.run else Path(EVAL) / target.name
    name = "".join(c if c.isalnum() or c in "._-" else "-" for c in Path(data.source).name or data.source)
    folder = out or base / f"{name[:60].lstrip('.') or 'data'}-{digest(settings)[:8]}"
    store = RowStore(folder, settings, ranks=ranks)
    examples = read_examples(data)
    judge = make_judge(recipe.judging, cache=folder / "judge-cache", tell=note)
    judge = judge or (None if recipe.unjudged else exact_judge(examples))
    policy = load_policy(recipe.model, device)
    if judge is not None:
        judge.start()
    try:
        report = evaluate(
            policy.net,
            policy.processor,
            examples,
            data=data,
            spec=recipe.run,
            judge=judge,
            ranks=ranks,
            store=store,
            progress=progress,
        )
    finally:
        if judge is not None:
            judge.close()
    return Evaluated(report, folder, ranks.rank == 0)


def _settings(recipe: EvalRecipe, data: DataSpec) -> dict[str, Any]:
    """Everything that affects a row; their digest is part of the folder's name."""
    judging = recipe.judging
    return settings_of(
        recipe.run,
        data,
        model=model_digest(recipe.model.model, recipe.model.revision),
        dtype=recipe.model.dtype,
        judging={
            **judging.model_dump(mode="json", include={"kind", "prompt", "temperature", "max_tokens"}),
            "model": judging.backend.model if judging.backend else "",
            "unjudged": recipe.unjudged,
        },
    )


# During training.


class HeldOut:
    """Evaluates the same questions at each call; they are read once.

    Every process must call it at the same step.

    Args:
        processor: of the policy.
        data: the held-out questions; the demo stream needs a `limit`.
        spec: how to draw and to grade.
        judge: the training's, started; None: the exact judge for questions with a scene, else none.
        engine: the training's rollout engine if it draws as `spec.sampling` says; None: the policy itself.
        run: the run's folder: rows and reports go to `RUN/eval/step-000100/`; None: they are not written.

    Raises:
        ConfigError, SourceError: the questions cannot be read.
    """

    def __init__(
        self,
        processor: Any,
        data: DataSpec,
        *,
        spec: EvalSpec | None = None,
        judge: Judge | None = None,
        engine: RolloutEngine | None = None,
        run: Path | None = None,
    ) -> None:
        self.data = finite(data)
        self.spec = spec or EvalSpec()
        self.examples: Sequence[Example] = read_examples(self.data)
        self._processor, self._engine, self._run = processor, engine, run
        self._judge = judge or exact_judge(self.examples)

    def __call__(self, net: Any, step: int) -> dict[str, float]:
        """Metrics `eval/...` of the policy as it is now.

        Args:
            net: the policy, wrapped or not.
            step: names the folder of the rows.
        """
        ranks, store = Ranks.here(), None
        if self._run is not None:
            # Afresh: rows of an earlier attempt at this step may come from other weights (a changed recipe).
            settings = settings_of(self.spec, self.data, step=step)
            store = RowStore(self._run / EVAL / f"step-{step:06d}", settings, ranks=ranks, fresh=True)
        report = evaluate(
            net,
            self._processor,
            self.examples,
            data=self.data,
            spec=self.spec,
            judge=self._judge,
            engine=self._engine,
            ranks=ranks,
            store=store,
        )
        return report.metrics()
