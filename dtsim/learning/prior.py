"""Prior correction: adapts a classifier's logits to another class distribution, without any training."""

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
    """`model` for the class distribution q' instead of q: its logits plus `log_ratio` [C] = log(q' / q).

    By Bayes' rule the posterior of a class scales with its prior if the images of each class do not change (Saerens,
    Latinne and Decaestecker 2002, eq. 2.4). `model` is not changed. If it was corrected before, the correction starts
    from its original logits, since q is the distribution of its training data.
    """
    own = model.model if isinstance(model, PriorCorrected) else model
    return PriorCorrected(own, log_ratio.to(next(own.parameters()).device)).train(own.training)


def log_ratio(believed: np.ndarray, trained_on: np.ndarray) -> Tensor:
    """log(q' / q) of two distributions without zeros, [C] each; float32 [C].

    For a class that the model never saw, `trained_on` has only the smoothing mass, so its logit is raised strongly. The
    benefit depends on the model's logits for such images, which the correction does not change.
    """
    return torch.as_tensor(np.log(believed / trained_on), dtype=torch.float32)
