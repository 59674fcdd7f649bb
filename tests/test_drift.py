from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from dtsim.core.parts import ConfigError
from dtsim.core.seeding import Streams
from dtsim.learning.data.drift import Drift
from dtsim.learning.data.splits import ClassIndex
from dtsim.learning.data.stream import Captures, ImageStream


def test_unseen_classes_by_number_or_by_name() -> None:
    assert Drift().unseen(10) == [8, 9]
    assert Drift(unseen_classes=[3, 0]).unseen(4) == [0, 3]
    assert Drift(unseen_classes=0).unseen(2) == []
    assert Drift().unseen(4) == [2, 3]


@pytest.mark.parametrize(("unseen", "classes"), [(2, 2), (2, 3), (5, 4), ([4], 4), ([0, 1, 2], 3)])
def test_unseen_classes_must_exist_and_leave_two(unseen: int | list[int], classes: int) -> None:
    with pytest.raises(ConfigError, match=r"drift\.unseen_classes"):
        Drift(unseen_classes=unseen).unseen(classes)


@pytest.mark.parametrize(
    "bad",
    [
        {"home": 4},
        {"home": -1},
        {"rows": 0},
        {"unseen_classes": -1},
        {"unseen_classes": [1, 1]},
        {"unseen_classes": [-1]},
        {"unseen_classes": True},
        {"unseen_classes": 1.5},
        {"unseen_mass": 1.5},
        {"dirichlet_alpha": 0.0},
        {"brightness": 1.0},
        {"blur_sigma": -1.0},
        {"noise_sigma": 1.5},
        {"columnz": 2},
    ],
)
def test_values_out_of_range_are_refused(bad: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match=next(iter(bad))):
        Drift(**bad)


def test_regions_are_a_grid_over_the_area() -> None:
    drift = Drift(rows=2, columns=3)
    area = (-30.0, 10.0, 30.0, 50.0)  # columns 20 m wide, rows 20 m high
    positions = torch.tensor([[[-30.0, 10.0], [-9.0, 29.0], [29.0, 29.9]], [[-11.0, 31.0], [0.0, 45.0], [30.0, 50.0]]])
    for dtype in (torch.float32, torch.float64):
        region = drift.region(positions.to(dtype), area)
        assert region.tolist() == [[0, 1, 2], [3, 4, 5]] and region.dtype == torch.int64
    outside = torch.tensor([[-99.0, 0.0], [99.0, 99.0], [-31.0, 99.0]])
    assert drift.region(outside, area).tolist() == [0, 5, 3]


def test_class_distributions_by_hand() -> None:
    generator = np.random.default_rng(0)
    distributions = Drift(home=1).class_distributions(10, generator)
    assert distributions.shape == (4, 10) and distributions.dtype == np.float64
    assert np.allclose(distributions[1], [1 / 8] * 8 + [0, 0])
    for region in (0, 2, 3):
        assert np.allclose(distributions[region], [0.75 / 8] * 8 + [0.125] * 2)
    assert np.allclose(Drift(unseen_classes=0).class_distributions(4, generator), 0.25)


