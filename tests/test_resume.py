"""Sweeps that meet each other, are killed, or find the disk full: what is done stays done, nothing half done counts."""

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest

from dtsim.runner import experiment, jobs
from tests.commands import Command, dtsim
from tests.test_cli import without_wall_times


def marks(outputs: Path) -> dict[Path, tuple[int, int]]:
    """What tells each result from one done again."""
    stats = {path: path.stat() for path in outputs.rglob("result.json")}
    return {path: (stat.st_ino, stat.st_mtime_ns) for path, stat in stats.items()}


def without(tiny: list[str], *keys: str) -> list[str]:
    return [override for override in tiny if override.split("=")[0] not in keys]


@pytest.mark.slow
def test_two_sweeps_at_once_do_each_job_once_and_both_end_complete(tiny: list[str], tmp_path: Path) -> None:
    sweep = ["run", "-m", *without(tiny, "mu", "cache"), f"cache={tmp_path / 'cache'}", f"outputs={tmp_path / 'out'}"]
    both = [Command(*sweep, f"mu={order}") for order in ("2,3,4", "4,3,2")]
    texts = ["".join(process.communicate(timeout=300)) for process in both]
    assert [process.returncode for process in both] == [0, 0], texts
    for text in texts:
        assert "3 of 3 done" in text
    said = "".join(texts)
    assert said.count(": written: ") == 3
    assert said.count("pre-training: done") == 1  # from a cold cache, both at once
    assert not [path for path in (tmp_path / "out").rglob(".*") if path.suffix != ".lock"]
    before = marks(tmp_path / "out")
    again = dtsim(*sweep, "mu=2,3,4")
    assert again.returncode == 0
    assert "3 of 3 done (3 before)" in again.stderr
    assert marks(tmp_path / "out") == before


@pytest.mark.slow
def test_killed_at_random_moments_a_sweep_resumes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(Path(__file__).parent.parent / "scripts")
    from scripts import kill_sweep  # not as a program: this process has imported already what takes long

    kill_sweep.kill(6, 3, tmp_path)
    assert "nothing broken by 6 signals" in capsys.readouterr().out


DEADLY = '''
import os
from dtsim.association.greedy import Greedy

class Deadly(Greedy):
    """Takes the whole process with it where there are `users` MUs, as the system does when memory runs out."""
    def __init__(self, *, users):
        self.users = users
    def solve(self, problem):
        if problem.users == self.users:
            os.kill(os.getpid(), 9)
        return super().solve(problem)
'''


@pytest.mark.slow
def test_a_killed_worker_takes_no_other_job_with_it(tiny: list[str], tmp_path: Path) -> None:
    (tmp_path / "deadly.py").write_text(DEADLY)
    (tmp_path / "conf" / "solver").mkdir(parents=True)
    (tmp_path / "conf" / "solver" / "deadly.yaml").write_text("_target_: deadly.Deadly\nusers: 3\n")
    keys = [*without(tiny, "mu"), "mu=3,2,4", "solver=deadly", f"outputs={tmp_path / 'out'}"]
    launcher = ["hydra/launcher=laptop", "hydra.launcher.n_jobs=2"]
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = dtsim("run", "-m", "--config-dir", tmp_path / "conf", *keys, *launcher, env=environment)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert {path.parent.parent.name for path in marks(tmp_path / "out")} == {"mu=2", "mu=4"}
    (row,) = [line for line in done.stdout.splitlines() if line.startswith("│ proposed │ 3 ")]
    assert "Terminated" in row


@pytest.mark.slow
def test_the_same_on_submitits_processes(tiny: list[str], tmp_path: Path) -> None:
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher")
    keys = [*without(tiny, "mu"), "mu=2,3"]
    launcher = ["hydra/launcher=submitit_local", "hydra.launcher.timeout_min=5"]
    assert dtsim("run", "-m", *keys, f"outputs={tmp_path / 'one'}").returncode == 0
    done = dtsim("run", "-m", *keys, *launcher, f"outputs={tmp_path / 'two'}")
    assert done.returncode == 0, done.stderr
    for path in marks(tmp_path / "one"):
        twin = tmp_path / "two" / path.parent.relative_to(tmp_path / "one")
        assert without_wall_times(path.parent) == without_wall_times(twin)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MiB, with a file `ballast` on it that leaves room for next to nothing."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk)]
    if os.geteuid() != 0 or not shutil.which("mount") or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("only root can mount a small file system")
    try:
        (disk / "ballast").write_bytes(bytes(2**20 - 5 * 4096))
        yield disk
    finally:
        subprocess.run(["umount", str(disk)], check=True)


@pytest.mark.slow
def test_a_full_disk_is_one_line_and_the_same_sweep_goes_on(tiny: list[str], small_disk: Path) -> None:
    command = ["run", "-m", *tiny, f"outputs={small_disk / 'out'}"]
    full = dtsim(*command)
    assert full.returncode == 1
    assert "Traceback" not in full.stdout + full.stderr
    (line,) = [line for line in full.stderr.splitlines() if line.startswith("error: ")]
    assert str(small_disk / "out") in line
    assert "No space left on device" in line
    assert not list(small_disk.rglob("*.csv"))
    (small_disk / "ballast").unlink()
    assert dtsim(*command).returncode == 0
    (result,) = small_disk.rglob("result.json")
    assert len(pd.read_csv(result.parent / "slots.csv")) == 4 * 4
    assert not list(small_disk.rglob("failed"))


def test_a_full_cache_is_one_line_and_the_same_run_goes_on(tiny: list[str], tmp_path: Path, small_disk: Path) -> None:
    keys = [*without(tiny, "cache"), f"cache={small_disk / 'cache'}", f"outputs={tmp_path / 'out'}"]
    (job,) = jobs.plan(keys).jobs
    with pytest.raises(experiment.JobError) as full:
        experiment.run(job.config)
    assert re.fullmatch(rf".*: {small_disk}/cache/pretrained/\w+\.pt: No space left on device.*", str(full.value))
    assert not list(tmp_path.rglob("result.json"))
    assert not list(small_disk.rglob("*.pt*[!k]"))  # all but locks
    (small_disk / "ballast").unlink()
    experiment.run(job.config)
    assert len(marks(tmp_path / "out")) == 1
