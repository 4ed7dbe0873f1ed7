"""Lets `import torchvision` work beside a CPU build of torch.

PyPI serves the CUDA build of torchvision only. Its compiled part cannot load beside a CPU torch, and the
import then dies because two operators were never defined. The image and video processors of transformers use
nothing but the pure-torch transforms, so declaring those two operators is enough.

`vllm_env.sh` copies this file into the site-packages of its environment, beside a `.pth` file that calls
`install`. Nothing of torch is loaded until torchvision is looked for.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

_OPERATORS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)
_KEPT: list[Any] = []
"""torch drops a library's operators when its handle is collected."""


def _compiled_part_loads(package: Path) -> bool:
    import torch

    for library in sorted(package.glob("_C*.so")):
        try:
            torch.ops.load_library(str(library))
        except OSError:
            return False
        return True
    return False


def _declare_operators(package: Path) -> None:
    if _KEPT or _compiled_part_loads(package):
        return
    import torch

    library = torch.library.Library("torchvision", "DEF")
    for signature in _OPERATORS:
        library.define(signature)
    _KEPT.append(library)


class _OnFirstImport(MetaPathFinder):
    """Declares the operators when torchvision itself is about to be imported, then steps aside."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """The module as it would be found, with a loader that declares the operators first."""
        if fullname != "torchvision":
            return None
        # The question may come from `find_spec` alone ("is it installed?"); answering it must not load torch,
        # so the declaration waits inside the loader.
        sys.meta_path.remove(self)
        try:
            spec = importlib.util.find_spec("torchvision")
        finally:
            sys.meta_path.insert(0, self)
        if spec is not None and spec.loader is not None and spec.submodule_search_locations:
            package = Path(next(iter(spec.submodule_search_locations)))
            run = spec.loader.exec_module

            def exec_module(module: ModuleType) -> None:
                """Run the module, its operators declared."""
                _declare_operators(package)
                run(module)

            spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec


def install() -> None:
    """Put the hook in front of the import machinery; safe to call twice."""
    if not any(isinstance(finder, _OnFirstImport) for finder in sys.meta_path):
        sys.meta_path.insert(0, _OnFirstImport())
