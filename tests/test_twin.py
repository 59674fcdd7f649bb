import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch

from dtsim.core.parts import ConfigError, build
from dtsim.learning.data.splits import Labelled
from dtsim.twin.distribution import closest_counts, kl_divergence_nat, smoothed
from dtsim.twin.generator import GeneratorPart, NoGenerator, Replay
from dtsim.twin.predictor import BetaBinomial, LastValue, PredictorPart, RegionAge, Shadow, Situation, TrueAccuracy
from dtsim.twin.store import Store
from dtsim.twin.twin import TrainingSet, Twin


def samples(labels: list[int], value: int = 0) -> Labelled:
    return Labelled(torch.full((len(labels), 1, 2, 2), value, dtype=torch.uint8), torch.tensor(labels))


def store(**keys: Any) -> Store:
    return Store(**{"regions": 2, "classes": 3, "capacity": 12, "memory": 0.5, "windows": 3, **keys})


def situation(
    region: list[int],
    trained: list[int],
    age: list[int],
    held_out: tuple[np.ndarray, np.ndarray] | None = None,
    truth: np.ndarray | None = None,
) -> Situation:
    def hits() -> tuple[np.ndarray, np.ndarray]:
        assert held_out is not None, "nobody asks"
        return held_out

    def accuracies() -> np.ndarray:
        assert truth is not None, "nobody asks"
        return truth

    return Situation(np.array(region), np.array(trained), np.array(age), held_out=hits, truth=accuracies)


def there(samples: Labelled | None) -> Labelled:
    assert samples is not None
    return samples


def test_replay_store_is_bounded_and_keeps_the_newest_of_each_region_and_class() -> None:
    kept = store()  # 12 samples over 2 regions x 3 classes: 2 in each
    for value in range(5):
        kept.upload(0, 0, samples([0, 1], value))
    overflowing = Labelled(torch.arange(7, 10).to(torch.uint8).view(3, 1, 1, 1).expand(3, 1, 2, 2), torch.full((3,), 2))
    kept.upload(1, 1, overflowing)
    assert kept.stored(0).tolist() == [2, 2, 0]
    assert kept.stored(1).tolist() == [0, 0, 2]
    drawn = kept.draw(0, np.array([2, 0, 0]), np.random.default_rng(0))
    assert sorted(drawn.images[:, 0, 0, 0].tolist()) == [3, 4]
    assert sorted(kept.kept(1).images[:, 0, 0, 0].tolist()) == [8, 9]  # one upload was more than the ring holds


def test_drawing_more_than_is_stored_repeats_evenly() -> None:
    kept = store()
    kept.upload(0, 0, samples([0], 3))
    kept.upload(0, 0, samples([0], 4))
    drawn = kept.draw(0, np.array([5, 0, 0]), np.random.default_rng(0))
    assert sorted(np.bincount(drawn.images[:, 0, 0, 0].numpy(), minlength=5)[3:].tolist()) == [2, 3]


def test_windows_and_history_of_an_mu() -> None:
    kept = store()
    kept.upload(0, 0, samples([0, 1]))
    assert kept.last_window(0) is None  # the window is still open
    kept.close_window()
    assert there(kept.last_window(0)).labels.tolist() == [0, 1]
    assert kept.last_window(1) is None
    kept.close_window()
    assert kept.last_window(0) is None
    for label in (0, 1, 2):
        kept.upload(0, 0, samples([label]))
        kept.close_window()
    assert there(kept.history(0)).labels.tolist() == [0, 1, 2]  # three windows are kept, the first one is gone


