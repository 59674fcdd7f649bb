"""Generators with an autoencoder fitted to a region's stored samples: new images from random or neighbouring codes."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from dtsim.core.parts import part
from dtsim.learning.data.splits import Labelled
from dtsim.learning.flops import FlopCounter
from dtsim.twin.autoencoder import Autoencoder, Fit, fit
from dtsim.twin.generator import ClassConditional, Generated, Generation, Generator, Truth
from dtsim.twin.store import Store


@part
class Coded(Generation):
    """Keys that generators with an autoencoder share."""

    trainable: ClassVar[tuple[str, ...]] = ("all",)

    channels: int = Field(default=16, ge=1)
    """Channels of the first convolution; the second has twice as many."""
    latent: int = Field(default=16, ge=1)
    """Dimension of a code."""
    fit_steps: int = Field(default=400, ge=1)
    """Gradient steps of a fit."""
    fit_batch: int = Field(default=64, ge=1)
    """Images in a gradient step of a fit."""
    fit_learning_rate: float = Field(default=2e-3, gt=0, le=100)
    """Learning rate of Adam."""
    kl_weight: float = Field(default=1.0, ge=0, le=1e6)
    """Weight of KL(code ‖ standard normal) relative to the pixels' log-likelihood."""
    refit_samples: int = Field(default=2000, ge=1, le=10**9)
    """Samples uploaded from a region after which its autoencoder is fitted anew."""


@part
class Cvae(Coded):
    """Class-conditional variational autoencoder: codes are drawn from its prior."""

    def build(self, truth: Truth) -> Generator:
        """The generator of one run."""
        return _Cvae(self)


@part
class Jitter(Coded):
    """Decoded neighbours of stored samples' codes; a neighbour keeps the sample's label."""

    noise: float = Field(default=0.5, ge=0, le=100)
    """Standard deviation of the noise added to a code; that of all codes is about 1."""

    def build(self, truth: Truth) -> Generator:
        """The generator of one run."""
        return _Jitter(self, self.noise)


@dataclass
class _Fitted:
    net: Autoencoder
    uploads: int
    """Number of samples uploaded from the region before the fit."""


class _Coded(ClassConditional):
    """Keeps an autoencoder for each region, fitted again after enough new samples."""

    keys: Coded

    def __init__(self, keys: Coded) -> None:
        super().__init__(keys)
        self.fitted: dict[int, _Fitted] = {}

    def make(self, region: int, counts: np.ndarray, store: Store, rng: np.random.Generator) -> Generated:
        random = torch.Generator().manual_seed(int(rng.integers(2**63)))
        net, flop = self._net(region, store, random)
        with FlopCounter() as work, torch.no_grad():
            codes, labels = self.codes(net, region, counts, store, rng, random)
            logits = [
                net.decode(some, own) for some, own in zip(codes.split(500), labels.split(500), strict=True)
            ]  # batches of more than 500 are slow on a CPU
        images = (255 * torch.cat(logits).sigmoid()).round().to(torch.uint8)
        return Generated(Labelled(images, labels), flop + float(work.total))

    @abstractmethod
    def codes(
        self,
        net: Autoencoder,
        region: int,
        counts: np.ndarray,
        store: Store,
        rng: np.random.Generator,
        random: torch.Generator,
    ) -> tuple[Tensor, Tensor]:
        """Codes [N, latent] to decode, and their labels [N]."""

    def _net(self, region: int, store: Store, random: torch.Generator) -> tuple[Autoencoder, float]:
        """The region's autoencoder and, if it was fitted now, the work of fitting it, in FLOP."""
        fitted = self.fitted.get(region)
        uploads = int(store.uploads[region])
        if fitted is not None and uploads - fitted.uploads < self.keys.refit_samples:
            return fitted.net, 0.0
        samples = store.kept(region)
        keys = self.keys
        with torch.random.fork_rng(devices=[]):  # torch's layers draw their weights from the global generator
            torch.default_generator.manual_seed(random.initial_seed())
            channels, height, width = samples.images.shape[1:]
            net = Autoencoder((channels, height, width), store.classes, keys.channels, keys.latent)
        net = net.to(samples.images.device)
        flop = fit(net, samples, Fit(keys.fit_steps, keys.fit_batch, keys.fit_learning_rate, keys.kl_weight), random)
        self.fitted[region] = _Fitted(net, uploads)
        return net, flop


class _Cvae(_Coded):
    def codes(
        self,
        net: Autoencoder,
        region: int,
        counts: np.ndarray,
        store: Store,
        rng: np.random.Generator,
        random: torch.Generator,
    ) -> tuple[Tensor, Tensor]:
        device = next(net.parameters()).device
        labels = torch.from_numpy(np.repeat(np.arange(len(counts)), counts)).to(device)
        return torch.randn(len(labels), self.keys.latent, generator=random).to(device), labels


class _Jitter(_Coded):
    def __init__(self, keys: Coded, noise: float) -> None:
        super().__init__(keys)
        self.noise = noise

    def codes(
        self,
        net: Autoencoder,
        region: int,
        counts: np.ndarray,
        store: Store,
        rng: np.random.Generator,
        random: torch.Generator,
    ) -> tuple[Tensor, Tensor]:
        drawn = store.draw(region, counts, rng)
        mean, _ = net.encode(drawn.images / 255, drawn.labels)
        step = torch.randn(mean.shape, generator=random).to(mean.device)
        return mean + self.noise * step, drawn.labels
