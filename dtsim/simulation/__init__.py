"""Algorithm 2: the two-timescale loop, what it decides and what it records."""
