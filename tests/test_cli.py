"""The command line by its argv, what it prints and how it exits."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest

from dtsim.runner.completion import completions
from tests.commands import Command, dtsim

SCHEMES = "proposed,without_dt,without_il,single_timescale"


def without_wall_times(folder: Path) -> dict[str, str]:
    """Every CSV of a run as text, wall-time columns aside."""
    texts = {}
    for file in sorted(folder.glob("*.csv")):
        table = pd.read_csv(file, dtype=str)
        walls = table.filter(regex="(wall_time_s|solve_time_s)$|^seconds$").columns
        texts[file.name] = table.drop(columns=walls).to_csv()
    return texts


def test_help_is_there_without_importing_torch() -> None:
    code = "import sys; from dtsim.cli.app import main\ntry: main()\nfinally: print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code, "--help"], capture_output=True, text=True)
    assert done.returncode == 0
    for verb in ("run", "check", "report"):
        assert verb in done.stdout
    assert done.stdout.strip().endswith("False")


def test_run_help_lists_groups_and_keys_with_units() -> None:
    done = dtsim("run", "--help")
    assert done.returncode == 0
    for said in (
        "scheme=single_timescale",
        "solver=branch_and_bound",
        "channel.bandwidth_hz",
        "[Hz, 1 to 1e12]",
        "mu=20",
        "--cfg",
    ):
        assert said in done.stdout


def test_a_run_prints_a_table_and_is_not_done_twice(tiny: list[str], tmp_path: Path) -> None:
    first = dtsim("run", *tiny, f"outputs={tmp_path}")
    assert first.returncode == 0, first.stderr
    assert "proposed" in first.stdout
    assert "frames: started" in first.stderr  # no terminal: plain lines
    (folder,) = tmp_path.glob("proposed/mu=4/seed=0-*")
    assert str(folder) in first.stdout.replace("\n", "")
    before = (folder / "result.json").stat().st_mtime_ns
    assert "already done" in dtsim("run", *tiny, f"outputs={tmp_path}").stderr
    assert (folder / "result.json").stat().st_mtime_ns == before
    again = dtsim("run", *tiny, f"outputs={tmp_path}", "--fresh")
    assert again.returncode == 0
    assert (folder / "result.json").stat().st_mtime_ns != before
    reported = dtsim("report", tmp_path)
    assert reported.returncode == 0
    assert "proposed" in reported.stdout


@pytest.mark.slow
def test_a_sweep_gives_the_same_bytes_on_one_worker_and_on_two(tiny: list[str], tmp_path: Path) -> None:
    sweep = ["run", "-m", *tiny, f"scheme={SCHEMES}", "mu=3"]
    one = dtsim(*sweep, f"outputs={tmp_path / 'one'}")
    two = dtsim(*sweep, f"outputs={tmp_path / 'two'}", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2")
    assert (one.returncode, two.returncode) == (0, 0), one.stderr + two.stderr
    folders = sorted(folder.parent for folder in (tmp_path / "one").rglob("result.json"))
    assert len(folders) == 4
    for folder in folders:
        twin = tmp_path / "two" / folder.relative_to(tmp_path / "one")
        assert without_wall_times(folder) == without_wall_times(twin)
    assert dtsim("report", tmp_path / "one").stdout.count("proposed") == 1


def test_hydras_own_flags_work(tiny: list[str]) -> None:
    shown = dtsim("run", *tiny, "--cfg", "job")
    assert shown.returncode == 0
    assert "mu: 4" in shown.stdout
    tree = dtsim("run", "--info", "defaults-tree")
    assert tree.returncode == 0
    assert "scheme: proposed" in tree.stdout


def test_check_runs_nothing(tiny: list[str], tmp_path: Path) -> None:
    done = dtsim("check", "-m", *tiny, f"scheme={SCHEMES}", "mu=5,10", f"outputs={tmp_path}")
    assert done.returncode == 0
    assert "8 jobs can run" in done.stdout
    assert not list(tmp_path.rglob("*.*"))


@pytest.mark.parametrize("verb", ["run", "check"])
def test_all_faults_of_all_jobs_are_shown_and_none_starts(tiny: list[str], tmp_path: Path, verb: str) -> None:
    done = dtsim(
        verb, "-m", *tiny, "mu=4,0", "accuracy_threshold=1.7", "channel.bandwidth_hz=-1", f"outputs={tmp_path}"
    )
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    for said in ("mu=0: must be >= 1", "accuracy_threshold=1.7: must be < 1"):
        assert f"error: {said}" in done.stderr
    assert not list(tmp_path.rglob("*.*"))


def test_a_failed_job_stops_no_other(tiny: list[str], tmp_path: Path, data_folder: Path) -> None:
    broken = tmp_path / "broken"
    broken.mkdir()
    for file in (data_folder / "FashionMNIST" / "raw").iterdir():
        (broken / file.name).write_bytes(file.read_bytes())
    file = broken / "train-images-idx3-ubyte.gz"
    file.write_bytes(file.read_bytes()[:5000])
    roots = f"dataset.root={broken},{data_folder}"
    done = dtsim("run", "-m", *tiny, roots, f"outputs={tmp_path / 'outputs'}")
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "train-images-idx3-ubyte.gz" in done.stderr
    assert len(list((tmp_path / "outputs").rglob("result.json"))) == 1
    (failed,) = (tmp_path / "outputs").rglob("failed")
    assert "DatasetError" in failed.read_text()
    assert "failed" in done.stdout


def test_redoing_that_fails_does_not_pass_for_the_old_result(
    tiny: list[str], tmp_path: Path, data_folder: Path
) -> None:
    keys = [key for key in tiny if not key.startswith("dataset.root")]
    images = tmp_path / "images"
    shutil.copytree(data_folder, images)
    sweep = ["run", "-m", *keys, f"dataset.root={images}", f"outputs={tmp_path / 'outputs'}"]
    assert dtsim(*sweep).returncode == 0
    file = images / "FashionMNIST" / "raw" / "t10k-labels-idx1-ubyte.gz"
    whole = file.read_bytes()
    file.write_bytes(whole[:40])
    again = dtsim(*sweep, "--fresh")
    assert again.returncode == 1
    assert "t10k-labels" in again.stderr
    assert list((tmp_path / "outputs").rglob("slots.csv"))  # the old result is not lost
    (failed,) = (path.parent for path in (tmp_path / "outputs").rglob("failed"))
    file.write_bytes(whole)
    assert dtsim(*sweep).returncode == 0  # the whole data have another digest, and a result
    (done,) = (path.parent for path in (tmp_path / "outputs").rglob("result.json"))
    assert done != failed


def test_bad_data_is_one_line_and_exit_code_1(tiny: list[str], tmp_path: Path) -> None:
    done = dtsim("run", *tiny, f"dataset.root={tmp_path / 'nothing'}", f"outputs={tmp_path}")
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert len([line for line in done.stderr.splitlines() if "dataset.root" in line]) == 1


def test_report_of_nothing_is_an_error(tmp_path: Path) -> None:
    done = dtsim("report", tmp_path)
    assert done.returncode == 2
    assert str(tmp_path) in done.stderr


PLUGINS = '''
import time
import numpy as np
from dtsim.association.problem import answer
from dtsim.physical.channel import FreeSpace
from dtsim.twin.generator import Replay

class Last:
    """Serve everybody at the last base station."""
    def __init__(self, *, offset):
        if offset > 2:
            raise ValueError("offset is too large")
        self.offset = offset
    def solve(self, problem):
        station = np.full(problem.users, problem.stations - self.offset)
        return answer(problem, station, bound_s=0.0, started=time.perf_counter(), status="heuristic", solver="last")

class TwiceAsFast(FreeSpace):
    """Free space with twice the rate."""
    def rate_bps(self, gain):
        return 2 * super().rate_bps(gain)

class Tenth(Replay):
    """Replay of a tenth of what is wanted."""
    def count(self, *, real, wanted, divergence_nat):
        return wanted // 10
'''


def test_parts_of_ones_own_run_without_a_fork(tiny: list[str], tmp_path: Path) -> None:
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "mine.py").write_text(PLUGINS)
    for group, text in {
        "solver/last": "_target_: mine.Last\noffset: 1  # [-] from the end\n",
        "channel/fast": "_target_: mine.TwiceAsFast\nfading: none\n",
        "generator/tenth": "_target_: mine.Tenth\n",
    }.items():
        file = tmp_path / "conf" / f"{group}.yaml"
        file.parent.mkdir(parents=True)
        file.write_text(text)
    own = ["--config-dir", tmp_path / "conf", "solver=last", "channel=fast", "generator=tenth"]
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "code")}
    keys = [*tiny, "accuracy_threshold=0.97", f"outputs={tmp_path / 'outputs'}"]
    done = dtsim("run", *own, *keys, env=environment)
    assert done.returncode == 0, done.stderr
    (folder,) = (path.parent for path in (tmp_path / "outputs").rglob("result.json"))
    slots, frames = (pd.read_csv(folder / file) for file in ("slots.csv", "frames.csv"))
    assert (slots.station == 2).all()
    assert frames.samples_generated.max() == 6  # a tenth of 60
    assert (pd.read_csv(folder / "associations.csv").solver == "last").all()
    snr = 10 ** (slots.snr_db / 10)
    assert (slots.rate_bps / (20e6 * (1 + snr).map(lambda x: __import__("math").log2(x)))).to_numpy() == pytest.approx(
        2
    )
    bad = dtsim("check", *own, "solver.offset=3", "+solver.typo=1", *keys, env=environment)
    assert bad.returncode == 2
    assert "solver: mine.Last refuses its values" in bad.stderr
    listed = dtsim("run", "--help", "--config-dir", tmp_path / "conf")
    assert "solver=last" in listed.stdout


def test_the_solver_of_the_documentation_runs_as_it_stands_there(tiny: list[str], tmp_path: Path) -> None:
    page = (Path(__file__).parent.parent / "docs" / "howto" / "part.md").read_text()
    page = re.sub(r"^    ", "", page, flags=re.MULTILINE)  # the blocks stand in a list
    blocks = dict(re.findall(r"^```(python|yaml)\n# (?s:(.*?))^```", page, flags=re.MULTILINE))
    for block in blocks.values():
        name, _, text = block.partition("\n")
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    own = ["--config-dir", tmp_path / "myconf", "solver=round_robin"]
    done = dtsim("run", *own, *tiny, f"outputs={tmp_path / 'outputs'}", env=environment)
    assert done.returncode == 0, done.stderr
    (slots,) = (pd.read_csv(file) for file in (tmp_path / "outputs").rglob("slots.csv"))
    assert (slots.station == slots.user % 3).all()


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("sch", "scheme="),
        ("scheme=pro", "scheme=proposed"),
        ("solver=", "solver=branch_and_bound"),
        ("accuracy_t", "accuracy_threshold="),
        ("channel.band", "channel.bandwidth_hz="),
    ],
)
def test_completion_offers_groups_choices_and_keys(typed: str, offered: str) -> None:
    assert any(offer.startswith(offered) for offer in completions(typed))


@pytest.mark.parametrize(("typed", "offered"), [("scheme=pro", ["scheme=proposed"]), ("scheme=nothing", [])])
def test_completion_works_through_the_shells_protocol(typed: str, offered: list[str]) -> None:
    """What bash does on Tab; the program must be called dtsim, for it is looked up by its name."""
    code = "import sys; sys.argv[0] = 'dtsim'; from dtsim.cli.app import main; main()"
    asked = {"_DTSIM_COMPLETE": "complete_bash", "COMP_WORDS": f"dtsim\nrun\n{typed}", "COMP_CWORD": "2"}
    done = subprocess.run([sys.executable, "-c", code], env={**os.environ, **asked}, capture_output=True, text=True)
    assert (done.returncode, done.stdout.split()) == (0, offered), done.stderr


def test_ctrl_c_stops_a_sweep_on_several_processes(tiny: list[str], tmp_path: Path) -> None:
    keys = [key for key in tiny if not key.startswith(("frames=", "mu="))]
    launcher = ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2"]
    code, said = interrupted_in("frames", ["-m", *keys, *launcher, "frames=3000", "mu=3,4,5"], tmp_path)
    assert code == 130
    assert "the same command goes on" in said
    assert "Traceback" not in said
    assert not list(Path(tmp_path).rglob("result.json"))


def interrupted_in(phase: str, arguments: list[str], tmp_path: Path) -> tuple[int, str]:
    """Start a run, press Ctrl-C when `phase` begins; its exit code and what it printed."""
    process = Command("run", *arguments, f"outputs={tmp_path}", start_new_session=True)
    lines = []
    for line in process.lines():
        lines.append(line)
        if f"{phase}: started" in line:
            time.sleep(0.3)
            # A terminal sends it to every process of the group.
            os.killpg(process.pid, signal.SIGINT)
            break
    else:
        pytest.fail("never got there: " + "".join(lines))
    _, said = process.communicate(timeout=60)
    return process.wait(60), said


SLOW_DDPG = ["allocator=ddpg", "allocator.environment_steps=20000", "allocator.evaluate_every=20000"]


@pytest.mark.parametrize(
    ("phase", "overrides"),
    [
        ("pre-training", ["pretraining.epochs=1000"]),
        pytest.param("DRL training", SLOW_DDPG, marks=pytest.mark.slow),
        ("frames", ["frames=2000"]),
        pytest.param("frames", ["frames=2000", "solver=branch_and_bound"], marks=pytest.mark.slow),
    ],
)
def test_ctrl_c_says_where_and_leaves_nothing_that_looks_finished(
    tiny: list[str], tmp_path: Path, phase: str, overrides: list[str]
) -> None:
    keys = [key for key in tiny if key.split("=")[0] not in {o.split("=")[0] for o in overrides}]
    code, said = interrupted_in(phase, [*keys, *overrides], tmp_path)
    assert code == 130
    assert f"interrupted in {phase}" in said
    assert "the same command goes on" in said
    assert "Traceback" not in said
    assert not list(Path(tmp_path).rglob("*.csv"))
    assert not list(Path(tmp_path).rglob("result.json"))
