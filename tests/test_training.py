from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import nn
from torch.nn import functional

from dtsim.core.cache import Cache
from dtsim.core.errors import DatasetError, TrainingDiverged
from dtsim.core.parts import build
from dtsim.core.progress import QUIET
from dtsim.core.rows import number
from dtsim.learning.data.datasets import FashionMnist
from dtsim.learning.data.drift import Drift
from dtsim.learning.data.splits import Splits
from dtsim.learning.models import ModelPart, SmallCnn, measure
from dtsim.learning.pretraining import Pretraining, pretrain
from dtsim.learning.training import (
    Retraining,
    Training,
    accuracy,
    check,
    predict,
    train,
)
from dtsim.runner.defaults import choices
from tests import tiny_data
from tests.composed import node

SHAPE = (1, 28, 28)
PART = SmallCnn(channels=[8, 16], groups=4)
KEYS = Training(epochs=2, batch_size=32, learning_rate=0.05, momentum=0.9, weight_decay=0.0, schedule="constant")
CONF = Path(__file__).parents[1] / "conf"


@pytest.fixture(scope="module")
def blobs() -> tuple[torch.Tensor, torch.Tensor]:
    labels = np.arange(400) % 10
    return torch.from_numpy(tiny_data.blobs(labels, 28, 0)).unsqueeze(1), torch.from_numpy(labels)


def weights(model: nn.Module) -> torch.Tensor:
    return torch.cat([weight.detach().flatten() for weight in model.parameters()])


def test_training_learns_and_the_given_model_stays(blobs: tuple[torch.Tensor, torch.Tensor]) -> None:
    model = PART.build(SHAPE, 10, 0)
    before = weights(model)
    trained, losses = train(model, *blobs, KEYS, rng=torch.Generator().manual_seed(0))
    assert torch.equal(weights(model), before)
    assert len(losses) == 2 * 13 and losses[-1] < 0.5 < losses[0]
    assert accuracy(model, *blobs) < 0.3 < 0.95 < accuracy(trained, *blobs)


def test_equal_generators_give_equal_bits(blobs: tuple[torch.Tensor, torch.Tensor]) -> None:
    model = PART.build(SHAPE, 10, 0)
    torch.manual_seed(1)
    one, first = train(model, *blobs, KEYS, rng=torch.Generator().manual_seed(5))
    torch.manual_seed(2)
    two, second = train(model, *blobs, KEYS, rng=torch.Generator().manual_seed(5))
    other, _ = train(model, *blobs, KEYS, rng=torch.Generator().manual_seed(6))
    assert first == second and torch.equal(weights(one), weights(two))
    assert not torch.equal(weights(one), weights(other))


def test_two_steps_are_nesterovs_by_hand(blobs: tuple[torch.Tensor, torch.Tensor]) -> None:
    images, labels = blobs[0][:32], blobs[1][:32]
    model = PART.build(SHAPE, 10, 0)
    rate, momentum, decay = 0.05, 0.9, 0.01
    keys = replace(KEYS, learning_rate=rate, momentum=momentum, weight_decay=decay)
    trained, losses = train(model, images, labels, keys, rng=torch.Generator())
    expected, velocities = [], [torch.zeros(()) for _ in model.parameters()]
    for _ in range(2):
        loss = nn.functional.cross_entropy(model(images), labels)
        expected.append(loss.item())
        gradients = torch.autograd.grad(loss, list(model.parameters()))
        with torch.no_grad():
            for place, (weight, gradient) in enumerate(zip(model.parameters(), gradients, strict=True)):
                slope = gradient + decay * weight
                velocities[place] = momentum * velocities[place] + slope
                weight.sub_(rate * (slope + momentum * velocities[place]))
    assert losses == pytest.approx(expected, rel=1e-4)
    assert torch.allclose(weights(model), weights(trained), atol=1e-5)


def test_divergence_is_an_error_and_keeps_the_model(blobs: tuple[torch.Tensor, torch.Tensor]) -> None:
    model = PART.build(SHAPE, 10, 0)
    before = weights(model)
    with pytest.raises(TrainingDiverged, match="try a learning_rate below 100"):
        train(model, *blobs, replace(KEYS, learning_rate=100.0, weight_decay=1000.0), rng=torch.Generator())
    assert torch.equal(weights(model), before)


