"""A_th relative to the base model: read, refused, resolved, and used by a run and its report."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest

from dtsim.core.parts import ConfigError
from dtsim.reporting.claims import Run
from dtsim.reporting.runs import load, threshold_of
from dtsim.runner import experiment, jobs
from dtsim.runner.assembly import prepare
from dtsim.runner.threshold import resolved
from tests.run_folders import write_run


@pytest.mark.parametrize(
    ("given", "number"), [("base-0.05", 0.65), ("base-.05", 0.65), ("base", 0.7), ("base-0", 0.7), (0.85, 0.85)]
)
def test_a_threshold_is_a_number_or_an_amount_below_the_base_model(given: float | str, number: float) -> None:
    assert resolved(jobs.plan([f"accuracy_threshold={given}"]).jobs[0].config.accuracy_threshold, 0.7) == (
        pytest.approx(number)
    )


@pytest.mark.parametrize("given", ["base-1.5", "base-1", "base+0.1", "base-", "bass-0.1", "base-0.05x", "base-1e-2"])
def test_another_text_is_refused_in_one_line(given: str) -> None:
    with pytest.raises(ConfigError) as caught:
        jobs.plan([f"accuracy_threshold={given}"])
    assert caught.value.lines == [
        f"accuracy_threshold={given!r}: must be a number or must be base-x with x >= 0 and < 1, such as base-0.05"
    ]


@pytest.mark.parametrize(("given", "range_"), [("0", "> 0"), ("1", "< 1"), ("-0.5", "> 0")])
def test_a_number_out_of_range_is_refused_in_one_line(given: str, range_: str) -> None:
    with pytest.raises(ConfigError) as caught:
        jobs.plan([f"accuracy_threshold={given}"])
    (line,) = caught.value.lines
    assert line.startswith(f"accuracy_threshold={given}: must be {range_}") and "or must be base-x" in line


def test_nothing_left_of_the_base_models_accuracy_is_refused() -> None:
    with pytest.raises(ConfigError) as caught:
        resolved("base-0.5", 0.3)
    assert caught.value.lines == ["accuracy_threshold=base-0.5: must stay above 0, the base model's accuracy is 0.300"]


@pytest.mark.parametrize("scheme", ["proposed", "single_timescale"])
def test_a_run_decides_and_counts_by_the_number(scheme: str, tiny: list[str], tmp_path: Path) -> None:
    (job,) = jobs.plan([*tiny, f"scheme={scheme}", "accuracy_threshold=base-0.02", f"outputs={tmp_path}"]).jobs
    folder = experiment.run(job.config)
    base = prepare(job.config).base.accuracy
    run = pd.read_csv(folder / "run.csv").iloc[0]
    slots, frames = (pd.read_csv(folder / file) for file in ("slots.csv", "frames.csv"))
    assert run.accuracy_threshold == pytest.approx(base - 0.02) and 0.5 < run.accuracy_threshold < 1
    assert (slots.breakout == (slots.accuracy < run.accuracy_threshold)).all()
    assert (frames.breakout == (frames.accuracy < run.accuracy_threshold)).all()
    if scheme == "proposed":
        assert (frames.retrain == (frames.predicted_accuracy < run.accuracy_threshold)).all()
    assert json.loads((folder / "result.json").read_text())["config"]["accuracy_threshold"] == "base-0.02"

    # The same as with that number, and the second time it is done already.
    (same,) = jobs.plan(
        [*tiny, f"scheme={scheme}", f"accuracy_threshold={float(run.accuracy_threshold)!r}", f"outputs={tmp_path}"]
    ).jobs
    assert same.config.digest != job.config.digest
    other = experiment.run(same.config)
    assert (other / "slots.csv").read_bytes() == (folder / "slots.csv").read_bytes()
    stamp = (folder / "result.json").stat().st_mtime_ns
    assert experiment.run(job.config) == folder and (folder / "result.json").stat().st_mtime_ns == stamp

    runs = load(folder)
    assert threshold_of(runs.iloc[0]) == Run(dict(runs.iloc[0])).threshold == run.accuracy_threshold


def test_a_report_takes_the_number_of_older_runs_from_their_configuration(tmp_path: Path) -> None:
    write_run(tmp_path, seed=0)
    write_run(tmp_path, seed=1, config={"accuracy_threshold": "base-0.1"}, accuracy_threshold=0.6)
    runs = load(tmp_path).sort_values("seed")
    assert [threshold_of(run) for _, run in runs.iterrows()] == [0.85, 0.6]
