"""Marks for tests that must hold on every device and in both precisions."""

import pytest
import torch

DEVICES = [
    "cpu",
    pytest.param(
        "cuda",
        marks=[
            pytest.mark.cuda,
            pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU"),
        ],
    ),
]
everywhere = pytest.mark.parametrize("device", DEVICES)
precisely = pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
