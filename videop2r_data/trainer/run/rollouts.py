"""Prompts to graded groups, and what is noted of them in `samples.jsonl` and `metrics.jsonl`.

Notation: B prompts, G rollouts of each, N = B * G rows, row b * G + g is rollout g of prompt b.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from videop2r_data.schemas import DataType, Frames
from videop2r_data.trainer.data.batch import PromptBatch
from videop2r_data.trainer.data.examples import Example
from videop2r_data.trainer.data.order import derive, rollout_seeds
from videop2r_data.trainer.judging.base import (
    Judge,
    Judged,
    JudgeItem,
    Reason,
    Verdicts,
    decided,
    joined,
    judge_counts,
)
from videop2r_data.trainer.look.samples import sample_record
from videop2r_data.trainer.process.advantages import Stream, collapsed
from videop2r_data.trainer.process.masks import SegmentMasks, TokenTable, segment_masks
from videop2r_data.trainer.process.rewards import Graded, RewardTable, grade
from videop2r_data.trainer.rollout.base import Ended, RolledOut, RolloutEngine
from videop2r_data.trainer.settings.objectives import TraceStream, trace_streams
from videop2r_data.trainer.settings.rl import JudgingSpec, Reward
from videop2r_data.validators import neutralise

if TYPE_CHECKING:
    from videop2r_data.trainer.run.session import Fed, Session

NOTES = "Somebody looked at it and noted: {}\n\n{}"
"""The question of a policy that answers from an observation, without the clip."""


@dataclass
class Rollouts:
    """The groups of one process at one step, N rows.

    Attributes:
        rolled: token ids.
        masks: weights of the tokens by stream of the trace.
        graded: grades; `acc_p` is open until `settle`.
        judged: verdicts, None where no judge was asked.
        shuffled: T-GRPO: per prompt the accuracies of its group with shuffled frames; None without a video.
        verdicts: what the judge was given; None: no judge.
        alone: row -> how well the policy answers from its own observation, where that is asked.
    """

    rolled: list[RolledOut]
    masks: list[SegmentMasks]
    graded: list[Graded]
    judged: list[Judged | None]
    shuffled: list[list[float | None] | None] | None = None
    verdicts: Verdicts | None = None
    alone: dict[int, Judged] = field(default_factory=dict)

    def settle(self, spec: JudgingSpec) -> None:
        """Wait for the verdicts and enter what is paid for them into the grades."""
        found: dict[int, dict[Reward, Judged]] = {row: {"self": one} for row, one in self.alone.items()}
        for row, verdict in self.verdicts.result().items() if self.verdicts else ():
            found[row] = {**verdict.each(spec.asked), **found.get(row, {})}
        for row, parts in found.items():
            plain = spec.asked == ("sufficiency",)
            judged = self.judged[row] = parts["sufficiency"] if plain else joined(parts, spec)
            self.graded[row] = self.graded[row].judged(judged.score)


class Roller:
    """Draws and grades groups; nothing in it is collective.

    Args:
        session: the run.
        drawer: draws completions.
        judge: started, or None.

    Attributes:
        known: seed -> completion that was drawn before, by weights that are gone.
        drawn: seed -> completion, of everything that was drawn since it was emptied.
    """

    def __init__(self, session: Session, drawer: RolloutEngine, judge: Judge | None) -> None:
        self.session, self.drawer, self.judge = session, drawer, judge
        self.grammar = session.recipe.data.grammar
        self.table = TokenTable.from_tokenizer(session.policy.tokenizer)
        self.known: dict[int, RolledOut] = {}
        self.drawn: dict[int, RolledOut] = {}

    def roll(self, fed: Fed, kind: str = "rollout") -> Rollouts:
        """Draw G completions of each prompt, grade them, and submit each observation to the judge as its
        completion ends.

        Args:
            fed: the prompts.
            kind: names the draws; see `rollout_seeds`.
        """
        recipe, prompts = self.session.recipe, fed.prompts
        size, verdicts = recipe.rl.group_size, None if self.judge is None else Verdicts(self.judge)
        items: dict[int, JudgeItem] = {}

        def submit(row: int, one: Graded) -> None:
            if one.observation is not None:
                b = row // size
                items[row] = JudgeItem(prompts.examples[b], one.observation, prompts.frames[b])
                if verdicts is not None:
                    verdicts.add(row, items[row])

        found = self.completed(prompts, size, self._seeds(fed, size, kind), submit)
        rollouts = Rollouts(*found, [None] * len(found[0]), verdicts=verdicts)
        if recipe.objective.entry.shuffles:
            rollouts.shuffled = self._shuffled(fed)
        if "self" in recipe.judging.asked:
            rows, seeds = sorted(items), self._seeds(fed, size, "self")
            alone = self.answered([items[row] for row in rows], [seeds[row] for row in rows])
            rollouts.alone = dict(zip(rows, alone, strict=True))
        return rollouts

    def completed(
        self,
        prompts: PromptBatch,
        size: int,
        seeds: Sequence[int],
        then: Callable[[int, Graded], None] | None = None,
    ) -> tuple[list[RolledOut], list[SegmentMasks], list[Graded]]:
        """`size` completions of each prompt, one for each seed, graded by everything but the judge.

        Args:
            then: told of each row and its grades as soon as it has ended.
        """
        found: dict[int, tuple[SegmentMasks, Graded]] = {}

        def ended(row: int, one: RolledOut) -> None:
            found[row] = self._grade(prompts.examples[row // size], one)
            if then is not None:
                then(row, found[row][1])

        rolled = self._draw(prompts, size, seeds, ended)
        for row, one in enumerate(rolled):
            if row not in found:
                ended(row, one)
        return (
            rolled,
            [found[row][0] for row in range(len(rolled))],
            [found[row][1] for row in range(len(rolled))],
        )

    def answered(self, items: Sequence[JudgeItem], seeds: Sequence[int]) -> list[Judged]:
        """How well the policy answers each question from an observation, which stands in its prompt, and not
        the clip [Vision-SR1, arXiv 2508.19652].

        Args:
            items: one that the rules of the judge refuse, because it tells the answer or nothing, earns 0.
            seeds: one for each item; the answer depends on it, on the item and on the weights alone.
        """
        found = {at: ruled for at, item in enumerate(items) if (ruled := decided(item)) is not None}
        asked = [at for at in range(len(items)) if at not in found]
        examples = [
            replace(e, problem=NOTES.format(neutralise(items[at].observation or ""), e.problem))
            for at, e in ((at, items[at].example) for at in asked)
        ]
        prompts = self.session.collator(examples, [None] * len(asked))
        fitting = [asked[at] for at in prompts.kept]
        _, _, graded = self.completed(prompts, 1, [seeds[at] for at in fitting])
        for at, one in zip(fitting, graded, strict=True):
            why = Reason.NO_VERDICT if one.acc_r is None else Reason.JUDGED
            words = "no answer" if one.answer is None else f"answered without the clip: {one.answer[:200]}"
            found[at] = Judged(one.acc_r, why, detail=words)
        lost = Judged(None, Reason.NO_VERDICT, detail="the question cannot be shown with the observation")
        return [found.get(at, lost) for at in range(len(items))]

    def _shuffled(self, fed: Fed) -> list[list[float | None] | None]:
        """Accuracies of a second group per video question, its frames in random order [T-GRPO eq. 1].

        Each frame takes the time of its new place: the model sees a film in another order with times that
        still rise.
        """
        recipe, places = self.session.recipe, [self.session.place(local) for local in fed.places]
        size = recipe.objective.temporal.shuffled_size(recipe.rl.group_size)
        chosen = [b for b, e in enumerate(fed.prompts.examples) if e.data_type is DataType.VIDEO]
        found: list[list[float | None] | None] = [None] * len(fed.prompts)
        if not chosen:
            return found
        frames = [
            _in_random_order(fed.prompts.frames[b], derive(recipe.seed, "shuffle", fed.step, places[b]))
            for b in chosen
        ]
        prompts = self.session.collator([fed.prompts.examples[b] for b in chosen], frames)
        seeds = rollout_seeds(recipe.seed, fed.step, [places[b] for b in chosen], size, "shuffled")
        _, _, graded = self.completed(prompts, size, seeds)
        for at, b in enumerate(chosen):
            found[b] = [row.acc_r for row in graded[at * size : (at + 1) * size]]
        return found

    def _seeds(self, fed: Fed, size: int, kind: str) -> list[int]:
        places = [self.session.place(local) for local in fed.places]
        return rollout_seeds(self.session.recipe.seed, fed.step, places, size, kind)

    def _draw(self, prompts: PromptBatch, size: int, seeds: Sequence[int], ended: Ended) -> list[RolledOut]:
        if not len(prompts):
            return []
        if self.known.keys() >= set(seeds):
            rolled = [self.known[seed] for seed in seeds]
        else:
            with self.session.accelerator.autocast():
                rolled = self.drawer.generate(prompts, group_size=size, seeds=seeds, ended=ended)
        if len(rolled) != len(seeds):
            raise ValueError(f"{len(rolled)} rollouts for {len(seeds)} seeds: groups would be mixed")
        self.drawn |= zip(seeds, rolled, strict=True)
        return rolled

    def _grade(self, example: Example, one: RolledOut) -> tuple[SegmentMasks, Graded]:
        recipe = self.session.recipe
        mask = segment_masks(
            one.ids,
            self.table,
            grammar=self.grammar,
            style=recipe.data.style,
            unattributable=recipe.loss.unattributable,
        )
        return mask, grade(
            mask,
            problem_type=example.problem_type,
            reference=example.reference,
            options=example.options,
            finished=one.finished,
            policy=recipe.scoring,
        )


def _in_random_order(frames: Frames | None, seed: int) -> Frames:
    """The frames in random order; with two frames or more never in their own."""
    assert frames is not None and frames.array is not None
    count = len(frames.array)
    rng = np.random.default_rng(seed)
    order = rng.permutation(count)
    while count > 1 and (order == np.arange(count)).all():
        order = rng.permutation(count)
    return replace(frames, array=np.ascontiguousarray(frames.array[order]))


# Records of sampled completions, `samples.jsonl`.


def record_samples(
    session: Session, fed: Fed, rollouts: Rollouts, table: RewardTable, reached: list[Stream]
) -> None:
    """Record the first groups of the main process at the first step and every `save.samples_every` steps."""
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
                tokens={**{s.key: masks.lengths[s.name] for s in table.streams}, "all": masks.tokens},
                judged=rollouts.judged[row],
                grammar=session.recipe.data.grammar,
            )
        )


def _rewards(table: RewardTable, row: int) -> dict[str, float | None]:
    """The parts of one row's reward; None where it is unscored."""
    out: dict[str, float | None] = {}
    for part in ("accuracy", "format", "length"):
        for key in streams_with(part, table.streams):
            known = part == "format" or bool(table.scored[key][row])
            out[f"{part}_{key}"] = float(table.components[f"{part}_{key}"][row]) if known else None
    totals = {f"total_{stream.key}": table.of(stream.key) for stream in table.streams}
    for name, (rewards, scored) in {**totals, "total": table.total}.items():
        out[name] = float(rewards[row]) if scored[row] else None
    return out


