"""Allocators in time that passes: delays of tasks, training that is overdue, and the largest stable load."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dtsim.allocation.allocator import Allocator, prepared
from dtsim.allocation.gym.queue_frames import QueueRules
from dtsim.allocation.queues.queue_problem import serve_queues
from dtsim.bench.output import show, tell, write_csv
from dtsim.bench.queue_worlds import Hours, TaskOutcome, largest_stable_loads, passed
from dtsim.core.cache import Cache
from dtsim.core.parts import ConfigError
from dtsim.core.progress import Progress
from dtsim.core.seeding import single_thread
from dtsim.reporting.statistics import mean_interval
from dtsim.runner.jobs import plan
from dtsim.runner.parts import Parts, mirror_of

ALLOCATORS = ("equal", "proportional", "optimal", "max_weight", "drift_plus_penalty", "queue_ddpg", "queue_sac")
_KEYS = ("time=contiguous",)
"""The contiguous world's slots, before the user's own keys."""
_LOADS = {"light": 0.4, "critical": 0.7, "overloaded": 1.0}
"""Part of the compute of all BSs and MUs that inference and training ask for."""
_DEADLINE_S = 0.1
_TRAINING = 0.3
_MOST_LOAD, _HALVINGS, _GROWTH = 16.0, 8, 0.01
_REFERENCE = "drift_plus_penalty"
_STABLE_TITLE = "Largest stable load"
"""At which what waits or is overdue grows by at most `_GROWTH` of what comes; mean over a seed's worlds."""
_TITLE = "A learned policy less a rule, means over seeds with 95 % intervals; below 0 the policy is better"
_METRICS = ("delay_mean_s", "delay_p95_s", "misses", "overdue_slots", "trained", "backlog_flop")
_COMPARED = ("delay_mean_s", "delay_p95_s", "misses", "overdue_slots")
"""What learned policies are compared in; less is better."""


def bench(
    *, allocators: Sequence[str], seeds: int, worlds: int, frames: int, overrides: Sequence[str], progress: Progress
) -> Path:
    """Measure `allocators` (names in conf/allocator; empty: `ALLOCATORS`) in the same worlds; print tables, return CSV.

    A seed has `worlds` networks of the twin's copy, in which positions stay and training jobs arrive with each of
    `frames` frames.

    Raises:
        ConfigError: if a value is invalid.
    """
    single_thread()
    given = {"seeds": (seeds, 2), "worlds": (worlds, 1), "frames": (frames, 1)}
    if faults := [f"{name}={value}: must be >= {least}" for name, (value, least) in given.items() if value < least]:
        raise ConfigError(faults)
    configs = {
        name: plan([f"allocator={name}", *_KEYS, *overrides], runs=False).jobs[0].config
        for name in allocators or ALLOCATORS
    }
    config = next(iter(configs.values()))
    mirror, cache = mirror_of(config), Cache(config.cache_folder, progress)
    rules = QueueRules(slot_s=float(config.time["slot_s"]), horizon=config.slots_per_frame, training=_TRAINING)
    hours = Hours.drawn(mirror, users=config.mu, seeds=seeds, worlds=worlds, frames=frames, rules=rules)
    loads = {
        level: (asked * hours.capacity_flops - hours.training_flops) / hours.inference_flops
        for level, asked in _LOADS.items()
    }
    if min(loads.values()) <= 0:
        raise ConfigError(["topology.station_flops: training alone asks for all that the light load may"])
    contenders: dict[str, Allocator] = {}
    for name, own in configs.items():
        contenders[name] = Parts(own).allocator
        progress.say(f"allocator {name}")
        prepared(contenders[name], mirror, cache, progress)
    rows: list[dict[str, Any]] = []
    with progress.phase("hours", len(contenders) * (len(_LOADS) + _HALVINGS)) as phase:
        for name, allocator in contenders.items():
            serve = partial(serve_queues, allocator)
            for level, load in loads.items():
                rows += _rows(name, level, load, measures(hours, passed(hours, serve, load)))
                phase.advance(1, name)
            stable = largest_stable_loads(hours, serve, most=_MOST_LOAD, halvings=_HALVINGS, growth=_GROWTH)
            rows += _rows(name, "stable", None, {"stable_load": stable.mean(-1)})
            phase.advance(_HALVINGS, name)
    rivals = [name for name in contenders if hasattr(contenders[name], "contiguous_only")]
    ruled = [name for name in contenders if name not in rivals]
    compared = [row for name in rivals for row in _compared(rows, name, ruled)]
    path = Path(config.outputs) / "bench" / "contiguous.csv"
    write_csv(path, rows)
    for level in _LOADS:
        show(f"{level}: {_LOADS[level]:.0%} of all compute is asked for", _shown(rows, contenders, level))
    show(_STABLE_TITLE, _stable(rows, contenders))
    notes = [f"written: {path}"]
    if compared:
        beside = path.with_name("contiguous_compared.csv")
        write_csv(beside, compared)
        show(_TITLE, _told(compared))
        notes.append(f"written: {beside}")
    tell(notes)
    return path


