"""The users' models: built from a seed, with their work measured by torch's FLOP counter."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass, field
from typing import Literal, Protocol

import torch
from pydantic import Field
from torch import Tensor, nn

from dtsim.core.parts import part
from dtsim.learning.flops import FlopCounter


class Scale(nn.Module):
    """Converts images [N, C, H, W] uint8 to floats of roughly unit range, so that models take images as stored."""

    mean: Tensor
    std: Tensor

    def __init__(self, mean: float = 127.5, std: float = 63.75) -> None:
        super().__init__()
        # Constants instead of the data's statistics: drift must not change a model's input scale.
        self.register_buffer("mean", torch.tensor(mean))
        self.register_buffer("std", torch.tensor(std))

    def forward(self, images: Tensor) -> Tensor:
        """Scaled images in channels-last order, in which convolutions on a CPU are faster."""
        scaled = images.to(self.mean.dtype, memory_format=torch.channels_last)
        # In place if `to` has made a copy, which avoids another pass over the images.
        return (scaled - self.mean if scaled is images else scaled.sub_(self.mean)).div_(self.std)


class ModelPart(Protocol):
    """The interface of a class in conf/model: it builds the network."""

    def build(self, sample_shape: tuple[int, int, int], classes: int, seed: int) -> nn.Module:
        """A network from images [N, C, H, W] uint8 to logits [N, classes]; equal seeds give equal weights."""


@part
class SmallCnn:
    """A stack of 3×3 convolutions, each with 2×2 max pooling, GroupNorm and ReLU, then one linear layer."""

    channels: list[int] = field(default_factory=lambda: [16, 32, 64])
    """Output channels of each 3×3 convolution; each halves height and width."""
    groups: int = Field(default=8, gt=0)
    """Groups of each GroupNorm; must divide every entry of channels."""

    def __post_init__(self) -> None:
        if not self.channels or any(width <= 0 for width in self.channels):
            raise ValueError(f"channels={self.channels}: must be a list of one or more numbers > 0")
        if any(width % self.groups for width in self.channels):
            raise ValueError(f"groups={self.groups}: must divide every entry of channels={self.channels}")

    def build(self, sample_shape: tuple[int, int, int], classes: int, seed: int) -> nn.Module:
        """The network on the CPU.

        Raises:
            ValueError: if the images are too small to be halved once per convolution.
        """
        width, height, breadth = sample_shape
        if min(height, breadth) < 2 ** len(self.channels):
            raise ValueError(
                f"channels={self.channels}: images of {height}×{breadth} pixels can be halved at most "
                f"{int(math.log2(min(height, breadth)))} times"
            )
        with seeded(seed):
            layers: list[nn.Module] = [Scale()]
            for channels in self.channels:
                layers += [
                    nn.Conv2d(width, channels, 3, padding=1),
                    nn.MaxPool2d(2),  # before the norm: the same FLOPs, but training is 1.5 times as fast
                    nn.GroupNorm(self.groups, channels),
                    nn.ReLU(inplace=True),
                ]
                width, height, breadth = channels, height // 2, breadth // 2
            layers += [nn.Flatten(), nn.Linear(width * height * breadth, classes)]
            return channels_last(nn.Sequential(*layers))


def channels_last(model: nn.Module) -> nn.Module:
    """`model` with its weights in channels-last order, in which convolutions are faster."""
    ordered: nn.Module = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's gap
    return ordered


class seeded:
    """Seed the CPU's global random generator and restore it on exit: torch's layers accept no generator."""

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def __enter__(self) -> None:
        self.before = torch.default_generator.get_state()
        torch.default_generator.manual_seed(self.seed)

    def __exit__(self, *_: object) -> None:
        torch.default_generator.set_state(self.before)


Trainable = Literal["all", "head"]


def divided(model: nn.Module) -> tuple[nn.Module, nn.Linear]:
    """Split `model` into its backbone, which computes features [N, F], and its head, the linear layer that follows.

    Raises:
        ValueError: if it is not an `nn.Sequential` that ends in a linear layer.
    """
    if not isinstance(model, nn.Sequential) or len(model) < 2 or not isinstance(model[-1], nn.Linear):
        raise ValueError("the model must be an nn.Sequential that ends in a linear layer")
    return model[:-1], model[-1]


@dataclass(frozen=True)
class ModelCost:
    """The work of one sample as counted by torch, and the sizes that convert it into delays."""

    forward_flop: float
    """FLOP of one forward pass of one sample, c_s of eq. (10); a multiply-add counts 2."""
    training_flop: float
    """FLOP of one forward and backward pass of one sample through the trained layers."""
    parameters: int
    """Number of trained weights."""
    sample_bytes: int
    """Size of one sample in byte as stored and sent: one byte for each channel of each pixel."""
    stored_flop: float
    """FLOP to infer a sample from the twin's store: less than a forward pass if features are stored."""

    @property
    def kappa(self) -> float:
        """κ of eq. (10): ratio of training work to inference work."""
        return self.training_flop / self.forward_flop

    @property
    def flop_per_byte(self) -> float:
        """c of eqs. (4) and (5): work to infer one byte, in FLOP/byte."""
        return self.forward_flop / self.sample_bytes


def measure(model: nn.Module, sample_shape: tuple[int, int, int], trainable: Trainable = "all") -> ModelCost:
    """Count the work of one image of `sample_shape` (C, H, W) through `model`, which is not changed.

    If only the head is trainable, it is trained on features that inference has already computed.

    Raises:
        ValueError: if `trainable` is head and the model has none, see `divided`.
    """
    model = copy.deepcopy(model)
    device = next(model.parameters()).device
    images = torch.zeros(1, *sample_shape, dtype=torch.uint8, device=device)
    trained, stored = model, images
    if trainable == "head":
        backbone, trained = divided(model)
        with torch.no_grad():
            stored = backbone(images)
    with FlopCounter() as forward, torch.no_grad():
        model(images)
    with FlopCounter() as again, torch.no_grad():
        trained(stored)
    with FlopCounter() as both:
        trained(stored).sum().backward()
    return ModelCost(
        forward_flop=float(forward.total),
        training_flop=float(both.total),
        parameters=sum(weight.numel() for weight in trained.parameters() if weight.requires_grad),
        sample_bytes=math.prod(sample_shape),
        stored_flop=float(again.total),
    )
