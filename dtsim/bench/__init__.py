"""Benchmarks: allocators against the optimum, environments and training against other libraries."""

__all__ = ["allocation", "association", "environment", "info", "queue_delays", "retraining", "twin"]
