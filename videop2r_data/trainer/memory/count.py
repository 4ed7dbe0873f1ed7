"""The bytes of a forward and backward pass, of tensors that have sizes and no data.

A model is made from its configuration alone (torch's fake tensors: no weights are read, none are allocated), and
the trainer's own pass runs on it: the same layout, checkpointing, pieces of the logits and precision. A `Ledger`
follows each storage from its birth to its death. On real tensors the same ledger measures.
"""

from __future__ import annotations

import weakref
from collections import Counter
from collections.abc import Iterable
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter

from videop2r_data.trainer.data.batch import VIDEO, ModelInputs
from videop2r_data.trainer.model.forward import TrainModel
from videop2r_data.trainer.model.weights import bare
from videop2r_data.trainer.rollout.decode import Prompts, prefill

WEIGHTS, GRADIENTS, COPIES, LOGITS = "weights", "gradients", "autocast copies", "logits"
ACTIVATIONS = "activations"
WORK = (LOGITS, ACTIVATIONS)
"""What a pass needs beside weights, their copies and gradients."""


class Ledger(TorchDispatchMode):  # type: ignore[misc]
    """Live bytes by part, and their largest sum, of what comes into being inside a `with` block.

    Args:
        core: the bare model: its weights count from the start, its vocabulary tells logits from activations.

    Attributes:
        parts: part -> bytes that live now.
        peak: part -> bytes at the moment of the largest sum.
        work: largest sum of `WORK` alone.
    """

    def __init__(self, core: Any) -> None:
        super().__init__()
        self._live: dict[int, tuple[Any, int, str]] = {}
        self.parts: Counter[str] = Counter()
        self.peak: Counter[str] = Counter()
        self.work = 0
        text = core.config.text_config
        self._vocab, self._width = text.vocab_size, text.hidden_size
        for weight in core.parameters():
            self.enter(weight, WEIGHTS)
            if weight.requires_grad:
                weight.register_post_accumulate_grad_hook(lambda weight: self.enter(weight.grad, GRADIENTS))

    def enter(self, tensor: Tensor, part: str) -> None:
        """Count a tensor's storage under a part, from now on."""
        storage = tensor.untyped_storage()
        key, size = storage._cdata, storage.nbytes()
        known = self._live.get(key)
        if known is not None:
            if part == GRADIENTS and known[2] != part:
                self._live[key] = (known[0], known[1], part)
                self.parts.update({known[2]: -known[1], part: known[1]})
            return
        self._live[key] = (weakref.ref(storage, lambda _: self._leave(key)), size, part)
        self.parts[part] += size
        self.work = max(self.work, sum(self.parts[name] for name in WORK))
        if self.parts.total() > self.peak.total():
            self.peak = self.parts.copy()

    def _leave(self, key: int) -> None:
        _, size, part = self._live.pop(key)
        self.parts[part] -= size

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for tensor in tree_iter(out):
            if isinstance(tensor, Tensor):
                self.enter(tensor, self._part(func, args, tensor))
        return out

    def _part(self, func: Any, args: Any, out: Tensor) -> str:
        if func is torch.ops.aten._to_copy.default:
            known = self._live.get(args[0].untyped_storage()._cdata)
            if known is not None and known[2] == WEIGHTS:
                return COPIES
        vocab = out.dim() > 1 and out.shape[-1] == self._vocab and out.shape[0] != self._width
        return LOGITS if vocab else ACTIVATIONS


def without_data(net: Any) -> None:
    """Make the weights and buffers of a model on torch's meta device fake ones on the CPU, in place."""
    before: dict[int, Tensor] = {}
    fakes: dict[int, Tensor] = {}
    with FakeTensorMode(allow_non_fake_inputs=True):
        for module in net.modules():
            for table in (module._parameters, module._buffers):
                for name, tensor in table.items():
                    if tensor is None:
                        continue
                    if id(tensor) not in fakes:  # tied weights stay tied
                        before[id(tensor)] = tensor
                        fake = torch.empty(tensor.shape, dtype=tensor.dtype)
                        whole = isinstance(tensor, torch.nn.Parameter)
                        fakes[id(tensor)] = (
                            torch.nn.Parameter(fake, requires_grad=tensor.requires_grad) if whole else fake
                        )
                    table[name] = fakes[id(tensor)]


