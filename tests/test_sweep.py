"""A sweep under way: what has become of its jobs, how long it will take, and what is shown of it."""

import io
import json
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import dtsim.conf
import pytest
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn
from hydra.types import HydraContext
from omegaconf import DictConfig
from rich.console import Console

from dtsim.core.parts import ConfigError
from dtsim.results.seal import seal
from dtsim.runner import jobs, launch
from dtsim.runner.config import Config
from dtsim.runner.lock import run_lock
from dtsim.runner.sweep import Sweep

LAUNCHERS = Path(next(iter(dtsim.conf.__path__))) / "hydra" / "launcher"


@pytest.fixture
def configs(tiny: list[str], tmp_path: Path) -> list[Config]:
    asked = jobs.plan(["-m", *tiny, "mu=5,10", "seed=0,1,1", f"outputs={tmp_path}"])
    return [job.config for job in asked.jobs]


def finish(config: Config, seconds: float) -> None:
    """What a run leaves that took so long, as far as a sweep looks at it."""
    config.folder.mkdir(parents=True)
    seal(config.folder, {"wall_times_s": {"data": 0.5, "simulation": seconds - 0.5}})


def fail(config: Config, line: str) -> None:
    config.folder.mkdir(parents=True, exist_ok=True)
    (config.folder / "failed").write_text(f"Traceback\n{line}\n")


def test_jobs_go_from_waiting_over_running_to_done_and_those_asked_for_twice_count_once(
    configs: list[Config],
) -> None:
    finish(configs[0], 10)
    sweep = Sweep(configs)
    assert len(configs) == 6
    assert len(sweep.states) == 4
    assert sweep.of("skipped") == [configs[0].folder]
    assert len(sweep.undone()) == 3
    with run_lock(configs[1].folder):
        sweep.look()
        assert sweep.of("running") == [configs[1].folder]
    finish(configs[1], 20)
    fail(configs[3], "ValueError: no")
    sweep.look()
    assert sweep.of("done") == [configs[1].folder]
    assert sweep.of("failed") == [configs[3].folder]
    assert sweep.undone() == [configs[4].folder]
    assert "2 of 4 done (1 before), 1 failed, 1 waiting" in sweep.line()


def test_a_failure_from_before_is_done_again_and_a_result_only_when_asked(
    configs: list[Config], tiny: list[str], tmp_path: Path
) -> None:
    finish(configs[0], 10)
    fail(configs[1], "ValueError: no")
    assert configs[1].folder in Sweep(configs).undone()
    fresh = [job.config for job in jobs.plan(["-m", *tiny, "mu=5", "seed=0", "fresh=true", f"outputs={tmp_path}"]).jobs]
    sweep = Sweep(fresh)
    sweep.look()
    assert sweep.undone() == [configs[0].folder]  # its old result does not count
    (configs[0].folder / "result.json").unlink()
    configs[0].folder.rmdir()
    finish(configs[0], 11)
    sweep.look()
    assert sweep.of("done") == [configs[0].folder]


def test_time_left_comes_from_jobs_like_those_to_come(configs: list[Config]) -> None:
    assert Sweep(configs).seconds_left() is None
    assert Sweep(configs).time_left() == ""
    finish(configs[0], 10)
    assert Sweep(configs).seconds_left() == pytest.approx(10 + 2 * 20)  # in proportion to the number of MUs
    finish(configs[3], 50)
    assert Sweep(configs).seconds_left() == pytest.approx(10 + 50)  # known better
    assert Sweep(configs).time_left() == "about 60 s left"


def test_time_left_says_which_schemes_were_never_seen(tiny: list[str], tmp_path: Path) -> None:
    asked = ["-m", *tiny, "scheme=proposed,oracle,never_retrain", "mu=5", "seed=0,1", f"outputs={tmp_path}"]
    configs = [job.config for job in jobs.plan(asked).jobs]
    finish(configs[0], 10)
    assert Sweep(configs).time_left() == "about 50 s left if never_retrain, oracle took as long"


