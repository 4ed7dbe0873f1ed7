"""From settings to a judge."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from videop2r_data.trainer.judging.base import Judge
from videop2r_data.trainer.judging.specs import JudgingSpec


def make_judge(
    spec: JudgingSpec,
    *,
    cache: Path,
    base: Path | None = None,
    tell: Callable[[str], None] | None = None,
) -> Judge | None:
    """The judge that the settings ask for, not started yet; None for `kind: none`.

    Args:
        spec: the settings.
        cache: folder of the journal of answers, used if the settings name none (`RUN/judge-cache`).
        base: folder that a prompt's path is relative to.
        tell: is told why a call is tried again.

    Raises:
        ConfigError: the settings do not fit.
        MissingExtraError: the backend's library is not installed.
    """
    if spec.kind == "none":
        return None
    if spec.kind == "demo":
        from videop2r_data.trainer.judging.demo_judge import DemoJudge

        return DemoJudge()
    from videop2r_data.trainer.judging.judge import PerceptionJudge

    return PerceptionJudge(spec, cache=cache, base=base, tell=tell)
