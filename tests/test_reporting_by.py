"""`dtsim report --by`: any key compared seed by seed, with the names that were typed, and nothing left out."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from rich.console import Console

from dtsim.reporting import tables
from dtsim.reporting.along import along
from dtsim.reporting.named import names_of
from dtsim.reporting.runs import ReportError, load
from dtsim.reporting.selection import conditions, selected
from tests.run_folders import write_run
from tests.test_reporting_command import dtsim

CPSAT = {"solver._target_": "dtsim.association.cpsat.CpSat", "solver.workers": 1}
GREEDY = {"solver._target_": "dtsim.association.greedy.Greedy"}
OWN = {"solver._target_": "mylab.solvers.RoundRobin", "solver.offset": 0}


@pytest.fixture(scope="module")
def solvers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three solvers, two channels, three seeds; the delay of `greedy` is 1.5 times cpsat's, of round_robin 2 times."""
    root = tmp_path_factory.mktemp("solvers")
    for channel in ("free_space", "umi"):
        for seed in range(3):
            delay = 0.01 * (1 + seed) * (1 if channel == "free_space" else 10)
            for name, keys, factor in (("cpsat", CPSAT, 1.0), ("greedy", GREEDY, 1.5), ("round_robin", OWN, 2.0)):
                urban = {"channel._target_": "dtsim.physical.urban.UrbanMicro"} if channel == "umi" else {}
                write_run(
                    root,
                    seed=seed,
                    config={**keys, **urban},
                    choices={"solver": name, "channel": channel, "twin/predictor": "last_value"},
                    system_delay_mean_s=delay * factor,
                )
    return root


def cells(text: str, first: str) -> list[str]:
    """The cells of the printed row that begins with `first`."""
    return next(line for line in text.splitlines() if line.split()[:1] == [first]).split()


def test_any_key_is_compared_seed_by_seed_with_the_names_that_were_typed(solvers: Path) -> None:
    done = dtsim("report", solvers, "--by", "solver", "--where", "channel=umi")
    assert done.exit_code == 0, done.output
    assert "by solver, against cpsat: on the same worlds" in done.stdout
    rows = [line.split() for line in done.stdout.splitlines() if line.split()[:1] == ["2"]]  # MUs, then the solver
    assert [row[1] for row in rows] == ["cpsat", "greedy", "round_robin"]  # one table of three rows
    assert rows[1][6:9] == ["1.500", "[1.500,", "1.500]"]
    assert rows[2][6:9] == ["2.000", "[2.000,", "2.000]"]
    assert "UrbanMicro" not in done.stdout and "RoundRobin" not in done.stdout


def test_the_baseline_is_a_value_of_the_compared_key(solvers: Path) -> None:
    done = dtsim("report", solvers, "--by", "solver", "--baseline", "greedy", "--where", "channel=free_space")
    assert "0.667 [0.667, 0.667]" in done.stdout and "1.333 [1.333, 1.333]" in done.stdout
    refused = dtsim("report", solvers, "--by", "solver", "--baseline", "umi")
    assert refused.exit_code == 2
    assert refused.stderr.strip() == "error: baseline='umi': must be one of cpsat, greedy, round_robin"


def test_what_else_differs_is_a_column_and_is_never_averaged(solvers: Path) -> None:
    table = along(load(solvers), ["solver"]).table(["system_delay_mean_s"])
    assert list(table)[:5] == ["channel", "mu", "solver", "metric", "unit"]
    assert table.groupby("channel")["n"].unique().map(list).to_dict() == {"free_space": [3], "umi": [3]}
    assert table.set_index(["channel", "solver"])["mean"].to_dict() == pytest.approx(
        {(c, s): 0.02 * f * (1 if c == "free_space" else 10)
         for c in ("free_space", "umi") for s, f in (("cpsat", 1), ("greedy", 1.5), ("round_robin", 2))}
    )  # fmt: skip


def test_several_keys_make_combinations_with_a_column_each(solvers: Path) -> None:
    of = along(load(solvers), ["solver", "channel"], baseline="greedy,umi")
    assert of.choices == [f"{s}, {c}" for s in ("cpsat", "greedy", "round_robin") for c in ("free_space", "umi")]
    table = of.table(["system_delay_mean_s"]).set_index(["solver", "channel"])
    assert list(table.index) == [tuple(choice.split(", ")) for choice in of.choices]
    assert table.loc[("cpsat", "free_space"), "ratio"] == pytest.approx(1 / 15)
    assert table["pairs"].isna().tolist() == [False, False, False, True, False, False]  # the baseline itself
    assert "solver,channel" not in dtsim("report", solvers, "--by", "solver,channel").stderr


