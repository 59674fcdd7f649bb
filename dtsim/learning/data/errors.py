"""What is wrong with a data set."""

from __future__ import annotations


class DatasetError(Exception):
    """A data set is missing, damaged or too small; one line says which file or class, and what to do."""
