"""Everything a training loop needs, made from a recipe: data, model, optimizer, log, batches in order."""

from __future__ import annotations

import logging
import math
import os
from bisect import bisect_left
from collections import Counter
from collections.abc import Generator, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import NamedTuple

import torch
from accelerate import Accelerator
from accelerate.state import PartialState
from accelerate.utils import DistributedType, GradientAccumulationPlugin

from videop2r_data.errors import ConfigError
from videop2r_data.prompts import load_prompt
from videop2r_data.trainer.data.batch import ModelInputs, PromptBatch
from videop2r_data.trainer.data.collate import Collator
from videop2r_data.trainer.data.examples import Example, Skip
from videop2r_data.trainer.data.loader import MediaLoader
from videop2r_data.trainer.data.order import Order, derive
from videop2r_data.trainer.data.rows import read_examples
from videop2r_data.trainer.memory import guarded
from videop2r_data.trainer.model.forward import TrainModel
from videop2r_data.trainer.model.load import Policy, load_policy
from videop2r_data.trainer.run.checkpoint import Checkpoints, admit, describe
from videop2r_data.trainer.run.optim import make_optimizer, make_schedule
from videop2r_data.trainer.run.runlog import RunLog, Stop, Watcher
from videop2r_data.trainer.run.step import Engine, Piece, blank_inputs, cut
from videop2r_data.trainer.settings.recipe import TrainRecipe


def _hush() -> None:
    """No progress bars of transformers for every load and save, and no warning at each checkpoint that tied
    weights are written once: they are tied again on loading. Where the log was asked for (`-v`), nothing is
    hushed."""
    if logging.getLogger().isEnabledFor(logging.INFO):
        return
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()
    for name in ("utils.other", "checkpointing"):
        logging.getLogger(f"accelerate.{name}").setLevel(logging.ERROR)


class Fed(NamedTuple):
    """The batch of one step (from 0) in this process.

    Attributes:
        prompts: B prompts; fewer than planned, perhaps none, where clips could not be read.
        places: [B] place of each in the batch of all processes, rising.
        skipped: what was left out.
    """

    step: int
    prompts: PromptBatch
    places: tuple[int, ...]
    skipped: tuple[Skip, ...]


@dataclass
class Session:
    """One run of one process.

    Attributes:
        examples: all of them; the same in every process.
        order: this process's share of every update's batch.
        collator: the one for training, rollouts and evaluation.
        steps, start, steps_done: of the whole run, when the session began, and now.
        skipped: reason -> examples left out by this process, since the session began.
        untold: those of them that were not told yet.
        tokens: trained on by all processes, since the session began.
    """

    recipe: TrainRecipe
    accelerator: Accelerator
    policy: Policy
    engine: Engine
    examples: Sequence[Example]
    order: Order
    collator: Collator
    log: RunLog
    checkpoints: Checkpoints
    stop: Stop
    steps: int
    start: int
    steps_done: int
    skipped: Counter[str] = field(default_factory=Counter)
    untold: list[Skip] = field(default_factory=list)
    tokens: int = 0

    def leave_out(self, skips: Iterable[Skip]) -> None:
        """Count examples of this process that the step under way is without; `train_loop` tells them."""
        for skip in skips:
            self.skipped[str(skip.reason)] += 1
            self.untold.append(skip)

    def updates(self, step: int) -> range:
        """The numbers of a step's minibatches in `order`."""
        parts = self.recipe.rl.minibatches
        return range(step * parts, (step + 1) * parts)

    def planned(self, step: int) -> list[Example]:
        """The examples of this process at a step, minibatch by minibatch."""
        return [self.examples[i] for part in self.updates(step) for i in self.order.batch(part)]

    def indices(self, step: int) -> list[int]:
        """Of the examples of all processes at a step."""
        return [i for part in self.updates(step) for i in self.order.global_batch(part)]

    def place(self, local: int) -> int:
        """Place of this process's planned example `local` in the batch of all processes."""
        share = self.order.batch_size // int(self.accelerator.num_processes)
        part, within = divmod(local, share)
        return part * self.order.batch_size + int(self.accelerator.process_index) * share + within

    def cut(self, inputs: ModelInputs, fed: Fed) -> list[list[Piece]]:
        """The micro-batches of each minibatch: whole groups, as many in every process; blank ones fill up."""
        blank = blank_inputs(self.collator.end_id)
        size, pieces = self.recipe.batch.micro, self.engine.pieces
        edges = [
            bisect_left(fed.places, part * self.order.batch_size)
            for part in range(self.recipe.rl.minibatches + 1)
        ]
        return [cut(inputs, lo, hi, groups=size, pieces=pieces, blank=blank) for lo, hi in pairwise(edges)]


