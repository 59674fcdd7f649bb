from __future__ import annotations

from dataclasses import fields
from typing import Any

import pytest
import torch

from dtsim.core.parts import ConfigError, build
from dtsim.physical.traffic import UniformTraffic
from tests.composed import node

TARGET = "dtsim.physical.traffic.UniformTraffic"


def test_draws_are_uniform_whole_numbers_with_both_bounds() -> None:
    images = UniformTraffic(min_images=2, max_images=5).draw((50, 800), torch.Generator().manual_seed(0))
    assert images.dtype == torch.int64
    assert images.shape == (50, 800)
    values, counts = images.unique(return_counts=True)
    assert values.tolist() == [2, 3, 4, 5]
    assert (counts / 40_000).tolist() == pytest.approx([0.25] * 4, abs=0.012)  # five standard errors


def test_mean_is_that_of_the_draws() -> None:
    traffic = UniformTraffic(min_images=10, max_images=30)
    images = traffic.draw((40_000,), torch.Generator().manual_seed(1))
    assert traffic.mean_images == 20
    assert images.double().mean().item() == pytest.approx(20, abs=0.16)


def test_same_generator_same_tasks() -> None:
    traffic = UniformTraffic()
    first, again, other = (traffic.draw((20,), torch.Generator().manual_seed(s)) for s in (3, 3, 4))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_equal_bounds_are_a_constant() -> None:
    images = UniformTraffic(min_images=7, max_images=7).draw((9,), torch.Generator().manual_seed(0))
    assert images.tolist() == [7] * 9


def test_yaml_holds_every_key_at_its_default() -> None:
    keys = node("traffic", "uniform")
    assert build(keys, "traffic") == UniformTraffic()
    assert {field.name for field in fields(UniformTraffic)} == keys.keys() - {"_target_"}


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"min_images": -1}, "traffic.min_images=-1: must be >= 0"),
        ({"max_images": 0, "min_images": 0}, "traffic.max_images=0: must be >= 1"),
        ({"min_images": 31}, "min_images=31: must be <= max_images=30"),
        ({"max_images": 12.5}, "traffic.max_images=12.5: must be a whole number"),
    ],
)
def test_bad_values_are_named(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError) as error:
        build({"_target_": TARGET, **options}, "traffic")
    assert said in str(error.value)
