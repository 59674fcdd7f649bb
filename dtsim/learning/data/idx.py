"""Files in IDX format, MNIST's: read whole, and held to their header and to what was published."""

from __future__ import annotations

import gzip
import math
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO

import numpy as np

from dtsim.learning.data import published
from dtsim.learning.data.errors import DatasetError
from dtsim.learning.data.regular import require_regular

NAMES = tuple(published.FASHION_MNIST)
"""The four files of MNIST and of every data set published in its form."""

_LARGEST_BYTES = 1 << 30


def holder(folder: Path) -> Path | None:
    """`folder`, or its sub-folder in torchvision's layout, where it holds all four files, packed or not."""
    for candidate in (folder / "FashionMNIST" / "raw", folder / "raw", folder):
        if all(path_of(candidate, name) is not None for name in NAMES):
            return candidate
    return None


def path_of(folder: Path, name: str) -> Path | None:
    """The file `name` of `folder`, else `name.gz`; None where there is neither."""
    return next((path for path in (folder / name, folder / f"{name}.gz") if path.exists() or path.is_symlink()), None)


def read(path: Path) -> bytes:
    """An IDX file of bytes, unpacked where its name ends with `.gz`.

    Raises:
        DatasetError: where it cannot be read, is no such file, or is longer or shorter than its header says.
    """
    require_regular(path)
    dimensions = 3 if "idx3" in path.name else 1
    try:
        with path.open("rb") if path.suffix != ".gz" else gzip.open(path) as file:
            return _whole(path, file, dimensions)  # type: ignore[arg-type]  # GzipFile is one in all but name
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise DatasetError(f"{path}: is truncated or damaged ({error}): replace it") from None
    except OSError as error:
        raise DatasetError(f"{path}: cannot be read ({error.strerror or error})") from None


def _whole(path: Path, file: BinaryIO, dimensions: int) -> bytes:
    head = file.read(4 + 4 * dimensions)
    if not head:
        raise DatasetError(f"{path}: is empty: replace it")
    if head[:4] != bytes([0, 0, 8, dimensions]):
        raise DatasetError(f"{path}: is no IDX file of bytes in {dimensions} dimensions: replace it")
    if len(head) < 4 + 4 * dimensions:
        raise DatasetError(f"{path}: is truncated within its header: replace it")
    expected = len(head) + math.prod(_sizes(head, dimensions))
    if expected > _LARGEST_BYTES:
        raise DatasetError(f"{path}: its header asks for {expected:,} bytes, more than {_LARGEST_BYTES:,}: replace it")
    data = head + file.read(expected - len(head) + 1)  # a byte more shows that there are more
    if len(data) != expected:
        fault = "is truncated" if len(data) < expected else "has bytes past its end"
        found = f"{len(data)} bytes" if len(data) < expected else "more bytes"
        raise DatasetError(f"{path}: {fault} ({found}, its header says {expected}): replace it")
    file.read()  # of a packed file, the checksum at its end
    return data


def _sizes(head: bytes, dimensions: int) -> tuple[int, ...]:
    return tuple(int.from_bytes(head[at : at + 4], "big") for at in range(4, 4 + 4 * dimensions, 4))


def array(data: bytes) -> np.ndarray:
    """What the bytes of an IDX file hold: uint8 of the sizes in its header; read-only."""
    dimensions = data[3]
    return np.frombuffer(data, np.uint8, offset=4 + 4 * dimensions).reshape(_sizes(data, dimensions))


def read_folder(folder: Path) -> tuple[dict[str, bytes], bool]:
    """The four files of `folder`, and whether they are Fashion-MNIST as published.

    A smaller set in the same form is read too: nobody knows what it must be, only that its files fit each other.

    Raises:
        DatasetError: naming the file at fault.
    """
    paths = {name: path_of(folder, name) or folder / name for name in NAMES}
    files = {name: read(path) for name, path in paths.items()}
    known = _check_published(paths, files)
    for part in ("train", "t10k"):
        images, labels = (len(array(files[f"{part}-{kind}-ubyte"])) for kind in ("images-idx3", "labels-idx1"))
        if images != labels:
            file = paths[f"{part}-labels-idx1-ubyte"]
            raise DatasetError(f"{file}: holds {labels} labels for {images} images: replace it")
    return files, known


def _check_published(paths: Mapping[str, Path], files: Mapping[str, bytes]) -> bool:
    """Whether all files are the published ones; where one is, or has their size, each must be."""
    hashes = {name: published.sha256(data) for name, data in files.items()}
    whole = [name for name, known in published.FASHION_MNIST.items() if hashes[name] == known.sha256]
    for name, known in published.FASHION_MNIST.items():
        if name in whole:
            continue
        other = next((o for o, file in published.FASHION_MNIST.items() if file.sha256 == hashes[name]), None)
        if other is not None:
            raise DatasetError(f"{paths[name]}: is damaged, it holds the published {other}: replace it")
        if whole or array(files[name]).shape == known.sizes:
            raise DatasetError(
                f"{paths[name]}: is damaged, it is not the published file (its SHA-256 is {hashes[name][:12]}…, "
                f"not {known.sha256[:12]}…): replace it"
            )
    return len(whole) == len(files)
