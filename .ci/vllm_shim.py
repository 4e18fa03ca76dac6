"""Imported at the start of every Python process of the environment that `.ci/vllm` makes.

The CPU build of vLLM is not whole on a plain machine: its model runner V2 is written in Triton, which has no
backend for processors but an interpreter; and the torchvision that fits its torch is a CUDA build, whose
operators are not there. The interpreter cannot run the kernel of top-k and top-p, for which vLLM has plain torch, too. Nothing of
this is needed on a GPU.
"""

import importlib.abc
import importlib.machinery
import os
import sys
from typing import Any

os.environ.setdefault("TRITON_INTERPRET", "1")
_kept: list[Any] = []


_TOP_K = "vllm.v1.sample.ops.topk_topp_sampler"


class _Finder(importlib.abc.MetaPathFinder):
    """Prepares two packages just before they are imported, and changes a module of one."""

    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> Any:
        """Finds the module of top-k and top-p alone."""
        if fullname == "torchvision":
            _declare_operators()
        elif fullname == "vllm":
            _offer_interpreter()
        elif fullname == _TOP_K:
            spec = importlib.machinery.PathFinder.find_spec(fullname, path)
            if spec is not None and spec.loader is not None:
                spec.loader = _PlainTorch(fullname, str(spec.origin))
            return spec
        return None


class _PlainTorch(importlib.machinery.SourceFileLoader):
    """Loads the module so that it takes plain torch."""

    def exec_module(self, module: Any) -> None:
        """Runs it, and changes what it thinks of Triton."""
        super().exec_module(module)
        module.HAS_TRITON = False
        return


def _declare_operators() -> None:
    """The schemas alone let torchvision be imported."""
    import torch

    if _kept:
        return
    library = torch.library.Library("torchvision", "DEF")
    library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    library.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    _kept.append(library)


def _offer_interpreter() -> None:
    """Lets vLLM see a Triton backend for processors; kernels run in the interpreter."""
    try:
        from triton import backends
    except ImportError:
        return

    class Driver:
        @staticmethod
        def is_active() -> bool:
            return True

    class Backend:
        driver = Driver
        compiler = None

    backends.backends.setdefault("cpu", Backend)


sys.meta_path.insert(0, _Finder())
