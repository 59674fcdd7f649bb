"""The image data sets that a run can use; every image is real."""

from __future__ import annotations

import tempfile
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from dtsim.core.parts import part
from dtsim.core.progress import Progress
from dtsim.learning.data import fetch, idx
from dtsim.learning.data._torchvision import cure
from dtsim.learning.data.folders import decode, images_of
from dtsim.learning.data.splits import DatasetError, RawDataset, Splits, split


@part
class Sizes(ABC):
    """How many images each use gets: maxima, which a smaller data set shares in the same proportion."""

    pretrain_images: int = Field(default=40_000, gt=0)
    """Images of seen classes for the base model; sizes are maxima, a smaller data set shares them in proportion."""
    increment_images: int = Field(default=5_000, gt=0)
    """Images of all classes that users upload for retraining; taken first."""
    validation_images: int = Field(default=2_000, gt=0)
    """Images of seen classes that pre-training is watched with."""
    test_images: int = Field(default=10_000, gt=0)
    """Images of all classes that users infer and are scored on."""

    @abstractmethod
    def load(self, cache_dir: Path, progress: Progress) -> RawDataset:
        """All images as tensors; what has to be fetched is kept in `cache_dir`.

        Raises:
            DatasetError: where the data set is missing or damaged.
        """

    @abstractmethod
    def layout(self) -> tuple[tuple[int, int, int], int]:
        """(C, H, W) of its images and the number of its classes, known before they are loaded.

        Raises:
            DatasetError: where that cannot be known.
        """

    def split(self, raw: RawDataset, unseen: list[int], rng: np.random.Generator) -> Splits:
        """Divide `raw` by this part's sizes: see `splits.split`."""
        return split(
            raw,
            unseen,
            pretrain_images=self.pretrain_images,
            increment_images=self.increment_images,
            validation_images=self.validation_images,
            test_images=self.test_images,
            rng=rng,
        )


@part
class FashionMnist(Sizes):
    """Fashion-MNIST (Xiao et al. 2017): 70,000 grey images of 28×28 pixels, ten kinds of clothes."""

    root: str | None = None
    """A folder with the four files, packed or not, flat or in torchvision's layout; none: found or fetched."""
    download: bool = True
    """Whether the network may be used."""

    def layout(self) -> tuple[tuple[int, int, int], int]:
        """As published."""
        return (1, 28, 28), 10

    def load(self, cache_dir: Path, progress: Progress) -> RawDataset:
        """Its 60,000 images to train and 10,000 to test with, shaped [1, 28, 28]."""
        if self.root is None:
            return self._read(fetch.fashion_mnist(cache_dir, self.download, progress))
        folder = _given(self.root)
        holder = idx.holder(folder)
        if holder is None:
            raise DatasetError(
                f"dataset.root={folder} does not hold Fashion-MNIST: it needs the four files "
                + ", ".join(f"{name}[.gz]" for name in idx.NAMES)
            )
        if holder.parts[-2:] == ("FashionMNIST", "raw") and all((holder / name).is_file() for name in idx.NAMES):
            idx.check_folder(holder)
            return self._read(holder.parent.parent)
        with tempfile.TemporaryDirectory(prefix="dtsim-") as scratch:
            idx.unpack(holder, Path(scratch) / "FashionMNIST" / "raw")
            return self._read(Path(scratch))

    def _read(self, root: Path) -> RawDataset:
        cure()
        from torchvision.datasets import FashionMNIST

        train, test = FashionMNIST(root, train=True), FashionMNIST(root, train=False)
        return RawDataset(
            train_images=train.data.unsqueeze(1),
            train_labels=_labels(train.targets, len(train.classes)),
            test_images=test.data.unsqueeze(1),
            test_labels=_labels(test.targets, len(train.classes)),
            classes=list(train.classes),
        )


@part
class Cifar10(Sizes):
    """CIFAR-10 (Krizhevsky 2009): 60,000 colour images of 32×32 pixels, ten kinds of things."""

    root: str | None = None
    """A folder that holds `cifar-10-batches-py`; none: found in the cache or downloaded."""
    download: bool = True
    """Whether the network may be used."""

    def layout(self) -> tuple[tuple[int, int, int], int]:
        """As published."""
        return (3, 32, 32), 10

    def load(self, cache_dir: Path, progress: Progress) -> RawDataset:
        """Its 50,000 images to train and 10,000 to test with, shaped [3, 32, 32]."""
        root = fetch.cifar10(cache_dir, self.download, progress) if self.root is None else _given(self.root)
        cure()
        from torchvision.datasets import CIFAR10
        from torchvision.datasets.utils import check_integrity

        meta = (CIFAR10.meta["filename"], CIFAR10.meta["md5"])
        for name, md5 in [*CIFAR10.train_list, *CIFAR10.test_list, meta]:
            file = root / CIFAR10.base_folder / name
            if not file.is_file():
                raise DatasetError(f"{file}: is missing: dataset.root must hold CIFAR-10's {CIFAR10.base_folder}")
            # The files are pickles, so nothing but the published ones is ever opened.
            if not check_integrity(file, md5):
                raise DatasetError(f"{file}: is damaged (its MD5 is not {md5}): replace it")
        train, test = CIFAR10(root, train=True), CIFAR10(root, train=False)
        return RawDataset(
            train_images=_channels_first(train.data),
            train_labels=_labels(train.targets, len(train.classes)),
            test_images=_channels_first(test.data),
            test_labels=_labels(test.targets, len(train.classes)),
            classes=list(train.classes),
        )


@part
class ImageFolder(Sizes):
    """A user's own images: a folder with one sub-folder of images for each class."""

    root: str
    """The folder."""
    size: int = Field(default=32, ge=8, le=512)
    """Height and width that every image is resized to [pixel]."""
    test_share: float = Field(default=0.2, gt=0, lt=1)
    """Share of each class's images that goes to the test part."""

    def layout(self) -> tuple[tuple[int, int, int], int]:
        """RGB of the size asked for, and a class for each sub-folder."""
        return (3, self.size, self.size), len(images_of(_given(self.root), self.test_share)[0])

    def load(self, cache_dir: Path, progress: Progress) -> RawDataset:
        """Its images as RGB, shaped [3, size, size], divided class by class by a hash of their names."""
        classes, paths, labels, test = images_of(_given(self.root), self.test_share)
        images = decode(paths, self.size, progress)
        return RawDataset(
            train_images=images[~test],
            train_labels=labels[~test],
            test_images=images[test],
            test_labels=labels[test],
            classes=classes,
        )


def _given(root: str) -> Path:
    folder = Path(root).expanduser()
    if not folder.is_dir():
        raise DatasetError(f"dataset.root={root} is not a folder: give the folder that holds the images")
    return folder


def _labels(targets: Any, classes: int) -> Tensor:
    labels = torch.as_tensor(targets, dtype=torch.int64)
    if labels.numel() and int(labels.max()) >= classes:
        raise DatasetError(f"the labels name class {int(labels.max())}, there are {classes}: replace the label files")
    return labels


def _channels_first(data: np.ndarray) -> Tensor:
    return torch.from_numpy(data).permute(0, 3, 1, 2).contiguous()
