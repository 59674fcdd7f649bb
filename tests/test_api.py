"""The Python side of the command line, and environments that Gymnasium finds by name."""

import subprocess
import sys
from pathlib import Path

import pytest

import dtsim
from dtsim.core.parts import ConfigError


def test_run_sweep_and_load_share_folders(tiny: list[str], tmp_path: Path) -> None:
    place = f"outputs={tmp_path}"
    folder = dtsim.run(*tiny, place, scheme="proposed", seed=1)
    folders = dtsim.sweep(*tiny, place, "scheme=proposed,oracle", "seed=1,2")
    assert folder in folders
    runs = dtsim.load(tmp_path)
    assert sorted(zip(runs["scheme"], runs["seed"], strict=True)) == [
        ("oracle", 1),
        ("oracle", 2),
        ("proposed", 1),
        ("proposed", 2),
    ]


def test_a_bad_value_is_an_error_that_names_it(tiny: list[str]) -> None:
    with pytest.raises(ConfigError, match="mu=0: must be >= 1"):
        dtsim.run(*[key for key in tiny if not key.startswith("mu=")], mu=0)


MADE = (
    "import gymnasium, dtsim; gymnasium.make('dtsim/ShortTimescale-v0', users=3)",
    "import dtsim, gymnasium; gymnasium.make('dtsim/ShortTimescale-v0', users=3)",
    "import gymnasium; gymnasium.make('dtsim:dtsim/ShortTimescale-v0', users=3)",
    "import gymnasium; gymnasium.make_vec('dtsim:dtsim/ShortTimescale-v0', num_envs=2, users=3, "
    "vectorization_mode='vector_entry_point')",
)


def test_gymnasium_finds_the_environments() -> None:
    """Each way in a process where neither package is imported yet."""
    code = f"""
import os, torch  # imported once, because it takes seconds
for code in {MADE}:
    if (pid := os.fork()) == 0:
        exec(code)
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0, code
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_importing_dtsim_imports_nothing_heavy() -> None:
    heavy = ("torch", "pandas", "gymnasium", "numpy", "matplotlib", "IPython")
    code = f"import sys, dtsim; print([name for name in {heavy} if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"


def test_results_are_tables_and_paths(tiny: list[str], tmp_path: Path) -> None:
    result = dtsim.run(*tiny, "scheme=oracle", outputs=str(tmp_path), seed=3)
    assert Path(result) == result.folder and (Path(result) / "slots.csv").is_file()
    assert len(result.slots) == 4 * 4 and len(result.frames) == 4 * 2  # MUs by slots, MUs by frames
    assert result.summary["system_delay_mean_s"] == result.row["system_delay_mean_s"]
    assert not result.associations.empty and not result.drift.empty and not result.regions.empty
    assert result.config["mu"] == 4 and result == dtsim.RunResult(result.folder)
    assert "oracle mu=4 seed=3" in repr(result) and "<table" in result._repr_html_()
    with pytest.raises(dtsim.ReportError, match="is no finished run"):
        dtsim.RunResult(tmp_path)


def test_choices_are_noted_by_the_names_that_were_typed(tiny: list[str], tmp_path: Path) -> None:
    """Those of a sweep, of a single run, and of a folder of one's own."""
    (tmp_path / "mine" / "solver").mkdir(parents=True)
    (tmp_path / "mine" / "solver" / "by_signal.yaml").write_text("# Mine.\ndefaults:\n  - strongest\n")
    asked = [*tiny, f"outputs={tmp_path / 'outputs'}"]
    found = dtsim.sweep(*asked, config_dir=tmp_path / "mine", solver=["greedy", "by_signal"], channel=("umi", "uma"))
    assert set(zip(found.runs["choice.solver"], found.runs["choice.channel"], strict=True)) == {
        (solver, channel) for solver in ("greedy", "by_signal") for channel in ("umi", "uma")
    }
    assert set(found.runs["variant"]) == {
        f"channel={channel}, solver={solver}" for solver in ("greedy", "by_signal") for channel in ("umi", "uma")
    }
    assert dtsim.run(*asked, solver="strongest").row["choice.solver"] == "strongest"


def test_a_sweep_is_resumed_compared_and_drawn(
    tiny: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = dtsim.sweep(*tiny, outputs=str(tmp_path), solver=["greedy", "strongest"], seed=range(2))
    marks = [(folder / "result.json").stat().st_mtime_ns for folder in first.folders]
    found = dtsim.sweep(*tiny, outputs=str(tmp_path), solver=["greedy", "strongest"], seed=range(3))
    assert [(folder / "result.json").stat().st_mtime_ns for folder in first.folders] == marks
    assert len(found) == 6 and len(found.runs) == 6 and found[0] in found
    assert capsys.readouterr().out == ""  # a library prints nothing on standard output
    of = dtsim.compare(found, by="solver", baseline="strongest")
    assert of.summary["solver"].tolist() == ["greedy", "strongest"]
    assert of.table(["accuracy_mean"])["pairs"].tolist()[0] == 3
    assert "baseline" in repr(of) and "<table" in of._repr_html_()
    assert dtsim.compare(tmp_path, by="solver").table().equals(dtsim.compare(found.runs, by="solver").table())
    assert dtsim.compare([tmp_path], by="solver", where={"seed": [0, 1]}).table(["accuracy_mean"])["n"].max() == 2
    figure = dtsim.plots.comparison(of, width="column")
    assert figure.get_figwidth() == 3.5 and len(figure.axes) == 2
    for draw in (dtsim.plots.timeline, dtsim.plots.cell_map, dtsim.plots.decomposition):
        assert draw(found[0]).axes
    with pytest.raises(dtsim.ReportError, match="select some"):
        dtsim.plots.system_delay(found)
    with pytest.raises(dtsim.ReportError, match=r"must be a column of run\.csv"):
        dtsim.plots.comparison(of, "delay")


def test_a_failed_run_of_a_sweep_is_named(tiny: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from dtsim.simulation.loop import Simulation

    def fail(self: Simulation, frames: int) -> None:
        raise MemoryError("no room")

    monkeypatch.setattr(Simulation, "run", fail)
    with pytest.raises(dtsim.JobError, match=r"seed=5-.*MemoryError: no room"):
        dtsim.sweep(*tiny, outputs=str(tmp_path), seed=[5])


def test_what_is_public_is_there_and_typed() -> None:
    for name in dtsim.__all__:
        assert getattr(dtsim, name).__doc__, name
    assert set(dtsim.__all__) <= set(dir(dtsim))
    with pytest.raises(AttributeError, match="has no attribute 'magic'"):
        _ = dtsim.magic  # type: ignore[attr-defined]
