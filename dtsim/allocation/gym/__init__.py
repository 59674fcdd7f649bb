"""P3 as Gymnasium environments, single and batched."""

__all__ = ["environment", "vector"]
