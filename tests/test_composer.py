"""Jobs composed from copies are those that Hydra composes, and each set of choices is composed once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from dtsim.core.parts import ConfigError
from dtsim.runner import composer
from dtsim.runner.composition import Files, composed, config_of

JOBS = [
    [],
    ["mu=3"],
    ["mu=3", "mu=4"],
    ["scheme=oracle", "mu=7", "seed=2", "channel.bandwidth_hz=1e6"],
    ["channel.fading=none", "channel=umi"],
    ["experiment=quick", "scheme=oracle", "frames=3"],
    ["experiment=fig2c", "generator.amount=kl"],
    ["allocator=ddpg_paper", "mu=3"],  # train_users: ${mu}
    ["dataset=image_folder", "dataset.root='a b'"],  # root: ???
    ["topology.station_flops=[1e9,2e9,3e9]", "mu=2"],
    ["retraining.learning_rate=0.5", "device=cpu", "fresh=true", "drift.dirichlet_alpha=null"],
    ["twin/predictor=oracle", "twin.store_capacity=50"],
    ["outputs=${hydra:runtime.cwd}/x"],
    ["frames=${slots_per_frame}"],
    ["+retraining.more=1"],
    ["~retraining.epochs"],
    ["mu=0", "channel.fadin=none"],
    ["scheme=magic", "mu=0", "chanel=umi"],
    ["mu=abc", "topology.stations=2"],
    ["channel=3"],
    ["channel.fading.x=3"],
]


def outcome(make: object) -> object:
    """The digest and folder of a configuration, or the lines that refuse it."""
    assert callable(make)
    try:
        config = make()
    except ConfigError as error:
        return error.lines
    return config, config.folder


def test_a_job_is_what_hydra_composes() -> None:
    jobs = composer.Composer(Files([]))
    whole = [outcome(lambda given=overrides: config_of(composed(given))) for overrides in JOBS]
    for _ in range(2):  # then from what was composed before
        assert [outcome(lambda given=overrides: jobs.config(given)) for overrides in JOBS] == whole


def test_choices_are_composed_once_and_values_are_not_shared(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, ...]] = []

    def noted(overrides: Sequence[str]) -> Any:
        asked.append(tuple(overrides))
        return composed(overrides)

    monkeypatch.setattr(composer, "composed", noted)
    jobs = composer.Composer(Files([]))
    made = [
        jobs.config([f"scheme={scheme}", f"mu={mu}", "channel.fading=none"])
        for scheme in ("proposed", "oracle")
        for mu in (3, 4, 5)
    ]
    assert [config.mu for config in made] == [3, 4, 5] * 2
    made[0].channel["fading"] = "changed"
    assert jobs.config(["scheme=proposed", "mu=3"]).channel["fading"] == "rayleigh"
    assert asked == [("scheme=proposed",), ("scheme=oracle",)]
