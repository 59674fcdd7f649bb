"""Folders of a user's own images, one for each class, as tensors."""

from __future__ import annotations

import hashlib
from pathlib import Path

import torch
from PIL import Image, ImageOps
from torch import Tensor

from dtsim.core.progress import Progress
from dtsim.learning.data._torchvision import cure
from dtsim.learning.data.splits import DatasetError

_PARTS = {"train", "test", "val", "valid", "validation"}
"""Names of folders that divide a data set rather than being classes of it."""


def images_of(root: Path, test_share: float) -> tuple[list[str], list[Path], Tensor, Tensor]:
    """The class names, and for each image its file, its label (int64) and whether it is to test with (bool).

    The division depends on the files' names alone, so it is the same on every machine and in every run. A folder that
    holds `train` and `test`, each with a folder for each class, is divided already.

    Raises:
        DatasetError: where there are fewer than two classes, or one holds no image.
    """
    names = _folders(root)
    if set(names) <= _PARTS and all(_folders(root / name) for name in names) and names:
        return _of_parts(root, names)
    if len(names) < 2:
        raise DatasetError(
            f"{root}: holds {len(names)} folders of images, it needs two or more: one folder for each class"
        )
    of_class = _images(root, names)
    paths: list[Path] = []
    labels: list[int] = []
    test: list[bool] = []
    for label, name in enumerate(names):
        found = of_class[name]
        for_test = min(max(1, round(len(found) * test_share)), len(found) - 1)
        paths += found
        labels += [label] * len(found)
        test += [place < for_test for place in range(len(found))]
    return names, paths, torch.tensor(labels), torch.tensor(test)


def _of_parts(root: Path, parts: list[str]) -> tuple[list[str], list[Path], Tensor, Tensor]:
    """The same of a folder that is divided already: train and test, each with a folder for each class."""
    if set(parts) != {"train", "test"}:
        raise DatasetError(
            f"{root}: holds {', '.join(parts)}: it needs train and test alone, or a folder for each class"
        )
    names = _folders(root / "train")
    if names != _folders(root / "test") or len(names) < 2:
        differing = sorted(set(names) ^ set(_folders(root / "test")))
        missing = f"{', '.join(differing)} is in one of them only" if differing else f"they hold {len(names)}"
        raise DatasetError(f"{root}: train and test must hold the same two or more classes: {missing}")
    paths: list[Path] = []
    labels: list[int] = []
    test: list[bool] = []
    for part in ("test", "train"):
        for label, (_, found) in enumerate(sorted(_images(root / part, names).items())):
            paths += found
            labels += [label] * len(found)
            test += [part == "test"] * len(found)
    return names, paths, torch.tensor(labels), torch.tensor(test)


def _folders(root: Path) -> list[str]:
    """The names of the folders in `root`, without hidden ones."""
    return sorted(entry.name for entry in root.iterdir() if entry.is_dir() and not entry.name.startswith("."))


def _images(root: Path, names: list[str]) -> dict[str, list[Path]]:
    """The images of each class in an order that is the same everywhere and mixes them.

    Raises:
        DatasetError: where a class has none.
    """
    cure()
    from torchvision.datasets import ImageFolder

    try:
        samples = ImageFolder(str(root), allow_empty=True).samples
    except FileNotFoundError as error:
        raise DatasetError(f"{root}: {error}") from None
    of_class: dict[str, list[Path]] = {name: [] for name in names}
    for path, _ in samples:
        name = Path(path).relative_to(root).parts[0]
        if name in of_class:  # hidden folders are none of the user's classes
            of_class[name].append(Path(path))
    for name, found in of_class.items():
        if not found:
            raise DatasetError(f"{root / name}: holds no image (.png, .jpg, …): add images or remove the folder")
        found.sort(key=lambda path: _hash(path.relative_to(root)))
    return of_class


def decode(paths: list[Path], size: int, progress: Progress) -> Tensor:
    """The images of `paths` as RGB, resized whatever their shape: [N, 3, size, size] uint8.

    Raises:
        DatasetError: naming the first file that cannot be read.
    """
    cure()
    from torchvision.transforms.v2 import functional

    images = torch.empty(len(paths), 3, size, size, dtype=torch.uint8)
    with progress.phase("read images", len(paths)) as phase:
        for place, path in enumerate(paths):
            if not path.is_file():  # a pipe would be waited on for ever
                raise DatasetError(f"{path}: must be a file: replace or remove it")
            try:
                with Image.open(path) as image:
                    rgb = _rgb(ImageOps.exif_transpose(image))
            except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
                raise DatasetError(f"{path}: cannot be read as an image ({error}): replace or remove it") from None
            pixels = functional.pil_to_tensor(rgb)
            images[place] = functional.resize(pixels, [size, size], antialias=True)
            phase.advance(1)
    return images


def _rgb(image: Image.Image) -> Image.Image:
    """Eight bits a channel; Pillow alone would clip images of 16 bits to white."""
    if image.mode.startswith("I"):
        image = image.convert("I").point(lambda value: value * (1 / 256)).convert("L")
    return image.convert("RGB")


def _hash(path: Path) -> str:
    return hashlib.sha256(path.as_posix().encode()).hexdigest()
