"""What dtsim is measured by: allocators against the optimum, environments and training against their peers."""
