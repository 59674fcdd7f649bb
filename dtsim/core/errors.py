"""Errors that several packages raise."""

from __future__ import annotations


class TrainingDiverged(RuntimeError):
    """A training failed: its loss or its outputs are not finite, or its loss grew too far."""
