"""Select the learner that trains an agent's policy."""

from __future__ import annotations

from functools import partial

from dtsim.allocation.learned.apg import AnalyticPolicyGradient
from dtsim.allocation.learned.keys import ApgKeys, LearnedKeys, OffPolicyKeys
from dtsim.allocation.learned.learner import LearnerFactory


def learner_of(keys: LearnedKeys) -> LearnerFactory:
    """The learner that trains a policy according to `keys`.

    Raises:
        TypeError: if `keys` belong to no agent.
    """
    if isinstance(keys, ApgKeys):
        return partial(AnalyticPolicyGradient, keys)
    if isinstance(keys, OffPolicyKeys):
        from dtsim.allocation.learned.off_policy import OffPolicyLearner  # Tianshou takes seconds to import

        return partial(OffPolicyLearner, keys)
    raise TypeError(f"{type(keys).__name__}: must be the keys of an agent")
