"""What the answers of each step took, summed while the data set is written."""

from __future__ import annotations

from collections import Counter

from videop2r_data.backends import cost_usd
from videop2r_data.builders.steps import Parts
from videop2r_data.schemas import Spent, StepModel, Usage


class Meter:
    """Sums the answers that the rows of a build rest on; of one judge alone nothing, as ever."""

    def __init__(self, parts: Parts) -> None:
        self._recorders = parts.record() if parts.recipe.judges else {}
        self._specs = parts.recipe.backends
        self._took: dict[str, Counter[str]] = {step: Counter() for step in self._specs}
        self._served: dict[str, Counter[str]] = {step: Counter() for step in self._specs}

    def add(self, models: dict[str, str]) -> None:
        """One question is done; `models` of its result: step -> model id as its server reported it."""
        for step, model in models.items():
            self._served[step][model] += 1
        for step, recorder in self._recorders.items():
            answers = [answer for _, answer in recorder.calls if answer is not None]
            self._took[step].update({"rows": int(bool(answers)), "calls": len(answers)})
            for answer in answers:
                if answer.completion is not None:
                    self._took[step].update(answer.completion.usage.model_dump())
            recorder.calls.clear()

    def models(self) -> dict[str, StepModel]:
        """Step -> its models, and what they took."""
        return {
            step: StepModel(
                asked=spec.model,
                served=dict(sorted(self._served[step].items())),
                spent=self._spent(step) if self._recorders else None,
            )
            for step, spec in self._specs.items()
        }

    def _spent(self, step: str) -> Spent:
        took, price = self._took[step], self._specs[step].price
        usage = Usage(**{field: took[field] for field in Usage.model_fields})
        # beside a list of judges no step takes batches
        usd = None if price is None else cost_usd(usage, price, batched=False)
        return Spent(rows=took["rows"], calls=took["calls"], usage=usage, usd=usd)
