"""How well the twin predicts: one run decides by its own predictor while all the others watch and predict too."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from torch import nn

from dtsim.core.parts import build
from dtsim.learning.training import accuracy
from dtsim.results.summary import calibration_error, retrain_errors
from dtsim.runner import experiment
from dtsim.runner.config import Config
from dtsim.simulation.retrainer import Retrainer, held_out_hits
from dtsim.simulation.world import World
from dtsim.twin.predictor import Predictor, Situation, held_out_for


@dataclass(frozen=True)
class Task:
    """One run that all predictors watch."""

    drift: str
    config: Config
    predictors: Mapping[str, dict[str, Any]]
    """Their configuration groups, by name."""


class _Panel:
    """Decides as `decider` does and keeps what every watcher would have predicted, whose work is not charged."""

    def __init__(self, retrainer: Retrainer, watchers: Mapping[str, Predictor]) -> None:
        self.decider = retrainer.predictor
        self.retrainer = retrainer
        self.watchers = watchers
        self.predicted: dict[str, list[np.ndarray]] = {name: [] for name in watchers}

    def predict(self, situation: Situation) -> np.ndarray:
        learners, store = self.retrainer.learners, self.retrainer.twin.store
        free = replace(situation, held_out=lambda: held_out_hits(learners, store, situation.region))
        for name, watcher in self.watchers.items():
            self.predicted[name].append(watcher.predict(free))
        return self.decider.predict(situation)

    def observe(self, situation: Situation, correct: np.ndarray, images: np.ndarray) -> None:
        self.decider.observe(situation, correct, images)
        for watcher in self.watchers.values():
            watcher.observe(situation, correct, images)


def _base_accuracy(world: World, model: nn.Module) -> float:
    """What every predictor starts from: the base model's accuracy at home."""
    data = world.splits.validation
    images = data.images if world.features is None else world.features.of(data, world.drift.home)
    return accuracy(model, images, data.labels)


def measure(task: Task) -> list[dict[str, Any]]:
    """A row for every predictor: its errors over all MU-frames, against what untouched models would have done."""
    simulation = experiment.assemble(task.config)
    retrainer, store = simulation.retrainer, simulation.twin.store
    parts = {name: build(node, "twin.predictor") for name, node in task.predictors.items()}
    # What the watchers' scores need is held out of everything, so the run trains on that much less.
    store.holdout_share, store.holdout_samples = held_out_for(parts.values())
    base = _base_accuracy(simulation.world, simulation.learners.base)
    panel = _Panel(retrainer, {name: part.build(base) for name, part in parts.items()})
    retrainer.predictor = panel
    simulation.run(task.config.frames)
    frames = simulation.records.table("frames.csv")
    actual = frames["accuracy_without_update"].to_numpy()
    known = np.isfinite(actual)
    later = known & (frames["frame"] > 0).to_numpy()
    threshold = task.config.accuracy_threshold
    rows = []
    for name in parts:
        predicted = np.concatenate(panel.predicted[name])
        updates = predicted < threshold
        false, missed = retrain_errors(updates[known], actual[known], threshold)
        rows.append(
            {
                "drift": task.drift,
                "seed": task.config.seed,
                "predictor": name,
                "mae": np.abs(predicted - actual)[known].mean(),
                "mae_after_first_frame": np.abs(predicted - actual)[later].mean(),
                "calibration_error": calibration_error(predicted[known], actual[known]),
                "false_retrain_rate": false,
                "missed_retrain_rate": missed,
                "wrong_decision_rate": (updates != (actual < threshold))[known].mean(),
                "below_threshold": (actual < threshold)[known].mean(),
            }
        )
    return rows
