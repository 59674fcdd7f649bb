"""Continual-learning metrics with the regions as tasks: how well an MU's model remembers the regions it visited.

a[n, r] is the accuracy, at the end of frame n, of the MU's model on held-out images of region r (`probe.Probe`).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from torch import nn

from dtsim.learning.probe import Probe


class Continual:
    """Accuracy of every MU's models in each visited region at the end of each frame so far."""

    def __init__(self, probe: Probe, users: int) -> None:
        """Start before the first frame of `users` MUs; `probe` measures accuracy."""
        self._probe = probe
        self._last: list[dict[int, float]] = [{} for _ in range(users)]  # by visited region: accuracy when last left
        self._best: list[dict[int, float]] = [{} for _ in range(users)]  # by visited region: best accuracy so far

    def end_of_frame(self, models: Sequence[nn.Module], region: np.ndarray) -> dict[str, np.ndarray]:
        """The metrics of every MU at the end of frame n.

        V is the set of regions visited so far, c the current region and E = V without c the earlier regions:

        - `average_accuracy`: mean of a[n, r] over r in V.
        - `forgetting` (Chaudhry et al. 2018, "Riemannian Walk"): mean over r in E of max a[l, r] - a[n, r], with
          l the frames before n since the first visit to r. Negative if later training helped.
        - `backward_transfer` (Lopez-Paz and Ranzato 2017, "Gradient Episodic Memory"): mean over r in E of
          a[n, r] - a[l, r], with l the last frame that the MU spent in r.

        Args:
            models: the model that each MU used last; K of them.
            region: region of each MU; int64 [K].

        Returns:
            The three metrics by name, float64 [K]; NaN if there is no earlier region or no held-out image.
        """
        rows = [self._of_user(user, model, int(region[user])) for user, model in enumerate(models)]
        names = ("average_accuracy", "forgetting", "backward_transfer")
        return dict(zip(names, np.array(rows).T, strict=True))

    def _of_user(self, user: int, model: nn.Module, here: int) -> tuple[float, float, float]:
        last, best = self._last[user], self._best[user]
        now = {region: self._probe.accuracy(model, region) for region in {*last, here}}
        earlier = [region for region in last if region != here]
        forgetting = _mean([best[region] - now[region] for region in earlier])
        transfer = _mean([now[region] - last[region] for region in earlier])
        for region, accuracy in now.items():
            best[region] = max(best.get(region, accuracy), accuracy)
        last[here] = now[here]
        return _mean(list(now.values())), forgetting, transfer


def _mean(values: list[float]) -> float:
    return float(np.mean(values)) if values else float("nan")
