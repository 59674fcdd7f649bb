"""Every YAML of every group composes, builds and runs; every key is documented; the digest names what matters."""

from dataclasses import fields
from pathlib import Path

import pandas as pd
import pytest
import torch

from dtsim.core.parts import ConfigError
from dtsim.learning.data import published
from dtsim.runner import experiment, jobs
from dtsim.runner.choices import Conf
from dtsim.runner.parts import BUILT, Parts
from tests.tiny_data import write_cifar10, write_image_folder

CHOICES = [  # but the launchers, the sweeper and the trackers: test_sweep.py, test_study.py, test_tracker.py
    f"{group}/{name}"
    for group, names in Conf().groups.items()
    if not group.startswith(("hydra", "tracker"))
    for name in names
]
STREETS = Path(__file__).resolve().parents[1] / "examples" / "streets"
# What a choice needs to be tiny, or to be possible at all.
SHORT = ["allocator.environment_steps=200", "allocator.evaluate_every=100", "allocator.held_out_slots=20"]
EPISODES = ["allocator.environment_steps=40", "allocator.horizon=4", "allocator.networks=4", "allocator.environments=5"]
LIGHT = ["pretraining.epochs=1", "dataset.pretrain_images=32", "retraining.samples=8", "mu=2"]
NEEDS = {
    "dataset/image_folder": ["drift.unseen_classes=1"],  # of its three classes
    "allocator/ddpg": SHORT,
    "allocator/ddpg_paper": SHORT,
    "allocator/sac": SHORT,
    "allocator/apg": SHORT,
    "allocator/queue_ddpg": [*EPISODES, "time.mode=contiguous"],
    "allocator/queue_sac": [*EPISODES, "time.mode=contiguous"],
    "allocator/external": ["allocator.loader=tests.policies.unchanged", f"allocator.file={__file__}"],
    "model/resnet8": LIGHT,
    "model/resnet18_w16": LIGHT,
    "model/resnet18": LIGHT,
    "model/resnet18_cifar": [*LIGHT, "dataset.validation_images=20", "probe_images=10"],
    "generator/gaussian": ["retraining.trainable=head"],
    "generator/cvae": ["generator.fit_steps=5"],
    "generator/jitter": ["generator.fit_steps=5"],
    "retraining/table1": ["retraining.samples=60"],
    "experiment/table1": ["retraining.samples=60"],
    "experiment/fig2a": ["scheme=proposed", "seed=0"],  # one of its runs
    "experiment/fig2b": ["scheme=proposed", "seed=0"],
    "experiment/fig2c": ["scheme=proposed", "seed=0"],
    "experiment/variants": ["scheme=proposed", "seed=0"],
    "pretraining/default": ["pretraining.epochs=1"],
    "mobility/trace": [
        f"mobility.path={STREETS / 'fcd.xml'}",
        "topology.area_m=[0,0,400,400]",
        "topology=explicit",
        "mu=4",
        "time.frame_spacing_s=10",
    ],
    "topology/sites": [f"topology.path={STREETS / 'sites.csv'}"],
    "channel/table": [f"channel.path={STREETS / 'gains.npz'}", "mu=4"],
    "traffic/trace": [f"traffic.path={STREETS / 'traffic.csv'}", "mu=4"],
    "pretraining/augmented": ["pretraining.epochs=1"],
    "pretraining/small_data": ["pretraining.epochs=1", "pretraining.min_steps=20"],
    "experiment/small_data": [*LIGHT, "pretraining.min_steps=0"],
    "experiment/paper_cpu": LIGHT,
    "experiment/paper": [
        *LIGHT,
        *("dataset=fashion_mnist", "scheme=proposed", "seed=0", "dataset.validation_images=20", "probe_images=10"),
    ],
}


