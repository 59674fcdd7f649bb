"""`dtsim report` by its argv, what it prints and writes, and how it exits."""

import math
import shutil
from pathlib import Path

import pandas as pd
import pytest
from rich.console import Console
from typer.testing import CliRunner, Result

from dtsim.cli.app import app
from dtsim.reporting import tables
from dtsim.reporting.along import along
from dtsim.reporting.command import without_formulas
from dtsim.reporting.runs import load
from dtsim.reporting.tables import spread
from tests.run_folders import write_run


def dtsim(*arguments: object) -> Result:
    """The command in this process; results have exit_code, stdout, stderr."""
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two schemes, two numbers of MUs, three seeds, and one run that failed."""
    root = tmp_path_factory.mktemp("sweep")
    for mu in (5, 10):
        for seed in range(3):
            write_run(root, "proposed", mu, seed, system_delay_mean_s=0.01 * (1 + seed), breakout_rate=0.2)
            write_run(root, "single_timescale", mu, seed, system_delay_mean_s=0.04 * (1 + seed))
    failed = write_run(root, "proposed", 20)
    (failed / "failed").write_text("Traceback\nMemoryError: no room for 20 [users]\n")
    return root


def test_groups_pairs_breakouts_doubts_and_failures_are_printed(sweep: Path) -> None:
    done = dtsim("report", sweep)
    assert done.exit_code == 0, done.stderr
    assert "20 ± 25" in done.stdout  # proposed: 10, 20, 30 ms; 4.303 × 10 / sqrt(3) = 24.8
    assert "0.250 [0.250, 0.250]" in done.stdout
    assert "30 of 150" in done.stdout  # break-outs: 0.2 of 5 MUs × 10 slots × 3 seeds
    assert "4 of 4 groups have fewer than 5 seeds: wide intervals, weak tests" in done.stdout
    assert "MemoryError: no room for 20 [users]" in done.stdout
    assert "wall" not in done.stdout
    assert "wall" in dtsim("report", sweep, "--runs").stdout  # the table of each run


@pytest.mark.parametrize("width", [80, 120])
def test_tables_fit_the_terminal(sweep: Path, width: int) -> None:
    console = Console(width=width, record=True, file=None, quiet=False)
    with console.capture() as captured:
        for table in tables.report(along(load(sweep), interval="bootstrap")):
            tables.show(table, console)
    lines = captured.get().splitlines()
    assert max(map(len, lines)) <= width
    assert not any("…" in line for line in lines)


def test_csv_is_tidy_with_units(sweep: Path, tmp_path: Path) -> None:
    file = tmp_path / "new" / "aggregate.csv"
    assert dtsim("report", sweep, "--csv", file).exit_code == 0
    table = pd.read_csv(file)
    assert list(table)[-6:] == ["unit", "n", "mean", "low", "high", "interval"]
    row = table[(table["scheme"] == "proposed") & (table["mu"] == 5) & (table["metric"] == "system_delay_mean_s")]
    assert row[["unit", "n"]].to_numpy().tolist() == [["s", 3]]
    assert row["mean"].item() == pytest.approx(0.02)
    assert not table.duplicated(["variant", "mu", "scheme", "metric"]).any()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--baseline", "magic"], "baseline='magic': must be one of proposed, single_timescale"),
        (["--interval", "sigma"], "interval='sigma': must be one of t, bootstrap"),
        (["--csv", "/dev"], "csv='/dev': must be a file that can be written (Is a directory)"),
    ],
)
def test_a_bad_option_is_one_line(sweep: Path, arguments: list[object], said: str) -> None:
    done = dtsim("report", sweep, *arguments)
    assert done.exit_code == 2
    assert done.stderr.strip() == f"error: {said}"


def test_a_missing_folder_is_one_line(tmp_path: Path) -> None:
    done = dtsim("report", tmp_path / "no")
    assert (done.exit_code, done.stderr.strip()) == (2, f"error: PATH='{tmp_path / 'no'}': there is no such folder")


def test_only_failures_are_shown_as_such(sweep: Path, tmp_path: Path) -> None:
    shutil.copytree(sweep / "proposed" / "mu=20", tmp_path / "proposed" / "mu=20")
    done = dtsim("report", tmp_path)
    assert done.exit_code == 0
    assert "MemoryError" in done.stdout
    refused = dtsim("report", tmp_path, "--csv", tmp_path / "x.csv")
    assert refused.exit_code == 2
    assert "no run has finished" in refused.stderr


def test_a_damaged_run_is_told_and_the_others_are_reported(sweep: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(sweep, tmp_path / "copy")
    file = next((copy / "proposed" / "mu=5").glob("seed=0-*/run.csv"))
    file.write_text(file.read_text().splitlines()[0])
    done = dtsim("report", copy, "--runs")
    assert done.exit_code == 0
    assert "damaged" in done.stdout
    assert "run.csv: is damaged" in done.stdout
    assert "1 pairs with single_timescale are missing" in done.stdout


def test_numbers_show_two_digits_of_their_uncertainty() -> None:
    assert spread(1525.07, 1046.9, 2003.2) == "1,525 ± 478"
    assert spread(0.02, 0.01, 0.03, sign=True) == "+0.020 ± 0.010"
    assert spread(118.3, 113.0, 127.3, even=False) == "118.3 [113.0, 127.3]"
    assert spread(20264.9, math.nan, math.nan) == "20,265"
    assert spread(0.0, 0.0, 0.0) == "0 ± 0"
    assert spread(-1e-14, math.nan, math.nan) == "0"
    assert spread(math.nan, math.nan, math.nan) == "–"


def test_a_text_that_a_spreadsheet_would_run_is_written_with_a_quote() -> None:
    table = pd.DataFrame({"scheme": ["=1+1", "@x", "proposed", ""], "mean": [-1.0, 2.0, 3.0, 4.0]})
    safe = without_formulas(table)
    assert safe["scheme"].tolist() == ["'=1+1", "'@x", "proposed", ""]
    assert safe["mean"].tolist() == [-1.0, 2.0, 3.0, 4.0]
