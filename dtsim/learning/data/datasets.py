"""The image data sets that a run can use; every image is real."""

from __future__ import annotations

import pickle
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from dtsim.core.errors import DatasetError
from dtsim.core.parts import part
from dtsim.core.progress import Progress
from dtsim.learning.data import fetch, idx, published
from dtsim.learning.data.folders import decode, images_of
from dtsim.learning.data.splits import RawDataset, Splits, split


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
    """Folder with the four files, packed or not, flat or in torchvision's layout [path]; null: found or fetched."""
    download: bool = True
    """Whether the network may be used."""

    def layout(self) -> tuple[tuple[int, int, int], int]:
        """As published."""
        return (1, 28, 28), 10

    def load(self, cache_dir: Path, progress: Progress) -> RawDataset:
        """Its 60,000 images to train and 10,000 to test with, shaped [1, 28, 28]."""
        if self.root is None:
            files = fetch.fashion_mnist(cache_dir, self.download, progress)
        else:
            files = self._given(self.root, progress)
        tensors = {name: torch.from_numpy(idx.array(data).copy()) for name, data in files.items()}
        return RawDataset(
            train_images=tensors["train-images-idx3-ubyte"].unsqueeze(1),
            train_labels=_labels(tensors["train-labels-idx1-ubyte"], len(published.FASHION_MNIST_CLASSES)),
            test_images=tensors["t10k-images-idx3-ubyte"].unsqueeze(1),
            test_labels=_labels(tensors["t10k-labels-idx1-ubyte"], len(published.FASHION_MNIST_CLASSES)),
            classes=list(published.FASHION_MNIST_CLASSES),
        )

    def _given(self, root: str, progress: Progress) -> dict[str, bytes]:
        folder = _folder(root)
        holder = idx.holder(folder)
        if holder is None:
            raise DatasetError(
                f"dataset.root={folder} does not hold Fashion-MNIST: it needs the four files "
                + ", ".join(f"{name}[.gz]" for name in idx.NAMES)
            )
        files, known = idx.read_folder(holder)
        for name in (name for name in idx.NAMES if "images" in name):
            height, width = idx.array(files[name]).shape[1:]
            if (1, height, width) != self.layout()[0]:
                raise DatasetError(f"{holder / name}: holds images of {height}×{width} pixels, they must have 28×28")
        if not known:
            progress.say(f"dataset.root={folder}: is not Fashion-MNIST as published, only its form was checked")
        return files


@part
class Cifar10(Sizes):
    """CIFAR-10 (Krizhevsky 2009): 60,000 colour images of 32×32 pixels, ten kinds of things."""

    root: str | None = None
    """Folder that holds `cifar-10-batches-py` [path]; null: found in the cache or downloaded."""
    download: bool = True
    """Whether the network may be used."""

    def layout(self) -> tuple[tuple[int, int, int], int]:
        """As published."""
        return (3, 32, 32), 10

    def load(self, cache_dir: Path, progress: Progress) -> RawDataset:
        """Its 50,000 images to train and 10,000 to test with, shaped [3, 32, 32]."""
        if self.root is None:
            files = fetch.cifar10(cache_dir, self.download, progress)
        else:
            files = fetch.read_cifar10(_folder(self.root))
        # Pickles, which could do anything: `fetch` gives none but the published ones.
        contents = {name: pickle.loads(data, encoding="latin1") for name, data in files.items()}
        classes = list(contents["batches.meta"]["label_names"])
        train = [contents[name] for name in files if name.startswith("data_batch")]
        return RawDataset(
            train_images=_rgb(np.concatenate([batch["data"] for batch in train])),
            train_labels=_labels([label for batch in train for label in batch["labels"]], len(classes)),
            test_images=_rgb(contents["test_batch"]["data"]),
            test_labels=_labels(contents["test_batch"]["labels"], len(classes)),
            classes=classes,
        )


@part
class ImageFolder(Sizes):
    """A user's own images: a folder with one sub-folder of images for each class."""

    root: str
    """Folder with a sub-folder of images for each class [path]."""
    size: int = Field(default=32, ge=8, le=512)
    """Height and width that every image is resized to [pixel]."""
    test_share: float = Field(default=0.2, gt=0, lt=1)
    """Share of each class's images that goes to the test part."""

    def layout(self) -> tuple[tuple[int, int, int], int]:
        """RGB of the size asked for, and a class for each sub-folder."""
        return (3, self.size, self.size), len(images_of(_folder(self.root), self.test_share)[0])

    def load(self, cache_dir: Path, progress: Progress) -> RawDataset:
        """Its images as RGB, shaped [3, size, size], divided class by class by a hash of their names."""
        classes, paths, labels, test = images_of(_folder(self.root), self.test_share)
        images = decode(paths, self.size, progress)
        return RawDataset(
            train_images=images[~test],
            train_labels=labels[~test],
            test_images=images[test],
            test_labels=labels[test],
            classes=classes,
        )


def _folder(root: str) -> Path:
    folder = Path(root).expanduser()
    if not folder.is_dir():
        raise DatasetError(f"dataset.root={root}: must be a folder that holds the images")
    return folder


def _labels(targets: Any, classes: int) -> Tensor:
    labels = torch.as_tensor(targets, dtype=torch.int64)
    if labels.numel() and int(labels.max()) >= classes:
        raise DatasetError(f"the labels name class {int(labels.max())}, there are {classes}: replace the label files")
    return labels


def _rgb(data: np.ndarray) -> Tensor:
    """[N, 3072] uint8, the planes one after the other, as [N, 3, 32, 32]."""
    return torch.from_numpy(data.reshape(-1, 3, 32, 32))
