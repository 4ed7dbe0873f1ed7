"""The bytes of a forward and backward pass, and of rollouts, of tensors that have sizes and no data.

A model is made from its configuration alone (torch's fake tensors: no weights are read, none are allocated),
and the trainer's own code runs on it: the same layout, checkpointing, pieces of the logits and precision. A
`Ledger` follows each storage from its birth to its death.
"""

from __future__ import annotations

import weakref
from collections import Counter
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter
from transformers import AutoModelForImageTextToText

from videop2r_data.schemas import MediaSpec
from videop2r_data.trainer.data.batch import VIDEO, ModelInputs, PromptBatch
from videop2r_data.trainer.model.forward import TrainModel
from videop2r_data.trainer.model.load import kernels, prepared
from videop2r_data.trainer.model.weights import bare
from videop2r_data.trainer.rollout.hf import LEAVE, ROOM, Rows, draw
from videop2r_data.trainer.settings.recipe import TrainRecipe
from videop2r_data.trainer.settings.rl import SamplingSpec


class Ledger(TorchDispatchMode):  # type: ignore[misc]
    """Live bytes of what comes into being inside a `with` block: weights (of `core`, the bare model, from the
    start), gradients, autocast copies, logits, activations (all else).

    Attributes:
        parts: part -> bytes that live now.
        peak: the parts at the moment of their largest sum.
        work: largest sum of logits and activations alone.
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
            self.enter(weight, "weights")

    def enter(self, tensor: Tensor, part: str) -> None:
        """Count a tensor's storage under a part, once; a storage that became a gradient changes its part."""
        storage = tensor.untyped_storage()
        key, size = storage._cdata, storage.nbytes()
        if key in self._live:
            ref, _, before = self._live[key]
            if part == "gradients":
                self._live[key] = (ref, size, part)
                self.parts[before] -= size
                self.parts[part] += size
            return
        self._live[key] = (weakref.ref(storage, lambda _: self._leave(key)), size, part)
        self.parts[part] += size
        self.work = max(self.work, self.parts["logits"] + self.parts["activations"])
        if self.parts.total() > self.peak.total():
            self.peak = self.parts.copy()

    def _leave(self, key: int) -> None:
        _, size, part = self._live.pop(key)
        self.parts[part] -= size

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if func is torch.ops.prim.device.default:  # asked twice for each operation
            return out
        for tensor in tree_iter(out):
            if isinstance(tensor, Tensor):
                self.enter(tensor, self._part(func, args, tensor))
        return out

    def _part(self, func: Any, args: Any, out: Tensor) -> str:
        if func is torch.ops.aten._to_copy.default:
            known = self._live.get(args[0].untyped_storage()._cdata)
            if known is not None and known[2] == "weights":
                return "autocast copies"
        logits = out.dim() > 1 and out.shape[-1] == self._vocab and out.shape[0] != self._width
        return "logits" if logits else "activations"