def overrides_for(choice: str, tiny: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    group, _, name = choice.rpartition("/")
    needed = NEEDS.get(choice, [])
    taken = {override.split("=")[0] for override in needed} | ({group} if group == "allocator" else set())
    keys = [
        key for key in tiny if key.split("=")[0] not in taken and not (choice == "traffic/trace" and "traffic." in key)
    ]
    if group == "dataset" and name != "fashion_mnist":
        keys = [key for key in keys if not key.startswith("dataset.root")]
        if name == "cifar10":
            monkeypatch.setattr(published, "CIFAR10", write_cifar10(tmp_path / "images"))
        else:
            write_image_folder(tmp_path / "images")
        keys.append(f"dataset.root={tmp_path / 'images'}")
    return [*keys, *needed, f"{group}={name}", f"outputs={tmp_path / 'outputs'}", "frames=1", "slots_per_frame=2"]


SLOW = {
    "model/resnet18",
    "model/resnet18_cifar",  # 11 million weights
    *(f"experiment/{name}" for name in ("fig2a", "fig2b", "fig2c", "table1", "paper")),  # `variants` is like them
}


@pytest.mark.parametrize(
    "choice", [pytest.param(choice, marks=pytest.mark.slow) if choice in SLOW else choice for choice in CHOICES]
)
def test_every_choice_runs_for_two_slots(
    choice: str, tiny: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if choice.startswith("tracker/"):
        pytest.importorskip(choice.removeprefix("tracker/"))
    (job,) = jobs.plan(overrides_for(choice, tiny, tmp_path, monkeypatch)).jobs
    folder = experiment.run(job.config)
    assert pd.read_csv(folder / "slots.csv")["slot"].nunique() == 2


@pytest.mark.parametrize("choice", [choice for choice in CHOICES if choice.split("/")[0] in BUILT])
def test_a_choice_has_every_key_of_its_class(choice: str, tmp_path: Path) -> None:
    group, _, name = choice.rpartition("/")
    found = Conf().groups[group][name]
    assert found.source.startswith("# ")
    if name == "image_folder":
        write_image_folder(tmp_path)
    needed = [*NEEDS.get(choice, []), *([f"dataset.root={tmp_path}"] if group == "dataset" else [])]
    parts = Parts(jobs.plan([f"{group}={name}", *needed, f"outputs={tmp_path}"]).jobs[0].config)
    assert Conf().keys(found).keys() == {field.name for field in fields(getattr(parts, group))}


def digest(*overrides: str) -> str:
    return jobs.plan(list(overrides)).jobs[0].config.digest


def test_the_digest_depends_on_what_changes_results_and_on_nothing_else(tmp_path: Path) -> None:
    assert digest() == digest(f"outputs={tmp_path / 'other'}", "fresh=true", f"cache={tmp_path}")
    others = [
        digest("mu=5"),
        digest("seed=1"),
        digest("scheme=oracle"),
        digest("solver=greedy"),
        digest("time.slot_s=0.01"),
    ]
    assert len({digest(), *others}) == 6


def refusal(*overrides: str) -> str:
    with pytest.raises(ConfigError) as caught:
        jobs.plan(list(overrides))
    assert len(caught.value.lines) == 1, caught.value.lines
    return caught.value.lines[0]


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("scheme=magic", "scheme=magic: must be one of every_slot_windowed, never_retrain, oracle, prior_correction, "),
        (
            "twin/predictor=magic",
            "twin/predictor=magic: must be one of beta_binomial, last_value, oracle, region_age, shadow",
        ),
        ("dataset=image_folder", "dataset.root: must be given"),
        ("mu=0", "mu=0: must be >= 1"),
        ("mu=abc", "mu='abc': must be a whole number"),
        ("mu=2.5", "mu=2.5: must be a whole number"),
        ("mu=true", "mu=True: must be a whole number"),
        ("frames=-1", "frames=-1: must be >= 1"),
        ("accuracy_threshold=1.7", "accuracy_threshold=1.7: must be < 1"),
        ("objective=fast", "objective='fast': must be one of 'makespan' or 'sum'"),
        ("+typo=1", "typo=1: there is no such key"),
        ("typo=1", "typo=1: there is no key typo"),
        ("+channel.typo=1", "channel.typo=1: there is no such key"),
        ("channel.typo=1", "channel.typo=1: there is no key channel.typo"),
        ("time.slot_s=0", "time.slot_s=0: must be > 0"),
        ("twin.capacity=0", "twin.capacity=0: must be >= 1"),
        ("scheme.decision=maybe", "scheme.decision='maybe': must be one of 'twin', 'measured_before'"),
        ("topology.station_flops=abc", "topology.station_flops='abc': must be a number or must be a list"),
        ("mu=1,2", "mu=1,2: several values need a sweep: add -m"),
        ("outputs=/dev/null/here", "outputs='/dev/null/here': must be a folder that can be written"),
        ("solver._target_=nowhere.Solver", "solver._target_='nowhere.Solver': must name a class"),
    ],
)
def test_bad_input_is_one_line_with_key_value_and_what_is_allowed(override: str, said: str) -> None:
    assert refusal(override).startswith(said)


