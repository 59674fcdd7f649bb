"""Prior correction: a classifier's logits re-weighted for another class mix, without any training."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn


class PriorCorrected(nn.Module):
    """`model` with a constant added to its logits."""

    log_ratio: Tensor

    def __init__(self, model: nn.Module, log_ratio: Tensor) -> None:
        super().__init__()
        self.model = model
        self.register_buffer("log_ratio", log_ratio)

    def forward(self, images: Tensor) -> Tensor:
        """Corrected logits; [N, C]."""
        logits: Tensor = self.model(images)
        return logits + self.log_ratio.to(logits.dtype)


def corrected(model: nn.Module, log_ratio: Tensor) -> nn.Module:
    """`model` for a class mix q' where it was trained on q: its logits plus `log_ratio` [C] = log(q' / q).

    By Bayes' rule the posterior of a class moves with its prior where the images of each class stay as they were
    (Saerens, Latinne and Decaestecker 2002, eq. 2.4). `model` itself stays as it is; one that was corrected before is
    corrected anew from its own logits, for q is what its weights were trained on.
    """
    own = model.model if isinstance(model, PriorCorrected) else model
    return PriorCorrected(own, log_ratio.to(next(own.parameters()).device)).train(own.training)


def log_ratio(believed: np.ndarray, trained_on: np.ndarray) -> Tensor:
    """log(q' / q) of two distributions without zeros, [C] each; float32 [C].

    A class that the model never saw has only what smoothing leaves it in `trained_on`, so its logit is raised by much:
    whether that helps depends on what the model says of such images, which no re-weighting changes.
    """
    return torch.as_tensor(np.log(believed / trained_on), dtype=torch.float32)
