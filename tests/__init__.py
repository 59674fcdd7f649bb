"""The tests. These modules of dtsim, which is not imported yet, check the shapes of arrays at every call."""

from jaxtyping import install_import_hook

from tests import checking

CHECKED = ("dtsim.allocation.problem", "dtsim.physical.delay", "dtsim.twin.distribution")

install_import_hook(CHECKED, f"{checking.__name__}.checked")