def test_a_terminal_gets_a_table_and_a_log_gets_lines(configs: list[Config]) -> None:
    finish(configs[0], 10)
    written = io.StringIO()
    terminal = Console(file=written, force_terminal=True, width=100)
    with Sweep(configs).followed(terminal), run_lock(configs[1].folder):
        pass
    assert "scheme" in written.getvalue()
    written = io.StringIO()
    shown = Console(file=written, width=100)
    with run_lock(configs[1].folder):
        sweep = Sweep(configs)
        sweep.look()
        shown.print(sweep.table())
    text = written.getvalue()
    assert re.search(r"proposed\s+│\s+1 │\s+· │\s+1 │\s+· │\s+2", text)
    assert "set-up" in text
    written = io.StringIO()
    log = Console(file=written, width=100)
    with Sweep(configs).followed(log):
        finish(configs[1], 10)
    lines = written.getvalue().splitlines()
    assert lines[0].startswith("sweep: 1 of 4 done (1 before), 3 waiting")
    assert lines[-1].startswith("sweep: 2 of 4 done (1 before), 2 waiting")


def test_what_was_not_done_is_shown_with_the_reason(configs: list[Config], capsys: pytest.CaptureFixture[str]) -> None:
    finish(configs[0], 10)
    finish(configs[1], 10)
    sweep = Sweep(configs[3:])
    fail(configs[3], "ValueError: no such luck")
    assert not sweep.show_end({configs[4].folder: "TerminatedWorkerError: killed"})
    said = capsys.readouterr().out
    assert "ValueError: no such luck" in said
    assert "TerminatedWorkerError: killed" in said


@pytest.mark.parametrize("name", sorted(file.stem for file in LAUNCHERS.glob("*.yaml")))
def test_a_launcher_composes_or_says_what_to_install(name: str) -> None:
    text = (LAUNCHERS / f"{name}.yaml").read_text()
    assert text.startswith("# ")
    keys = [line for line in text.partition("\n\n")[2].splitlines() if not line.endswith(":")]
    assert all(re.search(r"# \[.+\] ", line) for line in keys)
    try:
        asked = jobs.plan(["-m", f"hydra/launcher={name}", "mu=2,3"])
    except ConfigError as error:
        extra = {"slurm": "slurm", "ray_cluster": "ray"}[name]
        assert error.lines == [f"hydra/launcher={name}: is not installed: pip install 'dtsim[{extra}]'"]
    else:
        assert len(asked.jobs) == 2


@pytest.mark.parametrize(
    ("asked", "users", "started"),
    [(8, "2,3", 2), (8, "2,3,4", 3), (8, "2", 2), (1, "2,3", 1), (-1, "2,3", min(2, os.cpu_count() or 1))],
)
def test_no_more_workers_are_started_than_there_are_jobs(
    asked: int, users: str, started: int, tiny: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker takes a GB of memory, and one without a job waits for the end of the sweep.

    A single job has two: joblib would execute it in this process with one, and may be killed with it.
    """
    seen: list[int] = []

    class Launcher:
        def launch(self, overrides: Sequence[Sequence[str]], initial_job_idx: int) -> list[JobReturn]:
            return []

    def launcher(context: HydraContext, task_function: object, config: DictConfig) -> Launcher:
        seen.append(config.hydra.launcher.n_jobs)
        return Launcher()

    monkeypatch.setattr(Plugins.instance(), "instantiate_launcher", launcher)
    keys = [key for key in tiny if not key.startswith("mu=")]
    own = ["hydra/launcher=joblib", f"hydra.launcher.n_jobs={asked}", f"outputs={tmp_path}"]
    plan = jobs.plan(["-m", *keys, f"mu={users}", *own])
    assert launch._launched(plan, plan.jobs) == []
    assert seen == [started]


def test_jobs_of_a_sweep_are_composed_once(tiny: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Planning composes them; a launcher gets what was planned."""
    composed = list[str]()
    load = ConfigLoaderImpl.load_configuration

    def noted(loader: ConfigLoaderImpl, *arguments: Any, **keys: Any) -> DictConfig:
        composed.append(str(keys.get("overrides")))
        found: DictConfig = load(loader, *arguments, **keys)
        return found

    keys = [key for key in tiny if not key.startswith("mu=")]
    plan = jobs.plan(["-m", *keys, "mu=2,3", f"outputs={tmp_path}"])
    monkeypatch.setattr(ConfigLoaderImpl, "load_configuration", noted)
    assert launch.run_sweep(plan)
    assert len(composed) == 1  # the sweep's own keys, such as its launcher
    for job in plan.jobs:
        result = json.loads((job.config.folder / "result.json").read_text())
        assert result["digest"] == job.config.digest
