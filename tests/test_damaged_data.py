"""Every damage of a data file is noticed: named and fetched again from the cache, named and refused elsewhere."""

from __future__ import annotations

import os
import shutil
import threading
from pathlib import Path

import pytest

import break_data
from dtsim.core.progress import QUIET
from dtsim.learning.data import contents, idx, published
from dtsim.learning.data.datasets import Cifar10, FashionMnist, ImageFolder
from dtsim.learning.data.errors import DatasetError
from tests import tiny_data


@pytest.fixture
def whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Tiny files that count as the published ones."""
    folder = tiny_data.write_fashion_mnist(tmp_path / "whole", 40, 20, flat=True)
    monkeypatch.setattr(published, "FASHION_MNIST", tiny_data.hashes_of(folder))
    return folder


def test_every_damage_in_every_place_is_noticed_and_named(whole: Path, tmp_path: Path) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    found = list(break_data.outcomes(whole, scratch))
    assert len(found) == len(break_data.DAMAGES) * len(idx.NAMES) * len(break_data.PLACES) >= 200
    assert [outcome for outcome in found if outcome.fault] == []


@pytest.mark.slow
def test_every_damage_of_the_real_files_is_noticed() -> None:
    assert break_data.main() == 0


def test_one_published_file_beside_others_is_refused(whole: Path, tmp_path: Path) -> None:
    mixed = tiny_data.write_fashion_mnist(tmp_path / "mixed", 50, 30, flat=True)
    FashionMnist(root=str(mixed)).load(tmp_path, QUIET)  # another set in the same form
    for name in ("train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz"):
        shutil.copyfile(whole / name, mixed / name)
    with pytest.raises(DatasetError, match=r"t10k-images-idx3-ubyte\.gz: is damaged, it is not the published file"):
        FashionMnist(root=str(mixed)).load(tmp_path, QUIET)


def test_a_set_that_nobody_published_is_said_to_be_one(tmp_path: Path) -> None:
    root = tiny_data.write_fashion_mnist(tmp_path / "given", 60, 30)
    said = break_data.Said()
    FashionMnist(root=str(root)).load(tmp_path / "cache", said)
    assert said.lines == [f"dataset.root={root}: is not Fashion-MNIST as published, only its form was checked"]


def test_a_header_that_asks_for_too_much_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "train-images-idx3-ubyte"
    path.write_bytes(bytes([0, 0, 8, 3]) + b"\xff" * 12 + bytes(100))
    with pytest.raises(DatasetError, match="its header asks for"):
        idx.read(path)


@pytest.fixture
def cifar(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(published, "CIFAR10", tiny_data.write_cifar10(tmp_path / "cifar"))
    return tmp_path / "cifar"


@pytest.mark.parametrize("damage", [name for name in break_data.DAMAGES if name not in ("swapped", "missing")])
@pytest.mark.parametrize("name", ["data_batch_3", "batches.meta"])
def test_every_damage_of_cifar10_is_named(cifar: Path, tmp_path: Path, name: str, damage: str) -> None:
    file = cifar / published.CIFAR10_FOLDER / name
    break_data.DAMAGES[damage](file)
    with pytest.raises(DatasetError) as caught:
        Cifar10(root=str(cifar)).load(tmp_path / "cache", QUIET)
    assert str(caught.value).startswith(f"{file}: is ") and "\n" not in str(caught.value)


def digest(root: Path) -> object:
    contents._digest.cache_clear()
    return contents.contents({"_target_": "dtsim.learning.data.datasets.ImageFolder", "root": str(root)})["root"]


@pytest.mark.parametrize("damage", [name for name in break_data.DAMAGES if name != "swapped"])
def test_every_damage_of_an_image_changes_the_runs_digest_or_is_refused(tmp_path: Path, damage: str) -> None:
    root = tiny_data.write_image_folder(tmp_path / "mine", classes=2, images=4)
    whole = digest(root)
    file = root / "kind_1" / "01_L.png"
    break_data.DAMAGES[damage](file)
    if damage in ("a FIFO", "a device", "a link to nothing"):
        assert digest(root) == str(root)  # it cannot be known: the run is refused
        with pytest.raises(DatasetError) as caught:
            ImageFolder(root=str(root)).load(tmp_path, QUIET)
        assert str(caught.value).startswith(f"{file}: is ") and "\n" not in str(caught.value)
    else:
        assert digest(root) not in (whole, str(root))


def test_the_digest_of_images_depends_on_content_and_names_not_on_the_place(tmp_path: Path) -> None:
    root = tiny_data.write_image_folder(tmp_path / "mine", classes=2, images=4)
    whole = digest(root)
    shutil.copytree(root, tmp_path / "copy")
    assert digest(tmp_path / "copy") == whole
    (root / "notes.txt").write_text("no image")
    (root / "kind_0" / "notes.txt").write_text("no image")
    (root / ".hidden").mkdir()
    shutil.copy(root / "kind_0" / "00_RGB.png", root / ".hidden")
    assert digest(root) == whole, "what is not read does not count"
    (root / "kind_0" / "00_RGB.png").rename(root / "kind_0" / "99_RGB.png")
    renamed = digest(root)
    (root / "kind_0" / "99_RGB.png").rename(root / "kind_1" / "99_RGB.png")
    assert len({whole, renamed, digest(root)}) == 3


def test_other_data_sets_are_known_by_their_files_or_their_keys(tmp_path: Path) -> None:
    keys = {"_target_": "dtsim.learning.data.datasets.FashionMnist", "download": True}
    root, other = (tiny_data.write_fashion_mnist(tmp_path / name, 40, 20, flat=True) for name in ("a", "b"))
    one, same = (contents.contents({**keys, "root": str(folder)})["root"] for folder in (root, other))
    assert one == same != str(root)
    bits = bytearray((other / "t10k-labels-idx1-ubyte.gz").read_bytes())
    contents._digest.cache_clear()
    tiny_data.write_fashion_mnist(other, 40, 30, flat=True)
    assert bits and contents.contents({**keys, "root": str(other)})["root"] != one
    for left in ({**keys, "root": None}, {**keys, "root": "/nowhere"}, {"_target_": "mine.Own", "root": str(root)}):
        assert contents.contents(left) == left


def test_a_circle_of_links_ends(tmp_path: Path) -> None:
    root = tiny_data.write_image_folder(tmp_path / "mine", classes=2, images=4)
    before = ImageFolder(root=str(root)).load(tmp_path, QUIET)
    (root / "kind_0" / "again").symlink_to(root / "kind_0")
    assert len(ImageFolder(root=str(root)).load(tmp_path, QUIET).train_images) == len(before.train_images)


def test_a_fifo_is_never_opened(tmp_path: Path) -> None:
    """Opening it to read would wait for a writer; opened, it would let a waiting writer go on."""
    root = tiny_data.write_image_folder(tmp_path / "mine", classes=2, images=4)
    fifo = root / "kind_0" / "pipe.png"
    os.mkfifo(fifo)
    opened = threading.Event()

    def write() -> None:
        with fifo.open("wb"):
            opened.set()

    writer = threading.Thread(target=write, daemon=True)
    writer.start()
    with pytest.raises(DatasetError, match=r"pipe\.png: is a FIFO: it must be a regular file"):
        ImageFolder(root=str(root)).load(tmp_path, QUIET)
    assert not opened.wait(0.2)
    os.close(os.open(fifo, os.O_RDONLY | os.O_NONBLOCK))  # lets the writer end
    writer.join(5)