def example(
    net: Any, *, frames: int, tokens: int, text: int, completion: int, prompts: int, group: int
) -> ModelInputs:
    """Rows as long as a recipe allows: one clip in every prompt, every completion of full length.

    Args:
        net: the model.
        frames: of the clip; none for 0.
        tokens: of a pair of frames at most.
        text: further tokens of the prompt.
        completion: tokens of a completion.
        prompts, group: distinct prompts, and rows of each.
    """
    core = bare(net)
    vision = core.config.vision_config
    merge, pair = vision.spatial_merge_size, vision.temporal_patch_size
    height = (
        max((h for h in range(1, int(tokens**0.5) + 1)), key=lambda h: h * (tokens // h)) if frames else 0
    )
    times, high, wide = -(-frames // pair), height * merge, tokens // max(1, height) * merge
    seen = times * high * wide // merge**2
    length = text + seen
    ids = torch.full((prompts * group, length + completion), 5)
    types = torch.zeros_like(ids)
    media: dict[str, Tensor] = {}
    if frames:
        # Qwen3-VL marks the time of each pair of frames with words, so each is a run of its own
        runs = times if core.config.model_type == "qwen3_vl" else 1
        for run in range(runs):
            start = 4 + run * (seen // runs + 1)
            ids[:, start : start + seen // runs] = core.config.video_token_id
            types[:, start : start + seen // runs] = VIDEO
        patch = getattr(vision, "in_channels", 3) * pair * vision.patch_size**2
        media = {
            "pixel_values_videos": torch.zeros(prompts * times * high * wide, patch),
            "video_grid_thw": torch.tensor([[times, high, wide]] * prompts),
        }
        if runs == 1:
            media["second_per_grid_ts"] = torch.ones(prompts)
    return ModelInputs(
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        types=types,
        starts=torch.full((len(ids),), length),
        lengths=torch.full((len(ids),), completion),
        media=media,
        repeat=group,
    )


def count_update(model: TrainModel, inputs: ModelInputs, *, half: bool, again: bool, entropy: bool) -> Ledger:
    """One micro-batch, forward and backward.

    Args:
        model: on fake tensors.
        inputs: of `example`.
        half: computed under autocast to bfloat16.
        again: gradients of an earlier micro-batch are there.
        entropy: entropies are computed too, as in RL.
    """
    ledger = Ledger(bare(model))
    if again:
        for weight in model.parameters():
            if weight.requires_grad:
                weight.grad = torch.empty_like(weight)
                ledger.enter(weight.grad, GRADIENTS)
    for tensor in (*inputs.media.values(), inputs.input_ids, inputs.attention_mask, inputs.types):
        ledger.enter(tensor, ACTIVATIONS)
    with ledger:
        with _autocast(half):
            told = model(inputs, entropy=entropy)
        told.logps.sum().backward()
    for weight in model.parameters():
        weight.grad = None
    return ledger


def count_prefill(model: TrainModel, inputs: ModelInputs, *, half: bool, group: int) -> Ledger:
    """The policy reads its prompts, before it decodes; `inputs` are rows with a group of 1."""
    ledger, core, width = Ledger(bare(model)), bare(model), int(inputs.starts[0])
    ids, types = inputs.input_ids[:, :width], inputs.types[:, :width]
    model.eval()
    with torch.no_grad(), ledger, _autocast(half):
        prefill(core, Prompts(ids, torch.ones_like(ids), types, dict(inputs.media)), group, 1)
    model.train()
    return ledger


def _autocast(half: bool) -> Any:
    return torch.autocast("cpu", torch.bfloat16) if half else nullcontext()


def bytes_of(weights: Iterable[Tensor]) -> int:
    """Bytes of distinct weights."""
    return sum(weight.numel() * weight.element_size() for weight in weights)
