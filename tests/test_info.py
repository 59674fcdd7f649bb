"""What `dtsim info` says of models, and what data sets say of themselves before they are loaded."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from dtsim.cli.app import app
from dtsim.core.progress import QUIET
from dtsim.learning.data.datasets import Cifar10, FashionMnist, ImageFolder
from dtsim.runner.defaults import choices
from tests.tiny_data import write_fashion_mnist, write_image_folder


def info(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["info", *map(str, arguments)], env={"COLUMNS": "120"})


def row(output: str, name: str) -> list[list[str]]:
    return [line.replace("│", " ").split() for line in output.splitlines() if f"│ {name} " in line]


def test_every_model_is_listed_with_what_is_measured(tmp_path: Path) -> None:
    shown = info(f"outputs={tmp_path}", f"cache={tmp_path / 'cache'}")
    assert shown.exit_code == 0, shown.output
    assert all(len(row(shown.output, name)) == 2 for name in choices("model"))
    sample, update = row(shown.output, "small_cnn")
    assert sample[1:] == ["29,290", "3.8500", "4,911", "2.94", "11.3242", "0.0230"]
    work = 11_324_160 * 1200 * 2
    assert update[1:3] == [f"{work / 1e9:.4g}", f"{work / 50e9:.3g}"]
    assert not (tmp_path / "cache").exists(), "nothing is downloaded"


def test_the_chosen_model_on_the_chosen_images(tmp_path: Path) -> None:
    shown = info("model=resnet8", "dataset=cifar10", f"outputs={tmp_path}")
    assert shown.exit_code == 0, shown.output
    assert "3×32×32 = 3,072 bytes, 10 classes" in shown.output
    assert len(row(shown.output, "resnet8")) == 2 and not row(shown.output, "small_cnn")
    folder = write_image_folder(tmp_path / "mine", classes=4)
    shown = info("model=small_cnn", "dataset=image_folder", f"dataset.root={folder}", f"outputs={tmp_path}")
    assert "3×32×32 = 3,072 bytes, 4 classes" in shown.output


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["model=nope"], "error: model=nope: must be one of"),
        (
            ["dataset=image_folder", "dataset.root=/nowhere"],
            "error: dataset.root=/nowhere: must be a folder that holds",
        ),
        (["model=small_cnn", "model.channels=[8,8,8,8,8]"], "error: model.channels=[8, 8, 8, 8, 8]: images of 28×28"),
    ],
)
def test_an_error_is_one_line(arguments: list[object], said: str, tmp_path: Path) -> None:
    shown = info(*arguments, f"outputs={tmp_path}")
    assert shown.exit_code == 2
    assert shown.output.startswith(said) and len(shown.output.strip().splitlines()) == 1


def test_what_a_data_set_says_of_itself_is_what_it_holds(tmp_path: Path) -> None:
    mnist = FashionMnist(root=str(write_fashion_mnist(tmp_path / "a", 40, 20)))
    folder = ImageFolder(root=str(write_image_folder(tmp_path / "b", classes=5)), size=16)
    for part in (mnist, folder):
        raw = part.load(tmp_path, QUIET)
        assert part.layout() == (raw.sample_shape, len(raw.classes))
    assert Cifar10().layout() == ((3, 32, 32), 10)  # tests/test_datasets.py loads it
