"""Trackers: what they are told of a run, and that none of them can cost one."""

import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import dtsim
from dtsim.core.parts import ConfigError
from dtsim.results.folders import read_run
from dtsim.runner import jobs, tracked
from dtsim.runner.tracker import track


class _Told(ModuleType):
    """A tracker's library that notes what it is told."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.calls: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = []
        self.summary: dict[str, float] = {}

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)

        def call(*arguments: Any, **keys: Any) -> Any:
            self.calls.append((name, arguments, keys))
            return self

        return call

    def __enter__(self) -> Any:
        return self

    def __exit__(self, *_: object) -> None:
        self.calls.append(("exit", (), {}))


def test_tensorboard_shows_what_the_run_wrote(tiny: list[str], tmp_path: Path) -> None:
    folder = Path(dtsim.run(*tiny, "tracker=tensorboard", f"outputs={tmp_path}"))
    assert folder == jobs.plan([*tiny, f"outputs={tmp_path}"]).jobs[0].config.folder  # the digest is the same without
    found = EventAccumulator(str(tmp_path / "tensorboard" / Path(*folder.parts[-3:])))
    found.Reload()
    tags = found.Tags()["scalars"]
    row = read_run(folder)
    (delay,) = found.Scalars("run/system_delay_mean_s")
    assert delay.value == pytest.approx(row["system_delay_mean_s"])
    assert [event.step for event in found.Scalars("slot/makespan_s")] == [0, 1, 2, 3]
    assert sum(event.value for event in found.Scalars("slot/makespan_s")) / 4 == pytest.approx(row["makespan_mean_s"])
    assert [event.step for event in found.Scalars("frame/accuracy")] == [0, 1]
    assert "pretrain/accuracy" in tags


@pytest.mark.parametrize(
    ("name", "keys"),
    [
        ("mlflow", {"uri": None, "experiment": "mine"}),
        ("trackio", {"project": "mine", "space": None}),
        ("wandb", {"project": "mine", "mode": "offline", "folder": "x"}),
    ],
)
def test_each_tracker_is_told_configuration_numbers_and_series(
    name: str,
    keys: dict[str, Any],
    real_runs: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = next((real_runs / "makespan" / "proposed").glob("mu=*/seed=*"))
    told = _Told(name)
    monkeypatch.setitem(sys.modules, name, told)
    track(name, keys, folder)
    assert capsys.readouterr().err == ""
    said = f"{told.calls} {told.summary}"
    assert "'generator.min_ratio'" in said
    assert str(read_run(folder)["system_delay_mean_s"]) in said
    assert "slot/makespan_s" in said
    assert told.calls[-1][0] in ("exit", "finish")


def test_a_tracker_that_fails_is_one_line_and_costs_no_run(
    tiny: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(keys: dict[str, Any], run: tracked.Tracked) -> None:
        raise RuntimeError("no\nserver")

    monkeypatch.setitem(tracked.SENDERS, "tensorboard", fails)
    (folder,) = map(Path, dtsim.sweep(*tiny, "tracker=tensorboard", f"outputs={tmp_path}"))
    assert (folder / "result.json").is_file()
    warned = [line for line in capsys.readouterr().err.splitlines() if line.startswith("warning")]
    assert warned == [f"warning: tracker=tensorboard: {folder} was not logged (RuntimeError: no server)"]


def test_a_tracker_that_is_not_installed_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"^tracker=mlflow: is not installed: pip install 'dtsim\[mlflow\]'$"):
        jobs.plan(["tracker=mlflow"])


def test_no_tracker_is_imported_without_being_asked_for() -> None:
    code = "import sys, dtsim.runner.tracker; print({'mlflow','wandb','trackio','tensorboard'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=dict(os.environ))
    assert done.stdout.strip() == "set()", done.stderr
