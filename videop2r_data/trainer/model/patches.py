"""The first layer of the vision tower as the matrix product that it is.

Its convolution's windows neither overlap nor slide: each patch meets the kernel once. Convolution libraries
have no good path for that shape: three times slower than the product on a CPU, and with bfloat16 on some GPUs
thousands of times (transformers issue 45750).
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.nn import functional


class PatchProduct(nn.Conv3d):  # type: ignore[misc]
    """A `Conv3d` over inputs of exactly its kernel's size; same weights, same names."""

    def forward(self, patches: Tensor) -> Tensor:
        """[patches, channels, times, side, side] to [patches, width, 1, 1, 1]."""
        out = functional.linear(patches.flatten(1), self.weight.flatten(1), self.bias)
        return out[:, :, None, None, None]


def multiply_patches(net: Any) -> None:
    """Let a loaded model embed its patches by one product; where it does not convolve, nothing changes."""
    embed = getattr(net.model.visual, "patch_embed", None)
    layer: Any = getattr(embed, "proj", None)
    if type(layer) is nn.Conv3d and layer.stride == layer.kernel_size and not any(layer.padding):
        # A class rather than a method of the instance: copies of the model then use their own weights.
        layer.__class__ = PatchProduct
