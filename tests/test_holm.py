"""Holm's correction against his procedure, step by step."""

from __future__ import annotations

import math

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from dtsim.reporting.statistics import holm

P = st.lists(
    st.one_of(st.just(math.nan), st.floats(0.0, 1.0), st.sampled_from([0.0, 0.01, 0.02, 0.05, 1.0])), max_size=8
)


def rejected(p: list[float], level: float) -> set[int]:
    """Holm (1979): from the least p on, reject while the i-th of n is at most level / (n - i + 1)."""
    tests = sorted((value, place) for place, value in enumerate(p) if not math.isnan(value))
    found: set[int] = set()
    for i, (value, place) in enumerate(tests):
        if value * (len(tests) - i) > level:
            break
        found.add(place)
    return found


@settings(max_examples=300)
@given(P, st.sampled_from([0.01, 0.05, 0.2, 0.9]))
def test_what_is_at_most_the_level_is_what_the_procedure_rejects(p: list[float], level: float) -> None:
    corrected = holm(p)
    assert {place for place, value in enumerate(corrected) if value <= level} == rejected(p, level)


@settings(max_examples=200)
@given(P)
def test_a_corrected_p_is_one_no_smaller_and_in_the_same_order(p: list[float]) -> None:
    corrected = holm(p)
    given_p = np.array(p)
    assert corrected.shape == given_p.shape
    np.testing.assert_array_equal(np.isnan(corrected), np.isnan(given_p))
    tested = ~np.isnan(given_p)
    assert ((corrected[tested] >= given_p[tested]) & (corrected[tested] <= 1)).all()
    ordered = corrected[tested][np.argsort(given_p[tested], kind="stable")]
    assert (np.diff(ordered) >= 0).all()
    if tested.any():
        least = np.nanmin(given_p)
        assert corrected[tested].min() == min(1.0, least * tested.sum())  # the least one as Bonferroni has it
