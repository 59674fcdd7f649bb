"""dtsim: when to retrain, where to compute, and what a digital twin is worth.

`run` and `sweep` do what the commands of the same names do, and `load` reads what they left.
"""

from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING

from wrapt import when_imported

if TYPE_CHECKING:
    from dtsim.api import load, run, sweep

__all__ = ["load", "run", "sweep"]

try:
    __version__ = version("dtsim")
except PackageNotFoundError:  # a source tree that was never installed
    __version__ = "0+unknown"


@when_imported("gymnasium")
def _register(_: object) -> None:
    """Make our environments known as soon as both packages are imported, in whatever order."""
    from dtsim.runner.environments import register

    register()


if not TYPE_CHECKING:

    def __getattr__(name: str) -> object:
        # Imported late: the command line must not wait for torch to show its help.
        if name not in __all__:
            raise AttributeError(f"module 'dtsim' has no attribute {name!r}")
        from dtsim import api

        return getattr(api, name)
