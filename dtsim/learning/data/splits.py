"""A labelled image data set held as tensors, and how it is divided."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from dtsim.core.errors import DatasetError


@dataclass(frozen=True)
class RawDataset:
    """All images of a data set, as published in a train and a test part; labels index `classes`."""

    train_images: Tensor
    """[N, C, H, W] uint8."""
    train_labels: Tensor
    """[N] int64."""
    test_images: Tensor
    """[N', C, H, W] uint8."""
    test_labels: Tensor
    """[N'] int64."""
    classes: list[str]
    """Their names."""

    @property
    def sample_shape(self) -> tuple[int, int, int]:
        """(C, H, W) of an image."""
        channels, height, width = self.train_images.shape[1:]
        return channels, height, width

    @property
    def sample_bytes(self) -> int:
        """Bytes of an image as stored and sent: one for each channel of each pixel."""
        return self.train_images[0].numel()


@dataclass(frozen=True)
class Labelled:
    """Images and their labels."""

    images: Tensor
    """[N, C, H, W] uint8."""
    labels: Tensor
    """[N] int64."""

    def __len__(self) -> int:
        return len(self.labels)

    def at(self, places: np.ndarray) -> Labelled:
        """The images at `places` [n]."""
        chosen = torch.from_numpy(places).to(self.labels.device, torch.int64)
        return Labelled(self.images[chosen], self.labels[chosen])

    @property
    def bytes(self) -> int:
        """Memory of the images."""
        return self.images.numel() * self.images.element_size()

    def class_counts(self, classes: int) -> np.ndarray:
        """How many images each class has; int64 [C]."""
        return torch.bincount(self.labels, minlength=classes).cpu().numpy()

    @staticmethod
    def joined(parts: list[Labelled]) -> Labelled:
        """All of `parts`, in order; at least one."""
        if len(parts) == 1:
            return parts[0]
        return Labelled(torch.cat([p.images for p in parts]), torch.cat([p.labels for p in parts]))


@dataclass(frozen=True)
class Splits:
    """Four disjoint sets of images."""

    pretrain: Labelled
    """What the base model is trained on: seen classes only."""
    validation: Labelled
    """What its training is watched with: seen classes only."""
    increment: Labelled
    """What users upload for retraining: all classes."""
    test: Labelled
    """What users infer and are scored on: all classes."""


class ClassIndex:
    """The places of each class in a set of labels, for drawing images of given classes."""

    def __init__(self, labels: Tensor, classes: int) -> None:
        order = torch.argsort(labels, stable=True)
        self._order = order.cpu().numpy()
        self.counts: np.ndarray = torch.bincount(labels, minlength=classes).cpu().numpy()
        """[C]: how many images each class has."""
        self._first = np.cumsum(self.counts) - self.counts

    def draw(self, labels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """For each of `labels` [n] the place of an image of that class, [n]: uniform, with replacement.

        Raises:
            ValueError: where a class that is asked for has no image.
        """
        return self.places(labels, rng.random(len(labels)))

    def places(self, labels: np.ndarray, numbers: np.ndarray) -> np.ndarray:
        """For each of `labels` [n] the image of that class that a number in [0, 1) of `numbers` [n] stands for, [n].

        Raises:
            ValueError: where a class that is asked for has no image.
        """
        empty = np.unique(labels[self.counts[labels] == 0])
        if empty.size:
            raise ValueError(f"classes {empty.tolist()} have no image to draw")
        within = np.floor(numbers * self.counts[labels]).astype(np.int64)
        places: np.ndarray = self._order[self._first[labels] + within]
        return places


def split(
    raw: RawDataset,
    unseen: list[int],
    *,
    pretrain_images: int,
    increment_images: int,
    validation_images: int,
    test_images: int,
    rng: np.random.Generator,
) -> Splits:
    """Divide `raw` into four disjoint sets, every one stratified over its classes.

    The sizes are maxima. Increments are taken first, of all classes, from the train part: where it holds fewer
    images than are asked for in all, their proportionate share. Pre-training and validation divide the seen
    classes' images that are left, in the ratio asked for where those do not suffice. The test set is of the
    test part. Images of unseen classes that are in no increment stay unused.

    Args:
        raw: all images.
        unseen: classes kept out of pre-training and validation.
        pretrain_images: for the base model.
        increment_images: for retraining.
        validation_images: for watching the base model's training.
        test_images: for scoring.
        rng: shuffles the images.

    Raises:
        DatasetError: where a class has too few images for every set to hold one.
    """
    classes = len(raw.classes)
    labels = raw.train_labels.cpu().numpy()
    test_labels = raw.test_labels.cpu().numpy()
    for index, name in enumerate(raw.classes):
        train, test = int((labels == index).sum()), int((test_labels == index).sum())
        need = 2 if index in unseen else 3
        if train < need or test < 1:
            raise DatasetError(
                f"class {name!r} has {train} images to train and {test} to test with, "
                f"it needs {need} and 1: add images or leave the class out"
            )
    asked = pretrain_images + increment_images + validation_images
    share = min(1.0, len(labels) / asked)
    everything = np.arange(len(labels))
    increment = _stratified(everything, labels, round(increment_images * share), classes, rng)
    left = np.setdiff1d(everything, increment)
    left = left[~np.isin(labels[left], unseen)]
    share = min(1.0, len(left) / (pretrain_images + validation_images))
    validation = _stratified(left, labels, round(validation_images * share), classes, rng)
    left = np.setdiff1d(left, validation)
    pretrain = _stratified(left, labels, round(pretrain_images * share), classes, rng)
    test_set = _stratified(np.arange(len(test_labels)), test_labels, test_images, classes, rng)
    return Splits(
        pretrain=_take(raw.train_images, raw.train_labels, pretrain),
        validation=_take(raw.train_images, raw.train_labels, validation),
        increment=_take(raw.train_images, raw.train_labels, increment),
        test=_take(raw.test_images, raw.test_labels, test_set),
    )


def _stratified(
    places: np.ndarray, labels: np.ndarray, count: int, classes: int, rng: np.random.Generator
) -> np.ndarray:
    """About `count` of `places`, of each class in proportion to what it has, at least one."""
    places = rng.permutation(places)
    have = np.bincount(labels[places], minlength=classes)
    exact = have * min(1.0, count / len(places))
    quota = np.floor(exact).astype(np.int64)
    quota[np.argsort(quota - exact, kind="stable")[: min(count, len(places)) - quota.sum()]] += 1
    quota = np.minimum(np.maximum(quota, 1), have)
    return np.sort(np.concatenate([places[labels[places] == index][: quota[index]] for index in range(classes)]))


def _take(images: Tensor, labels: Tensor, places: np.ndarray) -> Labelled:
    chosen = torch.from_numpy(places).to(images.device)
    return Labelled(images=images[chosen], labels=labels[chosen])


def content_digest(*tensors: Tensor) -> str:
    """Hexadecimal SHA-256 of the shapes, types and bytes of `tensors`, for keys of the cache."""
    digest = hashlib.sha256()
    for tensor in tensors:
        digest.update(f"{tensor.dtype}{list(tensor.shape)}".encode())
        digest.update(tensor.cpu().contiguous().numpy().data)
    return digest.hexdigest()
