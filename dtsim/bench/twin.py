"""`dtsim bench twin`: generators, predictors and the costs of eqs. (8) and (9), with 95 % intervals over seeds."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
import pandas as pd
from joblib import Parallel, delayed

from dtsim.bench import amounts, generators, predictors
from dtsim.bench.output import show, tell
from dtsim.core.cache import write_atomically
from dtsim.core.parts import ConfigError
from dtsim.core.progress import Progress
from dtsim.reporting.statistics import mean_interval
from dtsim.runner.config import Config
from dtsim.runner.defaults import choices
from dtsim.runner.jobs import plan

PARTS = ("generators", "predictors", "amounts")

INCREMENT_IMAGES = 15000
"""Increment split of the generator benchmark: a third each for the MU, the other MUs and the oracle."""


class _Task(Protocol):
    @property
    def drift(self) -> str: ...


T = TypeVar("T", bound=_Task)


def bench(
    *,
    parts: Sequence[str],
    drifts: Sequence[str],
    loop_drifts: Sequence[str],
    names: Sequence[str],
    samples: Sequence[int],
    stored: int,
    tested: int,
    seeds: int,
    first_seed: int,
    budgets: Sequence[float],
    ratios: Sequence[float],
    processes: int,
    overrides: Sequence[str],
    progress: Progress,
) -> Path:
    """Measure `parts` of the twin, print their tables and write them as CSV; return the folder.

    Args:
        parts: of `PARTS`.
        drifts: names in conf/drift, for generators and predictors.
        loop_drifts: names in conf/drift, for amounts.
        names: generators in conf/generator; empty: all that can generate data for the chosen data set.
        samples: amounts of real data N, for the generators.
        stored: number of samples that other MUs uploaded, for the generators.
        tested: number of test images of a region, for the generators.
        seeds: number of worlds; the closed loop runs in at most three of them.
        first_seed: seed of the first world.
        budgets: `generator.kl_budget_nat` to compare.
        ratios: `generator.max_ratio` under amount=kl to compare.
        processes: number of parallel processes.
        overrides: group=choice and key=value, as for a run.
        progress: shows the progress.

    Raises:
        ConfigError: if a value is invalid.
    """
    checked = [f"parts={part}: must be one of {', '.join(PARTS)}" for part in parts if part not in PARTS]
    checked += [f"samples={value}: must be >= 1" for value in samples if value < 1]
    sizes = {"stored": stored, "tested": tested, "seeds": seeds, "processes": processes}
    checked += [f"{name}={value}: must be >= 1" for name, value in sizes.items() if value < 1]
    if first_seed < 0:
        checked.append(f"first-seed={first_seed}: must be >= 0")
    if checked:
        raise ConfigError(checked)
    worlds = list(range(first_seed, first_seed + seeds))
    folder = Path(_config(overrides).outputs) / "bench" / "twin"

    if "generators" in parts:
        sized = [f"dataset.increment_images={INCREMENT_IMAGES}", "allocator=proportional", *overrides]
        tried, notes = _generators(names, sized)
        found = _run(
            generators.measure,
            [
                generators.Task(
                    drift, _config([f"drift={drift}", f"seed={seed}", *sized]), tried, samples, stored, tested
                )
                for drift in drifts
                for seed in worlds
            ],
            processes,
            progress,
            "generators",
        )
        keys = ["drift", "samples_real", "method"]
        gained = _gain(found, ["accuracy_new", "accuracy_old"], keys, "method", generators.BASELINE)
        _write(folder / "generators.csv", gained, _summary(gained, keys))
        for drift in drifts:
            _show_generators(gained[gained["drift"] == drift], drift)
        tell(notes)
    if "predictors" in parts:
        nodes = {
            name: _config([f"twin/predictor={name}", *overrides]).twin["predictor"]
            for name in choices("twin/predictor")
        }
        found = _run(
            predictors.measure,
            [
                predictors.Task(drift, config, nodes)
                for drift in drifts
                for config in _configs([f"drift={drift}", *overrides], worlds[:3])
            ],
            processes,
            progress,
            "predictors",
        )
        overall = pd.concat([found, found.assign(drift="all")])
        summary = _summary(overall, ["drift", "predictor"])
        _write(folder / "predictors.csv", found, summary)
        for name, rows in overall.groupby("drift", sort=False):
            _show(f"{name}: predicted accuracy, over all MU-frames", rows, "predictor", _PREDICTION)
            _show(f"{name}: decisions by it", rows, "predictor", _DECISIONS)
    if "amounts" in parts:
        variants: dict[str, list[str]] = {"fill": []} | {
            f"fill, budget {b:g} nat": [f"generator.kl_budget_nat={b}"] for b in budgets if b
        }
        variants |= {f"kl, rho to {r:g}": ["generator.amount=kl", f"generator.max_ratio={r}"] for r in ratios}
        closed = ["mu=10", *overrides]
        found = _run(
            amounts.measure,
            [
                amounts.Task(drift, name, config)
                for drift in loop_drifts
                for name, keys in variants.items()
                for config in _configs([f"drift={drift}", *closed, *keys], worlds[:3])
            ],
            processes,
            progress,
            "amounts",
        )
        gained = _gain(found, ["accuracy_mean", "system_delay_mean_s"], ["drift", "variant"], "variant", "fill")
        _write(folder / "amounts.csv", gained, _summary(gained, ["drift", "variant"]))
        for name, rows in gained.groupby("drift", sort=False):
            _show(f"{name}: KL budget, amount and rho in the closed loop", rows, "variant", _ACCURACY)
            _show(f"{name}: what it costs", rows, "variant", _COST)
    tell([f"written: {folder}{'/*.csv'}"])
    return folder


_PREDICTION = {
    "MAE": ("mae", 1, ".3f"),
    "after frame 0": ("mae_after_first_frame", 1, ".3f"),
    "calibration": ("calibration_error", 1, ".3f"),
}
_DECISIONS = {
    "false": ("false_retrain_rate", 1, ".2f"),
    "missed": ("missed_retrain_rate", 1, ".2f"),
    "wrong": ("wrong_decision_rate", 1, ".2f"),
}
_ACCURACY = {
    "accuracy": ("accuracy_mean", 1, ".3f"),
    "gain": ("accuracy_mean_gain", 1, "+.3f"),
    "below": ("frame_breakout_rate", 1, ".2f"),
    "forgetting": ("forgetting", 1, ".3f"),
}
_COST = {
    "delay, ms": ("system_delay_mean_s", 1e3, ".0f"),
    "difference": ("system_delay_mean_s_gain", 1e3, "+.0f"),
    "updates": ("retrains", 1, ".0f"),
    "KL, nat": ("kl_nat", 1, ".3f"),
    "generated": ("samples_generated", 1, ".0f"),
}
_ALONE = {
    "new region": ("accuracy_new", 1, ".3f"),
    "old region": ("accuracy_old", 1, ".3f"),
    "KL, nat": ("kl_nat", 1, ".4f"),
    "GFLOP": ("generator_flop", 1e-9, ".1f"),
}


def _config(overrides: Sequence[str]) -> Config:
    return plan(list(overrides), runs=False).jobs[0].config


def _configs(overrides: Sequence[str], seeds: Sequence[int]) -> list[Config]:
    """One configuration for each of `seeds`."""
    config = _config(overrides)
    return [replace(config, seed=seed) for seed in seeds]


def _generators(names: Sequence[str], overrides: Sequence[str]) -> tuple[dict[str, dict[str, Any]], list[str]]:
    """The groups of the generators `names`, and a line for each that cannot generate data for the chosen data set."""
    _config(overrides)  # raises if the configuration is invalid without any generator
    groups, notes = {}, []
    for name in names or choices("generator"):
        try:
            groups[name] = _config([f"generator={name}", *overrides]).generator
        except ConfigError as error:
            if names:
                raise
            notes += [f"{name} left out: {line}" for line in error.lines]
    if generators.BASELINE not in groups:
        groups[generators.BASELINE] = _config([f"generator={generators.BASELINE}", *overrides]).generator
    return groups, notes


def _run(
    measure: Callable[[T], list[dict[str, Any]]], tasks: Sequence[T], processes: int, progress: Progress, name: str
) -> pd.DataFrame:
    """All rows of `tasks`, in order."""
    rows = []
    with progress.phase(name, len(tasks)) as phase:
        done = Parallel(n_jobs=processes, return_as="generator")(delayed(measure)(task) for task in tasks)
        for task, found in zip(tasks, done, strict=True):
            rows += found
            phase.advance(1, task.drift)
    return pd.DataFrame(rows)


def _gain(rows: pd.DataFrame, metrics: Sequence[str], keys: Sequence[str], method: str, baseline: str) -> pd.DataFrame:
    """`rows` with a column `…_gain` for each of `metrics`: its value minus that of `baseline` in the same world."""
    same = [key for key in keys if key != method] + ["seed"]
    base = rows[rows[method] == baseline].set_index(same)[list(metrics)]
    own = rows.set_index(same)
    matched = base.reindex(own.index)
    return rows.assign(**{f"{metric}_gain": own[metric].to_numpy() - matched[metric].to_numpy() for metric in metrics})


def _summary(rows: pd.DataFrame, keys: Sequence[str]) -> pd.DataFrame:
    """One row for each value of `keys` and metric: the number of seeds, mean and 95 % interval."""
    metrics = [name for name in rows.select_dtypes("number") if name not in (*keys, "seed")]
    found = []
    for values, group in rows.groupby(list(keys), sort=False):
        for metric in metrics:
            known = group[metric].dropna()
            mean, low, high = mean_interval(known)
            row = dict(zip(keys, values, strict=True))
            found.append(row | {"metric": metric, "seeds": len(known), "mean": mean, "low": low, "high": high})
    return pd.DataFrame(found)


def _write(path: Path, rows: pd.DataFrame, summary: pd.DataFrame) -> None:
    for place, table in ((path, rows), (path.with_name(f"{path.stem}_summary.csv"), summary)):
        write_atomically(place, table.to_csv(index=False, lineterminator="\n").encode())


def _cell(values: pd.Series, scale: float, form: str) -> str:
    """Mean ± half of the 95 % interval, as text."""
    mean, low, _ = mean_interval(values.dropna())
    if np.isnan(mean):
        return "–"
    half = "" if np.isnan(low) else f"±{scale * (mean - low):{form.lstrip('+')}}"
    return f"{scale * mean:{form}}{half}"


def _show(title: str, rows: pd.DataFrame, key: str, columns: Mapping[str, tuple[str, float, str]]) -> None:
    """One row for each value of `key`; a column is a name: (metric, scale, format)."""
    table = []
    for value, group in rows.groupby(key, sort=False):
        cells = {name: _cell(group[metric], scale, form) for name, (metric, scale, form) in columns.items()}
        table.append({key: str(value)} | cells)
    show(title, table)


def _show_generators(rows: pd.DataFrame, drift: str) -> None:
    """Accuracy in both regions and gain over incremental training by N; then each generator's data alone."""
    with_real = rows[rows["samples_real"] > 0]
    for title, metric, form in (
        ("accuracy in the new region", "accuracy_new", ".3f"),
        (f"gain over {generators.BASELINE}, in the same world", "accuracy_new_gain", "+.3f"),
        ("accuracy in the old region", "accuracy_old", ".3f"),
    ):
        table = []
        for method, group in with_real.groupby("method", sort=False):
            by_count = {f"N={count}": _cell(own[metric], 1, form) for count, own in group.groupby("samples_real")}
            table.append({"method": str(method)} | by_count)
        show(f"{drift}: {title}", table)
    if len(alone := rows[rows["samples_real"] == 0]):
        _show(f"{drift}: {alone['samples_generated'].max()} generated samples alone", alone, "method", _ALONE)
