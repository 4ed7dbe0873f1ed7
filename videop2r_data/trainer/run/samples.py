"""Sampled completions for people: `samples.jsonl`, some groups every few steps."""

from __future__ import annotations

from typing import TYPE_CHECKING

from videop2r_data.trainer.look.samples import sample_record
from videop2r_data.trainer.process.objectives import Stream
from videop2r_data.trainer.process.rewards import RewardTable
from videop2r_data.trainer.run.feed import Fed
from videop2r_data.trainer.run.rollouts import Rollouts

if TYPE_CHECKING:
    from videop2r_data.trainer.run.session import Session

_PARTS = ("accuracy_p", "accuracy_r", "format_p", "format_r", "length_p", "length_r")


def record_samples(
    session: Session, fed: Fed, rollouts: Rollouts, table: RewardTable, reached: list[Stream]
) -> None:
    """Write the first groups of the main process, every `save.samples_every` steps, and at the first one."""
    save, size = session.recipe.save, session.recipe.rl.group_size
    step = fed.step + 1
    due = save.samples_every and (step % save.samples_every == 0 or step == 1)
    if not due or not session.accelerator.is_main_process:
        return
    for row in range(min(save.samples * size, len(rollouts.rolled))):
        masks = rollouts.masks[row]
        session.log.sample(
            sample_record(
                step=step,
                example=fed.prompts.examples[row // size],
                group=session.place(fed.places[row // size]),
                rollout=row % size,
                text=masks.text,
                finished=rollouts.rolled[row].finished,
                rewards=_rewards(table, row),
                advantages={stream.name: float(stream.advantage[row]) for stream in reached},
                tokens={"p": masks.tokens_p, "r": masks.tokens_r, "all": masks.tokens},
                judged=rollouts.judged[row],
            )
        )


def _rewards(table: RewardTable, row: int) -> dict[str, float | None]:
    """The parts of one row's reward; None where it is unscored."""
    scored = {"p": bool(table.scored_p[row]), "r": bool(table.scored_r[row])}
    out: dict[str, float | None] = {
        name: float(table.components[name][row]) if scored[name[-1]] or name.startswith("format") else None
        for name in _PARTS
    }
    for name, column, known in (
        ("total_p", table.perception, scored["p"]),
        ("total_r", table.reasoning, scored["r"]),
        ("total", table.total, scored["p"] and scored["r"]),
    ):
        out[name] = float(column[row]) if known else None
    return out
