"""Every generator: classes, amounts, work, and that what it makes looks like what it was made from."""

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from dtsim.core.parts import ConfigError, build
from dtsim.learning.data.splits import Labelled
from dtsim.twin.controls import Noise, Oracle
from dtsim.twin.distribution import closest_counts, kl_divergence_nat, smoothed, within_budget
from dtsim.twin.gaussian import Gaussian, draw, ledoit_wolf
from dtsim.twin.generative import Cvae, Jitter
from dtsim.twin.generator import Generated, Generator, GeneratorPart, Replay
from dtsim.twin.store import Store
from tests.tiny_data import blobs

CLASSES = 3
BELIEF = np.array([0.5, 0.3, 0.2])


class Truth:
    """A world of blobs of another brightness, with a distribution of its own."""

    class_distributions = np.array([[0.2, 0.2, 0.6], [1.0, 0.0, 0.0]])

    def fresh(self, region: int, labels: NDArray[np.int64], generator: np.random.Generator) -> Labelled:
        return Labelled(torch.full((len(labels), 1, 12, 12), 7, dtype=torch.uint8), torch.from_numpy(labels))


def blob_store(count: int = 120) -> Store:
    kept = Store(regions=2, classes=CLASSES, capacity=6000, memory=1.0, windows=1)
    labels = np.arange(count) % CLASSES
    images = torch.from_numpy(blobs(labels, 12, 0))[:, None]
    kept.upload(0, 0, Labelled(images, torch.from_numpy(labels)))
    return kept


def make(
    part: GeneratorPart,
    kept: Store | None = None,
    region: int = 0,
    count: int = 50,
    seed: int = 0,
    generator: Generator | None = None,
) -> Generated | None:
    generator = generator or part.build(Truth())
    kept = blob_store() if kept is None else kept
    return generator.generate(belief=BELIEF, count=count, region=region, store=kept, rng=np.random.default_rng(seed))


def made_of(part: GeneratorPart, kept: Store | None = None, **keys: Any) -> Generated:
    made = make(part, kept, **keys)
    assert made is not None
    return made


PARTS: list[GeneratorPart] = [Replay(), Cvae(fit_steps=3), Jitter(fit_steps=3), Oracle(), Noise()]


@pytest.mark.parametrize("part", PARTS, ids=lambda part: type(part).__name__)
def test_images_of_the_asked_classes_the_same_for_the_same_seed(part: GeneratorPart) -> None:
    state = torch.default_generator.get_state()
    made, again, other = made_of(part), made_of(part), made_of(part, seed=1)
    assert torch.equal(torch.default_generator.get_state(), state)  # nobody draws from the global generator
    wanted = Truth.class_distributions[0] if isinstance(part, Oracle) else BELIEF
    assert made.samples.class_counts(CLASSES).tolist() == closest_counts(wanted, 50, np.ones(3, bool)).tolist()
    assert made.samples.images.dtype == torch.uint8
    assert made.samples.images.shape == (50, 1, 12, 12)
    assert torch.equal(made.samples.images, again.samples.images)
    assert isinstance(part, Oracle) or not torch.equal(made.samples.images, other.samples.images)
    assert make(part, count=0) is None


@pytest.mark.parametrize("part", [Replay(), Cvae(), Jitter()], ids=lambda part: type(part).__name__)
def test_what_is_made_of_stored_samples_needs_some(part: GeneratorPart) -> None:
    assert make(part, region=1) is None


def test_controls_need_nothing_stored() -> None:
    assert (made_of(Oracle(), region=1).samples.labels == 0).all()
    noise = made_of(Noise(), region=1, count=500).samples.images.double()
    assert noise.mean() == pytest.approx(127.5, abs=2)
    assert noise.std() == pytest.approx(74, abs=1)


@pytest.mark.parametrize("part", [Cvae(fit_steps=250), Jitter(fit_steps=250, noise=0.1)])
def test_a_fitted_autoencoder_puts_the_blob_where_the_label_says(part: GeneratorPart) -> None:
    kept = blob_store()
    made = made_of(part, kept).samples
    for label in range(CLASSES):
        real = kept.kept(0)
        means = torch.stack([real.images[real.labels == index].double().mean(0).flatten() for index in range(CLASSES)])
        own = made.images[made.labels == label].double().mean(0).flatten()
        assert (means - own).norm(dim=1).argmin() == label


