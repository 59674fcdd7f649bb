"""Algorithm 2: the two-timescale loop, its decisions and its records."""

__all__ = ["decision", "loop", "recorder", "retrainer", "scheme", "scoring", "world"]