def test_nested_keys_numbers_and_keys_within_a_choice(tmp_path: Path) -> None:
    for seed in range(2):
        for bandwidth in (1e7, 5e6):
            write_run(tmp_path, seed=seed, config={"channel.bandwidth_hz": bandwidth, **CPSAT})
        write_run(tmp_path, seed=seed, config={"channel.bandwidth_hz": 1e7, **CPSAT, "solver.workers": 2})
    runs = load(tmp_path)
    assert along(selected(runs, {"solver.workers": 1}), ["channel.bandwidth_hz"]).choices == ["5e6", "1e7"]
    assert set(along(runs, ["solver"]).choices) == {"cpsat, workers=1", "cpsat, workers=2"}
    assert along(runs, ["solver"]).others == ("channel.bandwidth_hz",)
    assert along(runs, ["solver/workers"]).choices == ["1", "2"]


def test_schemes_and_numbers_of_mus(tmp_path: Path) -> None:
    for mu in (10, 9):
        for seed in range(3):
            for scheme, delay in (("proposed", 0.1), ("oracle", 0.05)):
                write_run(tmp_path, scheme, mu, seed, system_delay_mean_s=delay * mu)
    of = along(load(tmp_path), ["mu"])
    assert (of.choices, of.others, of.baseline) == (["9", "10"], ("scheme",), "9")
    table = of.table(["system_delay_mean_s"])
    assert list(table)[:2] == ["scheme", "mu"] and table["mu"].tolist() == [9, 10, 9, 10]  # as numbers
    assert table.loc[table["mu"] == 10, "ratio"].tolist() == pytest.approx([10 / 9, 10 / 9])
    done = dtsim("report", tmp_path, "--by", "mu")
    assert done.exit_code == 0 and "by mu, against 9: on the same worlds" in done.stdout and "MUs" not in done.stdout
    assert along(load(tmp_path), pairs=False).baseline is None  # no single_timescale, and nothing was asked for


def test_what_differs_only_with_the_choice_is_told(tmp_path: Path) -> None:
    for seed in range(3):
        write_run(tmp_path, seed=seed, config={**CPSAT, "frames": 4})
        write_run(tmp_path, "oracle", seed=seed, config={**GREEDY, "frames": 8})
    done = dtsim("report", tmp_path, "--by", "solver")
    assert "note: frames differs between values of solver: 4 in cpsat; 8 in greedy" in done.stdout
    assert "note: scheme differs between values of solver: proposed in cpsat; oracle in greedy" in done.stdout
    one = dtsim("report", tmp_path, "--by", "solver", "--where", "solver=greedy")
    assert "note: solver is greedy in every run: there is nothing to compare" in one.stdout


def test_several_paths_are_read_as_one_and_runs_in_both_count_once(solvers: Path, tmp_path: Path) -> None:
    write_run(tmp_path, seed=7, config=CPSAT)
    together = load(solvers, tmp_path, solvers)
    assert len(together) == len(load(solvers)) + 1
    done = dtsim("report", solvers, tmp_path, "--by", "solver", "--where", "seed=0,7")
    assert done.exit_code == 0
    missing = dtsim("report", solvers, tmp_path / "no")
    assert missing.stderr.strip() == f"error: PATH='{tmp_path / 'no'}': there is no such folder"


@pytest.mark.parametrize("width", [60, 80, 120])
def test_nothing_is_left_out_of_a_narrow_terminal(solvers: Path, width: int) -> None:
    console = Console(width=width)
    for table in (tables.side_by_side(along(load(solvers), ["solver"])), *tables.report(along(load(solvers)))):
        with console.capture() as captured:
            tables.show(table, console)
        text = captured.get()
        assert max(map(len, text.splitlines())) <= width and "…" not in text
        for column in table.columns:
            for part in column.header.split("\n"):
                assert part in text, (table.title, part)
        for row in table.rows:
            assert all(column.cell(row) in text for column in table.columns if not column.names)


