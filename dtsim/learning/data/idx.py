"""Files in IDX format, MNIST's: whether they are whole, and unpacking them."""

from __future__ import annotations

import gzip
import math
import shutil
import zlib
from pathlib import Path

from dtsim.learning.data.splits import DatasetError

NAMES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)
"""The four files of MNIST and of every data set published in its form."""


def check(path: Path) -> tuple[int, ...]:
    """The sizes that the header of an unpacked file of bytes gives.

    Raises:
        DatasetError: where it is no such file, or is longer or shorter than its header says.
    """
    dimensions = 3 if "idx3" in path.name else 1
    with path.open("rb") as file:
        head = file.read(4 + 4 * dimensions)
    if head[:4] != bytes([0, 0, 8, dimensions]):
        raise DatasetError(f"{path}: is no IDX file of bytes in {dimensions} dimensions: replace it")
    if len(head) < 4 + 4 * dimensions:
        raise DatasetError(f"{path}: is truncated within its header: replace it")
    sizes = tuple(int.from_bytes(head[at : at + 4], "big") for at in range(4, len(head), 4))
    expected, found = len(head) + math.prod(sizes), path.stat().st_size
    if found != expected:
        fault = "is truncated" if found < expected else "has bytes past its end"
        raise DatasetError(f"{path}: {fault} ({found} bytes, its header says {expected}): replace it")
    return sizes


def check_folder(folder: Path) -> None:
    """Check the four unpacked files of `folder`, and that there is a label for each image.

    Raises:
        DatasetError: naming the file at fault.
    """
    sizes = {name: check(folder / name) for name in NAMES}
    for part in ("train", "t10k"):
        images, labels = sizes[f"{part}-images-idx3-ubyte"][0], sizes[f"{part}-labels-idx1-ubyte"][0]
        if images != labels:
            raise DatasetError(
                f"{folder}/{part}-labels-idx1-ubyte: holds {labels} labels for {images} images: replace it"
            )


def holder(folder: Path) -> Path | None:
    """`folder`, or its sub-folder in torchvision's layout, where it holds all four files, packed or not."""
    for candidate in (folder / "FashionMNIST" / "raw", folder / "raw", folder):
        if all((candidate / name).is_file() or (candidate / f"{name}.gz").is_file() for name in NAMES):
            return candidate
    return None


def unpack(source: Path, target: Path) -> None:
    """Put the four files of `source` into `target`, unpacked, and check them.

    Raises:
        DatasetError: naming the file of `source` that is damaged.
    """
    target.mkdir(parents=True, exist_ok=True)
    for name in NAMES:
        plain, packed = source / name, source / f"{name}.gz"
        if plain.is_file():
            check(plain)
            shutil.copyfile(plain, target / name)
            continue
        try:
            with gzip.open(packed) as file, (target / name).open("wb") as out:
                shutil.copyfileobj(file, out, 1 << 20)
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise DatasetError(f"{packed}: is truncated or damaged ({error}): replace it") from None
        try:
            check(target / name)
        except DatasetError as error:
            raise DatasetError(str(error).replace(str(target / name), str(packed))) from None
    check_folder(target)