def test_uploads_of_many_mus_at_once_are_as_those_of_one_after_another() -> None:
    """Rings that overflow in one upload included: which place a sample has in its ring decides what is drawn."""
    rng = np.random.default_rng(3)
    together, apart = store(capacity=30), store(capacity=30)  # 5 samples in each ring
    for slot in range(6):
        users = np.repeat([0, 1], rng.integers(0, 5, size=2))
        regions = np.array([slot % 2, 1])[users]
        labels = rng.integers(0, 3, size=len(users))
        images = torch.from_numpy(rng.integers(0, 256, size=(len(users), 1, 2, 2), dtype=np.uint8))
        together.upload(users, regions, Labelled(images, torch.from_numpy(labels)))
        for user in (0, 1):
            mine = torch.from_numpy(users == user)
            apart.upload(user, [slot % 2, 1][user], Labelled(images[mine], torch.from_numpy(labels)[mine]))
        together.forget()
        apart.forget()
    together.close_window()
    apart.close_window()
    assert together.class_counts.tolist() == apart.class_counts.tolist()
    assert together.uploads.tolist() == apart.uploads.tolist()
    for which in (0, 1):
        one, other = there(together.last_window(which)), there(apart.last_window(which))
        assert torch.equal(one.images, other.images) and torch.equal(one.labels, other.labels)
        assert together.stored(which).tolist() == apart.stored(which).tolist()
        one, other = together.kept(which), apart.kept(which)
        assert torch.equal(one.images, other.images) and torch.equal(one.labels, other.labels)


def test_uploads_from_several_sets_are_given_back_in_order() -> None:
    """As with regions that look different: each look is a set of its own."""
    kept = store()
    one, other = samples([0, 1, 2], 5), samples([2, 1, 0], 6)
    kept.upload(0, 0, one, np.array([2, 0]))
    kept.upload(0, 1, other, np.array([1]))
    kept.upload(1, 0, one, np.array([1]))
    kept.upload(0, 0, one, np.array([1]))
    kept.close_window()
    window = there(kept.last_window(0))
    assert window.labels.tolist() == [2, 0, 1, 1]
    assert window.images[:, 0, 0, 0].tolist() == [5, 5, 6, 5]


def test_class_histograms_forget() -> None:
    kept = store()
    kept.upload(0, 1, samples([0, 0, 2]))
    kept.forget()
    assert kept.class_counts.tolist() == [[0, 0, 0], [1, 0, 0.5]]


@pytest.mark.parametrize("seed", range(8))
def test_closest_counts_is_the_best_of_all_that_can_be_made(seed: int) -> None:
    rng = np.random.default_rng(seed)
    belief = rng.dirichlet(np.full(4, 0.4)) + 1e-3
    belief /= belief.sum()
    available = np.array([True, True, seed % 2 == 0, True])
    count = int(rng.integers(1, 15))
    made = closest_counts(belief, count, available)
    assert made.sum() == count
    assert not made[~available].any()

    def divergence(counts: Sequence[int]) -> float:
        p = np.array(counts) / count
        return float(sum(x * np.log(x / q) for x, q in zip(p, belief, strict=True) if x > 0))

    best = min(
        divergence(counts)
        for counts in itertools.product(range(count + 1), repeat=4)
        if sum(counts) == count and (available[2] or counts[2] == 0)
    )
    assert divergence(made.tolist()) == pytest.approx(best, abs=1e-12)


def test_smoothing_keeps_every_kl_finite() -> None:
    p, q = smoothed(np.array([1.0, 0, 0]), 0.01), smoothed(np.array([0.0, 0, 0]), 0.01)
    assert np.isfinite(kl_divergence_nat(p, q))
    assert kl_divergence_nat(p, p) == 0
    assert q == pytest.approx(np.full(3, 1 / 3))


def test_amount_of_generated_data() -> None:
    fill = Replay(amount="fill")
    assert fill.count(real=200, wanted=1200, divergence_nat=0.3) == 1000
    assert fill.count(real=1500, wanted=1200, divergence_nat=0.3) == 0
    rising = Replay(amount="kl", min_ratio=1.0, max_ratio=5.0, kl_scale_nat=0.25)
    assert rising.count(real=100, wanted=1200, divergence_nat=0.0) == 100
    assert rising.count(real=100, wanted=1200, divergence_nat=0.25) == round(100 * (5 - 4 / np.e))
    assert rising.count(real=100, wanted=1200, divergence_nat=50.0) == 500
    assert NoGenerator().count(real=1, wanted=9, divergence_nat=1.0) == 0


def test_replay_keys_are_checked_together() -> None:
    with pytest.raises(ConfigError, match="max_ratio"):
        build({"_target_": "dtsim.twin.generator.Replay", "min_ratio": 3.0, "max_ratio": 2.0}, "generator")


