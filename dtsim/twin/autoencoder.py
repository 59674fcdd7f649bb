"""A small convolutional variational autoencoder, conditioned on the class, and its training."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from dtsim.learning.data.splits import Labelled
from dtsim.learning.flops import FlopCounter


class Autoencoder(nn.Module):
    """Class-conditional encoder and decoder with two strided convolutions each (Sohn, Lee and Yan 2015)."""

    def __init__(self, sample_shape: tuple[int, int, int], classes: int, channels: int, latent: int) -> None:
        super().__init__()
        colours, self.height, self.width = sample_shape
        self.classes = classes
        small = (2 * channels, -(-self.height // 4), -(-self.width // 4))
        self.convolve = nn.Sequential(
            nn.Conv2d(colours, channels, 3, 2, 1), nn.ReLU(), nn.Conv2d(channels, 2 * channels, 3, 2, 1), nn.ReLU()
        )
        self.to_code = nn.Linear(math.prod(small) + classes, 2 * latent)
        self.from_code = nn.Sequential(nn.Linear(latent + classes, math.prod(small)), nn.ReLU(), nn.Unflatten(1, small))
        self.deconvolve = nn.Sequential(
            nn.ConvTranspose2d(2 * channels, channels, 4, 2, 1),
            nn.ReLU(),
            nn.ConvTranspose2d(channels, colours, 4, 2, 1),
        )

    def encode(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log variance of the codes, [N, latent] each, of images [N, C, H, W] in 0 … 1."""
        inputs = torch.cat([self.convolve(images).flatten(1), self._one_hot(labels)], dim=1)
        mean, log_variance = self.to_code(inputs).chunk(2, dim=1)
        return mean, log_variance.clamp(-8, 8)

    def decode(self, codes: Tensor, labels: Tensor) -> Tensor:
        """Logits of the pixels; [N, C, H, W]."""
        small = self.from_code(torch.cat([codes, self._one_hot(labels)], dim=1))
        logits: Tensor = self.deconvolve(small)[:, :, : self.height, : self.width]
        return logits

    def forward(self, images: Tensor, labels: Tensor, noise: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Logits of the pixels, and mean and log variance of the codes; `noise` [N, latent] is standard normal."""
        mean, log_variance = self.encode(images, labels)
        return self.decode(mean + (log_variance / 2).exp() * noise, labels), mean, log_variance

    def _one_hot(self, labels: Tensor) -> Tensor:
        return functional.one_hot(labels, self.classes).float()


@dataclass(frozen=True)
class Fit:
    """Training keys of an autoencoder: Adam on the negative evidence lower bound."""

    steps: int
    batch_size: int
    learning_rate: float
    kl_weight: float
    """Weight of KL(code ‖ standard normal) relative to the log-likelihood of the pixels."""


def fit(net: Autoencoder, samples: Labelled, keys: Fit, rng: torch.Generator) -> float:
    """Fit `net` to `samples`, images [N, C, H, W] uint8, in place; return the work in FLOP.

    Every step has the same work, so it is counted once. `rng`, on the CPU, draws images and noise.
    """
    optimizer = torch.optim.Adam(net.parameters(), lr=keys.learning_rate)
    latent = net.to_code.out_features // 2
    device = samples.images.device

    def step() -> None:
        chosen = torch.randint(len(samples), (keys.batch_size,), generator=rng).to(device)
        noise = torch.randn(keys.batch_size, latent, generator=rng).to(device)
        images, labels = samples.images[chosen] / 255, samples.labels[chosen]
        logits, mean, log_variance = net(images, labels, noise)
        pixels = functional.binary_cross_entropy_with_logits(logits, images, reduction="sum")
        divergence = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).sum()
        loss = (pixels + keys.kl_weight * divergence) / keys.batch_size
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()

    net.train()
    with FlopCounter() as work:
        step()
    for _ in range(keys.steps - 1):
        step()
    net.eval()
    return float(work.total) * keys.steps