def measures(hours: Hours, outcome: TaskOutcome) -> dict[str, Tensor]:
    """Numbers of every seed [S]: delays of tasks in s, the share of them beyond 0.1 s, training behind its pace in
    slots of that pace and mean over MUs with a job, the share of training done, and the backlog at the end in FLOP of
    an MU."""

    def of_seeds(values: Tensor) -> Tensor:
        """[S, …] of [T, S W, K]."""
        split: Tensor = values.unflatten(1, (hours.seeds, -1))
        return split.movedim(1, 0).flatten(1)

    delay_s = of_seeds(outcome.delay_s)
    pace = hours.job_flop / hours.horizon
    has_job = (pace > 0).expand_as(outcome.overdue_flop)
    behind = torch.where(has_job, outcome.overdue_flop / torch.where(pace > 0, pace, 1.0), 0.0)
    jobs = of_seeds(has_job.double()).sum(-1).clamp(min=1.0)
    return {
        "delay_mean_s": delay_s.mean(-1),
        "delay_p95_s": delay_s.quantile(0.95, dim=-1),
        "misses": (delay_s > _DEADLINE_S * (1 + 1e-9)).double().mean(-1),
        "overdue_slots": of_seeds(behind).sum(-1) / jobs,
        "trained": (outcome.trained * pace).view(hours.seeds, -1).sum(-1) / pace.view(hours.seeds, -1).sum(-1),
        "backlog_flop": outcome.backlog_flop[-1].view(hours.seeds, -1).mean(-1),
    }


def _rows(name: str, level: str, load: float | None, measured: Mapping[str, Tensor]) -> list[dict[str, Any]]:
    return [
        {"allocator": name, "level": level, "load": load, "seed": seed, "metric": metric, "value": value}
        for metric, values in measured.items()
        for seed, value in enumerate(values.tolist())
    ]


def _of(rows: Sequence[Mapping[str, Any]], allocator: str, level: str, metric: str) -> list[float]:
    wanted = (allocator, level, metric)
    return [row["value"] for row in rows if (row["allocator"], row["level"], row["metric"]) == wanted]


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _compared(rows: Sequence[Mapping[str, Any]], learned: str, ruled: Sequence[str]) -> list[dict[str, Any]]:
    """A learned policy, seed by seed, against drift plus penalty and against the rule that is best in each number."""
    compared = []
    for level in _LOADS:
        for metric in _COMPARED:
            own = _of(rows, learned, level, metric)
            means = {name: _mean(_of(rows, name, level, metric)) for name in ruled}
            best = min(means, key=lambda name: means[name], default="")
            for rule in dict.fromkeys(name for name in (_REFERENCE, best) if name in ruled):
                pairs = zip(own, _of(rows, rule, level, metric), strict=True)
                mean, low, high = mean_interval([one - other for one, other in pairs])
                compared.append(
                    {
                        "learned": learned,
                        "rule": rule,
                        "best_rule": rule == best,
                        "level": level,
                        "metric": metric,
                        "difference": mean,
                        "low": low,
                        "high": high,
                    }
                )
    return compared


def _shown(rows: Sequence[Mapping[str, Any]], names: Iterable[str], level: str) -> list[dict[str, str]]:
    shown = []
    for name in names:
        mean = {metric: _mean(_of(rows, name, level, metric)) for metric in _METRICS}
        shown.append(
            {
                "allocator": name,
                "delay (ms)": f"{1e3 * mean['delay_mean_s']:.1f}",
                "p95 (ms)": f"{1e3 * mean['delay_p95_s']:.0f}",
                f"> {1e3 * _DEADLINE_S:.0f} ms": f"{mean['misses']:.1%}",
                "overdue (slots)": f"{mean['overdue_slots']:.2f}",
                "trained": f"{mean['trained']:.1%}",
                "backlog (GFLOP)": f"{mean['backlog_flop'] / 1e9:.3f}",
            }
        )
    return shown


def _stable(rows: Sequence[Mapping[str, Any]], names: Iterable[str]) -> list[dict[str, str]]:
    shown = []
    for name in names:
        mean, low, high = mean_interval(_of(rows, name, "stable", "stable_load"))
        shown.append({"allocator": name, "load": f"{mean:.2f}", "95 %": f"{low:.2f} to {high:.2f}"})
    return shown


def _told(compared: Sequence[Mapping[str, Any]]) -> list[dict[str, str]]:
    return [
        {
            "learned": row["learned"],
            "rule": row["rule"] + (" (best)" if row["best_rule"] else ""),
            "load": row["level"],
            "number": row["metric"],
            "difference": f"{row['difference']:+.4f}",
            "95 %": f"{row['low']:+.4f} to {row['high']:+.4f}",
            "": _verdict(row["low"], row["high"]),
        }
        for row in compared
    ]


def _verdict(low: float, high: float) -> str:
    return "better" if high < 0 else "worse" if low > 0 else "open"
