"""Quality of the twin's predictors: one run decides with its own predictor, and all others predict alongside."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from dtsim.core.parts import build
from dtsim.learning.learners import Learners
from dtsim.learning.training import accuracy
from dtsim.results.names import FRAMES
from dtsim.results.summary import calibration_error, retrain_errors
from dtsim.runner.assembly import Ground, assemble
from dtsim.runner.config import Config
from dtsim.simulation.scoring import held_out_hits
from dtsim.twin.predictor import Predictor, PredictorPart, Situation
from dtsim.twin.store import Store
from dtsim.twin.twin import Twin


@dataclass(frozen=True)
class Task:
    """One run that all predictors observe."""

    drift: str
    config: Config
    predictors: Mapping[str, dict[str, Any]]
    """Their configuration groups, by name."""


class _Panel:
    """Decides like `decider` and stores the predictions of every watcher, whose work is not charged."""

    def __init__(self, decider: Predictor, watchers: Mapping[str, Predictor], learners: Learners, store: Store) -> None:
        self.decider = decider
        self.watchers = watchers
        self.learners, self.store = learners, store
        self.predicted: dict[str, list[np.ndarray]] = {name: [] for name in watchers}

    def predict(self, situation: Situation) -> np.ndarray:
        free = replace(situation, held_out=lambda: held_out_hits(self.learners, self.store, situation.region))
        for name, watcher in self.watchers.items():
            self.predicted[name].append(watcher.predict(free))
        return self.decider.predict(situation)

    def observe(self, situation: Situation, correct: np.ndarray, images: np.ndarray) -> None:
        self.decider.observe(situation, correct, images)
        for watcher in self.watchers.values():
            watcher.observe(situation, correct, images)


def _base_accuracy(ground: Ground) -> float:
    """The initial value of every predictor: the base model's accuracy, as MUs run it, on the validation split."""
    world, data = ground.world, ground.splits.validation
    images = data.images if world.features is None else world.features.of(data, world.drift.home)
    return accuracy(ground.base.model, images, data.labels)


def measure(task: Task) -> list[dict[str, Any]]:
    """A row for every predictor: its errors over all MU-frames, measured on models without the next update."""
    parts: dict[str, PredictorPart] = {name: build(node, "twin.predictor") for name, node in task.predictors.items()}
    predicted_by: dict[str, list[np.ndarray]] = {}

    def watched(decider: Predictor, ground: Ground, learners: Learners, twin: Twin) -> Predictor:
        watchers = {name: part.build(_base_accuracy(ground)) for name, part in parts.items()}
        panel = _Panel(decider, watchers, learners, twin.store)
        predicted_by.update(panel.predicted)
        return panel

    # The watchers' scores need images that nothing is trained on, so the run trains on fewer images.
    simulation = assemble(task.config, watching=list(parts.values()), watched=watched)
    simulation.run(task.config.frames)
    frames = simulation.records.table(FRAMES)
    actual = frames["accuracy_without_update"].to_numpy()
    known = np.isfinite(actual)
    later = known & (frames["frame"] > 0).to_numpy()
    threshold = simulation.recorder.accuracy_threshold
    rows = []
    for name in parts:
        predicted = np.concatenate(predicted_by[name])
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
