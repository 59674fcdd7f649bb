"""Learned allocators: agents, networks, training, checkpoints."""

__all__ = ["agents", "checkpoint", "networks", "observation", "queue_agents", "queue_observation"]
