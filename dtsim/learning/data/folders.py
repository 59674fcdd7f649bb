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
from dtsim.learning.data._torchvision import cure
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
    names = list(of_class)
    if len(names) < 2:
        raise DatasetError(
            f"{root}: holds {len(names)} folders of images, it needs two or more: one folder for each class"
        )
    paths: list[Path] = []
    labels: list[int] = []
    test: list[bool] = []
    for label, name in enumerate(names):
        found = sorted(of_class[name], key=_hash)
        if not found:
            raise DatasetError(f"{root / name}: holds no image (.png, .jpg, …): add images or remove the folder")
        for_test = min(max(1, round(len(found) * test_share)), len(found) - 1)
        paths += [root / path for path in found]
        labels += [label] * len(found)
        test += [place < for_test for place in range(len(found))]
    return names, paths, torch.tensor(labels), torch.tensor(test)


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
