"""From a command line to jobs, from a job to its results."""

__all__ = [
    "arguments",
    "assembly",
    "choices",
    "completion",
    "config",
    "defaults",
    "environments",
    "experiment",
    "help",
    "hints",
    "jobs",
    "launch",
    "parts",
    "signals",
    "space",
    "study",
    "tracker",
]