def test_swept_keys_are_columns_of_every_table_and_of_the_runs(solvers: Path, tmp_path: Path) -> None:
    done = dtsim("report", solvers, "--runs", "--csv", tmp_path / "means.csv")
    heads = [line.split() for line in done.stdout.splitlines() if "MUs" in line.split()]
    heads = [[word for word in head if word not in ("┃", "│")] for head in heads]
    assert len(heads) >= 3
    assert all({"solver", "channel"} <= set(head) for head in heads if "scheme" in head)
    table = pd.read_csv(tmp_path / "means.csv")
    assert {"solver", "channel"} <= set(table) and set(table["solver"]) == {"cpsat", "greedy", "round_robin"}
    assert not table.duplicated(["solver", "channel", "mu", "scheme", "metric"]).any()


def test_page_and_csv_say_what_the_terminal_says(solvers: Path, tmp_path: Path) -> None:
    asked = ("--by", "solver", "--where", "channel=free_space", "--csv", tmp_path / "by.csv")
    assert dtsim("report", solvers, *asked).exit_code == 0
    table = pd.read_csv(tmp_path / "by.csv")
    assert list(table)[:9] == ["mu", "solver", "metric", "unit", "n", "mean", "low", "high", "interval"]
    row = table[(table["solver"] == "round_robin") & (table["metric"] == "system_delay_mean_s")].iloc[0]
    assert (row["baseline"], row["pairs"], row["ratio"]) == ("cpsat", 3, pytest.approx(2.0))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--by", "solvr"], "by='solvr': no run has this key, did you mean solver? (in these runs differ: scheme, mu,"),
        (["--by", "seed"], "by='seed': runs are compared seed by seed; any other key can be compared"),
        (["--by", ","], "by='': must be a key, or several with commas between them"),
        (["--where", "solver"], "where='solver': must be key=value, or key=value,value"),
        (
            ["--where", "solver=magic"],
            "where='solver=magic': no run has it; solver is one of cpsat, greedy, round_robin",
        ),
        (["--where", "magic=1"], "where='magic': no run has this key"),
        (["--figures", "f", "--width", "wide"], "width='wide': must be page, column, or a length such as 3.5in, 88mm"),
    ],
)
def test_a_bad_option_is_one_line_that_names_what_is_allowed(
    solvers: Path, arguments: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = dtsim("report", solvers, *arguments)
    assert done.exit_code == 2
    assert done.stderr.startswith(f"error: {said}") and done.stderr.count("\n") == 1


def test_conditions_compare_numbers_as_numbers(tmp_path: Path) -> None:
    assert conditions(["mu=5,10", "mu=20", "solver = cpsat"]) == {"mu": ["5", "10", "20"], "solver": ["cpsat"]}
    write_run(tmp_path, config={"channel.bandwidth_hz": 1e7})
    write_run(tmp_path, seed=1, config={"channel.bandwidth_hz": 2e7})
    runs = load(tmp_path)
    for typed in ("1e7", "10e6", "10000000", 1e7, [1e7, 3]):
        assert selected(runs, {"channel.bandwidth_hz": typed})["seed"].tolist() == [0]
    assert selected(runs, {"dataset.root": None})["seed"].tolist() == [0, 1]  # null
    with pytest.raises(ReportError, match="where='seed=3': no run has it; seed is one of 0, 1"):
        selected(runs, {"seed": 3})


def test_a_run_that_notes_no_choices_gets_those_of_its_classes_and_values() -> None:
    ddpg = {"_target_": "dtsim.allocation.learned.agents.Ddpg", "policy": "flat", "action": "raw", "hidden": 256}
    config = {
        "channel": {"_target_": "dtsim.physical.urban.UrbanMacro"},
        "allocator": ddpg,
        "solver": {"_target_": "mylab.RoundRobin"},
        "twin": {"predictor": {"_target_": "dtsim.twin.predictor.LastValuePart"}},
    }
    names = names_of({"config": config})
    assert names["channel"] == "uma"
    assert names["allocator"] == "ddpg_paper"
    assert names["solver"] == "RoundRobin"  # no file of the package has this class
    assert names_of({"config": config, "choices": {"solver": "mine", "twin/predictor": "x"}}) == {
        **names, "solver": "mine", "twin.predictor": "x"
    }  # fmt: skip
