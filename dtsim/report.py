"""Tables of results. Reads the files of `dtsim.results`, never the simulator."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import pandas as pd
from rich.console import Console
from rich.table import Table
from rich.text import Text


def find(path: Path) -> list[Path]:
    """Folders of runs, finished or failed, under `path`, in order."""
    marks = [*path.rglob("result.json"), *path.rglob("failed")]
    return sorted({mark.parent for mark in marks if not mark.parent.name.startswith(".")}, key=_natural)


def is_done(folder: Path) -> bool:
    """Whether `folder` holds a whole result."""
    return (folder / "result.json").is_file()


def _natural(folder: Path) -> list[tuple[int, int | str]]:
    """Sort key that puts mu=5 before mu=20."""
    return [
        (0, int(number)) if (number := part.rpartition("=")[2].split("-")[0]).isdigit() else (1, part)
        for part in folder.parts
    ]


def _cells(run: pd.Series) -> list[str]:
    return [
        f"{run.scheme}",
        f"{run.mu}",
        f"{run.seed}",
        f"{1e3 * run.system_delay_mean_s:.1f}",
        f"{1e3 * run.system_delay_p95_s:.1f}",
        f"{run.accuracy_mean:.3f}",
        f"{100 * run.breakout_rate:.1f}",
        f"{100 * run.frame_breakout_rate:.1f}",
        f"{run.retrains}",
        f"{run.retrain_flop / 1e9:,.0f}",
        f"{run.allocator}",
        f"{100 * run.allocator_gap_mean:.1f}",
        f"{100 * run.association_gap_mean:.1f}",
        f"{run.wall_time_s:.0f}",
    ]


_COLUMNS = (
    ("scheme", "left"), ("MUs", "right"), ("seed", "right"), ("delay\nmean ms", "right"), ("delay\np95 ms", "right"),
    ("accuracy", "right"), ("break-\nouts %", "right"), ("frame\nb-outs %", "right"), ("re-\ntrains", "right"),
    ("training\nGFLOP", "right"), ("allocator", "left"), ("alloc.\ngap %", "right"), ("assoc.\ngap %", "right"),
    ("wall\ns", "right"),
)  # fmt: skip


def table(folders: Iterable[Path]) -> Table:
    """A row for every run in `folders`; failed and missing ones say so."""
    shown = Table(caption="delay: system delay of a slot · gaps: to the exact optimum", caption_justify="left")
    for header, justify in _COLUMNS:
        shown.add_column(header, justify=justify, no_wrap=True)  # type: ignore[arg-type]
    for folder in folders:
        if is_done(folder):
            shown.add_row(*_cells(pd.read_csv(folder / "run.csv").iloc[0]))
        else:
            state = "failed" if (folder / "failed").is_file() else "not run"
            scheme, mu = folder.parent.parent.name, folder.parent.name.removeprefix("mu=")
            seed = folder.name.removeprefix("seed=").split("-")[0]
            shown.add_row(scheme, mu, seed, Text(state, style="red"))
    return shown


def show(folders: Sequence[Path], console: Console | None = None) -> None:
    """Print the table of `folders` and where their files are."""
    console = console or Console()
    if not console.is_terminal:
        console = Console(width=140)  # a log has no width of its own; wrapping would cut the columns
    console.print(table(folders))
    if len(folders) == 1:
        console.print(f"results: {folders[0]}/*.csv", highlight=False, soft_wrap=True)
    failed = [folder for folder in folders if (folder / "failed").is_file()]
    for folder in failed:
        last = (folder / "failed").read_text().strip().splitlines()[-1]
        console.print(f"failed: {folder}: {last}", highlight=False, soft_wrap=True, style="red")
