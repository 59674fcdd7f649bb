"""Analytic policy gradient: the reward is a known, differentiable function of the action, so no critic is needed."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from dtsim.allocation.heuristics import Proportional
from dtsim.allocation.learned.checkpoint import Design
from dtsim.allocation.learned.keys import ApgKeys
from dtsim.allocation.learned.learner import State
from dtsim.allocation.learned.observation import Reward, observe
from dtsim.allocation.learned.slots import TrainingSlots
from dtsim.allocation.problem import (
    AllocationProblem,
    ProblemSource,
    serving,
    station_delay_s,
    station_max,
    station_sum,
    user_delay_s,
)
from dtsim.core.checked import checked
from dtsim.core.seeding import Streams

_LEAST = 1e-6  # of a BS's delay: a faster MU does not matter, and the bound keeps its logarithm finite


class AnalyticPolicyGradient:
    """Minimises the log delay relative to the proportional one; its smooth maximum sharpens during training."""

    def __init__(self, config: ApgKeys, design: Design, source: ProblemSource, streams: Streams) -> None:
        self.config, self.design = config, design
        self.total, self.steps, self.updates = config.environment_steps, 0, 0
        self.slots = TrainingSlots(config, source, streams.torch("allocator/slots"))
        self.actor = design.build()
        self.optimiser = torch.optim.Adam(self.actor.parameters(), lr=config.learning_rate)

    def round(self) -> None:
        """Make one gradient update on new slots."""
        config, done = self.config, self.steps / self.total
        problem = self.slots.draw(self.updates, config.batch_size)
        action = self.actor(observe(problem))
        delay_s = self.design.actions.delay_s(problem, action)
        sharpness = config.sharpness * (config.final_sharpness / config.sharpness) ** done
        loss = smooth_log_ratio(problem, delay_s, config.reward, sharpness) + self.design.actions.penalty(
            problem, action, config.data_penalty, config.compute_penalty
        )
        for group in self.optimiser.param_groups:
            group["lr"] = config.learning_rate * (1 + math.cos(math.pi * done)) / 2
        self.optimiser.zero_grad()
        loss.mean().backward()
        torch.nn.utils.clip_grad_norm_(self.actor.parameters(), 1.0)
        self.optimiser.step()
        self.steps = min(self.total, self.steps + problem.station.shape[0])
        self.updates += 1

    def state_dict(self) -> State:
        """See `Learner`."""
        return {
            "steps": self.steps,
            "updates": self.updates,
            "actor": self.actor.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "slots": self.slots.rng.get_state(),
        }

    def load_state_dict(self, state: Mapping[str, object]) -> None:
        """See `Learner`."""
        self.steps, self.updates = (checked(state[name], int, name) for name in ("steps", "updates"))
        self.actor.load_state_dict(checked(state["actor"], dict, "actor"))
        self.optimiser.load_state_dict(checked(state["optimiser"], dict, "optimiser"))
        self.slots.rng.set_state(checked(state["slots"], Tensor, "slots"))


def smooth_log_ratio(problem: AllocationProblem, delay_s: Tensor, reward: Reward, sharpness: float) -> Tensor:
    """Minus `delay_reward` [...], with log(sum of exp(sharpness x)) / sharpness instead of the maximum of x.

    Args:
        problem: [..., K] MUs.
        delay_s: of each MU [..., K].
        reward: whether every BS counts or only the slowest one of the slot.
        sharpness: of the maximum; the smooth maximum exceeds the exact one by at most log(K) / sharpness.
    """
    usual_s = station_delay_s(problem, user_delay_s(problem, Proportional().allocate(problem)))  # [..., M]
    if reward == "log_ratio":
        slowest_s = usual_s.amax(-1, keepdim=True)
        ratio = (delay_s / torch.where(slowest_s > 0, slowest_s, 1.0)).clamp(min=_LEAST)
        return torch.logsumexp(sharpness * ratio.log(), -1) / sharpness
    busy = usual_s > 0
    ratio = (delay_s / serving(torch.where(busy, usual_s, 1.0), problem)).clamp(min=_LEAST)
    top = station_max(ratio.detach(), problem).clamp(min=_LEAST)
    excess = (sharpness * (ratio / serving(top, problem)).log()).exp()
    smooth = top.log() + torch.where(busy, station_sum(excess, problem), 1.0).log() / sharpness
    return torch.where(busy, smooth, 0.0).sum(-1) / busy.sum(-1).clamp(min=1)
