"""One process at a time does a run, whatever becomes of the others."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from dtsim.core.progress import Progress
from dtsim.results import files
from dtsim.results.seal import seal as whole_seal
from dtsim.runner import experiment, jobs
from dtsim.runner.lock import Heartbeat, HeartbeatProgress, RunLocked, has_traces, heartbeat_of, run_lock, wait_for

HOLD = """
import sys, time
from pathlib import Path
from dtsim.runner.lock import run_lock
with run_lock(Path(sys.argv[1])) as lock:
    lock.phase, lock.share = "frames", 0.5
    print("held", flush=True)
    time.sleep(float(sys.argv[2]))
    Path(sys.argv[1]).with_name("left").touch()  # the last thing under the lock
"""


def beat_of(folder: Path) -> Heartbeat:
    beat = heartbeat_of(folder)
    assert beat is not None
    return beat


def holder(folder: Path, seconds: float) -> subprocess.Popen[str]:
    """A process that has the run of `folder` to itself."""
    process = subprocess.Popen([sys.executable, "-c", HOLD, folder, str(seconds)], stdout=subprocess.PIPE, text=True)
    assert process.stdout and process.stdout.readline() == "held\n"
    return process


def test_a_run_that_another_process_does_is_left_to_it(tmp_path: Path) -> None:
    folder = tmp_path / "mu=5" / "seed=0-abc"
    process = holder(folder, 60)
    with pytest.raises(RunLocked, match=f"process {process.pid} on "), run_lock(folder):
        pytest.fail("two processes had it")
    assert beat_of(folder).pid == process.pid
    process.kill()
    process.wait()


def test_the_lock_of_a_killed_process_blocks_nobody(tmp_path: Path) -> None:
    folder = tmp_path / "seed=0-abc"
    process = holder(folder, 60)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert heartbeat_of(folder) is None
    assert has_traces(folder)  # which tells a killed run from one that never began
    with run_lock(folder) as lock:
        assert not lock.waited
        assert beat_of(folder).pid == os.getpid()
    assert not has_traces(folder)


def test_waiting_ends_when_the_other_does(tmp_path: Path) -> None:
    folder = tmp_path / "seed=0-abc"
    process = holder(folder, 0.5)
    told: list[str] = []
    with run_lock(folder, on_wait=told.append) as lock:
        assert lock.waited
        assert folder.with_name("left").exists()  # nobody gets in while the other is at it
        assert beat_of(folder).pid == os.getpid()
    assert f"process {process.pid}" in told[0]
    process.wait()
    folder.with_name("left").unlink()
    process = holder(folder, 0.5)
    wait_for(folder)
    assert folder.with_name("left").exists()
    with run_lock(folder) as lock:
        assert not lock.waited
    process.wait()


def test_a_note_that_is_not_kept_fresh_is_nobodys(tmp_path: Path) -> None:
    folder = tmp_path / "seed=0-abc"
    with run_lock(folder):
        assert heartbeat_of(folder)
        past = time.time() - 3600
        os.utime(tmp_path / ".seed=0-abc.running.json", (past, past))
        assert heartbeat_of(folder) is None


def test_the_note_says_how_far_a_run_got(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dtsim.runner.lock.BEAT_S", 0.02)
    folder = tmp_path / "seed=0-abc"
    with run_lock(folder) as lock:
        progress = HeartbeatProgress(Progress(), lock)
        with progress.phase("frames", 10) as phase:
            phase.advance(3)
            time.sleep(0.3)
            note = beat_of(folder)
    assert (note.phase, note.share) == ("frames", 0.3)
    assert lock.phase == "set-up"


def test_a_run_is_noted_until_its_result_is_there_and_clears_away_what_a_killed_one_left(
    tiny: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (job,) = jobs.plan([*tiny, f"outputs={tmp_path}"]).jobs
    folder = job.config.folder
    left = [folder.with_name(f".{folder.name}.{what}") for what in ("new", "old")]
    for path in left:
        path.mkdir(parents=True)
        (path / "slots.csv").write_text("half of it")
    noted_then: list[Heartbeat] = []

    def seal(*arguments: Any) -> None:
        noted_then.append(beat_of(folder))
        whole_seal(*arguments)

    monkeypatch.setattr(files, "seal", seal)
    assert experiment.run(job.config) == folder
    assert noted_then[0].pid == os.getpid()
    assert [path.name for path in folder.parent.iterdir() if path != folder] == [f".{folder.name}.lock"]
