"""Tiny data sets in the real formats, with images that a small CNN learns in a second."""

from __future__ import annotations

import gzip
import hashlib
import pickle
from pathlib import Path

import numpy as np
from PIL import Image

from dtsim.learning.data import idx, published


def blobs(labels: np.ndarray, size: int, seed: int) -> np.ndarray:
    """Noisy grey images [N, size, size] uint8 with a bright blob at a place that the label gives."""
    rng = np.random.default_rng(seed)
    angle = 2 * np.pi * labels / (labels.max() + 1)
    x, y = (size / 2 + 0.32 * size * trig(angle) for trig in (np.cos, np.sin))
    column, row = np.meshgrid(np.arange(size), np.arange(size))
    square = (column - x[:, None, None]) ** 2 + (row - y[:, None, None]) ** 2
    bright = 200 * np.exp(-square / (2 * (size / 10) ** 2))
    images: np.ndarray = np.clip(bright + rng.normal(30, 20, bright.shape), 0, 255).astype(np.uint8)
    return images


def idx_bytes(array: np.ndarray) -> bytes:
    """`array` of uint8 in IDX format."""
    sizes = b"".join(size.to_bytes(4, "big") for size in array.shape)
    return bytes([0, 0, 8, array.ndim]) + sizes + array.astype(np.uint8).tobytes()


def write_fashion_mnist(
    folder: Path, train: int = 1000, test: int = 500, *, packed: bool = True, flat: bool = False, size: int = 28
) -> Path:
    """Fashion-MNIST's four files with ten classes of blobs, in torchvision's layout or `flat`; returns `folder`."""
    raw = folder if flat else folder / "FashionMNIST" / "raw"
    raw.mkdir(parents=True, exist_ok=True)
    for seed, (name, count) in enumerate((("train", train), ("t10k", test))):
        labels = np.arange(count) % 10
        files = {f"{name}-images-idx3-ubyte": blobs(labels, size, seed), f"{name}-labels-idx1-ubyte": labels}
        for file, array in files.items():
            data = idx_bytes(array)
            if packed:
                (raw / f"{file}.gz").write_bytes(gzip.compress(data, 1, mtime=0))
            else:
                (raw / file).write_bytes(data)
    return folder


def hashes_of(folder: Path) -> dict[str, published.IdxFile]:
    """What `published.FASHION_MNIST` is to hold for the flat packed files of `folder` to be the published ones."""
    files = {}
    for path in folder.glob("*.gz"):
        packed = path.read_bytes()
        data = gzip.decompress(packed)
        files[path.stem] = published.IdxFile(
            sizes=idx.array(data).shape, sha256=published.sha256(data), packed_sha256=published.sha256(packed)
        )
    return {name: files[name] for name in idx.NAMES}


def write_cifar10(folder: Path, per_batch: int = 40) -> dict[str, str]:
    """CIFAR-10's seven pickles with ten classes of blobs; returns the MD5 of each, for `published.CIFAR10`."""
    base = folder / "cifar-10-batches-py"
    base.mkdir(parents=True, exist_ok=True)
    contents: dict[str, dict[str, object]] = {"batches.meta": {"label_names": [f"thing {i}" for i in range(10)]}}
    for seed, name in enumerate([*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]):
        labels = np.arange(per_batch) % 10
        grey = blobs(labels, 32, seed).reshape(per_batch, -1)
        planes = [grey, grey // 2, 255 - grey]  # red, green and blue, one after the other as published
        contents[name] = {"data": np.concatenate(planes, axis=1), "labels": labels.tolist()}
    digests = {}
    for name, content in contents.items():
        data = pickle.dumps(content)
        (base / name).write_bytes(data)
        digests[name] = hashlib.md5(data, usedforsecurity=False).hexdigest()
    return digests


def write_image_folder(folder: Path, classes: int = 3, images: int = 12) -> Path:
    """PNG files of many sizes and modes, a sub-folder for each class; returns `folder`."""
    modes = ["RGB", "L", "RGBA", "P", "I;16", "LA"]
    for label in range(classes):
        sub = folder / f"kind_{label}"
        sub.mkdir(parents=True)
        for number in range(images):
            height, width = 20 + 7 * (number % 4), 24 + 5 * (number % 3)
            shade = 40 + min(60, 200 // classes) * label
            image = Image.fromarray(np.full((height, width), shade, np.uint8))
            mode = modes[number % len(modes)]
            if mode == "I;16":
                image = Image.fromarray(np.full((height, width), shade * 257, np.uint16))
            else:
                image = image.convert(mode)
            image.save(sub / f"{number:02}_{mode.replace(';', '')}.png")
    return folder
