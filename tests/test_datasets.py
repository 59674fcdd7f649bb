"""Data sets are read as they are in files, and divided into disjoint stratified sets."""

from __future__ import annotations

import gzip
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from PIL import Image
from pydantic import ValidationError

from dtsim.core.errors import DatasetError
from dtsim.core.progress import QUIET
from dtsim.learning.data import published
from dtsim.learning.data.datasets import Cifar10, FashionMnist, ImageFolder
from dtsim.learning.data.splits import ClassIndex, RawDataset, content_digest, split
from tests import tiny_data

SIZES = {"pretrain_images": 40_000, "increment_images": 5_000, "validation_images": 2_000, "test_images": 10_000}


def load(root: Path, tmp_path: Path) -> RawDataset:
    return FashionMnist(root=str(root)).load(tmp_path / "cache", QUIET)


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("flat", [True, False])
def test_fashion_mnist_is_read_from_every_layout(tmp_path: Path, packed: bool, flat: bool) -> None:
    root = tiny_data.write_fashion_mnist(tmp_path / "given", 60, 30, packed=packed, flat=flat)
    raw = load(root, tmp_path)
    labels = np.arange(60) % 10
    assert raw.train_images.shape == (60, 1, 28, 28) and raw.train_images.dtype == torch.uint8
    assert np.array_equal(raw.train_images[:, 0].numpy(), tiny_data.blobs(labels, 28, 0))
    assert raw.train_labels.tolist() == labels.tolist() and raw.train_labels.dtype == torch.int64
    assert len(raw.test_images) == len(raw.test_labels) == 30
    assert len(raw.classes) == 10 and raw.classes[8] == "Bag"
    assert raw.sample_bytes == 784 and raw.sample_shape == (1, 28, 28)
    assert len(list((tmp_path / "given").rglob("*.*"))) == (4 if packed else 0), "nothing is written beside them"


def damage_length(file: Path) -> None:
    data = gzip.decompress(file.read_bytes())
    file.write_bytes(gzip.compress(data[:-5]))


def damage_gzip(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-200])


def damage_magic(file: Path) -> None:
    file.write_bytes(gzip.compress(b"<html>not found</html>"))


def damage_to_text(file: Path) -> None:
    file.write_bytes(b"<html>not found</html>")


def damage_by_growth(file: Path) -> None:
    file.write_bytes(gzip.compress(gzip.decompress(file.read_bytes()) + b"more"))


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (damage_length, "is truncated ("),
        (damage_gzip, "is truncated or damaged"),
        (damage_magic, "is no IDX file"),
        (damage_to_text, "is truncated or damaged"),
        (damage_by_growth, "has bytes past its end"),
    ],
)
@pytest.mark.parametrize("name", ["train-images-idx3-ubyte.gz", "t10k-images-idx3-ubyte.gz"])
def test_a_damaged_file_is_named_in_one_line(
    tmp_path: Path, damage: Callable[[Path], None], says: str, name: str
) -> None:
    root = tiny_data.write_fashion_mnist(tmp_path / "given", 60, 30)
    damage(root / "FashionMNIST" / "raw" / name)
    with pytest.raises(DatasetError) as caught:
        load(root, tmp_path)
    assert name in str(caught.value) and says in str(caught.value) and "\n" not in str(caught.value)


def test_a_truncated_unpacked_file_is_named(tmp_path: Path) -> None:
    root = tiny_data.write_fashion_mnist(tmp_path / "given", 60, 30, packed=False)
    file = root / "FashionMNIST" / "raw" / "train-labels-idx1-ubyte"
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(DatasetError, match=re.escape(f"{file}: is truncated (67 bytes, its header says 68)")):
        load(root, tmp_path)


@pytest.mark.parametrize("flat", [True, False])  # unpacked into a scratch folder, and read where it is
def test_labels_must_be_as_many_as_images(tmp_path: Path, flat: bool) -> None:
    root = tiny_data.write_fashion_mnist(tmp_path / "given", 60, 30, packed=False, flat=flat)
    file = (root if flat else root / "FashionMNIST" / "raw") / "train-labels-idx1-ubyte"
    file.write_bytes(tiny_data.idx_bytes(np.zeros(59)))
    with pytest.raises(DatasetError, match="holds 59 labels for 60 images"):
        load(root, tmp_path)


def test_a_given_root_must_hold_the_data(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="must be a folder that holds the images"):
        load(tmp_path / "nowhere", tmp_path)
    tmp_path.joinpath("empty").mkdir()
    with pytest.raises(DatasetError, match="does not hold Fashion-MNIST"):
        load(tmp_path / "empty", tmp_path)