def open_session(
    recipe: TrainRecipe,
    *,
    watchers: Sequence[Watcher] = (),
    stop: Stop | None = None,
    anyway: bool = False,
    fresh: bool = False,
) -> Session:
    """Load and wrap everything; go on from the newest checkpoint if the run's folder has one. Arguments and
    errors are those of `train`."""
    _hush()
    accelerator = make_accelerator(recipe)
    with accelerator.main_process_first():
        examples = read_examples(recipe.data)
    order, steps = _plan(recipe, accelerator, examples)
    with guarded("load"), accelerator.main_process_first():
        policy = load_policy(recipe.model, accelerator.device, seed=derive(recipe.seed, "adapters"))
    prompt = load_prompt(recipe.data.prompt_name, grammar=recipe.data.grammar)
    collator = Collator(policy.processor, prompt, recipe.data.media)
    if positions := policy.positions:
        collator.allow(positions - 1, f"the model has {positions:,} positions")
    with guarded("load"):
        engine = _engine(recipe, accelerator, policy, steps)
    data = describe(recipe, examples, prompt)
    main, processes = bool(accelerator.is_main_process), int(accelerator.num_processes)
    checkpoint = admit(recipe, data, processes=processes, anyway=anyway, fresh=fresh, main=main)
    accelerator.wait_for_everyone()
    start = checkpoint.step if checkpoint else 0
    log = RunLog(recipe.folder, watchers, upto=start, main=main)
    identity = {"recipe": recipe.digest, **data}
    checkpoints = Checkpoints(recipe.folder, accelerator, keep=recipe.save.keep, identity=identity)
    if checkpoint:
        with guarded("load"):
            checkpoints.restore(checkpoint)
        log.note(f"going on after step {start:,} of {steps:,}")
    parts = recipe, accelerator, policy, engine, examples, order, collator, log, checkpoints
    return Session(*parts, stop=stop or Stop(), steps=steps, start=start, steps_done=start)


