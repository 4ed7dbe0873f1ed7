"""The one forward pass: log-probabilities of completions given their prompts, pictures and clips.

SFT, the policy, the old policy and the reference all go through it: what one of them sees, all see.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn

from videop2r_data.errors import ConfigError
from videop2r_data.trainer.model.head import PIECE, token_logps
from videop2r_data.trainer.model.layout import Layout, lay_out
from videop2r_data.trainer.model.unwrap import bare
from videop2r_data.trainer.model.vision import IMAGE, VIDEO, Features, Seen, encode, given, shared_rows

if TYPE_CHECKING:
    from videop2r_data.trainer.data.batch import ModelInputs

FAMILIES = ("qwen2_5_vl", "qwen3_vl")
"""Model types whose inner structure this pass knows."""


class TokenLogProbs(NamedTuple):
    """What a forward pass tells about N completions of at most C tokens.

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
    """What `accelerate.prepare` wraps: DDP, FSDP and DeepSpeed see one module with one forward.

    Args:
        net: the loaded model, with or without adapters.
        temperature: logits are divided by it, so that the ratio is that of the distribution sampled from;
            0 (greedy sampling) counts as 1.
        share_prompts: run each prompt once for its whole group, where the attention kernel takes a
            mask (`sdpa`, `eager`).
        piece: logits in memory at a time.

    Raises:
        ConfigError: the model is of a family that this pass does not know.
    """

    def __init__(
        self, net: Any, *, temperature: float = 1.0, share_prompts: bool = True, piece: int = PIECE
    ) -> None:
        super().__init__()
        kind = net.config.model_type
        if kind not in FAMILIES:
            raise ConfigError(
                f"cannot train a model of type {kind!r}; known are {', '.join(FAMILIES)}",
                hint="name a Qwen2.5-VL or Qwen3-VL checkpoint as model",
            )
        self.net = net
        self.temperature = temperature or 1.0
        self.share_prompts = share_prompts
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
        hidden = self._hidden(core.model, layout, encode(core.model, inputs.media), eager=kernel == "eager")
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

    def _hidden(self, inner: Any, layout: Layout, seen: Seen, *, eager: bool) -> Tensor:
        """[S, W, H]: the last hidden states."""
        mask = layout.mask
        if mask is not None and eager:
            dtype = next(inner.language_model.parameters()).dtype
            mask = torch.zeros(mask.shape, dtype=dtype, device=mask.device).masked_fill_(
                ~mask, torch.finfo(dtype).min
            )
        image = _spread(seen.image, layout, IMAGE)
        video = _spread(seen.video, layout, VIDEO)
        with given(inner, image, video) as media:
            told = inner(
                input_ids=layout.ids,
                attention_mask=mask,
                position_ids=layout.positions,
                use_cache=False,
                **media,
            )
        hidden: Tensor = told.last_hidden_state
        return hidden if seen.blank is None else hidden + seen.blank.to(hidden.dtype)


def _spread(features: Features | None, layout: Layout, kind: int) -> Features | None:
    """The features of each prompt, once for each of its sequences."""
    if features is None or layout.repeat == 1:
        return features
    return features.take(shared_rows(layout.types[:: layout.repeat], kind, layout.repeat))
