"""`dtsim bench twin` on tiny data: paired worlds, disjoint pools, tables that can be recomputed."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner, Result

from dtsim.bench import generators
from dtsim.cli.app import app
from dtsim.runner.jobs import plan
from tests.cells import cell


def bench(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["bench", "twin", *map(str, arguments)])


@pytest.fixture(scope="module")
def measured(tiny: list[str], tmp_path_factory: pytest.TempPathFactory) -> tuple[str, dict[str, pd.DataFrame]]:
    outputs = tmp_path_factory.mktemp("bench")
    done = bench(
        "--drifts", "unseen_classes", "--loop-drifts", "rotation",
        "--generators", "replay,oracle,noise", "--samples", "5,30",
        "--stored", 100, "--tested", 100, "--seeds", 2, "--budgets", "0.1", "--ratios", "2",
        *tiny, f"outputs={outputs}", "mu=3",
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    return done.output, {path.stem: pd.read_csv(path) for path in (outputs / "bench" / "twin").glob("*.csv")}


@pytest.mark.slow
def test_every_method_meets_the_same_worlds(measured: tuple[str, dict[str, pd.DataFrame]]) -> None:
    output, tables = measured
    found = tables["generators"]
    for _, own in found[found["samples_real"] > 0].groupby("method"):
        assert sorted(zip(own["seed"], own["samples_real"], strict=True)) == [(100, 5), (100, 30), (101, 5), (101, 30)]
    assert {"before", "prior_correction", "scratch", "scratch_with_twin", "none", "none, repeated"} < set(
        found["method"]
    )
    made = found.set_index(["method", "samples_real", "seed"])
    assert made.loc[("replay", 5, 100), "samples_generated"] == 55  # the update holds 60
    assert made.loc[("replay alone", 0, 100), "samples_generated"] == 60
    assert made.loc[("none", 5, 100), "samples_generated"] == 0
    gain = cell(made, ("replay", 5, 100), "accuracy_new") - cell(made, ("none", 5, 100), "accuracy_new")
    assert made.loc[("replay", 5, 100), "accuracy_new_gain"] == pytest.approx(gain)
    assert "unseen_classes: 60 generated samples alone" in output


@pytest.mark.slow
def test_summaries_are_means_over_seeds(measured: tuple[str, dict[str, pd.DataFrame]]) -> None:
    _, tables = measured
    found, summary = tables["generators"], tables["generators_summary"]
    row = summary[(summary.method == "replay") & (summary.samples_real == 30) & (summary.metric == "accuracy_new")]
    own = found[(found.method == "replay") & (found.samples_real == 30)]
    assert row["mean"].item() == pytest.approx(own["accuracy_new"].mean())
    assert row["seeds"].item() == 2
    assert np.isnan(row["low"].item())  # two seeds have no interval


@pytest.mark.slow
def test_all_predictors_watch_one_run(measured: tuple[str, dict[str, pd.DataFrame]]) -> None:
    _, tables = measured
    found = tables["predictors"]
    assert set(found["predictor"]) == {"beta_binomial", "last_value", "oracle", "region_age", "shadow"}
    truth = found[found["predictor"] == "oracle"]
    assert truth["mae"].to_numpy() == pytest.approx(0, abs=1e-12)
    assert (truth["wrong_decision_rate"] == 0).all()
    assert found.groupby("seed")["below_threshold"].nunique().eq(1).all()  # of one run


@pytest.mark.slow
def test_budgets_and_amounts_run_the_loop(measured: tuple[str, dict[str, pd.DataFrame]]) -> None:
    _, tables = measured
    assert set(tables["amounts"]["variant"]) == {"fill", "fill, budget 0.1 nat", "kl, rho to 2"}


def test_features_have_a_generator_of_their_own(tiny: list[str], tmp_path: Path) -> None:
    parts = ["--parts", "generators,predictors", "--drifts", "rotation"]
    sizes = ["--samples", 5, "--stored", 100, "--tested", 50, "--seeds", 1]
    done = bench(*parts, *sizes, *tiny, "mu=2", "retraining.trainable=head", f"outputs={tmp_path}")
    assert done.exit_code == 0, done.output
    found = pd.read_csv(tmp_path / "bench" / "twin" / "generators.csv")
    assert {"gaussian", "replay", "oracle", "none"} < set(found["method"])
    assert not {"cvae", "jitter", "noise"} & set(found["method"])
    assert "cvae left out: retraining.trainable='head': must be 'all' with generator=cvae" in done.output


def test_the_pools_share_no_image(tiny: list[str], tmp_path: Path) -> None:
    config = plan([*tiny, f"outputs={tmp_path}"]).jobs[0].config
    node = {"none": {"_target_": "dtsim.twin.generator.NoGenerator"}}
    own = generators._Bench(generators.Task("", config, node, [60], 60, 20))
    thirds = [generators._third(own.world, n, np.random.default_rng(0)).splits.increment for n in range(3)]
    images = [{bytes(image.numpy()) for image in third.images} for third in thirds]
    assert not (images[0] & images[1] or images[0] & images[2] or images[1] & images[2])
    assert sum(map(len, images)) == len(own.world.splits.increment)
    pools = [{bytes(image.numpy()) for image in drawn.images} for drawn in (own.own, own.others)]
    assert not pools[0] & pools[1]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--parts", "magic"], "parts=magic: must be one of generators, predictors, amounts"),
        (["--seeds", 0], "seeds=0: must be >= 1"),
        (["--samples", "5,x"], "samples='5,x': must be whole numbers"),
        (["--budgets", "a"], "budgets='a': must be numbers"),
        (["--drifts", "magic"], "drift=magic: must be one of"),
        (["--parts", "generators", "--generators", "magic"], "generator=magic: must be one of"),
        (
            ["--parts", "amounts", "--drifts", "rotation", "--ratios", "0.5"],
            "generator.max_ratio=0.5: must be >= min_ratio=1.0",
        ),
    ],
)
def test_bad_input_is_one_line(arguments: list[object], said: str, tiny: list[str], tmp_path: Path) -> None:
    done = bench(*arguments, *tiny, f"outputs={tmp_path}")
    assert done.exit_code == 2
    assert done.stderr.startswith("error: ")
    assert said in done.stderr
    assert done.stderr.count("\n") == 1