@pytest.mark.parametrize("predictor", [BetaBinomial(), RegionAge()])
def test_predictors_start_at_the_base_accuracy_and_learn(predictor: PredictorPart) -> None:
    learned = predictor.build(0.9)
    at = situation([0, 1], [0, 0], [0, 0])
    assert learned.predict(at) == pytest.approx([0.9, 0.9])
    for _ in range(50):
        learned.observe(at, np.array([180, 130]), np.array([200, 200]))
    assert learned.predict(at) == pytest.approx([0.9, 0.65], abs=0.01)


def test_one_observation_is_shrunk_by_hand() -> None:
    learned = RegionAge(shrinkage_images=50.0).build(0.9)
    at = situation([1], [0], [0])
    learned.observe(at, np.array([10]), np.array([50]))
    by_region = (10 + 50 * 0.9) / 100
    assert learned.predict(at) == pytest.approx([(10 + 50 * by_region) / 100])
    # Never seen at this age: what the region says.
    assert learned.predict(situation([1], [0], [3])) == pytest.approx([by_region])


def test_beta_binomial_tells_apart_where_a_model_was_trained() -> None:
    learned = BetaBinomial().build(0.9)
    for _ in range(20):
        learned.observe(situation([1, 1], [0, 1], [1, 1]), np.array([130, 178]), np.array([200, 200]))
    moved, stayed = learned.predict(situation([1, 1], [0, 1], [1, 1]))
    assert moved < 0.7 < 0.85 < stayed
    # Pairs of regions that it never saw: as models from there do.
    from_0, from_1 = learned.predict(situation([2, 2], [0, 1], [1, 1]))
    assert from_0 < 0.7 < 0.85 < from_1


def test_last_value_is_each_mus_own_and_waits_for_images() -> None:
    learned = LastValue().build(0.9)
    at = situation([0, 1], [0, 0], [0, 0])
    assert learned.predict(at).tolist() == [0.9, 0.9]
    learned.observe(at, np.array([10, 0]), np.array([20, 0]))
    assert learned.predict(at).tolist() == [0.5, 0.9]
    learned.observe(at, np.array([0, 3]), np.array([0, 4]))
    assert learned.predict(at).tolist() == [0.5, 0.75]


def test_the_bound_is_told_the_truth() -> None:
    truth = np.array([0.3, 0.8])
    assert TrueAccuracy().build(0.9).predict(situation([0, 1], [0, 0], [0, 0], truth=truth)) is truth


def test_a_shadow_is_what_held_out_samples_say_shrunk_towards_the_table() -> None:
    learned, table = Shadow(prior_images=50.0).build(0.9), BetaBinomial().build(0.9)
    seen = situation([0, 1], [0, 0], [1, 1])
    for predictor in (learned, table):
        predictor.observe(seen, np.array([180, 130]), np.array([200, 200]))
    scored = situation([0, 1], [0, 0], [1, 1], held_out=(np.array([160, 0]), np.array([200, 0])))
    prior = table.predict(scored)
    assert learned.predict(scored) == pytest.approx([(160 + 50 * prior[0]) / 250, prior[1]])
    alone = Shadow(prior_images=0.0).build(0.9)  # with no weight of its own, the table answers only where it must
    assert alone.predict(scored).tolist() == [0.8, 0.9]


def test_a_shadow_takes_off_what_held_out_samples_are_too_easy_by() -> None:
    learned = Shadow(prior_images=0.0, calibration_images=200.0).build(0.9)
    easy = (np.array([190, 190, 100]), np.array([200, 200, 200]))
    at = situation([1, 1, 2], [0, 1, 1], [3, 2, 1], held_out=easy)
    assert learned.predict(at) == pytest.approx([0.95, 0.95, 0.5])
    # MU 0 was left as it was and got 0.85 of 200 right; the others were updated since they were scored.
    learned.observe(situation([1, 1, 2], [0, 1, 2], [3, 0, 0]), np.array([170, 100, 100]), np.array([200, 200, 200]))
    assert learned.predict(at) == pytest.approx([0.9, 0.9, 0.5])  # half of 0.1, for 200 images weigh as much as none


def different(count: int, seed: int = 0) -> Labelled:
    rng = np.random.default_rng(seed)
    images = torch.from_numpy(rng.integers(0, 256, (count, 1, 4, 4), dtype=np.uint8))
    return Labelled(images, torch.from_numpy(rng.integers(0, 3, count)))


