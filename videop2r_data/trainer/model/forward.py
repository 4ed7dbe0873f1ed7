"""The one forward pass: log-probabilities of completions given prompt, images and clips.

SFT, the policy, the old policy and the reference all go through it, so that they see exactly the same input.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from videop2r_data.errors import ConfigError
from videop2r_data.trainer.data.batch import IMAGE, VIDEO
from videop2r_data.trainer.model.layout import Layout, lay_out, without_padding
from videop2r_data.trainer.model.weights import bare

if TYPE_CHECKING:
    from videop2r_data.trainer.data.batch import ModelInputs


# The output layer. A batch of long completions times a vocabulary of 152,000 would be tens of gigabytes of
# logits, so the head works through the tokens piece by piece and computes each piece again in the backward
# pass. All of it happens in one call of the head module: FSDP and ZeRO gather weights around module calls,
# and must do so once on every rank.


PIECE = 1 << 26
"""Logits in memory at a time: 256 MiB in float32."""


def token_logps(
    head: Any, hidden: Tensor, targets: Tensor, *, temperature: float, entropy: bool, piece: int = PIECE
) -> tuple[Tensor, Tensor | None]:
    """Log-probability of each target, and the entropy of each distribution.

    Args:
        head: the output layer, `Linear(H, V)`.
        hidden: [T, H].
        targets: [T] token ids.
        temperature: logits are divided by it.
        entropy: also compute entropies (in nats; without gradient).
        piece: logits in memory at a time.

    Returns:
        [T] float32 log-probabilities, and [T] float32 entropies or None.
    """

    def forward(states: Tensor) -> tuple[Tensor, Tensor]:
        size = max(1, piece // head.weight.shape[0])
        parts = list(zip(states.split(size), targets.split(size), strict=True))
        # With one piece there is little memory to save: keep its logits instead of computing them twice.
        again = len(parts) > 1 and torch.is_grad_enabled()
        done = [
            checkpoint(_piece, head, part, ids, temperature, entropy, use_reentrant=False)
            if again
            else _piece(head, part, ids, temperature, entropy)
            for part, ids in parts
        ]
        return torch.cat([d[0] for d in done]), torch.cat([d[1] for d in done])

    head.forward = forward
    try:
        logps, entropies = head(hidden)
    finally:
        del head.forward
    return logps, entropies if entropy else None


def _piece(
    head: Any, hidden: Tensor, targets: Tensor, temperature: float, entropy: bool
) -> tuple[Tensor, Tensor]:
    logits = functional.linear(hidden, head.weight, head.bias).float()
    if temperature != 1.0:
        logits = logits / temperature
    norm = logits.logsumexp(-1)
    logps = logits.gather(-1, targets[:, None])[:, 0] - norm
    if not entropy:
        return logps, logps.detach()
    with torch.no_grad():
        probabilities = (logits - norm[:, None]).exp_()
        spread = norm - (probabilities * logits).sum(-1)
    return logps, spread


# The vision tower. Images and videos of all prompts go through it in one call, each prompt once, and a blank
# image where a batch has neither: every rank then makes the same calls, and every parameter of the tower gets
# a gradient.


@dataclass(frozen=True, slots=True)
class Features:
    """Features of the images or of the videos of a batch.

    Attributes:
        tokens: [T, H], one row per placeholder token, in the order of the prompts.
        deepstack: further [T, H], one per tapped layer (Qwen3-VL); empty for Qwen2.5-VL.
    """

    tokens: Tensor
    deepstack: tuple[Tensor, ...] = ()

    def take(self, rows: Tensor) -> Features:
        """The features of these rows; a row may be taken more than once, its gradients add up."""
        return Features(self.tokens[rows], tuple(layer[rows] for layer in self.deepstack))


@dataclass(frozen=True, slots=True)
class Seen:
    """Features of a batch; `blank`: without media, a zero that connects the tower to the loss."""

    image: Features | None
    video: Features | None
    blank: Tensor | None


def encode(inner: Any, media: Mapping[str, Tensor]) -> Seen:
    """Run the vision tower once.

    Args:
        inner: the model inside the one with the head: it has `visual` and `get_image_features`.
        media: `pixel_values` with `image_grid_thw`, `pixel_values_videos` with `video_grid_thw`; either,
            both or none.
    """
    pixels = [media[name] for name in ("pixel_values", "pixel_values_videos") if name in media]
    grids = [media[name] for name in ("image_grid_thw", "video_grid_thw") if name in media]
    if not pixels:
        features = _features(inner, *_blank(inner))
        return Seen(None, None, features.tokens.sum() * 0.0 + sum(d.sum() * 0.0 for d in features.deepstack))
    features = _features(inner, torch.cat(pixels), torch.cat(grids))
    merge = inner.visual.spatial_merge_size**2
    images = int(grids[0].prod(-1).sum()) // merge if "pixel_values" in media else 0
    every = torch.arange(features.tokens.shape[0], device=features.tokens.device)
    if images == 0 or "pixel_values_videos" not in media:
        return Seen(features if images else None, None if images else features, None)
    return Seen(features.take(every[:images]), features.take(every[images:]), None)


def _features(inner: Any, pixels: Tensor, grid: Tensor) -> Features:
    """One call of the tower. Images and videos share its layout: (patches, channels * times * sides)."""
    told = type(inner).get_image_features(inner, pixels, grid, return_dict=True)
    deepstack = getattr(told, "deepstack_features", None) or ()
    return Features(_whole(told.pooler_output), tuple(_whole(layer) for layer in deepstack))


def _whole(parts: Any) -> Tensor:
    """One tensor; transformers returns features whole or split by image, depending on its version."""
    return parts if isinstance(parts, Tensor) else torch.cat(list(parts))


def _blank(inner: Any) -> tuple[Tensor, Tensor]:
    """The smallest image, one merged patch of zeros, and its grid."""
    config = inner.visual.config
    side = config.spatial_merge_size
    channels = getattr(config, "in_channels", 3)
    width = channels * config.temporal_patch_size * config.patch_size**2
    device = next(inner.visual.parameters()).device
    pixels = torch.zeros(side * side, width, device=device)
    return pixels, torch.tensor([[1, side, side]], device=device)


def shared_rows(types: Tensor, kind: int, repeat: int) -> Tensor:
    """Which feature rows fill the placeholders of B * repeat sequences, in order.

    Args:
        types: [B, L] token types of the distinct prompts, padding 0.
        kind: IMAGE or VIDEO.
        repeat: how many sequences share each prompt.

    >>> shared_rows(torch.tensor([[1, 1, 0], [0, 1, 0]]), IMAGE, 2).tolist()
    [0, 1, 0, 1, 2, 2]
    """
    counts = (types == kind).sum(-1).tolist()
    rows = torch.arange(sum(counts), device=types.device)
    return torch.cat([part.repeat(repeat) for part in rows.split(counts)])


@contextmanager
def given(inner: Any, image: Features | None, video: Features | None) -> Iterator[dict[str, Any]]:
    """Make `inner` use these features for its media; yields the arguments to call it with.

    Within the block the two methods of the instance that would run the tower return the features instead;
    transformers then puts them (and those of deeper layers) in the places of their tokens.
    """
    arguments: dict[str, Any] = {}
    overridden = []
    for argument, method, features in (
        ("pixel_values", "get_image_features", image),
        ("pixel_values_videos", "get_video_features", video),
    ):
        if features is not None:
            told = SimpleNamespace(
                pooler_output=(features.tokens,),
                deepstack_features=[(layer,) for layer in features.deepstack],
            )
            arguments[argument] = features.tokens  # any tensor will do: if it is there, the method is called
            setattr(inner, method, lambda *_, told=told, **__: told)
            overridden.append(method)
    try:
        yield arguments
    finally:
        for method in overridden:
            delattr(inner, method)


# The whole pass.


FAMILIES = ("qwen2_5_vl", "qwen3_vl")
"""Model types whose inner structure this pass knows."""


def check_family(config: Any) -> None:
    """Refuse the configuration of a model of another family, with a ConfigError."""
    if config.model_type not in FAMILIES:
        raise ConfigError(
            f"cannot train a model of type {config.model_type!r}; known are {', '.join(FAMILIES)}",
            where=getattr(config, "name_or_path", ""),
            hint="name a Qwen2.5-VL or Qwen3-VL checkpoint as model",
        )


class TokenLogProbs(NamedTuple):
    """The forward pass over N completions of at most C tokens.

    Attributes:
        logps: [N, C] float32 log-probability of each token under softmax(logits / temperature); 0 at padding.
        mask: [N, C] bool, where there is a token.
        entropy: [N, C] float32 entropy in nats of the distribution each token was drawn from, without
            gradient, 0 at padding; None unless asked for.
    """

    logps: Tensor
    mask: Tensor
    entropy: Tensor | None


class TrainModel(nn.Module):  # type: ignore[misc]
    """The module that `accelerate.prepare` wraps: one forward for DDP, FSDP and DeepSpeed.

    Args:
        net: the loaded model, with or without adapters.
        temperature: logits are divided by it, so that the ratio is that of the distribution sampled from;
            0 (greedy sampling) counts as 1.
        share_prompts: run each prompt once for its whole group, where the attention kernel takes a
            mask (`sdpa`, `eager`).
        padding_free: run rows that share nothing as one sequence without padding (the net is loaded with
            a kernel that knows their borders).
        piece: logits in memory at a time.

    Raises:
        ConfigError: the model is of a family that this pass does not know.
    """

    def __init__(
        self,
        net: Any,
        *,
        temperature: float = 1.0,
        share_prompts: bool = True,
        padding_free: bool = False,
        piece: int = PIECE,
    ) -> None:
        super().__init__()
        check_family(net.config)
        self.net = net
        self.temperature = temperature or 1.0
        self.share_prompts, self.padding_free = share_prompts, padding_free
        self.piece = piece

    def forward(self, inputs: ModelInputs, *, entropy: bool = False) -> TokenLogProbs:
        """Log-probabilities of the completions, with gradient where it is on.

        Args:
            inputs: N right-padded rows of prompt and completion, on the model's device, with the media
                of their N / repeat distinct prompts.
            entropy: compute entropies too.
        """
        core = bare(self.net)
        kernel = core.config._attn_implementation
        layout = lay_out(core.model, inputs, share=self.share_prompts and kernel in ("sdpa", "eager"))
        seen = encode(core.model, inputs.media)
        told = _spread(seen.image, layout, IMAGE), _spread(seen.video, layout, VIDEO)
        borders: dict[str, Any] = {}
        if self.padding_free and layout.mask is None:
            layout, borders = without_padding(layout, inputs.starts + inputs.lengths)
        hidden = self._hidden(core.model, layout, told, borders, eager=kernel == "eager")
        hidden = hidden if seen.blank is None else hidden + seen.blank.to(hidden.dtype)
        real = layout.real
        taken = hidden.flatten(0, 1)[layout.sources[real]]
        logps, spread = token_logps(
            core.lm_head,
            taken,
            layout.targets[real],
            temperature=self.temperature,
            entropy=entropy,
            piece=self.piece,
        )
        zeros = logps.new_zeros(real.shape)
        table = zeros.masked_scatter(real, logps)
        return TokenLogProbs(table, real, None if spread is None else zeros.masked_scatter(real, spread))

    def _hidden(
        self,
        inner: Any,
        layout: Layout,
        seen: tuple[Features | None, Features | None],
        borders: Mapping[str, Any],
        *,
        eager: bool,
    ) -> Tensor:
        """[S, W, H]: the last hidden states."""
        mask = layout.mask
        if mask is not None and eager:
            dtype = next(inner.language_model.parameters()).dtype
            mask = torch.zeros(mask.shape, dtype=dtype, device=mask.device).masked_fill_(
                ~mask, torch.finfo(dtype).min
            )
        with given(inner, *seen) as media:
            told = inner(
                input_ids=layout.ids,
                attention_mask=mask,
                position_ids=layout.positions,
                use_cache=False,
                **media,
                **borders,
            )
        hidden: Tensor = told.last_hidden_state
        return hidden


def _spread(features: Features | None, layout: Layout, kind: int) -> Features | None:
    """The features of each prompt, repeated for each of its sequences."""
    if features is None or layout.repeat == 1:
        return features
    return features.take(shared_rows(layout.types[:: layout.repeat], kind, layout.repeat))
