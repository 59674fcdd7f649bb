"""A sweep ends on SIGTERM as on Ctrl-C, and its workers end with it, however it ends."""

import os
import signal
import time
from pathlib import Path

import pytest

from scripts.small_sweep import SWEEP, write_images
from tests.commands import Command


def processes_of(group: int) -> list[int]:
    """Processes of a group that are no zombies."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, own = stat.read_text().rpartition(")")[2].split()[:3]
        except OSError:
            continue
        if int(own) == group and state != "Z":
            found.append(int(stat.parent.name))
    return found


def left_after(seconds: float, group: int) -> list[int]:
    """Processes of a group that are still there after so long; they are killed."""
    until = time.monotonic() + seconds
    while processes_of(group) and time.monotonic() < until:
        time.sleep(0.1)
    left = processes_of(group)
    for pid in left:
        os.kill(pid, signal.SIGKILL)
    return left


def swept_by_two(folder: Path, *keys: str) -> Command:
    """A sweep of four jobs on two workers, with everything in `folder`."""
    write_images(folder / "images")
    place = [f"dataset.root={folder / 'images'}", f"outputs={folder / 'out'}", f"cache={folder / 'cache'}"]
    two = ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2"]
    return Command(*SWEEP, *place, *two, *keys, start_new_session=True)


def workers_of(group: int) -> list[int]:
    """Joblib's workers of a process group."""
    return [pid for pid in processes_of(group) if b"popen_loky" in (Path("/proc") / str(pid) / "cmdline").read_bytes()]


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc")
@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, 143), pytest.param(signal.SIGKILL, -signal.SIGKILL, marks=pytest.mark.slow)]
)
def test_no_worker_outlives_its_sweep(tmp_path: Path, number: signal.Signals, code: int) -> None:
    sweep = swept_by_two(tmp_path, "frames=10000")
    until = time.monotonic() + 100
    while len(list((tmp_path / "out").rglob(".*.running.json"))) < 2 and time.monotonic() < until:
        time.sleep(0.1)
    assert len(processes_of(sweep.pid)) > 2
    os.kill(sweep.pid, number)
    assert sweep.wait(timeout=60) == code
    assert not left_after(10, sweep.pid)


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc")
def test_a_worker_that_never_got_a_job_ends_with_its_sweep(tmp_path: Path) -> None:
    sweep = swept_by_two(tmp_path)
    until = time.monotonic() + 100
    while not (workers := workers_of(sweep.pid)) and time.monotonic() < until:
        time.sleep(0.01)
    assert workers
    os.kill(sweep.pid, signal.SIGKILL)
    sweep.wait(10)
    assert not left_after(10, sweep.pid)
    assert not list((tmp_path / "out").rglob("run.log"))  # it was killed before any job began
