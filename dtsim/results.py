"""What a run leaves behind: tidy CSV and one JSON. The only seam between running and reading.

Every column of every file is named here, with its meaning and unit. A file appears with all others at once, by the
rename of a finished folder: a folder that holds `result.json` is a whole result.
"""

from __future__ import annotations

import json
import platform
import shutil
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from dtsim.cache import naming
from dtsim.config import Config
from dtsim.learning.models import ModelCost
from dtsim.physical.topology import Topology

_RUN = {
    "scheme": "the scheme's name",
    "mu": "number of mobile users K",
    "seed": "the world's random seed",
}

SCHEMAS: dict[str, dict[str, str]] = {
    "slots.csv": {  # an MU in a slot
        **_RUN,
        "frame": "frame n, from 0",
        "slot": "slot t, from 0 over the whole run",
        "user": "MU k, from 0",
        "station": "BS that serves it, from 0",
        "region": "region that it is in, from 0",
        "x_m": "position, m",
        "y_m": "position, m",
        "snr_db": "SNR at its BS, eq. (1), dB",
        "rate_bps": "uplink rate to its BS, eq. (2), bit/s",
        "captured_bytes": "D_k, byte",
        "upload_bytes": "D_k^up, byte",
        "local_flops": "compute of the MU, FLOP/s",
        "compute_flops": "f_mk, compute that the BS gives it, FLOP/s",
        "station_flops": "F_m, compute of its BS, FLOP/s",
        "flop_per_byte": "c, FLOP/byte",
        "retrain_flop": "W_k, retraining work charged to this slot, eq. (10), FLOP",
        "upload_delay_s": "T^tx with the fixed return delay, eq. (3), s",
        "downlink_delay_s": "the fixed return delay within upload_delay_s, s",
        "compute_delay_s": "T^cmp, eq. (5), s",
        "retrain_delay_s": "T^re, eq. (10), s",
        "local_delay_s": "T^loc, eq. (4), s",
        "delay_s": "T_k = max(local, upload + compute + retrain), s",
        "images": "images captured and inferred",
        "correct": "of these, inferred right",
        "accuracy": "A_k(t) = correct / images (empty without an image)",
        "retrain": "1 where the MU's model was updated at the start of this slot's decision window",
        "model_age_frames": "frames since the model was last updated",
        "breakout": "1 where accuracy is below the threshold",
        "objective_optimum_s": "system delay of the exact optimum of this slot's P3, s",
    },
    "frames.csv": {  # an MU in a frame
        **_RUN,
        "frame": "frame n, from 0",
        "user": "MU k, from 0",
        "station": "BS that serves it (in the frame's last slot)",
        "region": "region that it is in",
        "predicted_accuracy": "accuracy that (15) compared with the threshold (in the frame's first decision)",
        "accuracy": "frame accuracy, eq. (13)",
        "retrain": "updates of the MU's model in the frame",
        "diverged": "updates whose training failed, charged all the same: the old model served on",
        "samples_real": "uploaded samples that the updates used",
        "samples_generated": "generated samples that the updates used",
        "kl": "KL(P || Q) of the generated data, nat (mean over the updates; empty without any)",
        "retrain_flop": "retraining work charged in the frame, FLOP",
        "generator_flop": "work of the generator itself, fitting and sampling (in retrain_flop if charge=all), FLOP",
        "prediction_flop": "work of predicting the accuracy (in retrain_flop if charge=all), FLOP",
        "accuracy_without_update": "frame accuracy without this frame's update (empty: updates decided every slot)",
        "breakout": "1 where the frame accuracy is below the threshold",
        "average_accuracy": "its model's accuracy on held-out images at the frame's end, mean over the regions visited",
        "forgetting": "best earlier accuracy minus the present one, mean over the earlier regions (empty without any)",
        "backward_transfer": "present accuracy minus that when the region was left, mean over the earlier regions "
        "(empty without any)",
    },
    "drift.csv": {  # where an MU was in a frame: `drift.schedule` reads it
        **_RUN,
        "frame": "frame n, from 0",
        "user": "MU k, from 0",
        "region": "region that it was in, from 0",
    },
    "regions.csv": {  # a class in a region: `drift.distributions` reads it
        **_RUN,
        "region": "region, from 0",
        "class": "class of the data set, from 0",
        "probability": "of this class among the region's images",
    },
    "associations.csv": {  # an association that was solved
        **_RUN,
        "frame": "frame n, from 0",
        "slot": "slot t, from 0 over the whole run",
        "solver": "who solved it",
        "objective_s": "z of the association, s",
        "bound_s": "proven lower bound on z, s",
        "gap": "(objective - bound) / objective",
        "solve_time_s": "wall time, s",
        "status": "optimal | feasible | heuristic",
    },
    "run.csv": {  # a run
        **_RUN,
        "objective": "makespan | sum",
        "system_delay_mean_s": "system delay, mean over slots, s",
        "system_delay_p95_s": "system delay, 95th percentile over slots, s",
        "makespan_mean_s": "max_k T_k, mean over slots, s",
        "sum_delay_mean_s": "sum over BSs of their slowest user's delay, mean over slots, s",
        "user_delay_mean_s": "T_k, mean over MU-slots, s",
        "user_delay_p95_s": "T_k, 95th percentile over MU-slots, s",
        "accuracy_mean": "mean over MU-slots",
        "breakout_rate": "share of MU-slots below the threshold",
        "frame_breakout_rate": "share of MU-frames below the threshold",
        "retrains": "updates of any model",
        "diverged_updates": "updates whose training failed, charged all the same: the old model served on",
        "retrain_flop": "retraining work charged, FLOP",
        "average_accuracy": "of frames.csv at the end of the run, mean over MUs",
        "forgetting": "of frames.csv at the end of the run, mean over MUs that have an earlier region",
        "backward_transfer": "of frames.csv at the end of the run, mean over MUs that have an earlier region",
        "prediction_mae": "mean absolute error of predicted_accuracy over the MU-frames without an update",
        "prediction_calibration_error": "expected calibration error of predicted_accuracy against "
        "accuracy_without_update, ten bins of equal width (Naeini et al. 2015)",
        "false_retrain_rate": "of the MU-frames at or above the threshold without an update, the share updated",
        "missed_retrain_rate": "of the MU-frames below the threshold without an update, the share not updated",
        "allocator": "who solved P3",
        "allocator_gap_mean": "mean over slots of system delay / optimum - 1",
        "association_gap_mean": "mean gap of the associations",
        "wall_time_s": "the whole run, s",
        "data_wall_time_s": "reading the images, s",
        "pretraining_wall_time_s": "training or loading the base model, s",
        "allocator_wall_time_s": "training or loading the policy, s",
        "simulation_wall_time_s": "all frames, s",
    },
    "learning_curve.csv": {  # a training step that was measured
        **_RUN,
        "phase": "pretrain | incremental | from_scratch | allocator",
        "user": "MU k (empty where there is none)",
        "frame": "frame n of an update (empty outside the frames)",
        "slot": "slot t that an update came before (empty outside the frames)",
        "step": "training step within the phase, or within the update",
        "epoch": "epochs of the update behind it (empty outside the frames)",
        "flop": "training work of the update up to here, charged or not, FLOP (empty outside the frames)",
        "seconds": "wall time since the phase began, s",
        "metric": "loss (mean since the row before) | accuracy (of an update: on held-out images of the MU's region; "
        "at epoch 0 that of the model that served before) | gap | updates | gap_equal | gap_proportional "
        "(of the allocators to compare with)",
        "value": "its value",
    },
}