@pytest.fixture
def cifar(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    # Only files with the published MD5 are opened; for tiny ones the table names theirs.
    monkeypatch.setattr(published, "CIFAR10", tiny_data.write_cifar10(tmp_path / "cifar"))
    return tmp_path / "cifar"


def test_cifar10_is_read(cifar: Path, tmp_path: Path) -> None:
    raw = Cifar10(root=str(cifar)).load(tmp_path / "cache", QUIET)
    assert raw.train_images.shape == (200, 3, 32, 32) and raw.test_images.shape == (40, 3, 32, 32)
    grey = tiny_data.blobs(np.arange(40) % 10, 32, 0)
    assert np.array_equal(raw.train_images[:40, 0].numpy(), grey)
    assert np.array_equal(raw.train_images[:40, 2].numpy(), 255 - grey)
    assert raw.classes[3] == "thing 3" and raw.sample_bytes == 3072


def test_cifar10_names_a_missing_or_damaged_file(cifar: Path, tmp_path: Path) -> None:
    file = cifar / "cifar-10-batches-py" / "data_batch_3"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(DatasetError, match=re.escape(f"{file}: is damaged")):
        Cifar10(root=str(cifar)).load(tmp_path / "cache", QUIET)
    file.unlink()
    with pytest.raises(DatasetError, match=re.escape(f"{file}: is missing")):
        Cifar10(root=str(cifar)).load(tmp_path / "cache", QUIET)


def test_image_folders_of_any_size_and_mode_are_read(tmp_path: Path) -> None:
    root = tiny_data.write_image_folder(tmp_path / "mine", classes=3, images=12)
    raw = ImageFolder(root=str(root), size=16, test_share=0.25).load(tmp_path / "cache", QUIET)
    assert raw.classes == ["kind_0", "kind_1", "kind_2"]
    assert raw.train_images.shape == (27, 3, 16, 16) and raw.test_images.shape == (9, 3, 16, 16)
    assert torch.bincount(raw.train_labels).tolist() == [9, 9, 9] and torch.bincount(raw.test_labels).tolist() == [
        3,
        3,
        3,
    ]
    for images, labels in ((raw.train_images, raw.train_labels), (raw.test_images, raw.test_labels)):
        shades = images.float().mean(dim=(1, 2, 3))
        assert torch.allclose(shades, 40.0 + 60 * labels, atol=1)
    again = ImageFolder(root=str(root), size=16, test_share=0.25).load(tmp_path / "cache", QUIET)
    assert torch.equal(raw.test_images, again.test_images)


def test_a_photo_stands_as_its_camera_was_held(tmp_path: Path) -> None:
    pixels = np.zeros((32, 32, 3), np.uint8)
    pixels[:16] = 255
    upside_down = Image.Exif()
    upside_down[0x0112] = 3  # orientation: turned by 180 degrees
    for label in ("a", "b"):
        (tmp_path / label).mkdir()
        for number in range(4):
            Image.fromarray(pixels).save(tmp_path / label / f"{number}.png", exif=upside_down)
    images = ImageFolder(root=str(tmp_path)).load(tmp_path / "cache", QUIET).train_images
    assert images[..., :15, :].max() == 0 and images[..., 17:, :].min() == 255


def test_image_folder_faults_name_the_file(tmp_path: Path) -> None:
    root = tiny_data.write_image_folder(tmp_path / "mine", classes=2, images=6)
    part = ImageFolder(root=str(root))
    bad = root / "kind_1" / "00_RGB.png"
    bad.write_bytes(bad.read_bytes()[:40])
    with pytest.raises(DatasetError, match=re.escape(f"{bad}: cannot be read as an image")):
        part.load(tmp_path, QUIET)
    for file in (root / "kind_1").iterdir():
        file.unlink()
    with pytest.raises(DatasetError, match=re.escape(f"{root / 'kind_1'}: holds no image")):
        part.load(tmp_path, QUIET)
    (root / "kind_1").rmdir()
    with pytest.raises(DatasetError, match="holds 1 folders of images, it needs two"):
        part.load(tmp_path, QUIET)
    with pytest.raises(ValidationError, match="root"):
        ImageFolder()  # type: ignore[call-arg]


def numbered(train: int, test: int, classes: int = 10) -> RawDataset:
    """A data set whose every image is its own number, so that it can be followed."""

    def images(first: int, count: int) -> torch.Tensor:
        numbers = torch.arange(first, first + count)
        return torch.stack([numbers // 65536, numbers // 256 % 256, numbers % 256], 1).to(torch.uint8)[..., None, None]

    return RawDataset(
        train_images=images(0, train),
        train_labels=torch.arange(train) % classes,
        test_images=images(train, test),
        test_labels=torch.arange(test) % classes,
        classes=[str(index) for index in range(classes)],
    )


def numbers(images: torch.Tensor) -> set[int]:
    return set((images[:, :, 0, 0].long() @ torch.tensor([65536, 256, 1])).tolist())


@pytest.mark.parametrize(
    ("train", "test", "pretrain", "increment", "validation", "scored"),
    [
        (60_000, 10_000, 40_000, 5_000, 2_000, 10_000),  # Fashion-MNIST
        (50_000, 10_000, 34_286, 5_000, 1_714, 10_000),  # CIFAR-10: the 36,000 seen images left, as 40 to 2
        (4_700, 300, 3_200, 500, 160, 300),  # a tenth of what is asked for; 3,360 seen images left, as 40 to 2
    ],
)
def test_splits_are_disjoint_and_stratified(
    train: int, test: int, pretrain: int, increment: int, validation: int, scored: int
) -> None:
    raw = numbered(train, test)
    one, two = (split(raw, [8, 9], **SIZES, rng=np.random.default_rng(seed)) for seed in (1, 2))
    again = split(raw, [8, 9], **SIZES, rng=np.random.default_rng(1))
    sets = [numbers(part.images) for part in (one.pretrain, one.increment, one.validation, one.test)]
    found = [len(some) for some in sets]
    assert found == [pretrain, increment, validation, scored]
    assert len(set.union(*sets)) == sum(found)
    for seen_only in (one.pretrain, one.validation):
        counts = torch.bincount(seen_only.labels, minlength=10)
        assert counts[8:].sum() == 0 and counts[:8].max() - counts[:8].min() <= 1
    counts = torch.bincount(one.increment.labels, minlength=10)
    assert counts.max() - counts.min() <= 1
    assert torch.equal(one.pretrain.images, again.pretrain.images)
    assert not torch.equal(one.increment.images, two.increment.images)


def test_the_part_splits_by_its_own_sizes() -> None:
    part = FashionMnist(pretrain_images=100, increment_images=50, validation_images=20, test_images=30)
    splits = part.split(numbered(1000, 100), [9], np.random.default_rng(0))
    assert [len(some) for some in (splits.pretrain, splits.increment, splits.validation, splits.test)] == [
        100,
        50,
        20,
        30,
    ]


def test_a_class_with_too_few_images_is_named() -> None:
    raw = numbered(29, 20)
    with pytest.raises(DatasetError, match="class '9' has 2 images to train"):
        split(raw, [], **SIZES, rng=np.random.default_rng(0))
    splits = split(raw, [9], **SIZES, rng=np.random.default_rng(0))
    assert min(len(some) for some in (splits.pretrain, splits.increment, splits.validation)) > 0
    assert set(splits.increment.labels.tolist()) == set(range(10))


def test_class_index_draws_the_class_that_is_asked_for() -> None:
    labels = torch.tensor([2, 0, 2, 1, 2])
    index = ClassIndex(labels, 4)
    assert index.counts.tolist() == [1, 1, 3, 0]
    asked = np.array([2] * 3000 + [0, 1])
    places = index.draw(asked, np.random.default_rng(0))
    assert np.array_equal(labels.numpy()[places], asked)
    share = np.bincount(places[:3000], minlength=5)[[0, 2, 4]] / 3000
    assert np.abs(share - 1 / 3).max() < 0.03
    with pytest.raises(ValueError, match=re.escape("classes [3] have no image")):
        index.draw(np.array([0, 3]), np.random.default_rng(0))


def test_content_digest_depends_on_every_byte_and_on_shape() -> None:
    tensor = torch.arange(12, dtype=torch.uint8)
    changed = tensor.clone()
    changed[7] += 1
    digests = {content_digest(some) for some in (tensor, changed, tensor.view(3, 4), tensor.long())}
    assert len(digests) == 4
    assert content_digest(tensor) == content_digest(tensor.clone())


@pytest.mark.parametrize("key", ["pretrain_images", "increment_images", "validation_images", "test_images"])
def test_sizes_must_be_positive(key: str) -> None:
    with pytest.raises(ValidationError, match=key):
        FashionMnist(**cast(Any, {key: 0}))
    with pytest.raises(ValidationError):
        FashionMnist(images=5)  # type: ignore[call-arg]
