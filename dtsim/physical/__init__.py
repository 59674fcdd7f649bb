"""The physical network: positions, channel, traffic, and the delays of eqs. (1)-(7), (10)."""

__all__ = ["channel", "delay", "fading", "mobility", "network", "queues", "topology", "traffic", "urban"]
