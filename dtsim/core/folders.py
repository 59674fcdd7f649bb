"""Where things are kept that no configuration names."""

from __future__ import annotations

import os
from pathlib import Path

from platformdirs import user_cache_path


def cache_folder(given: str | None = None) -> Path:
    """Where things made once are kept: the folder that is given, else $DTSIM_CACHE, else the user's cache folder."""
    return Path(given or os.environ.get("DTSIM_CACHE") or user_cache_path("dtsim")).expanduser()
