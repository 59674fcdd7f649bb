"""The models of all MUs: who serves with what, trained where, on what and when."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from dtsim.learning.models import ModelCost
from dtsim.learning.splits import Labelled
from dtsim.learning.training import Retraining, Watch, predict, train


class Learners:
    """K models that start as one base model. An update replaces a model whole, so those not updated share the base."""

    def __init__(
        self,
        *,
        base: nn.Module,
        users: int,
        home: int,
        base_distribution: np.ndarray,
        retraining: Retraining,
        cost: ModelCost,
    ) -> None:
        """Give every MU the base model.

        Args:
            base: the pre-trained model.
            users: number of MUs K.
            home: the region that it was trained for.
            base_distribution: class distribution of its training data; [C].
            retraining: how updates are trained and charged.
            cost: work of the model, measured.
        """
        self.base = base
        self.models = [base] * users
        self.retraining = retraining
        self.cost = cost
        self.trained_region = np.full(users, home)
        self.trained_on = np.tile(base_distribution, (users, 1))  # [K, C]
        self.updated_frame = np.zeros(users, dtype=np.int64)

    def correct(self, user: int, samples: Labelled) -> int:
        """How many of `samples` the model of `user` infers right."""
        return int((predict(self.models[user], samples.images) == samples.labels).sum())

    def update(
        self,
        user: int,
        samples: Labelled,
        *,
        from_scratch: bool,
        anew: nn.Module,
        generator: torch.Generator,
        watch: Watch | None = None,
    ) -> list[float]:
        """Retrain the model of `user`; return the loss of every step.

        Args:
            user: the MU.
            samples: what to train on.
            from_scratch: start from `anew` rather than from the present weights.
            anew: an untrained model.
            generator: shuffles the images.
            watch: listens to the training.

        Raises:
            TrainingDiverged: at a loss that is not finite; the old model stays.
        """
        keys = self.retraining
        self.models[user], losses = train(
            anew if from_scratch else self.models[user],
            samples.images,
            samples.labels,
            epochs=keys.passes(from_scratch),
            batch_size=keys.batch_size,
            learning_rate=keys.learning_rate,
            momentum=keys.momentum,
            weight_decay=keys.weight_decay,
            schedule=keys.schedule,
            generator=generator,
            watch=watch,
        )
        return losses
