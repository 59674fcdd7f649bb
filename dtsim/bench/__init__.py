"""Benchmarks: allocators against the optimum, environments and training against other libraries."""
