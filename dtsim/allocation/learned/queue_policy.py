"""Networks of the allocators that learn among queues, and trained policies: one network for all MUs, any K and M."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

import torch
from pydantic import Field
from torch import Tensor, nn

from dtsim.allocation.learned.checkpoint import Acting
from dtsim.allocation.learned.networks import Actor, SetNetwork
from dtsim.allocation.learned.observation import LOG_BOUND
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


_AMOUNTS = QUEUE_FEATURES.index("training that is left, in slots of the BS")
_LEAST = 1e-6


@dataclass(frozen=True)
class Outlook:
    """What a value counts."""

    gamma: float
    """Discount."""
    slots_per_deadline: float
    """Slot length over the deadline."""
    overdue_weight: float
    """What overdue training counts."""


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
    """Value of an action for every MU: what it is paid on average from now on, of which the slot's reward is the mean.

    What it is paid in this slot follows from observation and action; the network learns only what comes later.
    """

    def __init__(self, hidden: int, actions: QueueActions, outlook: Outlook) -> None:
        super().__init__()
        self.network = SetNetwork(QUEUE_STATION + _COLUMNS + 5, hidden, 1)
        self.actions, self.outlook = actions, outlook

    def forward(self, observation: Tensor, action: Tensor) -> Tensor:
        """Values [..., K] of action [..., K, 3] in observation [..., K, F]."""
        members = _members(observation)
        action = action.clamp(-1.0, 1.0)
        gain, *after = self.after(observation, action, members)
        price, overdue = after[:2]
        paid = -price.mul(self.outlook.slots_per_deadline).log1p() - self.outlook.overdue_weight * overdue.log1p()
        seen = torch.stack([gain, *(amount.log1p() for amount in after)], -1).clamp(-LOG_BOUND, LOG_BOUND)
        later: Tensor = self.network(torch.cat([observation[..., :QUEUE_STATION], action, seen], -1), members)
        gamma = self.outlook.gamma
        return (1 - gamma) * paid.clamp(min=-2 * LOG_BOUND) + gamma * later.squeeze(-1)

    def after(self, observation: Tensor, action: Tensor, members: Tensor) -> tuple[Tensor, ...]:
        """What an action does in the slot [..., K]: log of the MU's share over the proportional one; then in slots the
        price of its new task, its overdue training, and what is left at the MU and on the way to or at the BS."""
        local, new, link, new_link, there, new_there, usual, due = observation[..., :_AMOUNTS].unbind(-1)
        local, new, link, new_link, there, new_there, due = (
            amount.expm1() for amount in (local, new, link, new_link, there, new_there, due)
        )
        weight = usual + self.actions.compute_range * action[..., 0]
        log_total = (members @ (members.mT @ weight.exp().unsqueeze(-1))).squeeze(-1).log()
        share = (weight - log_total).exp().clamp(min=_LEAST)
        # The best split for this share, as `best_upload_bytes` has it, in parts of the new data.
        parts = new > 0
        link_part, local_part = (
            _over(link, torch.where(parts, new_link, 1.0)),
            _over(local, torch.where(parts, new, 1.0)),
        )
        lead = (new * (1 + link_part + local_part) - (there + due) / share).clamp(min=0.0)
        best = lead / (new + new_link + new_there / share).clamp(min=_LEAST) - link_part
        best = torch.where(parts, best.clamp(0.0, 1.0), 0.0)
        odds = best * (self.actions.upload_range * action[..., 1]).exp()
        upload = odds / (1 - best + odds)
        work = there + new_there * (upload + link_part)
        wanted = due * (self.actions.training_range * action[..., 2]).exp()
        training = _over(wanted, work + wanted)
        rate = share * (1 - training)
        here = local + new * (1 - upload)
        price = torch.maximum(here, link + new_link * upload + work / rate.clamp(min=_LEAST))
        overdue = (due - share * training).clamp(min=0.0)
        return weight - log_total - usual, price, overdue, (here - 1).clamp(min=0.0), (work - rate).clamp(min=0.0)


def _over(value: Tensor, whole: Tensor) -> Tensor:
    return value / whole.clamp(min=_LEAST)


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


class QueuePolicy(Acting[QueueDesign]):
    """An actor that allocates among queues."""

    def serve(self, problem: QueueProblem) -> QueueAllocation:
        """The policy's allocation, any leading dimensions, on the device of `problem`."""
        return self.design.actions.allocation(problem, self.act(observe_queues(problem)))


def queue_policy_of(entry: Mapping[str, object]) -> tuple[QueuePolicy, list[Row]]:
    """The policy in a cache entry or in a file's content, and its learning curve.

    Raises:
        ConfigError: if another version of dtsim wrote its design.
        RuntimeError: if its weights do not fit its design.
        TypeError: if it holds something else.
    """
    design = validated(QueueDesign, checked(entry["design"], dict, "design"))
    return QueuePolicy(design, checked(entry["actor"], dict, "actor")), checked(entry["curve"], list, "curve")