def pixels(samples: Labelled | None) -> set[bytes]:
    return {bytes(image.numpy()) for image in there(samples).images}


def test_what_is_held_out_is_in_no_ring_and_window_whoever_uploads_it() -> None:
    kept = store(capacity=6000, holdout_share=0.25, holdout_samples=60)
    uploaded = different(400)
    for user in (0, 1):  # the same images twice
        kept.upload(user, user, uploaded)
        kept.close_window()
    held = pixels(kept.held_out(0)) | pixels(kept.held_out(1))
    assert len(there(kept.held_out(0))) == 60  # the newest
    trained = pixels(kept.kept(0)) | pixels(kept.kept(1)) | pixels(kept.history(0)) | pixels(kept.history(1))
    assert not held & trained
    assert len(trained) == pytest.approx(300, abs=30)
    assert kept.class_counts.sum() == 800  # the statistics know of all
    assert kept.uploads.tolist() == [400, 400]


def test_the_newest_held_out_samples_are_kept() -> None:
    kept = store(capacity=6000, holdout_share=0.5, holdout_samples=20)
    uploaded = different(400)
    kept.upload(0, 0, Labelled(uploaded.images[:200], uploaded.labels[:200]))
    kept.upload(0, 0, Labelled(uploaded.images[200:], uploaded.labels[200:]))
    assert pixels(kept.held_out(0)) <= pixels(Labelled(uploaded.images[200:], uploaded.labels[200:]))


def test_nothing_is_held_out_by_default() -> None:
    kept = store(capacity=6000)
    kept.upload(0, 0, different(100))
    assert kept.held_out(0) is None
    assert len(kept.kept(0)) == 100


class Unknown:
    """A world of which nothing may be asked."""

    @property
    def class_distributions(self) -> np.ndarray:
        raise AssertionError

    def fresh(self, region: int, labels: np.ndarray, rng: np.random.Generator) -> Labelled:
        raise AssertionError


def twin_of(part: GeneratorPart, capacity: int = 1200) -> Twin:
    kept = store(capacity=capacity)
    return Twin(store=kept, generator=part.build(Unknown()), users=2, mean_bytes=100.0, smoothing=1e-3)


def training_set(twin: Twin, **keys: Any) -> TrainingSet | None:
    belief = twin.belief(0)
    keys = {"user": 0, "region": 0, "belief": belief, "trained_on": belief, "wanted": 100, **keys}
    return twin.training_set(
        generate=keys.pop("generate", True), everything=False, rng=np.random.default_rng(0), **keys
    )


def test_a_training_set_is_real_data_filled_up_with_the_regions_samples() -> None:
    twin = twin_of(Replay())
    twin.store.upload(0, 0, samples([0] * 10, 1))
    twin.store.upload(1, 0, samples([1] * 30, 2))
    twin.store.upload(1, 1, samples([2] * 30, 3))  # another region: never replayed here
    twin.store.close_window()
    data = training_set(twin)
    assert data is not None
    assert (data.real, data.generated, len(data.samples)) == (10, 90, 100)
    assert set(data.samples.images.unique().tolist()) == {1, 2}
    generated = Labelled(data.samples.images[10:], data.samples.labels[10:]).class_counts(3)
    assert generated[0] / 90 == pytest.approx(0.25, abs=0.02)  # 10 of the 40 uploads of region 0
    assert data.kl_nat == pytest.approx(0, abs=0.01)
    assert data.distribution.sum() == pytest.approx(1)


def test_a_training_set_without_the_twin_is_the_real_data() -> None:
    twin = twin_of(Replay())
    twin.store.upload(0, 0, samples([0] * 10))
    twin.store.close_window()
    data = training_set(twin, generate=False)
    assert data is not None
    assert (data.real, data.generated) == (10, 0)
    assert np.isnan(data.kl_nat)


def test_no_data_at_all_is_no_training_set() -> None:
    twin = twin_of(Replay())
    twin.store.close_window()
    assert training_set(twin) is None


def test_traffic_forecast_is_a_running_mean() -> None:
    twin = twin_of(NoGenerator())
    twin.see_traffic(np.array([200.0, 0.0]))
    assert twin.forecast_bytes().tolist() == [150, 50]
