"""The script that reproduces the paper: what it plans, how long it says that takes, and a small reproduction."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import IO

import pandas as pd
import pytest
from hydra import compose, initialize_config_module
from rich.console import Console

from dtsim.reporting.runs import load
from dtsim.results import files
from dtsim.results.folders import is_done
from dtsim.results.seal import seal
from dtsim.runner import experiment, jobs
from dtsim.runner.jobs import Plan
from scripts import reproduce, sweeps
from scripts.scheduling import JOB_S, START_UP_S, Task, computed, divided, estimate_s, longest_first
from tests.cells import cell
from tests.commands import dtsim


def test_figures_share_their_runs() -> None:
    """Same keys, same digest: what one experiment has done, another takes as done."""
    with initialize_config_module("dtsim.conf", version_base="1.3"):
        composed = {
            name: compose("config", [f"experiment={name}"], return_hydra_config=True)
            for name in ("fig2a", "fig2b", "fig2c")
        }
    swept = {name: config.hydra.sweeper.params for name, config in composed.items()}
    for name in ("fig2a", "fig2b"):
        for key, values in swept[name].items():
            assert set(str(values).split(",")) <= set(str(swept["fig2c"][key]).split(","))
    one = ["scheme=proposed", "mu=20", "seed=0"]
    assert len({jobs.plan([f"experiment={name}", *one]).jobs[0].config.folder for name in swept}) == 1


def test_what_is_planned(tmp_path: Path) -> None:
    works = sweeps.plan(reproduce.QUICK, tmp_path, 2, ["seed=0"])
    assert [len(work.tasks) for work in works] == [6, 2]
    assert len({folder for work in works for folder in work.folders}) == 8
    assert "hydra.launcher.n_jobs=2" in works[0].launcher
    settings = [sweep.setting for sweep in reproduce.FULL]
    assert len(set(settings)) == len(settings) == 6
    assert {sweep.setting for sweep in reproduce.QUICK} < set(settings)


KNOWN = {"default": {"proposed": 2.0}, "other": {"proposed": 4.0, "oracle": 1.0}}


def planned(outputs: Path, *arguments: str) -> list[Task]:
    sweep = sweeps.Sweep("default", ("experiment=fig2c", *arguments))
    return [task for work in sweeps.plan([sweep], outputs, 2, []) for task in work.tasks]


def test_time_is_estimated_from_what_runs_took(tmp_path: Path) -> None:
    tasks = planned(tmp_path, "scheme=proposed,oracle", "mu=5,10", "seed=0")
    around_s = START_UP_S + 4 * JOB_S
    # 20 s, 10 s, 10 s and 5 s: two workers need 25 s, of which one is idle for 5.
    assert estimate_s(tasks, KNOWN, 2) == pytest.approx(around_s + 25)
    assert estimate_s(tasks, KNOWN, 10) == pytest.approx(around_s + 20)
    assert estimate_s(tasks, {"default": {"proposed": 2.0}}, 2) is None
    assert estimate_s([], KNOWN, 2) == 0
    assert sweeps.calibrate() > 0


def test_the_longest_runs_of_all_sweeps_come_first_and_unknown_ones_before_them(tmp_path: Path) -> None:
    tasks = planned(tmp_path, "scheme=oracle,proposed,never_retrain", "mu=5,20", "seed=0")
    ordered = [(task.job.config.scheme["name"], task.job.config.mu) for task in longest_first(tasks, KNOWN)]
    unknown = [("never_retrain", 20), ("never_retrain", 5)]
    assert ordered == [*unknown, ("proposed", 20), ("oracle", 20), ("proposed", 5), ("oracle", 5)]


def test_runs_that_compute_the_same_are_done_once(tmp_path: Path) -> None:
    """Without generated data no key of the generator changes anything; the copy is a result of its own."""
    amounts = {"default": "generator.amount=fill", "kl": "generator.amount=kl"}
    asked = [sweeps.Sweep(name, ("experiment=fig2c", "mu=5", "seed=0", key)) for name, key in amounts.items()]
    left, equal = divided([task for work in sweeps.plan(asked, tmp_path, 2, []) for task in work.tasks])
    names = {task.job.config.scheme["name"] for task, _ in equal}
    assert names == {"without_dt", "without_il", "never_retrain"}
    assert {(kl.setting, usual.setting) for kl, usual in equal} == {("kl", "default")}
    assert len(left) == 12 - len(names)


def test_without_generated_data_the_generators_keys_change_nothing(tiny: list[str], tmp_path: Path) -> None:
    usual, other = (
        jobs.plan([*tiny, "scheme=without_dt", f"outputs={tmp_path}", amount]).jobs[0].config
        for amount in ("generator.amount=fill", "generator.amount=kl")
    )
    assert usual.digest != other.digest and computed(usual) == computed(other)
    one, two = experiment.run(usual), experiment.run(other)
    for name in ("slots.csv", "frames.csv"):
        assert (one / name).read_bytes() == (two / name).read_bytes()
    shutil.rmtree(two)
    files.copy(one, two, config=other.settings, choices=other.choices, digest=other.digest)
    assert is_done(two)
    runs = load(tmp_path)
    assert sorted(runs["config.generator.amount"]) == ["fill", "kl"]
    assert set(runs["digest"]) == {usual.digest, other.digest}
    assert json.loads((two / "result.json").read_text())["same_as"] == usual.digest


def test_bad_keys_end_before_anything_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert reproduce.main(["--quick", "--outputs", str(tmp_path / "out"), "frames=-1", "channel=magic"]) == 2
    said = capsys.readouterr().err
    assert "error: channel=magic: must be one of" in said
    assert not (tmp_path / "out").exists() or not list((tmp_path / "out").rglob("*.csv"))


def test_what_is_expected_is_checked_before_anything_runs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweeps, "executed", lambda *_: pytest.fail("began"))
    asked = ["--quick", "--outputs", str(tmp_path / "out")]
    assert reproduce.main([*asked, "--accept", "--expected", "/dev/null/x"]) == 2
    assert "error: --expected=/dev/null/x: must be a folder that can be written" in capsys.readouterr().err
    (tmp_path / "expected.csv").write_text("setting,scheme\n")
    (tmp_path / "expected.json").write_text("{}")
    assert reproduce.main([*asked, "--expected", str(tmp_path)]) == 2
    assert "must hold what --accept left there" in capsys.readouterr().err
    for workers in ("0", "-2", "two"):
        with pytest.raises(SystemExit, match="2"):
            reproduce.main([*asked, f"--workers={workers}"])
        assert f"{workers}: must be a whole number >= 1" in capsys.readouterr().err


@pytest.mark.slow
def test_a_small_reproduction_agrees_with_itself(
    tiny: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two sweeps of two runs on tiny data; they agree with what was kept, and another result is noticed."""

    def forked(*arguments: object, stdout: IO[str] | None = None) -> int:
        done = dtsim(*arguments)
        (stdout or sys.stdout).write(done.stdout)
        return done.returncode

    monkeypatch.setattr(reproduce, "_dtsim", forked)
    monkeypatch.setattr(reproduce, "QUICK", reproduce.QUICK[1:])
    out, kept = tmp_path / "out", tmp_path / "kept"
    keys = [key for key in tiny if not key.startswith("mu=")]
    own = ["mu=3", "scheme=single_timescale,proposed", "seed=0"]
    asked = ["--quick", "--outputs", str(out), "--expected", str(kept), "--workers", "1", *keys, *own]
    assert reproduce.main([*asked, "--accept"]) == 0
    said = capsys.readouterr().out
    assert "4 runs in 2 sweeps, 4 to do, on 1 processes" in said
    assert "the time is unknown" in said
    results, findings = pd.read_csv(out / "results.csv"), pd.read_csv(out / "verdict.csv")
    assert len(results) == 4
    assert set(results["setting"]) == set(findings["setting"]) == {"default", "generator.amount=kl"}
    below = findings[findings["claim"].str.contains("60 %")].set_index("setting")
    runs = results[results["setting"] == "default"].pivot(index="seed", columns="scheme", values="system_delay_mean_s")
    assert below.loc["default", "value"] == pytest.approx(cell(runs, 0, "proposed") / cell(runs, 0, "single_timescale"))
    assert (out / "verdict.md").read_text().count("2(b)") >= 3
    assert (kept / "verdict.md").read_text() == (out / "verdict.md").read_text()
    assert "What the paper claims" in (out / "report.html").read_text()
    assert list((out / "figures").glob("*.pdf"))
    assert (kept / "expected.csv").read_bytes() == (out / "results.csv").read_bytes()
    works = sweeps.plan(reproduce.QUICK, out, 1, [*keys, *own])
    assert divided([task for work in works for task in work.tasks]) == ([], [])
    found, failures = sweeps.collect(works)
    assert not failures
    console = Console(width=200)
    assert reproduce.agrees(found, kept, console)
    assert "4 runs should agree with those expected to 1e-09: all do" in capsys.readouterr().out
    assert not reproduce.agrees(found.assign(retrain_flop=found["retrain_flop"] + 1e6), kept, console)
    assert "retrain_flop is" in capsys.readouterr().out
    made_with = json.loads((kept / "expected.json").read_text())
    assert all(made_with["seconds_per_mu"]["default"][name] > 0 for name in ("proposed", "single_timescale"))
    made_with["versions"]["torch"] = "0.1"
    (kept / "expected.json").write_text(json.dumps(made_with))
    assert reproduce.agrees(found, kept, console)
    assert "within the 95 % intervals (other versions or CPU)" in capsys.readouterr().out
    (kept / "expected.json").write_text(json.dumps(made_with | {"frames": [6]}))
    assert reproduce.agrees(found.assign(retrain_flop=found["retrain_flop"] + 1e6), kept, console)
    assert "is of runs of another length: nothing is compared with it" in capsys.readouterr().out