def streams_with(part: str, streams: Sequence[TraceStream]) -> list[str]:
    """Keys of the streams that can earn a part: a stream that neither sees nor answers has no accuracy."""
    return [one.key for one in streams if part != "accuracy" or one.sees or one.answers]


# Metrics of a step, `metrics.jsonl`.


_ALARMS = ("own", "empty", "shuffled", "seen", "usual_right", "usual_wrong")
_ALARM = "alarm/"
"""Means that are logged with the number of things they are over, as `..._n`."""


def _means(streams: Sequence[TraceStream], asked: Sequence[Reward]) -> tuple[str, ...]:
    keys = [*(stream.key for stream in streams), "all"]
    parts = ("accuracy", "format", "length", "total")
    rewards = (f"reward/{part}_{key}" for part in parts for key in streams_with(part, streams))
    lengths, clipped = (f"length/{key}" for key in keys), (f"clip_fraction/{key}" for key in keys)
    far = (f"mismatch/{name}_{key}" for name in ("abs", "k3") for key in keys)
    alarms, judged = (f"{_ALARM}{name}" for name in _ALARMS), (f"judged/{name}" for name in asked)
    kls = ("kl", "kl_blind", "entropy", "ratio", "clip_fraction")
    loss = (*kls, *clipped, *far, "tis/weight", "tis/truncated")
    return *rewards, "reward/total", "reward/plain", *lengths, *loss, *alarms, *judged