def test_label_shift_differs_between_regions_and_keeps_the_unseen_mass() -> None:
    drift = Drift(dirichlet_alpha=0.3)
    one, again, other = (drift.class_distributions(10, np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert np.array_equal(one, again) and not np.allclose(one, other)
    assert np.allclose(one.sum(axis=1), 1)
    assert np.allclose(one[:, 8:].sum(axis=1), [0, 0.25, 0.25, 0.25])
    assert not np.allclose(one[1], one[2]) and one[0].max() > 0.2


def test_regions_that_differ_have_unseen_classes_of_their_own() -> None:
    dealt = Drift(home=1, unseen_classes=4, regions_differ=True).class_distributions(10, np.random.default_rng(0))
    expected = {1: {}, 2: {6: 0.125, 9: 0.125}, 3: {7: 0.25}, 0: {8: 0.25}}
    for region, mass in expected.items():
        assert {label: share for label, share in enumerate(dealt[region].tolist()) if label >= 6 and share} == mass
        assert np.allclose(dealt[region, :6], (1 - sum(mass.values())) / 6)
    few = Drift(unseen_classes=2, regions_differ=True).class_distributions(10, np.random.default_rng(0))
    assert np.allclose(few[1:, 8:], [[0.25, 0], [0, 0.25], [0.25, 0]])
    one = Drift(rows=1, columns=1, regions_differ=True).class_distributions(10, np.random.default_rng(0))
    assert one.tolist() == [[1 / 8] * 8 + [0, 0]]


def test_regions_that_differ_look_different() -> None:
    images = pictures()
    drift = Drift(brightness=0.6, regions_differ=True)
    assert drift.transform(0, images) is images
    for region, factor in ((1, 1.2), (2, 0.6), (3, 1.6)):
        shown = drift.transform(region, images).float()
        assert torch.allclose(shown, (images.float() * factor).clamp(max=255), atol=1)
    blurred = [Drift(blur_sigma=1.5, regions_differ=True).transform(region, images).float() for region in (1, 2, 3)]
    assert blurred[0].std() > blurred[1].std() > blurred[2].std()
    noise = [Drift(noise_sigma=0.3, regions_differ=True).transform(region, images).float() for region in (1, 2, 3)]
    widths = [(shown - images).std().item() for shown in noise]
    assert np.allclose(widths, [25.5, 51.0, 76.5], rtol=0.15)  # clipped at black and white


def pictures() -> torch.Tensor:
    return torch.randint(60, 160, (5, 1, 28, 28), generator=torch.Generator().manual_seed(0)).to(torch.uint8)


def test_home_and_no_shift_leave_images_alone() -> None:
    images = pictures()
    assert Drift(rotation_deg=15.0, blur_sigma=1.0).transform(0, images) is images
    assert Drift().transform(3, images) is images


def test_rotation_turns_to_either_side() -> None:
    images = torch.zeros(1, 3, 21, 21, dtype=torch.uint8)
    images[..., 10, 15:20] = 200  # a bar to the right of the middle
    drift = Drift(rotation_deg=90.0)
    one, two = drift.transform(1, images), drift.transform(2, images)
    assert one[0, 0, 1:6, 10].min() > 150 and two[0, 0, 15:20, 10].min() > 150  # up and down
    assert one[0, 0, 10, 15:20].max() < 50


def test_brightness_and_blur_by_hand() -> None:
    images = pictures()
    drift = Drift(brightness=0.5)
    bright, dark = drift.transform(1, images), drift.transform(2, images)
    assert torch.allclose(bright.float(), images.float() * 1.5, atol=1)  # at most 159 × 1.5 < 255
    assert torch.allclose(dark.float(), images.float() * 0.5, atol=1)
    blurred = Drift(blur_sigma=1.5).transform(1, images)
    assert blurred.shape == images.shape and blurred.dtype == torch.uint8
    assert blurred.float().std() < 0.5 * images.float().std()
    assert blurred.float().mean() == pytest.approx(images.float().mean().item(), abs=2)
    tiny = torch.zeros(1, 1, 4, 4, dtype=torch.uint8)
    assert Drift(blur_sigma=9.0).transform(1, tiny).shape == tiny.shape


def test_transform_is_the_same_every_time_and_for_any_batch() -> None:
    images = pictures()
    drift = Drift(rotation_deg=15.0, brightness=0.2, blur_sigma=1.0)
    assert torch.equal(drift.transform(2, images), drift.transform(2, images))
    assert torch.equal(drift.transform(2, images)[3:], drift.transform(2, images[3:]))
    assert drift.transform(2, images.expand(2, 5, 3, 28, 28)).shape == (2, 5, 3, 28, 28)


@pytest.fixture
def stream() -> ImageStream:
    labels = torch.arange(1000) % 10
    distributions = Drift().class_distributions(10, np.random.default_rng(0))
    return ImageStream(distributions, ClassIndex(labels, 10), ClassIndex(labels.flip(0)[:300], 10))


def drawn(stream: ImageStream, region: int, images: int, seed: int = 0) -> Captures:
    """What one user captures in slot 7."""
    return stream.draw(np.array([region]), np.array([images]), Streams(seed), 7)


def test_captures_have_the_same_labels_in_both_splits(stream: ImageStream) -> None:
    capture = drawn(stream, 1, 500)
    assert np.array_equal(capture.test % 10, capture.labels)
    assert np.array_equal((999 - capture.increment) % 10, capture.labels)
    assert capture.increment.max() < 300 and capture.labels.dtype == np.int64
    assert len(set(capture.test.tolist())) > 300, "images are drawn from the whole class"


def test_captures_follow_the_region(stream: ImageStream) -> None:
    both = stream.draw(np.array([0, 1]), np.array([20_000, 20_000]), Streams(0), 0)
    home, away = both[0].labels, both[1].labels
    assert home.max() == 7
    assert np.mean(away >= 8) == pytest.approx(0.25, abs=0.01)  # three standard errors
    assert np.abs(np.bincount(home) / 20_000 - 1 / 8).max() < 0.01


def test_captures_depend_on_seed_slot_user_region_and_number_alone(stream: ImageStream) -> None:
    """As if each user drew by NumPy's generator on its own stream."""
    regions, images = np.array([1, 0, 1, 2]), np.array([20, 0, 7, 3])
    together = stream.draw(regions, images, Streams(5), 3)
    assert together.counts.tolist() == images.tolist()
    for user, capture in enumerate(together):
        rng = Streams(5).numpy("images", 3, user)
        labels = rng.choice(10, size=images[user], p=stream.distributions[regions[user]])
        assert np.array_equal(capture.labels, labels)
        assert np.array_equal(capture.test, stream.test.draw(labels, rng))
        assert np.array_equal(capture.increment, stream.increment.draw(labels, rng))
    assert not np.array_equal(drawn(stream, 1, 20).test, drawn(stream, 1, 20, seed=1).test)
    assert len(drawn(stream, 1, 0).labels) == 0


def test_noise_has_its_width_and_belongs_to_image_and_region() -> None:
    grey = torch.full((40, 1, 28, 28), 128, dtype=torch.uint8)
    grey[:, 0, 0, 0] = torch.arange(40)  # other images, other noise
    drift = Drift(noise_sigma=0.1)
    before = torch.default_generator.get_state()
    one, two = (drift.transform(region, grey).float()[:, 0, 1:] - 128 for region in (1, 2))
    assert torch.equal(before, torch.default_generator.get_state())
    assert one.std().item() == pytest.approx(25.5, rel=0.02) and one.mean().abs() < 0.5
    flat = torch.cat([one, two]).flatten(1)
    likeness = torch.corrcoef(flat) - torch.eye(80)
    assert likeness.abs().max() < 0.2, "no two images, and no two regions, share their noise"


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 32, 32)])
def test_every_transform_together_is_the_same_every_time_and_for_any_batch(shape: tuple[int, int, int]) -> None:
    images = torch.randint(0, 256, (6, *shape), generator=torch.Generator().manual_seed(1)).to(torch.uint8)
    drift = Drift(rotation_deg=5.0, brightness=0.2, blur_sigma=0.5, noise_sigma=0.05)
    whole = drift.transform(3, images)
    assert whole.dtype == torch.uint8 and whole.shape == images.shape
    assert torch.equal(whole[4:], drift.transform(3, images[4:]))
    assert torch.equal(whole.flip(0), drift.transform(3, images.flip(0)))
    assert drift.transform(3, images.expand(2, 6, *shape)).shape == (2, 6, *shape)
    assert drift.transform(3, images[:0]).shape == (0, *shape)
