"""The association that ignores load: every MU is served by the BS with its strongest signal."""

from __future__ import annotations

import time

import numpy as np

from dtsim.association.problem import Association, AssociationProblem, answer, lower_bound_s
from dtsim.core.parts import part


@part
class Strongest:
    """Each MU at the BS with the largest mean gain; ties go to the lower index."""

    def solve(self, problem: AssociationProblem) -> Association:
        """A heuristic solution with the closed-form lower bound."""
        started = time.perf_counter()
        station = np.argmax(problem.gain, axis=0).astype(np.int64)
        bound_s = lower_bound_s(problem)
        return answer(problem, station, bound_s=bound_s, started=started, status="heuristic", solver="strongest")
