"""The physical network: where stations and users are, what they send, how long it takes; (1)-(7), (10)."""
