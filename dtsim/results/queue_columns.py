"""Columns and files that a run has where time passes, beside those of every run."""

from __future__ import annotations

from dtsim.results.names import JOBS, RUN, SLOTS, TASKS
from dtsim.results.schema import OWN, SCHEMAS, Schemas


def _queue(name: str, where: str, unit: str) -> dict[str, str]:
    short = "bits" if unit == "bit" else "flop"
    return {
        f"{name}_start_{short}": f"{where}: waiting at the slot's start, before the slot's task came, {unit}",
        f"{name}_asked_{short}": f"{where}: joined in the slot, {unit}",
        f"{name}_done_{short}": f"{where}: done in the slot, {unit}",
        f"{name}_dropped_{short}": f"{where}: given up in the slot, {unit}",
        f"{name}_end_{short}": f"{where}: waiting at the slot's end, {unit}",
    }


_SLOTS = {
    "inference_flops": "compute that the BS gives to the MU's inference, FLOP/s",
    "training_flops": "compute that the BS gives to the MU's training jobs there, FLOP/s",
    **_queue("local", "inference at the MU", "FLOP"),
    **_queue("uplink", "data from the MU to its BS", "bit"),
    **_queue("station", "inference at the BS", "FLOP"),
    "training_start_flop": "training jobs: left at the slot's start, without those asked for in it, FLOP",
    "training_asked_flop": "training jobs: asked for at the slot's start, FLOP",
    "training_done_flop": "training jobs: done in the slot, FLOP",
    "training_stopped_flop": "training jobs: left undone of those stopped in the slot, FLOP",
    "training_end_flop": "training jobs: left at the slot's end, FLOP",
    "tx_j": "energy of transmission, J",
    "local_j": "energy of the MU's compute, J",
    "station_j": "energy of the BSs' compute for the MU, inference and training, J",
    "served": "scored images whose inference ended in the slot, whenever captured; correct and accuracy are of these",
    "station_version": "version of the MU's model at its BS at the slot's start, 0 is the base model",
    "mu_version": "version of the MU's model at the MU at the slot's start",
    "handover": "1 if the MU's BS changed at the slot's start",
    "backhaul_bits": "queued data and model that followed the MU, bit",
    "outcome": "of the slot's task: served | waiting (at the run's end) | dropped | none (without images)",
    "missed": "1 if the task took longer than deadline_s or was dropped (empty if unknown or none)",
}

_RUN = {
    "tasks": "tasks captured",
    "tasks_waiting": "tasks that wait at the run's end; they count with their age",
    "tasks_dropped": "tasks given up",
    "deadline_s": "deadline of a task, s",
    "deadline_miss_rate": "share of tasks that missed it, of those known",
    "handovers": "changes of an MU's BS",
    "jobs": "updates asked for",
    "jobs_done": "updates done",
    "jobs_stopped": "updates stopped",
    "stale_mean_s": "from asking for an update to its serving at the BS, mean over those done, s",
    "energy_j": "energy of transmission and compute, J",
    "energy_per_task_j": "the same per task, J",
    "cost_s": "user_delay_mean_s plus energy.weight_s_per_j times energy_per_task_j, s",
    "conservation_error": "largest |start + asked - done - dropped - end| of a queue of a user in a slot, over start + "
    "asked",
}

_JOBS = {  # a training job
    **OWN,
    "slot": "slot t at whose start it was asked for",
    "user": "MU k",
    "station": "BS that does it",
    "kind": "update, or prediction where no model came of it",
    "outcome": "done | stopped | running (at the run's end)",
    "asked_s": "asked for, s",
    "started_s": "begun, s",
    "done_s": "done, s",
    "station_from_s": "the new model serves at the MU's BS, s",
    "mu_from_s": "the new model serves at the MU, s",
    "stopped_s": "stopped, s",
    "flop": "its work, FLOP",
    "done_flop": "work done, FLOP",
    "samples_real": "uploaded samples trained on",
    "samples_generated": "generated samples trained on",
    "version": "number of the new model (empty if it came to none)",
    "accuracy_before": "accuracy of the old model on held-out images of the MU's region",
    "accuracy_after": "accuracy of the new model on the same",
}

_TASKS = {  # a task; a file only with time.tasks=true
    **OWN,
    "frame": "frame n, from 0",
    "slot": "slot t in which it was captured",
    "user": "MU k",
    "images": "images captured",
    "scored": "images scored",
    "upload_bytes": "data uploaded, byte",
    "arrival_s": "captured, s",
    "end_s": "last part done and returned, s (empty if not served)",
    "delay_s": "end minus arrival, s; its age if it waits or was dropped",
    "deadline_s": "its deadline after arrival, s",
    "outcome": "served | waiting (at the run's end) | dropped",
    "missed": "1 if it missed its deadline (empty if unknown)",
    "correct": "scored images inferred correctly",
    "station_version": "version of the model that inferred the uploaded part (empty without)",
    "mu_version": "version of the model that inferred the MU's part (empty without)",
}

MORE: Schemas = {SLOTS: _SLOTS, RUN: _RUN, JOBS: _JOBS, TASKS: _TASKS}
"""What is added to the schemas of every run."""


PASSING = {f"contiguous/{file}": columns for file, columns in MORE.items()}
"""The same, named apart from the files of every run, for their description."""


def schemas(*, tasks: bool) -> Schemas:
    """Files and columns of a run; `tasks`: with tasks.csv."""
    found: dict[str, dict[str, str]] = {file: {**columns, **MORE.get(file, {})} for file, columns in SCHEMAS.items()}
    found[JOBS] = dict(_JOBS)
    if tasks:
        found[TASKS] = dict(_TASKS)
    return found
