"""What the twin assembles for an update: how much is generated, eq. (9), and from what."""

from __future__ import annotations

import math

import numpy as np
import pytest

from dtsim.learning.data.splits import Labelled
from dtsim.twin.generator import Replay
from dtsim.twin.store import Store
from dtsim.twin.twin import TrainingSet, Twin
from tests.small_world import AWAY, CLASSES, HOME, images, numbers

SMOOTHING = 1e-3


class Nothing:
    """A world of which a replay asks nothing."""

    @property
    def class_distributions(self) -> np.ndarray:
        raise AssertionError

    def fresh(self, region: int, labels: np.ndarray, rng: np.random.Generator) -> Labelled:
        raise AssertionError


def twin(generator: Replay | None = None) -> Twin:
    store = Store(regions=2, classes=CLASSES, capacity=600, memory=0.5, windows=3)
    return Twin(
        store=store,
        generator=(generator or Replay()).build(None),  # type: ignore[arg-type]
        users=2,
        mean_bytes=1.0,
        smoothing=SMOOTHING,
    )


def assembled(
    of: Twin,
    *,
    belief: tuple[float, ...] = (1 / 3, 1 / 3, 1 / 3),
    trained_on: tuple[float, ...] = (1 / 3, 1 / 3, 1 / 3),
    everything: bool = False,
    wanted: int = 20,
) -> TrainingSet:
    found = of.training_set(
        user=0,
        region=HOME,
        belief=np.array(belief),
        trained_on=np.array(trained_on),
        wanted=wanted,
        generate=True,
        everything=everything,
        rng=np.random.default_rng(0),
    )
    assert found is not None
    return found


def test_the_divergence_of_9_is_of_what_the_twin_sees_from_what_the_model_was_trained_on() -> None:
    """KL(now ‖ trained on): a class that the model never saw raises it, one that has become rare hardly does."""
    seen, known = (0.5, 0.3, 0.2), (0.5, 0.5, 0.0)
    nat = 0.0
    for now, before in zip(seen, known, strict=True):
        now, before = ((1 - SMOOTHING) * value + SMOOTHING / 3 for value in (now, before))
        nat += now * math.log(now / before)
    assert nat > 0.9  # the other way round it is 0.26
    part = Replay(amount="kl", min_ratio=1.0, max_ratio=101.0, kl_scale_nat=1.0)
    for belief, trained_on, divergence_nat in ((seen, known, nat), (seen, seen, 0.0)):
        of = twin(part)
        of.store.upload(0, HOME, images("increment", 9))
        of.store.close_window()
        found = assembled(of, belief=belief, trained_on=trained_on)
        assert found.real == 9
        assert found.generated == round(9 * (1 + 100 * (1 - math.exp(-divergence_nat))))


def test_the_ratio_of_9_is_of_the_last_window_also_where_all_windows_are_trained_on() -> None:
    of = twin(Replay(amount="kl", min_ratio=2.0, max_ratio=2.0))
    for count in (9, 6):
        of.store.upload(0, HOME, images("increment", count))
        of.store.close_window()
    found = assembled(of, everything=True)
    assert (found.real, found.generated) == (15, 12)
    assert (assembled(of).real, assembled(of).generated) == (6, 12)


def test_filling_up_counts_the_real_samples_and_leaves_out_those_beyond() -> None:
    of = twin()
    of.store.upload(0, HOME, images("increment", 9))
    of.store.close_window()
    assert (assembled(of, wanted=12).real, assembled(of, wanted=12).generated) == (9, 3)
    capped = assembled(of, wanted=5)
    assert (capped.real, capped.generated, len(capped.samples)) == (5, 0, 5)
    kept = numbers(capped.samples)
    assert len(set(kept)) == 5 and set(kept) <= set(range(9)) and kept != list(range(5))  # drawn, not the first
    np.testing.assert_allclose(capped.distribution, np.bincount(np.array(kept) % CLASSES, minlength=CLASSES) / 5)


def test_only_filling_up_leaves_real_samples_out() -> None:
    by_kl = twin(Replay(amount="kl", min_ratio=0.0))
    all_of_them = twin()
    for of in (by_kl, all_of_them):
        of.store.upload(0, HOME, images("increment", 9))
        of.store.close_window()
    assert assembled(by_kl, wanted=5).real == 9
    assert assembled(all_of_them, wanted=5, everything=True).real == 9  # from scratch


def test_the_real_samples_come_first_and_the_classes_are_those_of_the_whole_set() -> None:
    of = twin()
    own = images("increment", 6)
    of.store.upload(0, HOME, own)
    of.store.upload(1, AWAY, images("increment", 30))  # of another region: never replayed here
    of.store.close_window()
    found = assembled(of, belief=(1.0, 0.0, 0.0))
    assert numbers(found.samples)[:6] == numbers(own)
    assert set(numbers(found.samples)) <= set(range(6))
    counts = found.samples.class_counts(CLASSES)
    np.testing.assert_allclose(found.distribution, counts / 20)
    assert counts.tolist() == [16, 2, 2]


def test_what_is_said_of_the_generated_data_is_its_divergence_from_the_belief() -> None:
    """KL(P ‖ Q) with the generated counts first; class 2 is not stored, so P lacks it."""
    of = twin()
    kept = images("increment", 20)
    of.store.upload(0, HOME, Labelled(kept.images[kept.labels < 2], kept.labels[kept.labels < 2]))
    of.store.close_window()
    found = assembled(of, belief=(0.4, 0.4, 0.2), wanted=34)
    generated = Labelled(found.samples.images[found.real :], found.samples.labels[found.real :]).class_counts(CLASSES)
    assert generated.tolist() == [10, 10, 0]
    p, q = ((1 - SMOOTHING) * np.array(values) + SMOOTHING / 3 for values in ((0.5, 0.5, 0), (0.4, 0.4, 0.2)))
    assert found.kl_nat == pytest.approx(float(np.sum(p * np.log(p / q))))
    assert found.kl_nat == pytest.approx(math.log(0.5 / 0.4), rel=0.02)
