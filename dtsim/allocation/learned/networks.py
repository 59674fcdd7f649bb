"""Networks of the learned allocators.

`set`: one small network shared by all MUs. It sees the MU and the mean over the MUs of its BS, so the same weights
serve any K and M. `flat`: the paper's multi-layer perceptron on all observations at once, for one K and M.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Literal, TypeAlias

import torch
from torch import Tensor, nn

from dtsim.allocation.learned.actions import Actions
from dtsim.allocation.learned.observation import DELAY, SLOT_DELAY, STATION

NetworkKind: TypeAlias = Literal["set", "flat"]


def membership(observation: Tensor, stations: int | None = None) -> Tensor:
    """1 where a BS serves an MU [..., K, M], float32, from observations [..., K, F]."""
    station = observation[..., STATION:]
    count = int(station.max()) + 1 if stations is None else stations
    return (station == torch.arange(count, device=station.device)).to(torch.float32)


class SetNetwork(nn.Module):
    """Per-user layers that mix in the mean over the MUs of the same BS twice. Its output layer starts at zero."""

    def __init__(self, inputs: int, hidden: int, outputs: int) -> None:
        super().__init__()
        self.encode = nn.Linear(inputs, hidden)
        self.own = nn.ModuleList(nn.Linear(hidden, hidden, bias=False) for _ in range(2))
        self.shared = nn.ModuleList(nn.Linear(hidden, hidden) for _ in range(2))
        self.out = _silent(nn.Linear(hidden, outputs))

    def forward(self, features: Tensor, members: Tensor) -> Tensor:
        """Features [..., K, inputs] and members [..., K, M] to [..., K, outputs]."""
        average = (members / members.sum(-2, keepdim=True).clamp(min=1.0)).mT  # [..., M, K]
        hidden = torch.relu(self.encode(features))
        for own, shared in zip(self.own, self.shared, strict=True):
            hidden = torch.relu(own(hidden) + members @ shared(average @ hidden))
        out: Tensor = self.out(hidden)
        return out


class FlatNetwork(nn.Module):
    """Two hidden layers on all observations at once. Its output layer starts at zero."""

    def __init__(self, inputs: int, hidden: int, outputs: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(inputs, hidden),
            nn.ReLU(),
            nn.Linear(hidden, hidden),
            nn.ReLU(),
            _silent(nn.Linear(hidden, outputs)),
        )

    def forward(self, values: Tensor) -> Tensor:
        """[..., inputs] to [..., outputs]."""
        out: Tensor = self.layers(values)
        return out


class Actor(nn.Module, ABC):
    """Deterministic policy: observation [..., K, F] to action [..., K, columns] in (-1, 1). Untrained, it returns 0."""

    def __init__(self, columns: int) -> None:
        super().__init__()
        self.columns = columns

    @abstractmethod
    def scores(self, observation: Tensor) -> Tensor:
        """The network's outputs [..., K, columns], or twice as many columns if it also outputs a spread."""

    def forward(self, observation: Tensor) -> Tensor:
        """Action for each MU."""
        return torch.tanh(self.scores(observation)[..., : self.columns])


class SetActor(Actor):
    """For any K and M."""

    def __init__(self, hidden: int, columns: int = 2, *, spread: bool = False) -> None:
        super().__init__(columns)
        self.network = SetNetwork(STATION, hidden, columns * (1 + spread))

    def scores(self, observation: Tensor) -> Tensor:
        """See `Actor`."""
        scores: Tensor = self.network(observation[..., :STATION], membership(observation))
        return scores


class FlatActor(Actor):
    """For one K and M."""

    def __init__(self, hidden: int, columns: int, users: int, stations: int, *, spread: bool = False) -> None:
        super().__init__(columns)
        self.stations, self.outputs = stations, columns * (1 + spread)
        self.network = FlatNetwork(users * (STATION + stations), hidden, users * self.outputs)

    def scores(self, observation: Tensor) -> Tensor:
        """See `Actor`."""
        scores: Tensor = self.network(_flat(observation, self.stations)).unflatten(-1, (-1, self.outputs))
        return scores


_NEVER = -1e3
"""Score of an MU at a BS that does not serve it: low enough never to be the slowest there."""


class SetCritic(nn.Module):
    """Value of an action: scores each MU's delay and takes the slowest MU of each BS.

    The score is the log of the MU's delay relative to its BS's delay under the proportional share. Its value under
    that share is observed; the network learns the change that the action causes. It sees one MU at a time: of the
    others' actions only those matter that change its share, which is an input. `pool` combines the scores: the mean
    over BSs of the slowest MU ("station") or the slowest MU of the slot ("slot").
    """

    def __init__(self, hidden: int, actions: Actions, pool: str, sharpness: float) -> None:
        super().__init__()
        self.network = FlatNetwork(STATION + actions.columns + 1, hidden, 1)
        self.actions, self.pool, self.sharpness = actions, pool, sharpness

    def forward(self, observation: Tensor, action: Tensor) -> Tensor:
        """Value [..., 1] of action [..., K, columns] in observation [..., K, F]."""
        members = membership(observation)
        score = self._scores(observation, action, members)
        if self.pool == "slot":
            return -self._slowest(score + observation[..., SLOT_DELAY]).unsqueeze(-1)
        outside = members.mT == 0  # [..., M, K]
        slowest = self._slowest(score.unsqueeze(-2).masked_fill(outside, _NEVER))  # [..., M]
        busy = members.amax(-2)  # every BS has the same weight, however many MUs it serves
        return -((slowest * busy).sum(-1, keepdim=True) / busy.sum(-1, keepdim=True))

    def scores(self, observation: Tensor, action: Tensor) -> Tensor:
        """Score of each MU [..., K]."""
        return self._scores(observation, action, membership(observation))

    def _scores(self, observation: Tensor, action: Tensor, members: Tensor) -> Tensor:
        action = action.clamp(-1.0, 1.0)
        gained = self.actions.log_gain(observation, action, members).unsqueeze(-1)
        change: Tensor = self.network(torch.cat([observation[..., :STATION], action, gained], -1))
        return observation[..., DELAY] + change.squeeze(-1)

    def _slowest(self, score: Tensor) -> Tensor:
        """The smooth maximum of `score` over its last dimension."""
        return (torch.softmax(self.sharpness * score, -1) * score).sum(-1)


class FlatCritic(nn.Module):
    """Value of an action for one K and M."""

    def __init__(self, hidden: int, columns: int, users: int, stations: int) -> None:
        super().__init__()
        self.stations = stations
        self.network = FlatNetwork(users * (STATION + stations + columns), hidden, 1)

    def forward(self, observation: Tensor, action: Tensor) -> Tensor:
        """Value [..., 1] of action [..., K, columns] in observation [..., K, F]."""
        value: Tensor = self.network(torch.cat([_flat(observation, self.stations), action.flatten(-2)], -1))
        return value


def _flat(observation: Tensor, stations: int) -> Tensor:
    """Observations of all MUs in one row, with their BSs one-hot."""
    return torch.cat([observation[..., :STATION], membership(observation, stations)], -1).flatten(-2)


def _silent(layer: nn.Linear) -> nn.Linear:
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer
