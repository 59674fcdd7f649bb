"""Many users' models trained at once: the same as one by one, up to rounding."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal

import numpy as np
import pytest
import torch
from torch import nn

from dtsim.core.errors import TrainingDiverged
from dtsim.learning.data.splits import Labelled
from dtsim.learning.data.view import View
from dtsim.learning.learners import Learners, Update
from dtsim.learning.models import SmallCnn, divided, measure
from dtsim.learning.resnet import ResNet
from dtsim.learning.stacked import can_be_stacked, train_together
from dtsim.learning.training import Retraining, Training, accuracy, train
from tests import tiny_data
from tests.devices import everywhere

SHAPE = (1, 28, 28)
PART = SmallCnn(channels=[8, 16], groups=4)
KEYS = Training(
    epochs=2,
    batch_size=16,
    learning_rate=0.05,
    momentum=0.9,
    weight_decay=0.0,
    schedule="constant",
    precision="float32",
)
SIZES = (40, 64, 7, 50)
CLOSE = {"cpu": 2e-3, "cuda": 3e-2}  # a GPU's convolutions may round to TF32


def sets(device: str = "cpu") -> list[Labelled]:
    labels = np.arange(64) % 10
    return [
        Labelled(
            torch.from_numpy(tiny_data.blobs(labels, 28, seed)).unsqueeze(1)[:size].to(device),
            torch.from_numpy(labels)[:size].to(device),
        )
        for seed, size in enumerate(SIZES)
    ]


def generators() -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed) for seed in range(len(SIZES))]


def weights(model: nn.Module) -> torch.Tensor:
    return torch.cat([weight.detach().flatten() for weight in model.parameters()])


@everywhere
@pytest.mark.parametrize("more", [{}, {"schedule": "one_cycle", "weight_decay": 0.01}, {"momentum": 0.0}])
def test_together_is_one_by_one(device: str, more: dict[str, Any]) -> None:
    keys = replace(KEYS, **more)
    data = sets(device)
    models = [PART.build(SHAPE, 10, seed % 2).to(device) for seed in range(len(SIZES))]
    before = [weights(model).clone() for model in models]
    heard: list[list[float]] = [[] for _ in SIZES]
    asked: list[int] = []

    def watch(step: int, losses: list[float], model: nn.Module) -> None:
        heard[0].extend(losses)
        asked.append(step)
        assert not torch.equal(weights(model), before[0])

    results = train_together(models, data, keys, rngs=generators(), watches=[watch, *[None] * (len(SIZES) - 1)])
    assert all(torch.equal(weights(model), old) for model, old in zip(models, before, strict=True))
    for model, samples, generator, result in zip(models, data, generators(), results, strict=True):
        alone, losses = train(model, samples.images, samples.labels, keys, rng=generator)
        assert not isinstance(result, TrainingDiverged)
        trained, together = result
        assert together == pytest.approx(losses, rel=CLOSE[device], abs=1e-4)
        assert torch.allclose(weights(trained), weights(alone), atol=CLOSE[device])
        assert not trained.training and can_be_stacked([trained, alone])
    assert not isinstance(results[0], TrainingDiverged)
    assert asked == [3, 6] and heard[0] == results[0][1]


@everywhere
@pytest.mark.parametrize("more", [{}, {"schedule": "one_cycle", "weight_decay": 0.01}, {"momentum": 0.0}])
def test_heads_together_are_one_by_one(device: str, more: dict[str, Any]) -> None:
    """Their gradient is written out; autograd finds the same one."""
    keys = replace(KEYS, **more)
    rng = torch.Generator().manual_seed(1)
    data = [
        Labelled(torch.randn(size, 20, generator=rng).to(device), torch.randint(10, (size,), generator=rng).to(device))
        for size in SIZES
    ]
    models: list[nn.Module] = [nn.Linear(20, 10).to(device) for _ in SIZES]
    results = train_together(models, data, keys, rngs=generators(), watches=[None] * len(SIZES))
    for model, samples, generator, result in zip(models, data, generators(), results, strict=True):
        alone, losses = train(model, samples.images, samples.labels, keys, rng=generator)
        assert not isinstance(result, TrainingDiverged)
        assert result[1] == pytest.approx(losses, rel=1e-4)
        assert torch.allclose(weights(result[0]), weights(alone), atol=1e-5)
        assert not torch.allclose(weights(alone), weights(model), atol=1e-2)


@everywhere
@pytest.mark.parametrize("stem", ["cifar", "imagenet"])
def test_residual_networks_are_stacked_too(device: str, stem: Literal["cifar", "imagenet"]) -> None:
    part = ResNet(blocks=[1, 1, 1], width=16, stem=stem, groups=8)
    data = sets(device)[:3]
    models = [part.build(SHAPE, 10, seed).to(device) for seed in range(3)]
    keys = replace(KEYS, epochs=1, learning_rate=0.01)
    results = train_together(models, data, keys, rngs=generators()[:3], watches=[None] * 3)
    for model, samples, generator, result in zip(models, data, generators(), results, strict=False):
        _, losses = train(model, samples.images, samples.labels, keys, rng=generator)
        assert not isinstance(result, TrainingDiverged) and result[1] == pytest.approx(losses, rel=CLOSE[device])


def test_one_that_diverges_leaves_the_others_alone() -> None:
    data = sets()
    models: list[nn.Module] = [PART.build(SHAPE, 10, 0) for _ in SIZES]
    with torch.no_grad():
        for weight in models[1].parameters():
            weight.fill_(float("nan"))
    good = train_together(
        [models[0], models[2]], [data[0], data[2]], KEYS, rngs=generators()[::2], watches=[None, None]
    )
    with_bad = train_together(models[:3], data[:3], KEYS, rngs=generators()[:3], watches=[None] * 3)
    assert isinstance(with_bad[1], TrainingDiverged) and "step 1 of 8" in str(with_bad[1])
    for mine, theirs in zip((with_bad[0], with_bad[2]), good, strict=True):
        assert not isinstance(mine, TrainingDiverged) and not isinstance(theirs, TrainingDiverged)
        assert torch.allclose(weights(mine[0]), weights(theirs[0]), atol=1e-4)


def test_models_of_different_kinds_are_not_stacked() -> None:
    one, other = PART.build(SHAPE, 10, 0), SmallCnn(channels=[8, 8], groups=4).build(SHAPE, 10, 0)
    assert can_be_stacked([one, one]) and not can_be_stacked([one, other])


@everywhere
def test_heads_are_trained_as_a_stack_and_one_is_trained_alone(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    stacked = []

    def counted(models: list[nn.Module], *arguments: Any, **keys: Any) -> list[Any]:
        stacked.append(len(models))
        return train_together(models, *arguments, **keys)

    monkeypatch.setattr("dtsim.learning.learners.train_together", counted)
    model = PART.build(SHAPE, 10, 0).to(device)
    backbone, head = divided(model)
    with torch.no_grad():
        data = [Labelled(backbone(samples.images), samples.labels) for samples in sets(device)]
    learners = Learners(
        base=head.eval(),
        users=4,
        home=0,
        base_distribution=np.full(10, 0.1),
        retraining=Retraining(trainable="head", epochs=20, learning_rate=0.05),
        cost=measure(model, SHAPE, "head"),
    )
    updates = [Update(user, data[user], generators()[user]) for user in range(3)]
    trained = learners.update(updates, from_scratch=False, anew=head)
    trained += learners.update([Update(3, data[3], generators()[3])], from_scratch=False, anew=head)
    assert stacked == [3]
    for user, one in enumerate(trained):
        assert isinstance(one, nn.Module)
        learners.replace(user, one, region=0, frame=0)
    for user in range(4):
        assert accuracy(learners.models[user], data[user].images, data[user].labels) > 0.9
        assert learners.models[user] is not head
    images = [len(data[user]) for user in (0, 1)]
    view = View(
        user=np.repeat([0, 1], images),
        places=np.concatenate([np.arange(count) for count in images]),
        look=np.repeat([0, 1], images),
        size=max(images),
        seen=lambda places, look: Labelled(data[look].images[places], data[look].labels[places]),
    )
    right = np.bincount(view.user[learners.right(view)], minlength=2)
    assert right.tolist() == [learners.correct(user, data[user]) for user in (0, 1)]


def test_an_update_that_fails_keeps_the_model_and_is_named() -> None:
    model = PART.build(SHAPE, 10, 0)
    learners = Learners(
        base=model,
        users=2,
        home=0,
        base_distribution=np.full(10, 0.1),
        retraining=Retraining(learning_rate=1e6, batch_size=16),
        cost=measure(model, SHAPE),
    )
    (failure,) = learners.update([Update(1, sets()[1], generators()[1])], from_scratch=False, anew=model)
    assert isinstance(failure, TrainingDiverged) and learners.models[1] is model