def test_a_loss_that_explodes_is_divergence_though_it_is_finite(blobs: tuple[torch.Tensor, torch.Tensor]) -> None:
    model = PART.build(SHAPE, 10, 0)
    with pytest.raises(TrainingDiverged, match=r"the loss rose from 2.3[0-9]* to [0-9.e+]* in 10 of 26 steps"):
        train(model, *blobs, replace(KEYS, learning_rate=3.0), rng=torch.Generator())


def test_the_loss_may_rise_but_not_explode() -> None:
    check([2.3] + [25.0] * 9, 20, 10, 0.1)  # 10 ln 10 = 23.03
    check([8.0] + [80.0] * 9, 20, 10, 0.1)  # an old model on classes it never saw begins high
    check([2.3, 900.0], 20, 10, 0.1)  # a step is no trend
    for losses, steps in (([2.3] + [26.0] * 9, 20), ([2.3, 90.0], 2), ([0.1] * 10 + [24.0] * 10, 40)):
        with pytest.raises(TrainingDiverged):
            check(losses, steps, 10, 0.1)


def test_bfloat16_trains_and_keeps_float32_weights(blobs: tuple[torch.Tensor, torch.Tensor]) -> None:
    trained, _ = train(PART.build(SHAPE, 10, 0), *blobs, replace(KEYS, precision="bfloat16"), rng=torch.Generator())
    exact, _ = train(PART.build(SHAPE, 10, 0), *blobs, replace(KEYS, precision="auto"), rng=torch.Generator())
    assert weights(trained).dtype == torch.float32 and not torch.equal(weights(trained), weights(exact))
    assert accuracy(trained, *blobs) > 0.9


def test_training_needs_images_and_their_labels(blobs: tuple[torch.Tensor, torch.Tensor]) -> None:
    model = PART.build(SHAPE, 10, 0)
    with pytest.raises(ValueError, match="got 0 images"):
        train(model, blobs[0][:0], blobs[1][:0], KEYS, rng=torch.Generator())
    with pytest.raises(ValueError, match="got 5 images, 4 labels"):
        train(model, blobs[0][:5], blobs[1][:4], KEYS, rng=torch.Generator())


def test_schedules() -> None:
    constant, cosine, one_cycle = (
        Training(learning_rate=2.0, schedule=name).rate for name in ("constant", "cosine", "one_cycle")
    )
    assert constant(0.7) == 2
    assert cosine(0) == 2 and cosine(0.5) == pytest.approx(1)
    assert one_cycle(0) == 0.08 and one_cycle(0.25) == 2
    assert one_cycle(0.125) == pytest.approx(1.04)
    assert one_cycle(0.625) == pytest.approx(1) and one_cycle(0.99) < 0.02


def test_each_step_is_as_long_as_the_schedule_says(blobs: tuple[torch.Tensor, torch.Tensor]) -> None:
    """All images in a batch and no momentum: a step moves the weights by rate times gradient."""
    images, labels = blobs[0][:40], blobs[1][:40]
    keys = replace(KEYS, epochs=4, batch_size=40, learning_rate=0.01, momentum=0.0, schedule="cosine")
    model = PART.build(SHAPE, 10, 0)
    trained, _ = train(model, images, labels, keys, rng=torch.Generator().manual_seed(0))
    for step in range(4):
        gradients = torch.autograd.grad(functional.cross_entropy(model(images), labels), list(model.parameters()))
        with torch.no_grad():
            for weight, gradient in zip(model.parameters(), gradients, strict=True):
                weight.sub_(gradient, alpha=0.01 * (1 + math.cos(math.pi * step / 4)) / 2)
    assert torch.allclose(weights(trained), weights(model), rtol=0, atol=1e-6)