def _counts(streams: Sequence[TraceStream]) -> tuple[str, ...]:
    keys = [stream.key for stream in streams]
    collapses = (f"collapsed/{key}" for key in (*keys, "sum", "plain"))
    unscored = (f"unscored/{key}" for key in keys)
    judges = (f"judge/{name}" for name in ("asked", "cached", "late", "failed"))
    ends = ("truncated", "tokens", "skipped")
    return "policy", "nonfinite", *collapses, "groups", "rollouts", *unscored, *ends, *judges


class Tally:
    """Sums and counts of one step in one process; `row` adds up all processes.

    All of them sum the same names in the same order, so a process without rollouts sends zeros.

    Args:
        streams: of the trace; None: of the default.
        asked: what is decided of observations; sufficiency alone is in the reward, and has no other line.
        more: further counts.
    """

    def __init__(
        self,
        streams: Sequence[TraceStream] | None = None,
        asked: Sequence[Reward] = (),
        more: Sequence[str] = (),
    ) -> None:
        self.streams = streams or trace_streams()
        asked = () if tuple(asked) == ("sufficiency",) else asked
        means, counts = _means(self.streams, asked), (*_counts(self.streams), *more)
        self._counts = counts
        self._sums = dict.fromkeys((*means, *counts), 0.0)
        self._over = dict.fromkeys(means, 0.0)
        self._most = {f"mismatch/max_{one.key}": 0.0 for one in self.streams} | {"mismatch/max_all": 0.0}

    def add(self, name: str, total: float, over: float = 1.0) -> None:
        """Add a sum over `over` things (ignored for counts)."""
        self._sums[name] += total
        if name in self._over:
            self._over[name] += over

    def mean(self, name: str, values: Tensor, where: Tensor) -> None:
        """Add values [N] where a mask [N] holds."""
        self.add(name, float(values[where].double().sum()), float(where.sum()))

    def rewards(self, table: RewardTable) -> None:
        """Add the rewards of whole groups, and how many groups give no gradient [paper §5.4]."""
        parts, everyone = table.components, torch.ones_like(table.answered)
        totals = {stream.key: table.of(stream.key) for stream in self.streams}
        for stream in self.streams:
            key, scored = stream.key, table.scored[stream.key]
            if stream.sees or stream.answers:
                self.mean(f"reward/accuracy_{key}", parts[f"accuracy_{key}"], scored)
            self.mean(f"reward/format_{key}", parts[f"format_{key}"], everyone)
            self.mean(f"reward/length_{key}", parts[f"length_{key}"], scored)
            self.mean(f"reward/total_{key}", *totals[key])
            self.add(f"unscored/{key}", float((~scored).sum()))
        self.mean("reward/total", *table.total)
        self.mean("reward/plain", *table.plain)
        for name, (rewards, scored) in {**totals, "sum": table.total, "plain": table.plain}.items():
            self.add(f"collapsed/{name}", float(collapsed(rewards, scored, table.group_size).sum()))
        self.add("groups", len(table.answered) // table.group_size)

    def judged(self, judged: Iterable[Judged | None]) -> None:
        """Add how verdicts came about, and what was decided, paid or not."""
        found = list(judged)
        for name, count in judge_counts(found).items():
            self.add(f"judge/{name}", count)
        for name, part in (pair for one in found if one for pair in one.parts.items()):
            if part.score is not None:
                self.add(f"judged/{name}", part.score)

    def mismatch(self, key: str, found: Mapping[str, Tensor]) -> None:
        """Add what `process.loss.mismatch` found of a stream, or of all tokens."""
        for name in ("abs", "k3"):
            self.add(f"mismatch/{name}_{key}", *found[name].tolist())
        self._most[f"mismatch/max_{key}"] = max(self._most[f"mismatch/max_{key}"], *found["max"].tolist())

    def lengths(self, graded: Iterable[Graded], rolled: Iterable[RolledOut]) -> None:
        """Add lengths in tokens and how rollouts ended."""
        for grades, one in zip(graded, rolled, strict=True):
            for stream in self.streams:
                self.add(f"length/{stream.key}", grades.lengths[stream.name])
            self.add("length/all", len(one.ids))
            self.add("tokens", len(one.ids))
            self.add("rollouts", 1)
            self.add("truncated", not one.finished)

    def row(
        self, sums: Callable[[Tensor], Tensor], largest: Callable[[Tensor], Tensor] = lambda x: x
    ) -> dict[str, float | int]:
        """The metrics of all processes; a mean without values is left out.

        Args:
            sums: adds tensors of all processes up.
            largest: takes the larger ones of them.
        """
        most = dict(zip(self._most, largest(torch.tensor([*self._most.values()])).tolist(), strict=True))
        local = torch.tensor([*self._sums.values(), *self._over.values()], dtype=torch.float64)
        everyone = iter(sums(local).tolist())
        totals = dict(zip(self._sums, everyone, strict=False))
        over = dict(zip(self._over, everyone, strict=True))
        means = {name: totals[name] / over[name] for name in self._over if over[name]}
        counts = {name: totals[name] if name == "policy" else int(totals[name]) for name in self._counts}
        counts |= {f"{name}_n": int(n) for name, n in over.items() if n and name.startswith(_ALARM)}
        compared = most if over["mismatch/abs_all"] else {}
        return {**means, **counts, **compared}
