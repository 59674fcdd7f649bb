"""Trained policies as files: the weights and the design of their network."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Generic, Literal, Protocol, TypeAlias, TypeVar

import torch
from pydantic import Field
from torch import Tensor

from dtsim.allocation.learned.actions import ActionKind, Actions
from dtsim.allocation.learned.networks import Actor, FlatActor, NetworkKind, SetActor
from dtsim.allocation.learned.observation import observe
from dtsim.allocation.problem import Allocation, AllocationProblem
from dtsim.core.cache import unpacked
from dtsim.core.checked import checked
from dtsim.core.parts import ConfigError, part, validated
from dtsim.core.rows import Row

Agent: TypeAlias = Literal["ddpg", "sac", "apg"]

_NO_POLICY = "must be a policy that dtsim has trained; this file is none, or is damaged"


@part
class Design:
    """Everything that defines an actor, except its weights."""

    agent: Agent
    """Agent that trained it."""
    policy: NetworkKind
    """Network."""
    action: ActionKind
    """Meaning of its outputs."""
    hidden: int = Field(ge=1)
    """Width of the hidden layers."""
    compute_range: float = Field(gt=0)
    """See `Actions`."""
    upload_range: float = Field(gt=0)
    """See `Actions`."""
    users: int = Field(ge=1)
    """Number of MUs K in training."""
    stations: int = Field(ge=1)
    """Number of BSs M in training."""

    @property
    def actions(self) -> Actions:
        """The meaning of the outputs."""
        return Actions(kind=self.action, compute_range=self.compute_range, upload_range=self.upload_range)

    def build(self) -> Actor:
        """An untrained actor; torch's global random generator draws its weights."""
        columns, spread = self.actions.columns, self.agent == "sac"
        if self.policy == "set":
            return SetActor(self.hidden, columns, spread=spread)
        return FlatActor(self.hidden, columns, self.users, self.stations, spread=spread)

    def check_fits(self, users: int, stations: int) -> None:
        """Check that the network can serve this number of MUs and BSs.

        Raises:
            ConfigError: if a `flat` policy was trained with another number of MUs or BSs.
        """
        if self.policy == "flat" and (users, stations) != (self.users, self.stations):
            raise ConfigError(
                [
                    f"allocator.policy='flat': trained for K={self.users}, M={self.stations}, cannot serve "
                    f"K={users}, M={stations}; allocator.policy=set serves any, allocator.train_users sets K"
                ]
            )


class _Designed(Protocol):
    @property
    def agent(self) -> str: ...

    def build(self) -> Actor: ...


_AnyDesign = TypeVar("_AnyDesign", bound=_Designed)


class Acting(Generic[_AnyDesign]):
    """A trained actor of some design."""

    def __init__(self, design: _AnyDesign, weights: dict[str, Tensor]) -> None:
        with torch.random.fork_rng(devices=[]):  # the initial weights are replaced below
            actor = design.build()
        actor.load_state_dict(weights)
        self.design, self.actor = design, actor.eval().requires_grad_(False)

    @property
    def trained_by(self) -> str:
        """The agent that trained it."""
        return self.design.agent

    def act(self, observation: Tensor) -> Tensor:
        """Its action, on the device of `observation`."""
        with torch.no_grad():
            action: Tensor = self.actor.to(observation.device)(observation)
        return action


class TrainedPolicy(Acting[Design]):
    """An actor that allocates."""

    def allocate(self, problem: AllocationProblem) -> Allocation:
        """The policy's allocation, any leading dimensions, on the device of `problem`.

        Raises:
            ConfigError: if a `flat` policy was trained with another number of MUs or BSs.
        """
        design = self.design
        design.check_fits(problem.station.shape[-1], problem.station_flops.shape[-1])
        return design.actions.allocation(problem, self.act(observe(problem)))


def policy_of(entry: Mapping[str, object]) -> tuple[TrainedPolicy, list[Row]]:
    """The policy in a cache entry or in a file's content, and its learning curve.

    Raises:
        ConfigError: if another version of dtsim wrote its design.
        RuntimeError: if its weights do not fit its design.
        TypeError: if it holds something else.
    """
    design = validated(Design, checked(entry["design"], dict, "design"))
    return TrainedPolicy(design, checked(entry["actor"], dict, "actor")), checked(entry["curve"], list, "curve")


def load(file: str, agent: str) -> tuple[TrainedPolicy, list[Row]]:
    """The policy in `file`, trained by `agent`, and its learning curve.

    Raises:
        ValueError: if the file does not exist or is not such a policy; the message is one line.
    """
    return load_as(policy_of, file, agent)


_Policy = TypeVar("_Policy", bound=Acting[Any])


def load_as(
    read: Callable[[Mapping[str, object]], tuple[_Policy, list[Row]]], file: str, agent: str
) -> tuple[_Policy, list[Row]]:
    """As `load`, for a kind of policy that `read` makes of a file's content."""
    try:
        entry = unpacked(Path(file).expanduser().read_bytes())
    except OSError as error:
        raise ValueError(f"must be a file that can be read ({error.strerror})") from None
    except ValueError:
        raise ValueError(_NO_POLICY) from None
    if not {"design", "actor", "curve"} <= entry.keys():
        raise ValueError(_NO_POLICY)
    try:
        policy, curve = read(entry)
    except (ConfigError, RuntimeError, TypeError):
        raise ValueError("must be a policy of this version of dtsim; this is one of another version") from None
    if not all(torch.isfinite(weight).all() for weight in policy.actor.state_dict().values()):
        raise ValueError("must be a policy with finite weights")
    if policy.trained_by != agent:
        raise ValueError(f"must be a policy trained by {agent}; this one is trained by {policy.trained_by}")
    return policy, curve
