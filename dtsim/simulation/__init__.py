"""Algorithm 2: the two-timescale loop, its decisions and its records."""

__all__ = [
    *("contiguous", "decision", "handover", "ledger", "loop", "power"),
    *("recorder", "retrainer", "scheme", "scoring", "world"),
]
