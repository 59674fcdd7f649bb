"""Algorithm 2: the two-timescale loop, its decisions and its records."""