def make_accelerator(recipe: TrainRecipe) -> Accelerator:
    """Devices and processes as `accelerate launch` set them up; one process without it.

    Raises:
        ConfigError: the processes cannot share the batch, or a setting does not fit them.
    """
    has_device = torch.cuda.is_available() or torch.backends.mps.is_available()
    cpu = os.environ.get("ACCELERATE_USE_CPU", "").lower() in ("1", "true", "yes") or not has_device
    world, parts, batch = int(PartialState(cpu=cpu).num_processes), recipe.rl.minibatches, recipe.batch
    if world != int(os.environ.get("WORLD_SIZE", "1")):
        raise ConfigError(
            f"{os.environ['WORLD_SIZE']} processes were started, but they do not know of each other",
            hint="start them with accelerate launch and one of the configs that p2r-train recipes names",
        )
    if batch.size % (world * parts):
        raise ConfigError(
            f"batch.size {batch.size} is no multiple of {world} processes times {parts} minibatches",
            where="batch.size",
            hint=f"set it to a multiple of {world * parts}, or start another number of processes",
        )
    # micro-batches per update and process
    pieces = math.ceil(batch.size // world // parts / batch.micro)
    accelerator = Accelerator(
        cpu=cpu,
        mixed_precision=_precision(recipe),
        gradient_accumulation_plugin=GradientAccumulationPlugin(
            num_steps=pieces, adjust_scheduler=False, sync_with_dataloader=False
        ),
        step_scheduler_with_optimizer=False,
    )
    kind = accelerator.distributed_type
    sharded = kind in (DistributedType.FSDP, DistributedType.DEEPSPEED)
    if sharded and recipe.optim.kind in ("adamw-master", "adamw-host"):
        raise ConfigError(
            f"{recipe.optim.kind} keeps its copies whole, and {kind.value} cuts the weights over the "
            "processes",
            where="optim.kind",
            hint="set model.dtype: float32 and optim.kind: adamw, whose memory is cut too",
        )
    plugin = getattr(accelerator.state, "deepspeed_plugin", None)
    if plugin is not None:
        # DeepSpeed clips and accumulates by itself: its "auto" values are filled in from the recipe.
        config = plugin.deepspeed_config
        config["gradient_clipping"] = recipe.optim.max_grad_norm
        config["gradient_accumulation_steps"] = pieces
        config["train_micro_batch_size_per_gpu"] = batch.micro
        if config.get("bf16", {}).get("enabled"):
            # it steps by itself as well, on gradients that are not finite too unless it is told to look
            config["bf16"]["check_grad_overflow"] = True
    return accelerator


def _precision(recipe: TrainRecipe) -> str:
    """`bf16` or `no`, as accelerate names it."""
    gpu = torch.cuda.is_available()
    has = gpu and torch.cuda.is_bf16_supported()
    if recipe.precision == "bf16" and gpu and not has:
        raise ConfigError("this GPU has no bf16", where="precision", hint="set precision: fp32")
    return "bf16" if recipe.precision == "bf16" or (recipe.precision == "auto" and has) else "no"


def _plan(recipe: TrainRecipe, accelerator: Accelerator, examples: Sequence[Example]) -> tuple[Order, int]:
    """The order of updates, and the number of steps."""
    parts = recipe.rl.minibatches
    order = Order.of(
        recipe.data,
        examples,
        batch=recipe.batch.size // parts,
        seed=recipe.seed,
        rank=accelerator.process_index,
        world_size=accelerator.num_processes,
    )
    if recipe.steps is not None:
        return order, recipe.steps
    assert recipe.epochs is not None
    steps = math.ceil(recipe.epochs * order.steps_per_epoch / parts)
    if steps < 1:
        words = f"{len(examples)} examples fill no batch of {recipe.batch.size}"
        raise ConfigError(words, where="batch.size")
    return order, steps


def _engine(recipe: TrainRecipe, accelerator: Accelerator, policy: Policy, steps: int) -> Engine:
    """Wrap model, optimizer and schedule."""
    model = TrainModel(
        policy.net,
        temperature=recipe.sampling.temperature,  # 1 in SFT, whose recipes have the defaults of RL
        share_prompts=recipe.model.share_prompts,
        padding_free=recipe.model.padding_free,
    )
    optimizer = make_optimizer(model, recipe.optim)
    schedule = make_schedule(optimizer, recipe.optim, steps=steps * recipe.rl.updates)
    model, optimizer, schedule = accelerator.prepare(model, optimizer, schedule)
    return Engine(accelerator, model, optimizer, schedule, recipe.optim.max_grad_norm)


def feed(session: Session) -> Generator[Fed]:
    """The batches of the remaining steps; the decoders end when the consumer stops."""
    spec = session.recipe.data
    planned = (session.planned(step) for step in range(session.start, session.steps))
    with MediaLoader(planned, spec.media, workers=spec.workers, ahead=spec.ahead) as loader:
        for step, loaded in enumerate(loader, session.start):
            with guarded("data"):
                prompts = session.collator(loaded.examples, loaded.frames)
            places = tuple(session.place(loaded.kept[at]) for at in prompts.kept)
            yield Fed(step, prompts, places, (*loaded.skipped, *prompts.skipped))
