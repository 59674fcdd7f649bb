"""Gaussian features: per class a normal distribution with a shrunk covariance in the frozen network's feature space."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from dtsim.core.parts import part
from dtsim.learning.data.splits import Labelled
from dtsim.learning.flops import FlopCounter
from dtsim.twin.generator import ClassConditional, Generated, Generation, Generator, Truth
from dtsim.twin.store import Store


@part
class Gaussian(Generation):
    """Feature vectors drawn from a normal distribution per class, fitted to the region's stored features."""

    trainable: ClassVar[tuple[str, ...]] = ("head",)

    shrinkage: float | None = Field(default=None, ge=0, le=1)
    """Share of the covariance that is a multiple of the identity; null: as Ledoit and Wolf estimate it."""

    def build(self, truth: Truth) -> Generator:
        """The generator of one run."""
        return _Gaussian(self, self.shrinkage)


class _Gaussian(ClassConditional):
    def __init__(self, keys: Generation, shrinkage: float | None) -> None:
        super().__init__(keys)
        self.shrinkage = shrinkage

    def make(self, region: int, counts: np.ndarray, store: Store, rng: np.random.Generator) -> Generated:
        random = torch.Generator().manual_seed(int(rng.integers(2**63)))
        kept = store.kept(region)
        features, labels = [], []
        with FlopCounter() as work:
            for label in np.flatnonzero(counts):
                own = kept.images[kept.labels == int(label)]
                features.append(draw(own, int(counts[label]), self.shrinkage, random))
                labels.append(torch.full((int(counts[label]),), int(label), device=own.device))
        return Generated(Labelled(torch.cat(features), torch.cat(labels)), float(work.total))


def draw(features: Tensor, count: int, shrinkage: float | None, rng: torch.Generator) -> Tensor:
    """`count` draws from N(mean, (1 − λ) S + λ m I) of `features` [N, F] with covariance S, m = tr S / F; [count, F].

    A draw is the mean plus a random mixture of the N deviations plus white noise. This has the required covariance
    without computing or factorising its F × F matrix.

    Args:
        features: floats of one class.
        count: number of draws.
        shrinkage: λ in [0, 1]; None: `ledoit_wolf`'s.
        rng: on the CPU.
    """
    mean = features.mean(dim=0)
    deviations = features - mean
    share = ledoit_wolf(deviations) if shrinkage is None else shrinkage
    scale = deviations.square().mean()  # m
    mixture = torch.randn(count, len(features), dtype=features.dtype, generator=rng).to(features.device)
    white = torch.randn(count, features.shape[1], dtype=features.dtype, generator=rng).to(features.device)
    centred = (1 - share) ** 0.5 * (mixture / len(features) ** 0.5) @ deviations
    drawn: Tensor = mean + centred + (share * scale).sqrt() * white
    return drawn


def ledoit_wolf(deviations: Tensor) -> float:
    """λ that minimises the expected squared error of the shrunk covariance of `deviations` [N, F] from their mean.

    Ledoit and Wolf 2004, "A well-conditioned estimator for large-dimensional covariance matrices", Lemma 3.2 to 3.4:
    λ = min(b², d²) / d² with d² = ‖S − m I‖², b² = (1/N²) Σ_i ‖x_i x_iᵀ − S‖², norms as squared Frobenius over F.
    """
    count, width = deviations.shape
    gram = deviations @ deviations.T  # ‖S‖² = ‖XXᵀ‖² / N², so that the smaller of the two products can be used
    scale = deviations.square().mean()
    squared = gram.square().sum() / count**2
    distance = squared / width - scale**2
    if float(distance) <= 0:
        return 1.0
    spread = (gram.diagonal().square().sum() / count - squared) / (count * width)
    return float((spread / distance).clamp(0, 1))