def test_the_model_in_training_is_shown_every_few_steps_and_after_every_epoch(
    blobs: tuple[torch.Tensor, torch.Tensor],
) -> None:
    seen: list[tuple[int, float]] = []
    heard: list[float] = []

    def watch(step: int, losses: list[float], model: nn.Module) -> None:
        seen.append((step, weights(model).sum().item()))
        heard.extend(losses)

    _, losses = train(PART.build(SHAPE, 10, 0), *blobs, KEYS, rng=torch.Generator(), watch=watch)
    assert [step for step, _ in seen] == [10, 13, 20, 26] and heard == losses
    assert len({total for _, total in seen}) == 4


def test_prediction_does_not_depend_on_the_batch(blobs: tuple[torch.Tensor, torch.Tensor]) -> None:
    model = PART.build(SHAPE, 10, 0)
    labels = predict(model, blobs[0])
    assert torch.equal(labels, predict(model, blobs[0], batch=7)) and labels.dtype == torch.int64
    assert model.training, "the mode is put back"
    assert predict(model, blobs[0][:0]).shape == (0,)
    assert math.isnan(accuracy(model, blobs[0][:0], blobs[1][:0]))
    assert accuracy(model, blobs[0], labels) == 1


@pytest.fixture(scope="module")
def splits(tmp_path_factory: pytest.TempPathFactory) -> Splits:
    root = tiny_data.write_fashion_mnist(tmp_path_factory.mktemp("data"), train=800, test=200)
    part = FashionMnist(root=str(root), pretrain_images=400, increment_images=200, validation_images=80)
    return part.split(part.load(root, QUIET), [8, 9], np.random.default_rng(0))


TRAINING = Pretraining(epochs=2, batch_size=32, learning_rate=0.05)


