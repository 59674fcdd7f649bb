from __future__ import annotations

import pytest
import torch
from pydantic import ValidationError
from torch import nn

from dtsim.learning.models import ModelCost, ResNet18, Scale, SmallCnn, measure


def test_small_cnn_has_the_work_counted_by_hand():
    shape = (1, 28, 28)
    cost = measure(SmallCnn().build(shape, 10, 0), shape)
    convolutions = [28**2 * 9 * 1 * 16, 14**2 * 9 * 16 * 32, 7**2 * 9 * 32 * 64]
    linear = 3 * 3 * 64 * 10
    assert cost.forward_flop == 2 * (sum(convolutions) + linear)
    # Backward: once for the weights, and once for the inputs of all layers but the first.
    assert cost.training_flop == 2 * (3 * (sum(convolutions) + linear) - convolutions[0])
    assert cost.parameters == (9 * 16 + 16) + (9 * 512 + 32) + (9 * 2048 + 64) + 2 * (16 + 32 + 64) + linear + 10
    assert cost.sample_bytes == 784
    assert cost.kappa == pytest.approx(2.94, abs=0.01)
    assert cost.flop_per_byte == cost.forward_flop / 784


def test_resnet18_costs_what_its_stem_says():
    shape = (3, 32, 32)
    imagenet, cifar = (measure(ResNet18(stem=stem).build(shape, 10, 0), shape) for stem in ("imagenet", "cifar"))
    assert imagenet.forward_flop == pytest.approx(0.074e9, rel=0.02)
    assert cifar.forward_flop == pytest.approx(1.11e9, rel=0.02)
    assert 11e6 < cifar.parameters < imagenet.parameters < 12e6
    assert 2.5 < imagenet.kappa < 3 and 2.5 < cifar.kappa <= 3


@pytest.mark.parametrize(
    ("part", "shape"),
    [
        (SmallCnn(), (1, 28, 28)),
        (SmallCnn(channels=[8, 8], groups=4), (3, 17, 23)),
        (ResNet18(), (1, 28, 28)),
    ],
)
def test_equal_seeds_build_equal_models_and_leave_the_global_generator(part, shape):
    torch.manual_seed(1)
    before = torch.random.get_rng_state()
    one, two, other = (part.build(shape, 7, seed) for seed in (3, 3, 4))
    assert torch.equal(torch.random.get_rng_state(), before)
    pairs = list(zip(one.parameters(), two.parameters(), strict=True))
    assert all(torch.equal(a, b) for a, b in pairs)
    assert any(not torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))
    images = torch.randint(0, 256, (3, *shape)).to(torch.uint8)
    logits = one(images)
    assert logits.shape == (3, 7) and logits.dtype == torch.float32 and logits.isfinite().all()
    assert torch.allclose(one(images[1:2]), logits[1:2], atol=1e-4), "an image's logits depend on no other image"


def test_no_model_keeps_batch_statistics():
    for part in (SmallCnn(), ResNet18()):
        model = part.build((1, 28, 28), 10, 0)
        assert not any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in model.modules())
        assert any(isinstance(module, nn.GroupNorm) for module in model.modules())


def test_bytes_are_scaled_to_about_unit_range():
    scaled = Scale()(torch.tensor([0, 255], dtype=torch.uint8).view(2, 1, 1, 1))
    assert scaled.flatten().tolist() == [-2.0, 2.0]
    assert {"0.mean", "0.std"} <= set(SmallCnn().build((1, 28, 28), 10, 0).state_dict())


def test_measuring_changes_nothing():
    model = SmallCnn().build((1, 28, 28), 10, 0)
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    measure(model, (1, 28, 28))
    assert all(torch.equal(before[name], weight) for name, weight in model.state_dict().items())
    assert all(weight.grad is None for weight in model.parameters()) and model.training


def test_bad_shapes_and_keys_are_refused():
    with pytest.raises(ValueError, match="can be halved at most 2 times"):
        SmallCnn().build((1, 7, 30), 10, 0)
    for bad in ({"channels": []}, {"channels": [16, 0]}, {"groups": 5}, {"groups": 0}, {"channels": (16, 32)}):
        with pytest.raises(ValidationError, match=next(iter(bad))):
            SmallCnn(**bad)
    for bad in ({"stem": "wide"}, {"groups": 48}):
        with pytest.raises(ValidationError, match=next(iter(bad))):
            ResNet18(**bad)


def test_costs_by_hand():
    cost = ModelCost(forward_flop=100.0, training_flop=290.0, parameters=3, sample_bytes=50)
    assert cost.kappa == 2.9 and cost.flop_per_byte == 2.0
