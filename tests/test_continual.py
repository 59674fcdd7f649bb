"""What is measured of models as they learn: probes, learning curves and continual-learning metrics."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from dtsim.learning.continual import Continual
from dtsim.learning.curve import Curve
from dtsim.learning.data.splits import Labelled
from dtsim.learning.probe import Probe
from dtsim.runner import assembly, experiment, jobs

Run: TypeAlias = Callable[..., Path]


class Fixed(nn.Module):
    """A model that is right about the first `right` of ten images, and counts how often it is asked."""

    def __init__(self, right: dict[int, int]) -> None:
        super().__init__()
        self.right, self.asked = right, 0

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.asked += 1
        region = int(images[0, 0, 0, 0])
        wrong = torch.arange(len(images)) >= self.right[region]
        return nn.functional.one_hot(wrong.long(), 2).float()


@pytest.fixture
def probe() -> Probe:
    return Probe(
        [
            Labelled(torch.full((10, 1, 1, 1), region, dtype=torch.uint8), torch.zeros(10, dtype=torch.int64))
            for region in range(3)
        ]
    )


def test_a_final_model_is_evaluated_once_for_each_region(probe: Probe) -> None:
    model = Fixed({0: 9, 1: 4})
    assert [probe.accuracy(model, region) for region in (0, 1, 0, 1)] == [0.9, 0.4, 0.9, 0.4]
    assert model.asked == 2
    model.right = {0: 5, 1: 5}
    assert probe.measure(model, 0) == 0.5  # a model in training is asked again
    assert np.isnan(Probe([Labelled(torch.empty(0, 1, 1, 1), torch.empty(0))]).accuracy(model, 0))


def test_metrics_by_hand(probe: Probe) -> None:
    """Home, away (retrained there), home, then a third region; rows are accuracies in regions 0, 1, 2."""
    story = [(0, (9, 1, 1)), (1, (6, 8, 1)), (1, (7, 9, 1)), (0, (5, 4, 1)), (2, (4, 6, 8))]
    continual = Continual(probe, users=1)
    rows = [continual.end_of_frame([Fixed(dict(enumerate(right)))], np.array([region])) for region, right in story]
    average, forgetting, transfer = (
        [float(row[name][0]) for row in rows] for name in ("average_accuracy", "forgetting", "backward_transfer")
    )
    assert average == pytest.approx([0.9, 0.7, 0.8, 0.45, 0.6])
    # Region 0's best is 0.9 throughout. Region 1's is 0.9; in the end the earlier regions are 0 and 1.
    assert forgetting == pytest.approx([np.nan, 0.3, 0.2, 0.5, (0.5 + 0.3) / 2], nan_ok=True)
    # Region 1 was left at 0.9. Region 0 was left at 0.9 and, after the return, at 0.5.
    assert transfer == pytest.approx([np.nan, -0.3, -0.2, -0.5, (-0.1 - 0.3) / 2], nan_ok=True)


def test_every_mu_has_its_own_history(probe: Probe) -> None:
    continual = Continual(probe, users=2)
    shared = Fixed({0: 9, 1: 3, 2: 5})
    continual.end_of_frame([shared, shared], np.array([0, 1]))
    row = continual.end_of_frame([shared, shared], np.array([1, 1]))
    assert row["average_accuracy"] == pytest.approx([0.6, 0.3])
    assert row["forgetting"] == pytest.approx([0, np.nan], nan_ok=True)
    assert shared.asked == 2


def test_a_curve_has_the_accuracy_before_between_and_after_the_epochs(probe: Probe) -> None:
    before, after = Fixed({1: 2}), Fixed({1: 8})
    curve = Curve(probe, region=1, before=before, epochs=2, steps_per_epoch=2)
    for step, loss in enumerate((4.0, 2.0, 1.0, 0.0), start=1):
        after.right = {1: 2 * step}
        curve.watch(step, [loss], after)
    rows = pd.DataFrame(curve.rows(after, flop_per_epoch=10.0))
    accuracy = rows[rows.metric == "accuracy"]
    assert accuracy.value.tolist() == [0.2, 0.4, 0.8]
    assert accuracy.epoch.tolist() == [0, 1, 2]
    assert accuracy.step.tolist() == [0, 2, 4]
    assert accuracy.flop.tolist() == [0, 10, 20]
    assert rows[rows.metric == "loss"].value.tolist() == [3.0, 0.5]


@pytest.fixture(scope="module")
def ran(tiny: list[str], tmp_path_factory: pytest.TempPathFactory) -> Run:
    def run(*overrides: str) -> Path:
        outputs = tmp_path_factory.mktemp("outputs")
        asked = jobs.plan([*tiny, "accuracy_threshold=0.97", "frames=3", f"outputs={outputs}", *overrides])
        return experiment.run(asked.jobs[0].config)

    return run


@pytest.mark.parametrize("scheme", ["proposed", "without_il"])
def test_every_update_of_a_run_leaves_its_curve(ran: Run, scheme: str) -> None:
    folder = ran(f"scheme={scheme}")
    result = json.loads((folder / "result.json").read_text())
    keys = result["config"]["retraining"]
    epochs = keys["scratch_epochs" if scheme == "without_il" else "epochs"]
    frames = pd.read_csv(folder / "frames.csv")
    curves = pd.read_csv(folder / "learning_curve.csv").query("phase != 'pretrain' and metric == 'accuracy'")
    updated = frames[frames.retrain > 0].set_index(["frame", "user"])
    assert len(updated)
    by_update = curves.groupby(["frame", "user"])
    assert by_update["epoch"].apply(list).to_dict() == {update: list(range(epochs + 1)) for update in updated.index}
    samples = updated.samples_real + updated.samples_generated
    work = result["model"]["training_flop"] * epochs * samples
    assert by_update["flop"].max().to_numpy() == pytest.approx(work.sort_index().to_numpy())
    assert curves.value.between(0, 1).all()


def test_what_is_measured_changes_nothing_that_was_there(ran: Run) -> None:
    with_probe, without = ran(), ran("probe_images=0")
    assert (with_probe / "slots.csv").read_bytes() == (without / "slots.csv").read_bytes()
    metrics = ["average_accuracy", "forgetting", "backward_transfer"]
    ours, theirs = (pd.read_csv(folder / "frames.csv") for folder in (with_probe, without))
    pd.testing.assert_frame_equal(ours.drop(columns=metrics), theirs.drop(columns=metrics), check_exact=True)
    assert ours.average_accuracy.notna().all()
    assert theirs[metrics].isna().all(axis=None)
    assert "accuracy" not in set(pd.read_csv(without / "learning_curve.csv").query("phase == 'incremental'").metric)
    last = ours[ours.frame == 2]
    run = pd.read_csv(with_probe / "run.csv").iloc[0]
    for metric in metrics:
        assert run[metric] == pytest.approx(last[metric].mean(), nan_ok=True)


def test_held_out_images_follow_the_regions_and_are_never_trained_on(tiny: list[str]) -> None:
    world = assembly.assemble(jobs.plan(tiny).jobs[0].config).world
    sets = world.held_out(40)
    assert sets[0].class_counts(10)[8:].sum() == 0
    for away in sets[1:]:
        assert away.class_counts(10)[8:].tolist() == [5, 5]  # a quarter of 40
    again = world.held_out(40)
    assert all(torch.equal(one.images, two.images) for one, two in zip(sets, again, strict=True))
    test = {image.numpy().tobytes() for image in world.splits.test.images}
    assert all(image.numpy().tobytes() in test for held_out in sets for image in held_out.images)
    assert [len(empty) for empty in world.held_out(0)] == [0] * 4
