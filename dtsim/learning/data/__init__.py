"""Images: where they come from, how they are split, and how they drift."""

__all__ = ["contents", "datasets", "drift", "operators", "regular", "source", "splits", "stream", "trace", "view"]
