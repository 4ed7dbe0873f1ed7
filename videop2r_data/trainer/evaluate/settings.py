"""What decides a row of an evaluation, and what may stay open when it is asked for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from videop2r_data.errors import ConfigError
from videop2r_data.prompts import load_prompt
from videop2r_data.trainer.data.demo_stream import ENDLESS
from videop2r_data.trainer.data.examples import Example
from videop2r_data.trainer.data.specs import DataSpec
from videop2r_data.trainer.evaluate.specs import EvalSpec
from videop2r_data.trainer.judging.base import Judge
from videop2r_data.trainer.judging.demo_judge import DemoJudge

_LOOKED_AT = 64


def settings_of(spec: EvalSpec, data: DataSpec, **more: Any) -> dict[str, Any]:
    """All that decides a row, as a JSON object: rows of other settings are never mixed.

    Args:
        spec: the batch size and the intervals are left out: they change no row.
        data: workers and look-ahead are left out.
        more: what else decides, e.g. the digest of the model.
    """
    prompt = load_prompt(data.prompt_name)
    return {
        **more,
        "sampling": spec.sampling.model_dump(mode="json", exclude={"rows"}),
        "seed": spec.seed,
        "scoring": spec.scoring.model_dump(mode="json"),
        "data": data.model_dump(
            mode="json", exclude={"workers", "ahead", "media_root", "shuffle", "tail", "bucket"}
        ),
        "prompt_sha256": prompt.sha256,
    }


def checked(data: DataSpec) -> DataSpec:
    """The same settings, if they can end.

    Raises:
        ConfigError: the demo stream without a limit.
    """
    if data.is_demo and (data.limit is None or data.limit >= ENDLESS):
        raise ConfigError(
            "the demo stream never ends", where="evaluation data", hint="set limit, e.g. limit: 200"
        )
    return data


def exact_judge(examples: Sequence[Example]) -> Judge | None:
    """The exact checker, if the first questions have the scenes that it needs; else None."""
    first = examples[:_LOOKED_AT]
    return DemoJudge() if first and all(example.scene is not None for example in first) else None
