"""The bytes of a forward and backward pass, of tensors that have sizes and no data.

A model is made from its configuration alone (torch's fake tensors: no weights are read, none are allocated),
and the trainer's own pass runs on it: the same layout, checkpointing, pieces of the logits and precision. A
`Ledger` follows each storage from its birth to its death.
"""

from __future__ import annotations

import weakref
from collections import Counter
from collections.abc import Iterable
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter
from transformers import AutoModelForImageTextToText

from videop2r_data.schemas import MediaSpec
from videop2r_data.trainer.data.batch import VIDEO, ModelInputs, PromptBatch
from videop2r_data.trainer.model.forward import TrainModel
from videop2r_data.trainer.model.load import prepared
from videop2r_data.trainer.model.weights import bare
from videop2r_data.trainer.rollout.decode import Rows
from videop2r_data.trainer.settings.recipe import TrainRecipe


class Ledger(TorchDispatchMode):  # type: ignore[misc]
    """Live bytes of what comes into being inside a `with` block: weights, gradients, autocast copies, logits,
    activations (all else).

    Args:
        core: the bare model: its weights count from the start, its vocabulary tells logits from activations.

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
            if weight.requires_grad:
                weight.register_post_accumulate_grad_hook(lambda weight: self.enter(weight.grad, "gradients"))

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
    spec, vision = recipe.model, config.vision_config
    if hasattr(vision, "window_size"):
        # One window for a pair of frames: as many bytes in a ninth of the calls.
        vision.window_size = max(_grid(recipe.data.media)) * vision.patch_size * vision.spatial_merge_size
    with torch.device("meta"):
        # Flash attention has no fake kernel; the kernels of sdpa keep the same things for the backward pass.
        net = AutoModelForImageTextToText.from_config(
            config, dtype=getattr(torch, spec.dtype), attn_implementation="sdpa"
        )
        net = prepared(net, spec)
    fakes: dict[Tensor, Tensor] = {}  # tied weights stay tied
    with FakeTensorMode(allow_non_fake_inputs=True):
        for module in net.modules():
            for table in (module._parameters, module._buffers):
                for name, tensor in table.items():
                    if tensor is None:
                        continue
                    if tensor not in fakes:
                        fake = torch.empty(tensor.shape, dtype=tensor.dtype)
                        learnt = tensor.requires_grad
                        whole = isinstance(tensor, nn.Parameter)
                        fakes[tensor] = nn.Parameter(fake, requires_grad=learnt) if whole else fake
                    table[name] = fakes[tensor]
    share = spec.share_prompts and spec.attn != "flash_attention_2"
    return TrainModel(net, temperature=recipe.sampling.temperature, share_prompts=share)


def example(
    net: Any, media: MediaSpec, *, prompts: int, group: int, text: int, completion: int
) -> ModelInputs:
    """Rows with a clip as large as the settings allow in every prompt.

    Args:
        net: the model.
        media: frames of a clip, and pixels of each.
        prompts, group: distinct prompts, and rows of each.
        text: further tokens of a prompt.
        completion: tokens of every completion.
    """
    config = bare(net).config
    vision = config.vision_config
    merge, pair = vision.spatial_merge_size, vision.temporal_patch_size
    (height, width), times = _grid(media), -(-media.frames // pair)
    # Qwen3-VL writes the time in front of each pair of frames, so each is a run of its own
    runs = times if config.model_type == "qwen3_vl" else 1
    length, run = text + times * height * width, times * height * width // runs
    ids = torch.full((prompts * group, length + completion), 5)
    types = torch.zeros_like(ids)
    for start in range(4, 4 + runs * (run + 1), run + 1):
        ids[:, start : start + run], types[:, start : start + run] = config.video_token_id, VIDEO
    patches = times * height * width * merge**2
    seen = {
        "pixel_values_videos": torch.zeros(prompts * patches, 3 * pair * vision.patch_size**2),
        "video_grid_thw": torch.tensor([[times, height * merge, width * merge]] * prompts),
    }
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
    """One micro-batch, forward and backward.

    Args:
        model: on tensors without data.
        inputs: of `example`.
        half: computed under autocast to bfloat16.
        again: gradients of an earlier micro-batch are there.
        entropy: entropies are computed too, as in RL.
    """
    ledger, learnt = Ledger(bare(model)), [weight for weight in model.parameters() if weight.requires_grad]
    for weight in learnt if again else ():
        weight.grad = torch.empty_like(weight)
        ledger.enter(weight.grad, "gradients")
    for tensor in (*inputs.media.values(), inputs.input_ids, inputs.attention_mask, inputs.types):
        ledger.enter(tensor, "activations")
    with ledger:
        with _autocast(half):
            told = model(inputs, entropy=entropy)
        told.logps.sum().backward()
    for weight in learnt:
        weight.grad = None
    return ledger


def count_prefill(model: TrainModel, inputs: ModelInputs, *, half: bool) -> Ledger:
    """The policy reads its prompts, before it decodes; `inputs` are rows with a group of 1."""
    ledger, core, width = Ledger(bare(model)), bare(model), int(inputs.starts[0])
    ids, types = inputs.input_ids[:, :width].tolist(), inputs.types[:, :width].tolist()
    nobody: Any = (None,) * len(ids)
    batch = PromptBatch(nobody, nobody, ("",) * len(ids), ids, types, dict(inputs.media), pad_id=0)
    model.eval()
    with torch.no_grad(), ledger, _autocast(half):
        Rows(core, batch, 0, len(ids), group_size=1, length=1)
    model.train()
    return ledger


def _autocast(half: bool) -> Any:
    return torch.autocast("cpu", torch.bfloat16) if half else nullcontext()


def bytes_of(weights: Iterable[Tensor]) -> int:
    """Bytes of distinct weights."""
    return sum(weight.numel() * weight.element_size() for weight in weights)
