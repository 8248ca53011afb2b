"""Let the CUDA build of torchvision that the package index carries import beside a CPU build of torch.

Its compiled part cannot be loaded there, and its Python part stops at two operators that this part would
have declared. They are declared here, just before torchvision is imported. Continuous integration only.
"""

import importlib.abc
import importlib.machinery
import sys
from types import ModuleType

SIGNATURE = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"


class _Loader(importlib.abc.Loader):
    def __init__(self, loader: importlib.abc.Loader) -> None:
        self.loader = loader

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType | None:
        return self.loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        import torch

        if torch.version.cuda is None:
            module._declared = torch.library.Library("torchvision", "DEF")  # declared as long as it lives
            for operator in ("nms", "qnms"):
                module._declared.define(operator + SIGNATURE)
        self.loader.exec_module(module)


class _Finder(importlib.abc.MetaPathFinder):
    def find_spec(self, name: str, *_: object) -> importlib.machinery.ModuleSpec | None:
        if name != "torchvision":
            return None
        spec = importlib.machinery.PathFinder.find_spec(name)
        if spec is not None and spec.loader is not None:
            spec.loader = _Loader(spec.loader)
        return spec


sys.meta_path.insert(0, _Finder())
