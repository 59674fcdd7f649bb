"""What predictors know of a model's age: older than the oldest that is told apart is one age."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from dtsim.twin.predictor import BetaBinomial, PredictorPart, RegionAge, Shadow, Situation


def aged(*ages: int) -> Situation:
    """MUs in region 1 with models from region 0 of these ages; the twin holds nothing out."""
    count = len(ages)
    return Situation(
        region=np.full(count, 1),
        trained_region=np.zeros(count, dtype=np.int64),
        age_frames=np.array(ages),
        held_out=lambda: (np.zeros(count, dtype=np.int64), np.zeros(count, dtype=np.int64)),
        truth=lambda: np.full(count, np.nan),
    )


@pytest.mark.parametrize("part", [BetaBinomial(), RegionAge(), Shadow()], ids=lambda part: type(part).__name__)
def test_ages_above_the_oldest_share_a_cell(part: PredictorPart) -> None:
    """What was learned of models four frames old holds for those of forty: a run meets few of any great age."""
    learned = part.build(0.9)
    learned.observe(aged(2, 4), np.array([190, 20]), np.array([200, 200]))
    young, oldest, older, oldest_by_far = learned.predict(aged(2, 3, 4, 40))
    assert oldest == older == oldest_by_far
    assert oldest < young


def test_where_a_model_was_trained_matters_in_each_region() -> None:
    """Models from region 0 do badly in region 1 and those from region 2 do well, at an age that nobody had."""

    def of(*trained: int) -> Situation:
        return replace(aged(*[0] * len(trained)), trained_region=np.array(trained))

    learned = BetaBinomial().build(0.9)
    for _ in range(20):
        learned.observe(of(0, 2), np.array([40, 190]), np.array([200, 200]))
        elsewhere = replace(of(0, 2), region=np.array([3, 3]))
        learned.observe(elsewhere, np.array([190, 40]), np.array([200, 200]))
    older = replace(of(0, 2), age_frames=np.array([2, 2]))
    from_0, from_2 = learned.predict(older)
    assert from_0 < 0.3 < 0.9 < from_2


def test_the_oldest_age_is_a_key() -> None:
    learned = RegionAge(max_age_frames=0).build(0.9)
    learned.observe(aged(0), np.array([20]), np.array([200]))
    assert len(set(learned.predict(aged(0, 1, 9)).tolist())) == 1
    learned = RegionAge(max_age_frames=5).build(0.9)
    learned.observe(aged(4), np.array([20]), np.array([200]))
    four, five, six = learned.predict(aged(4, 5, 6))
    assert four < five == six
