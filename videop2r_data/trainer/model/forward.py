"""The one forward pass: log-probabilities of completions given prompt, images and clips.

SFT, the policy, the old policy and the reference all go through it, so that they see exactly the same input.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from videop2r_data.errors import ConfigError
from videop2r_data.trainer.data.batch import IMAGE, VIDEO
from videop2r_data.trainer.model.layout import lay_out, without_padding
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
    """[T] float32 log-probabilities of the targets and, if asked for, [T] float32 entropies in nats.

    Args:
        head: the output layer, `Linear(H, V)`.
        hidden, targets: [T, H], and [T] token ids.
        temperature: logits are divided by it.
        entropy: compute entropies too, without gradient.
        piece: logits in memory at a time.
    """

    def forward(states: Tensor) -> tuple[Tensor, Tensor]:
        """Log-probabilities and entropies of [T, H] states, a piece of the logits at a time."""
        size = max(1, piece // head.weight.shape[0])
        # With one piece there is little memory to save: keep its logits instead of computing them twice.
        again = len(states) > size and torch.is_grad_enabled()
        run: Callable[..., Any] = partial(checkpoint, _piece, use_reentrant=False) if again else _piece
        done = [
            run(head, part, ids, temperature, entropy)
            for part, ids in zip(states.split(size), targets.split(size), strict=True)
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


class Features(NamedTuple):
    """Features of the images or of the videos of a batch: [T, H], one row per placeholder token, in the order
    of the prompts; `deepstack`: further [T, H], one per tapped layer (Qwen3-VL)."""

    tokens: Tensor
    deepstack: tuple[Tensor, ...] = ()

    def take(self, rows: Tensor) -> Features:
        """The features of these rows; a row may be taken more than once, its gradients add up."""
        return Features(self.tokens[rows], tuple(layer[rows] for layer in self.deepstack))


class Seen(NamedTuple):
    """Features of a batch; `blank`: without media, a zero that connects the tower to the loss."""

    image: Features | None = None
    video: Features | None = None
    blank: Tensor | None = None


def encode(inner: Any, media: Mapping[str, Tensor]) -> Seen:
    """Run the vision tower of `inner`, the model inside the one with the head, once over all media."""
    pixels = [media[name] for name in ("pixel_values", "pixel_values_videos") if name in media]
    grids = [media[name] for name in ("image_grid_thw", "video_grid_thw") if name in media]
    config = inner.visual.config
    side = config.spatial_merge_size
    if not pixels:  # the smallest image, one merged patch
        device = next(inner.visual.parameters()).device
        width = getattr(config, "in_channels", 3) * config.temporal_patch_size * config.patch_size**2
        pixels = [torch.zeros(side * side, width, device=device)]
        grids = [torch.tensor([[1, side, side]], device=device)]
    # Images and videos have one layout: (patches, channels * times * sides).
    told = type(inner).get_image_features(inner, torch.cat(pixels), torch.cat(grids), return_dict=True)
    found = (told.pooler_output, *(getattr(told, "deepstack_features", None) or ()))
    # whole or split by image, depending on the version of transformers
    tokens, *deepstack = (part if isinstance(part, Tensor) else torch.cat(list(part)) for part in found)
    features = Features(tokens, tuple(deepstack))
    has_image, has_video = "pixel_values" in media, "pixel_values_videos" in media
    if has_image and has_video:
        images = int(grids[0].prod(-1).sum()) // side**2
        every = torch.arange(len(tokens), device=tokens.device)
        return Seen(features.take(every[:images]), features.take(every[images:]))
    if has_image or has_video:
        return Seen(features, None) if has_image else Seen(None, features)
    return Seen(blank=tokens.sum() * 0.0 + sum(layer.sum() * 0.0 for layer in deepstack))


def shared_rows(types: Tensor, kind: int, repeat: int) -> Tensor:
    """Which feature rows fill the placeholders of B * repeat sequences, in order; `types`: [B, L] of the
    distinct prompts, padding 0; `kind`: IMAGE or VIDEO.

    >>> shared_rows(torch.tensor([[1, 1, 0], [0, 1, 0]]), IMAGE, 2).tolist()
    [0, 1, 0, 1, 2, 2]
    """
    counts = (types == kind).sum(-1).tolist()
    rows = torch.arange(sum(counts), device=types.device)
    return torch.cat([part.repeat(repeat) for part in rows.split(counts)])


@contextmanager
def given(inner: Any, image: Features | None, video: Features | None) -> Iterator[dict[str, Any]]:
    """Make `inner` use these features for its media; yields the arguments to call it with.

    The two methods that would run the tower return the features instead; transformers then puts them (and
    those of deeper layers) in the places of their tokens.
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
        entropy: [N, C] float32, in nats, of that distribution, without gradient, 0 at padding; or None.
    """

    logps: Tensor
    mask: Tensor
    entropy: Tensor | None


class TrainModel(nn.Module):  # type: ignore[misc]
    """The module that `accelerate.prepare` wraps: one forward for DDP, FSDP and DeepSpeed.

    Args:
        net: the loaded model, with or without adapters; of another family: ConfigError.
        temperature: logits are divided by it, so that the ratio is that of the distribution sampled from;
            0 (greedy sampling) counts as 1.
        share_prompts: run each prompt once for its group, where the kernel takes a mask (`sdpa`, `eager`).
        padding_free: run rows that share nothing as one sequence, if the kernel knows their borders.
        piece: logits in memory at a time.
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
        """Log-probabilities of the completions of `inputs`, with gradient where it is on."""
        core = bare(self.net)
        inner, kernel = core.model, core.config._attn_implementation
        layout = lay_out(inner, inputs, share=self.share_prompts and kernel in ("sdpa", "eager"))
        seen = encode(inner, inputs.media)
        parts = [seen.image, seen.video]
        if layout.repeat > 1:  # each of a prompt's sequences gets its features
            types = layout.types[:: layout.repeat]
            for at, kind in enumerate((IMAGE, VIDEO)):
                if (features := parts[at]) is not None:
                    parts[at] = features.take(shared_rows(types, kind, layout.repeat))
        borders: dict[str, Any] = {}
        if self.padding_free and layout.mask is None:
            layout, borders = without_padding(layout, inputs.starts + inputs.lengths)
        mask = layout.mask
        if mask is not None and kernel == "eager":
            dtype = next(inner.language_model.parameters()).dtype
            mask = torch.zeros_like(mask, dtype=dtype).masked_fill_(~mask, torch.finfo(dtype).min)
        with given(inner, *parts) as media:
            hidden = inner(
                input_ids=layout.ids,
                attention_mask=mask,
                position_ids=layout.positions,
                use_cache=False,
                **media,
                **borders,
            ).last_hidden_state
        hidden = hidden if seen.blank is None else hidden + seen.blank.to(hidden.dtype)
        real = layout.real
        logps, spread = token_logps(
            core.lm_head,
            hidden.flatten(0, 1)[layout.sources[real]],
            layout.targets[real],
            temperature=self.temperature,
            entropy=entropy,
            piece=self.piece,
        )
        zeros = logps.new_zeros(real.shape)
        table = zeros.masked_scatter(real, logps)
        return TokenLogProbs(table, real, None if spread is None else zeros.masked_scatter(real, spread))
