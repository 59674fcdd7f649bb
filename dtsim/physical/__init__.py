"""The physical network: positions, channel, traffic, and the delays of eqs. (1)-(7), (10)."""
