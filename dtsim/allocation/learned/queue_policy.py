"""Networks of the allocators that learn among queues, and trained policies: one network for all MUs, any K and M."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, TypeAlias

import torch
from pydantic import Field
from torch import Tensor, nn

from dtsim.allocation.learned.networks import Actor, SetNetwork
from dtsim.allocation.learned.queue_observation import (
    QUEUE_FEATURES,
    QUEUE_STATION,
    QueueActions,
    observe_queues,
)
from dtsim.allocation.queues.queue_problem import QueueAllocation, QueueProblem
from dtsim.core.checked import checked
from dtsim.core.parts import part, validated
from dtsim.core.rows import Row

QueueAgent: TypeAlias = Literal["queue_ddpg", "queue_sac"]
_COLUMNS = 3
_SHARE = QUEUE_FEATURES.index("log of its proportional share of the BS")


def _members(observation: Tensor) -> Tensor:
    """1 where a BS serves an MU [..., K, M], float32."""
    station = observation[..., QUEUE_STATION:]
    return (station == torch.arange(int(station.max()) + 1, device=station.device)).to(torch.float32)


class QueueActor(Actor):
    """Observation [..., K, F] to action [..., K, 3]; the zero action, the proportional rule, before it is trained."""

    def __init__(self, hidden: int, *, spread: bool) -> None:
        super().__init__(_COLUMNS)
        self.network = SetNetwork(QUEUE_STATION, hidden, _COLUMNS * (1 + spread))

    def scores(self, observation: Tensor) -> Tensor:
        """See `Actor`."""
        scores: Tensor = self.network(observation[..., :QUEUE_STATION], _members(observation))
        return scores


class QueueCritic(nn.Module):
    """Value of an action for every MU: what it will be paid, of which the slot's reward is the mean."""

    def __init__(self, hidden: int, compute_range: float) -> None:
        super().__init__()
        self.network = SetNetwork(QUEUE_STATION + _COLUMNS + 1, hidden, 1)
        self.compute_range = compute_range

    def forward(self, observation: Tensor, action: Tensor) -> Tensor:
        """Values [..., K] of action [..., K, 3] in observation [..., K, F]; it sees what a share becomes beside the
        shares that others get."""
        members = _members(observation)
        action = action.clamp(-1.0, 1.0)
        usual = observation[..., _SHARE]
        weight = usual + self.compute_range * action[..., 0]
        total = members @ (members.mT @ weight.exp().unsqueeze(-1))
        gain = (weight - total.squeeze(-1).log() - usual).unsqueeze(-1)
        value: Tensor = self.network(torch.cat([observation[..., :QUEUE_STATION], action, gain], -1), members)
        return value.squeeze(-1)


@part
class QueueDesign:
    """Everything that defines an actor, except its weights."""

    agent: QueueAgent
    """Agent that trained it."""
    hidden: int = Field(ge=1)
    """Width of the hidden layers."""
    compute_range: float = Field(gt=0)
    """See `QueueActions`."""
    upload_range: float = Field(gt=0)
    """See `QueueActions`."""
    training_range: float = Field(gt=0)
    """See `QueueActions`."""

    @property
    def actions(self) -> QueueActions:
        """The meaning of the outputs."""
        return QueueActions(
            compute_range=self.compute_range, upload_range=self.upload_range, training_range=self.training_range
        )

    def build(self) -> QueueActor:
        """An untrained actor; torch's global random generator draws its weights."""
        return QueueActor(self.hidden, spread=self.agent == "queue_sac")


class QueuePolicy:
    """An actor that allocates among queues."""

    def __init__(self, design: QueueDesign, weights: dict[str, Tensor]) -> None:
        with torch.random.fork_rng(devices=[]):  # the initial weights are replaced below
            actor = design.build()
        actor.load_state_dict(weights)
        self.design, self.actor = design, actor.eval().requires_grad_(False)

    @property
    def trained_by(self) -> str:
        """The agent that trained it."""
        return self.design.agent

    def serve(self, problem: QueueProblem) -> QueueAllocation:
        """The policy's allocation, any leading dimensions, on the device of `problem`."""
        observation = observe_queues(problem)
        with torch.no_grad():
            action = self.actor.to(observation.device)(observation)
        return self.design.actions.allocation(problem, action)


def queue_policy_of(entry: Mapping[str, object]) -> tuple[QueuePolicy, list[Row]]:
    """The policy in a cache entry or in a file's content, and its learning curve.

    Raises:
        ConfigError: if another version of dtsim wrote its design.
        RuntimeError: if its weights do not fit its design.
        TypeError: if it holds something else.
    """
    design = validated(QueueDesign, checked(entry["design"], dict, "design"))
    return QueuePolicy(design, checked(entry["actor"], dict, "actor")), checked(entry["curve"], list, "curve")
