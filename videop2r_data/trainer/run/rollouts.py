"""Prompts to graded groups, and what is noted of them in `samples.jsonl` and `metrics.jsonl`.

Notation: B prompts, G rollouts of each, N = B * G rows, row b * G + g is rollout g of prompt b.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
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
from videop2r_data.trainer.process.rewards import Graded, RewardTable, grade, rewards_of
from videop2r_data.trainer.ranks import Ranks
from videop2r_data.trainer.rollout.base import RolledOut, RolloutEngine
from videop2r_data.trainer.settings.objectives import TraceStream, trace_streams
from videop2r_data.trainer.settings.recipe import TrainRecipe
from videop2r_data.trainer.settings.rl import JudgingSpec, Reward
from videop2r_data.validators import neutralise

if TYPE_CHECKING:
    from videop2r_data.trainer.run.session import Fed, Session

# the question of a policy that answers from an observation, without the clip
NOTES = "Somebody looked at it and noted: {}\n\n{}"


@dataclass
class Rollouts:
    """The groups of one process at one step, N rows.

    Attributes:
        graded: `acc_p` is open until `settle`.
        judged: verdicts, None where no judge was asked.
        shuffled: T-GRPO: per prompt the accuracies of its group with shuffled frames; None without a video.
        verdicts: what the judge was given, until `settle`; None: no judge.
        alone: row -> how well the policy answers from its own observation, where that is asked.
        redrawn, replaced: groups drawn beside the planned ones, and groups that gave way to one of them.
    """

    rolled: list[RolledOut]
    masks: list[SegmentMasks]
    graded: list[Graded]
    judged: list[Judged | None]
    shuffled: list[list[float | None] | None] | None = None
    verdicts: Verdicts | None = None
    alone: dict[int, Judged] = field(default_factory=dict)
    redrawn: int = 0
    replaced: int = 0

    def settle(self, spec: JudgingSpec) -> None:
        """Wait for the verdicts and enter what is paid for them into the grades; once, then there are none to
        wait for."""
        found: dict[int, dict[Reward, Judged]] = {row: {"self": one} for row, one in self.alone.items()}
        for row, verdict in self.verdicts.result().items() if self.verdicts else ():
            found[row] = {**verdict.each(spec.asked), **found.get(row, {})}
        self.verdicts, self.alone = None, {}
        plain = spec.asked == ("sufficiency",)
        for row, parts in found.items():
            judged = self.judged[row] = parts["sufficiency"] if plain else joined(parts, spec)
            self.graded[row] = self.graded[row].judged(judged.score)


class Roller:
    """Draws and grades groups; nothing in it is collective. A judge has been started.

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

    def seeds(self, step: int, places: Sequence[int], size: int, kind: str) -> list[int]:
        """See `rollout_seeds`."""
        return rollout_seeds(self.session.recipe.seed, step, places, size, kind)

    def roll(self, fed: Fed, kind: str = "rollout") -> Rollouts:
        """Draw G completions of each prompt, grade them, and submit each observation to the judge as its
        completion ends; `kind` names the draws."""
        recipe, prompts = self.session.recipe, fed.prompts
        size, verdicts = recipe.rl.group_size, None if self.judge is None else Verdicts(self.judge)
        items: dict[int, JudgeItem] = {}

        def submit(row: int, one: Graded) -> None:
            if one.observation is not None:
                b = row // size
                items[row] = JudgeItem(prompts.examples[b], one.observation, prompts.frames[b])
                if verdicts is not None:
                    verdicts.add(row, items[row])

        rollouts = self.completed(prompts, size, self.seeds(fed.step, fed.places, size, kind), submit)
        rollouts.verdicts = verdicts
        if recipe.objective.entry.shuffles:
            rollouts.shuffled = self._shuffled(fed)
        if "self" in recipe.judging.asked:
            rows, seeds = sorted(items), self.seeds(fed.step, fed.places, size, "self")
            alone = self.answered([items[row] for row in rows], [seeds[row] for row in rows])
            rollouts.alone = dict(zip(rows, alone, strict=True))
        return rollouts

    def completed(
        self,
        prompts: PromptBatch,
        size: int,
        seeds: Sequence[int],
        then: Callable[[int, Graded], None] | None = None,
    ) -> Rollouts:
        """`size` completions of each prompt, one for each seed, graded by everything but the judge; `then` is
        told of each row and its grades as soon as it has ended."""
        found: dict[int, tuple[SegmentMasks, Graded]] = {}

        def ended(row: int, one: RolledOut) -> None:
            found[row] = self._grade(prompts.examples[row // size], one)
            if then is not None:
                then(row, found[row][1])

        if self.known.keys() >= set(seeds):
            rolled = [self.known[seed] for seed in seeds]
        else:
            with self.session.accelerator.autocast():
                rolled = self.drawer.generate(prompts, group_size=size, seeds=seeds, ended=ended)
        if len(rolled) != len(seeds):
            raise ValueError(f"{len(rolled)} rollouts for {len(seeds)} seeds: groups would be mixed")
        self.drawn |= zip(seeds, rolled, strict=True)
        for row, one in enumerate(rolled):
            if row not in found:
                ended(row, one)
        rows = [found[row] for row in range(len(rolled))]
        return Rollouts(rolled, [mask for mask, _ in rows], [one for _, one in rows], [None] * len(rows))

    def answered(self, items: Sequence[JudgeItem], seeds: Sequence[int]) -> list[Judged]:
        """How well the policy answers each question from an observation, which stands in its prompt, and not
        the clip [Vision-SR1, arXiv 2508.19652]: it depends on item, seed and weights alone. An observation
        that the rules of the judge refuse, because it tells the answer or nothing, earns 0."""
        found = {at: ruled for at, item in enumerate(items) if (ruled := decided(item)) is not None}
        asked = [at for at in range(len(items)) if at not in found]
        notes = [(items[at].example, neutralise(items[at].observation or "")) for at in asked]
        examples = [replace(e, problem=NOTES.format(note, e.problem)) for e, note in notes]
        prompts = self.session.collator(examples, [None] * len(asked))
        fitting = [asked[at] for at in prompts.kept]
        answers = self.completed(prompts, 1, [seeds[at] for at in fitting]).graded
        for at, one in zip(fitting, answers, strict=True):
            why = Reason.NO_VERDICT if one.acc_r is None else Reason.JUDGED
            words = "no answer" if one.answer is None else f"answered without the clip: {one.answer[:200]}"
            found[at] = Judged(one.acc_r, why, detail=words)
        lost = Judged(None, Reason.NO_VERDICT, detail="the question cannot be shown with the observation")
        return [found.get(at, lost) for at in range(len(items))]

    def rewarded(self, rollouts: Rollouts) -> RewardTable:
        """The rewards of graded groups, as the recipe pays them."""
        recipe = self.session.recipe
        return rewards_of(
            rollouts.graded,
            recipe.rewards,
            recipe.rl.group_size,
            objective=recipe.objective,
            shuffled=rollouts.shuffled,
            streams=trace_streams(self.grammar),
            longest=recipe.sampling.max_new_tokens,
        )

    def _shuffled(self, fed: Fed) -> list[list[float | None] | None]:
        """Accuracies of a second group per video question, its frames in random order [T-GRPO eq. 1]. Each
        frame takes the time of its new place: the times that the model sees still rise."""
        recipe, prompts = self.session.recipe, fed.prompts
        size = recipe.objective.temporal.shuffled_size(recipe.rl.group_size)
        chosen = [b for b, e in enumerate(prompts.examples) if e.data_type is DataType.VIDEO]
        found: list[list[float | None] | None] = [None] * len(prompts)
        if not chosen:
            return found
        places = [fed.places[b] for b in chosen]
        orders = [derive(recipe.seed, "shuffle", fed.step, place) for place in places]
        frames = [_in_random_order(prompts.frames[b], seed) for b, seed in zip(chosen, orders, strict=True)]
        other = self.session.collator([prompts.examples[b] for b in chosen], frames)
        graded = self.completed(other, size, self.seeds(fed.step, places, size, "shuffled")).graded
        for at, b in enumerate(chosen):
            found[b] = [row.acc_r for row in graded[at * size : (at + 1) * size]]
        return found

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
    own = np.arange(len(frames.array))
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(own))
    while len(own) > 1 and (order == own).all():
        order = rng.permutation(len(own))
    return replace(frames, array=np.ascontiguousarray(frames.array[order]))


# Records of sampled completions, `samples.jsonl`.


def record_samples(
    session: Session, fed: Fed, rollouts: Rollouts, table: RewardTable, reached: list[Stream]
) -> None:
    """Record the first groups of the main process at the first step and every `save.samples_every` steps."""
    save, size, step = session.recipe.save, session.recipe.rl.group_size, fed.step + 1
    due = save.samples_every and (step % save.samples_every == 0 or step == 1)
    if not due or not session.accelerator.is_main_process:
        return
    for row in range(min(save.samples * size, len(rollouts.rolled))):
        masks = rollouts.masks[row]
        session.log.sample(
            sample_record(
                step=step,
                example=fed.prompts.examples[row // size],
                group=fed.places[row // size],
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
    columns = dict(_columns(table)) | {"total": table.total}
    return {name: float(values[row]) if known[row] else None for name, (values, known) in columns.items()}


def _columns(table: RewardTable) -> Iterator[tuple[str, tuple[Tensor, Tensor]]]:
    """The parts of each stream and their sum, [N], and where they are scored, [N] bool."""
    everywhere = torch.ones_like(table.answered)
    for part in ("accuracy", "format", "length"):
        for key in _earning(part, table.streams):
            known = everywhere if part == "format" else table.scored[key]
            yield f"{part}_{key}", (table.components[f"{part}_{key}"], known)
    for stream in table.streams:
        yield f"total_{stream.key}", table.of(stream.key)


def _earning(part: str, streams: Sequence[TraceStream]) -> list[str]:
    """Keys of the streams that can earn a part: a stream that neither sees nor answers has no accuracy."""
    return [one.key for one in streams if part != "accuracy" or one.sees or one.answers]


# Metrics of a step, `metrics.jsonl`.


class Tally:
    """Sums and counts of one step in one process; `row` adds up all processes."""

    def __init__(self, recipe: TrainRecipe) -> None:
        self.streams = trace_streams(recipe.data.grammar)
        keys = [stream.key for stream in self.streams]
        every, parts = [*keys, "all"], ("accuracy", "format", "length", "total")
        # what is paid alone has no other line
        asked = () if recipe.judging.asked == ("sufficiency",) else recipe.judging.asked
        alarms = ("own", "empty", "shuffled", "seen", "usual_right", "usual_wrong")
        means = [
            *(f"reward/{part}_{key}" for part in parts for key in _earning(part, self.streams)),
            *("reward/total", "reward/plain"),
            *(f"length/{key}" for key in every),
            *("kl", "kl_blind", "entropy", "ratio", "clip_fraction"),
            *(f"clip_fraction/{key}" for key in every),
            *(f"mismatch/{name}_{key}" for name in ("abs", "k3") for key in every),
            *("tis/weight", "tis/truncated"),
            *(f"alarm/{name}" for name in alarms),
            *(f"judged/{name}" for name in asked),
        ]
        self._counts = [
            *("policy", "nonfinite"),
            *(f"collapsed/{key}" for key in (*keys, "sum", "plain")),
            *("groups", "rollouts"),
            *(f"unscored/{key}" for key in keys),
            *("truncated", "tokens", "skipped"),
            *(f"judge/{how}" for how in ("asked", "cached", "late", "failed")),
            *(("redrawn", "replaced") if recipe.rl.redraws else ()),
        ]
        self._sums = dict.fromkeys((*means, *self._counts), 0.0)
        self._over = dict.fromkeys(means, 0.0)
        self._most = dict.fromkeys((f"mismatch/max_{key}" for key in every), 0.0)

    def add(self, name: str, total: float, over: float = 1.0) -> None:
        """Add a sum over `over` things (ignored for counts)."""
        self._sums[name] += total
        if name in self._over:
            self._over[name] += over

    def rewards(self, table: RewardTable) -> None:
        """Add the rewards of whole groups, and how many groups give no gradient [paper §5.4]."""
        columns = dict(_columns(table)) | {"total": table.total, "plain": table.plain}
        for name, (values, known) in columns.items():
            self.add(f"reward/{name}", float(values[known].double().sum()), float(known.sum()))
        totals = {stream.key: table.of(stream.key) for stream in self.streams}
        for name, (values, known) in {**totals, "sum": table.total, "plain": table.plain}.items():
            self.add(f"collapsed/{name}", float(collapsed(values, known, table.group_size).sum()))
        for stream in self.streams:
            self.add(f"unscored/{stream.key}", float((~table.scored[stream.key]).sum()))
        self.add("groups", len(table.answered) // table.group_size)

    def rollouts(self, found: Rollouts) -> None:
        """Add lengths in tokens, how rollouts ended and verdicts came about, and what was decided, paid or
        not."""
        for grades, one in zip(found.graded, found.rolled, strict=True):
            for stream in self.streams:
                self.add(f"length/{stream.key}", grades.lengths[stream.name])
            self.add("length/all", len(one.ids))
            self.add("tokens", len(one.ids))
            self.add("rollouts", 1)
            self.add("truncated", not one.finished)
        for how, count in judge_counts(found.judged).items():
            self.add(f"judge/{how}", count)
        for name, part in (pair for one in found.judged if one for pair in one.parts.items()):
            if part.score is not None:
                self.add(f"judged/{name}", part.score)

    def mismatch(self, key: str, found: Mapping[str, Tensor]) -> None:
        """Add what `process.loss.mismatch` found of a stream, or of all tokens."""
        for name in ("abs", "k3"):
            self.add(f"mismatch/{name}_{key}", *found[name].tolist())
        most = f"mismatch/max_{key}"
        self._most[most] = max(self._most[most], *found["max"].float().tolist())

    def row(self, *, judged: bool = True) -> dict[str, float | int]:
        """The metrics of all processes, each of which must ask; a mean without values is left out, and so is
        what counts verdicts where nobody was asked."""
        every = Ranks.here().gather((self._sums, self._over, self._most))
        sums = {name: sum(one[0][name] for one in every) for name in self._sums}
        over = {name: sum(one[1][name] for one in every) for name in self._over}
        means = {name: sums[name] / count for name, count in over.items() if count}
        named = [name for name in self._counts if judged or not name.startswith("judge/")]
        counts = {name: sums[name] if name == "policy" else int(sums[name]) for name in named}
        alarms = {f"{name}_n": int(over[name]) for name in means if name.startswith("alarm/")}
        compared = {name: max(one[2][name] for one in every) for name in self._most}
        return {**means, **counts, **alarms, **(compared if over["mismatch/abs_all"] else {})}
