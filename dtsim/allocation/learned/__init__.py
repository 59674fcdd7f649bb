"""Allocators that learn: agents, networks, training, checkpoints."""
