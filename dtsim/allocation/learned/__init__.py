"""Learned allocators: agents, networks, training, checkpoints."""