def test_an_autoencoder_is_fitted_anew_when_enough_came_and_that_is_work() -> None:
    kept, part = blob_store(), Cvae(fit_steps=4, refit_samples=30)
    generator = part.build(Truth())
    first = made_of(part, kept, generator=generator).flop
    again = made_of(part, kept, generator=generator).flop
    assert 0 < again < first
    kept.upload(0, 0, kept.draw(0, np.array([10, 10, 9]), np.random.default_rng(0)))
    assert made_of(part, kept, generator=generator).flop == again
    kept.upload(0, 0, kept.draw(0, np.array([1, 0, 0]), np.random.default_rng(0)))
    assert made_of(part, kept, generator=generator).flop == first
    assert made_of(Cvae(fit_steps=8), kept).flop - again == pytest.approx(2 * (first - again))
    assert made_of(Replay(), kept).flop == 0


def test_gaussian_features_have_the_mean_and_the_shrunk_covariance() -> None:
    torch.manual_seed(0)
    features = torch.randn(40, 6, dtype=torch.float64) @ torch.randn(6, 6, dtype=torch.float64) + 3
    deviations = features - features.mean(0)
    covariance = deviations.T @ deviations / 40
    for share in (0.0, 0.3, 1.0):
        made = draw(features, 200_000, share, torch.Generator().manual_seed(1))
        wanted = (1 - share) * covariance + share * covariance.trace() / 6 * torch.eye(6)
        torch.testing.assert_close(made.mean(0), features.mean(0), atol=0.03, rtol=0)
        torch.testing.assert_close(made.T.cov(), wanted, atol=0.15, rtol=0.02)


def test_ledoit_wolf_by_its_definition() -> None:
    rng = np.random.default_rng(3)
    x = rng.normal(size=(9, 5)) @ rng.normal(size=(5, 5))
    x -= x.mean(0)
    s = x.T @ x / 9
    m = np.trace(s) / 5
    d2 = ((s - m * np.eye(5)) ** 2).sum()
    b2 = sum(((np.outer(row, row) - s) ** 2).sum() for row in x) / 81
    assert ledoit_wolf(torch.from_numpy(x)) == pytest.approx(min(b2, d2) / d2)
    assert ledoit_wolf(torch.zeros(1, 5)) == 1.0


def test_gaussian_makes_feature_vectors_of_each_class() -> None:
    kept = Store(regions=1, classes=CLASSES, capacity=600, memory=1.0, windows=1)
    labels = torch.arange(90) % CLASSES
    features = torch.randn(90, 4, generator=torch.Generator().manual_seed(0)) + 10 * labels[:, None]
    kept.upload(0, 0, Labelled(features, labels))
    made = made_of(Gaussian(), kept)
    assert made.samples.class_counts(CLASSES).tolist() == [25, 15, 10]
    assert (made.samples.images.mean(dim=1) / 10).round().tolist() == made.samples.labels.tolist()
    assert made.flop > 0
    alone = Labelled(features[:1], labels[:1])
    kept = Store(regions=1, classes=CLASSES, capacity=600, memory=1.0, windows=1)
    kept.upload(0, 0, alone)  # one sample has no spread: it is repeated
    torch.testing.assert_close(made_of(Gaussian(), kept, count=2).samples.images, features[:1].repeat(2, 1))


@pytest.mark.parametrize("budget", [0.02, 0.1, 0.5])
@pytest.mark.parametrize("missing", [False, True])
def test_a_kl_budget_is_spent_on_evening_out(budget: float, missing: bool) -> None:
    belief = smoothed(np.array([0.7, 0.2, 0.1, 0.0]), 0.01)
    available = np.array([True, True, True, not missing])
    p = within_budget(belief, available, budget)
    assert p.sum() == pytest.approx(1)
    assert not p[~available].any()
    uniform = available / available.sum()
    reached = kl_divergence_nat(p, belief)
    assert reached == pytest.approx(min(budget, kl_divergence_nat(uniform, belief)))
    wide = Replay(kl_budget_nat=budget).class_counts(belief, 10_000, available) / 10_000
    np.testing.assert_allclose(wide, p, atol=2e-4)


def test_a_budget_that_missing_classes_use_up_leaves_the_closest() -> None:
    belief = np.array([0.5, 0.3, 0.2])
    available = np.array([True, True, False])
    assert within_budget(belief, available, 0.1) == pytest.approx([0.625, 0.375, 0])
    best = min(kl_divergence_nat(np.array([n, 8 - n, 0]) / 8, belief) for n in range(9))
    made = Replay().class_counts(belief, 8, available) / 8
    assert kl_divergence_nat(made, belief) == pytest.approx(best)


@pytest.mark.parametrize(("name", "key"), [("generative.Cvae", "latent"), ("gaussian.Gaussian", "shrinkage")])
def test_bad_keys_are_named(name: str, key: str) -> None:
    with pytest.raises(ConfigError, match=f"generator.{key}=-1"):
        build({"_target_": f"dtsim.twin.{name}", key: -1}, "generator")
