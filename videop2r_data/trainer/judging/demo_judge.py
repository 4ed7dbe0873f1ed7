"""The demo world's exact judge: no model, no deadline, no doubt."""

from __future__ import annotations

from collections.abc import Sequence

from videop2r_data.demo import observation_is_sufficient
from videop2r_data.errors import ConfigError
from videop2r_data.trainer.judging.base import Judged, JudgeItem, JudgeStats, Reason, decided


class DemoTicket:
    """Verdicts that were made when the observations were handed in."""

    def __init__(self, judge: DemoJudge, judged: list[Judged]) -> None:
        self._judge = judge
        self._judged = judged
        self._counted = False

    def wait(self) -> list[Judged]:
        """The verdicts, in the order of the items."""
        if not self._counted:
            self._counted = True
            self._judge.note(self._judged)
        return list(self._judged)


class DemoJudge:
    """Decides by the scene truth: is every claim true, and do the claims state what the answer needs?

    It judges at once (a tenth of a millisecond an item), so that its verdicts wait for the caller.
    """

    def __init__(self) -> None:
        self._stats = JudgeStats()

    def start(self) -> None:
        """Nothing to open."""

    def submit(self, items: Sequence[JudgeItem]) -> DemoTicket:
        """Judge now.

        Raises:
            ConfigError: a question has no scene: the data are not those of the demo world.
        """
        seen: dict[tuple[int, str, str], Judged] = {}
        return DemoTicket(self, [_judge(item, seen) for item in items])

    def note(self, judged: Sequence[Judged]) -> None:
        """Count the items of a ticket that was waited for."""
        self._stats.note(judged)

    def take_stats(self) -> JudgeStats:
        """Counts since the last call."""
        stats, self._stats = self._stats, JudgeStats()
        return stats

    def close(self) -> None:
        """Nothing to free."""


def _judge(item: JudgeItem, seen: dict[tuple[int, str, str], Judged]) -> Judged:
    example = item.example
    truth = example.scene
    if truth is None:
        raise ConfigError(
            "this question has no scene, and the demo judge knows nothing else",
            where=f"judging.kind, at {example.sample_id}",
            hint="train on the demo world (`data.source: demo`, or a folder with scenes.jsonl), or name a "
            "model in judging.backend",
        )
    free = decided(item)
    if free is not None or item.observation is None:
        return free or Judged(False, Reason.NO_OBSERVATION)
    key = (truth.scene.index, truth.question.problem, item.observation)
    if key in seen:
        known = seen[key]
        return Judged(known.sufficient, known.reason, True, known.detail)
    sufficient = observation_is_sufficient(truth.scene, truth.question, item.observation)
    seen[key] = Judged(sufficient, Reason.JUDGED, False, "decided by the scene truth")
    return seen[key]
