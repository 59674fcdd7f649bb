"""Prior correction of logits."""

import numpy as np
import torch
from torch import nn

from dtsim.learning.prior import corrected, log_ratio


class Likelihoods(nn.Module):
    """The exact posterior of two normal laws N(±1, 1) under the class prior `prior`, as logits."""

    def __init__(self, prior: list[float]) -> None:
        super().__init__()
        self.prior = nn.Parameter(torch.tensor(prior))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.stack([-((x + 1) ** 2) / 2, -((x - 1) ** 2) / 2], dim=1) + self.prior.log()


def test_the_exact_posterior_of_one_mix_becomes_that_of_another() -> None:
    x = torch.linspace(-3, 3, 50)
    was, now = np.array([0.5, 0.5]), np.array([0.9, 0.1])
    moved = corrected(Likelihoods(was.tolist()), log_ratio(now, was))
    wanted = Likelihoods(now.tolist())(x).softmax(dim=1)
    torch.testing.assert_close(moved(x).softmax(dim=1), wanted)


def test_correcting_again_starts_from_the_models_own_logits() -> None:
    model = Likelihoods([0.5, 0.5]).eval()
    before = model(torch.zeros(1)).clone()
    once = corrected(model, torch.tensor([1.0, 0.0]))
    twice = corrected(once, torch.tensor([0.0, 2.0]))
    torch.testing.assert_close(twice(torch.zeros(1)), before + torch.tensor([0.0, 2.0]))
    torch.testing.assert_close(model(torch.zeros(1)), before)
    assert not twice.training
