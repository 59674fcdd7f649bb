"""Allocation in time that passes: rules and learners that see queues."""

__all__ = ["queue_problem", "rules"]
