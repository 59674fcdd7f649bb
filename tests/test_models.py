from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from dtsim.learning.data.operators import cure
from dtsim.learning.flops import FlopCounter
from dtsim.learning.models import ModelCost, ModelPart, Scale, SmallCnn, divided, measure
from dtsim.learning.resnet import ResNet


def test_small_cnn_has_the_work_counted_by_hand() -> None:
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


def test_resnet18_costs_what_its_stem_says() -> None:
    shape = (3, 32, 32)
    imagenet, cifar = (measure(ResNet(stem=stem).build(shape, 10, 0), shape) for stem in ("imagenet", "cifar"))
    assert imagenet.forward_flop == pytest.approx(0.074e9, rel=0.02)
    assert cifar.forward_flop == pytest.approx(1.11e9, rel=0.02)
    assert 11e6 < cifar.parameters < imagenet.parameters < 12e6
    assert 2.5 < imagenet.kappa < 3 and 2.5 < cifar.kappa <= 3


def test_resnet18_is_torchvisions() -> None:
    cure()
    from torchvision.models import resnet18

    ours = ResNet().build((3, 64, 64), 10, 0)
    assert isinstance(ours, nn.Sequential)
    theirs = resnet18(num_classes=10, norm_layer=lambda channels: nn.GroupNorm(32, channels))
    theirs.load_state_dict(dict(zip(theirs.state_dict(), list(ours[1:].state_dict().values()), strict=True)))
    images = torch.randint(0, 256, (2, 3, 64, 64)).to(torch.uint8)
    assert torch.allclose(ours(images), theirs(ours[0](images)), atol=1e-4)


def test_the_small_resnets_have_the_size_counted_by_hand() -> None:
    def stage(width: int, planes: int, blocks: int) -> int:
        first = 9 * width * planes + 9 * planes**2 + 4 * planes + (width * planes + 2 * planes) * (width != planes)
        return first + (blocks - 1) * (18 * planes**2 + 4 * planes)

    eight = measure(ResNet(blocks=[1, 1, 1], width=16, stem="cifar", groups=8).build((3, 32, 32), 10, 0), (3, 32, 32))
    assert eight.parameters == 27 * 16 + 32 + stage(16, 16, 1) + stage(16, 32, 1) + stage(32, 64, 1) + 650
    narrow = ResNet(width=16, stem="cifar", groups=8).build((1, 28, 28), 10, 0)
    stages = stage(16, 16, 2) + stage(16, 32, 2) + stage(32, 64, 2) + stage(64, 128, 2)
    assert measure(narrow, (1, 28, 28)).parameters == 9 * 16 + 32 + stages + 1290


def test_a_head_is_trained_at_its_own_work() -> None:
    shape = (1, 28, 28)
    model = SmallCnn().build(shape, 10, 0)
    whole, head = measure(model, shape), measure(model, shape, "head")
    assert head.forward_flop == whole.forward_flop == whole.stored_flop
    assert (head.stored_flop, head.training_flop) == (2 * 576 * 10, 4 * 576 * 10)  # none for the features' gradient
    assert head.parameters == 576 * 10 + 10
    backbone, linear = divided(model)
    images = torch.randint(0, 256, (5, *shape)).to(torch.uint8)
    assert torch.equal(linear(backbone(images)), model(images))
    with pytest.raises(ValueError, match="ends in a linear layer"):
        measure(nn.Sequential(nn.Flatten(), nn.Linear(784, 10), nn.ReLU()), shape, "head")


@pytest.mark.parametrize(
    ("part", "shape"),
    [
        (SmallCnn(), (1, 28, 28)),
        (SmallCnn(channels=[8, 8], groups=4), (3, 17, 23)),
        (ResNet(), (1, 28, 28)),
        (ResNet(blocks=[1, 1, 1], width=16, stem="cifar", groups=8), (3, 20, 24)),
    ],
)
def test_equal_seeds_build_equal_models_and_leave_the_global_generator(
    part: ModelPart, shape: tuple[int, int, int]
) -> None:
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


def test_no_model_keeps_batch_statistics() -> None:
    for part in (SmallCnn(), ResNet()):
        model = part.build((1, 28, 28), 10, 0)
        assert not any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in model.modules())
        assert any(isinstance(module, nn.GroupNorm) for module in model.modules())


def test_bytes_are_scaled_to_about_unit_range() -> None:
    scaled = Scale()(torch.tensor([0, 255], dtype=torch.uint8).view(2, 1, 1, 1))
    assert scaled.flatten().tolist() == [-2.0, 2.0]
    assert {"0.mean", "0.std"} <= set(SmallCnn().build((1, 28, 28), 10, 0).state_dict())


@pytest.mark.parametrize("part", [SmallCnn(), ResNet(blocks=[1, 1])])
def test_work_is_what_torchs_own_counter_counts(part: ModelPart) -> None:
    """Of a batch, forward and backward."""
    images = torch.zeros(3, 3, 16, 16, dtype=torch.uint8)
    totals = []
    for counter in (FlopCounter(), FlopCounterMode(display=False)):
        model = part.build((3, 16, 16), 10, 0)
        with counter:
            model(images).sum().backward()
        totals.append(counter.total if isinstance(counter, FlopCounter) else counter.get_total_flops())
    assert totals[0] == totals[1] > 0


def test_measuring_imports_no_compiler() -> None:
    code = (
        "import sys; from dtsim.learning.models import SmallCnn, measure;"
        "measure(SmallCnn().build((1, 28, 28), 10, 0), (1, 28, 28)); print('torch._dynamo' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def test_measuring_changes_nothing() -> None:
    model = SmallCnn().build((1, 28, 28), 10, 0)
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    measure(model, (1, 28, 28))
    assert all(torch.equal(before[name], weight) for name, weight in model.state_dict().items())
    assert all(weight.grad is None for weight in model.parameters()) and model.training


def test_bad_shapes_and_keys_are_refused() -> None:
    with pytest.raises(ValueError, match="can be halved at most 2 times"):
        SmallCnn().build((1, 7, 30), 10, 0)
    bad: dict[str, Any]
    for bad in ({"channels": []}, {"channels": [16, 0]}, {"groups": 5}, {"groups": 0}, {"channels": (16, 32)}):
        with pytest.raises(ValidationError, match=next(iter(bad))):
            SmallCnn(**bad)
    for bad in ({"stem": "wide"}, {"groups": 48}, {"blocks": []}, {"blocks": [2, 0]}, {"width": 0}):
        with pytest.raises(ValidationError, match=next(iter(bad))):
            ResNet(**bad)


def test_costs_by_hand() -> None:
    cost = ModelCost(forward_flop=100.0, training_flop=290.0, parameters=3, sample_bytes=50, stored_flop=100.0)
    assert cost.kappa == 2.9 and cost.flop_per_byte == 2.0
