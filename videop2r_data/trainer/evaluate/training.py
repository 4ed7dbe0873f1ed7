"""Held-out questions between the steps of a training run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from videop2r_data.errors import ConfigError
from videop2r_data.prompts import load_prompt
from videop2r_data.trainer.data.collate import Collator
from videop2r_data.trainer.data.examples import Example, read_examples
from videop2r_data.trainer.data.specs import DataSpec
from videop2r_data.trainer.evaluate.evaluate import evaluate
from videop2r_data.trainer.evaluate.ranks import Ranks
from videop2r_data.trainer.evaluate.settings import checked, exact_judge, settings_of
from videop2r_data.trainer.evaluate.specs import PAPER_SAMPLING, EvalSpec
from videop2r_data.trainer.evaluate.store import RowStore
from videop2r_data.trainer.judging.base import Judge
from videop2r_data.trainer.rollout.base import RolloutEngine
from videop2r_data.trainer.rollout.hf import HfEngine

if TYPE_CHECKING:
    from videop2r_data.trainer.run.session import Session

FOLDER = "eval"


class HeldOut:
    """Evaluates the same questions whenever it is called; they are read once.

    Every process must call it at the same step, after the step's metrics were taken from the judge: what it
    counts here is not training's, and is dropped.

    Args:
        processor: of the policy.
        data: the held-out questions; the demo stream needs a `limit`.
        spec: how to draw and to grade.
        judge: the training's, started; None: the exact checker for questions with a scene, else nobody.
        engine: the training's rollout engine if it draws as `spec.sampling` says; None: the policy itself.
        run: the run's folder: rows and reports go to `RUN/eval/step-000100/`; None: nothing is kept.

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
        self.data = checked(data)
        self.spec = spec or EvalSpec()
        self.examples: Sequence[Example] = read_examples(self.data)
        self._processor, self._engine, self._run = processor, engine, run
        self._judge = judge or exact_judge(self.examples)
        self._collator = Collator(processor, load_prompt(data.prompt_name), data.media)

    def __call__(self, net: Any, step: int) -> dict[str, float]:
        """Metrics `eval/...` of the policy as it is now.

        Args:
            net: the policy, wrapped or not.
            step: names the folder of the rows.
        """
        ranks = Ranks.here()
        report = evaluate(
            net,
            self._processor,
            self.examples,
            data=self.data,
            spec=self.spec,
            judge=self._judge,
            engine=self._engine,
            collator=self._collator,
            ranks=ranks,
            store=self._store(step, ranks),
        )
        if self._judge is not None:
            self._judge.take_stats()
        return report.metrics()

    def _store(self, step: int, ranks: Ranks) -> RowStore | None:
        if self._run is None:
            return None
        # rows of an earlier try of this step belong to weights that a changed recipe may have made others
        settings = settings_of(self.spec, self.data, step=step)
        return RowStore(self._run / FOLDER / f"step-{step:06d}", settings, ranks=ranks, fresh=True)


def held_out(
    session: Session, judge: Judge | None = None
) -> Callable[[Session, int], dict[str, float]] | None:
    """What a session's `evaluate` is to be; None if its recipe evaluates nothing.

    Completions are drawn as the paper does at inference, and are as long as rollouts may be.

    Args:
        session: opened, with its model wrapped.
        judge: the training's, started; None: the exact checker where there are scenes.

    Raises:
        ConfigError: the weights are cut over the processes: they cannot be drawn from between steps.
        SourceError: the questions cannot be read.
    """
    recipe = session.recipe
    if recipe.evaluation is None or not recipe.eval_every:
        return None
    longest = recipe.sampling.max_new_tokens
    spec = EvalSpec(
        sampling=PAPER_SAMPLING.model_copy(update={"max_new_tokens": longest}),
        batch=max(1, recipe.batch.micro),
        scoring=recipe.scoring,
        seed=recipe.seed,
    )
    try:
        engine = HfEngine(session.engine.model, session.policy.tokenizer, spec.sampling)
    except ConfigError as error:
        raise ConfigError(
            error.message,
            where="eval_every",
            hint="set eval_every: 0 and run p2r-train eval on the final model, or use DDP or ZeRO-2",
        ) from error
    questions = HeldOut(
        session.policy.processor, recipe.evaluation, spec=spec, judge=judge, engine=engine, run=session.folder
    )
    return lambda now, step: questions(now.engine.model, step)
