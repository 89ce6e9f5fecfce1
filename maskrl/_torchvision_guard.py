"""Make a CUDA-linked torchvision importable beside a CPU build of torch.

PyPI's torchvision wheel links against CUDA. Next to a CPU torch its operator library does not load, and
``import torchvision`` (hence timm, open_clip and most of transformers) dies with "operator torchvision::nms
does not exist". Defining the two missing operator *schemas* is enough for everything maskrl uses. They must not be
defined where the real library loads: a duplicate schema aborts the process.

See docs/decisions/002-dependencies.md.
"""

import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType

_SCHEMA = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"


class _Guard(MetaPathFinder):
    """Prepares the operators the moment somebody imports torchvision, then steps aside."""

    def __init__(self) -> None:
        self.definitions: object | None = None  # torch drops the schemas with the last reference

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name != "torchvision" or self.definitions is not None:
            return None
        spec = PathFinder.find_spec(name, path, target)
        if spec is not None and spec.origin is not None:
            self.definitions = self._prepare(Path(spec.origin).parent)
        return spec

    @staticmethod
    def _prepare(root: Path) -> object:
        import torch

        for library in sorted(root.glob("_C*.so")):
            try:
                torch.ops.load_library(str(library))
            except OSError:  # linked against CUDA, which is absent here
                continue
            return library
        definitions = torch.library.Library("torchvision", "DEF")
        for operator in ("nms", "qnms"):
            definitions.define(operator + _SCHEMA)
        return definitions


def install() -> None:
    """Put the guard in front of the import machinery, once, unless torchvision is already there."""
    if "torchvision" not in sys.modules and not any(isinstance(f, _Guard) for f in sys.meta_path):
        sys.meta_path.insert(0, _Guard())
