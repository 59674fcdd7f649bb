"""A study of Optuna's: what it searches, what it refuses, and that it goes on where it was killed."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import optuna
import pandas as pd
import pytest

import dtsim
from dtsim.core.parts import ConfigError
from dtsim.results.folders import read_run
from dtsim.runner import jobs

STUDY = ["hydra/sweeper=optuna", "solver=greedy,strongest", "retraining.learning_rate=tag(log,interval(0.001,0.1))"]


def refused(*keys: str) -> list[str]:
    with pytest.raises(ConfigError) as error:
        jobs.plan(["-m", "hydra/sweeper=optuna", *keys])
    return error.value.lines


def test_every_choice_and_both_ends_of_every_range_are_checked_first(tiny: list[str], tmp_path: Path) -> None:
    plan = jobs.plan(["-m", *tiny, *STUDY, "traffic.max_images=range(8,12,2)", f"outputs={tmp_path}"])
    rates = {job.config.retraining["learning_rate"] for job in plan.jobs}
    assert {min(rates), max(rates)} == {0.001, 0.1}
    assert {job.config.traffic["max_images"] for job in plan.jobs} == {8, 10}
    assert len({job.config.solver["_target_"] for job in plan.jobs}) == 2
    assert not list(tmp_path.iterdir())


def test_what_cannot_be_searched_is_one_line() -> None:
    assert refused("mu=5") == [
        "hydra/sweeper=optuna: needs a key to search, as in generator.kl_scale_nat=interval(0.05,1)"
    ]
    (line,) = refused("mu=interval(5,9)")  # a whole number is int(interval(5,9)), or range(5,10)
    assert line == "mu=6.528: must be a whole number"
    (line,) = refused("mu=5,10", "hydra.sweeper.metric=accuracy")
    assert line.startswith("hydra.sweeper.metric=accuracy: must be one of objective, system_delay_mean_s")
    assert refused("mu=range(2,5)", "hydra.sweeper.metric=energy_j") == [
        "hydra.sweeper.metric=energy_j: needs time=contiguous"
    ]
    assert line.endswith("did you mean accuracy_mean?")
    assert refused("mu=5,10", "hydra.sweeper.trials=0") == ["hydra.sweeper.trials=0: must be >= 1"]
    assert refused("mu=5,10", "hydra.sweeper.study=a/b")[0].startswith("hydra.sweeper.study=a/b: must be a name")
    assert refused("seed=1,2", "hydra.sweeper.seeds=[3]")[0].startswith("seed: is averaged over")
    assert "must begin above 0" in refused("retraining.learning_rate=tag(log,interval(0,1))")[0]
    with pytest.raises(ConfigError, match=r"needs a sweep: add -m"):
        jobs.plan(["hydra/sweeper=optuna"])


def test_a_trial_is_the_mean_over_seeds_and_a_study_goes_on(
    tiny: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    keys = [*tiny, *STUDY, "hydra.sweeper.seeds=[0,1]", "hydra.sweeper.metric=user_delay_mean_s", f"outputs={tmp_path}"]
    folders = list(map(Path, dtsim.sweep(*keys, "hydra.sweeper.trials=1")))
    (file,) = (tmp_path / "studies").glob("*.csv")
    row = pd.read_csv(file).iloc[0]
    assert row["user_delay_mean_s"] == pytest.approx(sum(read_run(one)["user_delay_mean_s"] for one in folders) / 2)  # type: ignore[misc]
    assert len(folders) == 2
    dtsim.sweep(*keys, "hydra.sweeper.trials=2")
    assert len(pd.read_csv(file)) == 2
    assert "1 of 2 trials done before" in capsys.readouterr().err
    with pytest.raises(ConfigError, match="is a study of other keys"):
        dtsim.sweep(*keys, f"hydra.sweeper.study={file.stem}", "hydra.sweeper.metric=accuracy_mean")


@pytest.mark.slow
def test_a_study_that_is_killed_goes_on_with_the_next_trial_and_the_same_values(
    tiny: list[str], tmp_path: Path
) -> None:
    def command(outputs: Path) -> list[str]:
        program = [sys.executable, "-c", "from dtsim.cli.app import main; main()"]
        return [*program, "run", "-m", *tiny, *STUDY, f"outputs={outputs}", "hydra.sweeper.trials=4"]

    killed = subprocess.Popen(command(tmp_path / "one"), stderr=subprocess.PIPE, text=True, start_new_session=True)
    assert killed.stderr is not None
    for line in killed.stderr:
        if line.startswith("study: trial 2:"):
            break
    time.sleep(0.3)  # in the third
    os.killpg(killed.pid, signal.SIGKILL)
    killed.wait()
    done = subprocess.run(command(tmp_path / "one"), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    told = re.findall(r"^study: (trial \d+|\d of \d trials done before)", done.stderr, re.MULTILINE)
    assert told == ["2 of 4 trials done before", "trial 3", "trial 4"]
    whole = subprocess.run(command(tmp_path / "two"), capture_output=True, text=True)
    assert whole.returncode == 0
    (one,), (two,) = ((tmp_path / name / "studies").glob("*.csv") for name in ("one", "two"))
    assert one.read_text() == two.read_text()
    assert len(pd.read_csv(one)) == 4
    assert len(optuna.load_study(study_name=one.stem, storage=f"sqlite:///{one.with_suffix('.db')}").trials) == 4


@pytest.mark.slow
def test_a_trial_that_was_half_drawn_gets_the_values_that_it_would_have_had(tiny: list[str], tmp_path: Path) -> None:
    """Killed between two values of its third trial, a study draws the second as an unbroken one does."""
    keys = [*tiny, *STUDY]
    dtsim.sweep(*keys, f"outputs={tmp_path / 'one'}", "hydra.sweeper.trials=3")
    dtsim.sweep(*keys, f"outputs={tmp_path / 'two'}", "hydra.sweeper.trials=2")
    (one,), (two,) = ((tmp_path / name / "studies").glob("*.csv") for name in ("one", "two"))
    whole, half = (
        optuna.load_study(study_name=file.stem, storage=f"sqlite:///{file.with_suffix('.db')}") for file in (one, two)
    )
    third = whole.trials[2]
    key, law = next(iter(third.distributions.items()))
    begun = half._storage.create_new_trial(half._study_id)
    half._storage.set_trial_param(begun, key, law.to_internal_repr(third.params[key]), law)
    dtsim.sweep(*keys, f"outputs={tmp_path / 'two'}", "hydra.sweeper.trials=3")
    assert one.read_text() == two.read_text()
