"""Channel gains from a table, as MATLAB, QuaDRiGa, DeepMIMO or Sionna RT write them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from dtsim.core.checked import checked
from dtsim.core.parts import part
from dtsim.physical.channel import Links, Radio
from dtsim.physical.traces.columns import read_columns


@dataclass(frozen=True, eq=False, kw_only=True)
class TableLinks(Links):
    """Links with the gains of a table."""

    frame: int
    """Frame of the run, counted from 0."""
    slot: int
    """Slot of the frame, counted from 0."""
    table_gain: Tensor
    """Gain averaged over the frame's small-scale fading, linear, [..., M, K]."""


@part
class GainTable(Radio):
    """Gains [N, M, K] of N frames, M base stations and K users, to which small-scale fading is added as `fading` says.

    Or [N, S, M, K] with S slots in a frame, fading included: then `fading` must be none, and the twin's forecast is the
    mean over the slots. Training slots of learned allocators take frames and users of the table at random.
    """

    path: str
    """File with the gains [path]: .npz, .mat (up to version 7.2), or CSV or Parquet with columns frame, station, user,
    gain and, if they differ within a frame, slot."""
    variable: str = "gain"
    """Name of the array in .npz and .mat."""
    unit: Literal["linear", "db"] = "db"
    """Unit of the gains: `linear` power gain, or `db` (minus the path loss)."""

    def __post_init__(self) -> None:
        try:
            gains = self._gains
        except ValueError as error:
            raise ValueError(f"path={error}") from None
        if gains.ndim == 4 and self.fading != "none":
            raise ValueError(f"fading={self.fading}: must be none where {self.path} has gains of each slot")

    @cached_property
    def _gains(self) -> np.ndarray:
        """Linear, [N, M, K] or [N, S, M, K]."""
        gains = _read(self.path, self.variable)
        if gains.ndim not in (3, 4) or not gains.size:
            raise ValueError(
                f"{self.path}: {self.variable} has shape {gains.shape}, must be [frames, BSs, users] "
                "or [frames, slots, BSs, users]"
            )
        gains = 10 ** (gains / 10) if self.unit == "db" else gains
        bad = np.argwhere(~np.isfinite(gains) | (gains < 0) | (gains > 1e6))
        if len(bad):
            place = tuple(int(index) for index in bad[0])
            raise ValueError(
                f"{self.path}: gain {gains[place]:g} at {place} must be a finite number from 0 to 1e6 (is unit right?)"
            )
        return gains

    @property
    def fixed_frames(self) -> bool:
        """True: users do not move within a frame, so that time cannot pass."""
        return True

    def check_fits(self, *, users: int, stations: int, frames: int, slots: int) -> None:
        """Check that the table has every link of a run.

        Raises:
            ValueError: in one line.
        """
        shape = self._gains.shape
        enough = shape[0] >= frames and shape[-2] == stations and shape[-1] >= users
        if not enough or (len(shape) == 4 and shape[1] < slots):
            has = " × ".join(map(str, shape))
            names = "frames × slots × BSs × users" if len(shape) == 4 else "frames × BSs × users"
            needs = (frames, slots, stations, users) if len(shape) == 4 else (frames, stations, users)
            raise ValueError(
                f"path={self.path}: has {has} gains, the run needs {' × '.join(map(str, needs))} ({names})"
            )

    def start(self, distance_m: Tensor, rng: torch.Generator) -> TableLinks:
        """The links of the first frame; with batch dimensions, of random frames and users."""
        return self._links(0, distance_m, rng)

    def next_frame(self, links: Links, distance_m: Tensor, moved_m: Tensor, rng: torch.Generator) -> TableLinks:
        """The links of the next frame."""
        return self._links(checked(links, TableLinks, "links").frame + 1, distance_m, rng)

    def next_slot(self, links: Links, speed_mps: Tensor, slot_s: float, rng: torch.Generator) -> Links:
        """The links of the next slot."""
        own = checked(super().next_slot(links, speed_mps, slot_s, rng), TableLinks, "links")
        return replace(own, slot=own.slot + 1)

    def gain(self, links: Links) -> Tensor:
        """Mean gain times |h|^2, or the table's gain of the slot; linear, [..., M, K]."""
        own = checked(links, TableLinks, "links")
        if self._gains.ndim == 3 or own.distance_m.ndim > 2:
            return super().gain(links)
        # The links of a frame are asked for one slot after its last; the last stands for it.
        slot = min(own.slot, self._gains.shape[1] - 1)
        return torch.as_tensor(self._gains[own.frame, slot, :, : own.distance_m.shape[-1]]).to(own.distance_m)

    def mean_gain(self, links: Links) -> Tensor:
        """The frame's gain without small-scale fading, linear, [..., M, K]."""
        return checked(links, TableLinks, "links").table_gain

    def line_of_sight(self, links: Links) -> Tensor:
        """True for all links, bool [..., M, K]: a table does not tell."""
        return torch.ones_like(links.distance_m, dtype=torch.bool)

    def _links(self, frame: int, distance_m: Tensor, rng: torch.Generator) -> TableLinks:
        gains = self._gains.mean(axis=1) if self._gains.ndim == 4 else self._gains  # [N, M, K]
        if distance_m.ndim > 2:
            shape = (*distance_m.shape[:-2], distance_m.shape[-1])  # [..., K]
            frames, users = (torch.randint(size, shape, generator=rng, device=rng.device) for size in gains.shape[::2])
            chosen = np.moveaxis(gains[frames.cpu().numpy(), :, users.cpu().numpy()], -1, -2)  # [..., M, K]
        else:
            chosen = gains[frame, :, : distance_m.shape[-1]]
        return TableLinks(
            distance_m=distance_m,
            fading=self._drawn_fading(distance_m, rng),
            frame=frame,
            slot=0,
            table_gain=torch.as_tensor(np.ascontiguousarray(chosen)).to(distance_m),
        )