@pytest.mark.parametrize("override", ["mu", "=3", "mu=[1", "channel=3", "mu=${nope}", "+scheme=oracle"])
def test_what_hydra_refuses_is_one_line(override: str) -> None:
    assert "\n" not in refusal(override)


@pytest.mark.parametrize(
    ("generator", "trainable", "makes"),
    [("gaussian", "all", "head"), ("cvae", "head", "all"), ("noise", "head", "all")],
)
def test_a_generator_makes_images_or_features(generator: str, trainable: str, makes: str) -> None:
    said = refusal(f"generator={generator}", f"retraining.trainable={trainable}")
    assert said == f"retraining.trainable={trainable!r}: must be {makes!r} with generator={generator}"


def test_schemes_that_would_overload_base_stations_are_refused() -> None:
    assert "allocate" in refusal("scheme=single_timescale", "scheme.allocate=frame")


def test_a_sweep_is_expanded_and_checked_whole() -> None:
    asked = jobs.plan(["-m", "mu=5,10", "scheme=proposed,oracle", "hydra/launcher=joblib"])
    assert asked.sweep
    assert [(job.config.mu, job.config.scheme["name"]) for job in asked.jobs] == [
        (5, "proposed"), (5, "oracle"), (10, "proposed"), (10, "oracle"),
    ]  # fmt: skip
    with pytest.raises(ConfigError) as caught:
        jobs.plan(["-m", "mu=5,0", "frames=10,-1", "scheme=proposed,magic"])
    assert len(caught.value.lines) == 3


def test_a_choice_on_the_command_line_beats_a_schemes_own(tmp_path: Path) -> None:
    chosen = jobs.plan(["scheme=oracle", "allocator=equal"]).jobs[0].config
    assert chosen.allocator["_target_"].endswith("Equal")
    assert jobs.plan(["scheme=oracle"]).jobs[0].config.allocator["_target_"].endswith("Optimal")


def test_an_experiment_sets_top_level_keys_and_the_command_line_beats_it() -> None:
    quick = jobs.plan(["experiment=quick"]).jobs[0].config
    assert (quick.mu, quick.frames, quick.slots_per_frame) == (5, 4, 5)
    assert quick.allocator["_target_"].endswith("Proportional")
    assert jobs.plan(["experiment=quick", "mu=7"]).jobs[0].config.mu == 7
    table1 = jobs.plan(["experiment=table1"]).jobs[0].config
    assert (table1.slots_per_frame, table1.retraining["samples"]) == (2, 5000)


def test_small_data_combines_what_few_images_need() -> None:
    config = jobs.plan(["experiment=small_data"]).jobs[0].config
    assert config.accuracy_threshold == "base-0.05" and config.retraining["trainable"] == "head"
    assert config.pretraining["min_steps"] == 6000 and config.pretraining["crop"] == 4 and config.pretraining["flip"]
    assert jobs.plan(["experiment=small_data", "accuracy_threshold=0.6"]).jobs[0].config.accuracy_threshold == 0.6


def test_the_papers_own_setting_is_table_1_with_its_data_and_model() -> None:
    asked = jobs.plan(["experiment=paper"])
    assert {job.config.mu for job in asked.jobs} == {5, 10, 15, 20, 25, 30}
    assert len(asked.jobs) == 4 * 6 * 3
    paper, cpu = asked.jobs[0].config, jobs.plan(["experiment=paper_cpu"]).jobs[0].config
    table1 = jobs.plan(["experiment=table1"]).jobs[0].config
    for config in (paper, cpu):
        assert config.retraining["samples"] == 5000
        assert (config.frames, config.slots_per_frame) == (table1.frames, table1.slots_per_frame) == (10, 2)
        assert config.model["blocks"] == [2, 2, 2, 2] and config.model["width"] == 64
        sizes = ("pretrain_images", "test_images", "increment_images")
        assert [config.dataset[name] for name in sizes] == [40_000, 10_000, 5_000]
    assert paper.dataset["_target_"].endswith("Cifar10") and paper.retraining["trainable"] == "all"
    assert cpu.dataset["_target_"].endswith("FashionMnist") and cpu.retraining["trainable"] == "head"
    if not torch.cuda.is_available():
        assert any(note.startswith("without a GPU these 72 runs take up to about ") for note in asked.notes)


def test_prior_correction_has_no_use_for_generated_data() -> None:
    assert "generated=True: must be false" in refusal("scheme=prior_correction", "scheme.generated=true")
