"""What the models say about the images of tasks, when their inference ends, and what the twin sees of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dtsim.learning.learners import Learners
from dtsim.physical.queues import Finished, Served, TaskQueues
from dtsim.simulation.ledger import Ledger
from dtsim.simulation.versions import Versions
from dtsim.simulation.world import Slot, World
from dtsim.twin.twin import Twin


@dataclass(frozen=True)
class EndedParts:
    """Parts of tasks whose inference ended in a slot: the uploaded or the MU's own images of a task; [n] each."""

    user: np.ndarray
    column: np.ndarray
    """Column of the task in the queues."""
    start_s: np.ndarray
    """When its inference began."""
    at_mu: np.ndarray
    """Whether the MU inferred it; bool."""

    @classmethod
    def of(cls, queues: TaskQueues, passed: Served) -> EndedParts:
        """The parts that ended in the slot that `queues` have just passed."""
        over = passed.station_over, passed.local_over
        places = [one.nonzero().cpu().numpy() for one in over]
        times = [
            start[ended].cpu().numpy()
            for start, ended in zip((queues.station_start, queues.local_start), over, strict=True)
        ]
        user, column = np.concatenate(places).T
        return cls(user, column, np.concatenate(times), np.repeat([False, True], [len(one) for one in places]))


@dataclass
class Answers:
    """Tasks under way, and which of their images are uploaded: the first ones, whole images only."""

    world: World
    learners: Learners
    twin: Twin
    versions: Versions
    ledger: Ledger

    def __post_init__(self) -> None:
        """Begin without tasks."""
        self._under_way: dict[int, tuple[Slot, np.ndarray]] = {}

    def expect(self, slot: Slot, uploaded: np.ndarray) -> None:
        """Note the tasks of `slot`, of which the first `uploaded` images [K] are sent to the base station."""
        self._under_way[slot.index] = slot, uploaded

    def infer(self, queues: TaskQueues, passed: Served) -> tuple[np.ndarray, np.ndarray]:
        """Infer what ended in the slot, each part by the version that was there when it began.

        Returns:
            Scored images inferred correctly, and scored images inferred, of every MU; int64 [K] each.
        """
        parts = EndedParts.of(queues, passed)
        tasks = [self._under_way[column + queues.first] for column in parts.column.tolist()]
        slots, users = [slot for slot, _ in tasks], parts.user.tolist()
        counts = [
            (uploaded[user], slot.images[user], slot.scored[user])
            for (slot, uploaded), user in zip(tasks, users, strict=True)
        ]
        sent, images, scored = np.array(counts, dtype=np.int64).reshape(-1, 3).T
        first = np.where(parts.at_mu, sent, 0)
        last = np.where(parts.at_mu, images, sent)
        models, which, version = self.versions.serving(users, parts.start_s.tolist(), parts.at_mu.tolist())
        view = self.world.served(slots, parts.user, first, last)
        sizes = np.maximum(np.minimum(last, scored) - first, 0)
        part = np.repeat(np.arange(len(users)), sizes)
        hit = self.learners.right(view, models, which[part]) if len(view) else np.zeros(0, dtype=bool)
        right = np.bincount(part[hit], minlength=len(users))
        for place, (slot, user) in enumerate(zip(slots, users, strict=True)):
            self.ledger.inferred(slot.index, user, bool(parts.at_mu[place]), int(right[place]), int(version[place]))
        correct, served = (
            np.bincount(parts.user, weights=of, minlength=self.world.users).astype(np.int64) for of in (right, sizes)
        )
        return correct, served

    def show_twin(self, queues: TaskQueues, passed: Served) -> None:
        """Pass the images that arrived at base stations in the slot to the twin."""
        user, column = passed.uplink_over.nonzero().cpu().numpy().T
        for one in np.unique(column).tolist():
            slot, uploaded = self._under_way[one + queues.first]
            counts = np.zeros_like(uploaded)
            arrived = user[column == one]
            counts[arrived] = uploaded[arrived]
            for who, images, places in self.world.collected(slot, counts):
                self.twin.store.upload(who, slot.region[who], images, places)

    def forget(self, finished: Sequence[Finished]) -> None:
        """Forget tasks that have ended."""
        for one in finished:
            del self._under_way[one.slot]