def _read(path: str, variable: str) -> np.ndarray:
    """The array of a file, as float64.

    Raises:
        ValueError: in one line.
    """
    file = Path(path).expanduser()
    if file.suffix not in (".npz", ".mat"):
        return _listed(path)
    try:
        if file.suffix == ".npz":
            with np.load(file, allow_pickle=False) as archive:
                found = {name: archive[name] for name in archive.files if name == variable}
                names = archive.files
        else:
            from scipy.io import loadmat

            loaded = loadmat(file)
            names = [name for name in loaded if not name.startswith("__")]
            found = {name: loaded[name] for name in names if name == variable}
    except OSError as error:
        raise ValueError(f"{path}: must be a file that can be read ({error.strerror or error})") from None
    except NotImplementedError:
        raise ValueError(f"{path}: is of version 7.3: save it with -v7") from None
    except Exception as error:  # whatever a damaged archive causes
        raise ValueError(f"{path}: cannot be read ({type(error).__name__}: {' '.join(str(error).split())})") from None
    if variable not in found:
        raise ValueError(f"{path}: has no variable {variable}, must be one of {', '.join(names) or 'none'}")
    try:
        return np.asarray(found[variable], dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path}: {variable} must be an array of real numbers ({error})") from None


def _listed(path: str) -> np.ndarray:
    """Gains from a table with a row for each link."""
    table = read_columns(path, (("frame", "slot", "station", "user", "gain"), ("frame", "station", "user", "gain")))
    keys = [name for name in table.columns if name != "gain"]
    for name in keys:
        wrong = np.flatnonzero((table[name] < 0) | (table[name] > 10**7) | (table[name] % 1 != 0))
        if len(wrong):
            raise ValueError(f"{path}: {name}={table[name].iloc[wrong[0]]:g}: must be a whole number >= 0")
    places = table[keys].to_numpy(dtype=np.int64)
    shape = tuple(int(size) + 1 for size in places.max(axis=0))
    if len(np.unique(places, axis=0)) != len(places):
        raise ValueError(f"{path}: a link is given twice")
    if int(np.prod(shape)) != len(places):
        raise ValueError(
            f"{path}: has {len(places)} rows, must have one for each of {' × '.join(map(str, shape))} links"
        )
    gains = np.empty(shape)
    gains[tuple(places.T)] = table["gain"].to_numpy()
    return gains