def test_a_run_that_is_done_is_not_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (work,) = sweeps.plan(
        [sweeps.Sweep("default", ("experiment=fig2c", "scheme=oracle", "mu=5", "seed=0,1"))], tmp_path, 1, []
    )
    started = list[list[Path]]()

    def noted(asked: Plan, *, with_results: bool) -> bool:
        started.append([job.config.folder for job in asked.jobs])
        return True

    monkeypatch.setattr(sweeps, "run_sweep", noted)
    for folder in work.folders:
        folder.mkdir(parents=True)
        seal(folder, {})
        sweeps.run([work], None)
    assert started == [[work.folders[1]]]


@pytest.mark.slow
def test_ctrl_c_lets_the_runs_end(tiny: list[str], tmp_path: Path) -> None:
    """One line, exit code 130, and nothing half written."""
    command = [sys.executable, reproduce.__file__, "--quick", "--workers", "2", "--outputs", str(tmp_path), *tiny]
    with subprocess.Popen(
        [*command, "mu=3", "frames=500", "seed=0,1", "scheme=proposed"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as process:
        assert process.stdout
        for line in process.stdout:
            if "frames: started" in line:
                break
        os.killpg(process.pid, signal.SIGINT)
        said = process.communicate(timeout=60)[0]
    assert process.returncode == 130
    assert "interrupted: the same command resumes the reproduction" in said
    assert "Traceback" not in said
    assert not list(tmp_path.rglob("*.csv"))
