"""Costs and benefits of eqs. (8) and (9) in the closed loop: KL budget, amount and ρ against accuracy and delay."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from dtsim.results.names import FRAMES
from dtsim.results.summary import summary
from dtsim.runner.assembly import assemble
from dtsim.runner.config import Config

COLUMNS = (
    "system_delay_mean_s", "accuracy_mean", "frame_breakout_rate", "forgetting", "retrains", "retrain_flop"
)  # fmt: skip
"""Columns of run.csv that are shown."""


@dataclass(frozen=True)
class Task:
    """One run."""

    drift: str
    variant: str
    config: Config


def measure(task: Task) -> list[dict[str, Any]]:
    """One row with the run.csv values of the run."""
    simulation = assemble(task.config)
    simulation.run(task.config.frames)
    row = summary(simulation.records, task.config.objective, "", simulation.recorder.accuracy_threshold)
    frames = simulation.records.table(FRAMES)
    return [
        {
            "drift": task.drift,
            "variant": task.variant,
            "seed": task.config.seed,
            **{column: row[column] for column in COLUMNS},
            "kl_nat": frames["kl"].mean(),
            "samples_generated": frames["samples_generated"].sum() / max(1, row["retrains"]),
        }
    ]
