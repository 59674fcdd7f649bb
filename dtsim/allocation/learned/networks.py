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
    station = observation[..., STATION].to(torch.int64)
    count = int(station.max()) + 1 if stations is None else stations
    return nn.functional.one_hot(station, count).to(torch.float32)


class SetNetwork(nn.Module):
    """Per-user layers that mix in the mean over the MUs of the same BS twice. Its output layer starts at zero."""

    def __init__(self, inputs: int, hidden: int, outputs: int) -> None:
        super().__init__()
        self.encode = nn.Linear(inputs, hidden)
        self.mix = nn.ModuleList(nn.Linear(2 * hidden, hidden) for _ in range(2))
        self.out = _silent(nn.Linear(hidden, outputs))

    def forward(self, features: Tensor, members: Tensor) -> Tensor:
        """Features [..., K, inputs] and members [..., K, M] to [..., K, outputs]."""
        average = members / members.sum(-2, keepdim=True).clamp(min=1.0)
        hidden = torch.relu(self.encode(features))
        for layer in self.mix:
            hidden = torch.relu(layer(torch.cat([hidden, members @ (average.mT @ hidden)], -1)))
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


class SetCritic(nn.Module):
    """Value of an action: scores each MU's delay and takes the slowest MU of each BS.

    The score is the log of the MU's delay relative to its BS's delay under the proportional share. Its value under
    that share is observed; the network learns the change that the action causes. `pool` combines the scores: the mean
    over BSs of the slowest MU ("station") or the slowest MU of the slot ("slot").
    """

    def __init__(self, hidden: int, actions: Actions, pool: str, sharpness: float) -> None:
        super().__init__()
        self.network = SetNetwork(STATION + actions.columns + 1, hidden, 1)
        self.actions, self.pool, self.sharpness = actions, pool, sharpness

    def forward(self, observation: Tensor, action: Tensor) -> Tensor:
        """Value [..., 1] of action [..., K, columns] in observation [..., K, F]."""
        members = membership(observation)
        together = members @ members.mT
        action = action.clamp(-1.0, 1.0)
        gained = self.actions.log_gain(observation, action, members).unsqueeze(-1)
        features = torch.cat([observation[..., :STATION], action, gained], -1)
        score = observation[..., DELAY] + self.network(features, members).squeeze(-1)
        if self.pool == "slot":
            score = score + observation[..., SLOT_DELAY]
            return -self._slowest(score, torch.ones_like(together))[..., :1]
        slowest = self._slowest(score, together)
        weight = 1 / together.sum(-1)  # every BS has the same weight, however many MUs it serves
        return -((slowest * weight).sum(-1, keepdim=True) / weight.sum(-1, keepdim=True))

    def _slowest(self, score: Tensor, together: Tensor) -> Tensor:
        """For each MU, the smooth maximum of `score` over the MUs that `together` marks."""
        weight = torch.softmax((self.sharpness * score.unsqueeze(-2)).masked_fill(together == 0, -torch.inf), -1)
        return (weight * score.unsqueeze(-2)).sum(-1)


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
