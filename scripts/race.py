"""Run the race between inference and retraining on one road: allocators and schemes of `experiment=driving`.

    make race        # or: python scripts/race.py

The same command resumes it. All output is below --outputs: the runs, race.csv, race.md and figures/.
Exit code 1: a run failed.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from rich.console import Console
from rich.table import Table

from dtsim.reporting import plots
from dtsim.reporting.statistics import mean_interval

sys.path.insert(0, str(Path(__file__).parent.parent))

from scripts.sweeps import Sweep, carried_out, keep, parser_of, shown_on

_RUNS = ("hydra.mode=MULTIRUN", "experiment=driving", "mu=20", "seed=0,1,2")
ALLOCATORS = ("equal", "proportional", "optimal", "max_weight", "drift_plus_penalty")
SWEEPS = (
    Sweep("allocators", (*_RUNS, "scheme=proposed", f"allocator={','.join(ALLOCATORS)}")),
    Sweep("schemes", (*_RUNS, "scheme=never_retrain,without_dt,oracle", "allocator=drift_plus_penalty")),
    Sweep("held", (*_RUNS, "scheme=without_dt", "allocator=proportional")),
    Sweep("paced", (*_RUNS, "scheme=proposed", "allocator=drift_plus_penalty", "time.train_when_idle=false")),
)
"""By setting: who shares the compute, who decides on retraining, shares that are held
for a frame, and training that gets its due and no idle compute."""

MEASURED = {
    "user_delay_mean_s": ("mean delay", 1e3, "ms"),
    "user_delay_p95_s": ("95th percentile", 1e3, "ms"),
    "deadline_miss_rate": ("missed", 100.0, "%"),
    "accuracy_mean": ("accuracy", 1.0, ""),
    "frame_breakout_rate": ("break-outs", 100.0, "%"),
    "stale_mean_s": ("stale", 1.0, "s"),
    "retrains": ("updates", 1.0, ""),
}
"""Columns of run.csv that are compared: name, scale and unit in the table."""
REFERENCE = ("allocators", "proposed", "drift_plus_penalty")
"""The choice that the others are compared with, seed by seed."""
PAIRED = {
    "user_delay_mean_s": (1.0, ".2f"),
    "deadline_miss_rate": (100.0, "+.0f"),
    "accuracy_mean": (1.0, "+.3f"),
    "frame_breakout_rate": (100.0, "+.0f"),
    "retrains": (1.0, "+.0f"),
}
"""What is compared: scale and form in the table."""
SHOWN = ("race.csv", "race_paired.csv", "figures/race-queues.png", "figures/race-stale.png")
"""Files kept for the documentation."""
KEYS = ("setting", "scheme", "allocator")


def summarised(found: pd.DataFrame) -> pd.DataFrame:
    """Mean over seeds with its 95 % interval (Student's t), a row for each setting, scheme, allocator and measure."""
    rows = []
    named = found.assign(scheme=found["config.scheme.name"], allocator=found["choice.allocator"])
    for key, group in named.groupby(list(KEYS), sort=False):
        for measure in MEASURED:
            values = group[measure].dropna().tolist()
            mean, low, high = mean_interval(values) if values else (float("nan"),) * 3
            rows.append(
                dict(zip(KEYS, key, strict=True))
                | {"measure": measure, "n": len(values), "mean": mean, "low": low, "high": high}
            )
    return pd.DataFrame(rows)


def compared(found: pd.DataFrame) -> pd.DataFrame:
    """Every choice against `REFERENCE` on the same worlds, with the 95 % interval over seeds (Student's t).

    A row for each choice and measure: the ratio of delays, on the log scale, and the differences of the others.
    """
    named = found.assign(scheme=found["config.scheme.name"], allocator=found["choice.allocator"]).set_index("seed")
    groups = dict(iter(named.groupby(list(KEYS), sort=False)))
    columns = [*KEYS, "measure", "n", "mean", "low", "high"]
    if REFERENCE not in groups:  # other overrides may leave it out
        return pd.DataFrame(columns=columns)
    reference = groups.pop(REFERENCE)
    rows = []
    for key, group in groups.items():
        for measure in PAIRED:
            both = pd.concat([group[measure], reference[measure]], axis=1, join="inner", keys=["own", "other"]).dropna()
            ratio = measure == "user_delay_mean_s"
            values = np.log(both["own"] / both["other"]) if ratio else both["own"] - both["other"]
            mean, low, high = mean_interval(values.tolist()) if len(values) else (float("nan"),) * 3
            if ratio:
                mean, low, high = math.exp(mean), math.exp(low), math.exp(high)
            rows.append(
                dict(zip(KEYS, key, strict=True))
                | {"measure": measure, "n": len(values), "mean": mean, "low": low, "high": high}
            )
    return pd.DataFrame(rows, columns=columns)


def paired(table: pd.DataFrame) -> str:
    """The comparisons in Markdown: delays as ratios, missed deadlines and break-outs in points."""
    heads = ("delay, times", "missed, points", "accuracy", "break-outs, points", "updates")
    lines = [f"| {' | '.join((*KEYS, *heads))} |", f"|{' --- |' * (len(KEYS) + len(heads))}"]
    for key, group in table.groupby(list(KEYS), sort=False):
        cells = [_difference(row) for _, row in group.set_index("measure", drop=False).loc[list(PAIRED)].iterrows()]
        lines.append(f"| {' | '.join((*map(str, key), *cells))} |")
    return "\n".join(lines) + "\n"


def _difference(row: pd.Series) -> str:
    """A ratio or a difference with its interval as text."""
    scale, form = PAIRED[row["measure"]]
    mean, low, high = (
        format(round(scale * row[name], 9), form) for name in ("mean", "low", "high")
    )  # a file rounds, too
    return f"{mean} ({low}, {high})"


def cell(row: pd.Series) -> str:
    """A mean with its interval as text."""
    _, scale, _ = MEASURED[row["measure"]]
    if not row["n"]:
        return "–"
    digits = 3 if row["measure"] == "accuracy_mean" else 1 if row["measure"] in ("stale_mean_s",) else 0
    mean, low, high = (f"{scale * row[name]:,.{digits}f}" for name in ("mean", "low", "high"))
    return f"{mean} ({low}, {high})"


def markdown(table: pd.DataFrame) -> str:
    """The table in Markdown, a line for each setting, scheme and allocator."""
    heads = [f"{name}, {unit}" if unit else name for name, _, unit in MEASURED.values()]
    lines = [f"| {' | '.join((*KEYS, *heads))} |", f"|{' --- |' * (len(KEYS) + len(heads))}"]
    for key, group in table.groupby(list(KEYS), sort=False):
        cells = [cell(row) for _, row in group.set_index("measure", drop=False).loc[list(MEASURED)].iterrows()]
        lines.append(f"| {' | '.join((*map(str, key), *cells))} |")
    return "\n".join(lines) + "\n"


def draw(found: pd.DataFrame, folder: Path) -> None:
    """Draw queues and updates of the first seed under the myopic optimum, if it was run."""
    shown = found[(found["config.scheme.name"] == "proposed") & (found["choice.allocator"] == "optimal")]
    if shown.empty:
        return
    run = str(shown.sort_values("seed").iloc[0]["folder"])
    folder.mkdir(parents=True, exist_ok=True)
    for name, figure in (("queues", plots.queues(run)), ("stale", plots.stale(run))):
        figure.savefig(folder / f"race-{name}.png", dpi=150)


def conclude(found: pd.DataFrame, outputs: Path, console: Console) -> None:
    """Write the table as CSV and Markdown and the figures, and print the table."""
    draw(found, outputs / "figures")
    table = summarised(found)
    table.to_csv(outputs / "race.csv", index=False)
    differences = compared(found)
    differences.to_csv(outputs / "race_paired.csv", index=False)
    (outputs / "race.md").write_text(f"{markdown(table)}\n{paired(differences)}")
    shown = Table(title="experiment=driving, K = 20: mean over seeds and its 95 % interval")
    header, _, *lines = markdown(table).splitlines()
    for name in header.strip("| ").split(" | "):
        shown.add_column(name)
    for line in lines:
        shown.add_row(*line.strip("| ").split(" | "))
    console.print(shown)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the whole race; returns the exit code."""
    parser = parser_of(__doc__, "outputs/race", "race.csv and race.json")
    asked = parser.parse_args(arguments)
    console = shown_on()
    started = time.monotonic()
    done = carried_out(SWEEPS, asked, "race.json", console)
    if done is None:
        return 2
    found, failures = done
    if found.empty:
        return 1
    conclude(found, asked.outputs, console)
    if asked.accept and not failures:
        keep(found, asked.outputs, SHOWN, asked.expected / "race.json", asked.workers)
    took = f"{(time.monotonic() - started) / 60:.1f} min"
    console.print(f"{took}; see {asked.outputs}: race.csv, race.md", highlight=False, soft_wrap=True)
    return 0 if not failures else 1


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        print("interrupted: the same command resumes the race", file=sys.stderr)
        sys.exit(130)
