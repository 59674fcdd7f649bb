"""Folders of a user's own images, one for each class, as tensors."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

import torch
from PIL import Image, ImageOps
from torch import Tensor

from dtsim.core.errors import DatasetError
from dtsim.core.progress import Progress
from dtsim.learning.data import published
from dtsim.learning.data.operators import cure
from dtsim.learning.data.regular import read, require_regular

SUFFIXES = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")
"""What a file is called that is taken for an image, in small letters or capitals."""


def classes_of(root: Path) -> dict[str, list[Path]]:
    """The images below each folder of `root`, but hidden ones: relative paths in one order on every machine.

    Links are followed; a folder that is reached again by a link counts once.

    Raises:
        DatasetError: where a folder cannot be read, or what has the name of an image is no regular file.
    """
    try:
        names = sorted(entry.name for entry in root.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    except OSError as error:
        raise DatasetError(f"{root}: cannot be read ({error.strerror})") from None
    return {name: sorted(_images(root, name)) for name in names}


def _images(root: Path, name: str) -> Iterator[Path]:
    seen = set()
    for folder, below, files in os.walk(root / name, followlinks=True, onerror=_refuse):
        status = Path(folder).stat()
        if (status.st_dev, status.st_ino) in seen:
            below.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        below.sort()
        for file in files:
            if file.lower().endswith(SUFFIXES):
                require_regular(Path(folder, file))
                yield Path(folder, file).relative_to(root)


def _refuse(error: OSError) -> None:
    raise DatasetError(f"{error.filename}: cannot be read ({error.strerror})")


_PARTS = {"train", "test", "val", "valid", "validation"}
"""Names of folders that divide a data set rather than being classes of it."""


def images_of(root: Path, test_share: float) -> tuple[list[str], list[Path], Tensor, Tensor]:
    """The class names, and for each image its file, its label (int64) and whether it is to test with (bool).

    The division depends on the files' names alone, so it is the same on every machine and in every run. A folder that
    holds `train` and `test`, each with a folder for each class, is divided already.

    Raises:
        DatasetError: where there are fewer than two classes, or one holds no image.
    """
    of_class = classes_of(root)
    if of_class and set(of_class) <= _PARTS and all(classes_of(root / part) for part in of_class):
        return _divided_already(root, sorted(of_class))
    if len(of_class) < 2:
        raise DatasetError(
            f"{root}: holds {len(of_class)} folders of images, it needs two or more: one folder for each class"
        )
    division = _Division()
    for name, found in of_class.items():
        for_test = min(max(1, round(len(found) * test_share)), len(found) - 1)
        mixed = sorted(found, key=_hash)
        division.add(root, name, mixed[:for_test], test=True)
        division.add(root, name, mixed[for_test:], test=False)
    return division.result()


def _divided_already(root: Path, parts: list[str]) -> tuple[list[str], list[Path], Tensor, Tensor]:
    """The same of a folder that holds train and test."""
    if parts != ["test", "train"]:
        raise DatasetError(f"{root}: holds {', '.join(parts)}: it must hold train and test, or a folder for each class")
    of_class = {part: classes_of(root / part) for part in parts}
    if alone := sorted(set(of_class["train"]) ^ set(of_class["test"])):
        raise DatasetError(f"{root}: train and test must hold the same classes, {alone[0]} is in one of them alone")
    if len(of_class["train"]) < 2:
        raise DatasetError(f"{root}: train and test must hold two or more classes: one folder for each")
    division = _Division()
    for name in of_class["train"]:
        for part in parts:
            division.add(root / part, name, of_class[part][name], test=part == "test")
    return division.result()


class _Division:
    """Images as they are divided, class by class."""

    def __init__(self) -> None:
        self._names: list[str] = []
        self._paths: list[Path] = []
        self._labels: list[int] = []
        self._test: list[bool] = []

    def add(self, root: Path, name: str, found: list[Path], *, test: bool) -> None:
        """Images of class `name`, relative to `root`."""
        if not found and not test:
            raise DatasetError(f"{root / name}: holds no image (.png, .jpg, …): add images or remove the folder")
        if name not in self._names:
            self._names.append(name)
        self._paths += [root / path for path in found]
        self._labels += [self._names.index(name)] * len(found)
        self._test += [test] * len(found)

    def result(self) -> tuple[list[str], list[Path], Tensor, Tensor]:
        """As `images_of`."""
        return self._names, self._paths, torch.tensor(self._labels), torch.tensor(self._test)


def content_of(root: Path) -> str:
    """Hexadecimal SHA-256 of the names, sizes and bytes of all images of `root`.

    Raises:
        DatasetError: where one cannot be read.
    """
    digest = hashlib.sha256()
    for name, paths in classes_of(root).items():
        digest.update(f"{name!r} {len(paths)}\n".encode())
        for path in paths:
            data = read(root / path)
            digest.update(f"{path.as_posix()!r} {len(data)} {published.sha256(data)}\n".encode())
    return digest.hexdigest()


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
            require_regular(path)
            try:
                with Image.open(path) as image:
                    rgb = _rgb(ImageOps.exif_transpose(image))
            except Exception as error:  # Pillow's decoders raise whatever a damaged file leads them into
                reason = " ".join(str(error).split()) or type(error).__name__
                raise DatasetError(f"{path}: cannot be read as an image ({reason}): replace or remove it") from None
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
