"""What RL needs beside the session: who draws, who judges, and log-probabilities to compare with."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from videop2r_data.trainer.data.batch import ModelInputs
from videop2r_data.trainer.judging.base import Judge
from videop2r_data.trainer.judging.make import make_judge
from videop2r_data.trainer.model.forward import TokenLogProbs, TrainModel
from videop2r_data.trainer.model.load import load_reference
from videop2r_data.trainer.model.reference import Reference
from videop2r_data.trainer.model.unwrap import bare, inferring, sharding
from videop2r_data.trainer.rollout.base import RolloutEngine
from videop2r_data.trainer.rollout.hf import HfEngine
from videop2r_data.trainer.run.rollouts import Roller
from videop2r_data.trainer.run.session import Session
from videop2r_data.trainer.run.step import Piece

JUDGE_CACHE = "judge-cache"


@dataclass
class RlParts:
    """The parts.

    Attributes:
        session: the run.
        roller: draws and grades groups.
        judge: started, or None.
        reference: the model that the KL term holds on to; None without a KL term.
    """

    session: Session
    roller: Roller
    judge: Judge | None
    reference: Reference | None

    @torch.no_grad()  # type: ignore[untyped-decorator]
    def old_logps(self, batches: list[list[Piece]]) -> Tensor:
        """[N, C] log-probabilities under the policy that drew the rollouts.

        Only needed if rollouts serve more than one update: before the first one the policy is the old one.
        """
        with inferring(self.session.engine.model):
            return self._table(batches, self.session.engine.model)

    @torch.no_grad()  # type: ignore[untyped-decorator]
    def reference_logps(self, batches: list[list[Piece]]) -> Tensor:
        """[N, C] log-probabilities under the reference."""
        assert self.reference is not None
        with self.session.accelerator.autocast():
            return self._table(batches, self.reference.logps)

    def _table(self, batches: list[list[Piece]], logps_of: Callable[[ModelInputs], TokenLogProbs]) -> Tensor:
        """Run every pass, blank ones too: cut weights are gathered by all processes together."""
        device, parts = self.session.accelerator.device, []
        for piece in (piece for pieces in batches for piece in pieces):
            found = logps_of(piece.inputs.to(device)).logps.float().cpu()
            if not piece.blank:
                parts.append((piece, found))
        rows = max((piece.hi for piece, _ in parts), default=0)
        width = max((found.shape[1] for _, found in parts), default=0)
        table = torch.zeros(rows, width)
        for piece, found in parts:
            table[piece.lo : piece.hi, : found.shape[1]] = found
        return table


@contextmanager
def open_parts(session: Session) -> Iterator[RlParts]:
    """Load and start what RL needs; everything is ended with the block.

    Raises:
        ConfigError, MissingExtraError: a part cannot be had with these settings.
    """
    recipe = session.recipe
    judge = make_judge(
        recipe.judging,
        cache=session.folder / JUDGE_CACHE,
        base=Path.cwd(),
        tell=session.log.note,
    )
    drawer = make_drawer(session)
    try:
        if judge is not None:
            judge.start()
        reference = make_reference(session) if recipe.loss.beta > 0 else None
        yield RlParts(session, Roller(session, drawer, judge), judge, reference)
    finally:
        drawer.close()
        if judge is not None:
            judge.close()


def make_drawer(session: Session) -> RolloutEngine:
    """The rollout engine that the recipe names.

    Raises:
        ConfigError: it does not fit how the policy is distributed.
        MissingExtraError: vLLM is not installed.
    """
    recipe, model, tokenizer = session.recipe, session.engine.model, session.policy.tokenizer
    if recipe.sampling.backend == "hf":
        return HfEngine(model, tokenizer, recipe.sampling)
    if recipe.sampling.backend == "vllm":
        from videop2r_data.trainer.rollout.vllm_engine import VllmEngine

        return VllmEngine(
            model,
            tokenizer,
            recipe.sampling,
            recipe.vllm,
            model=recipe.model.model,
            revision=recipe.model.revision,
        )
    from videop2r_data.trainer.rollout.vllm_server import VllmServerEngine

    return VllmServerEngine(model, tokenizer, recipe.sampling, recipe.vllm)


def make_reference(session: Session) -> Reference:
    """The reference: the policy with its adapters off, or a frozen second model.

    Under FSDP2 the second model is cut over the processes like the policy; otherwise each of them has all of
    it. It is not handed to accelerate, which would save it with every checkpoint.
    """
    recipe, model = session.recipe, session.engine.model
    if recipe.model.lora is not None and not recipe.reference:
        return Reference(model)
    spec = recipe.model.model_copy(
        update={
            "lora": None,
            "gradient_checkpointing": False,
            "model": recipe.reference or recipe.model.model,
        }
    )
    frozen = load_reference(spec, session.accelerator.device, temperature=recipe.sampling.temperature)
    if sharding(model) == "FSDP2":
        cut_layers(frozen)
    return Reference(model, frozen)


def cut_layers(frozen: TrainModel) -> None:
    """Cut a model that does not train over all processes, layer by layer (FSDP2); in place."""
    from torch.distributed.fsdp import fully_shard

    inner = bare(frozen).model
    for layer in (*inner.language_model.layers, *inner.visual.blocks):
        fully_shard(layer)
    fully_shard(frozen)