def test_a_base_model_is_trained_once(splits: Splits, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = Cache(tmp_path)
    arguments: dict[str, Any] = {"classes": 10, "seed": 3, "cache": cache, "progress": QUIET}
    made = pretrain(PART, TRAINING, splits, **arguments)
    monkeypatch.setattr("dtsim.learning.pretraining.train", None)  # a second training would fail
    again = pretrain(PART, TRAINING, splits, **arguments)
    assert again.curve == made.curve
    assert all(torch.equal(made.state[name], weight) for name, weight in again.state.items())

    model = PART.build(SHAPE, 10, 0)
    model.load_state_dict(again.state)
    seen = splits.test.labels < 8
    assert accuracy(model, splits.test.images[seen], splits.test.labels[seen]) > 0.9
    assert accuracy(model, splits.test.images[~seen], splits.test.labels[~seen]) == 0

    assert all(set(row) == {"phase", "user", "step", "seconds", "metric", "value"} for row in made.curve)
    assert {(row["phase"], row["user"]) for row in made.curve} == {("pretrain", "")}
    measured = [(row["step"], number(row, "value")) for row in made.curve if row["metric"] == "accuracy"]
    assert [step for step, _ in measured] == [0, 13, 26] and measured[0][1] < 0.5 < measured[2][1]
    losses = [number(row, "value") for row in made.curve if row["metric"] == "loss"]
    assert [row["step"] for row in made.curve if row["metric"] == "loss"] == [10, 20] and losses[1] < losses[0]


@pytest.mark.parametrize(
    "change",
    [
        {"part": SmallCnn(channels=[8, 8], groups=4)},
        {"training": Pretraining(epochs=1, batch_size=32, learning_rate=0.05)},
        {"seed": 4},
        {"key": {"unseen": [9]}},
        {"data": True},
    ],
)
def test_a_base_model_is_kept_under_all_that_it_depends_on(
    splits: Splits, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: dict[str, Any]
) -> None:
    made = []

    def counted(*_: object) -> dict[str, object]:
        made.append(1)
        return {"state": {}, "curve": []}

    monkeypatch.setattr("dtsim.learning.pretraining._pretrain", counted)

    def ask(
        part: ModelPart = PART,
        training: Pretraining = TRAINING,
        seed: int = 3,
        key: dict[str, object] | None = None,
        data: bool = False,
    ) -> None:
        given = splits
        if data:
            images = splits.pretrain.images.clone()
            images[0, 0, 0, 0] ^= 1
            given = Splits(
                type(splits.pretrain)(images, splits.pretrain.labels), splits.validation, splits.increment, splits.test
            )
        pretrain(part, training, given, classes=10, seed=seed, cache=Cache(tmp_path), progress=QUIET, key=key)

    ask()
    ask()
    assert len(made) == 1
    ask(**change)
    assert len(made) == 2


def test_a_stopped_pretraining_leaves_no_entry(splits: Splits, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stopped(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("dtsim.learning.pretraining.train", stopped)
    with pytest.raises(KeyboardInterrupt):
        pretrain(PART, TRAINING, splits, classes=10, seed=3, cache=Cache(tmp_path), progress=QUIET)
    assert [path.suffix for path in tmp_path.rglob("*") if path.is_file()] in ([], [".lock"])


@pytest.mark.parametrize("bad", [{"epochs": 0}, {"batch_size": 0}, {"learning_rate": 0.0}, {"momentum": 1.0}])
def test_ranges_are_checked(bad: dict[str, Any]) -> None:
    for part in (Training, Retraining):
        with pytest.raises(ValidationError, match=next(iter(bad))):
            part(**bad)
    with pytest.raises(ValidationError, match="charge"):
        Retraining(charge="some")  # type: ignore[arg-type]


GROUPS = ("dataset", "drift", "model", "retraining", "pretraining")


@pytest.mark.parametrize(("group", "name"), [(group, name) for group in GROUPS for name in choices(group)])
def test_every_choice_lists_every_key_and_builds(group: str, name: str) -> None:
    values = node(group, name, *(["dataset.root=somewhere"] if name == "image_folder" else []))
    part = build(values, group)
    assert set(values) - {"_target_"} == set(part.__dataclass_fields__)
    if name in ("fashion_mnist", "cifar10", "unseen_classes", "default", "small_cnn", "resnet18"):
        assert part == type(part)(), "the file's values are the class's defaults"


@pytest.mark.slow
def test_the_defaults_meet_drift_on_real_images(tmp_path: Path) -> None:
    """Base model and one incremental update: what the default run is built on."""
    part, drift, keys = FashionMnist(), Drift(), Retraining()
    try:
        raw = part.load(tmp_path, QUIET)
    except DatasetError as error:
        pytest.skip(str(error))
    rng = np.random.default_rng(0)
    splits = part.split(raw, drift.unseen(10), rng)
    base = pretrain(SmallCnn(), Pretraining(), splits, classes=10, seed=0, cache=Cache(tmp_path), progress=QUIET)
    model = SmallCnn().build(SHAPE, 10, 0)
    model.load_state_dict(base.state)
    assert measure(model, SHAPE).parameters == 29_290

    seen = splits.test.labels < 8
    home = accuracy(model, splits.test.images[seen], splits.test.labels[seen])
    new = splits.test.labels >= 8
    assert home > 0.89 and accuracy(model, splits.test.images[new], splits.test.labels[new]) == 0

    share = torch.where(splits.increment.labels < 8, 0.75 / 8, 0.125)
    chosen = torch.multinomial(share, keys.samples, generator=torch.Generator().manual_seed(0))
    trained, _ = train(
        model,
        splits.increment.images[chosen],
        splits.increment.labels[chosen],
        keys.training(from_scratch=False),
        rng=torch.Generator().manual_seed(0),
    )
    after = 0.75 * accuracy(trained, splits.test.images[seen], splits.test.labels[seen])
    after += 0.25 * accuracy(trained, splits.test.images[new], splits.test.labels[new])
    assert 0.75 * home < 0.70 and after > 0.85


def test_a_head_is_priced_as_itself_or_as_the_whole_model() -> None:
    model = SmallCnn(channels=[8, 16], groups=4).build((1, 28, 28), 10, 0)
    whole, head = measure(model, (1, 28, 28)), measure(model, (1, 28, 28), "head")
    assert Retraining(trainable="head").cost(model, (1, 28, 28)) == head
    priced = Retraining(trainable="head", priced_as="model").cost(model, (1, 28, 28))
    assert priced == replace(head, training_flop=whole.training_flop) and whole.training_flop > 50 * head.training_flop
    assert Retraining(priced_as="model").cost(model, (1, 28, 28)) == whole
