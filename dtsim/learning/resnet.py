"""Residual networks of basic blocks (He et al. 2016), from ResNet-8 to ResNet-18."""

from __future__ import annotations

from dataclasses import field
from typing import Literal

from pydantic import Field
from torch import nn

from dtsim.core.parts import part
from dtsim.learning.data.operators import cure
from dtsim.learning.models import Scale, channels_last, seeded


@part
class ResNet:
    """torchvision's basic blocks in stages, each with twice the width and half the size of the previous stage.

    With `blocks` [2, 2, 2, 2] and `width` 64 it is torchvision's ResNet-18; with [1, 1, 1], `width` 16 and the CIFAR
    stem it is the ResNet-8 of He et al.'s CIFAR family, with projection shortcuts at the start of a stage.

    GroupNorm replaces BatchNorm: an incremental update has few images of a shifted class distribution, which would
    change the base model's running batch statistics. GroupNorm keeps no statistics.
    """

    blocks: list[int] = field(default_factory=lambda: [2, 2, 2, 2])
    """Blocks in each stage, of twice the width and half the size of the one before."""
    width: int = Field(default=64, gt=0)
    """Channels of the first stage."""
    stem: Literal["imagenet", "cifar"] = "imagenet"
    """`imagenet`: 7×7 stride 2 and pooling; `cifar`: 3×3 stride 1, about 15 times the work."""
    groups: int = Field(default=32, gt=0)
    """Groups of each GroupNorm; must divide width."""

    def __post_init__(self) -> None:
        """Check keys that depend on each other."""
        if not self.blocks or any(count <= 0 for count in self.blocks):
            raise ValueError(f"blocks={self.blocks}: must be a list of one or more numbers > 0")
        if self.width % self.groups:
            raise ValueError(f"groups={self.groups}: must divide width={self.width}")

    def build(self, sample_shape: tuple[int, int, int], classes: int, seed: int) -> nn.Module:
        """The network on the CPU, with random weights from torchvision's initialisation."""
        cure()
        from torchvision.models.resnet import BasicBlock

        size, stride = (7, 2) if self.stem == "imagenet" else (3, 1)
        with seeded(seed):
            width = self.width
            layers: list[nn.Module] = [
                Scale(),
                nn.Conv2d(sample_shape[0], width, size, stride, padding=size // 2, bias=False),
                self._norm(width),
                nn.ReLU(inplace=True),
            ]
            if self.stem == "imagenet":
                layers.append(nn.MaxPool2d(3, stride=2, padding=1))
            for stage, count in enumerate(self.blocks):
                for place in range(count):
                    planes, step = self.width << stage, 2 if stage and not place else 1
                    shortcut = None
                    if planes != width:
                        shortcut = nn.Sequential(nn.Conv2d(width, planes, 1, step, bias=False), self._norm(planes))
                    layers.append(BasicBlock(width, planes, step, shortcut, norm_layer=self._norm))
                    width = planes
            model = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, classes))
            for module in model.modules():
                if isinstance(module, nn.Conv2d):
                    nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            return channels_last(model)

    def _norm(self, channels: int) -> nn.GroupNorm:
        return nn.GroupNorm(self.groups, channels)
