"""`dtsim info`."""

from __future__ import annotations

from dtsim.cli.options import Keys, fail


def info(overrides: Keys = None) -> None:
    """What every model, or the one of model=, costs: parameters, FLOP and bytes of a sample, work of an update."""
    from dtsim.bench.info import info as show_info
    from dtsim.core.parts import ConfigError
    from dtsim.learning.data.errors import DatasetError

    try:
        show_info(overrides or [])
    except (ConfigError, DatasetError) as error:
        fail(str(error).splitlines())
