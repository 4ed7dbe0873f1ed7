"""`p2r-train eval`: load a model, answer the questions, write the report."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from videop2r_data.schemas import digest
from videop2r_data.trainer.data.specs import DataSpec
from videop2r_data.trainer.evaluate.evaluate import Progress, evaluate
from videop2r_data.trainer.evaluate.ranks import Ranks
from videop2r_data.trainer.evaluate.report import EvalReport
from videop2r_data.trainer.evaluate.settings import checked, exact_judge, settings_of
from videop2r_data.trainer.evaluate.specs import EvalRecipe
from videop2r_data.trainer.evaluate.store import RowStore
from videop2r_data.trainer.evaluate.target import EVAL, Target, model_digest
from videop2r_data.trainer.judging.make import make_judge


class Evaluated(NamedTuple):
    """A finished evaluation."""

    report: EvalReport
    folder: Path
    main: bool
    """This process is the first one: it speaks for all."""


def run_eval(
    target: Target,
    recipe: EvalRecipe,
    *,
    device: str,
    out: Path | None = None,
    progress: Progress | None = None,
    note: Callable[[str], None] | None = None,
) -> Evaluated:
    """Evaluate; the same call goes on where a stopped one ended.

    Args:
        target, recipe: what, and how.
        device: `cpu`, `cuda`, `cuda:1` ...
        out: folder of rows and report; None: `RUN/eval/DATA-DIGEST/` (`eval/MODEL/...` for another model).
        progress: is told how far this process is.
        note: is told what a person wants to know.

    Raises:
        ConfigError, SourceError, AuthError, BudgetError: see the message; finished rows are kept.
    """
    from videop2r_data.trainer.data.examples import read_examples
    from videop2r_data.trainer.model.load import load_policy

    data = checked(recipe.data)
    ranks = Ranks.here()
    settings = _settings(recipe, data)
    base = (target.run or Path()) / EVAL if target.run else Path(EVAL) / target.name
    folder = out or base / f"{_plain(data.source)}-{digest(settings)[:8]}"
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
    """All that decides a row: with other settings it goes into another folder."""
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


def _plain(source: str) -> str:
    """A data set's name as part of a folder's name."""
    name = Path(source).name or source
    return "".join(c if c.isalnum() or c in "._-" else "-" for c in name)[:60].lstrip(".") or "data"
