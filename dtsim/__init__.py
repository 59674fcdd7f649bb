"""dtsim: when to retrain, where to compute, and what a digital twin is worth."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("dtsim")
except PackageNotFoundError:  # a source tree that was never installed
    __version__ = "0+unknown"
