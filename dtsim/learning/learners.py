"""The models of all MUs, and the region, data and time of their last training."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import nn

from dtsim.core.errors import TrainingDiverged
from dtsim.learning.data.splits import Labelled
from dtsim.learning.data.view import View
from dtsim.learning.models import ModelCost
from dtsim.learning.stacked import can_be_stacked, train_together
from dtsim.learning.training import Retraining, Training, Watch, predict, train

_UNKNOWN = -1


@dataclass(frozen=True)
class Update:
    """One retraining of one user's model."""

    user: int
    samples: Labelled
    """Training data."""
    rng: torch.Generator
    """Shuffles the samples."""
    watch: Watch | None = None
    """Watches the training."""


@dataclass(frozen=True)
class TrainedModel:
    """A model that is to serve a user, and what it was trained on."""

    model: nn.Module
    region: int
    frame: int
    distribution: np.ndarray | None


class Learners:
    """K models that start as one base model. An update replaces a whole model; the others share the base."""

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
            home: the region of the base model's training data.
            base_distribution: class distribution of its training data; [C].
            retraining: how updates are trained and charged.
            cost: measured work of the model.
        """
        self.base = base
        self._remembered: WeakKeyDictionary[nn.Module, dict[Hashable, np.ndarray]] = WeakKeyDictionary()
        self.models = [base] * users
        self.retraining = retraining
        self.cost = cost
        self.trained_region = np.full(users, home)
        self.trained_on = np.tile(base_distribution, (users, 1))  # [K, C]
        self.updated_frame = np.zeros(users, dtype=np.int64)
        self._waiting: dict[int, TrainedModel] = {}

    def right(self, view: View, by: Sequence[nn.Module] | None = None, which: np.ndarray | None = None) -> np.ndarray:
        """Whether each image of `view` is inferred correctly by its user's model; bool [n].

        What a model said of an image is remembered: users share images, and many of them one model.

        Args:
            view: the images.
            by: other models than the users'.
            which: the one of `by` that infers each image; int64 [n].
        """
        models = self.models if by is None else by
        own_model = view.user if which is None else which
        numbers: dict[int, int] = {}
        model = np.array([numbers.setdefault(id(model), len(numbers)) for model in models])[own_model]
        looks, look = np.unique(view.look, return_inverse=True)
        group = model * len(looks) + look
        order = np.argsort(group, kind="stable")
        starts = np.flatnonzero(np.diff(group[order], prepend=-1))
        tables, asked, answers = list[np.ndarray](), list[np.ndarray](), list[torch.Tensor]()
        members = np.split(order, starts[1:]) if len(order) else []
        for own in members:
            asker, shown = models[own_model[own[0]]], int(view.look[own[0]])
            table = self._known(asker, view, shown)
            places = view.places[own]
            new = np.unique(places[table[places] == _UNKNOWN])
            tables.append(table)
            asked.append(new)
            if len(new):
                samples = view.seen(new, shown)
                answers.append(predict(asker, samples.images) == samples.labels)
        if answers:
            found = torch.cat(answers).cpu().numpy()  # one transfer
            ends = np.cumsum([len(new) for new in asked])
            for table, new, own in zip(tables, asked, np.split(found, ends[:-1]), strict=True):
                table[new] = own
        right = np.zeros(len(view), dtype=bool)
        for table, own in zip(tables, members, strict=True):
            right[own] = table[view.places[own]]
        return right

    def _known(self, model: nn.Module, view: View, look: int) -> np.ndarray:
        """Which images of the view's set `model` is known to infer correctly in one look: 1, 0 or unknown."""
        tables = self._remembered.setdefault(model, {})
        if look not in tables:
            tables[look] = np.full(view.size, _UNKNOWN, dtype=np.int8)
        return tables[look]

    def correct(self, user: int, samples: Labelled) -> int:
        """Number of `samples` that the model of `user` infers correctly."""
        return int((predict(self.models[user], samples.images) == samples.labels).sum())

    def update(
        self, updates: Sequence[Update], *, from_scratch: bool, anew: nn.Module
    ) -> list[nn.Module | TrainingDiverged]:
        """Train the models named in `updates`; return each new model, or its failure. `replace` makes it serve.

        On a GPU, or if only heads are trained, models of one architecture are trained as one stack; on a CPU, training
        whole models one by one is faster.

        Args:
            updates: at most one for each user.
            from_scratch: start from `anew` instead of the current weights.
            anew: an untrained model.
        """
        keys = self.retraining.training(from_scratch=from_scratch)
        starts = [anew if from_scratch else self.models[update.user] for update in updates]
        results: list[tuple[nn.Module, list[float]] | TrainingDiverged]
        if self._stacks(updates) and can_be_stacked(starts):
            results = train_together(
                starts,
                [update.samples for update in updates],
                keys,
                rngs=[update.rng for update in updates],
                watches=[update.watch for update in updates],
            )
        else:
            results = [self._alone(start, update, keys) for start, update in zip(starts, updates, strict=True)]
        return [result if isinstance(result, TrainingDiverged) else result[0] for result in results]

    def replace(
        self,
        user: int,
        model: nn.Module,
        *,
        region: int,
        frame: int,
        distribution: np.ndarray | None = None,
        at_once: bool = True,
    ) -> None:
        """Let `model` serve `user`: at once, or when `take_effect` is called.

        Args:
            user: the user.
            model: its new model.
            region: the region that the user was in when the model was trained.
            frame: the frame of its training.
            distribution: class distribution of its training data [C]; None: as before.
            at_once: whether it serves from now on.
        """
        trained = TrainedModel(model, region, frame, distribution)
        if at_once:
            self.serve(user, trained)
        else:
            self._waiting[user] = trained

    def take_effect(self) -> None:
        """Let all models that wait serve from now on."""
        for user, trained in self._waiting.items():
            self.serve(user, trained)
        self._waiting.clear()

    def take_waiting(self) -> dict[int, TrainedModel]:
        """The models that wait, by user; they wait no longer, and serve when they are given to `serve`."""
        waiting, self._waiting = self._waiting, {}
        return waiting

    def serve(self, user: int, trained: TrainedModel) -> None:
        """Let a model that was taken serve `user` from now on."""
        self.models[user] = trained.model
        self.trained_region[user] = trained.region
        self.updated_frame[user] = trained.frame
        if trained.distribution is not None:
            self.trained_on[user] = trained.distribution

    def _stacks(self, updates: Sequence[Update]) -> bool:
        worth_it = self.retraining.trainable == "head" or all(u.samples.images.is_cuda for u in updates)
        return len(updates) > 1 and worth_it

    @staticmethod
    def _alone(start: nn.Module, update: Update, keys: Training) -> tuple[nn.Module, list[float]] | TrainingDiverged:
        samples = update.samples
        try:
            return train(start, samples.images, samples.labels, keys, rng=update.rng, watch=update.watch)
        except TrainingDiverged as diverged:
            return diverged
