"""What a command says of its time on a CPU before its first run."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from dtsim.runner import experiment, forecast, jobs
from dtsim.runner.config import Config
from dtsim.runner.workload import ALLOCATOR, PRETRAINING, Workload


def configs(*overrides: str) -> list[Config]:
    return [job.config for job in jobs.plan(list(overrides)).jobs]


def seconds(what: str, *overrides: str) -> float:
    (config,) = configs(*overrides)
    return sum(term.amount for term in Workload(config).time() if term.what == what)


def test_short_runs_say_nothing_and_long_ones_a_line() -> None:
    assert forecast.forecast(configs("device=cpu")) == []
    (line,) = forecast.forecast(configs("device=cpu", "model=resnet18_cifar", "allocator=proportional"))
    found = re.fullmatch(
        r"without a GPU this run takes up to about (\d+) h \d\d min of one core; "
        r"(\d+) h \d\d min of it go into base models and policies, unless the cache has them",
        line,
    )
    assert found and int(found[1]) >= int(found[2]) >= 1


def test_what_is_made_once_counts_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forecast, "_WORTH_SAYING_S", 0.0)
    keys = ("device=cpu", "mu=5", "frames=1", "slots_per_frame=1", "scheme=never_retrain")
    one, many = (forecast.forecast(configs("-m", *keys, f"seed={seeds}"))[0] for seeds in ("0", "0,1,2,3"))
    assert "this run takes" in one and "these 4 runs take" in many
    made = [line.partition("; ")[2] for line in (one, many)]
    assert made[0] == made[1] != ""
    other = forecast.forecast(configs("-m", *keys, "model=small_cnn,resnet8"))[0]
    assert other.partition("; ")[2] != made[0]


def test_runs_that_are_done_take_no_time(tiny: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forecast, "_WORTH_SAYING_S", 0.0)
    keys = [*tiny, f"outputs={tmp_path}"]
    (job,) = jobs.plan(keys).jobs
    assert len(jobs.plan(keys).notes) == 1
    experiment.run(job.config)
    monkeypatch.setattr(forecast, "_WORTH_SAYING_S", 1e-9)
    assert jobs.plan(keys).notes == []
    assert len(jobs.plan([*keys, "fresh=true"]).notes) == 1
    assert jobs.plan([*keys, "fresh=true"], runs=False).notes == []  # a benchmark runs something else


def test_the_work_of_heads_and_of_few_images() -> None:
    whole, heads = (seconds("retraining", f"retraining.trainable={which}") for which in ("all", "head"))
    assert heads < whole / 100
    same = seconds("the features", "retraining.trainable=head")
    assert seconds("the features", "retraining.trainable=head", "drift=rotation") == 4 * same > 0
    assert seconds("the features") == 0
    few = ("dataset.pretrain_images=3000", "pretraining=small_data")
    assert seconds(PRETRAINING, *few) == pytest.approx(seconds(PRETRAINING, *few, "pretraining.epochs=1"))
    assert seconds(PRETRAINING, *few) == pytest.approx(2 * seconds(PRETRAINING, *few, "pretraining.min_steps=3000"))
    assert seconds(ALLOCATOR) > 0 == seconds(ALLOCATOR, "allocator=proportional")
