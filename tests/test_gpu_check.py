"""The check of a machine with a GPU, as far as it can be seen without one."""

from pathlib import Path

import pandas as pd
import pytest
import torch

from dtsim.runner import jobs
from scripts import gpu_check
from scripts.gpu_check import Outcome, Step


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_without_a_gpu_nothing_begins(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert gpu_check.main(["--outputs", str(tmp_path / "out")]) == 2
    assert "error: --device=cuda: there is no CUDA GPU here" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("small", [False, True])
def test_every_run_of_the_check_can_be_composed_and_is_done_on_both_devices(small: bool) -> None:
    steps = gpu_check.steps("cpu", small)
    runs = [step.arguments for step in steps if step.arguments[0] == "run"]
    users = [jobs.plan(run[1:]).jobs[0].config.mu for run in runs]
    assert users == ([3, 3, 6, 6, 3] if small else [20, 20, 200, 200, 20])
    there = [step.shown for step in gpu_check.steps("cuda", small)]
    assert sum("device=cuda" in shown for shown in there) == 6
    assert sum("device=cpu" in shown for shown in there) == 2
    assert any("resnet18" in shown and "cifar10" in shown for shown in there)
    assert there[0] == "pytest -m cuda tests"


@pytest.mark.slow
def test_steps_are_done_and_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    steps = [
        Step("retraining", ("bench", "retraining", "device=cpu", "outputs=retraining", "--users=1", "--samples=4")),
        Step("wrong", ("bench", "retraining", "--users=0")),
    ]
    monkeypatch.setattr(gpu_check, "steps", lambda device, small: steps)
    assert gpu_check.main(["--device", "cpu", "--small", "--outputs", str(tmp_path)]) == 1
    report = (tmp_path / "report.md").read_text()
    assert "| retraining | passed |" in report
    assert "| wrong | **failed, exit code 2** |" in report
    assert "users=0" in (tmp_path / "step-2.log").read_text()
    table = pd.read_csv(tmp_path / "retraining" / "bench" / "retraining.csv")
    way = table[table["contender"] == "heads"]
    assert f"| retraining | heads | {(way['samples'] / way['seconds']).median():,.0f} |" in report
    assert (tmp_path / "throughput.png").stat().st_size > 10_000
    assert str(tmp_path) not in report


def test_runs_are_told_apart_by_device(tmp_path: Path) -> None:
    for name, seconds in (("cuda", 3.0), ("reference", 9.0)):
        folder = tmp_path / "runs" / name / "proposed"
        folder.mkdir(parents=True)
        row = {"mu": 20, "wall_time_s": seconds, "system_delay_mean_s": 0.1, "accuracy_mean": 0.9, "retrains": 4}
        pd.DataFrame([row]).to_csv(folder / "run.csv", index=False)
    text = gpu_check.report([Outcome(Step("a", ("run",)), 0, 1.0, 2e9)], tmp_path, "cpu")
    assert "| CPU | 20 | 9 | 0.1 | 0.9 | 4 |" in text
    assert "| a | passed | 1 | 2.0 | `dtsim run` |" in text
