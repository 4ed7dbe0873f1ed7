"""Held-out questions between training steps: the same ones at each call, read once."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from videop2r_data.errors import ConfigError
from videop2r_data.prompts import load_prompt
from videop2r_data.trainer.data.examples import ENDLESS, Example
from videop2r_data.trainer.data.rows import read_examples
from videop2r_data.trainer.evaluate.questions import Ranks, RowStore, evaluate
from videop2r_data.trainer.judging.base import DemoJudge, Judge
from videop2r_data.trainer.rollout.base import RolloutEngine
from videop2r_data.trainer.settings.parts import DataSpec, EvalSpec

EVAL = "eval"


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