def model_of(recipe: TrainRecipe, config: Any) -> TrainModel:
    """The policy of a recipe, of tensors without data."""
    spec, vision, flash = recipe.model, config.vision_config, "flash_attention_2"
    seen = spec.vision_attention or spec.attn
    share = spec.share_prompts and spec.attn != flash
    # Flash attention has no fake kernel; those of sdpa keep the same things for the backward pass.
    told = {"attn": spec.attn.replace(flash, "sdpa")}
    if seen in ("sdpa", flash):
        # One window for a pair of frames, and one call for all of them: as many bytes in fewer operations.
        vision.window_size = max(_grid(recipe.data.media)) * vision.patch_size * vision.spatial_merge_size
        told["vision_attention"] = "windows"
    spec = spec.model_copy(update=told)
    with torch.device("meta"):
        net = AutoModelForImageTextToText.from_config(
            config, dtype=getattr(torch, spec.dtype), attn_implementation=kernels(spec)
        )
        net = prepared(net, spec)
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        net.to_empty(device="cpu")
        bare(net).tie_weights()

    def without_data(module: Any, args: Any, named: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        """The mask as a tensor without data: each layer would else compute with its millions of pairs."""
        mask = named.get("attention_mask")
        return args, named if mask is None else {**named, "attention_mask": mode.from_tensor(mask)}

    bare(net).model.language_model.register_forward_pre_hook(without_data, with_kwargs=True)
    return TrainModel(
        net,
        temperature=recipe.sampling.temperature,
        share_prompts=share,
        padding_free=spec.padding_free,
    )


def example(net: Any, media: MediaSpec, prompts: int, group: int, lengths: tuple[int, int]) -> ModelInputs:
    """`group` rows of each prompt, with clips as large as the settings allow; `lengths`: further tokens of a
    prompt, and tokens of every completion."""
    config = bare(net).config
    vision = config.vision_config
    merge, pair = vision.spatial_merge_size, vision.temporal_patch_size
    (height, width), times, (text, completion) = _grid(media), -(-media.frames // pair), lengths
    # Qwen3-VL writes the time in front of each pair of frames, so each is a run of its own
    runs = times if config.model_type == "qwen3_vl" else 1
    length, run = text + times * height * width, times * height * width // runs
    ids = torch.full((prompts * group, length + completion), 5)
    types = torch.zeros_like(ids)
    for start in range(4, 4 + runs * (run + 1), run + 1):
        ids[:, start : start + run], types[:, start : start + run] = config.video_token_id, VIDEO
    patches = prompts * times * height * width * merge**2
    with next(net.parameters()).fake_mode:
        pixels = torch.empty(patches, 3 * pair * vision.patch_size**2)
    grids = torch.tensor([[times, height * merge, width * merge]] * prompts)
    seen = {"pixel_values_videos": pixels, "video_grid_thw": grids}
    if runs == 1:
        seen["second_per_grid_ts"] = torch.ones(prompts)
    return ModelInputs(
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        types=types,
        starts=torch.full((len(ids),), length),
        lengths=torch.full((len(ids),), completion),
        media=seen,
        repeat=group,
    )


def _grid(media: MediaSpec) -> tuple[int, int]:
    """Height and width in tokens of the largest frames."""
    tokens = media.max_pixels // media.factor**2
    height = max(range(1, int(tokens**0.5) + 1), key=lambda side: side * (tokens // side))
    return height, tokens // height


def count_update(model: TrainModel, inputs: ModelInputs, *, half: bool, again: bool, entropy: bool) -> Ledger:
    """One micro-batch, forward and backward; `half`: under autocast to bfloat16, `again`: the gradients of an
    earlier one are there."""
    ledger, learnt = Ledger(bare(model)), [weight for weight in model.parameters() if weight.requires_grad]
    for weight in learnt:
        weight.register_post_accumulate_grad_hook(lambda weight: ledger.enter(weight.grad, "gradients"))
        if again:
            weight.grad = torch.empty_like(weight)
            ledger.enter(weight.grad, "gradients")
    for tensor in (*inputs.media.values(), inputs.input_ids, inputs.attention_mask, inputs.types):
        ledger.enter(tensor, "activations")
    with ledger, torch.autocast("cpu", torch.bfloat16, enabled=half):
        told = model(inputs, entropy=entropy)
    with ledger:
        told.logps.sum().backward()
    for weight in learnt:
        weight.grad = None
    return ledger


def count_rollouts(
    model: TrainModel, inputs: ModelInputs, spec: SamplingSpec, *, group: int, half: bool
) -> Ledger:
    """The policy draws: it reads the prompts (`inputs`: a row of each), and its cache grows for the last time
    while it decodes `group` rows of each."""
    ledger, width, length = Ledger(bare(model)), int(inputs.starts[0]), int(inputs.lengths[0])
    ids, types = inputs.input_ids[:, :width].tolist(), inputs.types[:, :width].tolist()
    nobody: Any = (None,) * len(ids)
    batch = PromptBatch(nobody, nobody, ("",) * len(ids), ids, types, dict(inputs.media))
    held = room = width
    while room < width + length:
        held, room = room, room + 1 + max(ROOM, room // 8)
    for tensor in inputs.media.values():
        ledger.enter(tensor, "activations")
    model.eval()
    with torch.no_grad(), ledger, torch.autocast("cpu", torch.bfloat16, enabled=half):
        rows = Rows(bare(model), batch, 0, len(ids), group_size=group, length=length)
        for layer in rows._cache.layers:
            count, heads, _, size = layer.keys.shape
            layer.keys = layer.keys.new_empty(count, heads, held, size)
            layer.values = layer.keys.new_empty(count, heads, held, size)
        u = torch.zeros(len(ids) * group, dtype=torch.float64)
        rows.advance(draw(rows.logits, u, spec))
        draw(rows.logits, u, spec)
        rows.keep(torch.arange(len(u)) < int(len(u) * LEAVE))  # others have ended: a copy of the cache
    model.train()
    return ledger
