"""P3 as Gymnasium environments, single and batched."""

__all__ = ["environment", "queue_environment", "queue_frames", "vector"]
