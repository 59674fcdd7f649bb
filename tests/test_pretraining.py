"""Pre-training: augmentation, passes over few images, going on after an interruption, and the time it says it takes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from dtsim.core.cache import Cache, packed
from dtsim.core.errors import TrainingDiverged
from dtsim.core.progress import QUIET, Phase, Progress, duration
from dtsim.learning import pretraining, resumable
from dtsim.learning.augmentation import crop_and_flip
from dtsim.learning.data.datasets import FashionMnist
from dtsim.learning.data.splits import Splits
from dtsim.learning.models import SmallCnn
from dtsim.learning.pace import seconds_per_image
from dtsim.learning.pretraining import Pretrained, Pretraining, pretrain
from tests import tiny_data

PART = SmallCnn(channels=[8, 16], groups=4)
TRAINING = Pretraining(epochs=4, batch_size=32, learning_rate=0.05, crop=2, flip=True)


def draw(count: int, crop: int, flip: bool, seed: int = 0) -> tuple[Tensor, Tensor]:
    images = torch.randint(1, 256, (count, 3, 6, 5), dtype=torch.uint8, generator=torch.Generator().manual_seed(9))
    return images, crop_and_flip(images, crop, flip, torch.Generator().manual_seed(seed))


def moved(image: Tensor, down: int, right: int, mirrored: bool) -> Tensor:
    """`image` moved, pixel by pixel; what is left empty is black."""
    image = image.flip(2) if mirrored else image
    found = torch.zeros_like(image)
    for row in range(image.shape[1]):
        for column in range(image.shape[2]):
            if 0 <= row - down < image.shape[1] and 0 <= column - right < image.shape[2]:
                found[:, row, column] = image[:, row - down, column - right]
    return found


@pytest.mark.parametrize(("crop", "flip", "looks"), [(1, False, 9), (0, True, 2), (1, True, 18)])
def test_every_image_is_moved_and_mirrored_on_its_own(crop: int, flip: bool, looks: int) -> None:
    images, changed = draw(300, crop, flip)
    assert changed.shape == images.shape and changed.dtype == torch.uint8
    assert changed.is_contiguous(memory_format=torch.channels_last)
    shifts = range(-crop, crop + 1)
    kinds = [(down, right, mirrored) for down in shifts for right in shifts for mirrored in {False, flip}]
    seen = np.zeros(len(kinds))
    for image, found in zip(images, changed, strict=True):
        seen += [torch.equal(moved(image, *kind), found) for kind in kinds]
    assert len(kinds) == looks and seen.sum() == 300  # each image is exactly one of them
    assert seen.min() > 0.4 * 300 / looks and seen.max() < 2 * 300 / looks  # and all are about as frequent


def test_augmentation_draws_from_its_generator_alone() -> None:
    torch.manual_seed(1)
    images, one = draw(20, 2, True)
    torch.manual_seed(2)
    assert torch.equal(one, draw(20, 2, True)[1]) and not torch.equal(one, draw(20, 2, True, seed=1)[1])
    assert torch.equal(draw(20, 0, False)[1], images)


def test_few_images_get_more_passes() -> None:
    training = Pretraining(epochs=3, batch_size=64, min_steps=6000)
    assert training.for_images(3000).epochs == 128  # of 47 steps each
    assert training.for_images(40_000).epochs == 10
    assert training.for_images(400_000).epochs == 3
    assert Pretraining(epochs=3).for_images(64).epochs == 3
    assert Pretraining().augment is None and Pretraining(flip=True).augment is not None


@pytest.fixture(scope="module")
def splits(tmp_path_factory: pytest.TempPathFactory) -> Splits:
    root = tiny_data.write_fashion_mnist(tmp_path_factory.mktemp("data"), train=400, test=100)
    part = FashionMnist(root=str(root), pretrain_images=200, increment_images=100, validation_images=40)
    return part.split(part.load(root, QUIET), [8, 9], np.random.default_rng(0))


class Heard(Progress):
    """Keeps what is said, and raises after a number of training steps."""

    def __init__(self, most: float = float("inf"), error: type[BaseException] = KeyboardInterrupt) -> None:
        self.said: list[str] = []
        self.done = 0.0
        self._most, self._error = most, error

    @contextmanager
    def phase(self, name: str, total: float) -> Iterator[Phase]:
        self.said.append(name)
        yield self

    def advance(self, steps: float = 1, note: str = "") -> None:
        self.done += steps
        if self.done > self._most:
            raise self._error

    def say(self, message: str) -> None:
        self.said.append(message)


def trained(splits: Splits, root: Path, progress: Progress = QUIET, training: Pretraining = TRAINING) -> Pretrained:
    return pretrain(PART, training, splits, classes=10, seed=3, cache=Cache(root), progress=progress)


def same(one: Pretrained, other: Pretrained) -> bool:
    curves = [[{**row, "seconds": 0} for row in made.curve] for made in (one, other)]
    weights = all(torch.equal(weight, other.state[name]) for name, weight in one.state.items())
    return weights and curves[0] == curves[1]


def files(root: Path) -> list[str]:
    return sorted(path.suffix for path in root.rglob("*") if path.is_file())


def test_an_interrupted_pretraining_goes_on_and_ends_the_same(
    splits: Splits, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resumable, "SAVE_EVERY_S", 0.0)
    whole = trained(splits, tmp_path / "whole")
    for most in (20, 26):  # of 28 steps, 7 an epoch: in the third, then in the fourth
        with pytest.raises(KeyboardInterrupt):
            trained(splits, tmp_path / "broken", Heard(most))
    heard = Heard()
    broken = trained(splits, tmp_path / "broken", heard)
    assert heard.said[0] == "pre-training goes on after 3 of 4 epochs"
    assert heard.done == 28
    assert same(whole, broken)
    assert files(tmp_path / "broken") == [".lock", ".pt"]  # the state is no longer needed


def test_a_short_pretraining_saves_nothing_on_its_way(splits: Splits, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        trained(splits, tmp_path, Heard(20))
    assert files(tmp_path) == [".lock"]


@pytest.mark.parametrize("content", [b"rubbish", packed({"state": {"model": 3}}), packed({"state": {}})])
def test_a_damaged_state_is_said_and_the_training_starts_again(
    content: bytes, splits: Splits, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resumable, "SAVE_EVERY_S", 0.0)
    with pytest.raises(KeyboardInterrupt):
        trained(splits, tmp_path, Heard(20))
    (state,) = tmp_path.rglob("*.training")
    state.write_bytes(content)
    heard = Heard()
    again = trained(splits, tmp_path, heard)
    assert heard.said[0] == f"training state {state} is damaged: the training starts again"
    assert same(again, trained(splits, tmp_path / "whole"))


def test_a_pretraining_that_diverges_leaves_no_state(
    splits: Splits, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resumable, "SAVE_EVERY_S", 0.0)
    with pytest.raises(TrainingDiverged):
        trained(splits, tmp_path, Heard(20, TrainingDiverged))
    assert files(tmp_path) == [".lock"]


def test_a_long_pretraining_says_its_time_before_it_starts(
    splits: Splits, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unannounced = Heard()
    base = trained(splits, tmp_path / "short", unannounced)
    assert unannounced.said == ["pre-training"]
    asked: list[tuple[int, int]] = []

    def seconds(model: object, data: Any, keys: Any) -> float:
        asked.append((len(data), keys.epochs))
        return 3.0

    monkeypatch.setattr(pretraining, "seconds_per_image", seconds)
    heard = Heard()
    assert same(base, trained(splits, tmp_path / "long", heard))
    images, validation = len(splits.pretrain), len(splits.validation)
    minutes = round(4 * (images + validation / 3) * 3.0 / 60)
    assert asked == [(images, 4)]
    assert heard.said == [
        f"pre-training: 4 epochs of {images} images will take about {minutes} min on this CPU, once; "
        "where it is interrupted, the same command goes on",
        "pre-training",
    ]


def test_the_pace_is_measured_and_leaves_the_model_as_it_is(splits: Splits) -> None:
    model = PART.build((1, 28, 28), 10, 0)
    before = [weight.clone() for weight in model.parameters()]
    wide = SmallCnn(channels=[64, 64], groups=4).build((1, 28, 28), 10, 0)
    keys = replace(TRAINING, learning_rate=1e6)  # it would diverge
    fast, slow = (seconds_per_image(one, splits.pretrain, keys) for one in (model, wide))
    assert 0 < fast < slow < 1
    assert all(torch.equal(weight, old) for weight, old in zip(model.parameters(), before, strict=True))


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(40, "40 s"), (700, "12 min"), (7500, "2 h 05 min"), (3 * 86400, "3 days"), (1e8, "1,157 days")],
)
def test_durations_are_for_people(seconds: float, said: str) -> None:
    assert duration(seconds) == said