@dataclass
class Records:
    """Rows as a run goes along, by file; a row maps column to a value or to one value for each MU."""

    rows: dict[str, list[pd.DataFrame]] = field(default_factory=dict)
    wall_times_s: dict[str, float] = field(default_factory=dict)
    """Wall time by phase."""

    @contextmanager
    def timed(self, phase: str) -> Iterator[None]:
        """Take the wall time of `phase`."""
        start = time.perf_counter()
        yield
        self.wall_times_s[phase] = time.perf_counter() - start

    def add(self, file: str, **columns: Any) -> None:
        """Add one row to `file`, or several where columns are arrays (scalars are repeated)."""
        scalar = all(np.ndim(value) == 0 for value in columns.values())
        self.rows.setdefault(file, []).append(pd.DataFrame(columns, index=[0] if scalar else None))

    def extend(self, file: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """Add `rows` to `file`."""
        if rows:
            self.rows.setdefault(file, []).append(pd.DataFrame(rows))

    def table(self, file: str) -> pd.DataFrame:
        """All rows of `file`, in its schema's columns that are not the run's own."""
        columns = [column for column in SCHEMAS[file] if column not in _RUN]
        parts = self.rows.get(file)
        if not parts:
            return pd.DataFrame(columns=columns)
        # Rows of one file may come from phases that know different columns.
        return pd.concat([part.reindex(columns=columns, fill_value="") for part in parts], ignore_index=True)


def percentile_95(values: pd.Series) -> float:
    """95th percentile with linear interpolation."""
    return float(values.quantile(0.95))


def system_delays_s(slots: pd.DataFrame) -> pd.DataFrame:
    """System delay of every slot under both objectives; columns `makespan`, `sum`; one row a slot."""
    slowest = slots.groupby(["slot", "station"])["delay_s"].max()  # of each BS's users
    return pd.DataFrame({"makespan": slowest.groupby("slot").max(), "sum": slowest.groupby("slot").sum()})


def calibration_error(predicted: np.ndarray, actual: np.ndarray, bins: int = 10) -> float:
    """Expected calibration error of predictions in [0, 1]; NaN where there are none.

    |mean prediction − mean outcome| in bins of equal width of the prediction, weighted by how many fall into each
    (Naeini, Cooper and Hauskrecht 2015); here an outcome is a frame's accuracy. [n] each.
    """
    if not len(predicted):
        return float("nan")
    place = np.minimum((predicted * bins).astype(np.int64), bins - 1)
    excess = np.bincount(place, weights=predicted - actual, minlength=bins)
    return float(np.abs(excess).sum() / len(predicted))


def retrain_errors(updated: np.ndarray, without_update: np.ndarray, threshold: float) -> tuple[float, float]:
    """False and missed retraining rates: of updates that were not needed, and of those needed that were not made.

    Needed is an update of a model whose accuracy without it is below `threshold`. The false rate is the share updated
    of those that need none, the missed one the share not updated of those that need one; NaN of none. [n] each.
    """
    needed = without_update < threshold
    updated = updated.astype(bool)
    false = updated[~needed].mean() if (~needed).any() else float("nan")
    missed = (~updated[needed]).mean() if needed.any() else float("nan")
    return float(false), float(missed)


def summary(records: Records, objective: str, allocator: str, threshold: float) -> dict[str, Any]:
    """The row of `run.csv`, without the run's own columns."""
    slots, frames = records.table("slots.csv"), records.table("frames.csv")
    delays = system_delays_s(slots)
    delay = delays[objective]
    optimum = slots.groupby("slot")["objective_optimum_s"].first()
    kept = frames[frames["retrain"] == 0]
    last = frames[frames["frame"] == frames["frame"].max()]
    known = frames[frames["accuracy_without_update"].notna()]
    judged = known[known["predicted_accuracy"].notna()]
    false, missed = retrain_errors(known["retrain"].to_numpy(), known["accuracy_without_update"].to_numpy(), threshold)
    return {
        "objective": objective,
        "system_delay_mean_s": delay.mean(),
        "system_delay_p95_s": percentile_95(delay),
        "makespan_mean_s": delays["makespan"].mean(),
        "sum_delay_mean_s": delays["sum"].mean(),
        "user_delay_mean_s": slots["delay_s"].mean(),
        "user_delay_p95_s": percentile_95(slots["delay_s"]),
        "accuracy_mean": slots["accuracy"].mean(),
        "breakout_rate": slots["breakout"].mean(),
        "frame_breakout_rate": frames["breakout"].mean(),
        "retrains": int(frames["retrain"].sum()),
        "diverged_updates": int(frames["diverged"].sum()),
        "retrain_flop": slots["retrain_flop"].sum(),
        **last[["average_accuracy", "forgetting", "backward_transfer"]].mean(),
        "prediction_mae": (kept["predicted_accuracy"] - kept["accuracy"]).abs().mean(),
        "prediction_calibration_error": calibration_error(
            judged["predicted_accuracy"].to_numpy(), judged["accuracy_without_update"].to_numpy()
        ),
        "false_retrain_rate": false,
        "missed_retrain_rate": missed,
        "allocator": allocator,
        "allocator_gap_mean": (delay / optimum - 1).mean(),
        "association_gap_mean": records.table("associations.csv")["gap"].mean(),
        "wall_time_s": sum(records.wall_times_s.values()),
        **{f"{phase}_wall_time_s": seconds for phase, seconds in records.wall_times_s.items()},
    }


def versions() -> dict[str, str]:
    """What the last bits of results depend on: Python, packages, and the instructions that torch uses on this CPU."""
    found = {"python": platform.python_version(), "cpu": torch.backends.cpu.get_cpu_capability()}
    for name in ("dtsim", "torch", "torchvision", "tianshou", "ortools", "highspy", "numpy", "hydra-core"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found


def write(config: Config, records: Records, *, model: ModelCost, topology: Topology) -> Path:
    """Write all files of a run at once; return its folder.

    Raises:
        OSError: where they cannot be written; it names the folder. Nothing is left that looks finished.
    """
    folder = config.folder
    scratch, old = (folder.with_name(f".{folder.name}.{what}") for what in ("new", "old"))
    try:
        with naming(folder):
            _write_all(scratch, config, records, model, topology)
            if folder.exists():  # a failed run, or one that is redone; deleted piece by piece it would pass for whole
                folder.rename(old)
            scratch.rename(folder)
    finally:
        for left in (scratch, old):
            shutil.rmtree(left, ignore_errors=True)
    return folder


def _write_all(scratch: Path, config: Config, records: Records, model: ModelCost, topology: Topology) -> None:
    scratch.mkdir(parents=True)
    own = {"scheme": config.scheme["name"], "mu": config.mu, "seed": config.seed}
    allocator = str(config.allocator["_target_"]).rpartition(".")[2].lower()
    records.add("run.csv", **summary(records, config.objective, allocator, config.accuracy_threshold))
    for file in SCHEMAS:
        table = records.table(file)
        for place, (column, value) in enumerate(own.items()):
            table.insert(place, column, value)
        table.to_csv(scratch / file, index=False)
    result = {
        "config": asdict(config),
        "digest": config.digest,
        "versions": versions(),
        "model": {**asdict(model), "kappa": model.kappa, "flop_per_byte": model.flop_per_byte},
        "topology": {"stations_m": topology.stations_m.tolist(), "area_m": list(topology.area_m)},
        "wall_times_s": records.wall_times_s,
    }
    (scratch / "result.json").write_text(json.dumps(result, indent=2) + "\n")


def write_failure(folder: Path, error: BaseException) -> None:
    """Leave the traceback of a failed run in its folder, where that can be written."""
    with suppress(OSError):  # a full disk may be why the run failed
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "failed").write_text("".join(traceback.format_exception(error)))
