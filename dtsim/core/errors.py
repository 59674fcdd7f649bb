"""Errors that more than one room raises."""

from __future__ import annotations


class TrainingDiverged(RuntimeError):
    """A training failed: its loss or its outputs are no numbers, or its loss became many times what it was."""
