"""dtsim: when to retrain, where to compute, and what a digital twin is worth.

`run` and `sweep` do what the command `dtsim run` does, `load` reads what it left, `compare` compares runs along any
key, and `plots` draws them. What is listed in `__all__` is public: it changes only with the major version.
"""

from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING

from wrapt import when_imported

if TYPE_CHECKING:
    from dtsim.api import JobError, run, sweep
    from dtsim.core.parts import ConfigError
    from dtsim.reporting import plots
    from dtsim.reporting.comparison import Comparison, compare
    from dtsim.reporting.finished import RunResult, SweepResult
    from dtsim.reporting.runs import ReportError, load

__all__ = [
    "Comparison",
    "ConfigError",
    "JobError",
    "ReportError",
    "RunResult",
    "SweepResult",
    "compare",
    "load",
    "plots",
    "run",
    "sweep",
]

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
    _PLACES = {
        **dict.fromkeys(("JobError", "run", "sweep"), "dtsim.api"),
        **dict.fromkeys(("Comparison", "compare"), "dtsim.reporting.comparison"),
        **dict.fromkeys(("RunResult", "SweepResult"), "dtsim.reporting.finished"),
        **dict.fromkeys(("ReportError", "load"), "dtsim.reporting.runs"),
        "ConfigError": "dtsim.core.parts",
    }

    def __getattr__(name: str) -> object:
        # Imported late: the command line must not wait for torch to show its help.
        if name not in __all__:
            raise AttributeError(f"module 'dtsim' has no attribute {name!r}")
        if name == "plots":
            return import_module("dtsim.reporting.plots")
        return getattr(import_module(_PLACES[name]), name)

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})
