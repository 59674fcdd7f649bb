"""`allocator=external`: policies of one's own in the loop, and what is told where one cannot be used."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import dtsim
from dtsim.allocation.external import External
from dtsim.allocation.gym.environment import ShortTimescaleEnv
from dtsim.allocation.heuristics import Proportional
from dtsim.allocation.problem import system_delay_s
from dtsim.core.parts import ConfigError
from dtsim.runner.jobs import plan
from tests.synthetic_source import SyntheticSource

HERE = str(Path(__file__))


def external(loader: str, file: str = HERE) -> External:
    return External(loader=f"tests.policies.{loader}", file=file)


def test_actions_mean_in_the_loop_what_they_mean_in_the_environment() -> None:
    env = ShortTimescaleEnv(source=SyntheticSource(), users=4)
    env.reset(seed=1)
    for _ in range(5):
        problem = env.simulator.problem().to(torch.float64)
        allocation = external("first_served").allocate(problem)
        action = np.zeros((4, 2), dtype=np.float32)
        action[0, 0] = 1.0
        *_, info = env.step(action)
        given = float(system_delay_s(problem, allocation, "makespan"))
        assert info["delay_s"] == pytest.approx(given, rel=1e-5)
        ours, usual = external("unchanged").allocate(problem), Proportional().allocate(problem)
        torch.testing.assert_close(ours.compute_flops, usual.compute_flops, rtol=1e-6, atol=1e-6)
        torch.testing.assert_close(ours.upload_bytes, usual.upload_bytes, rtol=1e-6, atol=1e-6)


def test_a_run_uses_the_policy_and_its_digest_depends_on_the_file(tiny: list[str], tmp_path: Path) -> None:
    file = tmp_path / "policy"
    file.write_text("one")
    asked = ["allocator=external", "allocator.loader=tests.policies.first_served", f"allocator.file={file}"]
    kept = [key for key in tiny if not key.startswith("allocator")]
    result = dtsim.run(*kept, *asked, outputs=str(tmp_path / "outputs"))
    assert result.row["choice.allocator"] == "external"
    first = result.slots[(result.slots["user"] == 0)]["compute_flops"].to_numpy()
    plain = dtsim.run(*tiny, outputs=str(tmp_path / "outputs")).slots
    shared = plain.groupby(["slot", "station"])["user"].transform("count").where(plain["user"] == 0).dropna() > 1
    usual = plain[plain["user"] == 0]["compute_flops"].to_numpy()
    assert (first[shared] > usual[shared]).all() and shared.any()
    before = plan([*kept, *asked]).jobs[0].config.digest
    file.write_text("two")
    assert plan([*kept, *asked]).jobs[0].config.digest != before


@pytest.mark.parametrize(
    ("loader", "file", "said"),
    [
        ("no.such.module", HERE, "allocator.loader='no.such.module': must name a function that can be imported"),
        ("tests.policies.nothing", HERE, "allocator.loader='tests.policies.nothing': must name a function that can be"),
        ("tests.policies.unchanged", "nowhere", "allocator.file='nowhere': must be a file that can be read"),
        (
            "tests.policies.refused",
            HERE,
            "a policy that tests.policies.refused loads (EOFError: ran out of input)",
        ),
        ("tests.policies.number", HERE, "must return an object with predict, or a function, not a int"),
        ("tests.policies.first_served", HERE, "takes observations (4, 10), mu=5 gives (5, 10)"),
    ],
)
def test_a_policy_that_cannot_be_used_is_one_line_before_anything_runs(loader: str, file: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        plan(["mu=5", "allocator=external", f"allocator.loader={loader}", f"allocator.file={file}"])
    assert len(caught.value.lines) == 1 and said in caught.value.lines[0]


def test_both_keys_must_be_given() -> None:
    with pytest.raises(ConfigError) as caught:
        plan(["allocator=external"])
    assert sorted(caught.value.lines) == ["allocator.file: must be given", "allocator.loader: must be given"]


@pytest.mark.parametrize(("loader", "said"), [("misshapen", "actions of shape (1, 4, 1)"), ("unlimited", "not finite")])
def test_actions_that_cannot_be_executed_are_an_error(loader: str, said: str) -> None:
    env = ShortTimescaleEnv(source=SyntheticSource(), users=4)
    env.reset(seed=0)
    with pytest.raises(ConfigError) as caught:
        external(loader).allocate(env.simulator.problem())
    assert said in caught.value.lines[0] and "must be numbers (1, 4, 2)" in caught.value.lines[0]
