"""torchvision beside a torch that it was not compiled for."""

from __future__ import annotations

import importlib
import sys

import torch


def cure() -> None:
    """Make `import torchvision` work where its compiled operators do not load; call it before such an import.

    The wheel on PyPI is built for CUDA. Beside a CPU torch its import ends in "operator torchvision::nms does
    not exist": it declares fake kernels for operators that its library never registered. Naming them is
    enough, since dtsim uses data sets, transforms and ResNet, and no box operator.
    """
    try:
        importlib.import_module("torchvision")
    except RuntimeError as error:
        if "torchvision::nms" not in str(error):
            raise
        for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
            del sys.modules[name]  # what the failed import left half-made
        for operator in ("nms", "qnms"):
            torch.library.define(
                f"torchvision::{operator}", "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
            )
        importlib.import_module("torchvision")
