"""The short timescale (P3): each slot, how compute and data are shared between BSs and MUs."""

__all__ = ["allocator", "external", "heuristics", "optimal", "problem"]
