"""Drift that is told by files: read, refused, and fed back."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

import numpy as np
import pandas as pd
import pytest

from dtsim.core.parts import ConfigError
from dtsim.learning.data.trace import read_distributions, read_schedule
from dtsim.runner import experiment, jobs

Write: TypeAlias = Callable[..., str]


@pytest.fixture
def written(tmp_path: Path) -> Write:
    def write(text: str, name: str = "story.csv") -> str:
        path = tmp_path / name
        path.write_text(text)
        return str(path)

    return write


def test_a_schedule_in_any_order_with_more_than_is_needed(written: Write) -> None:
    path = written("note,region,user,frame\nx,2,1,0\n,0,0,0\n,3,0,1\n,1,1,1\n\n,3,7,9\n")
    assert read_schedule(path, users=2, frames=2, regions=4).tolist() == [[0, 2], [3, 1]]
    assert read_schedule(path, users=1, frames=1, regions=4).tolist() == [[0]]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("frame,user\n0,0\n", ":1: the header must name frame, user, region; region is missing"),
        ("", ":1: the header must name frame, user, region; frame, user, region is missing"),
        ("frame,user,region\n0,0,4\n", ":2: region=4: must be < 4, the drift's rows × columns"),
        ("frame,user,region\n0,0,home\n", ":2: region='home': must be a whole number >= 0"),
        ("frame,user,region\n0,0,0\n-1,0,0\n", ":3: frame='-1': must be a whole number >= 0"),
        ("frame,user,region\n0,0,1.0\n", ":2: region='1.0': must be a whole number >= 0"),
        ("frame,user,region\n0,0\n", ":2: region=None: must be a whole number >= 0"),
        ("frame,user,region\n0,0,1\n0,0,1\n", ":3: frame=0, user=0 is given already, "),
        ("frame,user,region\n0,0,1\n", "of 1 frames × 2 users 1 are missing, the first frame=0, user=1"),
        ("frame,user,region\n0,0,\xff\x00\n", ":2: region="),
    ],
)
def test_a_bad_schedule_is_one_line_with_its_place(written: Write, text: str, said: str) -> None:
    path = written(text)
    with pytest.raises(ConfigError) as caught:
        jobs.plan([f"drift.schedule={path}", "mu=2", "frames=1"])
    (line,) = caught.value.lines
    assert line.startswith(f"drift.schedule={path}") and said in line and "\n" not in line


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("region,class\n", ":1: the header must name region, class, probability; probability is missing"),
        ("region,class,probability\n0,0,2\n", ":2: probability='2': must be a number from 0 to 1"),
        ("region,class,probability\n0,0,nan\n", ":2: probability='nan': must be a number from 0 to 1"),
        ("region,class,probability\n5,0,1\n", ":2: region=5: must be < 4"),
        ("region,class,probability\n0,0,1\n0,0,1\n", ":3: region=0, class=0 is given twice"),
        ("region,class,probability\n0,0,1\n", ": region=1, class=0 is missing"),
        ("region,class,probability\n0,0,1\n1,0,1\n2,0,.9\n3,0,1\n", "of region=2 sum to 0.9, must be 1"),
    ],
)
def test_bad_distributions_are_one_line_with_their_place(written: Write, text: str, said: str) -> None:
    path = written(text)
    with pytest.raises(ConfigError) as caught:
        jobs.plan([f"drift.distributions={path}"])
    (line,) = caught.value.lines
    assert line.startswith(f"drift.distributions={path}") and said in line


@pytest.mark.parametrize("key", ["schedule", "distributions"])
def test_a_file_that_is_none_is_one_line(key: str, tmp_path: Path) -> None:
    for path, why in (
        (tmp_path / "none.csv", "must be a file that can be read (No such file"),
        (tmp_path, "not a folder"),
    ):
        with pytest.raises(ConfigError) as caught:
            jobs.plan([f"drift.{key}={path}"])
        assert len(caught.value.lines) == 1
        assert f"drift.{key}=" in caught.value.lines[0] and str(path) in caught.value.lines[0]
        assert why in caught.value.lines[0]
    binary = tmp_path / "binary.csv"
    binary.write_bytes(bytes(range(256)))
    with pytest.raises(ConfigError, match="must be a CSV file"):
        jobs.plan([f"drift.{key}={binary}"])


def test_distributions_nearly_of_one_are_made_so(written: Write) -> None:
    thirds = "".join(f"{region},{label},0.3333333\n" for region in range(4) for label in range(3))
    table = read_distributions(written("region,class,probability\n" + thirds), regions=4)
    assert np.allclose(table, 1 / 3) and np.abs(table.sum(axis=1) - 1).max() < 1e-15


def test_distributions_of_another_data_set_are_refused(written: Write, tiny: list[str]) -> None:
    text = "".join(f"{region},0,1\n" for region in range(4))
    with pytest.raises(ConfigError, match="has 1 classes, the data set 10"):
        jobs.plan([*tiny, f"drift.distributions={written('region,class,probability' + chr(10) + text)}"])


def test_a_path_to_a_result_needs_quotes_and_is_told_so(written: Write) -> None:
    given = "drift.schedule=outputs/mu=2/drift.csv"
    with pytest.raises(ConfigError, match=f"^{re.escape(given)}: a value with = in it needs quotes"):
        jobs.plan(["mu=2", given])


def digest(*overrides: str) -> str:
    return jobs.plan(list(overrides)).jobs[0].config.digest


def test_the_digest_follows_what_is_in_the_file_not_where_it_lies(written: Write) -> None:
    story = "frame,user,region\n0,0,{}\n"
    one, same, other = (written(story.format(region), f"{name}.csv") for name, region in (("a", 1), ("b", 1), ("c", 2)))
    digests = [digest("mu=1", "frames=1", f"drift.schedule={path}") for path in (one, same, other)]
    assert digests[0] == digests[1] != digests[2]
    written(story.format(3), "a.csv")
    assert digest("mu=1", "frames=1", f"drift.schedule={one}") not in digests
    assert digest("mu=1", "frames=1") not in digests


def test_what_a_run_saw_can_be_fed_back_and_gives_the_same_run(tiny: list[str], tmp_path: Path) -> None:
    def run(*overrides: str) -> Path:
        asked = jobs.plan([*tiny, "drift=combined", "accuracy_threshold=0.97", "frames=3", *overrides])
        return experiment.run(asked.jobs[0].config)

    first = run(f"outputs={tmp_path / 'first'}")
    # Quoted for Hydra: there is a = in the path.
    fed = [f"drift.schedule='{first / 'drift.csv'}'", f"drift.distributions='{first / 'regions.csv'}'"]
    # Neither its own grid's lines nor its own Dirichlet draws: the files alone.
    again = run(f"outputs={tmp_path / 'again'}", *fed, "drift.dirichlet_alpha=50.0", "drift.unseen_mass=0.9")
    for file in ("slots.csv", "frames.csv", "drift.csv", "regions.csv"):
        assert (first / file).read_bytes() == (again / file).read_bytes()


def test_a_story_moves_regions_and_nothing_else_of_the_world(tiny: list[str], tmp_path: Path) -> None:
    rows = [f"{frame},{user},{(frame + user) % 4}\n" for frame in range(2) for user in range(4)]
    story = tmp_path / "story.csv"
    story.write_text("frame,user,region\n" + "".join(rows))
    told, own = (
        pd.read_csv(experiment.run(jobs.plan([*tiny, f"outputs={tmp_path}", *more]).jobs[0].config) / "slots.csv")
        for more in ([f"drift.schedule={story}"], [])
    )
    assert (told.region == (told.frame + told.user) % 4).all()
    assert not (told.region == own.region).all()
    world = ["frame", "slot", "user", "x_m", "y_m", "captured_bytes", "images"]
    pd.testing.assert_frame_equal(told[world], own[world], check_exact=True)
