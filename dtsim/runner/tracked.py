"""What a tracker is told about a run, and how each tracker is told."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

from dtsim.results.folders import read_run
from dtsim.results.formats import read_table
from dtsim.results.names import FRAMES, LEARNING_CURVE, RESULT, SLOTS

_OF_FRAMES = ("accuracy", "breakout", "retrain", "retrain_flop", "average_accuracy", "forgetting")


class Tracked:
    """A finished run, read from its folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.name = "-".join(folder.parts[-3:])

    def place(self, folder: str | None, name: str = ".") -> Path:
        """`folder`, else `name` in the folder of all outputs."""
        return self.folder.parents[2] / name if folder is None else Path(folder).expanduser()

    @cached_property
    def config(self) -> dict[str, Any]:
        """Every key, dotted, with a number, a text, or a list as text."""
        return dict(_flat(json.loads((self.folder / RESULT).read_text())["config"]))

    @cached_property
    def metrics(self) -> dict[str, float]:
        """The numbers of run.csv."""
        return {key: value for key, value in read_run(self.folder).items() if _is_number(value)}  # type: ignore[misc]

    def rows(self) -> Iterator[tuple[str, int, dict[str, float]]]:
        """(axis, step, value of each series there): frames, slots, and the training steps of each phase."""
        frames = read_table(self.folder / FRAMES).groupby("frame")[list(_OF_FRAMES)].mean()
        slots = read_table(self.folder / SLOTS).groupby("slot").agg({"delay_s": "max", "accuracy": "mean"})
        curve = read_table(self.folder / LEARNING_CURVE)
        axes = {"frame": frames, "slot": slots.rename(columns={"delay_s": "makespan_s"})}
        for phase, found in curve.groupby("phase"):
            axes[str(phase)] = found.pivot_table(index="step", columns="metric", values="value", aggfunc="mean")
        for axis, table in axes.items():
            for step, row in zip(table.index, table.to_dict("records"), strict=True):
                yield axis, int(step), {f"{axis}/{key}": float(v) for key, v in row.items() if _is_number(v)}


def _flat(node: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in node.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value if isinstance(value, bool | int | float | str) else json.dumps(value)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def _tensorboard(keys: dict[str, Any], run: Tracked) -> None:
    from torch.utils.tensorboard import SummaryWriter

    folder = run.place(keys["folder"], "tensorboard").joinpath(*run.folder.parts[-3:])
    with SummaryWriter(str(folder)) as writer:
        summary = {f"run/{key}": value for key, value in run.metrics.items()}
        writer.add_hparams(run.config, summary, run_name=".")
        for _, step, values in run.rows():
            for name, value in values.items():
                writer.add_scalar(name, value, step)


def _mlflow(keys: dict[str, Any], run: Tracked) -> None:
    import mlflow

    if keys["uri"] is not None:
        mlflow.set_tracking_uri(keys["uri"])
    mlflow.set_experiment(keys["experiment"])
    with mlflow.start_run(run_name=run.name):
        pairs = list(run.config.items())
        for start in range(0, len(pairs), 100):  # the most that it takes at a time
            mlflow.log_params(dict(pairs[start : start + 100]))
        mlflow.log_metrics(run.metrics)
        for _, step, values in run.rows():
            mlflow.log_metrics(values, step=step)


def _trackio(keys: dict[str, Any], run: Tracked) -> None:
    import trackio

    trackio.init(project=keys["project"], name=run.name, space_id=keys["space"], config=run.config)
    try:
        for axis, step, values in run.rows():
            trackio.log({axis: step, **values})
        trackio.log({f"run/{key}": value for key, value in run.metrics.items()})
    finally:
        trackio.finish()


def _wandb(keys: dict[str, Any], run: Tracked) -> None:
    import wandb

    own = {"project": keys["project"], "mode": keys["mode"], "dir": str(run.place(keys["folder"]))}
    with wandb.init(name=run.name, config=run.config, **own) as logged:
        axes: set[str] = set()
        for axis, step, values in run.rows():
            if axis not in axes:
                axes.add(axis)
                logged.define_metric(f"{axis}/*", step_metric=axis)
            logged.log({axis: step, **values})
        logged.summary.update(run.metrics)


SENDERS: dict[str, Callable[[dict[str, Any], Tracked], None]] = {
    "tensorboard": _tensorboard, "mlflow": _mlflow, "trackio": _trackio, "wandb": _wandb,
}  # fmt: skip
"""What tells each tracker about a run; its library is imported there alone."""
