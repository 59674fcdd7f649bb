"""The closest distribution that can be made, eq. (8), against listing all of them."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from dtsim.twin.distribution import closest_counts, kl_divergence_nat, smoothed, within_budget

Problem = tuple[list[float], list[bool], int]


def divergence_nat(counts: tuple[int, ...], target: list[float]) -> float:
    """KL(counts / n ‖ target), written out."""
    total = sum(counts)
    return sum(n / total * math.log(n / total / q) for n, q in zip(counts, target, strict=True) if n)


def makeable(total: int, available: list[bool]) -> Iterator[tuple[int, ...]]:
    """All counts of the available classes that sum to `total`."""
    if len(available) == 1:
        if available[0] or total == 0:
            yield (total,)
        return
    for first in range(total + 1 if available[0] else 1):
        for rest in makeable(total - first, available[1:]):
            yield (first, *rest)


@st.composite
def problem(draw: st.DrawFn) -> Problem:
    """A distribution with common and rare classes, which of them can be made, and how many samples."""
    classes = draw(st.integers(1, 5))
    weights = draw(st.lists(st.floats(1e-4, 1.0), min_size=classes, max_size=classes))
    available = draw(st.lists(st.booleans(), min_size=classes, max_size=classes).filter(any))
    return [weight / sum(weights) for weight in weights], available, draw(st.integers(1, 12))


@settings(max_examples=150)
@given(problem())
@example(([0.82, 0.06, 0.06, 0.06], [True] * 4, 10))  # seven of the common class, where its share is 8.2
def test_closest_counts_are_the_best_that_can_be_made(given_problem: Problem) -> None:
    target, available, count = given_problem
    counts = closest_counts(np.array(target), count, np.array(available))
    assert counts.sum() == count
    assert not counts[~np.array(available)].any()
    best = min(divergence_nat(some, target) for some in makeable(count, available))
    assert divergence_nat(tuple(counts.tolist()), target) <= best + 1e-12


def test_a_common_class_gives_way_to_rare_ones() -> None:
    """Rounding its share down and sharing out the rest would leave a rare class out."""
    target = np.array([0.82, 0.06, 0.06, 0.06])
    assert closest_counts(target, 10, np.ones(4, dtype=bool)).tolist() == [7, 1, 1, 1]


@settings(max_examples=100)
@given(problem(), st.floats(0.0, 2.0))
def test_the_most_even_distribution_within_a_budget_spends_no_more_than_it_must(
    given_problem: Problem, budget_nat: float
) -> None:
    target, available, _ = given_problem
    belief, can = np.array(target), np.array(available)
    made = within_budget(belief, can, budget_nat)
    closest, uniform = np.where(can, belief, 0) / belief[can].sum(), can / can.sum()
    least_nat, most_nat = kl_divergence_nat(closest, belief), kl_divergence_nat(uniform, belief)
    assert made.sum() == pytest.approx(1)
    assert not made[~can].any()
    spent_nat = kl_divergence_nat(made, belief)
    assert spent_nat == pytest.approx(min(max(budget_nat, least_nat), max(most_nat, least_nat)), abs=1e-9)


@settings(max_examples=60)
@given(problem(), st.floats(0.0, 1.0), st.integers(0, 2**32 - 1))
@example(([0.82, 0.12, 0.06], [True] * 3, 1), 0.1, 0)
def test_no_other_distribution_within_the_budget_is_more_even(
    given_problem: Problem, budget_nat: float, seed: int
) -> None:
    target, available, _ = given_problem
    belief, can = np.array(target), np.array(available)
    made = within_budget(belief, can, budget_nat)
    allowed_nat = max(budget_nat, kl_divergence_nat(made, belief))
    others = np.random.default_rng(seed).dirichlet(np.ones(can.sum()), 200)
    for share in np.geomspace(1e-3, 1, 10):  # near it and far from it
        for other in (1 - share) * made[can] + share * others:
            if kl_divergence_nat(other, belief[can]) <= allowed_nat:
                assert entropy_nat(other) <= entropy_nat(made[can]) + 1e-9


def entropy_nat(p: np.ndarray) -> float:
    own = p[p > 0]
    return float(-np.sum(own * np.log(own)))


@settings(max_examples=100)
@given(problem(), problem())
def test_a_divergence_is_zero_between_equals_alone(one: Problem, other: Problem) -> None:
    p, q = smoothed(np.array(one[0]), 0.01), smoothed(np.array(one[0])[::-1].copy(), 0.01)
    assert kl_divergence_nat(p, p) == 0
    assert kl_divergence_nat(p, q) >= -1e-15
    if not np.allclose(p, q, atol=1e-4):
        assert kl_divergence_nat(p, q) > 0


def test_a_divergence_by_hand() -> None:
    p, q = np.array([0.5, 0.5, 0.0]), np.array([0.25, 0.5, 0.25])
    assert kl_divergence_nat(p, q) == pytest.approx(0.5 * math.log(2))
    np.testing.assert_allclose(smoothed(np.array([3.0, 1.0]), 0.1), [0.9 * 0.75 + 0.05, 0.9 * 0.25 + 0.05])
