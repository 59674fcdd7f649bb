"""Reproduce the paper: run its sweeps, draw its figures, judge its claims, and compare with the expected results.

    make reproduce            # or: python scripts/reproduce.py
    make reproduce QUICK=1    # five MUs, three seeds, one other setting: minutes

The same command resumes an interrupted reproduction. All output is below --outputs: the runs, figures/, report.html,
report.txt, verdict.csv, verdict.md and results.csv. Exit code 1: a run failed, or a result differs from the expected.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

import pandas as pd
from rich.console import Console
from rich.table import Table
from rich.text import Text

from dtsim.core.parts import ConfigError
from dtsim.reporting import expected, verdict

sys.path.insert(0, str(Path(__file__).parent.parent))

from scripts.sweeps import Sweep, carried_out, frames_of, keep, parser_of, shown_on

SHOWN = ("verdict.md", "figures/fig2c-usual.png")
"""Files kept beside the expected results, for the README."""


# Amounts of data, charges and drifts are the map's.
_OTHERS = ("objective=sum", "channel=umi", "retraining=table1 slots_per_frame=2")
# Delay over accuracy, for the two schemes that are compared at equal accuracy.
_THRESHOLDS = ("accuracy_threshold=0.8", "accuracy_threshold=0.9")
_THREE = "seed=0,1,2"
_PAIR = "scheme=single_timescale,proposed"
FULL = (
    Sweep(verdict.DEFAULT, ("experiment=fig2c",)),
    *(Sweep(setting, ("experiment=variants", *setting.split())) for setting in _OTHERS),
    *(Sweep(setting, ("experiment=variants", _PAIR, setting)) for setting in _THRESHOLDS),
)
QUICK = (  # a part of the full reproduction's runs
    Sweep(verdict.DEFAULT, ("experiment=fig2c", "mu=5", _THREE)),
    Sweep(_THRESHOLDS[0], ("experiment=variants", _PAIR, _THREE, _THRESHOLDS[0])),  # few updates, so quick
)


def conclude(found: pd.DataFrame, outputs: Path, console: Console) -> bool:
    """Write results, verdict, figures and page, and print the verdict; return False if a figure could not be drawn."""
    expected.table(found).to_csv(outputs / "results.csv", index=False)
    findings = verdict.evaluate(found)
    findings.to_csv(outputs / verdict.FILE, index=False)
    (outputs / "verdict.md").write_text(verdict.markdown(findings))
    with (outputs / "report.txt").open("w") as text:
        asked = ("--figures", outputs / "figures", "--html", outputs / "report.html")
        drawn = _dtsim("report", outputs, *asked, stdout=text) == 0
    console.print(_shown(findings))
    return drawn


def agrees(found: pd.DataFrame, folder: Path, console: Console) -> bool:
    """Compare with the expected results; return False if a value differs."""
    known, made_with = _known(folder)
    if known.empty:
        console.print(f"there is no {folder / 'expected.csv'} to compare with", highlight=False, soft_wrap=True)
        return True
    if made_with.get("frames") != frames_of(found):
        said = f"{folder / 'expected.csv'} is of runs of another length: nothing is compared with it"
        console.print(said, style="yellow", highlight=False, soft_wrap=True)
        return True
    same = made_with["versions"] == expected.versions(found)
    agreement = expected.compare(expected.table(found), known, same_versions=same)
    for line in agreement.off[:20]:
        console.print(line, style="red", highlight=False, soft_wrap=True)
    console.print(str(agreement), style="red" if agreement.off else "green", highlight=False, soft_wrap=True)
    return not agreement.off


def accept(found: pd.DataFrame, outputs: Path, folder: Path, workers: int) -> None:
    """Store the results of `found` as the expected results, with their versions, timing and verdict."""
    expected.table(found).to_csv(folder / "expected.csv", index=False)
    keep(found, outputs, SHOWN, folder / "expected.json", workers)


def _known(folder: Path) -> tuple[pd.DataFrame, dict[str, Any]]:
    """The expected results and what their runs were made with; empty if there are none.

    Raises:
        ConfigError: if they cannot be read, or hold something else.
    """
    try:
        results = pd.read_csv(folder / "expected.csv", usecols=[*expected.KEY, *expected.MEASURED])
        made_with: dict[str, Any] = json.loads((folder / "expected.json").read_text())
        made_with["versions"]  # must be there
    except FileNotFoundError:
        return pd.DataFrame(), {}
    except (OSError, ValueError, TypeError, KeyError) as error:
        said = f"{type(error).__name__}: {error}"
        raise ConfigError([f"--expected={folder}: must hold what --accept left there ({said})"]) from None
    return results, made_with


def _dtsim(*arguments: object, stdout: IO[str] | None = None) -> int:
    """Call the command line; on Ctrl-C wait until it has ended, or its workers would stay alive."""
    command = [sys.executable, "-c", "from dtsim.cli.app import main; main()", *map(str, arguments)]
    with subprocess.Popen(command, stdout=stdout) as process:
        try:
            return process.wait()
        except KeyboardInterrupt:
            process.wait()
            raise


def _shown(findings: pd.DataFrame) -> Table:
    table = Table(title="What the paper claims", show_lines=True)
    for name in ("figure", "claim", "MUs", "measured, 95 % interval", "verdict", "corrected (Holm)", "otherwise"):
        table.add_column(name)
    colours = {"holds": "green", "does not hold": "red", "not decided": "yellow"}
    for line in verdict.lines(findings):
        said, corrected = (Text(verdict, style=colours[verdict]) for verdict in (line.verdict, line.corrected))
        table.add_row(line.figure, line.claim, line.mu, Text(line.measured), said, corrected, Text(line.depends))
    return table


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the whole reproduction; returns the exit code."""
    parser = parser_of(__doc__, "outputs/reproduce", "expected.csv and expected.json")
    parser.add_argument("--quick", action="store_true", help="few MUs, three seeds, one other setting")
    asked = parser.parse_args(arguments)
    console = shown_on()
    started = time.monotonic()
    sweeps = QUICK if asked.quick else FULL
    done = carried_out(sweeps, asked, "expected.json", console, checked=lambda: _known(asked.expected))
    if done is None:
        return 2
    found, failures = done
    if found.empty:
        return 1
    drawn = conclude(found, asked.outputs, console)
    agreed = asked.accept or agrees(found, asked.expected, console)
    if asked.accept and not failures:  # incomplete results are not a reproduction
        accept(found, asked.outputs, asked.expected, asked.workers)
    took = f"{(time.monotonic() - started) / 60:.1f} min"
    console.print(f"{took}; see {asked.outputs}: report.html, verdict.md, figures", highlight=False, soft_wrap=True)
    return 0 if drawn and agreed and not failures else 1


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        print("interrupted: the same command resumes the reproduction", file=sys.stderr)
        sys.exit(130)
