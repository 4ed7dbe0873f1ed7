"""Held-out questions between the steps of a training run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from videop2r_data.prompts import load_prompt
from videop2r_data.trainer.data.collate import Collator
from videop2r_data.trainer.data.examples import Example, read_examples
from videop2r_data.trainer.data.specs import DataSpec
from videop2r_data.trainer.evaluate.evaluate import evaluate
from videop2r_data.trainer.evaluate.ranks import Ranks
from videop2r_data.trainer.evaluate.settings import checked, exact_judge, settings_of
from videop2r_data.trainer.evaluate.specs import EvalSpec
from videop2r_data.trainer.evaluate.store import RowStore
from videop2r_data.trainer.judging.base import Judge
from videop2r_data.trainer.rollout.base import RolloutEngine

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
